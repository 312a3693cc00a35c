"""Check all snapshots of a store: that what they list is there and whole, and adds up.

A damaged snapshot loses nothing that the log still has: readers take another one, or read more. So what is wrong
is damage all the same, for retention relies on snapshots.

Invariants:
- Nothing is written, and every object is fetched at most once (what a listing lacks is asked for once more).
- Memory: a manifest's list of chunks for each manifest; chunks come and go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from logstore.chunk import Chunk
from logstore.digest import MODULUS, row_digest
from logstore.entry import Entry, Tick
from logstore.filestore.base import FileStore, Listed
from logstore.finding import Finding, Progress, damage, note
from logstore.keys import (
    CHUNKS,
    SNAPSHOTS,
    ChunkKey,
    Fold,
    ManifestKey,
    RegistrationKey,
    chunk_key,
    entry_key,
    manifest_key,
    parse_key,
    snapshots_prefix,
)
from logstore.manifest import Manifest, ManifestChunk, alive_mask
from logstore.named import Named, decode_named
from logstore.walk import Walked, fetch, walk

__all__ = ["check_snapshots"]

_NEXT = "take another snapshot, and `logstore gc` removes this one"


@dataclass(slots=True)
class _Summed:
    """A manifest, the digests of its rows added up, and whether all its chunks could be read."""

    manifest: Manifest
    digest: int = 0
    is_whole: bool = True


async def check_snapshots(
    store: FileStore, progress: Progress, is_retired: Callable[[int], bool]
) -> AsyncGenerator[Finding, None]:
    """Yield what is wrong with the snapshots in ``store``, and notes.

    Cost: a LIST per 1,000 keys, one GET per manifest, registration, chunk and point. Raises Unavailable.
    """
    async with aclosing(_Snapshots(store, progress, is_retired).findings()) as findings:
        async for finding in findings:
            yield finding


class _Snapshots:
    def __init__(self, store: FileStore, progress: Progress, is_retired: Callable[[int], bool]) -> None:
        self._store = store
        self._progress = progress
        self._is_retired = is_retired
        self._manifests: list[_Summed] = []
        self._listing: defaultdict[ChunkKey, list[tuple[_Summed, ManifestChunk]]] = defaultdict(list)
        self._registered: set[Fold] = set()  # there is a registration of them, whatever it says
        self._unlisted = 0

    async def findings(self) -> AsyncGenerator[Finding, None]:
        """Manifests and registrations, their points, then chunks."""
        async with aclosing(walk(self._store, self._records(), decode_named)) as records:
            async for record in records:
                self._count(record)
                for finding in self._take_record(record):
                    yield finding
        for fold in {summed.manifest.key.fold for summed in self._manifests} - self._registered:
            what = "it has snapshots and no registration, so that all history is kept for it"
            yield note(snapshots_prefix(fold), what, "open the projection for writing: that registers it")
        for summed in self._manifests:
            for finding in await self._check_point(summed.manifest):
                yield finding
        async with aclosing(walk(self._store, self._chunks(), decode_named)) as chunks:
            async for walked in chunks:
                self._count(walked)
                for finding in self._take_chunk(walked):
                    yield finding
        for key in list(self._listing):
            walked = await fetch(self._store, chunk_key(key), decode_named)
            for finding in self._take_chunk(walked):
                yield finding
        for summed in self._manifests:
            if summed.is_whole and summed.digest % MODULUS != summed.manifest.rows_digest:
                yield damage(manifest_key(summed.manifest.key), "its rows have another digest than it says", _NEXT)
        if self._unlisted:
            what = f"{self._unlisted} chunks are listed by no snapshot"
            yield note(CHUNKS, what, "nothing to do: a snapshot is being written, or `logstore gc` removes them")

    def _count(self, walked: Walked[Named]) -> None:
        self._progress.objects += 1
        self._progress.bytes += walked.size

    def _take_record(self, record: Walked[Named]) -> Iterator[Finding]:
        key = parse_key(record.key)
        if isinstance(key, RegistrationKey):
            self._registered.add(key.fold)
        if record.damage is not None:
            yield damage(record.key, record.damage, _NEXT)
        elif isinstance(record.value, Manifest):
            summed = _Summed(record.value)
            self._manifests.append(summed)
            for listed in record.value.chunks:
                self._listing[listed.key].append((summed, listed))

    async def _check_point(self, manifest: Manifest) -> list[Finding]:
        if self._is_retired(manifest.key.chapter):
            return []
        name, key = entry_key(*manifest.point), manifest_key(manifest.key)
        entry = (await fetch(self._store, name, decode_named)).value
        if not isinstance(entry, Entry):
            return [damage(key, f"its point cannot be read: {name}", _NEXT)]
        is_point = isinstance(entry.body, Tick) and entry.body.point is not None
        if not is_point or (entry.digest, entry.stamp) != (manifest.entry_digest, manifest.stamp):
            return [damage(key, f"it is not of the point that it names: {name}", _NEXT)]
        return []

    async def _records(self) -> AsyncIterator[Listed]:
        """Every manifest and registration; other names under the prefix are foreign, and not this pass's to tell."""
        async for listed in self._store.list(SNAPSHOTS):
            if isinstance(parse_key(listed.key), ManifestKey | RegistrationKey):
                yield listed

    async def _chunks(self) -> AsyncIterator[Listed]:
        """Every chunk that a manifest lists, and no other."""
        async for listed in self._store.list(CHUNKS):
            key = parse_key(listed.key)
            if isinstance(key, ChunkKey):
                if key in self._listing:
                    yield listed
                else:
                    self._unlisted += 1

    def _take_chunk(self, walked: Walked[Named]) -> Iterator[Finding]:
        key = parse_key(walked.key)
        assert isinstance(key, ChunkKey)
        listing = self._listing.pop(key, [])
        chunk = walked.value
        assert chunk is None or isinstance(chunk, Chunk)
        if chunk is None:
            what = walked.damage or "it is gone, and a snapshot lists it"
            yield damage(walked.key, what, _NEXT)
        digests = [] if chunk is None else list(map(row_digest, chunk.keys, chunk.states))
        for summed, listed in listing:
            if chunk is None:
                summed.is_whole = False
            elif len(digests) != listed.rows:
                summed.is_whole = False
                what = f"it says that {walked.key} has {listed.rows} rows, which has {len(digests)}"
                yield damage(manifest_key(summed.manifest.key), what, _NEXT)
            elif listed.dead is None:
                summed.digest += sum(digests)
            else:
                alive = alive_mask(listed.dead, listed.rows)
                summed.digest += sum(digest for digest, counts in zip(digests, alive, strict=True) if counts)
