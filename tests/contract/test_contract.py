"""What every store promises: the sentences of ``FileStore``, one test each, held against every backend."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable

import pytest

from logstore.errors import AlreadyExists, InvalidArgument, NotFound
from logstore.filestore import FileStore

ODD_KEYS = [
    "a",
    "a%",
    "a%2Fb",
    "a%41",
    "a-",
    "a-b",
    "a.b",
    "a.b.c",
    "a_",
    "a~",
    "a0",
    "aA",
    "aa",
    "A",
    "Z",
    "0",
    "_",
    "~",
    "-",
    "...",
    "..a",
    "%2e%2e",
    "d/a",
    "d/a-/x",
    "d/b/c/d/e",
    "d/b.c",
    "d/b0",
    "d-/x",
    "d.",
    "d.e/f",
    "d0/x",
    "dd",
    "tmp-",
    "d/tmp/x",
]
NO_KEYS = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../b",
    "a/./b",
    "a/..",
    "tmp",
    "tmp/a",
    "a b",
    "a\n",
    "a\0",
    "a\\b",
    "é",
    "a:b",
    "a+b",
    "x" * 256,
    "/".join(["x" * 200] * 5),
]


async def create_all(store: FileStore, keys: Iterable[str]) -> None:
    limit = asyncio.Semaphore(32)

    async def create(key: str) -> None:
        async with limit:
            await store.create(key, key.encode())

    await asyncio.gather(*(create(key) for key in keys))


async def keys_of(store: FileStore, prefix: str, after: str = "") -> list[str]:
    return [listed.key async for listed in store.list(prefix, after)]


async def test_a_created_object_is_read_back_whole(store: FileStore) -> None:
    """What create stored, get returns, with its size and times near ours."""
    now_ms = time.time() * 1_000
    created_ms = await store.create("a/b/c", b"hello")
    blob = await store.get("a/b/c")
    assert (blob.data, blob.size) == (b"hello", 5)
    for told_ms in (created_ms, blob.modified_ms, blob.now_ms):
        assert told_ms is not None
        assert abs(told_ms - now_ms) < 10_000


async def test_an_empty_object_is_an_object(store: FileStore) -> None:
    """No bytes are bytes too: whether that is damage is judged above the store."""
    await store.create("empty", b"")
    for blob in (await store.get("empty"), await store.get("empty", 0, 9), await store.get("empty", 3)):
        assert (blob.data, blob.size) == (b"", 0)
    assert [(listed.key, listed.size) async for listed in store.list("")] == [("empty", 0)]


async def test_a_name_is_given_once(store: FileStore) -> None:
    """A second creation is refused, with equal bytes too, and changes nothing."""
    await store.create("a", b"first")
    for data in (b"second", b"first", b""):
        with pytest.raises(AlreadyExists, match="key=a"):
            await store.create("a", data)
    assert (await store.get("a")).data == b"first"


async def test_a_race_has_one_winner(store: FileStore) -> None:
    """However many creations race, one returns, the others get AlreadyExists, and the winner's bytes are stored."""

    async def run(key: str, racer: int) -> bool:
        try:
            await store.create(key, b"%d" % racer * 100)
            return True
        except AlreadyExists:
            return False

    for round_ in range(10):
        key = f"race/{round_}/x"
        won = await asyncio.gather(*(run(key, racer) for racer in range(16)))
        assert sum(won) == 1
        assert (await store.get(key)).data == b"%d" % won.index(True) * 100


async def test_what_is_absent_is_not_found(store: FileStore) -> None:
    """Neither an unknown name, nor a prefix of a key, nor a name below one is an object."""
    await store.create("a/b", b"x")
    for key in ("c", "a", "a/c", "a/b/c", "a/b/c/d", "a/B"):
        with pytest.raises(NotFound) as caught:
            await store.get(key)
        assert caught.value.now_ms is not None


async def test_ranges_are_cut_at_the_end(store: FileStore) -> None:
    """A range holds exactly the bytes that Python's slice would, and the size is that of the whole."""
    data = bytes(range(256)) * 2
    await store.create("a", data)
    for start in (0, 1, 100, 511, 512, 513, 9_999):
        for length in (None, 0, 1, 2, 411, 412, 413, 9_999):
            stop = None if length is None else start + length
            blob = await store.get("a", start, stop)
            assert (blob.data, blob.size) == (data[start:stop], 512), (start, stop)


async def test_backward_ranges_are_refused(store: FileStore) -> None:
    """A range that cannot be one is the caller's mistake."""
    await store.create("a", b"12345")
    for start, stop in ((-1, None), (0, -1), (5, 4)):
        with pytest.raises(InvalidArgument):
            await store.get("a", start, stop)


async def test_deletion_is_idempotent(store: FileStore) -> None:
    """Deleting what is absent is fine; what was deleted is neither found nor listed."""
    await store.create("a/b", b"x")
    for key in ("a/b", "a/b", "a", "a/c", "nowhere/at/all", "a/b/c"):
        await store.delete(key)
    with pytest.raises(NotFound):
        await store.get("a/b")
    assert await keys_of(store, "") == []


async def test_deleting_a_prefix_deletes_nothing(store: FileStore) -> None:
    """A name that is only the beginning of keys is absent, so that deleting it leaves them alone."""
    await store.create("a/b", b"x")
    await store.delete("a")
    assert await keys_of(store, "") == ["a/b"]


async def test_odd_characters_come_back_as_they_were(store: FileStore) -> None:
    """Every character of the alphabet stands for itself in every verb: nothing is decoded, folded or escaped away."""
    kept = [key for key in ODD_KEYS if key not in ("A", "aA")]  # a file system may ignore case
    await create_all(store, kept)
    for key in kept:
        assert (await store.get(key)).data == key.encode()
        await store.delete(key)
    assert await keys_of(store, "") == []


