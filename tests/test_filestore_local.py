"""LocalStore: what lies on the disk after a power cut, what a crash leaves behind, and what the system may refuse."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable, UnsafeStore
from logstore.filestore import FileStore, LocalStore, MemoryStore
from logstore.filestore import local as local_module
from logstore.filestore.base import is_key
from logstore.testing.clock import ManualClock
from tests.disk import WRITE_BYTES_MAX, Call, Disk, Platter

HOUR_MS = 3_600_000


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path, time.time_ns)
    monkeypatch.setattr(local_module, "os", disk)
    return disk


def left_by_power_cut(calls: list[Call]) -> list[dict[str, bytes]]:
    """What the disks that a power cut after these calls may leave hold: files by path."""
    platter = Platter()
    for call in calls:
        platter.play(call)
    lefts = platter.left_by_power_cut(random.Random(len(calls)))
    return [{path: data for path, _, data in left.files} for left in lefts]


@pytest.mark.parametrize("made_before", [(), ("root",), ("root", "root/a"), ("root", "root/a", "root/a/b", "root/tmp")])
async def test_a_power_cut_leaves_the_whole_object_or_none(
    tmp_path: Path, disk: Disk, made_before: tuple[str, ...]
) -> None:
    """At no step can a torn object have the name, and once create has returned the object survives.

    That holds too where another process had made directories and not yet synced them.
    """
    before = [Call("mkdir", name) for name in made_before]
    for made in before:
        os.mkdir(tmp_path / made.path)
    store, name, whole = LocalStore(tmp_path / "root"), "root/a/b/c", b"x" * 3 * WRITE_BYTES_MAX
    await store.create("a/b/c", whole)
    for cut in range(len(disk.calls) + 1):
        for left in left_by_power_cut([*before, *disk.calls[:cut]]):
            assert left.get(name, whole) == whole, f"torn after {disk.calls[:cut]}"
    assert all(left.get(name) == whole for left in left_by_power_cut([*before, *disk.calls]))
    await store.aclose()


async def test_a_refused_name_is_durable(tmp_path: Path, disk: Disk) -> None:
    """AlreadyExists is told after the name is synced: whoever reads its own object there may call it stored."""
    data = b"from an attempt that has not come back"
    before = [
        Call("mkdir", "root"),
        Call("mkdir", "root/a"),
        Call("create", "root/a/b"),
        Call("write", "root/a/b", data=data),
        Call("sync file", "root/a/b"),
    ]
    os.makedirs(tmp_path / "root/a")
    (tmp_path / "root/a/b").write_bytes(data)
    store = LocalStore(tmp_path / "root")
    assert not all("root/a/b" in left for left in left_by_power_cut(before))
    with pytest.raises(AlreadyExists):
        await store.create("a/b", b"x")
    assert all(left.get("root/a/b") == data for left in left_by_power_cut([*before, *disk.calls]))
    await store.aclose()


async def test_a_second_creation_in_a_directory_syncs_twice(tmp_path: Path, disk: Disk) -> None:
    """In the steady state a creation costs one sync of the file, a link, and one sync of its directory."""
    store = LocalStore(tmp_path)
    await store.create("a/1", b"x")
    disk.calls.clear()
    await store.create("a/2", b"x")
    assert [function for function, _ in disk.changes] == ["write", "sync file", "link", "sync directory"]
    await store.aclose()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EDQUOT])
@pytest.mark.parametrize("function", ["open", "write", "fsync", "link"])
async def test_what_the_system_refuses_is_unavailable(tmp_path: Path, disk: Disk, code: int, function: str) -> None:
    """A refused step names the key and its reason, leaves nothing behind, and the next try works."""
    store = LocalStore(tmp_path)
    await store.create("a/0", b"x")
    disk.fail["sync file" if function == "fsync" else function] = OSError(code, os.strerror(code))
    with pytest.raises(Unavailable, match=f"key=a/1 errno={errno.errorcode[code]}"):
        await store.create("a/1", b"x")
    disk.fail.clear()
    assert os.listdir(tmp_path / "tmp") == []
    assert [listed.key async for listed in store.list("")] == ["a/0"]
    await store.create("a/1", b"x")
    await store.aclose()


async def test_refused_reads_and_deletions_are_unavailable(tmp_path: Path, disk: Disk) -> None:
    """Permission denied is said plainly, and is never taken for absence."""
    store = LocalStore(tmp_path)
    await store.create("a/1", b"x")
    disk.fail["open"] = PermissionError(errno.EACCES, "no")
    with pytest.raises(Unavailable, match="permission denied"):
        await store.get("a/1")
    with pytest.raises(Unavailable, match="permission denied"):
        await store.delete("a/1")
    await store.aclose()


async def test_a_failed_directory_sync_is_never_believed_again(tmp_path: Path, disk: Disk) -> None:
    """Regression: a sync that succeeds after one that failed says nothing of what the first had lost ("fsyncgate").

    The second attempt met AlreadyExists, found its own object, and took it for stored; a power cut took it away. Now
    this process calls nothing stored in that directory; in others it goes on, and after a restart in this one, too.
    """
    store = LocalStore(tmp_path)
    await store.create("a/0", b"x")
    disk.fail["sync directory"] = OSError(errno.EIO, "no")
    with pytest.raises(Unavailable, match="input/output error verb=create key=a/1 errno=EIO"):
        await store.create("a/1", b"mine")
    disk.fail.clear()
    for refused in (store.create("a/1", b"mine"), store.create("a/2", b""), store.get("a/1"), store.delete("a/9")):
        with pytest.raises(Unavailable, match=f"check the disk, .* restart this process directory={tmp_path}/a$"):
            await refused
    assert len(os.listdir(tmp_path / "tmp")) == 1
    assert (await store.get("a/0")).data == b"x"
    await store.create("b/1", b"x")
    restarted = LocalStore(tmp_path)
    with pytest.raises(AlreadyExists):
        await restarted.create("a/1", b"mine")
    assert (await restarted.get("a/1")).data == b"mine"
    await store.aclose()
    await restarted.aclose()


async def test_an_interrupted_directory_sync_is_ambiguous(tmp_path: Path, disk: Disk) -> None:
    """When the last step is interrupted, the caller is told Unavailable, and AlreadyExists when it tries again."""
    store = LocalStore(tmp_path)
    await store.create("a/0", b"x")
    disk.fail["sync directory"] = InterruptedError(errno.EINTR, "no")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await store.create("a/1", b"mine")
    disk.fail.clear()
    with pytest.raises(AlreadyExists):
        await store.create("a/1", b"mine")
    assert (await store.get("a/1")).data == b"mine"
    await store.aclose()


async def test_a_file_system_without_links_is_refused(tmp_path: Path, disk: Disk) -> None:
    """Where files cannot be linked, creation would not be exclusive and whole: UnsafeStore."""
    store = LocalStore(tmp_path)
    disk.fail["link"] = PermissionError(errno.EPERM, "no")
    with pytest.raises(UnsafeStore, match="cannot link"):
        await store.create("a", b"x")
    await store.aclose()


@pytest.mark.parametrize("first_second", [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c"), ("a/b/c", "a")])
@pytest.mark.parametrize("kind", ["memory", "local"])
async def test_a_name_is_no_file_and_directory(tmp_path: Path, kind: str, first_second: tuple[str, str]) -> None:
    """Where one of two keys would be the other's directory, the second is refused, not taken for a lost race."""
    store: FileStore = LocalStore(tmp_path) if kind == "local" else MemoryStore()
    first, second = first_second
    await store.create(first, b"x")
    with pytest.raises(InvalidArgument, match="object cannot"):
        await store.create(second, b"y")
    assert (await store.get(first)).data == b"x"
    with pytest.raises(NotFound):
        await store.get(second)
    await store.aclose()


