"""What the verbs share: addresses, how things are said, and how long work shows that it goes on.

Results go to stdout, everything about them (positions, progress, complaints) to stderr, so that a pipe carries results
only. With ``--json`` a result is one object per line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

import logstore
from logstore import Log, LogSettings, Position, Protection
from logstore.errors import InvalidArgument, LogStoreError
from logstore.filestore import FileStore, RetryingStore, open_filestore
from logstore.notices import JsonFormatter, Notices
from logstore.protection import protect
from projections.words import duration, moment, on_one_line, size

__all__ = [
    "SECONDS",
    "address_of",
    "age_of",
    "as_json",
    "chapter_age_option",
    "duration",
    "json_option",
    "log_format_option",
    "moment",
    "notices_as",
    "open_log",
    "open_store",
    "progress_bar",
    "run",
    "say",
    "size",
    "snapshot_every_option",
    "snapshots_kept_option",
    "stage_logs_age_option",
    "url_argument",
    "watched",
    "where_to_begin",
    "wide_console",
]

_log = logging.getLogger(__name__)

T = TypeVar("T")
PACKAGES: Final = ("logstore", "projections")
UNITS_MS: Final = {"s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
PIPE_WIDTH: Final = 120
SHOWN_EVERY_S: Final = 0.2  # how often a bar looks at what is counted elsewhere


def age_of(text: str) -> int:
    """Return an age that is written as a whole number and a unit, in milliseconds.

    >>> [age_of(text) for text in ("30d", "12h", "90min", "5s")]
    [2592000000, 43200000, 5400000, 5000]
    """
    match = re.fullmatch(r"([0-9]{1,9})(s|min|h|d)", text)
    if match is None:
        raise InvalidArgument(f"not an age age={text!r:.40}; write a whole number and s, min, h or d, such as 30d")
    return int(match[1]) * UNITS_MS[match[2]]


def _convert_age(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else age_of(value)
    except InvalidArgument as error:
        raise click.BadParameter(str(error), ctx, param) from error


class Seconds(click.FloatRange):
    """A stretch of time: a number of seconds, and no less than none."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no number, too."""
        if not math.isfinite(seconds := super().convert(value, param, ctx)):
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


SECONDS: Final = Seconds(min=0)
url_argument = click.argument("url")
json_option = click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")
snapshots_kept_option = click.option(
    "--keep-snapshots",
    "snapshots_kept",
    type=click.IntRange(2),
    default=2,
    show_default=True,
    help="So many whole ones of each projection, a grace old, and all newer ones.",
)
snapshot_every_option = click.option(
    "--snapshot-every",
    type=SECONDS,
    default=3_600.0,
    show_default=True,
    help="Seconds between snapshots while rows change.",
)
chapter_age_option = click.option(
    "--chapter-age", type=SECONDS, default=86_400.0, show_default=True, help="Seconds after which a chapter ends."
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How notices look on stderr: sentences, or a line of JSON each.",
)
stage_logs_age_option = click.option(
    "--stage-logs-older-than",
    "stage_logs_age_ms",
    callback=_convert_age,
    metavar="AGE",
    help="Drop stage logs to which nothing was added for so long, such as 30d; default: never.",
)


def address_of(url: str) -> str:
    """Return the address that ``url`` means: itself, or that of a local directory when it is a plain path.

    >>> address_of("s3://bucket/cp")
    's3://bucket/cp'
    >>> address_of("/srv/control plane")
    'file:///srv/control%20plane'
    """
    if "://" in url:
        return url
    if not url or "\0" in url:
        raise InvalidArgument("not an address; use file:///directory, s3://bucket/prefix or a path")
    try:
        return Path(url).absolute().as_uri()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"not an address url={url!r:.60}; it has letters that no file's name has") from error


def open_log(url: str, *, read_only: bool = True, create: bool = False, settings: LogSettings | None = None) -> Log:
    """Return the log at ``url`` or in the directory of that path, to be entered."""
    return logstore.open(
        address_of(url),
        read_only=read_only,
        create=create,
        settings=settings,
        protection=Protection.from_environment(),
    )


def open_store(url: str) -> FileStore:
    """Return the store at ``url``, protected as the environment says, for who looks at objects."""
    return protect(RetryingStore(open_filestore(address_of(url))), Protection.from_environment())


async def where_to_begin(log: Log, after: str | None) -> Position | str | None:
    """``--after``, or where what is kept begins; says so on stderr where something was dropped."""
    if after is not None:
        return after
    oldest = await log.oldest()
    if oldest is not None and oldest.last is not None:
        click.echo(f"begins at chapter {oldest.last[0] + 1}: history before it was dropped", err=True)
    return oldest


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's work to its end."""
    return asyncio.run(work)


@contextmanager
def notices_as(log_format: str) -> Iterator[None]:
    """Within it notices come as ``--log-format`` says; as JSON so do other libraries', and what ends the verb."""
    if log_format == "text":
        yield
        return
    handler, root, ours = logging.StreamHandler(), logging.getLogger(), [*map(logging.getLogger, PACKAGES)]
    handler.setFormatter(JsonFormatter())
    levels = [logger.level for logger in ours]
    root.addHandler(handler)
    for logger in ours:
        logger.setLevel(logging.INFO)
    try:
        yield
    except LogStoreError as error:
        Notices(_log)("could-not-run", error=error)
        click.get_current_context().exit(2)
    finally:
        root.removeHandler(handler)
        for logger, level in zip(ours, levels, strict=True):
            logger.setLevel(level)


# Saying things ----------------------------------------------------------------------------------


def say(line: str, *, err: bool = False) -> None:
    """Print a line for people: what writers chose as names, keys and texts is shown, not obeyed."""
    click.echo(on_one_line(line), err=err)


def as_json(value: dict[str, Any]) -> str:
    """Return one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def wide_console() -> Console:
    """Where tables are printed: as wide as the terminal, and in a pipe wide enough for their words."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


@contextmanager
def progress_bar(title: str) -> Iterator[Bar]:
    """A bar on stderr while the work within goes on; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        yield bar


async def watched(work: Awaitable[T], title: str, count: Callable[[], int]) -> T:
    """Return what ``work`` returns; meanwhile a bar on stderr shows what ``count`` says."""
    with progress_bar(title) as bar:
        shown = bar.add_task("", total=None)
        working = asyncio.ensure_future(work)
        try:
            while not working.done():
                await asyncio.wait([working], timeout=SHOWN_EVERY_S)
                bar.update(shown, completed=count())
        finally:
            if not working.done():  # interrupted: it must not go on when what it works with is closed
                working.cancel()
                await asyncio.wait([working])
        return await working
