"""Signed objects: what a reader believes, of whom, and that it believes nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from logstore import Corrupt, Event, InvalidArgument, KeyNeeded, SigningKey, StageId, Trust, Trusted
from logstore.claim import Claim, encode_claim
from logstore.entry import Begin, Body, Closed, Entry, Open, Tick, encode_entry
from logstore.event import EventEncoder
from logstore.filestore import MemoryStore
from logstore.frame import ObjectType, encode_fields
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    Fold,
    ManifestKey,
    PinKey,
    RegistrationKey,
    SegmentKey,
    StagePageKey,
    archive_key,
    chunk_key,
    claim_key,
    entry_key,
    manifest_key,
    pin_key,
    registration_key,
    retired_key,
    segment_key,
    stage_gone_key,
    stage_page_key,
)
from logstore.registration import Registration, encode_registration
from logstore.segment import SegmentEncoder
from logstore.signature import ENVELOPE_BYTES
from logstore.signed import SignedStore
from tests.protected import SIGNING_KEYS, TRUST

FOLD = Fold("p", 1, b"f" * 8)
STAGE = StageId("d", "s")


def segment(writer: str, *, sealed: bool = False) -> tuple[str, bytes]:
    """A segment of a writer: one event, or the seal of its session."""
    key = SegmentKey(writer, 0, 1, 0)
    events = [] if sealed else [EventEncoder().encode(Event("K", "k", "t"))]
    data, _ = SegmentEncoder().encode(
        key, events, first_sequence=0, stamp=1, acknowledged=0, previous=bytes(32), final=sealed, sealed=sealed
    )
    return segment_key(writer, 0, 1, 0), data


def entry(body: Body) -> tuple[str, bytes]:
    number = 0 if isinstance(body, Begin) else 1
    return entry_key(0, number), encode_entry(Entry(0, number, 5, bytes(32), bytes(16), (), body))[0]


def claim(claimant: str) -> tuple[str, bytes]:
    key = ClaimKey("K", "k", 0)
    return claim_key(key), encode_claim(Claim(key, bytes(8), claimant, 5, "created", {}, {}))


def registration(*, registered: bool) -> tuple[str, bytes]:
    record = Registration("p", 1, ("K",), "put", "", registered)
    return registration_key(RegistrationKey(record.key, 0)), encode_registration(0, record)


def plain(name: str, type_: ObjectType) -> tuple[str, bytes]:
    return name, encode_fields(type_, {"anything": 1})


OPEN = Open(writer="web", idle_ms=1, seal_ms=5, flights=1, exclusive=None)
OPEN_OTHER = Open(writer="other", idle_ms=1, seal_ms=5, flights=1, exclusive=None)
OBJECTS: dict[str, tuple[tuple[str, bytes], str]] = {
    "store": (plain("store", ObjectType.STORE), "keep"),
    "own segment": (segment("web"), "own"),
    "another's segment": (segment("other"), "keep"),
    "seal of another's session": (segment("other", sealed=True), "write"),
    "own open entry": (entry(OPEN), "own"),
    "another's open entry": (entry(OPEN_OTHER), "keep"),
    "begin": (entry(Begin()), "write"),
    "tick": (entry(Tick(())), "write"),
    "closed": (entry(Closed()), "write"),
    "own claim": (claim("web"), "own"),
    "another's claim": (claim("other"), "keep"),
    "page": (plain(stage_page_key(StagePageKey(STAGE, 0)), ObjectType.STAGE_PAGE), "write"),
    "pin": (plain(pin_key(PinKey(bytes(8), 0)), ObjectType.PIN), "write"),
    "registration": (registration(registered=True), "write"),
    "dropped projection": (registration(registered=False), "snapshot"),
    "manifest": (plain(manifest_key(ManifestKey(FOLD, 0, 1)), ObjectType.MANIFEST), "snapshot"),
    "chunk": (plain(chunk_key(ChunkKey(0, 1, bytes(32))), ObjectType.CHUNK), "snapshot"),
    "retired": (plain(retired_key(0), ObjectType.RETIRED), "keep"),
    "archive": (plain(archive_key(ArchiveKey(0, bytes(8), 0)), ObjectType.ARCHIVE), "keep"),
    "stage log gone": (plain(stage_gone_key(STAGE), ObjectType.STAGE_GONE), "keep"),
}
MAY = {"web": {"own", "write"}, "snapper": {"write", "snapshot"}, "keeper": {"own", "write", "snapshot", "keep"}}
EVERYBODY = Trust(tuple(Trusted(writer.name, writer.keys, "keep") for writer in TRUST.writers))


@pytest.mark.parametrize("signer", MAY)
@pytest.mark.parametrize("what", OBJECTS)
async def test_each_makes_what_its_role_allows(what: str, signer: str) -> None:
    """By the table of FORMAT §17: the rest is not sent, and not believed where somebody sent it all the same."""
    (name, data), needs = OBJECTS[what]
    within = MemoryStore()
    if needs in MAY[signer]:
        await SignedStore(within, TRUST, SIGNING_KEYS[signer]).create(name, data)
        assert (await SignedStore(within, TRUST, None).get(name)).data == data
        return
    with pytest.raises(InvalidArgument, match=f"may not be signed key={name} signer={signer} "):
        await SignedStore(within, TRUST, SIGNING_KEYS[signer]).create(name, data)
    assert [listed async for listed in within.list("")] == []
    await SignedStore(within, EVERYBODY, SIGNING_KEYS[signer]).create(name, data)
    with pytest.raises(Corrupt, match=f"signed by one who may not key={name} signer={signer} "):
        await SignedStore(within, TRUST, None).get(name)


async def signed(what: str = "own segment") -> tuple[str, bytes, bytes]:
    """An object of web's: its name, its bytes, and what lies in the store."""
    (name, data), _ = OBJECTS[what]
    within = MemoryStore()
    await SignedStore(within, TRUST, SIGNING_KEYS["web"]).create(name, data)
    return name, data, (await within.get(name)).data


