"""``logstore copy``: back up a log, go on with a back-up, or restore one."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from logstore import Progress, copy_store
from projections.cli.terminal import address_of, as_json, json_option, progress_bar, run, size

__all__ = ["command"]

SHOWN_EVERY_S: Final = 0.2


@click.command()
@click.argument("source")
@click.argument("target")
@json_option
def command(source: str, target: str, json_: bool) -> None:
    """Make TARGET a copy of the log at SOURCE, or bring one up to date. Both are addresses or paths.

    WRITES to TARGET, never to SOURCE; either may be in use. Every object is verified on the way. Interrupted, run it
    again: it goes on. A copy is a log of its own: once it was written to, it cannot be continued.
    """
    id_, progress = run(_copy(source, target))
    if json_:
        click.echo(as_json({"id": id_.hex(), "objects": progress.objects, "bytes": progress.bytes}))
    click.echo(f"{progress.objects} objects copied, {size(progress.bytes)}; the copy is {id_.hex()}", err=True)


async def _copy(source: str, target: str) -> tuple[bytes, Progress]:
    progress = Progress()
    with progress_bar("copying") as bar:
        task = bar.add_task("", total=None)
        copying = asyncio.ensure_future(copy_store(address_of(source), address_of(target), progress=progress))
        while not copying.done():
            await asyncio.wait([copying], timeout=SHOWN_EVERY_S)
            bar.update(task, completed=progress.objects)
        return await copying, progress
