"""Views from snapshots, and snapshots from views. docs/rfcs/0004-snapshots.md.

``begin`` loads the newest that is whole. A ``Snapshotter`` writes them, one after the other, of one view: it remembers
what the last one consists of, so that the next costs what has changed.

Invariants:
- What is written at a point is a function of the log and of the manifest that the point names for the fold.
- A snapshot that was not published whole leaves nothing behind that anybody relies on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Final, NamedTuple, TypeVar

from logstore import InvalidArgument, Log, Reader, StaleStore, Trimmed, Unavailable
from logstore.aside import retrieve
from logstore.chunk import Chunk, encode_chunk
from logstore.clock import STAMP_MAX
from logstore.digest import MODULUS, row_digest
from logstore.entry import Entry, Tick
from logstore.errors import Corrupt, LogStoreError, Missing
from logstore.frontier import Position
from logstore.keys import ChunkKey, Fold, ManifestKey, chunk_key, manifest_key
from logstore.manifest import Manifest, ManifestChunk, ManifestVerdict, alive_mask
from logstore.snapshots import FoldRecords, Snapshots
from projections.bounded import PlacedRows, Rows, shrink
from projections.layout import Layout
from projections.projection import Projection
from projections.state import Since, State

__all__ = ["Begun", "Cut", "Snapshotter", "begin", "differences", "drop", "require_history"]

T = TypeVar("T")
AT_ONCE: Final = 8  # chunks fetched, or created, at a time


async def drop(log: Log, projection: Projection) -> bool:
    """Record that a projection is not in use any more: retention stops heeding it. False: it was not registered.

    Its snapshots stay until collection; opening it again registers it again. Cost: a LIST, a GET, a PUT. Raises
    InvalidArgument where the log is read-only, Corrupt, Missing, Unavailable.

    >>> async def replace_version(log, old, new):
    ...     async with View.open(log, new):  # folds from the beginning, beside the old one
    ...         return await drop(log, old)
    """
    projection.check()
    if log.read_only:
        raise InvalidArgument("this log was opened read-only; open it without read_only=True")
    registration = projection.registration()
    records = await log.snapshots.records(registration.key)
    if not records.registrations:
        return False
    return await log.snapshots.register(replace(registration, registered=False), records)


class Begun(NamedTuple):
    """A reader that goes on from a snapshot, if there was one; and where its rows lie, if that was to be kept."""

    reader: Reader
    manifest: Manifest | None = None
    layout: Layout | None = None


async def begin(
    state: State,
    log: Log,
    records: FoldRecords,
    read: Callable[[Position | None], Reader],
    damage: list[LogStoreError],
    *,
    at: int = STAMP_MAX,
    to_build_on: bool = False,
) -> Begun:
    """A reader that goes on from the newest whole snapshot at or before a stamp, whose rows ``state`` has then.

    ``to_build_on``: where they lie is kept, and the state notes what changes, so that the next snapshot costs no more.

    From the beginning where there is none. What was wrong with those passed over is noted in ``damage``. What was
    collected while it was read is not wrong: then there is a newer one. Cost: a GET for each manifest asked for, one
    per chunk, and as ``Reader.begin``; a LIST more where something is wrong. Raises as ``require_history`` does.
    """
    snapshots, tried = log.snapshots, set[ManifestKey]()
    left = [*records.manifests]
    while left:
        key = left.pop()
        tried.add(key)
        try:
            manifest = await snapshots.manifest(key)
            if manifest.stamp > at:
                continue
            layout = Layout() if to_build_on else None
            rows = await _load_rows(snapshots, manifest, state.new_rows(), layout)
            reader = read(manifest.position(log.identity.id))
            await reader.begin()
        except (Corrupt, Missing, StaleStore, Trimmed) as error:
            there = await snapshots.records(key.fold)
            if key in there.manifests:
                damage.append(error)
            left = [key for key in there.manifests if key not in tried]
        else:
            state.load(rows, manifest.stamp, manifest.verdicts)
            if to_build_on:
                state.take_since()
            return Begun(reader, manifest, layout)
    await require_history(log, damage)
    return Begun(read(None))


async def require_history(log: Log, damage: Sequence[LogStoreError] = ()) -> None:
    """Raise Trimmed, or what was wrong with the snapshots, where the log cannot be read from its beginning.

    Cost: 1 GET, or 2·log2 of the retired chapters.
    """
    if (oldest := await log.oldest()) is None:
        return
    for error in damage:
        if isinstance(error, Corrupt | Missing):
            raise type(error)(f"{error} (history up to {oldest.last} was dropped: nothing else holds these rows)")
    raise Trimmed(
        f"history up to {oldest.last} was dropped, and no snapshot holds it for this projection and moment;"
        " open it at a later moment, or restore a copy that has the history"
    )


async def _load_rows(snapshots: Snapshots, manifest: Manifest, rows: Rows, layout: Layout | None = None) -> Rows:
    """Put the rows of a snapshot into ``rows``, which has none, and return it; tell ``layout`` where they lie.

    Cost: one GET per chunk. Raises Corrupt, Missing, naming the chunk; Unavailable.
    """

    def take(listed: ManifestChunk, chunk: Chunk) -> None:
        keys, states = chunk.keys, chunk.states
        if len(keys) != listed.rows:
            raise Corrupt(
                f"manifest does not add up key={manifest_key(manifest.key)} chunk={chunk_key(listed.key)}"
                f" rows={listed.rows} has={len(keys)}; use another snapshot"
            )
        if listed.dead is None:
            rows.update(zip(keys, states, strict=True))
        else:
            alive = alive_mask(listed.dead, listed.rows)
            rows.update(compress(zip(keys, states, strict=True), alive))
        shrink(rows)
        if layout is not None:
            layout.add(listed, keys)

    await _in_order((_fetch(snapshots, listed) for listed in manifest.chunks), lambda fetched: take(*fetched))
    if len(rows) != manifest.rows:
        raise Corrupt(
            f"manifest does not add up key={manifest_key(manifest.key)} rows={manifest.rows} has={len(rows)};"
            " use another snapshot"
        )
    return rows


async def _fetch(snapshots: Snapshots, listed: ManifestChunk) -> tuple[ManifestChunk, Chunk]:
    return listed, await snapshots.chunk(listed.key)


async def _in_order(steps: Iterable[Coroutine[Any, Any, T]], take: Callable[[T], None]) -> None:
    """Run the steps, ``AT_ONCE`` at a time, and take their results in order; the first failure ends all."""
    running: list[asyncio.Task[T]] = []
    try:
        for step in steps:
            running.append(asyncio.create_task(step))
            if len(running) == AT_ONCE:
                take(await running[0])
                del running[0]
        for task in running:
            take(await task)
    finally:
        for task in running:
            task.add_done_callback(retrieve)
            task.cancel()


@dataclass(frozen=True, slots=True)
class Cut:
    """A view's rows at a point. ``since``: what changed since the view's last cut, where that is known."""

    entry: Entry
    rows: Mapping[str, bytes]
    since: Since | None
    verdicts: tuple[ManifestVerdict, ...]

    @classmethod
    def of(cls, state: State, entry: Entry) -> Cut:
        """Cut a state at its watermark, which is the point's stamp. Cost: a copy of the table."""
        assert state.watermark == entry.stamp
        rows = state.base_rows()
        return cls(entry, rows.copy() if rows is state.rows else rows, state.take_since(), state.final_verdicts())