async def believed(name: str, lies: bytes) -> bytes:
    """What a reader makes of these bytes under that name."""
    within = MemoryStore()
    await within.create(name, lies)
    return (await SignedStore(within, TRUST, None).get(name)).data


async def test_one_bit_changed_is_corrupt_or_left_for_the_decoder() -> None:
    """In the envelope, or in the object's digest: Corrupt. Elsewhere in the object its digests tell, as ever."""
    name, data, lies = await signed()
    frame_bytes = 12 + 124 + 32
    judged = [*range(ENVELOPE_BYTES), *range(ENVELOPE_BYTES + frame_bytes - 32, ENVELOPE_BYTES + frame_bytes)]
    for at in judged:
        changed = bytearray(lies)
        changed[at] ^= 1 << at % 8
        with pytest.raises(Corrupt, match=name):
            await believed(name, bytes(changed))
    changed = bytearray(lies)
    changed[-1] ^= 1
    assert await believed(name, bytes(changed)) == data[:-1] + bytes([data[-1] ^ 1])


async def test_a_signature_is_good_for_one_object_under_one_name() -> None:
    """Another object in the envelope, the object under another name, no envelope, nothing in it: not believed."""
    name, data, lies = await signed()
    _, other = segment("web", sealed=True)
    for wrong in (lies[:ENVELOPE_BYTES] + other, data, b"", lies[:40]):
        with pytest.raises(Corrupt, match=name):
            await believed(name, wrong)
    elsewhere = segment_key("web", 0, 1, 1)
    with pytest.raises(Corrupt, match=elsewhere):
        await believed(elsewhere, lies)


async def test_who_is_not_trusted_is_not_believed() -> None:
    """A key that nobody trusted has: told by its id. Such a key signs nothing here."""
    (name, data), _ = OBJECTS["own segment"]
    within = MemoryStore()
    stranger = SIGNING_KEYS["stranger"]
    with pytest.raises(InvalidArgument, match=f"not among the trusted public={stranger.public.hex()}"):
        await SignedStore(within, TRUST, stranger).create(name, data)
    theirs = Trust((Trusted("web", (stranger.public,)),))
    await SignedStore(within, theirs, stranger).create(name, data)
    with pytest.raises(KeyNeeded, match=rf"not trusted key={name} key_id=[0-9a-f]{{32}}; add it if it is one of yours"):
        await SignedStore(within, TRUST, None).get(name)


