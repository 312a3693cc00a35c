"""The log, for callers without an event loop: the names of ``logstore``, with nothing to await.

>>> import logstore.sync as logstore
>>> from logstore.sync import Event
>>> with logstore.open("memory://sync") as log, log.writer("web-1") as writer:
...     receipt = writer.append(Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}))
...     [(event.key, event.data["status"]) for event in log.read()]
[('d-1', 1)]

Any number of threads may call. One event loop does the work, in a thread of its own, for the whole process; it starts
at the first use. When the main thread ends, what is open is closed, and calls of other threads end with an error.

Cost, beside that of the asyncio API (two cores; more where other threads compute): what is awaited there, 40
microseconds; what only looks (``statistics()``, a view's ``get``), 1 while the loop rests, 30 while it works; an event
of a reader, 0, and a wait for each segment; a step of another iterator, a wait.

An interrupt (Ctrl-C) cancels the call that waits. ``close()`` of an iterator ends it, also while another thread waits
in it; so does letting go of it. Leaving a ``with`` ends what other threads still wait for within it. Functions that
you pass (to ``update``, folds, guards) are called by the loop: they may look, and must not wait. After a fork nothing
of the parent's can be used in the child; open it again there.

Written by ``scripts/sync_face.py``: do not edit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Generator, Sequence
from types import TracebackType
from typing import Literal

from logstore.appended import AppendedStatistics
from logstore.background import Face, inner, look, wait
from logstore.backup import copy_store as async_copy_store
from logstore.catchup import Run
from logstore.clock import Clock, SystemClock
from logstore.collector import Garbage
from logstore.encryption import Keyring
from logstore.entry import Address, Entry
from logstore.errors import (
    AlreadyExists,
    ClockSkew,
    Conflict,
    Corrupt,
    Fenced,
    InvalidArgument,
    InvalidCursor,
    KeyNeeded,
    LimitExceeded,
    LogStoreError,
    Missing,
    NotFound,
    NotStored,
    StaleStore,
    Trimmed,
    Unavailable,
    Unknown,
    UnsafeStore,
)
from logstore.event import Event, StoredEvent
from logstore.filestore.base import FileStore
from logstore.filestore.wrappers import RetrySettings, StoreStatistics
from logstore.finding import Finding, Progress
from logstore.follower import FollowerStatistics, FollowSettings
from logstore.frontier import OpenSession, Position
from logstore.histogram import HistogramCounts
from logstore.identity import Identity
from logstore.keeper import Keeper as AsyncKeeper
from logstore.keeper import KeepSettings, Retirement
from logstore.keys import ManifestKey, StageId
from logstore.log import GRACE_MS, LogSettings, LogStatistics
from logstore.log import Log as AsyncLog
from logstore.log import open_log as async_open
from logstore.pins import PIN_MS
from logstore.pins import Pin as AsyncPin
from logstore.protection import Protection
from logstore.reader import Reader as AsyncReader
from logstore.receipt import Receipt
from logstore.signature import SigningKey, Trust, Trusted
from logstore.spans import Span, Tracer
from logstore.stagelogs import Stage as AsyncStage
from logstore.stagelogs import StageLogs as AsyncStageLogs
from logstore.stagepage import Block
from logstore.stageretention import DroppedStageLog
from logstore.survey import OpenSessionSurvey, Sealing, Survey, WriterSurvey
from logstore.writer import Writer as AsyncWriter
from logstore.writer import WriterSettings, WriterStatistics

__all__ = [
    # The log
    "open",
    "Log",
    "LogSettings",
    # Writing
    "Event",
    "Writer",
    "WriterSettings",
    "WriterStatistics",
    "Receipt",
    # Reading
    "Reader",
    "StoredEvent",
    "Position",
    "FollowSettings",
    # Stage logs
    "StageLogs",
    "Stage",
    "StageId",
    "Block",
    # Looking after it
    "Finding",
    "Progress",
    "copy_store",
    "Survey",
    "OpenSessionSurvey",
    "WriterSurvey",
    "Sealing",
    "Keeper",
    "KeepSettings",
    "Retirement",
    "Garbage",
    "DroppedStageLog",
    "Pin",
    # Watching a process
    "LogStatistics",
    "AppendedStatistics",
    "FollowerStatistics",
    "HistogramCounts",
    "Tracer",
    "Span",
    # Protecting it
    "Protection",
    "Keyring",
    "Trust",
    "Trusted",
    "SigningKey",
    # The store below, and time
    "FileStore",
    "RetrySettings",
    "StoreStatistics",
    "Clock",
    "SystemClock",
    # Errors
    "LogStoreError",
    "Unavailable",
    "AlreadyExists",
    "NotFound",
    "UnsafeStore",
    "NotStored",
    "Unknown",
    "ClockSkew",
    "Conflict",
    "Fenced",
    "LimitExceeded",
    "Corrupt",
    "KeyNeeded",
    "Missing",
    "Trimmed",
    "StaleStore",
    "InvalidArgument",
    "InvalidCursor",
]


def open(
    store: str | FileStore,
    *,
    settings: LogSettings | None = None,
    read_only: bool = False,
    create: bool = True,
    history: str = "full",
    grace_ms: int = GRACE_MS,
    protection: Protection | None = None,
    tracer: Tracer | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> Log:
    """Return the log in ``store``, an address or a filestore, to be entered by ``with``.

    A store that holds no log yet is probed and made one, with ``history`` (full, archive, drop) and ``grace_ms``,
    unless ``read_only`` or not ``create``. ``protection``: how its objects are encrypted and signed, from the first on.
    ``tracer`` is told what goes on for how long, ``logstore.otel.OpenTelemetry()`` say. ``clock`` and ``rng`` are for
    tests.

    Entering costs one GET; a dozen requests when the log is new. It raises NotFound (no log there, and none to be
    made), KeyNeeded (it is protected), UnsafeStore, Missing, Corrupt, Unavailable, InvalidArgument.

    >>> import logstore.sync as logstore
    >>> from logstore.sync import Event
    >>> def example():
    ...     with logstore.open("memory://sync-doctest-open") as log, log.writer("web-1") as writer:
    ...         return writer.append(Event(kind="Greeting", key="g", type="said")).slot
    >>> example()
    0
    """
    return Log(
        look(
            async_open,
            store,
            settings=settings,
            read_only=read_only,
            create=create,
            history=history,
            grace_ms=grace_ms,
            protection=protection,
            tracer=tracer,
            clock=clock,
            rng=rng,
        )
    )


class Log(Face[AsyncLog]):
    """An open log. Made by ``logstore.open``; everything it hands out ends with it.

    >>> import logstore.sync as logstore
    >>> from logstore.sync import Event
    >>> def example():
    ...     with logstore.open("memory://sync-doctest-log") as log, log.writer("web-1") as writer:
    ...         receipt = writer.append(Event(kind="Greeting", key="g", type="said"))
    ...         log.settled(receipt, timeout=5)
    ...         return [event.settled for event in log.read()], log.requests().list.requests
    >>> example()
    ([True], 0)
    """

    def __enter__(self) -> Log:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    @property
    def identity(self) -> Identity:
        """Which store this is. Cost: none."""
        return self._look(lambda: self._inner.identity)

    def keeper(self, settings: KeepSettings | None = None) -> Keeper:
        """Return who looks after this log's history: closes chapters, retires them, collects garbage. Cost: none."""
        return Keeper(self._look(self._inner.keeper, settings), self)

    def pin(self, owner: str, after: Position | str | None = None, *, for_ms: int = PIN_MS) -> Pin:
        """Return a pin to be entered by ``with``: what lies after a position is not retired while it lasts.

        ``after`` None: all that is not retired yet. ``owner``: for operators to know whom to ask. A pin that is taken
        while a chapter is being retired may come too late for that chapter: then entering it raises Trimmed, or the pin
        begins later. Cost: a PUT, and two GETs and one per session of the position; a PUT to release it. Raises
        InvalidArgument (more than seven days; a read-only log), Trimmed, StaleStore, Unavailable.
        """
        return Pin(self._look(self._inner.pin, owner, after, for_ms=for_ms), self)

    def stage_log(self, stage: StageId) -> Stage:
        """Return one stage log; ``StageLogs`` is the front door. Cost: none."""
        return Stage(self._look(self._inner.stage_log, stage), self)

    def stage_logs_of(self, deployment: str) -> list[StageId]:
        """See ``StageLogs.stages``."""
        return self._wait(self._inner.stage_logs_of(deployment))

    @property
    def read_only(self) -> bool:
        """Whether it was opened so as to write nothing. Cost: none."""
        return self._look(lambda: self._inner.read_only)

    def requests(self) -> StoreStatistics:
        """Requests and bytes by verb since the log was made; subtract two to count a stretch. Cost: none."""
        return self._look(self._inner.requests)

    def statistics(self) -> LogStatistics:
        """What this process does with the log. Cost: O(open sessions). Any thread may call."""
        return self._look(self._inner.statistics)

    def writer(self, name: str, settings: WriterSettings | None = None) -> Writer:
        """Return a writer to be entered by ``with``. Its first append opens a session.

        Any number of processes may write under one name. Cost: none. Raises InvalidArgument for a name that is
        empty, longer than 200 bytes, or not text; and on a read-only log.
        """
        return Writer(self._look(self._inner.writer, name, settings), self)

    def resolve(self, unknown: Unknown | str) -> Receipt:
        """Settle what an append left open, given its ``Unknown`` or the token of it, in any process.

        Returns the receipt when the events are stored; raises NotStored when they are not and never will be. Ends
        the session in question. Cost: one GET per slot of that session, at most one PUT. Raises Unavailable: ask
        again later.
        """
        return self._wait(self._inner.resolve(unknown))

    def read(
        self,
        after: Position | str | None = None,
        kinds: Collection[str] | None = None,
        *,
        settled: bool = False,
        on_damage: Literal["raise", "skip"] = "raise",
    ) -> Reader:
        """Return a reader of everything stored when it starts, in total order; of what is settled by then, if asked.

        ``on_damage="skip"`` leaves a damaged session, notes the error in ``reader.damage`` and goes on with the others;
        nothing above the damage is settled then, and who goes on from the position meets it again.
        Cost: one GET per roster entry and segment after ``after`` that is not remembered, and one per open session.
        Raises Corrupt, Missing, StaleStore, Trimmed, Unavailable as it goes.
        """
        return Reader(self._look(self._inner.read, after, kinds, settled=settled, on_damage=on_damage), self)

    def follow(
        self, after: Position | str | None = None, kinds: Collection[str] | None = None, *, settled: bool = False
    ) -> Reader:
        """Return a reader that never ends: what is stored, then what comes; strictly in total order if settled.

        All readers of a log share one follower. Cost: as ``read`` to catch up; then one GET per poll, and one per
        open session.
        """
        return Reader(self._look(self._inner.follow, after, kinds, settled=settled), self)

    def oldest(self) -> Position | None:
        """Where what is kept begins, for ``read`` and ``follow``; None: at the beginning, nothing was dropped.

        Cost: 1 GET, or 2·log2 of the retired chapters. Raises Corrupt, Unavailable.
        """
        return self._wait(self._inner.oldest())

    def moves(self) -> Generator[None, None, None]:
        """Yield once it looks, then each time that something new is stored, by anyone: an event, a session, a tick.

        What comes faster than it is asked for becomes one. Never ends by itself. Cost: one GET per poll, and one per
        open session; the first time in a process that does not follow yet, a survey. Raises Corrupt, Missing, Trimmed,
        Unavailable.
        """
        return self._iterate(self._look(self._inner.moves))

    def now_ms(self) -> int:
        """The store's time as this process reckons it, in Unix milliseconds. Cost: none."""
        return self._look(self._inner.now_ms)

    @property
    def watermark(self) -> int:
        """The stamp at or below which this process knows that nothing new can appear; 0 while it does not follow."""
        return self._look(lambda: self._inner.watermark)

    def settled(self, receipt: Receipt, timeout: float | None = None) -> None:
        """Wait until the events of ``receipt`` have their final place in the order; TimeoutError after ``timeout`` s.

        Posts a tick if none lies above them, and seals silent sessions that hold the watermark. Follows from now on.
        Cost: a tick (4 requests), and polls; the first time in a process that does not follow yet, a reading of all
        chapters that are not retired.
        """
        self._wait(self._inner.settled(receipt, timeout))

    def reach(self, stamp: int) -> None:
        """Wait until the watermark of this process's follower has come to ``stamp``. Cost: as ``settled``."""
        self._wait(self._inner.reach(stamp))

    def tick(self, above: int) -> bool:
        """Let the watermark rise to ``above``, a stamp, as far as sessions allow: post a tick if no entry lies there.

        False: one did. Cost: 3 GETs, and 1 PUT; more when another process is faster. Raises ClockSkew, Missing,
        Unavailable (it may land yet).
        """
        return self._wait(self._inner.tick(above))

    def post_point(self, built_on: tuple[ManifestKey, ...], expect: Callable[[Address], None]) -> Entry:
        """Post a tick that is a snapshot point: snapshots at it build on these manifests.

        ``expect`` is told where it may come to lie, each time before it is sent. Cost: as ``tick``, always.
        """
        return self._wait(self._inner.post_point(built_on, expect))

    def check(self, progress: Progress | None = None) -> Generator[Finding, None, None]:
        """Return an iterator of everything that is wrong in the store, not only the first; notes too. Writes nothing.

        Cost: a LIST per 1,000 keys and one GET per object. Raises Unavailable; damage is yielded.
        """
        return self._iterate(self._look(self._inner.check, progress))

    def survey(self) -> Survey:
        """Return what the log holds and what holds its watermark.

        Cost: a LIST per 1,000 keys; one GET per roster entry and per session, a few more per open session. Raises
        Corrupt, Missing, Unavailable.
        """
        return self._wait(self._inner.survey())

    def seal(self, *, dry_run: bool = False, writer: str | None = None) -> tuple[Sealing, ...]:
        """End the sessions silent for their seal time, by the store's own times; return what came of each open one.

        ``dry_run`` only says what would be done. ``writer``: only that writer's, at once, for who knows that it is gone
        (one that lives loses nothing: it goes on in a new session; but a leader that lives is Fenced). Cost: a survey;
        about eight requests per session sealed, four for a tick. Raises Corrupt, Missing (of the survey), Unavailable.
        """
        return self._wait(self._inner.seal(dry_run=dry_run, writer=writer))

    def close_chapter(self) -> bool:
        """End the newest chapter; new sessions open in the next. False: it holds no session, or another ended it.

        Sessions of the old chapter run on. Cost: about 8 requests. Raises ClockSkew, Missing, Unavailable.
        """
        return self._wait(self._inner.close_chapter())