def _built_on(point: Entry, fold: Fold) -> ManifestKey | None:
    """The manifest of ``fold`` that snapshots at a point build on."""
    assert isinstance(point.body, Tick)
    return next((key for key in point.body.point or () if key.fold == fold), None)


class Snapshotter:
    """Writes snapshots of one fold. ``rows_written`` counts what it has encoded; ``damaged``: what not to build on."""

    def __init__(self, snapshots: Snapshots, fold: Fold, new_rows: Callable[[], Rows] = dict) -> None:
        self._snapshots = snapshots
        self._new_rows = new_rows
        self._fold = fold
        self._last: Manifest | None = None
        self._layout: Layout | None = None  # that of the last manifest; None: to be fetched
        self.rows_written = 0
        self.damaged: set[ManifestKey] = set()

    def go_on_from(self, manifest: Manifest, layout: Layout) -> None:
        """The rows to come began as those of this snapshot, and what has changed since is known."""
        self._last, self._layout = manifest, layout

    @property
    def last(self) -> ManifestKey | None:
        """The snapshot that it wrote last, or went on from."""
        return self._last.key if self._last is not None else None

    def may_build_at(self, point: Entry) -> bool:
        """Whether the manifest that a point names, if any, is not known as damaged."""
        return _built_on(point, self._fold) not in self.damaged

    async def publish(self, cut: Cut, position: Position) -> Manifest:
        """Write the snapshot of a point, unless it is there, and return its manifest.

        Cost: a PUT per chunk written and one for the manifest; a GET per chunk of the manifest built on where that is
        not the last one that this snapshotter wrote, or went on from. Raises Corrupt, Missing, LimitExceeded,
        Unavailable.
        """
        base = _built_on(cut.entry, self._fold)
        last, layout, self._layout = self._last, self._layout, None
        before: Mapping[str, bytes | None]
        changed: Collection[str]
        if layout and last and cut.since and last.key == base and last.stamp == cut.since.stamp:
            before = changed = cut.since.rows
        else:
            last, layout, before = await self._load(base)
            changed = await asyncio.to_thread(_differing, before, cut.rows)
        digest = await asyncio.to_thread(_digest, last.rows_digest if last else 0, changed, before, cut.rows)
        del before  # of which there may be as many as rows
        rewriting = await asyncio.to_thread(layout.next, changed, cut.rows)
        kept = [chunk.as_listed() for chunk in rewriting.kept]

        def take(written: tuple[ManifestChunk, list[str]]) -> None:
            layout.add(*written)
            self.rows_written += written[0].rows

        point = cut.entry.address
        await _in_order((self._write(point, keys, cut.rows) for keys in rewriting.written), take)
        manifest = Manifest(
            key=ManifestKey(self._fold, *point),
            stamp=cut.entry.stamp,
            entry_digest=cut.entry.digest,
            sessions=position.sessions,
            rows=len(cut.rows),
            rows_digest=digest,
            chunks=(*kept, *(chunk.listed for chunk in layout.chunks[len(kept) :])),
            verdicts=cut.verdicts,
        )
        self._last = await self._snapshots.create_manifest(manifest)
        self._layout = layout
        return self._last

    async def look_at_chunks(self, manifest: Manifest) -> None:
        """Look whether the chunks of a manifest are there still, now that it is published.

        Retention leaves them alone unless publishing took longer than it waits. Cost: a GET per chunk. Raises
        Unavailable where one is gone: nobody builds on this manifest, and retention does not count it. Corrupt.
        """
        try:
            await _in_order((_fetch(self._snapshots, listed) for listed in manifest.chunks), lambda _: None)
        except (Corrupt, Missing) as error:
            self.damaged.add(manifest.key)
            if isinstance(error, Missing):
                raise Unavailable("retention was faster than this snapshot; take another") from error
            raise

    async def _load(self, base: ManifestKey | None) -> tuple[Manifest | None, Layout, Rows]:
        layout = Layout()
        if base is None:
            return None, layout, {}
        try:
            manifest = await self._snapshots.manifest(base)
            return manifest, layout, await _load_rows(self._snapshots, manifest, self._new_rows(), layout)
        except (Corrupt, Missing) as error:
            self.damaged.add(base)
            if base not in (await self._snapshots.records(self._fold)).manifests:
                raise Unavailable("the snapshot to build on was collected meanwhile; take another") from error
            raise

    async def _write(
        self, point: tuple[int, int], keys: list[str], rows: Mapping[str, bytes]
    ) -> tuple[ManifestChunk, list[str]]:
        data, hash_, size = await asyncio.to_thread(lambda: encode_chunk(keys, [rows[key] for key in keys]))
        key = ChunkKey(*point, hash_)
        await self._snapshots.create_chunk(key, data)
        return ManifestChunk(key, len(keys), size), keys


def differences(before: Mapping[str, bytes], rows: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """How rows have changed: each key whose row is another one now, with what it was; None where there was none."""
    return {key: before.get(key) for key in _differing(before, rows)}


def _differing(before: Mapping[str, bytes | None], rows: Mapping[str, bytes]) -> list[str]:
    """The keys whose row is another one now, as they are stored."""
    items: Iterable[tuple[str, bytes]] = rows.items()
    if isinstance(rows, PlacedRows) and isinstance(before, PlacedRows):
        items = rows.items_elsewhere(before)
    return [*(key for key, row in items if before.get(key) != row), *(before.keys() - rows.keys())]


def _digest(digest: int, changed: Iterable[str], before: Mapping[str, bytes | None], rows: Mapping[str, bytes]) -> int:
    """The digest of the rows, from what it was before they changed."""
    for key in changed:
        if (row := rows.get(key)) is not None:
            digest += row_digest(key, row)
        if (old := before.get(key)) is not None:
            digest -= row_digest(key, old)
    return digest % MODULUS