async def test_nobody_is_advised_to_trust_less() -> None:
    """An envelope that was taken off is an attack; only of `store` it may mean that the store was made plain."""
    name, data, _ = await signed()
    with pytest.raises(Corrupt, match=f"not signed, as its store should be key={name}; restore it$"):
        await believed(name, data)
    (name, data), _ = OBJECTS["store"]
    with pytest.raises(Corrupt, match=r"not signed, .* key=store; restore it; .* opened without protection$"):
        await believed(name, data)


async def test_ranges_are_those_of_the_object_and_verified_where_they_hold_its_frame() -> None:
    """Bytes and sizes as without signatures; a range with the frame in it fails where the signature does."""
    name, data, lies = await signed()
    within = MemoryStore()
    await within.create(name, lies)
    store = SignedStore(within, TRUST, None)
    rng = random.Random(0)
    for _ in range(50):
        start, stop = sorted([rng.randrange(len(data) + 9), rng.randrange(len(data) + 9)])
        for end in (stop, None):
            blob = await store.get(name, start, end)
            assert (blob.data, blob.size) == (data[start:end], len(data))
    assert [listed.size async for listed in store.list("")] == [len(data)]
    forged = MemoryStore()
    _, other = segment("web", sealed=True)
    await forged.create(name, lies[:ENVELOPE_BYTES] + other + bytes(500))
    with pytest.raises(Corrupt):
        await SignedStore(forged, TRUST, None).get(name, 0, len(other))


async def test_without_a_signing_key_nothing_is_created() -> None:
    """A reader that trusts others writes nothing; what has no name of ours (a probe's) is no business of signatures."""
    (name, data), _ = OBJECTS["own segment"]
    within = MemoryStore()
    store = SignedStore(within, TRUST, None)
    with pytest.raises(InvalidArgument, match=f"needs a signing key to create in this store key={name}"):
        await store.create(name, data)
    await store.create("probe/1/a", b"anything")
    assert (await within.get("probe/1/a")).data == (await store.get("probe/1/a")).data == b"anything"


GOOD = f'["web/1"]\nkeys = ["{"ab" * 32}", "{"cd" * 32}"]\n\n[ops]\nkeys = ["{"ef" * 32}"]\nmay = "keep"\n'


def test_trust_is_read_from_a_file(tmp_path: Path) -> None:
    """A table for each writer: its keys, and what it may, which is to write unless told otherwise."""
    path = tmp_path / "trust.toml"
    path.write_text(GOOD)
    assert Trust.load(path) == Trust(
        (Trusted("web/1", (b"\xab" * 32, b"\xcd" * 32)), Trusted("ops", (b"\xef" * 32,), "keep"))
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text.replace("keep", "rule"),
            "no such role name=ops may='rule'; use one of write, snapshot, keep",
        ),
        (lambda text: text.replace("ef" * 32, "cd" * 32), "two writers have the same key names=web/1,ops"),
        (lambda text: text.replace("ef" * 32, "ef" * 31), "needs public keys of 32 bytes name=ops"),
        (lambda text: text.replace("ef" * 32, "zz" * 32), "not hexadecimal"),
        (lambda text: text.replace("may", "mai"), "not a writer with keys"),
        (lambda text: text.replace("may = ", "may = 7 #"), "no such role name=ops may=7"),
        (lambda text: "ops = 1\n" + text.replace("[ops]", "[oops]"), "not a writer with keys"),
        (lambda text: text + "[", "cannot be read"),
        (lambda text: text.replace("[ops]", '[""]'), "not a writer's name"),
    ],
)
def test_a_file_of_trust_that_is_none_is_told_by_one_line(
    tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    """Each mistake is named, with the file or the writer."""
    path = tmp_path / "trust.toml"
    path.write_text(change(GOOD))
    with pytest.raises(InvalidArgument) as caught:
        Trust.load(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_signing_keys_are_not_told(tmp_path: Path) -> None:
    """Neither repr nor error shows one; a file has one."""
    secret = b"\x5a" * 32
    assert secret.hex()[:8] not in repr(SigningKey(secret))
    path = tmp_path / "key"
    path.write_text(f"{secret.hex()}\n{secret.hex()}\n")
    with pytest.raises(InvalidArgument, match="more than one signing key") as caught:
        SigningKey.load(path)
    assert secret.hex() not in str(caught.value)
    path.write_text(secret.hex())
    assert SigningKey.load(path).public == SigningKey(secret).public
    with pytest.raises(InvalidArgument, match="32 bytes"):
        SigningKey(b"short")
