"""The read side, for callers without an event loop: the names of ``projections``, with nothing to await.

>>> import logstore.sync as logstore
>>> from logstore.sync import Event
>>> from projections.sync import Index, Projection, View
>>> class Deployments(Projection):
...     name, kinds, fold = "deployments", {"Deployment"}, "patch"
...     indexes = (Index("project_id", "-updated_at"),)
>>> with logstore.open("memory://sync-projections") as log, log.writer("web-1") as writer:
...     receipt = writer.append(Event("Deployment", "d-1", "planned", {"project_id": "p", "updated_at": 7}))
...     with View.open(log, Deployments()) as view:
...         view.find(where=[("project_id", "==", "p")], order_by=["-updated_at"], limit=30).keys
['d-1']

Each read (``get``, ``find``, ``count``…) is of one moment, rows and indexes alike, and costs 1 microsecond more than
there, or 30 while the loop works; between two reads the view may move. For the rest see ``logstore.sync``.

Written by ``scripts/sync_face.py``: do not edit.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, Literal, overload

from logstore.background import Face, inner, iterate, look, wait
from logstore.errors import LogStoreError
from logstore.event import Data
from logstore.frontier import Position
from logstore.keeper import KeepSettings
from logstore.manifest import Manifest
from logstore.receipt import Receipt
from logstore.sync import Log
from logstore.writer import WriterSettings
from projections.document import Collection
from projections.document_store import DocumentStore as AsyncDocumentStore
from projections.document_store import PastDocuments as AsyncPastDocuments
from projections.documents import MODIFY_ATTEMPTS_MAX, T
from projections.documents import Documents as AsyncDocuments
from projections.documents import WriteReceipt as AsyncWriteReceipt
from projections.index import Index
from projections.past import Moment
from projections.past import PastView as AsyncPastView
from projections.past import diff as async_diff
from projections.projection import FoldFailed, Projection, Rejected
from projections.query import Page, Plan, Where
from projections.rounds import PAUSE_MS, SNAPSHOT_MS, KeepRound
from projections.rounds import keep as async_keep
from projections.snapshots import drop as async_drop
from projections.state import Rejection, Verdict
from projections.table import Change
from projections.tombstone import Tombstone
from projections.transactions import Edit
from projections.transactions import Transaction as AsyncTransaction
from projections.view import View as AsyncView
from projections.view import ViewProgress, ViewStatistics
from projections.watch import DocumentChange

__all__ = [
    # What a user declares
    "Projection",
    "Index",
    "Rejected",
    "Tombstone",
    "FoldFailed",
    # What folds build
    "View",
    "PastView",
    "ViewStatistics",
    "ViewProgress",
    "Change",
    "diff",
    "drop",
    "Verdict",
    "Rejection",
    # Documents, to write and to ask
    "DocumentStore",
    "PastDocuments",
    "Collection",
    "Documents",
    "WriteReceipt",
    "Transaction",
    "DocumentChange",
    # Who looks after them
    "keep",
    "KeepRound",
    # What queries return
    "Page",
    "Plan",
]


class View(Face[AsyncView]):
    """Rows by key, built by a projection. Made by ``View.open``, used as ``with``.

    >>> def example(log, projection):
    ...     with View.open(log, projection) as view:
    ...         return view.get("d-1")
    """

    @overload
    @classmethod
    def open(
        cls,
        log: Log,
        projection: Projection,
        *,
        follow: bool = False,
        snapshots: bool = False,
        memory_bytes_max: int | None = None,
        cache_directory: str | os.PathLike[str] | None = None,
    ) -> View: ...
    @overload
    @classmethod
    def open(
        cls,
        log: Log,
        projection: Projection,
        *,
        at: Moment,
        memory_bytes_max: int | None = None,
        cache_directory: str | os.PathLike[str] | None = None,
    ) -> PastView: ...
    @classmethod
    def open(
        cls,
        log: Log,
        projection: Projection,
        *,
        follow: bool = False,
        snapshots: bool = False,
        at: Moment | None = None,
        memory_bytes_max: int | None = None,
        cache_directory: str | os.PathLike[str] | None = None,
    ) -> View | PastView:
        """Return a view to be entered; entered, it holds everything acknowledged before.

        It starts from the newest snapshot that is whole; what was wrong with newer ones is in ``damage``. Where the log
        may write, the projection is registered: retention heeds it from then on. With ``at`` (a stamp, a time with its
        zone, a settled reader's position) it shows the rows as they were then, and does not move.

        ``snapshots`` is for one that will write some: it remembers where the rows lie in the snapshot that it starts
        from (50 bytes a row), and what changes, so that its first snapshot costs as little as its later ones.

        With ``memory_bytes_max`` about so many bytes of rows are in memory, keys and indexes not counted; the others
        lie compressed in a file without a name, in ``cache_directory`` or where temporary files belong, for as long as
        anybody refers to the view. All answers are the same; a row from the file costs some 20 microseconds. A full
        disk is Unavailable for who asks the view to move on, which it does once there is room.

        Cost: a LIST, a GET for the manifest and one per chunk, and as ``log.read`` from there; without a snapshot, from
        the beginning; where the log may write a GET for the registration, a PUT the first time. Raises InvalidArgument
        for a projection that cannot be used or a directory that cannot be written to, FoldFailed, and what ``log.read``
        raises.
        """
        function: Any = AsyncView.open
        made = look(
            function,
            inner(log),
            projection,
            follow=follow,
            snapshots=snapshots,
            at=at,
            memory_bytes_max=memory_bytes_max,
            cache_directory=cache_directory,
        )
        return PastView(made, log) if isinstance(made, AsyncPastView) else View(made, log)

    @property
    def damage(self) -> list[LogStoreError]:
        """What was wrong with snapshots that were passed over."""
        return self._look(lambda: self._inner.damage)

    def __enter__(self) -> View:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    def refresh(self) -> None:
        """Return once the view holds everything acknowledged, by anyone, before this call.

        Cost: one GET for the roster and one per open session, two more for the roster's tail, and what is new.
        Raises FoldFailed and what reading met.
        """
        self._wait(self._inner.refresh())

    def wait_for(self, receipt: Receipt, timeout: float | None = None) -> None:
        """Return once the view holds what ``receipt`` stands for; TimeoutError after ``timeout`` seconds.

        Cost: nothing when the view follows and this process stored it; else as ``refresh``.
        """
        self._wait(self._inner.wait_for(receipt, timeout))

    def settle(self) -> None:
        """Return once all that it showed at the call is settled. Cost: a tick, and polls, as ``log.settled``."""
        self._wait(self._inner.settle())

    def snapshot(self) -> Manifest:
        """Write a snapshot of everything acknowledged before this call; return its manifest.

        It is written at a point: a tick, posted unless one that serves is there already and lies ahead; two processes
        that write at one point write the same. Waits until all is settled there, as ``log.settled`` does.

        Cost: a LIST per 1,000 keys under ``snapshots/``, a GET per registered projection, a tick; a PUT per chunk
        written (about two rows for each one changed since the last snapshot) and one for the manifest; the first time,
        unless it was opened with ``snapshots=True``, also a GET per chunk of the last snapshot, and time and memory for
        a comparison. Raises InvalidArgument where the log is read-only; Corrupt, Missing when the snapshot to build on
        is found damaged by that: the next call builds on another; LimitExceeded for a row of more than 64 MiB;
        Unavailable.
        """
        return self._wait(self._inner.snapshot())

    @property
    def projection(self) -> Projection:
        """What it folds, and how. Cost: none."""
        return self._look(lambda: self._inner.projection)

    @property
    def position(self) -> Position | None:
        """How far it has read. Cost: O(open sessions)."""
        return self._look(lambda: self._inner.position)

    @property
    def rows_changed(self) -> int | None:
        """How many rows have changed, settled ones, since this view's last snapshot; None: not known. Cost: none.

        With ``snapshots=True``, before its first: since the one that it started from.
        """
        return self._look(lambda: self._inner.rows_changed)

    def statistics(self) -> ViewStatistics:
        """How it is doing. Cost: O(rows), for the memory."""
        return self._look(self._inner.statistics)

    def progress(self) -> ViewProgress:
        """How far it is. Cost: O(pending segments). Any thread may call."""
        return self._look(self._inner.progress)

    def changes(self) -> Generator[Change, None, None]:
        """Yield each row that changes from this call on, before and after.

        Changes of one row that come faster than they are taken become one. Never ends by itself. Cost: none beyond
        what moves the view.
        """
        return self._iterate(self._look(self._inner.changes))

    def rejections(self) -> Generator[Rejection, None, None]:
        """Yield each event that changed nothing, once that is final: those that become so from this call on, in order.

        Never ends by itself. Cost: none beyond what moves the view. Raises LimitExceeded to whoever has left 100,000
        of them untaken.
        """
        return self._iterate(self._look(self._inner.rejections))

    def settled(self, receipt: Receipt, timeout: float | None = None) -> Mapping[int, Verdict]:
        """Wait until the events of ``receipt`` are settled here; return, by sequence number, why some changed nothing.

        Empty: all were applied. Cost: a tick where none lies above them. Raises TimeoutError after ``timeout`` seconds;
        Trimmed for what was settled ten minutes before the snapshot that this view began with, or longer.
        """
        return self._wait(self._inner.settled(receipt, timeout))

    def get(self, key: str, *, settled: bool = False) -> Data | None:
        """Return the row of ``key``, read-only, or None: everything visible, or what is settled.

        Cost: O(1); decoding, the first time a row is looked at.
        """
        return self._look(self._inner.get, key, settled=settled)

    def state(self, key: str) -> Data | None:
        """What the fold would be given for the next event of ``key``: its row, or the ``Tombstone`` that it left.

        Cost: O(1), and decoding.
        """
        return self._look(self._inner.state, key)

    def is_settled(self, key: str) -> bool:
        """Whether nothing about ``key`` is pending. Cost: O(1)."""
        return self._look(self._inner.is_settled, key)

    def __len__(self) -> int:
        return self._look(len, self._inner)

    def find(
        self,
        where: Where = (),
        order_by: Sequence[str] = (),
        limit: int | None = None,
        cursor: str | None = None,
        *,
        settled: bool = False,
    ) -> Page:
        """Return the rows that match all of ``where``, in order, at most ``limit``: ``.rows``, ``.keys``, ``.cursor``.

        ``where``: (field, operator, value), with == != in not-in < <= > >= contains; ``order_by``: fields, "-" for
        descending; ties by key. ``cursor``: that of the page before, None when it was the last. ``settled``: among
        rows as they are at the watermark. Cost: as ``explain`` says; the first question builds the indexes, O(rows log
        rows); a settled one also looks at each key that has something pending. Raises InvalidArgument, InvalidCursor.

        >>> def example(view):
        ...     return view.find(where=[("project_id", "==", "p")], order_by=["-updated_at"], limit=30).keys
        """
        return self._look(self._inner.find, where, order_by, limit, cursor, settled=settled)

    def find_instead(
        self, where: Where, order_by: Sequence[str], limit: int | None, instead: Mapping[str, Data | None]
    ) -> Page:
        """As ``find``, if these keys had these rows instead of theirs, None: none. Cost: its, and O(instead)."""
        return self._look(self._inner.find_instead, where, order_by, limit, instead)

    def count(self, where: Where = (), *, settled: bool = False) -> int:
        """Return how many rows match. Cost: looks at no row when one index answers all clauses; else as ``find``."""
        return self._look(self._inner.count, where, settled=settled)

    def explain(self, where: Where = (), order_by: Sequence[str] = (), limit: int | None = None) -> Plan:
        """Return how ``find`` would go about it; ``str()`` says it in words. Cost: some microseconds per index."""
        return self._look(self._inner.explain, where, order_by, limit)

    def keys(self) -> Iterable[str]:
        """Every row's key, in no order. Cost: none; O(rows) with a memory budget. Do not keep it while it moves."""
        return self._look(lambda: list(self._inner.keys()))

    def look_up(self, keys: Iterable[str]) -> list[Data]:
        """The rows of keys that are there. Raises KeyError. Cost: as ``get``, for each."""
        return self._look(self._inner.look_up, keys)

    def document(self, key: str) -> Data:
        """The row of a key that is there. Raises KeyError. Cost: as ``get``."""
        return self._look(self._inner.document, key)

    def digest(self, *, pending: bool = False) -> str:
        """A number in hexadecimal that two views share exactly when their rows are equal: at the watermark, or visible.

        The sum, modulo 2**256, of the SHA-256 of each key with its state's bytes. Cost: O(rows).
        """
        return self._look(self._inner.digest, pending=pending)

    @property
    def watermark(self) -> int:
        """The stamp at or below which its rows can no longer change by late events. Cost: none."""
        return self._look(lambda: self._inner.watermark)


class PastView(Face[AsyncPastView]):
    """Rows as they were. Made by ``View.open(…, at=…)``, used as ``with``. ``damage``: snapshots passed over."""

    @property
    def damage(self) -> list[LogStoreError]:
        """What was wrong with snapshots that were passed over."""
        return self._look(lambda: self._inner.damage)

    def __enter__(self) -> PastView:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    def get(self, key: str, *, settled: bool = False) -> Data | None:
        """Return the row of ``key``, read-only, or None: everything visible, or what is settled.

        Cost: O(1); decoding, the first time a row is looked at.
        """
        return self._look(self._inner.get, key, settled=settled)

    def state(self, key: str) -> Data | None:
        """What the fold would be given for the next event of ``key``: its row, or the ``Tombstone`` that it left.

        Cost: O(1), and decoding.
        """
        return self._look(self._inner.state, key)

    def is_settled(self, key: str) -> bool:
        """Whether nothing about ``key`` is pending. Cost: O(1)."""
        return self._look(self._inner.is_settled, key)

    @property
    def projection(self) -> Projection:
        """What it is a view of. Cost: none."""
        return self._look(lambda: self._inner.projection)

    def __len__(self) -> int:
        return self._look(len, self._inner)

    def find(
        self,
        where: Where = (),
        order_by: Sequence[str] = (),
        limit: int | None = None,
        cursor: str | None = None,
        *,
        settled: bool = False,
    ) -> Page:
        """Return the rows that match all of ``where``, in order, at most ``limit``: ``.rows``, ``.keys``, ``.cursor``.

        ``where``: (field, operator, value), with == != in not-in < <= > >= contains; ``order_by``: fields, "-" for
        descending; ties by key. ``cursor``: that of the page before, None when it was the last. ``settled``: among
        rows as they are at the watermark. Cost: as ``explain`` says; the first question builds the indexes, O(rows log
        rows); a settled one also looks at each key that has something pending. Raises InvalidArgument, InvalidCursor.

        >>> def example(view):
        ...     return view.find(where=[("project_id", "==", "p")], order_by=["-updated_at"], limit=30).keys
        """
        return self._look(self._inner.find, where, order_by, limit, cursor, settled=settled)

    def find_instead(
        self, where: Where, order_by: Sequence[str], limit: int | None, instead: Mapping[str, Data | None]
    ) -> Page:
        """As ``find``, if these keys had these rows instead of theirs, None: none. Cost: its, and O(instead)."""
        return self._look(self._inner.find_instead, where, order_by, limit, instead)

    def count(self, where: Where = (), *, settled: bool = False) -> int:
        """Return how many rows match. Cost: looks at no row when one index answers all clauses; else as ``find``."""
        return self._look(self._inner.count, where, settled=settled)

    def explain(self, where: Where = (), order_by: Sequence[str] = (), limit: int | None = None) -> Plan:
        """Return how ``find`` would go about it; ``str()`` says it in words. Cost: some microseconds per index."""
        return self._look(self._inner.explain, where, order_by, limit)

    def keys(self) -> Iterable[str]:
        """Every row's key, in no order. Cost: none; O(rows) with a memory budget. Do not keep it while it moves."""
        return self._look(lambda: list(self._inner.keys()))

    def look_up(self, keys: Iterable[str]) -> list[Data]:
        """The rows of keys that are there. Raises KeyError. Cost: as ``get``, for each."""
        return self._look(self._inner.look_up, keys)

    def document(self, key: str) -> Data:
        """The row of a key that is there. Raises KeyError. Cost: as ``get``."""
        return self._look(self._inner.document, key)

    def digest(self, *, pending: bool = False) -> str:
        """A number in hexadecimal that two views share exactly when their rows are equal: at the watermark, or visible.

        The sum, modulo 2**256, of the SHA-256 of each key with its state's bytes. Cost: O(rows).
        """
        return self._look(self._inner.digest, pending=pending)

    @property
    def watermark(self) -> int:
        """The stamp at or below which its rows can no longer change by late events. Cost: none."""
        return self._look(lambda: self._inner.watermark)


def diff(
    log: Log,
    projection: Projection,
    before: Moment,
    after: Moment,
    *,
    memory_bytes_max: int | None = None,
    cache_directory: str | os.PathLike[str] | None = None,
) -> list[Change]:
    """Return how the rows of two moments differ, by key: each as it was at the earlier one, and at the later.

    The memory budget is as that of ``View.open``, and does not count the changes returned.

    Cost: that of ``View.open(…, at=before)``, of reading from there to ``after``, and of comparing all rows. Raises as
    that does.

    >>> def changed(log, projection, yesterday, now):
    ...     return [change.key for change in diff(log, projection, yesterday, now)]
    """
    return wait(
        async_diff(
            inner(log), projection, before, after, memory_bytes_max=memory_bytes_max, cache_directory=cache_directory
        ),
        log,
    )


def drop(log: Log, projection: Projection) -> bool:
    """Record that a projection is not in use any more: retention stops heeding it. False: it was not registered.

    Its snapshots stay until collection; opening it again registers it again. Cost: a LIST, a GET, a PUT. Raises
    InvalidArgument where the log is read-only, Corrupt, Missing, Unavailable.

    >>> def replace_version(log, old, new):
    ...     with View.open(log, new):  # folds from the beginning, beside the old one
    ...         return drop(log, old)
    """
    return wait(async_drop(inner(log), projection), log)


class DocumentStore(Face[AsyncDocumentStore]):
    """Collections of documents over one log. Made by ``DocumentStore.open``, used as ``with``.

    >>> import logstore.sync as logstore
    >>> from projections.sync import Collection
    >>> def example():
    ...     with (
    ...         logstore.open("memory://sync-doctest-documents") as log,
    ...         DocumentStore.open(log, writer="web-1", collections=[Collection("Deployment")]) as db,
    ...     ):
    ...         deployments = db.collection("Deployment")
    ...         deployments.create("d-1", {"status": 0})
    ...         deployments.update("d-1", {"status": 1}, when=[("status", "==", 0)])
    ...         return dict(deployments.get("d-1"))
    >>> example()
    {'status': 1}
    """

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
        return DocumentStore(
            look(
                AsyncDocumentStore.open,
                inner(log),
                writer=writer,
                collections=collections,
                mode=mode,
                standby=standby,
                takeover=takeover,
                settings=settings,
            ),
            log,
        )

    def __enter__(self) -> DocumentStore:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    def transaction(self) -> Transaction:
        """Return a transaction over documents of any collections, to be used as ``with``: all of it or nothing.

        Serializable, and linearizable: one that only read confirms the lead. Cost: at most one PUT, shared with those
        that commit at the same time; one GET where it wrote nothing. Raises Conflict (another one was in the way: begin
        again), Fenced (another process leads now: stop serving), NotStored, Unknown.
        """
        return Transaction(self._look(self._inner.transaction), self)

    def confirm(self) -> None:
        """Return once it is certain that this process led at some moment after the call: what it shows is all there is.

        Cost: one GET, shared by concurrent calls. Raises Fenced, Unavailable.
        """
        self._wait(self._inner.confirm())

    def at(self, moment: Moment) -> PastDocuments:
        """Return all collections as they were at one settled moment, which does not move; to be entered. Cost: none."""
        return PastDocuments(self._look(self._inner.at, moment), self)

    @overload
    def collection(self, kind: str) -> Documents[Any]: ...
    @overload
    def collection(self, kind: str, model: type[T]) -> Documents[T]: ...
    def collection(self, kind: str, model: type[T] | None = None) -> Documents[Any]:
        """Return a collection; its documents as mappings, or as objects of ``model``: a dataclass, a pydantic model.

        Raises InvalidArgument for a kind that the store was not opened with, or before it was entered. Cost: none.
        """
        function: Any = self._inner.collection
        return Documents(self._look(function, kind, model), self)


class PastDocuments(Face[AsyncPastDocuments]):
    """All collections of a document store as they were at one moment. Made by ``db.at``, used as ``with``.

    Called with a kind it returns the view of that collection, whose rows hold the documents as ``doc``.

    >>> def example(db, yesterday):
    ...     with db.at(yesterday) as past:
    ...         return past("Account").get("a")["doc"], past("Transfer").find().keys

    Entering costs ``View.open(…, at=moment)`` for each collection, and raises what that does.
    """

    def __enter__(self) -> PastDocuments:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    def __call__(self, kind: str) -> PastView:
        """Return the view of a collection; InvalidArgument for a kind that is not open. Cost: none."""
        return PastView(self._look(self._inner.__call__, kind), self)


class Documents(Face[AsyncDocuments[T]], Generic[T]):
    """One collection of an open document store. Made by ``db.collection``. Reads are synchronous and ask no store.

    >>> def example(db):
    ...     deployments = db.collection("Deployment")
    ...     deployments.create("d-1", {"status": 0, "stages": {"plan": {"status": 0}}})
    ...     deployments.update("d-1", {"status": 1, "stages": {"plan": {"status": 4}}})
    ...     return deployments.find(where=[("status", "==", 1)]).keys
    """

    @property
    def view(self) -> View:
        """The rows behind it; a document is their field ``doc``."""
        return View(self._look(lambda: self._inner.view), self)

    def get(self, key: str, *, settled: bool = False) -> T:
        """Return a document, read-only; NotFound. ``settled``: as it is at the watermark. Cost: none; decoding."""
        return self._look(self._inner.get, key, settled=settled)

    def version(self, key: str) -> str:
        """Return which writes made the document as it is now, for ``if_version``; NotFound. Cost: none."""
        return self._look(self._inner.version, key)

    def __contains__(self, key: str) -> bool:
        return self._look(lambda: key in self._inner)

    def __len__(self) -> int:
        return self._look(len, self._inner)

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
        return self._look(self._inner.find, where, order_by, limit, cursor, settled=settled)

    def count(self, where: Where = (), *, settled: bool = False) -> int:
        """Return how many documents match. Cost: as ``View.count``."""
        return self._look(self._inner.count, where, settled=settled)

    def explain(self, where: Where = (), order_by: Sequence[str] = (), limit: int | None = None) -> Plan:
        """Return how ``find`` would go about it; a document's fields are below ``doc`` there. Cost: as ``find``'s."""
        return self._look(self._inner.explain, where, order_by, limit)

    def watch(self, where: Where = (), after: str | None = None) -> Generator[DocumentChange, None, None]:
        """Yield what matches, as added, then each change: added, modified, removed. Never ends by itself.

        Changes of one document that come faster than they are taken become one. ``after``, the token of a change,
        goes on from there, in any process: how what matches differs from what it was at the token's stamp, and, as it
        is now, every document that anything later was about. Cost: none beyond what moves the view; going on costs what
        ``View.open(at=…)`` does. Raises InvalidArgument; StaleStore, Trimmed: watch without the token.
        """
        return self._iterate(self._look(self._inner.watch, where, after))

    def conflicts(self) -> Generator[Rejection, None, None]:
        """Yield each write, by anyone, that changed nothing, once that is final; from this call on. As a view's."""
        return self._iterate(self._look(self._inner.conflicts))

    def create(self, key: str, document: T | Data, *, type: str = "created", meta: Data | None = None) -> WriteReceipt:
        """Create a document; AlreadyExists where there is one. ``type``, ``meta``: of the event, for who reads the log.

        In a collection that is ``unique`` this answers for good: one of all callers creates it. Else a document that
        another process created meanwhile, unseen, makes this a no-op, which ``settled`` on the receipt tells.

        Cost: an append; if unique also a barrier, a GET and a PUT, or a barrier where it exists. Raises
        InvalidArgument, Conflict (the guard), and what ``Writer.append`` does; if unique Unavailable where it is not
        known: create it again, and see.
        """
        return WriteReceipt(self._wait(self._inner.create(key, document, type=type, meta=meta)), self)

    def update(
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
        return WriteReceipt(
            self._wait(
                self._inner.update(key, change, type=type, if_version=if_version, when=when, blind=blind, meta=meta)
            ),
            self,
        )

    def delete(
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
        return WriteReceipt(
            self._wait(self._inner.delete(key, type=type, if_version=if_version, when=when, blind=blind, meta=meta)),
            self,
        )

    def modify(
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
        return WriteReceipt(
            self._wait(self._inner.modify(key, function, type=type, attempts_max=attempts_max, meta=meta)), self
        )


class WriteReceipt(Face[AsyncWriteReceipt]):
    """A write of one document is stored. Made by the writes of ``Documents``.

    Whether it was applied is judged where it stands: ``settled`` tells.
    """

    @property
    def receipt(self) -> Receipt:
        """Where the write is stored."""
        return self._look(lambda: self._inner.receipt)

    def settled(self, timeout: float | None = None) -> None:
        """Return once the write is applied for good; raise what became of it instead.

        AlreadyExists: a creation that was not the first; NotFound: the document was gone; Conflict: a guard, a
        version, a clause or an owner stood against it. Cost: a tick where none lies above it; sessions that are open
        and quiet hold it up until they tick, or are sealed. Raises TimeoutError after ``timeout`` seconds, and what
        ``View.settled`` raises.
        """
        self._wait(self._inner.settled(timeout))


class Transaction(Face[AsyncTransaction]):
    """Reads and writes that happen together. Made by ``db.transaction()``, used as ``with``.

    Left without an error it commits; with one nothing is written. ``receipt``: of the commit, afterwards. What it waits
    for is bounded: Conflict, from any method, means that another transaction was in the way; begin again. Cancelled
    within, nothing is written; cancelled while it commits, all of it or nothing.

    >>> def move(db, amount):
    ...     with db.transaction() as tx:
    ...         a, b = tx.get("Account", "a"), tx.get("Account", "b")
    ...         tx.update("Account", "a", {"balance": a["balance"] - amount})
    ...         tx.update("Account", "b", {"balance": b["balance"] + amount})
    """

    @property
    def receipt(self) -> Receipt | None:
        """Where the commit is stored, once it is; None where nothing was written."""
        return self._look(lambda: self._inner.receipt)

    def __enter__(self) -> Transaction:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    def get(self, kind: str, key: str) -> Data:
        """Return a document, locked from now on; NotFound. Cost: none."""
        return self._wait(self._inner.get(kind, key))

    def find(self, kind: str, where: Where = (), order_by: Sequence[str] = (), limit: int | None = None) -> Page:
        """Return the documents that match, in order, all of them locked from now on. Cost: as ``View.find``, twice."""
        return self._wait(self._inner.find(kind, where, order_by, limit))

    def create(self, kind: str, key: str, document: Data, *, type: str = "created", meta: Data | None = None) -> None:
        """Create a document; AlreadyExists."""
        self._wait(self._inner.create(kind, key, document, type=type, meta=meta))

    def update(
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
        self._wait(self._inner.update(kind, key, change, type=type, if_version=if_version, when=when, meta=meta))

    def delete(
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
        self._wait(self._inner.delete(kind, key, type=type, if_version=if_version, when=when, meta=meta))


def keep(
    log: Log,
    projections: Sequence[Projection] = (),
    *,
    settings: KeepSettings | None = None,
    snapshot_ms: int = SNAPSHOT_MS,
    pause_ms: int = PAUSE_MS,
    rng: random.Random | None = None,
) -> Generator[KeepRound, None, None]:
    """Keep ``log`` until the caller stops iterating; yield what each round did.

    Snapshots of ``projections`` are written about every ``snapshot_ms`` while rows change; of others somebody else must
    write them, or nothing is retired. Between rounds it waits about ``pause_ms``. ``rng`` is for tests.

    Cost of a round with nothing to do: see RFC 0006; a LIST per projection; without projections as ``log.survey``.
    Raises InvalidArgument on a log opened read-only, and Unavailable at once where it may not write.

    >>> def keep_for_ever(log, projections):
    ...     for done in keep(log, projections):
    ...         print(len(done.garbage), "objects collected", *done.problems)
    """
    return iterate(
        look(
            async_keep, inner(log), projections, settings=settings, snapshot_ms=snapshot_ms, pause_ms=pause_ms, rng=rng
        ),
        log,
    )
