"""Views from snapshots, and snapshots from views. docs/rfcs/0004-snapshots.md.

A snapshot is loaded by ``load``. A ``Snapshotter`` writes them, one after the other, of one view: it remembers what the
last one consists of, so that the next costs what has changed.

Invariants:
- What is written at a point is a function of the log and of the manifest that the point names for the fold.
- A snapshot that was not published whole leaves nothing behind that anybody relies on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Final, TypeVar

from logstore import InvalidArgument, Log
from logstore.chunk import Chunk, encode_chunk
from logstore.clock import STAMP_MAX
from logstore.digest import MODULUS, row_digest
from logstore.entry import Entry, Tick
from logstore.errors import Corrupt, LogStoreError, Missing
from logstore.frontier import Position
from logstore.keys import ChunkKey, Fold, ManifestKey, chunk_key, manifest_key
from logstore.manifest import Manifest, ManifestChunk, ManifestVerdict, alive_mask
from logstore.snapshots import FoldRecords, Snapshots
from projections.layout import Layout
from projections.projection import Projection
from projections.state import Since, State

__all__ = ["Cut", "Snapshotter", "drop", "whole_snapshots"]

T = TypeVar("T")
AT_ONCE: Final = 8  # chunks fetched, or created, at a time
Rows = dict[str, bytes]


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
    records = (await log.snapshots.listed(registration.key)).get(registration.key, FoldRecords())
    current = await log.snapshots.registration(registration.key, records)
    if current is None or not current.registered:
        return False
    await log.snapshots.register(replace(registration, registered=False), records)
    return True


async def whole_snapshots(
    snapshots: Snapshots, records: FoldRecords, damage: list[LogStoreError], *, at: int = STAMP_MAX
) -> AsyncGenerator[tuple[Manifest, Rows], None]:
    """Yield the snapshots of a fold at or before a stamp, the newest first, with their rows; note damaged ones.

    Cost: a GET for each manifest asked for, and one per chunk of those yielded. Raises Unavailable.
    """
    for key in reversed(records.manifests):
        try:
            manifest = await snapshots.manifest(key)
            rows = await load_rows(snapshots, manifest) if manifest.stamp <= at else None
        except (Corrupt, Missing) as error:
            damage.append(error)
        else:
            if rows is not None:
                yield manifest, rows


async def load_rows(snapshots: Snapshots, manifest: Manifest, layout: Layout | None = None) -> Rows:
    """Return the rows of a snapshot; tell ``layout`` where they lie.

    Cost: one GET per chunk. Raises Corrupt, Missing, naming the chunk; Unavailable.
    """
    rows: Rows = {}

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
            task.add_done_callback(_retrieve)
            task.cancel()


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Nobody will ask for this task's result: then its error must not be reported as never retrieved."""
    if not task.cancelled():
        task.exception()


@dataclass(frozen=True, slots=True)
class Cut:
    """A view's rows at a point. ``since``: what changed since the view's last cut; None: it is the first."""

    entry: Entry
    rows: Mapping[str, bytes]
    since: Since | None
    verdicts: tuple[ManifestVerdict, ...]

    @classmethod
    def of(cls, state: State, entry: Entry) -> Cut:
        """Cut a state at its watermark, which is the point's stamp. Cost: a copy of the table."""
        assert state.watermark == entry.stamp
        return cls(entry, dict(state.base_rows()), state.take_since(), state.final_verdicts())


def _built_on(point: Entry, fold: Fold) -> ManifestKey | None:
    """The manifest of ``fold`` that snapshots at a point build on."""
    assert isinstance(point.body, Tick)
    return next((key for key in point.body.point or () if key.fold == fold), None)


class Snapshotter:
    """Writes snapshots of one fold. ``rows_written`` counts what it has encoded; ``damaged``: what not to build on."""

    def __init__(self, snapshots: Snapshots, fold: Fold) -> None:
        self._snapshots = snapshots
        self._fold = fold
        self._last: Manifest | None = None
        self._layout: Layout | None = None  # that of the last manifest; None: to be fetched
        self.rows_written = 0
        self.damaged: set[ManifestKey] = set()

    def may_build_at(self, point: Entry) -> bool:
        """Whether the manifest that a point names, if any, is not known as damaged."""
        return _built_on(point, self._fold) not in self.damaged

    async def publish(self, cut: Cut, position: Position) -> Manifest:
        """Write the snapshot of a point, unless it is there, and return its manifest.

        Cost: a PUT per chunk written and one for the manifest; a GET per chunk of the manifest built on where that is
        not the last one that this snapshotter wrote. Raises Corrupt, Missing, LimitExceeded, Unavailable.
        """
        base = _built_on(cut.entry, self._fold)
        last, layout, self._layout = self._last, self._layout, None
        if layout and last and cut.since and last.key == base and last.stamp == cut.since.stamp:
            changed, before = await asyncio.to_thread(_changes, cut.since.rows, cut.rows)
        else:
            last, layout, rows = await self._load(base)
            changed, before = await asyncio.to_thread(_differences, rows, cut.rows)
        digest = await asyncio.to_thread(_digest, last.rows_digest if last else 0, changed, before)
        rewriting = await asyncio.to_thread(layout.next, changed, cut.rows)
        kept = [chunk.as_listed() for chunk in rewriting.kept]

        def take(written: tuple[ManifestChunk, list[str]]) -> None:
            layout.add(*written)
            self.rows_written += written[0].rows

        point = cut.entry.address
        await _in_order((self._write(point, keys, states) for keys, states in rewriting.written), take)
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

    async def _load(self, base: ManifestKey | None) -> tuple[Manifest | None, Layout, Rows]:
        layout = Layout()
        if base is None:
            return None, layout, {}
        try:
            manifest = await self._snapshots.manifest(base)
            return manifest, layout, await load_rows(self._snapshots, manifest, layout)
        except (Corrupt, Missing):
            self.damaged.add(base)
            raise

    async def _write(
        self, point: tuple[int, int], keys: list[str], states: list[bytes]
    ) -> tuple[ManifestChunk, list[str]]:
        data, hash_, size = await asyncio.to_thread(encode_chunk, keys, states)
        key = ChunkKey(*point, hash_)
        await self._snapshots.create_chunk(key, data)
        return ManifestChunk(key, len(keys), size), keys


Changed = dict[str, bytes | None]


def _changes(since: Mapping[str, bytes | None], rows: Mapping[str, bytes]) -> tuple[Changed, Changed]:
    """What changed, as it is and as it was."""
    return {key: rows.get(key) for key in since}, dict(since)


def _differences(before: Mapping[str, bytes], rows: Mapping[str, bytes]) -> tuple[Changed, Changed]:
    """How ``rows`` differ from what they were: as they are and as they were."""
    changed: Changed = {key: row for key, row in rows.items() if before.get(key) != row}
    changed.update((key, None) for key in before.keys() - rows.keys())
    return changed, {key: before.get(key) for key in changed}


def _digest(digest: int, changed: Changed, before: Changed) -> int:
    """The digest of the rows, from what it was before they changed."""
    for key, row in changed.items():
        if row is not None:
            digest += row_digest(key, row)
        if (old := before[key]) is not None:
            digest -= row_digest(key, old)
    return digest % MODULUS
