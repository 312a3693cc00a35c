"""Documents from elsewhere that become a collection's: each is created unless it is there; then all are compared.

What is stored is found by key. So an import that was broken off, anywhere, is run again as it was.

Invariants:
- A document that is there is not touched.
- Each line of the input is there as it says when all has settled, or is told with its number.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final, NamedTuple

import click

from logstore import Event, LogStoreError
from logstore.errors import AlreadyExists, Conflict, InvalidArgument, LimitExceeded, NotFound
from logstore.event import Data, EventEncoder
from projections import Documents
from projections.cli.documentlines import document_digest, document_of_line, shown_digest
from projections.cli.inputs import Stopped
from projections.model import PLAIN, Model

__all__ = ["DocumentImport", "Verification"]

REFUSED_MAX: Final = 100  # lines; so many have one cause
TYPE: Final = "imported"  # of the events
BATCH_DOCUMENTS: Final = 1_000  # created at once, in few segments
BATCH_BYTES: Final = 4 << 20  # likewise, as JSON
COMPARED_AT_ONCE: Final = 1_000


class _Held(NamedTuple):
    """A document of the input."""

    line: int
    digest: int


class Verification(NamedTuple):
    """What the input holds, and what the collection has of that, settled. ``others``: in the collection alone."""

    documents: int
    digest: str
    stored: int
    stored_digest: str
    others: int
    differing: list[str]

    def __str__(self) -> str:
        return (
            f"file:       {self.documents} documents digest={self.digest}\n"
            f"collection: {self.stored} documents digest={self.stored_digest}, and {self.others} others"
        )


class DocumentImport:
    """One import: an input, and what became of its lines."""

    def __init__(
        self,
        documents: Documents[Any],
        kind: str,
        label: str,
        key_field: str | None = None,
        *,
        model: Model[Any] = PLAIN,
        batch_documents: int = BATCH_DOCUMENTS,
    ) -> None:
        self._documents = documents
        self._kind = kind
        self._label = label
        self._key_field = key_field
        self._model = model
        self._batch_documents = batch_documents
        self._encoder = EventEncoder()
        self._held: dict[str, _Held] = {}
        self._absent: list[tuple[str, Data]] = []  # the batch: documents to create
        self._absent_bytes = 0
        self._told: set[str] = set()  # keys of documents that were refused
        self._lines = 0
        self.bytes = 0
        self.created = 0
        self.found = 0
        self.repeated = 0
        self.refused = 0

    def __str__(self) -> str:
        return (
            f"read lines 1 to {self._lines} of {self._label}: {self.created} documents created,"
            f" {self.found} that were there before, {self.repeated} repeated, {self.refused} refused"
        )

    async def run(self, batches: AsyncIterator[list[bytes]]) -> AsyncGenerator[None, None]:
        """Create all that is not there yet; yields now and then. Raises Stopped."""
        async for lines in batches:
            for line in lines:
                self._lines += 1
                self.bytes += len(line) + 1
                if line.strip():
                    self._take(line)
                if len(self._absent) == self._batch_documents or self._absent_bytes >= BATCH_BYTES:
                    await self._create_batch()
            yield
        await self._create_batch()

    def _take(self, line: bytes) -> None:
        """One more document: put into the batch, unless it is there, or is told."""
        try:
            key, document = document_of_line(line, self._key_field)
            self._encoder.encode(Event(self._kind, key, TYPE, document))  # what cannot be stored has no digest
        except InvalidArgument as error:
            self._refuse(self._lines, f"InvalidArgument: {error}")
            return
        held = _Held(self._lines, document_digest(key, document))
        first = self._held.setdefault(key, held)
        if first is not held:
            if first.digest == held.digest:
                self.repeated += 1
            else:
                self._refuse(held.line, f"line {first.line} has another document of this key", key)
        elif key in self._documents:
            self.found += 1
        elif (misfit := self._misfit(document)) is not None:
            self._refuse_document(key, misfit)
        else:
            self._absent.append((key, document))
            self._absent_bytes += len(line)

    def _misfit(self, document: Data) -> Exception | None:
        """What stands against making an object of a document."""
        try:
            self._model.load(document)
        except Exception as error:  # noqa: BLE001 - whatever the user's class raises
            return error
        return None

    async def _create_batch(self) -> None:
        """Create what was gathered, all at once, and take down what became of each."""
        absent, self._absent, self._absent_bytes = self._absent, [], 0
        creations = (self._documents.create(key, document, type=TYPE) for key, document in absent)
        outcomes = await asyncio.gather(*creations, return_exceptions=True)
        errors = [
            (key, outcome)
            for (key, _), outcome in zip(absent, outcomes, strict=True)
            if isinstance(outcome, BaseException)
        ]
        self.created += len(absent) - len(errors)
        trouble: LogStoreError | None = None
        for key, error in errors:
            match error:
                case AlreadyExists():
                    self.found += 1
                case LogStoreError() if not isinstance(error, Conflict | InvalidArgument | LimitExceeded):
                    trouble = trouble or error
                case Exception():  # also what a guard, or upcast, did not expect
                    self._refuse_document(key, error)
                case _:
                    raise error
        if trouble is not None:
            raise Stopped(
                f"{self._label}: {type(trouble).__name__}: {trouble}\n{self}; run it again: it finds what is there"
            ) from trouble

    def _refuse_document(self, key: str, error: Exception) -> None:
        self._told.add(key)
        why = " ".join(str(error).split())  # one line of it, whoever's words they are
        self._refuse(self._held[key].line, f"{type(error).__name__}: {why}", key)

    def _refuse(self, line: int, why: str, key: str | None = None) -> None:
        self._tell(line, why, key)
        self.refused += 1
        if self.refused == REFUSED_MAX:
            raise Stopped(
                f"{self._label}: too many lines are refused limit={REFUSED_MAX}; mend them, or the collection\n{self};"
                " run it again: it finds what is there"
            )

    async def verify(self) -> Verification:
        """Wait until all that was created is settled; compare each document, and tell which is not as in the input.

        Cost: a tick, and polls; reading each document.
        """
        view = self._documents.view
        await view.refresh()
        await view.settle()
        stored = total = stored_total = 0
        differing = []
        for number, (key, held) in enumerate(self._held.items()):
            if number % COMPARED_AT_ONCE == 0:
                await asyncio.sleep(0)
            total += held.digest
            try:
                digest = document_digest(key, self._documents.get(key, settled=True))
            except NotFound:
                self._tell_differing(key, "it is not there: what others wrote, or deleted, came between")
                differing.append(key)
                continue
            stored += 1
            stored_total += digest
            if digest != held.digest:
                self._tell_differing(key, "it is there already, and differs; it is left as it is")
                differing.append(key)
        others = self._documents.count(settled=True) - stored
        return Verification(len(self._held), shown_digest(total), stored, shown_digest(stored_total), others, differing)

    def _tell_differing(self, key: str, why: str) -> None:
        if key not in self._told:
            self._tell(self._held[key].line, why, key)

    def _tell(self, line: int, why: str, key: str | None) -> None:
        where = f"line {line}" if key is None else f"line {line} key={key!r:.80}"
        click.echo(f"{self._label}: {where}: {why}", err=True)
