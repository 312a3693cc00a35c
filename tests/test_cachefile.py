"""The cache file: what is read is what was written, room is used again, and what goes wrong is said in one line."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore.errors import Corrupt, InvalidArgument, Unavailable
from projections.cachefile import PAGE_BYTES, Block, CacheFile

ROWS = st.dictionaries(st.text(max_size=3), st.binary(max_size=2_000), min_size=1, max_size=5)


def rows_of(size: int) -> dict[str, bytes]:
    """A row that does not compress."""
    return {"row": os.urandom(size)}


@contextmanager
def full_disk(bytes_max: int = 0) -> Iterator[None]:
    """No file may grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(st.lists(ROWS | st.integers(0, 20), max_size=20))
def test_a_block_holds_its_rows_whatever_room_it_was_given(steps: list[dict[str, bytes] | int]) -> None:
    """Blocks are written into what others left, whole or in parts, and each is read back as it was written."""
    file, blocks = CacheFile(), list[tuple[Block, dict[str, bytes]]]()
    for step in steps:
        if isinstance(step, dict):
            blocks.append((file.write(step), step))
        elif blocks:
            del blocks[step % len(blocks)]
        assert [block.read() for block, _ in blocks] == [rows for _, rows in blocks]
    assert file.size == PAGE_BYTES * (len(file._free) + sum(len(block._pages) for block, _ in blocks))


def test_room_is_used_again() -> None:
    """When nobody refers to a block any more its pages are free, and the file does not grow for the next one."""
    file = CacheFile()
    blocks = [file.write(rows_of(size)) for size in (3_000, 900, 5_000)]
    size = file.size
    held = blocks.pop(1)
    blocks.clear()
    rows = rows_of(7_000)
    block = file.write(rows)
    assert file.size == size
    assert block.read() == rows
    assert len(held.read()["row"]) == 900


def test_the_file_has_no_name(tmp_path: Path) -> None:
    """Nothing shows in the directory, so nothing is left in it, however the process ends."""
    file = CacheFile(tmp_path)
    file.write(rows_of(1_000))
    assert list(tmp_path.iterdir()) == []


def test_the_file_goes_with_those_who_refer_to_it() -> None:
    """Its handle is given back at once when the last block is forgotten: nobody needs to close it."""
    file = CacheFile()
    block, handle = file.write(rows_of(10)), file._handle
    del file
    assert os.fstat(handle).st_size > 0
    del block
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """At once, not when the first row is to be written."""
    with pytest.raises(InvalidArgument, match=r"cache_directory=\S*absent.*; name a directory"):
        CacheFile(tmp_path / "absent")


def test_a_full_disk_is_said_and_changes_nothing(tmp_path: Path) -> None:
    """Blocks written before are there, the room taken for the one that failed is free, and with more room it works."""
    file = CacheFile(tmp_path)
    rows = rows_of(2_000)
    block = file.write(rows)
    with full_disk(3_000), pytest.raises(Unavailable, match=rf"written cache_directory={tmp_path} cause=.*; make room"):
        file.write(rows_of(3_000))
    assert block.read() == rows
    size, other = file.size, rows_of(3_000)
    assert file.write(other).read() == other
    assert file.size == size


@pytest.mark.parametrize("at", [0, 5, 100, -1])
def test_a_damaged_block_is_noticed(at: int) -> None:
    """A byte that is another one on the disk is an error, not another row."""
    file = CacheFile()
    block = file.write({"row": b"some text, some text"})
    offset = at % block.size
    byte = os.pread(file._handle, 1, offset)[0]
    os.pwrite(file._handle, bytes([byte ^ 0x10]), offset)
    with pytest.raises(Corrupt, match="open the view again"):
        block.read()
