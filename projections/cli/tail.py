"""``logstore tail``: print what is stored, then what comes, until interrupted."""

from __future__ import annotations

import asyncio
import signal

import click

from logstore import Reader
from projections.cli.cat import kinds_of, say_event, say_position
from projections.cli.terminal import (
    json_option,
    log_format_option,
    notices_as,
    open_log,
    run,
    url_argument,
    where_to_begin,
)

__all__ = ["command"]


@click.command()
@url_argument
@click.option("--after", metavar="POSITION", help="Begin behind this position, as printed by cat or tail.")
@click.option("--kinds", metavar="KIND,…", multiple=True, help="Only events of these kinds.")
@click.option("--settled", is_flag=True, help="Each event when it has its final place, strictly in total order.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many events.")
@log_format_option
@json_option
def command(
    *,
    url: str,
    after: str | None,
    kinds: tuple[str, ...],
    settled: bool,
    limit: int | None,
    log_format: str,
    json_: bool,
) -> None:
    """Print the events in the log at URL, then those that come, until interrupted (Ctrl-C, SIGTERM).

    Then the position behind the last one is printed on stderr; being interrupted is how it ends: exit status 0. Without
    --settled, events come as soon as they are stored, each writer's in order; those marked ~ may yet be preceded by
    others. Only reads: sessions of dead writers hold --settled back until somebody seals them.
    """
    with notices_as(log_format):
        run(_tail(url, after=after, kinds=kinds_of(kinds), settled=settled, limit=limit, json_=json_))


async def _tail(
    url: str, *, after: str | None, kinds: frozenset[str] | None, settled: bool, limit: int | None, json_: bool
) -> None:
    async with open_log(url) as log:
        reader = log.follow(await where_to_begin(log, after), kinds, settled=settled)
        printing = asyncio.create_task(_print(reader, limit, json_))
        loop = asyncio.get_running_loop()
        for ending in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(ending, printing.cancel)
        try:
            await printing
        except asyncio.CancelledError:
            if not printing.cancelled():
                raise
        finally:
            say_position(reader, after)


async def _print(reader: Reader, limit: int | None, json_: bool) -> None:
    printed = 0
    async for event in reader:
        say_event(event, json_)
        printed += 1
        if printed == limit:
            return
