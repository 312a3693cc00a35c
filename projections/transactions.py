"""Transactions of a leader: over any number of documents, serializable, visible together.

docs/rfcs/0011-transactions.md §3.
A transaction locks what it gets, finds and writes, and keeps its writes to itself; the commit appends them together.
What it asked by ``find`` it asks again at the commit: what came in between, unseen, is Conflict.

Invariants:
- What a transaction has seen is what is acknowledged, and its own writes; at its commit it still is.
- Locks are had until the commit is acknowledged and visible, or given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from logstore import Event, Receipt
from logstore.errors import AlreadyExists, Conflict, InvalidArgument, LogStoreError, NotFound, Unavailable
from logstore.event import Data, EventEncoder, decode_data
from logstore.lead import Lead
from projections.document import META, Absent, Collection, Present, Write, of_rows, of_rows_order, version_of
from projections.locks import WAIT_S, Locks
from projections.patch import patch_between, thawed
from projections.projection import Rejected
from projections.query import Page, Where
from projections.view import View

__all__ = ["Shelf", "Transaction", "Transactions"]

OUTAGE_PAUSE_S: Final = 1  # beyond the retries of each request
FINDS_MAX: Final = 20  # times a question is asked again, because what it found was locked by others meanwhile

Edit = Data | Callable[[dict[str, Any]], Data | None]
Place = tuple[str, str]
"""A document's kind and key."""


class Shelf(NamedTuple):
    """A collection, and the view of it."""

    collection: Collection
    view: View


@dataclass(frozen=True, slots=True)
class _Question:
    """What was asked of one kind, the transaction's own writes at the time, and what it found."""

    kind: str
    where: Where
    order_by: Sequence[str]
    limit: int | None
    own: Mapping[str, Data | None]
    keys: Sequence[str]