class Writer(Face[AsyncWriter]):
    """Appends under one name. Made by ``log.writer(name)``, used as ``with``.

    >>> def example(log):
    ...     with log.writer("web-1") as writer:
    ...         return writer.append(Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}))
    """

    @property
    def name(self) -> str:
        """Under which name it appends."""
        return self._look(lambda: self._inner.name)

    def statistics(self) -> WriterStatistics:
        """What it has done and holds. Cost: none."""
        return self._look(self._inner.statistics)

    def __enter__(self) -> Writer:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    @property
    def is_closed(self) -> bool:
        """Whether it has been closed and has nothing left to do. Cost: none."""
        return self._look(lambda: self._inner.is_closed)

    def aclose(self) -> None:
        """Send what is buffered, wait for it, end the session. Idempotent. Cost: the flush, one PUT, at most a tick."""
        self._wait(self._inner.aclose())

    def append(self, event: Event) -> Receipt:
        """Store one event; return when it is durable.

        Concurrent calls share a segment. Cancelling the call leaves the writer whole; the event may be stored or not.
        Cost: a share of one PUT, after the linger. Raises InvalidArgument, NotStored, Unknown, ClockSkew, Missing.
        """
        return self._wait(self._inner.append(event))

    def append_many(self, events: Sequence[Event]) -> Receipt:
        """Store events that become visible together or not at all; return when they are durable.

        Cost: at most one PUT. Raises LimitExceeded above 10,000 events or 8 MiB, and whatever ``append`` raises.
        """
        return self._wait(self._inner.append_many(events))

    def require_storable(self, event: Event) -> None:
        """Raise what ``append`` would find against the event itself: InvalidArgument, LimitExceeded. Cost: encoding."""
        self._look(self._inner.require_storable, event)


