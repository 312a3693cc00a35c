"""What crashes have found in the local store, each as the shortest way to it. A test here is named after the cause."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from logstore.errors import NotFound, Unavailable
from logstore.filestore import LocalStore
from logstore.filestore import local as local_module
from tests.disk import Disk

Ill = Callable[[str, str], bool]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(tmp_path, time.time_ns)
    monkeypatch.setattr(local_module, "os", disk)
    yield disk
    assert disk.handles == []


def refuse(disk: Disk, is_ill: Ill, code: int = errno.EIO) -> None:
    """From now on the disk refuses these calls."""
    disk.refuse = lambda _, function, path: OSError(code, os.strerror(code)) if is_ill(function, path) else None


def refuse_nothing(disk: Disk) -> None:
    disk.refuse = lambda *_: None


async def test_a_delete_that_cannot_look_has_not_deleted(tmp_path: Path, disk: Disk) -> None:
    """os.path.isfile takes an error for "no": a delete said it was done when it had not been able to look."""
    store = LocalStore(tmp_path)
    await store.create("a/1", b"x")
    refuse(disk, lambda function, path: function == "stat" and path == "a/1", errno.EACCES)
    with pytest.raises(Unavailable, match=r"permission denied.* verb=delete key=a/1"):
        await store.delete("a/1")
    refuse_nothing(disk)
    await store.delete("a/1")
    with pytest.raises(NotFound):
        await store.get("a/1")
    await store.aclose()


async def test_a_directory_that_cannot_be_looked_at_is_not_another_object(tmp_path: Path, disk: Disk) -> None:
    """os.path.isdir takes an error for "no": an append failed for good, as InvalidArgument, on a passing EIO."""
    await LocalStore(tmp_path).create("a/b/0", b"x")
    store = LocalStore(tmp_path)
    refuse(disk, lambda function, path: function == "stat" and path == "a/b")
    with pytest.raises(Unavailable, match="input/output error verb=create key=a/b/1"):
        await store.create("a/b/1", b"x")
    refuse_nothing(disk)
    await store.create("a/b/1", b"x")
    await store.aclose()


async def test_a_root_that_cannot_be_looked_at_is_unavailable(tmp_path: Path, disk: Disk) -> None:
    """The same for the root and all above it, which were made on and on: RecursionError."""
    store = LocalStore(tmp_path / "root")
    refuse(disk, lambda function, _: function == "stat")
    with pytest.raises(Unavailable, match="input/output error verb=create key=a/1"):
        await store.create("a/1", b"x")
    await store.aclose()


@pytest.mark.parametrize("function", ["fstat", "close"])
async def test_what_follows_the_opening_of_a_file_may_fail(tmp_path: Path, disk: Disk, function: str) -> None:
    """A stale NFS handle met at fstat came out as OSError, and stayed open; that of a close is of no interest."""
    store = LocalStore(tmp_path)
    await store.create("a/1", b"x")
    refuse(disk, lambda asked, path: asked == function and path == "a/1", errno.ESTALE)
    if function == "fstat":
        with pytest.raises(Unavailable, match="stale file handle verb=get key=a/1 errno=ESTALE"):
            await store.get("a/1")
    else:
        assert (await store.get("a/1")).data == b"x"
    await store.aclose()


@pytest.mark.parametrize("doubtful", ["", "a"], ids=["the root", "its own"])
async def test_that_a_sync_failed_is_heard_whatever_else_fails(tmp_path: Path, disk: Disk, doubtful: str) -> None:
    """The last of several attempts said ENOSPC: the operator made room, started anew, and believed the next sync."""
    store = LocalStore(tmp_path)
    refuse(disk, lambda function, path: function == "sync directory" and path == doubtful, errno.ENOSPC)
    with pytest.raises(Unavailable, match="no space left for the store verb=create key=a/1 errno=ENOSPC"):
        await store.create("a/1", b"x")
    refuse(disk, lambda function, path: True, errno.ENOSPC)
    with pytest.raises(Unavailable, match="check the disk, mount it anew, then restart this process directory="):
        await store.create("a/1", b"x")
    await store.aclose()
