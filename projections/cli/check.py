"""``logstore check``: walk everything and list all that is wrong."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import asdict

import click

from logstore.check import check
from logstore.filestore.base import FileStore
from logstore.finding import Progress
from projections.cli.terminal import (
    as_json,
    json_option,
    open_store,
    progress_bar,
    run,
    say,
    size,
    url_argument,
)

__all__ = ["command"]


@click.command()
@url_argument
@click.option("--notes/--no-notes", default=True, help="Also print what is no damage (the default).")
@json_option
def command(url: str, notes: bool, json_: bool) -> None:
    """Fetch and verify every object in the log at URL; list all damage, and notes.

    Exit status 0 without damage, 1 with. Works where the log cannot even be opened. Only reads.
    """
    if run(_check(url, notes, json_)):
        click.get_current_context().exit(1)


async def _check(url: str, notes: bool, json_: bool) -> int:
    """Print the findings; return how many of them are damage."""
    store, progress = open_store(url), Progress()
    damages = 0
    try:
        with progress_bar("checking") as bar:
            task = bar.add_task("", total=None if bar.disable else await _count(store))
            async with aclosing(check(store, progress)) as findings:
                async for finding in findings:
                    bar.update(task, completed=progress.objects)
                    damages += finding.severity == "damage"
                    if notes or finding.severity == "damage":
                        say(as_json(asdict(finding)) if json_ else str(finding))
    finally:
        await store.aclose()
    seen = f"{progress.objects} objects, {progress.entries} entries, {progress.segments} segments"
    click.echo(f"{seen}, {progress.events} events, {size(progress.bytes)}: damage in {damages} places", err=True)
    return damages


async def _count(store: FileStore) -> int:
    return sum([1 async for _ in store.list("")])