async def test_long_keys_fit(store: FileStore) -> None:
    """Segments of 255 bytes and keys of 900 are keys."""
    keys = ["x" * 255, "/".join(["y" * 224] * 4) + "z"]
    assert len(keys[1]) == 900
    await create_all(store, keys)
    assert await keys_of(store, "") == keys


async def test_what_is_no_key_is_refused(store: FileStore) -> None:
    """A name that breaks the rules, and could leave the store's root, reaches no store at all."""
    for key in NO_KEYS:
        with pytest.raises(InvalidArgument):
            await store.create(key, b"x")
        with pytest.raises(InvalidArgument):
            await store.get(key)
        with pytest.raises(InvalidArgument):
            await store.delete(key)


async def test_a_prefix_cannot_leave_the_root(store: FileStore) -> None:
    """A prefix with which no key can begin is refused."""
    await store.create("a/b", b"x")
    assert await keys_of(store, "..") == []  # two dots may begin a longer name
    for prefix in ("/", "/a", "../", "a/../", "./", "a//", "é", "a b"):
        with pytest.raises(InvalidArgument):
            await keys_of(store, prefix)


async def test_listing_is_in_byte_order(store: FileStore) -> None:
    """Keys come in the order of their bytes, wherever slashes fall."""
    shuffled = random.Random(1).sample(ODD_KEYS, len(ODD_KEYS))
    await create_all(store, shuffled)
    assert await keys_of(store, "") == sorted(ODD_KEYS, key=str.encode)


async def test_listing_follows_prefix_and_position(store: FileStore) -> None:
    """``prefix`` cuts anywhere in a name, and ``after`` is a position that need not exist."""
    await create_all(store, ODD_KEYS)
    prefixes = ["", "a", "a.", "d", "d/", "d/b", "d/b/", "d/b/c", "d/b/c/d/e", "d/b/c/d/e/f", "nothing", ".", "d/."]
    positions = ["", "a", "a%", "a.b", "d", "d/", "d/a", "d/a-/", "d/b/c", "d/b/zzz", "d0", "zzz", "~", "~~"]
    for prefix in prefixes:
        for after in positions:
            want = sorted(key for key in ODD_KEYS if key.startswith(prefix) and key > after)
            assert await keys_of(store, prefix, after) == want, (prefix, after)


async def test_listing_goes_on_beyond_a_thousand(store: FileStore) -> None:
    """A listing has all pages, from any position."""
    keys = [f"many/{n:04d}" for n in range(1_003)]
    await create_all(store, random.Random(2).sample(keys, len(keys)))
    assert await keys_of(store, "many/") == keys
    assert await keys_of(store, "many/", "many/0001") == keys[2:]
    assert await keys_of(store, "many/", "many/0999x") == keys[1_000:]


async def test_a_listing_tells_sizes_and_times(store: FileStore) -> None:
    """Each line holds what a get would say of the object."""
    await store.create("a/1", b"one")
    await store.create("a/2", b"three")
    lines = [listed async for listed in store.list("a/")]
    assert [(listed.key, listed.size) for listed in lines] == [("a/1", 3), ("a/2", 5)]
    for listed in lines:
        assert listed.modified_ms is not None
        assert abs(listed.modified_ms - time.time() * 1_000) < 10_000


async def test_a_listing_can_be_left(store: FileStore) -> None:
    """Whoever has seen enough stops; the store goes on working."""
    await create_all(store, ["a/1", "a/2", "a/3"])
    async for listed in store.list("a/"):
        assert listed.key == "a/1"
        break
    assert await keys_of(store, "a/", "a/1") == ["a/2", "a/3"]


async def test_what_a_listing_yields_may_be_deleted_meanwhile(store: FileStore) -> None:
    """A collector deletes while it lists, and misses nothing."""
    await create_all(store, [f"a/{n}/{m}" for n in range(5) for m in range(5)])
    async for listed in store.list("a/"):
        await store.delete(listed.key)
    assert await keys_of(store, "") == []


async def test_large_objects_are_whole(store: FileStore) -> None:
    """Nine megabytes go in, and come out whole and in parts."""
    data = random.Random(3).randbytes(9_000_000)
    await store.create("large", data)
    assert (await store.get("large")).data == data
    blob = await store.get("large", 4_000_001, 8_500_000)
    assert (blob.data, blob.size) == (data[4_000_001:8_500_000], len(data))


async def test_readers_among_writers_see_whole_objects(store: FileStore) -> None:
    """Whatever runs at the same time, a get gives a whole object or NotFound, and once there it stays there."""
    keys = [f"d{n % 4}/x/{n:02d}" for n in range(40)]
    stored: set[str] = set()
    data = {key: key.encode() * 2_000 for key in keys}

    async def write() -> None:
        for key in keys:
            try:
                await store.create(key, data[key])
            except AlreadyExists:
                continue
            stored.add(key)

    async def read(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(40):
            key = rng.choice(keys)
            must_exist = key in stored
            try:
                assert (await store.get(key)).data == data[key]
            except NotFound:
                assert not must_exist

    async def look() -> None:
        for _ in range(5):
            must_exist = set(stored)
            found = await keys_of(store, "")
            assert found == sorted(found)
            assert must_exist <= set(found)

    await asyncio.gather(write(), write(), read(1), read(2), read(3), look())
    assert await keys_of(store, "") == sorted(keys)


async def test_closing_twice_is_fine(store: FileStore) -> None:
    """``aclose`` is idempotent, used or not."""
    await store.create("a", b"x")
    await store.aclose()
    await store.aclose()