class Reader(Face[AsyncReader]):
    """Events in order, as an iterator. Made by ``log.read`` and ``log.follow``.

    A step that is cancelled, or fails, ends nothing: iterated again, it goes on after the last event yielded.

    ``damage``: what a reader that skips damage has met, in the order met.

    >>> def example(log):
    ...     reader = log.read()
    ...     events = [event.key for event in reader]
    ...     return events, str(reader.position)
    """

    @property
    def damage(self) -> list[LogStoreError]:
        """What a reader that skips damage has met, in the order met."""
        return self._look(lambda: self._inner.damage)

    @property
    def position(self) -> Position | None:
        """Where it is: after the last event yielded. None before the first step. Cost: none."""
        return self._look(lambda: self._inner.position)

    @property
    def watermark(self) -> int:
        """The stamp at or below which nothing new can come from it; exact between batches. Cost: O(open sessions)."""
        return self._look(lambda: self._inner.watermark)

    def holds(self, receipt: Receipt) -> bool:
        """Whether the events of ``receipt`` were yielded, and taken by asking for more. Cost: none."""
        return self._look(self._inner.holds, receipt)

    def holder(self) -> OpenSession | None:
        """The session that holds the watermark back, None when the roster's last entry does. Cost: O(open sessions)."""
        return self._look(self._inner.holder)

    @property
    def last_entry(self) -> int:
        """The stamp of the last roster entry read: the watermark rises no further. Cost: none."""
        return self._look(lambda: self._inner.last_entry)

    def begin(self) -> None:
        """Begin where it was told to, unless it has. Cost: as ``resume``. Raises StaleStore, Trimmed, Unavailable."""
        self._wait(self._inner.begin())

    def __iter__(self) -> Generator[StoredEvent, None, None]:
        return self._resume(self._inner.events_by_run)

    def runs(self) -> Generator[Run, None, None]:
        """The same, as runs of columns: no object per event, kinds not filtered.

        While a run is in hand ``position`` is before it, or within it when iterating over events.
        """
        return self._iterate(self._look(self._inner.runs))

    def batch(self, *, to_tail: bool = False) -> Generator[Run, None, None]:
        """Catch up once: to the follower's frontier, if this reader follows and the follower runs; else to the tail.

        ``to_tail``: there anyway. A follower that somebody starts meanwhile need not have come so far.
        """
        return self._iterate(self._look(self._inner.batch, to_tail=to_tail))


