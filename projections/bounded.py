"""Rows within a memory budget: those put or looked at lately in memory, the others in a local file.

Every row has a *place*: its bytes, or the block of the cache file that holds it. One dict has the places, by key; so a
row in the file takes no more memory than its key and a share of its block.

*Fresh* rows are in no block. When they take more than half of the budget, those put longest ago are written, in
blocks: what was put together lies together. A row that is replaced is dead in its block; blocks more than half dead are
dissolved, their living rows fresh again, so that at most about half of what the file holds is dead.

Looking at a row in the file reads its block. Who looks at a row twice in a short while will again: so there are rows
*tried*, looked at once, and rows *kept*, looked at again while tried. A scan passes through the former only.

Invariants:
- What is read is what was put last, wherever it lies.
- Reading writes nothing; only ``shrink`` does, and where it fails no row is lost.
- After ``shrink`` fresh rows are within half of the budget, and rows tried and kept within a sixteenth each, always.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Final, TypeAlias

from logstore.errors import InvalidArgument
from projections.cachefile import Block, CacheFile
from projections.decoded import DECODED_BYTES_MAX

__all__ = ["BoundedRows", "MemoryBudget", "PlacedRows", "Rows", "shrink"]

BLOCK_BYTES: Final = 8 << 10  # of rows: with 16 KiB a look takes half as long again, and the file is a tenth smaller
_ROW_BYTES: Final = 100  # what a row in memory takes beside its bytes: their header, its place in the order
_DECODED_TIMES: Final = 7  # so many times its bytes a row takes, decoded
Place: TypeAlias = bytes | Block
_NOWHERE: Final[Mapping[str, Place]] = {}


class PlacedRows(MutableMapping[str, bytes]):
    """Rows by key, each in memory or in a block. It may be read in a thread, by one at a time."""

    def __init__(self, places: dict[str, Place]) -> None:
        self._places = places
        self._last: tuple[Block, dict[str, bytes]] | None = None  # the block that was read last

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> bytes:
        place = self._places[key]
        return place if type(place) is bytes else self._look_up(key, place)  # type: ignore[arg-type]

    def get(self, key: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        """Return the row of ``key``. Cost: O(1); 20 microseconds where it is in the file, not looked at lately."""
        place = self._places.get(key)
        if type(place) is bytes:
            return place
        return default if place is None else self._look_up(key, place)  # type: ignore[arg-type]

    def __setitem__(self, key: str, row: bytes) -> None:
        self._places[key] = row

    def __delitem__(self, key: str) -> None:
        del self._places[key]

    def keys(self) -> KeysView[str]:
        """Return the keys. Cost: none."""
        return self._places.keys()

    def keys_as_stored(self) -> list[str]:
        """Return the keys so that rows of one block follow each other. Cost: O(rows)."""
        in_memory, by_block = self._by_block()
        return [*in_memory, *(key for keys in by_block.values() for key in keys)]

    def items(self) -> ItemsView[str, bytes]:
        """Return keys and rows, block by block. Cost: about a microsecond a row in the file; forgets nothing."""
        return _Items(self)

    def copy(self) -> PlacedRows:
        """Return these rows as they are now, whatever becomes of the others. Cost: a copy of the table, no row read."""
        return PlacedRows(self._places.copy())

    def items_elsewhere(self, others: PlacedRows) -> Iterator[tuple[str, bytes]]:
        """Yield keys and rows, without those that have the same place among ``others``: these are equal there."""
        return self._stored(others._places)

    def _look_up(self, key: str, block: Block) -> bytes:
        return self._unpacked(block)[key]

    def _unpacked(self, block: Block) -> dict[str, bytes]:
        last = self._last
        if last is None or last[0] is not block:
            self._last = last = (block, block.read())
        return last[1]

    def _stored(self, but: Mapping[str, Place]) -> Iterator[tuple[str, bytes]]:
        in_memory, by_block = self._by_block(but)
        for key in in_memory:
            yield key, self[key]
        for block, keys in by_block.items():
            unpacked = block.read()
            for key in keys:
                yield key, unpacked[key]

    def _by_block(self, but: Mapping[str, Place] = _NOWHERE) -> tuple[list[str], dict[Block, list[str]]]:
        in_memory: list[str] = []
        by_block: dict[Block, list[str]] = {}
        for key, place in self._places.items():
            if but and but.get(key) is place:
                continue
            if isinstance(place, Block):
                by_block.setdefault(place, []).append(key)
            else:
                in_memory.append(key)
        return in_memory, by_block


class _Items(ItemsView[str, bytes]):
    """Keys and rows, those in memory first."""

    _mapping: PlacedRows

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return self._mapping._stored(_NOWHERE)


class BoundedRows(PlacedRows):
    """Rows of which about ``bytes_max`` bytes are in memory. ``forgot`` is called when some looked at are forgotten."""

    def __init__(
        self,
        bytes_max: int,
        directory: str | os.PathLike[str] | None = None,
        forgot: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__({})
        self._file = CacheFile(directory)
        self._fresh: dict[str, None] = {}  # keys of rows in no block, in the order in which they were put
        self._fresh_bytes = 0
        self._fresh_bytes_max = bytes_max // 2
        self._tried = _Lately(bytes_max // 16, forgot)
        self._kept = _Lately(bytes_max // 16, forgot)
        self._blocks_bytes = 0  # of all blocks with a row alive
        self._dead_bytes = 0  # the part of it that belongs to dead rows
        self._sparse: dict[Block, None] = {}  # blocks more than half dead

    def __repr__(self) -> str:
        return f"<BoundedRows rows={len(self)} fresh={len(self._fresh)} {self._file!r}>"

    @property
    def rows_in_file(self) -> int:
        """How many rows are in the file."""
        return len(self._places) - len(self._fresh)

    @property
    def file_bytes(self) -> int:
        """How large the file is."""
        return self._file.size

    @property
    def memory_bytes(self) -> int:
        """What rows, keys and table take. Cost: O(rows)."""
        table = sys.getsizeof(self._places) + sum(map(sys.getsizeof, self._places))
        return table + self._fresh_bytes + self._tried.bytes + self._kept.bytes

    # Changes. None of them writes, or fails

    def __setitem__(self, key: str, row: bytes) -> None:
        old = self._places.get(key)
        self._places[key] = row
        if old is not None:
            self._leave(key, old)
        self._fresh[key] = None
        self._fresh_bytes += len(row) + _ROW_BYTES

    def __delitem__(self, key: str) -> None:
        self._leave(key, self._places.pop(key))

    def clear(self) -> None:
        """Have no rows. Cost: O(rows)."""
        for key in list(self._places):
            del self[key]

    def _leave(self, key: str, place: Place) -> None:
        """The row of ``key`` is no longer at this place."""
        if not isinstance(place, Block):
            del self._fresh[key]
            self._fresh_bytes -= len(place) + _ROW_BYTES
            return
        self._tried.drop(key)
        self._kept.drop(key)
        self._dead_bytes -= place.dead_bytes
        place.alive -= 1
        if place.alive == 0:
            self._blocks_bytes -= place.size
            self._sparse.pop(place, None)
            return
        self._dead_bytes += place.dead_bytes
        if 2 * place.alive < place.rows:
            self._sparse[place] = None

    # Looking

    def _look_up(self, key: str, block: Block) -> bytes:
        row = self._kept.rows.get(key)
        if row is None:
            row = self._tried.drop(key)
            if row is None:
                row = self._unpacked(block)[key]
                self._tried.add(key, row)
            else:
                self._kept.add(key, row)
        return row

    # Keeping within the budget

    def shrink(self) -> None:
        """Write what is over the budget to the file, and dissolve blocks where too much of it is dead.

        Cost: about 2 microseconds for each row put since. Raises Unavailable; then these rows stay in memory.
        """
        while True:
            if self._fresh_bytes > self._fresh_bytes_max:
                self._write_oldest()
            elif 2 * self._dead_bytes > self._blocks_bytes:
                self._dissolve(next(iter(self._sparse)))  # if more than half of all is dead, it is of some block, too
            else:
                return

    def _write_oldest(self) -> None:
        oldest = list(islice(self._fresh, (len(self._fresh) + 1) // 2))
        rows: dict[str, bytes] = {}
        size = 0
        for key in oldest:
            place = self._places[key]
            assert not isinstance(place, Block)
            rows[key] = place
            size += len(place)
            if size >= BLOCK_BYTES:
                self._write(rows)
                rows, size = {}, 0
        if rows:
            self._write(rows)

    def _write(self, rows: dict[str, bytes]) -> None:
        block = self._file.write(rows)
        self._blocks_bytes += block.size
        for key, row in rows.items():
            self._places[key] = block
            del self._fresh[key]
            self._fresh_bytes -= len(row) + _ROW_BYTES

    def _dissolve(self, block: Block) -> None:
        for key, row in block.read().items():
            if self._places.get(key) is block:
                self[key] = row

    def _check(self) -> None:
        """Assert every invariant; O(rows)."""
        in_memory, by_block = self._by_block()
        # Fresh are the rows in no block.
        assert self._fresh.keys() == set(in_memory)
        assert self._fresh_bytes == sum(len(self[key]) + _ROW_BYTES for key in in_memory)
        # Blocks hold the rows that have them as their place, and know how many these are.
        for block, keys in by_block.items():
            assert block.alive == len(keys)
            assert block.read().keys() >= set(keys)
        assert self._blocks_bytes == sum(block.size for block in by_block)
        assert self._dead_bytes == sum(block.dead_bytes for block in by_block)
        assert self._sparse.keys() == {block for block in by_block if 2 * block.alive < block.rows}
        # What was looked at lately is as it is in the file, and bounded.
        for lately in (self._tried, self._kept):
            assert all(self._places[key].read()[key] == row for key, row in lately.rows.items())  # type: ignore[union-attr]
            lately._check()


class _Lately:
    """Rows that were looked at lately; the oldest are forgotten first, many at a time."""

    def __init__(self, bytes_max: int, forgot: Callable[[], object]) -> None:
        self.rows: dict[str, bytes] = {}
        self.bytes = 0
        self._bytes_max = bytes_max
        self._forgot = forgot

    def add(self, key: str, row: bytes) -> None:
        self.rows[key] = row
        self.bytes += len(row) + _ROW_BYTES
        while self.bytes > self._bytes_max:
            for old in list(islice(self.rows, (len(self.rows) + 1) // 2)):
                self.drop(old)
            self._forgot()

    def drop(self, key: str) -> bytes | None:
        row = self.rows.pop(key, None)
        if row is not None:
            self.bytes -= len(row) + _ROW_BYTES
        return row

    def _check(self) -> None:
        assert self.bytes == sum(len(row) + _ROW_BYTES for row in self.rows.values()) <= self._bytes_max


Rows: TypeAlias = dict[str, bytes] | PlacedRows


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """How much memory the rows of a view may take, keys and indexes not counted, and where the file is for the others.

    ``bytes_max`` None: all rows are in memory, in a dict. Else half is for fresh rows, a quarter for what rows were at
    the last snapshot, an eighth for rows from the file, and an eighth for decoded ones.
    """

    bytes_max: int | None = None
    directory: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.bytes_max is not None and (type(self.bytes_max) is not int or self.bytes_max < 1):
            raise InvalidArgument(f"needs a number of bytes or None memory_bytes_max={self.bytes_max!r:.60}")
        if self.bytes_max is None and self.directory is not None:
            raise InvalidArgument(
                f"nothing is kept in a file without a budget cache_directory={self.directory}; give memory_bytes_max"
            )

    def new_rows(self, forgot: Callable[[], object] = lambda: None) -> Rows:
        """Return an empty table. Raises InvalidArgument where no file can be made."""
        return {} if self.bytes_max is None else BoundedRows(self.bytes_max, self.directory, forgot)

    @property
    def since_bytes_max(self) -> float:
        """How much of what rows were at the last snapshot may be remembered."""
        return inf if self.bytes_max is None else self.bytes_max // 4

    @property
    def decoded_bytes_max(self) -> int:
        """How many bytes of rows may be remembered decoded."""
        return (
            DECODED_BYTES_MAX
            if self.bytes_max is None
            else min(DECODED_BYTES_MAX, self.bytes_max // 8 // _DECODED_TIMES)
        )


def shrink(rows: Mapping[str, bytes]) -> None:
    """Bring rows within their budget, where they have one. Raises Unavailable."""
    if isinstance(rows, BoundedRows):
        rows.shrink()
