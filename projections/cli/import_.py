"""``logstore import``: append what ``export`` wrote, or lines like it, each event exactly once; or create documents.

What is stored of events is always a beginning of the input. Its marks (``marks.py``) are in the log, each stored
together with the events that it speaks of. So an import that was broken off, anywhere, is run again as it was: what is
there is skipped. Documents are in ``documentimport.py``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import click

from logstore import Event, Log, LogStoreError, Unknown, Writer
from logstore.errors import InvalidArgument, LimitExceeded
from logstore.event import EventEncoder
from logstore.filestore.base import FileStore
from projections import Collection, DocumentStore
from projections.cli.documentimport import DocumentImport
from projections.cli.inputs import Stopped, batches_of_lines
from projections.cli.jsonlines import event_and_place
from projections.cli.marks import Mark, RunningDigest, end_sessions, find_mark, with_mark, with_origin
from projections.cli.projection import load_collection, load_model
from projections.cli.terminal import as_json, json_option, open_log, open_store, progress_bar, run, url_argument
from projections.model import PLAIN, Model

__all__ = ["Import", "command"]

BATCH_EVENTS_MAX: Final = 10_000  # what append_many takes at once
BATCH_BYTES_MAX: Final = (8 << 20) - (1 << 10)  # likewise, less what a mark may weigh


@click.command()
@url_argument
@click.argument("file", default="-")
@click.option("--as", "as_", type=click.Choice(["events", "documents"]), default="events", show_default=True)
@click.option("--writer", "name", default="import", show_default=True, help="Write under this writer's name.")
@click.option("--source", metavar="NAME", help="What the input is called; by default its first event tells it apart.")
@click.option("--collection", metavar="MODULE:NAME", help="Which collection the documents become part of.")
@click.option("--model", metavar="MODULE:CLASS", help="Refuse documents of which this class cannot be made.")
@click.option("--key", "key_field", metavar="FIELD", help="Which field of a document is its key; by default id.")
@json_option
def command(
    *,
    url: str,
    file: str,
    as_: str,
    name: str,
    source: str | None,
    collection: str | None,
    model: str | None,
    key_field: str | None,
    json_: bool,
) -> None:
    """Append the events in FILE (stdin without one) to the log at URL, which is made if there is none.

    WRITES. Lines are those of export, or {"kind": …, "key": …, "type": …, "data": {…}, "meta": {…}}. Where an event
    stood before goes into its meta, as "imported". Interrupted, or stopped by a bad line that you mended, run it again
    with the same writer: what is stored already is skipped, also if the input has grown at its end. One import at a
    time per writer: what another one left open under that name is ended.

    With --as documents lines are documents, each with its key in a field, or {"key": …, "document": {…}} as export
    --collection writes them. Each is created unless it is there; then all are compared, and count and digest printed.
    Exit status 1 when not all of them are there as in FILE. Interrupted, run it again.
    """
    if not name:
        raise InvalidArgument("needs a name --writer=''")
    if as_ == "events":
        if collection is not None or model is not None or key_field is not None:
            raise InvalidArgument("--collection, --model and --key are for documents; add --as documents")
        run(_import_events(url, file, name, source, json_))
        return
    if collection is None:
        raise InvalidArgument("documents need their collection; name it by --collection MODULE:NAME")
    if source is not None:
        raise InvalidArgument("documents are known by their keys; leave out --source")
    work = _import_documents(
        url,
        file,
        name,
        load_collection(collection),
        key_field=key_field,
        model=PLAIN if model is None else load_model(model),
        json_=json_,
    )
    if not run(work):
        click.get_current_context().exit(1)


async def _import_events(url: str, file: str, name: str, source: str | None, json_: bool) -> None:
    with _input(file) as lines:
        store = open_store(url)
        try:
            async with open_log(url, read_only=False, create=True) as log:
                importing = Import(log, store, name, source, lines.label)
                await _take_in(importing, lines)
        finally:
            await store.aclose()
    if json_:
        values = {"source": importing.source, "skipped": importing.skipped, "imported": importing.imported}
        click.echo(as_json(values))
    click.echo(str(importing), err=True)


async def _import_documents(
    url: str,
    file: str,
    name: str,
    collection: Collection,
    *,
    key_field: str | None,
    model: Model[Any],
    json_: bool,
) -> bool:
    """Import them; whether all of them are there, as in the file."""
    if collection.exclusive:
        raise InvalidArgument(
            f"an exclusive collection is written by the leader of all its kinds collection={collection.kind};"
            " create its documents in transactions of that leader"
        )
    if collection.owners and not collection.may_import(name):
        click.echo(
            f"{name} is no importer of {collection.kind}: documents with fields that have owners are refused, unless"
            " it owns these; name it in the collection by importers=…",
            err=True,
        )
    with _input(file) as lines:
        async with open_log(url, read_only=False, create=True) as log:
            await end_sessions(log, name)
            async with DocumentStore.open(log, writer=name, collections=[collection]) as db:
                documents = db.collection(collection.kind)
                importing = DocumentImport(documents, collection.kind, lines.label, key_field, model=model)
                await _take_in(importing, lines)
                verified = await importing.verify()
        if not verified.documents:
            click.echo(f"{lines.label}: there is no document in it", err=True)
    if json_:
        counts = {name: getattr(importing, name) for name in ("created", "found", "repeated", "refused")}
        click.echo(as_json({"collection": collection.kind, **counts, **verified._asdict()}))
    else:
        click.echo(str(verified))
    click.echo(str(importing), err=True)
    return not (importing.refused or verified.differing)


class _Input(NamedTuple):
    """What is imported: its lines, what it is called in messages, and its size if that is known."""

    stream: BinaryIO
    label: str
    bytes: int | None


@contextmanager
def _input(file: str) -> Iterator[_Input]:
    if file == "-" and sys.stdin is None:
        raise InvalidArgument("stdin is closed; name a FILE")
    if file == "-":
        yield _Input(sys.stdin.buffer, "stdin", None)
    else:
        with _open(file) as stream:
            yield _Input(stream, file, os.fstat(stream.fileno()).st_size)


async def _take_in(importing: Import | DocumentImport, lines: _Input) -> None:
    """Import all lines of an input, with a bar that says how much that is."""
    with progress_bar("importing") as bar:
        task = bar.add_task("", total=lines.bytes)
        try:
            async with aclosing(importing.run(batches_of_lines(lines.stream, lines.label))) as running:
                async for _ in running:
                    bar.update(task, completed=importing.bytes)
        except asyncio.CancelledError:
            click.echo(f"{importing}; interrupted: run it again", err=True)
            raise


def _open(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise InvalidArgument(f"cannot be read file={file} cause={error.strerror}") from error


class Import:
    """One import: an input, and how much of it is stored for certain."""

    def __init__(
        self,
        log: Log,
        store: FileStore,
        name: str,
        source: str | None,
        label: str,
        *,
        batch_events: int = BATCH_EVENTS_MAX,
    ) -> None:
        self._log = log
        self._store = store
        self._name = name
        self._label = label
        self._batch_events = batch_events
        self._digest = RunningDigest(source)
        self._encoder = EventEncoder()
        self._mark: Mark | None = None  # how far the input was imported before
        self._begun = False
        self._events: list[Event] = []  # the batch
        self._events_bytes = 0
        self._lines = 0  # read
        self._lines_stored = 0
        self.skipped = 0
        self.imported = 0
        self.bytes = 0

    @property
    def source(self) -> str | None:
        """What the input is called; None: nothing of it was read."""
        return self._digest.source

    def __str__(self) -> str:
        through = f"lines 1 to {self._lines_stored} of {self._label}" if self._lines_stored else "nothing"
        return f"imported: {through}: {self.imported} events, and {self.skipped} that were there before"

    async def run(self, batches: AsyncIterator[list[bytes]]) -> AsyncGenerator[None, None]:
        """Append all lines that are not there yet; yields now and then. Raises Stopped."""
        async with self._log.writer(self._name) as writer:
            async for lines in batches:
                for line in lines:
                    self._lines += 1
                    self.bytes += len(line) + 1
                    if line.strip():
                        await self._take(line, writer)
                yield
            await self._store_batch(writer)
        if self._mark is not None and self._digest.events < self._mark.events:
            raise Stopped(
                f"{self._label}: the input has {self._digest.events} events, and {self._mark.events} of it were"
                f" imported before source={self.source}; if it is another input, name it with --source"
            )

    async def _take(self, line: bytes, writer: Writer) -> None:
        """One more event: skipped, or put into the batch."""
        try:
            event, place = event_and_place(line)
            _, key, _, payload, _ = encoded = self._encoder.encode(event)
            made = with_origin(event, place)
            size = sum(map(len, (key, payload, self._encoder.encode(made)[-1] or b"")))
        except InvalidArgument as error:
            number = self._lines
            self._lines -= 1
            await self._store_batch(writer)
            raise Stopped(
                f"{self._label}: line {number}: InvalidArgument: {error}\n{self}; nothing from line {number} on"
            ) from error
        if self._events and (len(self._events) == self._batch_events or self._events_bytes + size > BATCH_BYTES_MAX):
            self._lines -= 1
            await self._store_batch(writer)
            self._lines += 1
        self._digest.add(encoded, place)
        if not self._begun:
            await self._begin()
        if self._mark is not None and self._digest.events <= self._mark.events:
            self._skip()
        else:
            self._events.append(made)
            self._events_bytes += size

    async def _begin(self) -> None:
        """Now that the input has a name: how far was it imported before?"""
        self._begun = True
        await end_sessions(self._log, self._name)
        assert self._digest.source is not None
        self._mark = await find_mark(self._store, self._name, self._digest.source)

    def _skip(self) -> None:
        assert self._mark is not None
        self.skipped += 1
        if self._digest.events == self._mark.events:
            if self._digest.mark != self._mark:
                raise Stopped(
                    f"{self._label}: it begins like an input of which {self._mark.events} events were imported before,"
                    f" and differs from it further on source={self.source}; nothing is imported. If it is another"
                    " input, name it with --source; if it is a later export of one log, export with --settled"
                )
            self._lines_stored = self._lines

    async def _store_batch(self, writer: Writer) -> None:
        """Append what was gathered, all or none of it."""
        if not self._events:
            return
        assert self._digest.source is not None
        first, last = self._lines_stored + 1, self._lines
        events = [*self._events[:-1], with_mark(self._events[-1], self._digest.source, self._digest.mark)]
        try:
            await writer.append_many(events)
        except LogStoreError as error:
            if isinstance(error, Unknown):
                what = f"lines {first} to {last} may be stored or not: run it again, it looks first"
            elif isinstance(error, LimitExceeded | InvalidArgument):
                what = f"nothing from line {first} on"
            else:
                what = f"nothing from line {first} on; run it again"
            raise Stopped(
                f"{self._label}: lines {first} to {last}: {type(error).__name__}: {error}\n{self}; {what}"
            ) from error
        self.imported += len(events)
        self._lines_stored = last
        self._events.clear()
        self._events_bytes = 0
