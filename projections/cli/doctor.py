"""``logstore doctor``: whether the store, the log in it and this machine's clock are fit."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass

import click

from logstore import Survey
from logstore.clock import SKEW_MS_MAX
from logstore.errors import Corrupt, LogStoreError, Missing, NotFound
from logstore.filestore import RetryingStore, open_filestore, probe
from projections.cli.terminal import address_of, as_json, json_option, open_log, run, say, url_argument
from projections.health import Concern, about_clock, about_sessions, about_stamps
from projections.words import why_not_settled

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
    """What `logstore status` would say of clock, stamps and sessions, and what is well."""
    skew = f"skew_ms={survey.skew_ms} bound_ms={SKEW_MS_MAX}"
    sessions = f"{len(survey.open_sessions)} open; {why_not_settled(survey)}"
    return [
        Diagnosis("log", True, f"store={survey.store_id} events={survey.events} sessions={survey.sessions}"),
        *_looked_at("clock", about_clock(survey), survey, f"this machine's clock and the store's agree {skew}"),
        *_looked_at("stamps", about_stamps(survey), survey, "none is ahead of the store's clock"),
        *_looked_at("sessions", about_sessions(survey), survey, sessions),
    ]


def _looked_at(check: str, found: list[Concern], survey: Survey, well: str) -> list[Diagnosis]:
    if not found:
        return [Diagnosis(check, True, well)]
    return [Diagnosis(check, False, concern.said(survey.now_ms)) for concern in found]
