"""A view: a fold kept at the log's tail, in memory, with what makes it answer quickly.

``state.py`` has the rows and decides what an event changes; ``index.py`` and ``query.py`` find among them. A view
is the loop between these and a reader: it takes in batches of runs, lets the watermark rise, brings the indexes up
to date with what changed, and tells those who wait. Reads are synchronous and touch only memory, and with a memory
budget a local file.

With ``follow=True`` a task takes in what the log's one follower finds, as it comes. Without, the view moves when
``refresh`` or a ``wait_for`` says so.

Invariants:
- Between two runs rows and indexes agree; a reader on the event loop never sees them differ.
- A view never goes back: positions and watermark only rise.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple, overload
from weakref import WeakKeyDictionary, ref

from logstore import (
    ClockSkew,
    Corrupt,
    InvalidArgument,
    Log,
    LogStoreError,
    Missing,
    Position,
    Reader,
    Receipt,
    Trimmed,
    Unavailable,
)
from logstore.clock import STAMP_MAX, stamp_ms
from logstore.entry import Address, Entry
from logstore.keys import ManifestKey, manifest_key
from logstore.manifest import Manifest
from logstore.notices import Notices
from logstore.spans import span_of
from logstore.trail import SettledTrail
from projections.bounded import BoundedRows, MemoryBudget, Rows
from projections.past import Moment, PastView
from projections.projection import FoldFailed, Projection
from projections.snapshots import Cut, Snapshotter, begin, drop, require_history
from projections.state import Rejection, Verdict
from projections.subscription import ChangeSubscription, RejectionSubscription
from projections.table import Change, Table

__all__ = ["View", "ViewProgress", "ViewStatistics", "events_folded", "open_views"]

_log = logging.getLogger(__name__)

OUTAGE_PAUSE_S: Final = 1  # beyond the retries of each request
UNTICKED_EVENTS_MAX: Final = 100_000  # what may wait in memory for the next entry that a writer posts


@dataclass(frozen=True, slots=True)
class ViewStatistics:
    """How a view is doing, as of now.

    ``pending_events``: those above the watermark; ``unticked_events``: those of them above the last roster entry,
    which wait for a tick. ``lag_ms``: how far the watermark is behind the clock. ``holder``: which session holds it,
    in words; "" when none does. ``parked_events``: those that the fold failed on, of the last ones remembered; what
    they did is not in the rows. ``memory_bytes``: keys, rows and table, indexes not counted. ``cold_rows``: how many
    rows are in the cache file, where there is a memory budget, and not in memory; ``cache_file_bytes``: its size.
    """

    rows: int
    pending_events: int
    unticked_events: int
    watermark: int
    lag_ms: int
    holder: str
    parked_events: int
    decoded_rows: int
    memory_bytes: int
    cold_rows: int
    cache_file_bytes: int


@dataclass(frozen=True, slots=True)
class ViewProgress:
    """How far a view is: what of ``ViewStatistics`` costs nothing to know, and more.

    ``events_taken``: how many events of its kinds it has folded since it was opened, without those of a snapshot that
    it began with. ``oldest_pending``: the stamp of the oldest event above the watermark, None: all is settled.
    """

    rows: int
    events_taken: int
    pending_events: int
    oldest_pending: int | None
    unticked_events: int
    parked_events: int
    watermark: int
    cold_rows: int
    cache_file_bytes: int


class _OfLog(NamedTuple):
    """The views of one log that are open in this process; of those that were, what they have folded. Replaced whole."""

    views: tuple[ref[View], ...] = ()
    folded: Mapping[tuple[str, int], int] = MappingProxyType({})

    def open(self) -> list[View]:
        views = [open_view() for open_view in self.views]
        return [view for view in views if view is not None]


_of_logs: WeakKeyDictionary[Log, _OfLog] = WeakKeyDictionary()


def open_views(log: Log) -> list[View]:
    """The views of ``log`` that are open in this process, those of document stores too. Any thread may call."""
    return _of_logs.get(log, _OfLog()).open()


def events_folded(log: Log) -> Counter[tuple[str, int]]:
    """How many events this process has folded since it opened ``log``: by projection and version. Any thread may call.

    By views that were closed, too: so it never falls, unless one is dropped without being left.
    """
    while True:
        of_log = _of_logs.get(log, _OfLog())
        folded = Counter(of_log.folded)
        for view in of_log.open():
            folded[view.projection.name, view.projection.version] += view._state.events_taken
        if _of_logs.get(log, of_log) is of_log:  # else a view was closed meanwhile, and may be gone
            return folded


class View(Table):
    """Rows by key, built by a projection. Made by ``View.open``, used as ``async with``.

    >>> async def example(log, projection):
    ...     async with View.open(log, projection) as view:
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
        projection.check()
        budget = MemoryBudget(memory_bytes_max, cache_directory)
        if at is None:
            return cls(log, projection, follow=follow, snapshots=snapshots, budget=budget)
        if follow or snapshots:
            given = "follow=True" if follow else "snapshots=True"
            raise InvalidArgument(f"a view of the past does not follow, nor write {given}; leave it out, or at")
        return PastView(log, projection, at, budget)

    def __init__(
        self, log: Log, projection: Projection, *, follow: bool, snapshots: bool, budget: MemoryBudget
    ) -> None:
        super().__init__(projection, log.identity.id, budget)
        self._log = log
        fold: dict[str, Any] = {"projection": projection.name, "version": projection.version}
        self._traced = {"store": log.identity.id.hex(), **fold}
        self._say = Notices(_log, store=log.identity.id.hex(), **fold)
        self._reader: Reader = log.follow()
        self._trail: SettledTrail  # from ``_start`` on
        self._follows = follow
        self._writes_snapshots = snapshots
        self._taking = asyncio.Lock()
        self._snapshotting = asyncio.Lock()
        self._snapshotter = Snapshotter(log.snapshots, projection.registration().key, budget.new_rows)
        self._points: set[Address] = set()  # where to cut
        self._cuts: dict[Address, Cut | Exception] = {}
        self._cut_positions: dict[Address, Position] = {}
        self.damage: list[LogStoreError] = []
        self._subscriptions: WeakKeyDictionary[ChangeSubscription | RejectionSubscription, None] = WeakKeyDictionary()
        self._is_new = False  # registered by this view, and without a snapshot
        self._failure: LogStoreError | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<View {self._projection.name} {self._state!r} follows={self._follows} failure={self._failure!r}>"

    async def __aenter__(self) -> View:
        try:
            with span_of(self._log.tracer, "projections.open", **self._traced) as span:
                await self._start()
                await self.refresh()  # where the log is followed already, the follower may be behind
                span.note(rows=len(self))
        except Trimmed:
            if self._is_new:  # retention was faster: registered, it would keep all history, and can never be built
                with suppress(LogStoreError):
                    await drop(self._log, self._projection)
            raise
        if self._follows:
            self._task = asyncio.create_task(self._follow(), name=f"view {self._projection.name}")
        of_log = _of_logs.get(self._log, _OfLog())
        _of_logs[self._log] = of_log._replace(views=(*map(ref, of_log.open()), ref(self)))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None  # its end refers to its frames, and they to this view

    def _close(self) -> None:
        """Leave what it has folded behind. Once: who closes again has nothing more to leave."""
        of_log = _of_logs.get(self._log, _OfLog())
        if self not in (views := of_log.open()):
            return
        folded = Counter(of_log.folded)
        folded[self._projection.name, self._projection.version] += self._state.events_taken
        _of_logs[self._log] = _OfLog(tuple(ref(view) for view in views if view is not self), folded)

    async def _start(self) -> None:
        """Begin where the newest snapshot ends, or at the beginning."""
        snapshots, registration = self._log.snapshots, self._projection.registration()
        records = await snapshots.records(registration.key)
        if not records.manifests:
            await require_history(self._log)  # or it would be registered, and keep all history, for nothing
        if not self._log.read_only:
            try:
                self._is_new = await snapshots.register(registration, records) and not records.manifests
            except (Corrupt, Missing) as error:
                self.damage.append(error)
        self._reader, begun, layout = await begin(
            self._state,
            self._log,
            records,
            self._log.follow,
            self.damage,
            to_build_on=self._writes_snapshots and not self._log.read_only,
        )
        if begun is not None and layout is not None:
            self._snapshotter.go_on_from(begun, layout)
        await self._reader.begin()
        self._trail = self._reader.keep_trail()
        passed_over = (key for key in records.manifests if begun is None or key.point > begun.point)
        self._snapshotter.damaged.update(passed_over)
        for damage in self.damage:
            self._say("snapshot-passed-over", error=damage)

    # Moving on

    async def refresh(self) -> None:
        """Return once the view holds everything acknowledged, by anyone, before this call.

        Cost: one GET for the roster and one per open session, two more for the roster's tail, and what is new.
        Raises FoldFailed and what reading met.
        """
        follower = self._log.follower
        if follower is not None:
            await follower.refresh()
        await self._take_batch(to_tail=follower is None)

    async def wait_for(self, receipt: Receipt, timeout: float | None = None) -> None:
        """Return once the view holds what ``receipt`` stands for; TimeoutError after ``timeout`` seconds.

        Cost: nothing when the view follows and this process stored it; else as ``refresh``.
        """
        async with asyncio.timeout(timeout):
            await self._take_batch()
            while not self._reader.holds(receipt):
                await self.refresh()

    async def settle(self) -> None:
        """Return once all that it showed at the call is settled. Cost: a tick, and polls, as ``log.settled``."""
        await self._log.reach(self._state.last_stamp)
        await self._take_batch()

    async def _follow(self) -> None:
        """Take in whatever the log's follower finds; let it end what would hold the watermark for ever."""
        try:
            follower = self._reader.start_follower()
            with follower.wanting_settled():
                while True:
                    changed = follower.changed()
                    try:
                        await self._take_batch()
                        await changed.wait()
                    except Unavailable:
                        if self._log.follower is not follower:
                            raise
                        await asyncio.sleep(OUTAGE_PAUSE_S)
        except LogStoreError as error:
            self._say("view-ended", error=error)
            self._failure = error
            self._wake_all()

    def _wake_all(self) -> None:
        for subscription in self._subscriptions:
            subscription.wake.set()

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure)) from self._failure

    async def _take_batch(self, *, to_tail: bool = False) -> None:
        """Take in what lies between the view and the follower's frontier; without one, or if asked to, the tail."""
        with span_of(self._log.tracer, "projections.catch_up", **self._traced) as span:
            before = self._state.events_taken
            await self._take_in(to_tail=to_tail)
            span.note(events=self._state.events_taken - before)

    async def _take_in(self, *, to_tail: bool) -> None:
        async with self._taking:
            self._require_alive()
            async with aclosing(self._reader.batch(to_tail=to_tail)) as batch:
                async for run in batch:
                    if run.settled:
                        self._cut_below(run.segment.stamp)
                        if not self._points:
                            self._trail.settle(run.segment.stamp - 1)
                    self._state.shrink()  # before the run is taken: where this fails, it comes again
                    self._change(partial(self._state.take, run))
            watermark = self._reader.watermark
            self._cut_below(watermark + 1)
            self._change(partial(self._state.rise, watermark))
            self._leave_trail(watermark)
            if self._owes_tick() and not self._log.read_only:
                with suppress(Unavailable, ClockSkew):  # only memory is at stake; the next batch tries again
                    await self._log.tick(self._state.last_stamp)
            self._state.shrink()

    def _cut_below(self, stamp: int) -> None:
        """All that is stamped below ``stamp`` has come: keep the rows at each point to cut at that lies there."""
        for entry in self._trail.points(stamp - 1) if self._points else ():
            if entry.address in self._points and entry.address not in self._cuts:
                self._change(partial(self._state.rise, entry.stamp))
                try:
                    self._cuts[entry.address] = Cut.of(self._state, entry)
                except Exception as error:  # noqa: BLE001 - no memory, say: the snapshot's trouble, not the view's
                    self._cuts[entry.address] = error

    def _leave_trail(self, watermark: int) -> None:
        """Between batches: note where reading goes on from each cut, and forget what is below the watermark."""
        for address, cut in self._cuts.items():
            if isinstance(cut, Cut) and address not in self._cut_positions:
                self._cut_positions[address] = self._trail.cut(cut.entry.stamp)
        self._trail.cut(watermark)

    async def snapshot(self) -> Manifest:
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
        if self._log.read_only:
            raise InvalidArgument("this log was opened read-only; open it without read_only=True")
        async with self._snapshotting:
            try:
                with span_of(self._log.tracer, "projections.snapshot", **self._traced) as span:
                    manifest = await self._snapshot()
                    name = manifest_key(manifest.key)
                    span.note(key=name, rows=manifest.rows, chunks=len(manifest.chunks))
                self._say("snapshot-written", key=name, rows=manifest.rows)
                return manifest
            finally:
                self._points.clear()
                self._cuts.clear()
                self._cut_positions.clear()

    async def _snapshot(self) -> Manifest:
        began_ms = self._log.now_ms()
        await self.refresh()
        self._reader.start_follower()  # before the point: who reads it lets this process's quiet sessions end
        if (entry := self._point_ahead()) is not None:
            self._points.add(entry.address)
        else:
            built_on = await self._log.snapshots.newest(but=self._snapshotter.damaged)
            entry = await self._log.post_point(built_on, self._points.add)
        await self._log.reach(entry.stamp)
        await self._take_batch()
        cut, position = self._cuts.get(entry.address), self._cut_positions.get(entry.address)
        if isinstance(cut, Exception):
            raise cut
        if cut is None or position is None:
            raise Unavailable(f"the point's chapter was retired meanwhile point={entry.address}; take another snapshot")
        manifest = await self._snapshotter.publish(cut, position)
        if self._log.now_ms() - min(began_ms, stamp_ms(entry.stamp)) > self._log.identity.grace_ms // 2:
            await self._snapshotter.look_at_chunks(manifest)
        return manifest

    def _point_ahead(self) -> Entry | None:
        """A point that the watermark has not reached, with nothing visible above it, that builds on nothing damaged."""
        points = self._trail.points(STAMP_MAX)
        if not points or points[-1].stamp <= self._state.last_stamp:
            return None
        return points[-1] if self._snapshotter.may_build_at(points[-1]) else None

    def _owes_tick(self) -> bool:
        """Whether too much waits for one. That is counted only where enough is pending: it is asked at each batch."""
        return self._state.pending_events > UNTICKED_EVENTS_MAX and self._unticked_events > UNTICKED_EVENTS_MAX

    @property
    def _unticked_events(self) -> int:
        return self._state.pending_above(self._reader.last_entry)

    @property
    def led_kinds(self) -> frozenset[str]:
        """The kinds that only leaders write, for ever, as far as the view has read. Cost: none."""
        return self._reader.led_kinds

    def _change(self, change: Callable[[], None]) -> None:
        """Change the state, and what follows from it. What fails or interrupts that ends the view."""
        try:
            change()
            self._spread_changes()
        except BaseException as error:
            self._failure = error if isinstance(error, LogStoreError) else self._interrupted(error)
            self._indexes = None  # they may not have been told of all: who asks builds them anew
            self._wake_all()
            raise

    def _interrupted(self, error: BaseException) -> FoldFailed:
        return FoldFailed(
            f"interrupted within a run projection={self._projection.name} cause={error!r}; open the view again"
        )

    def _spread_changes(self) -> None:
        """Bring indexes and subscribers up to date with the rows."""
        changes = self._state.take_changes()
        self._index_changes(changes)
        rejections = self._state.take_rejections()
        for subscription in self._subscriptions:
            subscription.note(changes, rejections)

    def _row(self, key: str) -> bytes | None:
        return self._state.rows.get(key)

    # Knowing how it stands

    @property
    def projection(self) -> Projection:
        """What it folds, and how. Cost: none."""
        return self._projection

    @property
    def position(self) -> Position | None:
        """How far it has read. Cost: O(open sessions)."""
        return self._reader.position

    @property
    def rows_changed(self) -> int | None:
        """How many rows have changed, settled ones, since this view's last snapshot; None: not known. Cost: none.

        With ``snapshots=True``, before its first: since the one that it started from.
        """
        return self._state.changed_since_cut

    def _changed_since(self, snapshot: ManifestKey) -> int | None:
        """How many rows have changed, settled ones, since a snapshot; None: not known. Cost: none."""
        return self.rows_changed if self._snapshotter.last == snapshot else None

    def statistics(self) -> ViewStatistics:
        """How it is doing. Cost: O(rows), for the memory."""
        rows = self._state.rows
        bounded = rows if isinstance(rows, BoundedRows) else None
        return ViewStatistics(
            rows=len(self),
            pending_events=self._state.pending_events,
            unticked_events=self._unticked_events,
            watermark=self.watermark,
            lag_ms=max(0, self._log.now_ms() - stamp_ms(self.watermark)),
            holder=self._holder(),
            parked_events=self._state.parked_events,
            decoded_rows=len(self._decoded),
            memory_bytes=_memory_bytes(rows),
            cold_rows=bounded.rows_in_file if bounded is not None else 0,
            cache_file_bytes=bounded.file_bytes if bounded is not None else 0,
        )

    def progress(self) -> ViewProgress:
        """How far it is. Cost: O(pending segments). Any thread may call."""
        state = self._state
        bounded = state.rows if isinstance(state.rows, BoundedRows) else None
        return ViewProgress(
            rows=len(self),
            events_taken=state.events_taken,
            pending_events=state.pending_events,
            oldest_pending=state.oldest_pending,
            unticked_events=self._unticked_events,
            parked_events=state.parked_events,
            watermark=state.watermark,
            cold_rows=bounded.rows_in_file if bounded is not None else 0,
            cache_file_bytes=bounded.file_bytes if bounded is not None else 0,
        )

    def _holder(self) -> str:
        session = self._reader.holder()
        if session is None:
            return ""
        where = f"writer={session.id.writer} chapter={session.id.chapter} session={session.id.number}"
        return f"open and quiet since slot {session.tip.slot} {where}"

    # Changes and verdicts

    def subscribe(self) -> ChangeSubscription:
        """Return what tells each row that changes from now on, while anybody refers to it. Cost: none."""
        self._state.track_changes()
        subscription = ChangeSubscription(self._row, self._require_alive)
        self._subscriptions[subscription] = None
        return subscription

    def changes(self) -> AsyncGenerator[Change, None]:
        """Yield each row that changes from this call on, before and after.

        Changes of one row that come faster than they are taken become one. Never ends by itself. Cost: none beyond
        what moves the view.
        """
        return self.subscribe().all()

    def rejections(self) -> AsyncGenerator[Rejection, None]:
        """Yield each event that changed nothing, once that is final: those that become so from this call on, in order.

        Never ends by itself. Cost: none beyond what moves the view. Raises LimitExceeded to whoever has left 100,000
        of them untaken.
        """
        self._state.track_rejections()
        subscription = RejectionSubscription(self._require_alive)
        self._subscriptions[subscription] = None
        return subscription.all()

    async def settled(self, receipt: Receipt, timeout: float | None = None) -> Mapping[int, Verdict]:
        """Wait until the events of ``receipt`` are settled here; return, by sequence number, why some changed nothing.

        Empty: all were applied. Cost: a tick where none lies above them. Raises TimeoutError after ``timeout`` seconds;
        Trimmed for what was settled ten minutes before the snapshot that this view began with, or longer.
        """
        if receipt.stamp <= self._state.verdicts_from:
            raise Trimmed(
                f"this verdict is not remembered receipt={receipt};"
                " the view began at a later snapshot, or judged many since: ask sooner"
            )
        async with asyncio.timeout(timeout):
            self._reader.start_follower()
            await self._log.settled(receipt)
            await self._take_batch()
        verdicts = {}
        for seq in range(receipt.first_seq, receipt.first_seq + receipt.count):
            if (verdict := self._state.verdict((receipt.chapter, receipt.session, seq))) is not None:
                verdicts[seq] = verdict
        return MappingProxyType(verdicts)


def _memory_bytes(rows: Rows) -> int:
    if isinstance(rows, BoundedRows):
        return rows.memory_bytes
    return sys.getsizeof(rows) + sum(map(sys.getsizeof, rows)) + sum(map(sys.getsizeof, rows.values()))
