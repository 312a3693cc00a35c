"""``logstore console``: pages in a browser that show a log, while it is in use."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import click

from logstore.errors import NotFound
from projections import Collection
from projections.cli.projection import load_collections, load_labels
from projections.cli.terminal import (
    address_of,
    as_json,
    json_option,
    log_format_option,
    notices_as,
    open_log,
    run,
    url_argument,
)
from projections.console import Console, Source
from projections.console.look import Labels
from projections.listening import CannotListen

__all__ = ["PORT", "command", "console_beside", "serve_option"]

PORT: Final = 8420
LOOK_S: Final = 0.05  # between looks whether there is a log

serve_option = click.option(
    "--serve", is_flag=True, help="Show the log in a browser meanwhile, and afterwards until Ctrl-C."
)


@click.command()
@url_argument
@click.option(
    "--collections", metavar="MODULE:NAME", multiple=True, help="Collections of documents to show, or a list; repeat."
)
@click.option("--labels", metavar="MODULE:NAME", help="What values are called: {kind: {field: an enum, or a map}}.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen. Who reaches it sees the log.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0: any that is free.")
@click.option("--once", is_flag=True, help="Start, fetch each page of the menu, say how that went, end.")
@log_format_option
@json_option
def command(
    *,
    url: str,
    collections: tuple[str, ...],
    labels: str | None,
    host: str,
    port: int,
    once: bool,
    log_format: str,
    json_: bool,
) -> None:
    """Show the log at URL in a browser, until interrupted (Ctrl-C, SIGTERM): what it holds, as it moves.

    With --collections their documents, too: to be filtered, with their history and as they were. Only reads, follows
    the log meanwhile, and asks nobody for a password: on another --host than loopback, put it behind what does.
    """
    declared = [collection for text in collections for collection in load_collections(text)]
    named = load_labels(labels) if labels is not None else {}
    with notices_as(log_format):
        all_well = run(_console(url, declared, named, host=host, port=port, once=once, json_=json_))
    if not all_well:
        click.get_current_context().exit(1)


async def _console(
    url: str, collections: Sequence[Collection], labels: Labels, *, host: str, port: int, once: bool, json_: bool
) -> bool:
    """Serve; whether all was well."""
    async with (
        open_log(url) as log,
        Source(log, collections, labels) as source,
        Console(source, address_of(url), host, port).serving() as console,
    ):
        if once:
            return await _look_once(console, json_)
        ended = interruption()
        click.echo(as_json({"url": console.url}) if json_ else f"{console.url}  (Ctrl-C ends it)")
        await ended.wait()
    return True


@asynccontextmanager
async def console_beside(
    address: str, place: str, collections: Sequence[Collection] = (), labels: Labels | None = None
) -> AsyncIterator[None]:
    """Show the log at ``address`` as soon as somebody has made one there; after what is within, until interrupted."""
    async with AsyncExitStack() as stack:
        serving = asyncio.create_task(_serve_when_there(stack, address, place, collections, labels))
        try:
            yield
            await serving
            ended = interruption()
            click.echo("the console goes on until Ctrl-C", err=True)
            await ended.wait()
        finally:
            serving.cancel()
            await asyncio.wait([serving])


async def _serve_when_there(
    stack: AsyncExitStack, address: str, place: str, collections: Sequence[Collection], labels: Labels | None
) -> None:
    log = None
    while log is None:
        try:
            log = await stack.enter_async_context(open_log(address))
        except NotFound:
            await asyncio.sleep(LOOK_S)
    source = await stack.enter_async_context(Source(log, collections, labels))
    try:
        console = await stack.enter_async_context(Console(source, place, port=PORT).serving())
    except CannotListen:
        console = await stack.enter_async_context(Console(source, place).serving())
    click.echo(f"console: {console.url}", err=True)


def interruption() -> asyncio.Event:
    """What SIGINT and SIGTERM set from now on."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for ending in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(ending, ended.set)
    return ended


async def _look_once(console: Console, json_: bool) -> bool:
    """Fetch the pages of the menu; whether all were answered."""
    import aiohttp

    well = True
    async with aiohttp.ClientSession() as session:
        paths = ["/"]
        for path in paths:
            async with session.get(f"{console.reachable}{path.removeprefix('/')}") as answer:
                page = await answer.text()
            if path == "/":
                menu = re.search(r"<nav.*?</nav>", page)
                paths += re.findall(r'href="(/\w+)"', menu.group() if menu else "")
            well &= answer.status == 200
            told = {"path": path, "status": answer.status, "bytes": len(page.encode())}
            click.echo(as_json(told) if json_ else f"{answer.status} {path} {told['bytes']} bytes")
    return well
