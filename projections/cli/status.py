"""``logstore status``: what a log holds, what holds its watermark, and what is wrong and what to do."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from logstore import OpenSessionSurvey, Survey
from logstore.clock import COUNTER_BITS, stamp_ms
from projections.cli.terminal import (
    as_json,
    chapter_age_option,
    json_option,
    open_log,
    run,
    say,
    snapshot_every_option,
    snapshots_kept_option,
    url_argument,
    wide_console,
)
from projections.health import Concern, Facts, HealthSettings, concerns
from projections.words import duration, moment, on_one_line, size, why_not_settled

__all__ = ["command"]


@click.command()
@url_argument
@chapter_age_option
@snapshot_every_option
@snapshots_kept_option
@json_option
def command(url: str, chapter_age: float, snapshot_every: float, snapshots_kept: int, json_: bool) -> None:
    """Say what the log at URL holds, who has it open, how far its order is final; what is wrong, and what to do.

    Asks for the roster, the ends of sessions and the snapshots, not for the events. Only reads. Tell it what the log's
    `keep` is told, where that is not the default. Exit status 1 when something is wrong.
    """
    settings = HealthSettings(
        chapter_age_ms=round(chapter_age * 1_000),
        snapshot_ms=round(snapshot_every * 1_000),
        snapshots_kept=snapshots_kept,
    )
    if run(_status(url, settings, json_)):
        click.get_current_context().exit(1)


async def _status(url: str, settings: HealthSettings, json_: bool) -> bool:
    """Print it; whether anything is wrong."""
    async with open_log(url) as log:
        survey = await log.survey()
        found = concerns(Facts(survey, await log.snapshots.survey(), await log.pins.live()), settings)
    if json_:
        why = why_not_settled(survey)
        told = {"watermark_lag_ms": survey.watermark_lag_ms, "why": why, "concerns": [asdict(one) for one in found]}
        say(as_json({**asdict(survey), **told}))
        return bool(found)
    for name, value in [*_facts(survey), ("health", _health(found))]:
        say(f"{name:<10} {value}")
    if survey.open_sessions:
        wide_console().print(_sessions(survey))
    for concern in found:
        say(f"! {concern.said(survey.now_ms)}")
    return bool(found)


def _health(found: list[Concern]) -> str:
    return f"{len(found)} of concern, see below" if found else "nothing is wrong"


def _facts(survey: Survey) -> list[tuple[str, str]]:
    newest = survey.newest_entry_stamp
    chapters = f"{survey.chapters}" + (f", and {survey.chapters_retired} retired" if survey.chapters_retired else "")
    return [
        ("store", survey.store_id),
        ("created", moment(survey.created_ms << COUNTER_BITS)),
        ("history", f"{survey.history}, grace {duration(survey.grace_ms)}"),
        ("chapters", chapters),
        ("entries", f"{survey.entries}, the newest {_age(survey, newest)}" if newest else "0"),
        ("writers", str(len(survey.writers))),
        ("sessions", f"{survey.sessions}, {len(survey.open_sessions)} of them open"),
        ("events", f"{survey.events}" + (f", the newest {_age(survey, survey.newest_stamp)}" if survey.events else "")),
        ("segments", f"{survey.segments}, {size(survey.bytes)}"),
        ("watermark", why_not_settled(survey)),
        ("clock", f"the store's is {_skew(survey.skew_ms)} this machine's"),
    ]


def _sessions(survey: Survey) -> Table:
    table = Table(
        "writer", "session", "slots", "events", "last stamp", "silent for", "seal time", "", title="Open sessions"
    )
    for session in survey.open_sessions:
        table.add_row(
            Text(on_one_line(session.writer)),  # not markup
            f"{session.chapter}/{session.session}",
            str(session.slots),
            str(session.events),
            _age(survey, session.last_stamp),
            duration(session.silent_ms),
            duration(session.seal_ms),
            _remark(session),
        )
    return table


def _remark(session: OpenSessionSurvey) -> str:
    remarks = ["holds the watermark"] if session.holds_watermark else []
    return ", ".join([*remarks, "may be sealed"] if session.may_be_sealed else remarks)


def _age(survey: Survey, stamp: int) -> str:
    if survey.now_ms is None:
        return moment(stamp)
    age_ms = survey.now_ms - stamp_ms(stamp)
    return f"{duration(age_ms)} ago" if age_ms >= 0 else f"{duration(-age_ms)} ahead of the store's clock"


def _skew(skew_ms: int) -> str:
    if skew_ms == 0:
        return "with"
    return f"{duration(abs(skew_ms))} {'ahead of' if skew_ms > 0 else 'behind'}"