class StageLogs(Face[AsyncStageLogs]):
    """The stage logs of a log.

    >>> import logstore.sync as logstore
    >>> from logstore.sync import Block, StageLogs
    >>> def example():
    ...     with logstore.open("memory://sync-doctest-stage-logs") as log:
    ...         stage = StageLogs(log).stage("deployment-1", "stage-2", retry=0)
    ...         stage.append([Block(0, "pulling"), Block(1, "pulled")])
    ...         stage.append([Block(1, "pulled"), Block(2, "applied")])
    ...         stage.complete()
    ...         blocks, completed = stage.fetch(offset=1)
    ...         return [block.text for block in blocks], completed
    >>> example()
    (['pulled', 'applied'], True)
    """

    def __init__(self, log: Log) -> None:
        super().__init__(AsyncStageLogs(inner(log)), log)

    def stage(self, deployment: str, stage: str, retry: int = 0) -> Stage:
        """Return one stage log, to be written or read; it need not exist. Keep it: it remembers where it is.

        Any number of processes may write and read one. Cost: none. Raises InvalidArgument for names that are empty or
        longer than 200 bytes, and for a retry that is no number from 0 to 9,999,999,999.
        """
        return Stage(self._look(self._inner.stage, deployment, stage, retry), self)

    def stages(self, deployment: str) -> list[StageId]:
        """The stage logs of a deployment that are there, by name and retry. Cost: a LIST per 1,000 pages they have."""
        return self._wait(self._inner.stages(deployment))


