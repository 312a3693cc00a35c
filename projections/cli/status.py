"""``logstore status``: what a log holds, and what holds its watermark."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table
from rich.text import Text

from logstore import OpenSessionSurvey, Survey
from logstore.clock import COUNTER_BITS, stamp_ms
from projections.cli.terminal import as_json, json_option, open_log, run, say, url_argument, wide_console
from projections.words import duration, moment, on_one_line, size, why_not_settled

__all__ = ["command"]


@click.command()
@url_argument
@json_option
def command(url: str, json_: bool) -> None:
    """Say what the log at URL holds, who has it open, and how far its order is final.

    Asks for the roster and the ends of sessions, not for the events. Only reads.
    """
    run(_status(url, json_))


async def _status(url: str, json_: bool) -> None:
    async with open_log(url) as log:
        survey = await log.survey()
    if json_:
        why = why_not_settled(survey)
        say(as_json({**asdict(survey), "watermark_lag_ms": survey.watermark_lag_ms, "why": why}))
        return
    for name, value in _facts(survey):
        say(f"{name:<10} {value}")
    if survey.open_sessions:
        wide_console().print(_sessions(survey))


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
