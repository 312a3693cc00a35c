"""A local file of blocks, where the rows lie that a memory budget has no room for.

A block is a dozen rows or more, compressed together: alone a row hardly gets smaller. It lies in pages, wherever some
are free. The file has no name: nobody else can open it, and it is gone when nobody refers to it or to a block of it any
more, or with the process, however that ends. Nothing in it is ever needed again.

Invariants:
- A page belongs to one block or is free. A block's pages are free as soon as nobody refers to the block any more.
- What is read of a block is what was written, by its checksum, or an error says so.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Final

import msgpack
import zstandard

from logstore.errors import Corrupt, InvalidArgument, LogStoreError, Unavailable

__all__ = ["Block", "CacheFile"]

PAGE_BYTES: Final = 512  # half of one is lost per block, of five or so
_ZSTD_LEVEL: Final = 1  # 3 takes half as long again and makes no smaller blocks of rows that are alike


class Block:
    """Rows in the file, never changed. ``size``: in bytes. ``alive``: how many rows its owner still has here."""

    __slots__ = ("_file", "_pages", "alive", "rows", "size")

    def __init__(self, file: CacheFile, pages: Sequence[int], size: int, rows: int) -> None:
        self._file = file
        self._pages = pages
        self.size = size
        self.rows = self.alive = rows

    def read(self) -> dict[str, bytes]:
        """Return its rows. Cost: some 15 microseconds. Raises Corrupt, Unavailable."""
        return self._file._read(self._pages, self.size)

    @property
    def dead_bytes(self) -> int:
        """Its size, as far as it is that of rows no longer alive."""
        return self.size * (self.rows - self.alive) // self.rows

    def __del__(self) -> None:
        self._file._free.extend(self._pages)  # from whatever thread: one step


class CacheFile:
    """Made in ``directory``, or where temporary files belong. Raises InvalidArgument where that cannot be."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._directory = os.fspath(directory) if directory is not None else tempfile.gettempdir()
        self._free: list[int] = []
        self._pages = 0
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        self._decompressor = zstandard.ZstdDecompressor()
        self._decompressing = Lock()  # copies of rows are read in threads
        try:
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
                self._handle = os.dup(file.fileno())
        except OSError as error:
            raise InvalidArgument(
                f"no cache file can be made here cache_directory={self._directory} cause={error};"
                " name a directory that can be written to"
            ) from error

    def __repr__(self) -> str:
        return f"<CacheFile in {self._directory} bytes={self.size} free={len(self._free) * PAGE_BYTES}>"

    @property
    def size(self) -> int:
        """How large the file is."""
        return self._pages * PAGE_BYTES

    def write(self, rows: Mapping[str, bytes]) -> Block:
        """Return a block of these rows. Cost: about two microseconds a row. Raises Unavailable."""
        data = self._compressor.compress(msgpack.packb(rows))
        pages = self._take_pages(-(-len(data) // PAGE_BYTES))
        try:
            for offset, start, stop in _stretches(pages, len(data)):
                _write_all(self._handle, memoryview(data)[start:stop], offset)
        except BaseException as error:
            self._free.extend(pages)
            if isinstance(error, OSError):
                raise self._unavailable("written", error) from error
            raise
        return Block(self, pages, len(data), len(rows))

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def _read(self, pages: Sequence[int], size: int) -> dict[str, bytes]:
        stretches = _stretches(pages, size)
        try:
            data = b"".join([os.pread(self._handle, stop - start, offset) for offset, start, stop in stretches])
            with self._decompressing:
                packed = self._decompressor.decompress(data)
            rows: dict[str, bytes] = msgpack.unpackb(packed)
        except OSError as error:
            raise self._unavailable("read", error) from error
        except (ValueError, msgpack.UnpackException, zstandard.ZstdError) as error:
            raise Corrupt(
                f"a view's cache file is damaged cache_directory={self._directory} cause={error!r:.80};"
                " open the view again, and look after that disk"
            ) from error
        return rows

    def _take_pages(self, count: int) -> Sequence[int]:
        free = self._free  # to which others may add meanwhile
        taken = sorted([free.pop() for _ in range(min(count, len(free)))])
        new = range(self._pages, self._pages + count - len(taken))
        self._pages = new.stop
        return (*taken, *new) if taken else new

    def _unavailable(self, done: str, error: OSError) -> LogStoreError:
        return Unavailable(
            f"the view's cache file cannot be {done} cache_directory={self._directory} cause={error};"
            " make room there, or open the view with another cache_directory"
        )


def _stretches(pages: Sequence[int], size: int) -> Iterator[tuple[int, int, int]]:
    """Where ``size`` bytes lie in these pages: (offset in the file, start, stop), for pages that follow each other."""
    first = 0
    for at in range(1, len(pages) + 1):
        if at == len(pages) or pages[at] != pages[at - 1] + 1:
            yield pages[first] * PAGE_BYTES, first * PAGE_BYTES, min(at * PAGE_BYTES, size)
            first = at


def _write_all(handle: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
