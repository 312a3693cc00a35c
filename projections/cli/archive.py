"""``logstore archive``: pack chapters that snapshots hold into a few large objects, and retire them."""

from __future__ import annotations

from dataclasses import asdict

import click

from logstore import KeepSettings
from logstore.errors import InvalidArgument
from projections.cli.gc import retirement_line
from projections.cli.terminal import (
    as_json,
    json_option,
    open_log,
    run,
    say,
    snapshots_kept_option,
    url_argument,
)

__all__ = ["command"]


@click.command()
@url_argument
@snapshots_kept_option
@click.option("--dry-run", is_flag=True, help="Only say which chapter would be archived; write nothing.")
@json_option
def command(url: str, snapshots_kept: int, dry_run: bool, json_: bool) -> None:
    """Archive and retire each chapter of the log at URL that may be; the store's history policy must be archive.

    WRITES the archives and a record for each chapter. Nothing is deleted: `logstore gc` does that, a grace later.
    Whoever reads goes on in the archives.
    """
    run(_archive(url, KeepSettings(snapshots_kept=snapshots_kept), dry_run, json_))


async def _archive(url: str, settings: KeepSettings, dry_run: bool, json_: bool) -> None:
    async with open_log(url, read_only=False) as log:
        if (history := log.identity.history) != "archive":
            raise InvalidArgument(
                f"this store does not archive its history history={history}; `copy --history archive` makes one"
            )
        for retirement in await log.keeper(settings).retire(dry_run=dry_run):
            say(as_json(asdict(retirement)) if json_ else retirement_line(retirement))
