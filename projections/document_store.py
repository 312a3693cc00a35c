"""The document store: collections over one log, written by many processes, or led by one.

In shared mode each process has a writer of its own, and a write is one event (``documents.py``). In exclusive mode one
process leads (``logstore/lead.py``), and writes are transactions (``transactions.py``). Reads are views in both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, overload

from logstore import Log, Writer, WriterSettings
from logstore.errors import InvalidArgument
from projections.document import Collection
from projections.documents import Documents, T
from projections.model import PLAIN, model_of
from projections.past import Moment, PastView
from projections.transactions import Shelf, Transaction, Transactions
from projections.view import View

__all__ = ["DocumentStore", "PastDocuments"]


class DocumentStore:
    """Collections of documents over one log. Made by ``DocumentStore.open``, used as ``async with``.

    >>> import logstore
    >>> from projections import Collection
    >>> async def example():
    ...     async with (
    ...         logstore.open("memory://doctest-documents") as log,
    ...         DocumentStore.open(log, writer="web-1", collections=[Collection("Deployment")]) as db,
    ...     ):
    ...         deployments = db.collection("Deployment")
    ...         await deployments.create("d-1", {"status": 0})
    ...         await deployments.update("d-1", {"status": 1}, when=[("status", "==", 0)])
    ...         return dict(deployments.get("d-1"))
    >>> asyncio.run(example())
    {'status': 1}
    """

    def __init__(
        self,
        log: Log,
        writer: str | None,
        collections: Sequence[Collection],
        settings: WriterSettings | None,
        *,
        leads: bool,
        standby: bool,
        takeover: bool,
    ) -> None:
        self._log = log
        self._writer_name = writer
        self._settings = settings
        self._leads = leads
        self._standby = standby
        self._takeover = takeover
        self._collections = {collection.kind: collection for collection in collections}
        if len(self._collections) < len(collections):
            raise InvalidArgument(f"two collections have one kind collections={list(collections)!r:.200}")
        self._views: dict[str, View] = {}
        self._writer: Writer | None = None
        self._transactions: Transactions | None = None
        self._stack = AsyncExitStack()

    @classmethod
    def open(
        cls,
        log: Log,
        *,
        writer: str | None = None,
        collections: Sequence[Collection],
        mode: Literal["shared", "exclusive"] = "shared",
        standby: bool = False,
        takeover: bool = False,
        settings: WriterSettings | None = None,
    ) -> DocumentStore:
        """Return a document store to be entered; entered, it shows everything acknowledged before.

        ``writer``: under which name it writes; None: it only reads. In mode "shared" any number of processes may
        share a name. In mode "exclusive", with collections that are ``exclusive``, one process at a time leads them:
        entering returns when it does. Where another leads, ``standby`` waits until that has ended, or was silent for
        its seal time, with views that are up to date; ``takeover`` ends it at once; else Conflict.

        Cost: a view per collection: a LIST and its snapshot, and reading what came since; to lead, what
        ``Lead.acquire`` does. ``settings.idle_ms`` and the log's creation deadline make the seal time.
        """
        leads = mode == "exclusive"
        if mode not in ("shared", "exclusive"):
            raise InvalidArgument(f"no such mode mode={mode!r:.40}; use shared or exclusive")
        if leads and writer is None:
            raise InvalidArgument("to lead needs a writer's name; leave mode out to read")
        if ((standby or takeover) and not leads) or (standby and takeover):
            raise InvalidArgument("standby and takeover, one of them, go with mode='exclusive'")
        for collection in collections:
            if writer is not None and collection.exclusive is not leads:
                raise InvalidArgument(
                    f"a collection is written in its own mode collection={collection.kind}"
                    f" exclusive={collection.exclusive} mode={mode}"
                )
        return cls(log, writer, collections, settings, leads=leads, standby=standby, takeover=takeover)

    def __repr__(self) -> str:
        return f"<DocumentStore writer={self._writer_name} collections={list(self._collections)}>"

    async def __aenter__(self) -> DocumentStore:
        try:
            if self._writer_name is not None and not self._leads:
                self._writer = await self._stack.enter_async_context(
                    self._log.writer(self._writer_name, self._settings)
                )
            async with asyncio.TaskGroup() as group:
                for collection in self._collections.values():
                    group.create_task(self._open_view(collection))
            for collection in self._collections.values():
                collection.require_mode(self._views[collection.kind].led_kinds)
            if self._leads:
                await self._take_lead()
        except BaseException as error:
            await self._stack.aclose()
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None  # one tells as much as all: they met the same log
            raise
        return self

    async def _open_view(self, collection: Collection) -> None:
        view = View.open(self._log, collection.fold(), follow=True)
        self._views[collection.kind] = await self._stack.enter_async_context(view)

    async def _take_lead(self) -> None:
        assert self._writer_name is not None
        lead = self._log.lead(self._writer_name, self._collections, self._settings)
        self._stack.push_async_callback(lead.aclose)
        await lead.acquire(standby=self._standby, takeover=self._takeover)
        await asyncio.gather(*(view.refresh() for view in self._views.values()))
        shelves = {kind: Shelf(collection, self._views[kind]) for kind, collection in self._collections.items()}
        self._transactions = Transactions(lead, shelves)

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    # Leading

    def transaction(self) -> Transaction:
        """Return a transaction over documents of any collections, to be used as ``async with``: all of it or nothing.

        Serializable, and linearizable: one that only read confirms the lead. Cost: at most one PUT, shared with those
        that commit at the same time; one GET where it wrote nothing. Raises Conflict (another one was in the way: begin
        again), Fenced (another process leads now: stop serving), NotStored, Unknown.
        """
        return self._led.begin()

    async def confirm(self) -> None:
        """Return once it is certain that this process led at some moment after the call: what it shows is all there is.

        Cost: one GET, shared by concurrent calls. Raises Fenced, Unavailable.
        """
        await self._led.confirm()

    @property
    def _led(self) -> Transactions:
        if self._transactions is None:
            raise InvalidArgument("this document store does not lead; open it with a writer, and mode='exclusive'")
        return self._transactions

    def at(self, moment: Moment) -> PastDocuments:
        """Return all collections as they were at one settled moment, which does not move; to be entered. Cost: none."""
        return PastDocuments(self._log, self._collections, moment)

    # Its collections

    @overload
    def collection(self, kind: str) -> Documents[Any]: ...
    @overload
    def collection(self, kind: str, model: type[T]) -> Documents[T]: ...
    def collection(self, kind: str, model: type[T] | None = None) -> Documents[Any]:
        """Return a collection; its documents as mappings, or as objects of ``model``: a dataclass, a pydantic model.

        Raises InvalidArgument for a kind that the store was not opened with, or before it was entered. Cost: none.
        """
        if kind not in self._views:
            raise InvalidArgument(f"no such collection is open kind={kind!r:.40} open={sorted(self._views)}")
        plan = PLAIN if model is None else model_of(model)
        return Documents(
            self._collections[kind],
            self._log,
            self._views[kind],
            plan,
            writer=self._writer,
            transactions=self._transactions,
        )


class PastDocuments:
    """All collections of a document store as they were at one moment. Made by ``db.at``, used as ``async with``.

    Called with a kind it returns the view of that collection, whose rows hold the documents as ``doc``.

    >>> async def example(db, yesterday):
    ...     async with db.at(yesterday) as past:
    ...         return past("Account").get("a")["doc"], past("Transfer").find().keys

    Entering costs ``View.open(…, at=moment)`` for each collection, and raises what that does.
    """

    def __init__(self, log: Log, collections: Mapping[str, Collection], moment: Moment) -> None:
        self._log = log
        self._collections = collections
        self._moment = moment
        self._views: dict[str, PastView] = {}
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<PastDocuments at={self._moment} collections={list(self._collections)}>"

    async def __aenter__(self) -> PastDocuments:
        try:
            for kind, collection in self._collections.items():
                past = View.open(self._log, collection.fold(), at=self._moment)
                self._views[kind] = await self._stack.enter_async_context(past)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def __call__(self, kind: str) -> PastView:
        """Return the view of a collection; InvalidArgument for a kind that is not open. Cost: none."""
        if kind not in self._views:
            raise InvalidArgument(f"no such collection is open kind={kind!r:.40} open={sorted(self._views)}")
        return self._views[kind]
