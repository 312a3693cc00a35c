"""Encrypted objects: any range reads as the plain object's, and nothing that was changed reads at all."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logstore import Corrupt, InvalidArgument, KeyNeeded, Keyring, SigningKey, Trust
from logstore.encrypted import EncryptedStore
from logstore.encryption import BLOCK_BYTES, HEADER_BYTES, plain_size
from logstore.filestore import MemoryStore, MeteredStore
from logstore.frame import ObjectType, encode_frame
from logstore.keys import ChunkKey, StageId, StagePageKey, chunk_key, stage_page_key
from tests.protected import KEY, KEYRING, OTHER_KEY

NAME = stage_page_key(StagePageKey(StageId("d", "s"), 0))
OTHER_NAME = stage_page_key(StagePageKey(StageId("d", "s"), 1))
SIZES = [0, 1, BLOCK_BYTES - 49, BLOCK_BYTES - 48, BLOCK_BYTES - 47, 2 * BLOCK_BYTES]


def an_object(rest: int) -> bytes:
    """An object of ours with so many bytes behind its frame."""
    return encode_frame(ObjectType.STAGE_PAGE, 1, b"body") + random.Random(rest).randbytes(rest)


def opened(store: MemoryStore, keyring: Keyring = KEYRING) -> EncryptedStore:
    return EncryptedStore(store, keyring, random.Random(0).randbytes)


async def stored(data: bytes, name: str = NAME) -> tuple[MemoryStore, bytes]:
    """A store that holds the object, and the bytes that lie there."""
    store = MemoryStore()
    await opened(store).create(name, data)
    return store, (await store.get(name)).data


async def replaced(data: bytes, name: str = NAME) -> EncryptedStore:
    """A store in which somebody put other bytes."""
    store = MemoryStore()
    await store.create(name, data)
    return opened(store)


@given(
    rest=st.sampled_from(SIZES) | st.integers(0, 2 * BLOCK_BYTES),
    start=st.integers(0, 2 * BLOCK_BYTES + 100),
    length=st.none() | st.just(0) | st.integers(0, 2 * BLOCK_BYTES),
)
def test_any_range_is_that_of_the_plain_object(rest: int, start: int, length: int | None) -> None:
    """Whatever range is asked for, wherever blocks end: bytes and sizes are those of the object that was created."""

    async def look() -> None:
        data = an_object(rest)
        store, _ = await stored(data)
        stop = None if length is None else start + length
        blob = await opened(store).get(NAME, start, stop)
        assert (blob.data, blob.size) == (data[start:stop], len(data))
        assert [listed.size async for listed in opened(store).list("")] == [len(data)]

    asyncio.run(look())


@pytest.mark.parametrize("rest", SIZES)
async def test_sizes_follow_from_stored_sizes(rest: int) -> None:
    """A listing tells the plain size without a request."""
    data = an_object(rest)
    _, lies = await stored(data)
    assert plain_size(len(lies)) == len(data)


async def test_nothing_of_the_object_lies_in_the_store() -> None:
    """What is stored holds no eight bytes of what was created, and the same object is stored otherwise each time."""
    data = an_object(100)
    store = MemoryStore()
    encrypted = opened(store)
    await encrypted.create(NAME, data)
    await encrypted.create(OTHER_NAME, data)
    first, second = (await store.get(NAME)).data, (await store.get(OTHER_NAME)).data
    assert not any(data[at : at + 8] in first for at in range(12, len(data) - 8))
    assert first[HEADER_BYTES:] != second[HEADER_BYTES:]


@pytest.mark.parametrize("rest", [0, BLOCK_BYTES])
async def test_one_bit_changed_is_corrupt(rest: int) -> None:
    """Wherever it is: in the envelope, in a block, in a tag."""
    _, lies = await stored(an_object(rest))
    for at in {*range(HEADER_BYTES), *random.Random(0).sample(range(len(lies)), 60), len(lies) - 1}:
        changed = bytearray(lies)
        changed[at] ^= 1 << at % 8
        with pytest.raises(Corrupt, match=NAME):
            await (await replaced(bytes(changed))).get(NAME)


async def test_what_is_cut_or_added_or_exchanged_is_corrupt() -> None:
    """Blocks exchanged, the last one missing, bytes behind, an object under another name, one that is not encrypted."""
    data = an_object(3 * BLOCK_BYTES)
    _, lies = await stored(data)
    step = BLOCK_BYTES + 16
    cut = [HEADER_BYTES, HEADER_BYTES + step, HEADER_BYTES + 2 * step]
    exchanged = lies[: cut[0]] + lies[cut[1] : cut[2]] + lies[cut[0] : cut[1]] + lies[cut[2] :]
    for wrong in (exchanged, lies[: cut[2]], lies[:-1], lies + b"x", lies[:HEADER_BYTES], lies[:50], b"", data):
        with pytest.raises(Corrupt, match=NAME):
            await (await replaced(wrong)).get(NAME)
    with pytest.raises(Corrupt, match=OTHER_NAME):
        await (await replaced(lies, OTHER_NAME)).get(OTHER_NAME)
    _, full = await stored(an_object(BLOCK_BYTES - 48))  # its only block is full
    with pytest.raises(Corrupt, match="has another size"):
        await (await replaced(full + b"x")).get(NAME)
    with pytest.raises(Corrupt, match=NAME):  # a range that holds but the block that is not there any more
        await (await replaced(lies[: cut[2]])).get(NAME, 2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 1)


async def test_a_keyring_decrypts_with_any_key_and_encrypts_with_the_first() -> None:
    """A new key put first: old objects are read, new ones need it; without the old one they say which they need."""
    store = MemoryStore()
    await opened(store, Keyring([KEY])).create(NAME, an_object(1))
    await opened(store, Keyring([OTHER_KEY, KEY])).create(OTHER_NAME, an_object(2))
    assert (await opened(store, Keyring([KEY, OTHER_KEY])).get(OTHER_NAME)).data == an_object(2)
    assert (await opened(store, Keyring([OTHER_KEY, KEY])).get(NAME)).data == an_object(1)
    with pytest.raises(KeyNeeded, match=rf"not in the keyring key={NAME} key_id=[0-9a-f]{{32}}; add it"):
        await opened(store, Keyring([OTHER_KEY])).get(NAME)


async def test_a_range_far_in_takes_one_request_more() -> None:
    """A range from the beginning, and a whole object, one GET; one that begins behind the first block, two."""
    name = chunk_key(ChunkKey(0, 1, b"h" * 32))
    store, _ = await stored(an_object(3 * BLOCK_BYTES), name)
    for start, stop, gets in [(0, None, 1), (0, 10, 1), (10, 20, 1), (BLOCK_BYTES, None, 2), (2 * BLOCK_BYTES, 5, 2)]:
        metered = MeteredStore(store)
        await EncryptedStore(metered, KEYRING, random.Random(0).randbytes).get(name, start, max(start, stop or start))
        assert metered.statistics().get.requests == gets


def test_keys_are_read_from_a_file_and_never_told(tmp_path: Path) -> None:
    """Lines of 64 digits, comments aside; what is wrong is told by its line, and neither repr nor error shows a key."""
    path = tmp_path / "keys"
    path.write_text(f"# new\n{OTHER_KEY.hex()}\n\n{KEY.hex().upper()}\n")
    keyring = Keyring.load(path)
    assert keyring.first[1] == OTHER_KEY
    assert KEY.hex()[:8] not in repr(keyring)
    assert OTHER_KEY.hex()[:8] not in repr(keyring)
    for text, said in [(f"{KEY.hex()}\n{KEY.hex()}0\n", "line=2"), ("", "holds no key"), ("é" * 64, "cannot be read")]:
        path.write_text(text)
        with pytest.raises(InvalidArgument, match=said) as caught:
            Keyring.load(path)
        assert KEY.hex() not in str(caught.value)
        assert caught.value.__cause__ is None  # whose message may quote what was read
    with pytest.raises(InvalidArgument, match="FileNotFoundError"):
        Keyring.load(tmp_path / "none")
    with pytest.raises(InvalidArgument, match="32 bytes"):
        Keyring([b"short"])


@pytest.mark.parametrize(
    "text", [KEY.hex(), KEY.hex()[:-1], f"{KEY.hex()}\n{OTHER_KEY.hex()}\n", b64encode(KEY).decode()]
)
@pytest.mark.parametrize("load", [Keyring.load, SigningKey.load, Trust.load])
def test_a_key_given_in_a_files_stead_is_not_told(load: Callable[[str], object], text: str) -> None:
    """Who sets LOGSTORE_KEYS to the key itself is told so, and does not find it in the logs."""
    with pytest.raises(
        InvalidArgument, match=r"cannot be read path=\(a key itself\) cause=FileNotFoundError"
    ) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_none_is_told_on_one_line() -> None:
    """A file's content where its path should be, or a NUL in it: InvalidArgument of one line, as for any other."""
    for load in (Keyring.load, Trust.load):
        for path in ('[web]\nkeys = ["7"]\n', "keys\0"):
            with pytest.raises(InvalidArgument, match="cannot be read path='") as caught:
                load(path)
            assert "\n" not in str(caught.value)