async def test_a_root_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    """A root that is no directory is said to be the trouble, not the key."""
    (tmp_path / "root").write_bytes(b"")
    store = LocalStore(tmp_path / "root")
    with pytest.raises(Unavailable, match="not a directory"):
        await store.create("a", b"x")
    await store.aclose()


async def test_a_crash_leaves_only_temporaries(tmp_path: Path) -> None:
    """Torn temporaries are in nobody's way, and a sweep takes those that are old, and only those."""
    clock = ManualClock(wall_ms=time.time_ns() // 1_000_000)
    store = LocalStore(tmp_path, clock=clock)
    await store.create("a/1", b"x")
    (tmp_path / "tmp/torn").write_bytes(b"half an ob")
    (tmp_path / "tmp/empty").touch()
    assert [listed.key async for listed in store.list("")] == ["a/1"]
    assert (await store.sweep(older_than_ms=HOUR_MS)).temporaries == 0
    clock.advance(2 * HOUR_MS)
    assert (await store.sweep(older_than_ms=HOUR_MS)).temporaries == 2
    assert os.listdir(tmp_path / "tmp") == []
    assert (await store.get("a/1")).data == b"x"
    await store.aclose()


async def test_what_was_found_before_its_creator_synced_it_survives(tmp_path: Path, disk: Disk) -> None:
    """Regression: a seal behind, or a tick that named, an object whose creator was killed before it synced the name.

    A power cut took the object and left the seal: Missing, for ever. A reader that finds a file with its second name
    syncs the directory before it says what it found, and a sweep does before it takes that name away.
    """
    clock = ManualClock(wall_ms=time.time_ns() // 1_000_000)
    store = LocalStore(tmp_path, clock=clock)
    await store.create("a/0", b"x")
    for name in ("1", "2"):
        (tmp_path / "tmp" / name).write_bytes(b"of a process that was killed")
        os.link(tmp_path / "tmp" / name, tmp_path / "a" / name)
    disk.calls.clear()
    assert (await store.get("a/0")).data == b"x"
    assert disk.changes == []
    assert (await store.get("a/1")).data == b"of a process that was killed"
    assert disk.changes == [("sync directory", "a")]
    disk.fail["sync directory"] = OSError(errno.EIO, "no")
    clock.advance(2 * HOUR_MS)
    other = LocalStore(tmp_path, clock=clock)
    with pytest.raises(Unavailable, match="verb=get key=a/1 errno=EIO"):
        await other.get("a/1")
    with pytest.raises(Unavailable, match="verb=sweep"):
        await other.sweep(older_than_ms=HOUR_MS)
    await other.aclose()
    assert sorted(os.listdir(tmp_path / "tmp")) == ["1", "2"]
    disk.fail.clear()
    disk.calls.clear()
    assert (await store.sweep(older_than_ms=HOUR_MS)).temporaries == 2
    assert ("sync directory", "a") in disk.changes
    await store.aclose()


async def test_empty_directories_stay_until_a_sweep(tmp_path: Path) -> None:
    """Deletion leaves directories alone; a sweep takes old empty ones, and a create makes them again."""
    clock = ManualClock(wall_ms=time.time_ns() // 1_000_000)
    store, other = LocalStore(tmp_path, clock=clock), LocalStore(tmp_path)
    await store.create("a/b/1", b"x")
    await other.create("a/b/2", b"x")
    await store.create("c/1", b"x")
    await store.delete("a/b/1")
    await store.delete("a/b/2")
    assert (await store.sweep(older_than_ms=HOUR_MS)).directories == 0
    clock.advance(2 * HOUR_MS)
    assert (await store.sweep(older_than_ms=HOUR_MS)).directories == 1
    os.rmdir(tmp_path / "a")  # what a later sweep does, when the directory has become old again
    await store.create("a/b/3", b"x")
    await other.create("a/b/4", b"x")
    assert [listed.key async for listed in other.list("")] == ["a/b/3", "a/b/4", "c/1"]
    await store.aclose()
    await other.aclose()


async def test_a_create_gives_up_when_its_directory_keeps_vanishing(tmp_path: Path, disk: Disk) -> None:
    """A name that cannot be linked after a few tries is Unavailable, not an endless loop."""
    store = LocalStore(tmp_path)
    disk.fail["link"] = FileNotFoundError(errno.ENOENT, "no")
    with pytest.raises(Unavailable, match="key=a/1"):
        await store.create("a/1", b"x")
    await store.aclose()


async def test_small_and_absent_files_are_answered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tailing never waits for a thread; only a get of more than 64 KiB does."""
    store = LocalStore(tmp_path)
    await store.create("small", b"x" * 65_536)
    await store.create("large", b"x" * 65_537)

    async def no_thread(work: Callable[..., object], *_arguments: object) -> object:
        raise AssertionError(f"a thread for {work}")

    monkeypatch.setattr(store, "_in_thread", no_thread)
    assert len((await store.get("small")).data) == 65_536
    assert len((await store.get("large", 1)).data) == 65_536
    with pytest.raises(NotFound):
        await store.get("absent")
    with pytest.raises(AssertionError, match="a thread for"):
        await store.get("large")
    await store.aclose()


async def test_listing_reads_no_directory_that_it_need_not(tmp_path: Path, disk: Disk) -> None:
    """Directories before the position, and beside the prefix, are not looked into."""
    store = LocalStore(tmp_path)
    for chapter in "abcd":
        await store.create(f"log/{chapter}/x/1", b"")
    await store.create("other/1", b"")
    disk.calls.clear()
    assert [listed.key async for listed in store.list("log/", "log/c/x/0")] == ["log/c/x/1", "log/d/x/1"]
    read = [os.path.normpath(call.path) for call in disk.calls if call.function == "scandir"]
    assert read == ["log", "log/c", "log/c/x", "log/d", "log/d/x"]
    await store.aclose()


async def test_what_is_no_object_is_not_listed(tmp_path: Path) -> None:
    """Names that are no keys, pipes and broken links are passed over, and a pipe does not hang a get."""
    store = LocalStore(tmp_path)
    await store.create("a/1", b"x")
    (tmp_path / "a/not a key").touch()
    os.mkfifo(tmp_path / "a/pipe")
    (tmp_path / "a/broken").symlink_to(tmp_path / "nowhere")
    assert [listed.key async for listed in store.list("")] == ["a/1"]
    for key in ("a/pipe", "a/broken"):
        with pytest.raises(NotFound):
            await store.get(key)
    await store.aclose()


async def test_stores_over_one_directory_are_one_store(tmp_path: Path) -> None:
    """Creations race through several stores, as through several processes, and one wins."""
    stores = [LocalStore(tmp_path) for _ in range(4)]

    async def run(store: LocalStore, key: str, data: bytes) -> bool:
        try:
            await store.create(key, data)
            return True
        except AlreadyExists:
            return False

    for round_ in range(20):
        racers = [run(store, f"new{round_}/x", b"%d" % n) for n, store in enumerate(stores * 2)]
        assert sum(await asyncio.gather(*racers)) == 1
    assert os.listdir(tmp_path / "tmp") == []
    for store in stores:
        await store.aclose()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Using a closed store is Unavailable, and its repr tells."""
    store = LocalStore(tmp_path)
    await store.aclose()
    with pytest.raises(Unavailable, match="closed"):
        await store.create("a", b"x")
    assert repr(store) == f"<LocalStore root={str(tmp_path)!r} closed>"


async def test_an_absent_root_is_an_empty_store(tmp_path: Path) -> None:
    """Before the first creation there is nothing to find, to list or to delete, and looking makes nothing."""
    store = LocalStore(tmp_path / "not/yet")
    assert [listed async for listed in store.list("")] == []
    await store.delete("a/b")
    with pytest.raises(NotFound):
        await store.get("a/b")
    assert os.listdir(tmp_path) == []
    await store.aclose()


SEGMENTS = st.text("ab.-0~", min_size=1, max_size=3)
KEYS = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join).filter(is_key)


@given(keys=st.sets(KEYS, max_size=12), prefix=KEYS | st.just(""), after=KEYS | st.just(""), slash=st.booleans())
@settings(max_examples=100, deadline=None)
def test_listing_equals_a_sorted_set(keys: set[str], prefix: str, after: str, slash: bool) -> None:
    """For any names, prefix and position, a listing is the sorted set of keys, cut by both."""
    prefix += "/" if slash and prefix else ""
    kept: list[str] = []

    async def both() -> None:
        memory = MemoryStore()
        with tempfile.TemporaryDirectory() as root:
            local = LocalStore(root)
            for key in sorted(keys):
                try:
                    await memory.create(key, b"")
                except InvalidArgument:
                    continue  # the directory of another
                kept.append(key)
                (Path(root) / key).parent.mkdir(parents=True, exist_ok=True)
                (Path(root) / key).touch()
                memory._check()
            want = sorted(key for key in kept if key.startswith(prefix) and key > after)
            assert [listed.key async for listed in memory.list(prefix, after)] == want
            assert [listed.key async for listed in local.list(prefix, after)] == want
            await local.aclose()

    asyncio.run(both())