class Transactions:
    """The transactions of one leader."""

    def __init__(self, lead: Lead, shelves: Mapping[str, Shelf], locks: Locks | None = None) -> None:
        self.lead = lead
        self.shelves = shelves
        self.locks = locks or Locks()
        self.encoder = EventEncoder()
        self._under_way: dict[object, set[str]] = {}  # commits that are not visible yet, and the kinds they touch
        self._arrived = asyncio.Event()
        self._broken: Exception | None = None  # a view that does not show what is stored

    def begin(self) -> Transaction:
        """Return a transaction to be entered by ``async with``."""
        return Transaction(self)

    async def commit(self, events: Sequence[Event], questions: Sequence[_Question]) -> asyncio.Task[Receipt] | None:
        """Append what a transaction wrote, if its questions have the answers that they had; None: it wrote nothing.

        From here on nobody can call it off: what is returned ends once it is known, and visible, what became of it.
        """
        self.require()
        asked = {question.kind for question in questions}
        try:
            async with asyncio.timeout(WAIT_S):
                while any(asked & kinds for kinds in self._under_way.values()):
                    self._arrived.clear()
                    await self._arrived.wait()
                    self.require()
        except TimeoutError as error:
            raise Conflict(
                f"others write all the time what a transaction has asked for kinds={sorted(asked)} waited_s={WAIT_S};"
                " try again, or get documents by key"
            ) from error
        for question in questions:
            if self.ask(question).keys != question.keys:
                raise Conflict(
                    f"what a transaction had found is found otherwise now kind={question.kind}"
                    f" where={list(question.where)!r:.100}; try again"
                )
        if not events:
            await self.confirm()
            return None
        token, kinds = object(), {event.kind for event in events}
        self._under_way[token] = kinds
        return asyncio.create_task(self._store(events, kinds, token))

    async def _store(self, events: Sequence[Event], kinds: Set[str], token: object) -> Receipt:
        try:
            receipt = await self.lead.append(events)
            for kind in kinds:
                await self._show(kind, receipt)
        finally:
            del self._under_way[token]
            self._arrived.set()
        return receipt

    async def _show(self, kind: str, receipt: Receipt) -> None:
        """Return once a view shows what is stored, though the store does not answer for a while.

        What is stored is acknowledged whatever the view meets; but with a view that is behind nothing more is judged.
        """
        while True:
            try:
                return await self.shelves[kind].view.wait_for(receipt)
            except Unavailable as error:
                try:
                    self.lead.require()
                except LogStoreError:
                    self._broken = error
                    return None
                await asyncio.sleep(OUTAGE_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - whatever it was, the next one is told
                self._broken = error
                return None

    async def confirm(self) -> None:
        """See ``DocumentStore.confirm``."""
        self.require()
        await self.lead.confirm()
        self.require()

    def require(self) -> None:
        """Raise what keeps this process from serving, if anything does that it knows of."""
        self.lead.require()
        if self._broken is not None:
            raise Unavailable(
                f"this leader's own view cannot go on cause={self._broken!r:.200}; open the store again"
            ) from self._broken

    def ask(self, question: _Question) -> Page:
        """What a question finds now."""
        where, order_by = of_rows(question.where), of_rows_order(question.order_by)
        own = {key: None if document is None else {"doc": document} for key, document in question.own.items()}
        return self.shelves[question.kind].view.find_instead(where, order_by, question.limit, own)


class Transaction:
    """Reads and writes that happen together. Made by ``db.transaction()``, used as ``async with``.

    Left without an error it commits; with one nothing is written. ``receipt``: of the commit, afterwards. What it waits
    for is bounded: Conflict, from any method, means that another transaction was in the way; begin again. Cancelled
    within, nothing is written; cancelled while it commits, all of it or nothing.

    >>> async def move(db, amount):
    ...     async with db.transaction() as tx:
    ...         a, b = await tx.get("Account", "a"), await tx.get("Account", "b")
    ...         await tx.update("Account", "a", {"balance": a["balance"] - amount})
    ...         await tx.update("Account", "b", {"balance": b["balance"] + amount})
    """

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._locked: dict[Place, None] = {}
        self._own: dict[Place, Data | None] = {}
        self._events: list[Event] = []
        self._questions: list[_Question] = []
        self._begun = self._entered = False
        self._locking = asyncio.Lock()
        self.receipt: Receipt | None = None

    def __repr__(self) -> str:
        return f"<Transaction locks={len(self._locked)} writes={len(self._events)}>"

    async def __aenter__(self) -> Transaction:
        if self._begun:
            raise InvalidArgument("a transaction is used once; begin another: db.transaction()")
        self._transactions.require()
        self._begun = self._entered = True
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: object) -> None:
        self._entered = False
        storing = None
        try:
            if kind is None:
                storing = await self._transactions.commit(self._events, self._questions)
                if storing is not None:
                    self.receipt = await asyncio.shield(storing)
        finally:
            if storing is None or storing.done():
                self._release()
            else:  # who waited was cancelled; nobody may see these documents before it is known what they are
                storing.add_done_callback(self._end_unwatched)

    def _end_unwatched(self, storing: asyncio.Task[Receipt]) -> None:
        if not storing.cancelled():
            storing.exception()  # nobody is there to be told
        self._release()

    def _release(self) -> None:
        for place in self._locked:
            self._transactions.locks.release(place)
        self._locked.clear()

    # Reading

    async def get(self, kind: str, key: str) -> Data:
        """Return a document, locked from now on; NotFound. Cost: none."""
        await self._lock((kind, key))
        document = self._see(kind, key)
        if document is None:
            raise NotFound(f"there is no such document {_where(kind, key)}; create it")
        return document

    async def find(self, kind: str, where: Where = (), order_by: Sequence[str] = (), limit: int | None = None) -> Page:
        """Return the documents that match, in order, all of them locked from now on. Cost: as ``View.find``, twice."""
        self._require_open()
        self._shelf(kind)
        for _ in range(FINDS_MAX):
            own = {key: document for (of, key), document in self._own.items() if of == kind}
            question = _Question(kind, where, order_by, limit, own, ())
            page = self._transactions.ask(question)
            unlocked = sorted(key for key in page.keys if (kind, key) not in self._locked)
            if not unlocked:
                self._questions.append(_Question(kind, where, order_by, limit, own, page.keys))
                return page._replace(rows=[row["doc"] for row in page.rows])
            for key in unlocked:  # by key, so that two questions in opposite orders do not wait for each other
                await self._lock((kind, key))
        raise Conflict(f"what a transaction finds changes all the time kind={kind}; ask for less")

    # Writing

    async def create(
        self, kind: str, key: str, document: Data, *, type: str = "created", meta: Data | None = None
    ) -> None:
        """Create a document; AlreadyExists."""
        self._require_sound(Event(kind, key, type, None, meta))
        if not isinstance(document, Mapping):
            raise InvalidArgument(f"a document is a mapping document={document!r:.60} {_where(kind, key)}")
        await self._lock((kind, key))
        self._write(Event(kind, key, type, document, meta), Write("create"))

    async def update(
        self,
        kind: str,
        key: str,
        change: Edit,
        *,
        type: str = "updated",
        if_version: str | None = None,
        when: Where = (),
        meta: Data | None = None,
    ) -> None:
        """Change fields of a document, by a patch or a function, as ``Documents.update``; NotFound, Conflict."""
        self._require_sound(Event(kind, key, type, None, meta), if_version)
        if not callable(change) and not isinstance(change, Mapping):
            raise InvalidArgument(f"a change is a patch or a function change={change!r:.60} {_where(kind, key)}")
        await self._lock((kind, key))
        before = self._see(kind, key)
        if callable(change):
            if before is None:
                raise NotFound(f"there is no such document {_where(kind, key)}; create it")
            copy = thawed(before)
            changed = change(copy)
            if changed is not None and not isinstance(changed, Mapping):
                raise InvalidArgument(f"a document is a mapping returned={changed!r:.60} {_where(kind, key)}")
            change = patch_between(before, copy if changed is None else changed)
        self._write(Event(kind, key, type, change, meta), Write("update", if_version=if_version, when=when))

    async def delete(
        self,
        kind: str,
        key: str,
        *,
        type: str = "deleted",
        if_version: str | None = None,
        when: Where = (),
        meta: Data | None = None,
    ) -> None:
        """Delete a document; NotFound, Conflict."""
        self._require_sound(Event(kind, key, type, None, meta), if_version)
        await self._lock((kind, key))
        self._write(Event(kind, key, type, None, meta), Write("delete", if_version=if_version, when=when))

    def _require_sound(self, event: Event, if_version: str | None = None) -> None:
        """Raise InvalidArgument for what no write can have."""
        self._transactions.encoder.encode(event)
        if META in (event.meta or {}):
            raise InvalidArgument(f"that name in meta is the store's own name={META} {_where(event.kind, event.key)}")
        if if_version is not None and not isinstance(if_version, str):
            raise InvalidArgument(f"a version is a text, as `version` returns if_version={if_version!r:.40}")

    def _write(self, event: Event, write: Write) -> None:
        kind, key = event.kind, event.key
        before = self._see(kind, key)
        collection, view = self._shelf(kind)
        write = write._replace(schema=collection.version)
        row = view.get(key)
        version = version_of(row) if row is not None and (kind, key) not in self._own else ""
        try:
            after = collection.judge(before, version, write, event.data, self._transactions.lead.name)
        except Present as error:
            raise AlreadyExists(f"there is such a document {_where(kind, key)}; update it") from error
        except Absent as error:
            raise NotFound(f"there is no such document {_where(kind, key)}; create it") from error
        except Rejected as error:
            raise Conflict(f"{write.do} refused: {error} {_where(kind, key)}") from error
        if after is not None:  # read-only, and refused here where the fold would fail on it
            row = decode_data(self._transactions.encoder.encode_data({"doc": after}, key, "row"), "row")
            assert row is not None
            after = row["doc"]
        meta = thawed({**(event.meta or {}), **write.meta()})  # what a caller does to its own later is not ours
        self._events.append(event._replace(data=thawed(event.data), meta=meta))
        self._own[kind, key] = after

    def _see(self, kind: str, key: str) -> Data | None:
        """A document that is locked, as this transaction sees it."""
        if (kind, key) in self._own:
            return self._own[kind, key]
        row = self._shelf(kind).view.get(key)
        return None if row is None else row["doc"]

    async def _lock(self, place: Place) -> None:
        self._shelf(place[0])
        async with self._locking:  # two tasks of one transaction must not wait for each other
            self._require_open()
            if place not in self._locked:
                await self._transactions.locks.take(place)
                if not self._entered:  # it ended meanwhile, and gave up what it had then
                    self._transactions.locks.release(place)
                self._require_open()
                self._locked[place] = None

    def _require_open(self) -> None:
        if not self._entered:
            raise InvalidArgument("this transaction is not open; use it inside its async with")

    def _shelf(self, kind: str) -> Shelf:
        shelf = self._transactions.shelves.get(kind)
        if shelf is None:
            open_ = sorted(self._transactions.shelves)
            raise InvalidArgument(f"no such collection is open kind={kind!r:.40} open={open_}")
        return shelf


def _where(kind: str, key: str) -> str:
    return f"collection={kind} key={key!r:.80}"
