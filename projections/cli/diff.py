"""``logstore diff``: which rows of a projection changed between two moments, and how."""

from __future__ import annotations

import click

from projections import Change, diff
from projections.cli.jsonlines import to_json
from projections.cli.projection import load_projection, projection_option
from projections.cli.terminal import as_json, json_option, open_log, run, say, url_argument
from projections.past import Moment, parse_moment

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
    changes = run(_diff(url, projection, parse_moment(before, "--from"), parse_moment(after, "--to")))
    for change in changes:
        say(as_json(_values(change)) if json_ else _line(change))
    click.echo(f"{len(changes)} rows differ", err=True)


async def _diff(url: str, projection: str, before: Moment, after: Moment) -> list[Change]:
    async with open_log(url) as log:
        return await diff(log, load_projection(projection), before, after)


def _values(change: Change) -> dict[str, object]:
    return {"key": change.key, "old": to_json(change.old), "new": to_json(change.new)}


def _line(change: Change) -> str:
    sign = "+" if change.old is None else "-" if change.new is None else "~"
    shown = [as_json(to_json(row)) for row in (change.old, change.new) if row is not None]
    return f"{sign} {change.key} {' -> '.join(shown)}"