class Stage(Face[AsyncStage]):
    """One stage log. Made by ``StageLogs.stage``.

    >>> def tail(stage):
    ...     for block in stage.follow():
    ...         print(block.index, block.text)
    """

    @property
    def id(self) -> StageId:
        """Which one it is. Cost: none."""
        return self._look(lambda: self._inner.id)

    def append(self, blocks: Sequence[Block]) -> None:
        """Store the blocks whose indices are not stored yet; return when all are durable.

        Blocks may come in any order, from any process, again and again: of those with one index the first that is
        stored stays. Once the stage log is complete a new block is refused; one that is stored already is fine.
        Concurrent calls share an object. Interrupted, or Unavailable, it may be stored or not: append it again.

        Cost: one PUT; none where nothing is new. The first time also 2·log2 of the pages that are there in GETs of 176
        bytes, and two; a GET each half grace; where another process writes too, a GET and a PUT more for each time that
        it was faster. A block whose index lies below the last unbroken range of indices, for the first such: a GET per
        page. Raises Conflict (complete), LimitExceeded (65,536 blocks, 8 MiB of text), InvalidArgument, Trimmed,
        Corrupt, Missing, Unavailable.
        """
        self._wait(self._inner.append(blocks))

    def complete(self, blocks: Sequence[Block] = ()) -> None:
        """Say that nothing will follow, after storing these last blocks. Again and again is fine.

        Cost: as ``append``, always with a PUT unless it is known to be complete. Raises what ``append`` raises.
        """
        self._wait(self._inner.complete(blocks))

    def fetch(self, offset: int = 0) -> tuple[list[Block], bool]:
        """Return what is stored from index ``offset`` on, by index, and whether that is all for ever.

        What was acknowledged before the call, by anyone, is in it. All of it is in memory at once; ``follow`` is not.

        Cost: a GET per page from the first on that may hold such a block, up to 7 more at the end, and one. Where it
        begins is found by 2·log2 of the pages before, GETs of 176 bytes; at once where the last ``fetch`` of this
        object ended: then one GET if nothing is new, once a minute two. Two more the first time, one each half grace.
        Raises NotFound when nothing was ever written, Trimmed, Corrupt, Missing, Unavailable.
        """
        return self._wait(self._inner.fetch(offset))

    def follow(self, offset: int = 0) -> Generator[Block, None, None]:
        """Yield what is stored from index ``offset`` on, then what comes, until the stage log is complete.

        In the order in which it is stored, which is that of indices where they were written so; waits for a stage log
        that nobody has begun. Holds 8 pages at a time at most, and fewer where they are large.

        Cost: as ``fetch``; then a GET per poll, and one more each minute. Raises Trimmed, Corrupt, Missing;
        Unavailable: go on from the last index.
        """
        return self._iterate(self._look(self._inner.follow, offset))


