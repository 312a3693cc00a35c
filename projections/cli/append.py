"""``logstore append``: store the events that stand on stdin, a line of JSON each.

What is stored is always a beginning of the input: lines are appended in order, some at a time, and whatever stops
this (a bad line, the store, Ctrl-C) stops it at a line that is named. So the input can be mended and taken up there.
"""

from __future__ import annotations

import asyncio
import sys

import click

from logstore import Event, LogStoreError, Receipt, Unknown, Writer
from logstore.errors import InvalidArgument
from logstore.event import EventEncoder
from projections.cli.inputs import batches_of_lines
from projections.cli.jsonlines import event_of_line
from projections.cli.terminal import as_json, json_option, open_log, run, url_argument

__all__ = ["command"]


class Stopped(click.ClickException):
    """What stopped the input, and how far it is stored."""

    exit_code = 2


@click.command()
@url_argument
@click.option("--writer", "name", default="cli", show_default=True, help="Append under this writer's name.")
@json_option
def command(url: str, name: str, json_: bool) -> None:
    """Append the events on stdin to the log at URL, which is made if there is none.

    WRITES. A line is {"kind": …, "key": …, "type": …, "data": {…}, "meta": {…}}; data and meta may be left out, binary
    data is {"$bytes": base64}. What cat --json prints can be appended. A bad line stops the input: everything before it
    is stored, it and everything behind it is not; the message says its number. Exit status 2 then.
    """
    run(_append(url, name, json_))


class _Tally:
    """How much of the input is stored for certain."""

    def __init__(self) -> None:
        self.lines = self.events = self.segments = 0
        self.receipt: Receipt | None = None

    def __str__(self) -> str:
        through = f"lines 1 to {self.lines}" if self.lines else "nothing"
        return f"stored: {through}, {self.events} events in {self.segments} segments"


async def _append(url: str, name: str, json_: bool) -> None:
    tally = _Tally()
    try:
        async with open_log(url, read_only=False, create=True) as log, log.writer(name) as writer:
            await _append_input(writer, tally)
    except asyncio.CancelledError:
        click.echo(f"{tally}; interrupted: lines behind may be stored or not", err=True)
        raise
    if json_:
        receipt = None if tally.receipt is None else str(tally.receipt)
        click.echo(as_json({"lines": tally.lines, "events": tally.events, "last_receipt": receipt}))
    else:
        click.echo(str(tally))


async def _append_input(writer: Writer, tally: _Tally) -> None:
    number, encoder = 0, EventEncoder()
    async for lines in batches_of_lines(sys.stdin.buffer, "stdin"):
        events: list[Event] = []
        bad: InvalidArgument | None = None
        for line in lines:
            number += 1
            try:
                if line.strip():
                    event = event_of_line(line)
                    encoder.encode(event)
                    events.append(event)
            except InvalidArgument as error:
                bad, number = error, number - 1
                break
        await _store(writer, events, number, tally)
        if bad is not None:
            raise Stopped(
                f"line {number + 1}: {type(bad).__name__}: {bad}\n{tally}; nothing from line {number + 1} on"
            ) from bad


async def _store(writer: Writer, events: list[Event], last_line: int, tally: _Tally) -> None:
    """Append the events of the lines up to ``last_line``, all or none."""
    try:
        if events:
            tally.receipt = await writer.append_many(events)
            tally.segments += 1
    except LogStoreError as error:
        lines = f"lines {tally.lines + 1} to {last_line}"
        if isinstance(error, Unknown):
            what = f"{lines} may be stored or not, nothing behind is; to settle it: log.resolve({error.token!r})"
        else:
            what = f"nothing from line {tally.lines + 1} on"
        raise Stopped(f"{lines}: {type(error).__name__}: {error}\n{tally}; {what}") from error
    tally.events += len(events)
    tally.lines = last_line
