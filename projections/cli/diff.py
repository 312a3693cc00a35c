"""``logstore diff``: which rows of a projection changed between two moments, and how."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from logstore.errors import InvalidArgument
from projections import Change, diff
from projections.cli.jsonlines import to_json
from projections.cli.projection import load_projection, projection_option
from projections.cli.terminal import as_json, json_option, open_log, run, url_argument
from projections.past import Moment

__all__ = ["command"]


@click.command()
@url_argument
@projection_option
@click.option("--from", "before", required=True, metavar="TIME", help="The earlier moment.")
@click.option("--to", "after", required=True, metavar="TIME", help="The later moment.")
@json_option
def command(url: str, projection: str, before: str, after: str, json_: bool) -> None:
    """Print the rows of a projection over the log at URL that differ between two moments.

    A TIME is 2026-11-26T10:00:00Z, or a stamp as `cat --json` prints it. Both must be settled: see `logstore status`.
    """
    changes = run(_diff(url, projection, _moment(before, "--from"), _moment(after, "--to")))
    for change in changes:
        click.echo(as_json(_values(change)) if json_ else _line(change))
    click.echo(f"{len(changes)} rows differ", err=True)


async def _diff(url: str, projection: str, before: Moment, after: Moment) -> list[Change]:
    async with open_log(url) as log:
        return await diff(log, load_projection(projection), before, after)


def _moment(text: str, option: str) -> Moment:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidArgument(f"not a time {option}={text}; write 2026-11-26T10:00:00Z, or a stamp") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _values(change: Change) -> dict[str, object]:
    return {"key": change.key, "old": to_json(change.old), "new": to_json(change.new)}


def _line(change: Change) -> str:
    sign = "+" if change.old is None else "-" if change.new is None else "~"
    shown = [as_json(to_json(row)) for row in (change.old, change.new) if row is not None]
    return f"{sign} {change.key} {' -> '.join(shown)}"