def copy_store(
    source: str | FileStore,
    target: str | FileStore,
    *,
    history: str | None = None,
    accept_loss: bool = False,
    on_loss: Callable[[Finding], None] | None = None,
    progress: Progress | None = None,
    source_protection: Protection | None = None,
    target_protection: Protection | None = None,
    clock: Clock | None = None,
    rng: random.Random | None = None,
) -> bytes:
    """Make ``target`` a copy of ``source``, or continue one; return the copy's id. Both may be in use.

    They are addresses or filestores. A copy is a store of its own, whose ``ancestor`` is the source; it cannot be
    opened until it is whole. ``history``: the copy's policy, where it is to be another than the source's.
    ``progress`` counts the objects created. ``source_protection``, ``target_protection``: as for ``open``; a copy may
    be protected in another way than its source; who signs one may ``keep``. ``clock`` and ``rng`` are for tests.

    ``accept_loss``: leave out what is lost or damaged in the source, and what cannot stand without it; ``on_loss`` is
    told, when all else is copied. The target must be empty. Where anything was left out it is no copy to be continued.

    Cost: a LIST per 1,000 keys of either; a GET and a PUT per object that the target has not, with ``accept_loss``
    up to two GETs; nothing is written to the source. Raises InvalidArgument for a target that is no copy of this
    source, was written to, or has another history; Corrupt and Missing, naming what is wrong in the source;
    Unavailable: run it again, and it goes on.

    >>> def back_up():
    ...     return copy_store("file:///srv/cp", "s3://backups/cp")
    """
    return wait(
        async_copy_store(
            source,
            target,
            history=history,
            accept_loss=accept_loss,
            on_loss=on_loss,
            progress=progress,
            source_protection=source_protection,
            target_protection=target_protection,
            clock=clock,
            rng=rng,
        )
    )


