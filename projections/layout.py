"""Where the rows of a snapshot lie, and what the next one writes. docs/FORMAT.md §8. Pure.

A layout is a manifest's chunks with the keys that they hold. ``next`` takes what has changed and says which chunks
stay, with which rows dead, and which rows are to be written. Whoever starts from the same layout with the same changes
comes to the same: so two processes write the same snapshot.

Invariants:
- A key is alive in one chunk at most, and no chunk is wholly dead.
- At most two rows are written for each one changed, and ``FREE_ROWS`` and the small chunks more.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from logstore.chunk import ROWS_MAX
from logstore.manifest import ManifestChunk

__all__ = ["Layout", "LayoutChunk", "Rewriting"]

CHUNK_BYTES_MAX: Final = 1 << 20  # of keys and states
SMALL_BYTES: Final = CHUNK_BYTES_MAX // 2  # of columns
FREE_ROWS: Final = 1_000  # so many rows of sparse chunks may be written where nothing has changed


@dataclass(slots=True)
class LayoutChunk:
    """A chunk, and its keys in order. ``dead``: a bit for each row, as an integer."""

    listed: ManifestChunk
    keys: Sequence[str]
    dead: int

    @property
    def alive(self) -> int:
        """How many rows are alive."""
        return len(self.keys) - self.dead.bit_count()

    def alive_keys(self) -> Iterator[str]:
        """The keys of the rows alive."""
        return (key for row, key in enumerate(self.keys) if not self.dead >> row & 1)

    def bury(self, key: str) -> None:
        """Its row of ``key`` is dead from now on."""
        row = bisect_left(self.keys, key.encode(), key=str.encode)
        assert self.keys[row] == key
        self.dead |= 1 << row

    def as_listed(self) -> ManifestChunk:
        """What the manifest says of it."""
        dead = self.dead.to_bytes((len(self.keys) + 7) // 8, "little") if self.dead else None
        return replace(self.listed, dead=dead)


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What the next snapshot consists of: chunks that stay, and the keys of new ones, in order."""

    kept: list[LayoutChunk]
    written: list[list[str]]


@dataclass(slots=True)
class Layout:
    """The chunks of a snapshot, and which one each key is alive in. About 50 bytes of memory a row."""

    chunks: list[LayoutChunk] = field(default_factory=list)
    places: dict[str, LayoutChunk] = field(default_factory=dict)

    def add(self, listed: ManifestChunk, keys: Sequence[str]) -> None:
        """The snapshot consists of this chunk, too, with the keys that it holds."""
        dead = int.from_bytes(listed.dead, "little") if listed.dead else 0
        chunk = LayoutChunk(listed, keys, dead)
        self.chunks.append(chunk)
        self.places.update(dict.fromkeys(chunk.alive_keys() if dead else keys, chunk))

    def next(self, changed: Collection[str], rows: Mapping[str, bytes]) -> Rewriting:
        """What the next snapshot consists of, given the keys of rows changed, and all rows as they are now.

        Then it is the layout of that snapshot, but for the chunks to be written, which are to be added. Cost: O(changed
        rows · log, chunks, rows written · log).
        """
        for key in changed:
            if (place := self.places.pop(key, None)) is not None:
                place.bury(key)
        dissolved = {id(chunk) for chunk in self._dissolved(len(changed))}
        sizes = {key: len(state) for key in changed if (state := rows.get(key)) is not None}
        kept = []
        for chunk in self.chunks:
            if id(chunk) in dissolved:
                sizes.update((key, len(rows[key])) for key in chunk.alive_keys())
            else:
                kept.append(chunk)
        self.chunks = kept
        return Rewriting(kept, list(_cut(sizes)))

    def _dissolved(self, changed: int) -> Iterator[LayoutChunk]:
        yield from (chunk for chunk in self.chunks if not chunk.alive or chunk.listed.size < SMALL_BYTES)
        budget = max(changed, FREE_ROWS)
        for chunk in sorted(self._sparse(), key=lambda chunk: chunk.alive):
            if chunk.alive > budget:
                return
            budget -= chunk.alive
            yield chunk

    def _sparse(self) -> Iterable[LayoutChunk]:
        """Chunks of fair size more than half dead, in the order listed."""
        for chunk in self.chunks:
            if 0 < 2 * chunk.alive < len(chunk.keys) and chunk.listed.size >= SMALL_BYTES:
                yield chunk

    def _check(self) -> None:
        """Assert every invariant; O(rows)."""
        alive = [(key, chunk) for chunk in self.chunks for key in chunk.alive_keys()]
        assert dict(alive) == self.places
        assert len(alive) == len(self.places)
        assert all(chunk.alive for chunk in self.chunks)


def _cut(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The keys of rows of these sizes, sorted, in chunks."""
    keys: list[str] = []
    size = 0
    for key in sorted(sizes, key=str.encode):
        weight = len(key.encode()) + sizes[key]
        if keys and (size + weight > CHUNK_BYTES_MAX or len(keys) == ROWS_MAX):
            yield keys
            keys, size = [], 0
        keys.append(key)
        size += weight
    if keys:
        yield keys
