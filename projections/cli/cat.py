"""``logstore cat``: print what is stored, once, in total order."""

from __future__ import annotations

import click

from logstore import Reader, StoredEvent
from projections.cli.jsonlines import line_of_event, to_json
from projections.cli.terminal import (
    as_json,
    json_option,
    moment,
    open_log,
    run,
    say,
    url_argument,
    where_to_begin,
)

__all__ = ["command", "kinds_of", "say_event", "say_position"]


@click.command()
@url_argument
@click.option("--after", metavar="POSITION", help="Begin behind this position, as printed by cat or tail.")
@click.option("--kinds", metavar="KIND,…", multiple=True, help="Only events of these kinds.")
@click.option("--settled", is_flag=True, help="Only what has its final place in the order.")
@click.option("--limit", type=click.IntRange(min=0), help="Stop after so many events.")
@click.option("--skip-damage", is_flag=True, help="Leave damaged sessions, say so, and go on; exit status 1.")
@json_option
def command(
    *,
    url: str,
    after: str | None,
    kinds: tuple[str, ...],
    settled: bool,
    limit: int | None,
    skip_damage: bool,
    json_: bool,
) -> None:
    """Print the events in the log at URL, in order, and on stderr the position behind the last one.

    Binary data is printed as {"$bytes": base64}. Only reads.
    """
    if run(
        _cat(
            url,
            after=after,
            kinds=kinds_of(kinds),
            settled=settled,
            limit=limit,
            skip_damage=skip_damage,
            json_=json_,
        )
    ):
        click.get_current_context().exit(1)


async def _cat(
    url: str,
    *,
    after: str | None,
    kinds: frozenset[str] | None,
    settled: bool,
    limit: int | None,
    skip_damage: bool,
    json_: bool,
) -> bool:
    """Print; whether damage was met and left."""
    async with open_log(url) as log:
        reader = log.read(
            await where_to_begin(log, after), kinds, settled=settled, on_damage="skip" if skip_damage else "raise"
        )
        printed = 0
        try:
            if limit != 0:
                async for event in reader:
                    say_event(event, json_)
                    printed += 1
                    if printed == limit:
                        break
        finally:
            say_position(reader, after)
        for damage in reader.damage:
            say(f"left damaged: {type(damage).__name__}: {damage}", err=True)
        return bool(reader.damage)


def kinds_of(options: tuple[str, ...]) -> frozenset[str] | None:
    """The kinds asked for; None: all."""
    kinds = frozenset(kind for option in options for kind in option.split(",") if kind)
    return kinds or None


def say_event(event: StoredEvent, json_: bool) -> None:
    """Print one event."""
    if json_:
        say(line_of_event(event))
    else:
        data = "" if event.data is None else as_json(to_json(event.data))
        mark = "" if event.settled else " ~"
        say(f"{moment(event.stamp)}{mark} {event.writer} {event.kind} {event.key} {event.type} {data}".rstrip())


def say_position(reader: Reader, after: str | None) -> None:
    """Print where the reader is, for ``--after``."""
    position = str(reader.position) if reader.position is not None else after
    if position is not None:
        click.echo(f"position: {position}", err=True)