class Keeper(Face[AsyncKeeper]):
    """Keeps one log's history in bounds. Made by ``log.keeper``; each call does one round of one duty.

    >>> def round(log):
    ...     keeper = log.keeper()
    ...     keeper.close_chapter()
    ...     keeper.retire()
    ...     return [garbage.key for garbage in keeper.collect()]
    """

    def close_chapter(self) -> bool:
        """End the newest chapter if it is old or long enough; False: it is not, or holds no session.

        Cost: as finding the roster's tail, and 2 GETs; 8 requests where it ends. Raises ClockSkew, Unavailable.
        """
        return self._wait(self._inner.close_chapter())

    def retire(self, *, dry_run: bool = False) -> list[Retirement]:
        """Retire each chapter that may be, in order, and archive it before if the store is to keep history.

        The last one says what keeps the next chapter. Cost: LISTs of snapshots, chunks and pins; per chapter retired a
        GET per object of it, and of each chunk of its covering snapshots once. Raises Corrupt, Missing, Unavailable.
        """
        return self._wait(self._inner.retire(dry_run=dry_run))

    def drop_stage_logs(self, *, dry_run: bool = False) -> Generator[DroppedStageLog, None, None]:
        """Record that each stage log is gone to which nothing was added for the time set; yield what became of it.

        A grace later ``collect`` deletes its pages; the record stays for ever. One that nobody completed is completed
        before, so that nothing can be added that would go with it. A dry run only says which, by their ages.
        Cost: a LIST per 1,000 keys of all stage logs, once in a quarter of the grace; of each that goes 4 GETs and 1 or
        2 PUTs. Nothing where no age is set. Raises ClockSkew, Unavailable; damage keeps a stage log, and is said.
        """
        return self._iterate(self._look(self._inner.drop_stage_logs, dry_run=dry_run))

    def collect(self, *, dry_run: bool = False, void: bool = False) -> Generator[Garbage, None, None]:
        """Delete what nobody needs any more, and yield each object once it is deleted; a dry run only yields.

        ``void``: also slots above their sessions' finals, in chapters not retired; a GET per session finds them.
        Cost: LISTs of snapshots, chunks, pins, archives and records; of stage logs once in a quarter of the grace; of
        the whole log where a chapter has become old enough; a DELETE per object. Raises ClockSkew, Corrupt,
        Unavailable: what was deleted is, run it again.
        """
        return self._iterate(self._look(self._inner.collect, dry_run=dry_run, void=void))

    def try_out(self) -> None:
        """Create an object and delete it, so that missing permissions show at once. Raises Unavailable."""
        self._wait(self._inner.try_out())

    def sweep(self) -> int:
        """Remove unfinished files that are a grace old, and empty directories, of a local store; how many there were.

        Cost: a scan of the directory; nothing where the store is remote.
        """
        return self._wait(self._inner.sweep())


class Pin(Face[AsyncPin]):
    """A pin to be held by ``with``. Made by ``log.pin``.

    What it needs stays until it expires: renew it while you read. A release is one more object.

    >>> def export(log):
    ...     with log.pin("nightly export") as pin:
    ...         reader = log.read()
    ...         for event in reader:
    ...             if event.seq % 10_000 == 0:
    ...                 pin.renew(reader.position)
    """

    @property
    def chapter(self) -> int:
        """The first chapter that it keeps. Cost: none."""
        return self._look(lambda: self._inner.chapter)

    def __enter__(self) -> Pin:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit(kind, error, traceback)

    def renew(self, after: Position | None = None) -> None:
        """Keep what lies after a position, and let go of what lies before it; None: as before.

        Cost: a PUT, and two GETs and one per session of the position. Raises Trimmed when retention was faster,
        StaleStore, Unavailable.
        """
        self._wait(self._inner.renew(after))
