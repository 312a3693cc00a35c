"""``logstore doctor``: whether the store, the log in it and this machine's clock are fit."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass

import click

from logstore import Survey
from logstore.clock import SKEW_MS_MAX, stamp_ms
from logstore.errors import Corrupt, LogStoreError, Missing, NotFound
from logstore.filestore import RetryingStore, open_filestore, probe
from projections.cli.terminal import address_of, as_json, json_option, open_log, run, say, url_argument
from projections.words import duration, why_not_settled

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing looked at: whether it is well, and what was seen."""

    check: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok     ' if self.ok else 'FINDING'} {self.check}: {self.detail}"


@click.command()
@url_argument
@click.option("--probe", "probe_", is_flag=True, help="WRITES: put the store to the test under probe/, then clean up.")
@json_option
def command(url: str, probe_: bool, json_: bool) -> None:
    """Look at the store at URL, the log in it, and this machine's clock; say what is not well.

    Only reads, unless --probe is given: then about 1,100 small objects are written under probe/ and removed again, to
    see whether the store keeps the promises that a log depends on. Safe beside a log in use. Exit status 1
    with findings.
    """
    diagnoses = run(_examine(url, probe_))
    for diagnosis in diagnoses:
        say(as_json(asdict(diagnosis)) if json_ else str(diagnosis))
    if not all(diagnosis.ok for diagnosis in diagnoses):
        click.get_current_context().exit(1)


async def _examine(url: str, probe_: bool) -> list[Diagnosis]:
    diagnoses = await _examine_log(url)
    if probe_:
        store = RetryingStore(open_filestore(address_of(url)))
        try:
            for finding in await probe(store, nonce=secrets.token_hex(8)):
                diagnoses.append(Diagnosis(f"store: {finding.check}", finding.ok, finding.detail))
        finally:
            await store.aclose()
    return diagnoses


async def _examine_log(url: str) -> list[Diagnosis]:
    try:
        async with open_log(url) as log:
            try:
                return _judge(await log.survey())
            except (Corrupt, Missing) as damage:
                return [_damaged(damage)]
    except NotFound:
        return [Diagnosis("log", True, "there is none here yet; the first writer makes it")]
    except (Corrupt, Missing) as damage:
        return [_damaged(damage)]


def _damaged(damage: LogStoreError) -> Diagnosis:
    return Diagnosis("log", False, f"{type(damage).__name__}: {damage}; `logstore check` lists all damage")


def _judge(survey: Survey) -> list[Diagnosis]:
    return [
        Diagnosis("log", True, f"store={survey.store_id} events={survey.events} sessions={survey.sessions}"),
        _judge_clock(survey),
        _judge_stamps(survey),
        _judge_sessions(survey),
    ]


def _judge_clock(survey: Survey) -> Diagnosis:
    skew = f"skew_ms={survey.skew_ms} bound_ms={SKEW_MS_MAX}"
    if abs(survey.skew_ms) > SKEW_MS_MAX:
        return Diagnosis("clock", False, f"this machine can open no session: repair its time synchronisation {skew}")
    return Diagnosis("clock", True, f"this machine's clock and the store's agree {skew}")


def _judge_stamps(survey: Survey) -> Diagnosis:
    """One bad clock pushes everybody's stamps; the store's time tells."""
    newest = max(survey.newest_stamp, survey.newest_entry_stamp)
    ahead_ms = 0 if survey.now_ms is None else stamp_ms(newest) - survey.now_ms
    if ahead_ms > SKEW_MS_MAX:
        detail = f"the newest stamp is {duration(ahead_ms)} ahead of the store's clock; some writer's clock was off"
        return Diagnosis("stamps", False, detail)
    return Diagnosis("stamps", True, "none is ahead of the store's clock")


def _judge_sessions(survey: Survey) -> Diagnosis:
    silent = [session for session in survey.open_sessions if session.may_be_sealed]
    if silent:
        detail = f"{len(silent)} were silent for their seal time; run `logstore seal` ({why_not_settled(survey)})"
        return Diagnosis("sessions", False, detail)
    return Diagnosis("sessions", True, f"{len(survey.open_sessions)} open; {why_not_settled(survey)}")
