"""A collection of documents, to write and to ask. docs/rfcs/0009-documents.md, 0011-transactions.md.

A write is one event, appended after the view was brought to the tail; a read is the view. What a write is and who
judges it is in ``document.py``; here is only when to look, when to append, and what to tell the caller.

Invariants:
- What was acknowledged anywhere before ``update`` or ``delete`` was called is ordered before it (but for ``blind``).
- A write that returned is in the caller's own view; unless the view could not move, as its next refresh tells.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from logstore import Event, Log, Receipt, Writer
from logstore.errors import AlreadyExists, Conflict, InvalidArgument, LogStoreError, NotFound
from logstore.event import Data, EventEncoder
from projections.claims import Claimant
from projections.document import META, Absent, Collection, Present, Write, of_rows, of_rows_order, version_of
from projections.model import Model
from projections.patch import patch_between, thawed
from projections.projection import Rejected
from projections.query import Page, Plan, Where
from projections.state import Rejection
from projections.transactions import Transaction, Transactions
from projections.view import View
from projections.watch import DocumentChange, watch

__all__ = ["Documents", "WriteReceipt"]

T = TypeVar("T")
MODIFY_ATTEMPTS_MAX: Final = 10


class WriteReceipt:
    """A write of one document is stored. Made by the writes of ``Documents``.

    Whether it was applied is judged where it stands: ``settled`` tells.
    """

    def __init__(self, receipt: Receipt, view: View, write: Write, key: str) -> None:
        self.receipt = receipt
        self._view = view
        self._write = write
        self._key = key

    def __repr__(self) -> str:
        return f"<WriteReceipt {self._write.do} {self._key} {self.receipt}>"

    async def settled(self, timeout: float | None = None) -> None:
        """Return once the write is applied for good; raise what became of it instead.

        AlreadyExists: a creation that was not the first; NotFound: the document was gone; Conflict: a guard, a
        version, a clause or an owner stood against it. Cost: a tick where none lies above it; sessions that are open
        and quiet hold it up until they tick, or are sealed. Raises TimeoutError after ``timeout`` seconds, and what
        ``View.settled`` raises.
        """
        for verdict in (await self._view.settled(self.receipt, timeout)).values():
            what = f"{self._write.do} was not applied: {verdict.reason} key={self._key}"
            if verdict.reason == Present.REASON:
                raise AlreadyExists(f"{what}; update it")
            if verdict.reason == Absent.REASON:
                raise NotFound(f"{what}; create it")
            raise Conflict(f"{what}; read it again, decide again")


class Documents(Generic[T]):
    """One collection of an open document store. Made by ``db.collection``. Reads are synchronous and ask no store.

    >>> async def example(db):
    ...     deployments = db.collection("Deployment")
    ...     await deployments.create("d-1", {"status": 0, "stages": {"plan": {"status": 0}}})
    ...     await deployments.update("d-1", {"status": 1, "stages": {"plan": {"status": 4}}})
    ...     return deployments.find(where=[("status", "==", 1)]).keys
    """

    def __init__(
        self,
        collection: Collection,
        log: Log,
        view: View,
        model: Model[T],
        *,
        writer: Writer | None,
        transactions: Transactions | None,
    ) -> None:
        self._collection = collection
        self._log = log
        self.view = view
        self._model = model
        self._writer_ = writer
        self._transactions = transactions
        self._encoder = EventEncoder()

    def __repr__(self) -> str:
        return f"<Documents {self._collection!r} {len(self)}>"

    # Reading

    def get(self, key: str, *, settled: bool = False) -> T:
        """Return a document, read-only; NotFound. ``settled``: as it is at the watermark. Cost: none; decoding."""
        row = self.view.get(key, settled=settled)
        if row is None:
            raise self._absent(key)
        return self._model.load(row["doc"])

    def version(self, key: str) -> str:
        """Return which writes made the document as it is now, for ``if_version``; NotFound. Cost: none."""
        row = self.view.get(key)
        if row is None:
            raise self._absent(key)
        return version_of(row)

    def __contains__(self, key: str) -> bool:
        return self.view.get(key) is not None

    def __len__(self) -> int:
        return len(self.view)

    def find(
        self,
        where: Where = (),
        order_by: Sequence[str] = (),
        limit: int | None = None,
        cursor: str | None = None,
        *,
        settled: bool = False,
    ) -> Page:
        """Return the documents that match all of ``where``, in order: ``.rows``, ``.keys``, ``.cursor``.

        As ``View.find``, of documents.
        """
        page = self.view.find(of_rows(where), of_rows_order(order_by), limit, cursor, settled=settled)
        load = self._model.load
        return page._replace(rows=[load(row["doc"]) for row in page.rows])  # type: ignore[misc]  # rows of the model

    def count(self, where: Where = (), *, settled: bool = False) -> int:
        """Return how many documents match. Cost: as ``View.count``."""
        return self.view.count(of_rows(where), settled=settled)

    def explain(self, where: Where = (), order_by: Sequence[str] = (), limit: int | None = None) -> Plan:
        """Return how ``find`` would go about it; a document's fields are below ``doc`` there. Cost: as ``find``'s."""
        return self.view.explain(of_rows(where), of_rows_order(order_by), limit)

    def watch(self, where: Where = (), after: str | None = None) -> AsyncGenerator[DocumentChange, None]:
        """Yield what matches, as added, then each change: added, modified, removed. Never ends by itself.

        Changes of one document that come faster than they are taken become one. ``after``, the token of a change,
        goes on from there, in any process: how what matches differs from what it was at the token's stamp, and, as it
        is now, every document that anything later was about. Cost: none beyond what moves the view; going on costs what
        ``View.open(at=…)`` does. Raises InvalidArgument; StaleStore, Trimmed: watch without the token.
        """
        return watch(self._log, self.view, of_rows(where), after)

    def conflicts(self) -> AsyncGenerator[Rejection, None]:
        """Yield each write, by anyone, that changed nothing, once that is final; from this call on. As a view's."""
        return self.view.rejections()

    # Writing

    async def create(
        self, key: str, document: T | Data, *, type: str = "created", meta: Data | None = None
    ) -> WriteReceipt:
        """Create a document; AlreadyExists where there is one. ``type``, ``meta``: of the event, for who reads the log.

        In a collection that is ``unique`` this answers for good: one of all callers creates it. Else a document that
        another process created meanwhile, unseen, makes this a no-op, which ``settled`` on the receipt tells.

        Cost: an append; if unique also a barrier, a GET and a PUT, or a barrier where it exists. Raises
        InvalidArgument, Conflict (the guard), and what ``Writer.append`` does; if unique Unavailable where it is not
        known: create it again, and see.
        """
        self._require_sound(key, type, meta)
        data = self._dump(document)
        write = Write("create", self._collection.version)
        if self._collection.exclusive:
            async with self._begin() as tx:
                await tx.create(self._collection.kind, key, data, type=type, meta=meta)
            return self._written(tx, write, key)
        await self._require_allowed(key, write, data, looked=False)
        if self._collection.unique:
            claimant = Claimant(self._log, self.view, self._writer, self._collection.kind)
            event = Event(self._collection.kind, key, type, data, meta)
            receipt = await claimant.create(event, self._collection.version)
        else:
            receipt = await self._append(key, write, type, data, meta)
        return WriteReceipt(receipt, self.view, write, key)

    async def update(
        self,
        key: str,
        change: Data | Callable[[T], T | None],
        *,
        type: str = "updated",
        if_version: str | None = None,
        when: Where = (),
        blind: bool = False,
        meta: Data | None = None,
    ) -> WriteReceipt:
        """Change fields of a document: by a patch (nested; None removes a field), or by a function.

        The function gets a copy and changes it, or returns another; what differs becomes the patch (of a model: from
        what the document is as a model, so neither its defaults nor what it does not know). Fields that are not in the
        patch are left to others. ``if_version``: only this version is changed; ``when``: clauses as of ``find``
        that must hold. Both are judged where the event comes to stand, as the collection's guard is: ``settled`` on the
        receipt tells. ``blind``: do not look at what others wrote first; for fields that one process alone writes.

        Cost: a barrier (one GET for the roster and each open session, shared by concurrent calls), and an append.
        Raises NotFound, Conflict where that can be seen already; InvalidArgument; what ``Writer.append`` does.
        """
        self._require_sound(key, type, meta, if_version)
        if not callable(change) and not isinstance(change, Mapping):
            raise InvalidArgument(f"a change is a patch or a function change={change!r:.60} {self._where(key)}")
        write = Write("update", self._collection.version, if_version, when)
        if self._collection.exclusive:
            async with self._begin() as tx:
                before = await tx.get(self._collection.kind, key)
                patch = change if isinstance(change, Mapping) else self._patch_of(before, change)
                more: dict[str, Any] = {"type": type, "if_version": if_version, "when": when, "meta": meta}
                await tx.update(self._collection.kind, key, patch, **more)
            return self._written(tx, write, key)
        if looked := not blind or key not in self:
            await self.view.refresh()
        patch = change if isinstance(change, Mapping) else self._patch_by(key, change)
        await self._require_allowed(key, write, patch, looked=looked)
        return WriteReceipt(await self._append(key, write, type, patch, meta), self.view, write, key)

    async def delete(
        self,
        key: str,
        *,
        type: str = "deleted",
        if_version: str | None = None,
        when: Where = (),
        blind: bool = False,
        meta: Data | None = None,
    ) -> WriteReceipt:
        """Delete a document. Arguments, cost and errors are those of ``update``."""
        self._require_sound(key, type, meta, if_version)
        write = Write("delete", self._collection.version, if_version, when)
        if self._collection.exclusive:
            async with self._begin() as tx:
                more: dict[str, Any] = {"type": type, "if_version": if_version, "when": when, "meta": meta}
                await tx.delete(self._collection.kind, key, **more)
            return self._written(tx, write, key)
        if not blind:
            await self.view.refresh()
        await self._require_allowed(key, write, None, looked=not blind)
        return WriteReceipt(await self._append(key, write, type, None, meta), self.view, write, key)

    async def modify(
        self,
        key: str,
        function: Callable[[T], T | None],
        *,
        type: str = "updated",
        attempts_max: int = MODIFY_ATTEMPTS_MAX,
        meta: Data | None = None,
    ) -> WriteReceipt:
        """Change a document by a function of all of it, as if nobody else did at the time; return when it is settled.

        For what one field says of others. The function may be called several times: again, with the document as it is
        then, whenever another write came between. Cost: ``update`` and ``settled``, for each attempt. Raises Conflict
        when ``attempts_max`` were in vain, and what ``update`` does.
        """
        if self._collection.exclusive:
            return await self.update(key, function, type=type, meta=meta)
        attempt = 1
        while True:
            await self.view.refresh()
            seen = self.version(key)
            try:
                receipt = await self.update(key, function, type=type, if_version=seen, blind=True, meta=meta)
                await receipt.settled()
            except Conflict as error:
                if attempt >= attempts_max:
                    raise Conflict(f"it went wrong each time attempts={attempt}: {error}") from error
                attempt += 1
            else:
                return receipt

    def _patch_by(self, key: str, function: Callable[[T], T | None]) -> Data:
        row = self.view.get(key)
        if row is None:
            raise self._absent(key)
        return self._patch_of(row["doc"], function)

    def _patch_of(self, document: Data, function: Callable[[T], T | None]) -> Data:
        copy, untouched = self._model.load(thawed(document)), self._model.load(document)
        changed = function(copy)
        return patch_between(self._dump(untouched), self._dump(copy if changed is None else changed))

    def _dump(self, document: T | Data) -> Data:
        return document if isinstance(document, Mapping) else self._model.dump(document)

    def _require_sound(self, key: str, type: str, meta: Data | None, if_version: str | None = None) -> None:
        """Raise InvalidArgument for what no event can have."""
        self._encoder.encode(Event(self._collection.kind, key, type, None, meta))
        if META in (meta or {}):
            raise InvalidArgument(f"that name in meta is the store's own name={META} {self._where(key)}")
        if if_version is not None and not isinstance(if_version, str):
            raise InvalidArgument(f"a version is a text, as `version` returns if_version={if_version!r:.40}")

    async def _require_allowed(self, key: str, write: Write, data: Data | None, *, looked: bool) -> None:
        """Raise what stands against a write, before anything is appended. ``looked``: the view is at the tail.

        A view that is behind may let a write pass, which the fold will judge; it must not refuse one.
        """
        try:
            self._judge(key, write, data)
        except (AlreadyExists, NotFound, Conflict):
            if looked:
                raise
            await self.view.refresh()
            self._judge(key, write, data)

    def _judge(self, key: str, write: Write, data: Data | None) -> None:
        """Raise what the fold would find against a write now."""
        row = self.view.get(key)
        before, version = (None, "") if row is None else (row["doc"], version_of(row))
        try:
            after = self._collection.judge(before, version, write, data, self._writer.name)
        except Present as error:
            raise AlreadyExists(f"there is such a document {self._where(key)}; update it") from error
        except Absent as error:
            raise self._absent(key) from error
        except Rejected as error:
            raise Conflict(f"{write.do} refused: {error} {self._where(key)}; read it again, decide again") from error
        if after is not None:
            self._encoder.encode_data({"doc": after}, key, "row")  # or the fold would fail on it

    async def _append(self, key: str, write: Write, type: str, data: Data | None, meta: Data | None) -> Receipt:
        event = Event(self._collection.kind, key, type, data, {**(meta or {}), **write.meta()})
        receipt = await self._writer.append(event)
        with suppress(LogStoreError):  # it is stored, whatever the view meets
            await self.view.wait_for(receipt)
        return receipt

    def _begin(self) -> Transaction:
        if self._transactions is None:
            raise InvalidArgument("this document store does not lead; open it with a writer, and mode='exclusive'")
        return self._transactions.begin()

    def _written(self, tx: Transaction, write: Write, key: str) -> WriteReceipt:
        assert tx.receipt is not None, "it wrote"
        return WriteReceipt(tx.receipt, self.view, write, key)

    @property
    def _writer(self) -> Writer:
        if self._writer_ is None:
            raise InvalidArgument("this document store was opened without a writer; name one to write: writer=…")
        return self._writer_

    def _absent(self, key: str) -> NotFound:
        return NotFound(f"there is no such document {self._where(key)}; create it")

    def _where(self, key: str) -> str:
        return f"collection={self._collection.kind} key={key!r:.80}"
