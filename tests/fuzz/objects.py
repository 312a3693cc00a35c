"""Objects of a store: good ones, by the library's encoders, and bent ones.

A bent object is taken apart by docs/FORMAT.md, bent in one of its layers, and put together again with the digests and
sizes of all layers above made to agree, so that nothing but the check in question can find it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from typing import Any, Final, NamedTuple

import msgpack
import zstandard
from hypothesis import strategies as st

from logstore.chunk import encode_chunk
from logstore.claim import Claim, encode_claim
from logstore.clock import STAMP_MAX
from logstore.entry import Begin, Closed, Entry, Exclusive, Open, Scope, Tick, encode_entry
from logstore.event import Event, EventEncoder
from logstore.frame import ObjectType
from logstore.frontier import SessionPosition
from logstore.gone import Gone, encode_gone
from logstore.identity import HISTORIES, Identity, encode_identity
from logstore.keys import (
    NUMBER_MAX,
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    Fold,
    ManifestKey,
    PinKey,
    RegistrationKey,
    SegmentKey,
    StageId,
    StagePageKey,
    archive_key,
    chunk_key,
    claim_key,
    entry_key,
    is_name,
    manifest_key,
    parse_key,
    pin_key,
    registration_key,
    retired_key,
    segment_key,
    stage_gone_key,
    stage_page_key,
)
from logstore.manifest import Manifest, ManifestChunk, ManifestVerdict, encode_manifest
from logstore.pin import PinRecord, encode_pin
from logstore.registration import Registration, encode_registration
from logstore.retired import Retired, RetiredSession, encode_retired
from logstore.segment import SegmentEncoder
from logstore.session import Tip
from logstore.stagepage import Block, encode_page
from tests.fuzz.bend import BOMB, Draw, Raw, bend_bytes, bend_value, odd_values, pack
from tests.golden.independent import compress, frame, unframe, write_archive
from tests.test_event import events

__all__ = ["GOOD", "HEADERS", "Stored", "bent", "folds", "names", "random_objects"]


class Stored(NamedTuple):
    """An object, and the name under which it lies."""

    name: str
    data: bytes


# Good ones ------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=12).filter(is_name)
numbers = st.integers(0, NUMBER_MAX) | st.integers(0, 9)
wide = st.integers(0, (1 << 64) - 1) | st.integers(0, 99)
stamps = st.integers(0, STAMP_MAX)
digests = st.binary(min_size=32, max_size=32)
short_ids = st.binary(min_size=8, max_size=8)
ids = st.binary(min_size=16, max_size=16)
folds = st.builds(Fold, names, st.integers(1, NUMBER_MAX), short_ids)
points = st.builds(ManifestKey, folds, numbers, numbers)
stages = st.builds(StageId, names, names, numbers)
kinds = st.lists(st.text(max_size=6), min_size=1, max_size=4, unique=True).map(lambda each: tuple(sorted(each)))
scopes = st.lists(st.builds(Scope, kinds, numbers, numbers), max_size=3, unique=True).map(
    lambda each: tuple(sorted(each))
)


@st.composite
def entries(draw: Draw, chapter: int | None = None, number: int | None = None) -> Stored:
    chapter = draw(numbers) if chapter is None else chapter
    number = draw(numbers) if number is None else number
    exclusive = st.none() | st.builds(Exclusive, kinds, st.none() | st.tuples(numbers, numbers))
    named = st.lists(st.tuples(numbers, numbers, numbers), max_size=4).map(tuple)
    one_each = st.lists(points, max_size=3, unique_by=lambda key: key.fold).map(
        lambda keys: tuple(sorted(keys, key=lambda key: (key.fold.projection.encode(), *_row(key)[1:])))
    )
    body = (
        st.just(Begin())
        if number == 0
        else st.builds(Open, names, wide, wide, st.integers(1, 64), exclusive)
        | st.builds(Tick, named, st.none() | one_each)
        | st.just(Closed())
    )
    entry = Entry(chapter, number, draw(stamps), draw(digests), draw(ids), draw(scopes), draw(body))
    return Stored(entry_key(chapter, number), encode_entry(entry)[0])


def _row(key: ManifestKey) -> tuple[Any, ...]:
    return (key.fold.projection, key.fold.version, key.fold.fingerprint, key.chapter, key.number)


@st.composite
def segments(draw: Draw, key: SegmentKey | None = None) -> Stored:
    key = key or draw(st.builds(SegmentKey, names, numbers, numbers, numbers))
    encoder = EventEncoder()
    batch = [encoder.encode(event) for event in draw(st.lists(events, max_size=4))]
    final = not batch and draw(st.booleans())
    data, _ = SegmentEncoder().encode(
        key,
        batch,
        first_sequence=draw(wide),
        stamp=draw(stamps),
        acknowledged=key.slot if final else draw(st.integers(0, key.slot)),
        previous=draw(digests),
        final=final,
        sealed=final and draw(st.booleans()),
    )
    return Stored(segment_key(key.writer, key.chapter, key.session, key.slot), data)


@st.composite
def retireds(draw: Draw) -> Stored:
    chapter = draw(numbers)
    sessions = draw(st.dictionaries(numbers, st.builds(RetiredSession, numbers, stamps), max_size=4))
    archives = tuple(archive_key(ArchiveKey(chapter, bytes(8), part)) for part in range(draw(st.integers(0, 2))))
    record = Retired(chapter, draw(numbers), draw(digests), draw(stamps), draw(scopes), sessions, archives)
    return Stored(retired_key(chapter), encode_retired(record))


@st.composite
def manifests(draw: Draw) -> Stored:
    key, stamp = draw(points), draw(stamps)
    addresses = sorted(draw(st.sets(st.tuples(numbers, numbers), max_size=3)))
    sessions = [
        SessionPosition(chapter, number, Tip(draw(numbers), draw(wide), draw(stamps), draw(digests)), 0)
        for chapter, number in addresses
    ]
    chunks = []
    for chunk in draw(st.lists(st.builds(ChunkKey, numbers, numbers, digests), max_size=3, unique=True)):
        rows = draw(st.integers(1, 40))
        dead = draw(st.sets(st.integers(0, rows - 1), max_size=rows - 1))
        bits = sum(1 << row for row in dead).to_bytes((rows + 7) // 8, "little") if dead else None
        chunks.append(ManifestChunk(chunk, rows, draw(wide), bits))
    verdict = st.builds(
        ManifestVerdict, numbers, numbers, wide, st.integers(0, stamp), st.sampled_from(["rejected", "parked"])
    )
    verdicts = draw(st.lists(verdict, max_size=3, unique_by=lambda each: each.order))
    manifest = Manifest(
        key,
        stamp,
        draw(digests),
        tuple(sessions),
        sum(chunk.alive for chunk in chunks),
        int.from_bytes(draw(digests), "big"),
        tuple(chunks),
        tuple(sorted(verdicts, key=lambda each: each.order)),
    )
    return Stored(manifest_key(key), encode_manifest(manifest))


@st.composite
def registrations(draw: Draw) -> Stored:
    number, folding = draw(numbers), draw(st.sampled_from(["put", "patch", "apply", "apply-park"]))
    sorted_kinds = tuple(sorted(draw(st.sets(names, max_size=3)), key=str.encode))
    registration = Registration(
        draw(names),
        draw(st.integers(1, NUMBER_MAX)),
        sorted_kinds,
        folding,
        draw(st.text(max_size=5)),
        draw(st.booleans()),
    )
    key = RegistrationKey(registration.key, number)
    return Stored(registration_key(key), encode_registration(number, registration))


@st.composite
def chunks(draw: Draw) -> Stored:
    rows = draw(st.dictionaries(st.text(max_size=10), st.binary(max_size=20), min_size=1, max_size=6))
    keys = sorted(rows, key=str.encode)
    data, hash_, _ = encode_chunk(keys, [rows[key] for key in keys])
    return Stored(chunk_key(ChunkKey(draw(numbers), draw(numbers), hash_)), data)


@st.composite
def pins(draw: Draw) -> Stored:
    pin = PinRecord(PinKey(draw(short_ids), draw(numbers)), draw(st.text(max_size=9)), draw(numbers), draw(wide))
    return Stored(pin_key(pin.key), encode_pin(pin))


@st.composite
def claims(draw: Draw) -> Stored:
    event: Event = draw(events)
    key = ClaimKey(draw(names), draw(names), draw(numbers))
    claim = Claim(key, draw(short_ids), draw(names), draw(stamps), event.type, event.data or {}, event.meta or {})
    return Stored(claim_key(key), encode_claim(claim))


@st.composite
def archives(draw: Draw) -> Stored:
    chapter, session = draw(numbers), draw(numbers)
    key = ArchiveKey(chapter, draw(short_ids), draw(numbers))
    first, held = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    objects = [draw(entries(chapter, first + place)).data for place in range(held)]
    objects += [draw(segments(SegmentKey("-", chapter, session, slot))).data for slot in range(draw(st.integers(0, 2)))]
    blocks = [objects] if objects else []
    return Stored(archive_key(key), write_archive(chapter, key.number, blocks))


@st.composite
def stage_pages(draw: Draw) -> Stored:
    key = StagePageKey(draw(stages), draw(numbers))
    indices = sorted(draw(st.sets(st.integers(0, (1 << 63) - 1) | st.integers(0, 9), max_size=4)))
    times = st.integers(0, (1 << 63) - 1)
    blocks = [Block(at, draw(st.text(max_size=9)), draw(st.integers(0, 255)), draw(times)) for at in indices]
    stop = indices[-1] + 1 if indices else draw(st.integers(0, 5))
    complete = not blocks or draw(st.booleans())
    data, _ = encode_page(
        key,
        blocks,
        run=draw(st.integers(0, stop - 1)) if stop else 0,
        stop=stop,
        previous=draw(digests) if key.number else None,
        complete=complete,
        abandoned=not blocks and draw(st.booleans()),
    )
    return Stored(stage_page_key(key), data)


GOOD: Final[Mapping[str, st.SearchStrategy[Stored]]] = {
    "store": st.builds(
        Identity, ids, wide, wide, st.sampled_from(HISTORIES), st.none() | ids, st.just(b""), st.none() | digests
    ).map(lambda identity: Stored("store", encode_identity(identity))),
    "entry": entries(),
    "segment": segments(),
    "retired": retireds(),
    "manifest": manifests(),
    "registration": registrations(),
    "chunk": chunks(),
    "pin": pins(),
    "claim": claims(),
    "archive": archives(),
    "stage page": stage_pages(),
    "stage gone": st.builds(Gone, stages, numbers, digests).map(
        lambda gone: Stored(stage_gone_key(gone.stage), encode_gone(gone))
    ),
}

# Bent ones ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """The body of a frame before columns: fields of these sizes; and the places of those that columns decide."""

    widths: tuple[int, ...]
    stored: int
    unpacked: int
    digest: int
    hash: int | None = None

    def read(self, body: bytes) -> list[Any]:
        at = [0, *accumulate(self.widths)]
        fields = [body[start:stop] for start, stop in pairwise(at)]
        return [field if len(field) == 32 else int.from_bytes(field) for field in fields]

    def write(self, values: Sequence[Any]) -> bytes:
        """Numbers that are too large lose their upper bits."""
        numbered = zip(values, self.widths, strict=True)
        return b"".join(
            value if isinstance(value, bytes) else (value % (1 << 8 * width)).to_bytes(width)
            for value, width in numbered
        )


HEADERS: Final[dict[int, Header]] = {
    ObjectType.SEGMENT: Header((8,) * 6 + (4,) * 3 + (32, 32), 7, 8, 10),
    ObjectType.CHUNK: Header((4, 4, 4, 32, 32), 1, 2, 4, 3),
    ObjectType.STAGE_PAGE: Header((8, 8, 8, 4, 4, 4, 32, 32, 32), 4, 5, 8),
}


class Bomb(NamedTuple):
    """What to store in place of columns, which size to announce for it, and what it unpacks to if that matters."""

    stored: bytes
    announced: int
    packed: bytes = b""


@cache
def bombs() -> tuple[Bomb, ...]:
    """What unpacks to more than it says, to more than may be, to more than is good, or to nothing."""
    zeros = bytes(81 << 20)
    small = zstandard.ZstdCompressor(write_content_size=True).compress(b"\x95" + bytes(99))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(zeros[: 4 << 20])
    lies = [b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00" for size in (1, 9 << 20, 1 << 50)]
    return (
        *(Bomb(compress(zeros[: mib << 20]), mib << 20) for mib in (81, 65, 17)),
        *(Bomb(compress(zeros[: 65 << 20]), size) for size in (100, 9 << 20)),
        *(Bomb(unsized, size) for size in (4 << 20, 0)),
        *(Bomb(small + small, size) for size in (100, 200)),
        *(Bomb(lie, size) for lie, size in zip(lies, (1, 9 << 20, (1 << 32) - 1), strict=True)),
        Bomb(b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + small, 100),
        *(Bomb(nothing, 100) for nothing in (b"", small[:-3], b"\x28\xb5\x2f\xfd")),
    )


@cache
def packed_bombs() -> tuple[Bomb, ...]:
    """What unpacks to no more than it says, and would take much more once it is decoded."""
    empties = b"\xdd\x00\x30\x00\x00" + b"\x90" * (3 << 20)
    packed = (BOMB, empties, b"\x95" * 3_000, b"\xdd\x00\x08\x00\x00" + b"\xc4\x00" * (1 << 19))
    return tuple(Bomb(compress(each), len(each), each) for each in packed)


@st.composite
def bent(draw: Draw, good: st.SearchStrategy[Stored]) -> Stored:
    """A good object with something bent in it."""
    name, data = draw(good)
    type_, flags, body, _, rest = unframe(data)
    layer = draw(st.sampled_from(["within"] * 12 + ["flags", "frame", "bytes", "name"]))
    match layer:
        case "within" if type_ in HEADERS:
            return _bend_columns(draw, Stored(name, data), HEADERS[type_])
        case "within" if type_ == ObjectType.ARCHIVE:
            return Stored(name, _bend_archive(draw, body, rest))
        case "within":
            how = draw(st.sampled_from(["value"] * 9 + ["bytes", "bytes", "bomb"]))
            fields = msgpack.unpackb(body)
            fields = fields | {"new": Raw(BOMB)} if how == "bomb" else bend_value(draw, fields)
            bent_body = bend_bytes(draw, body) if how == "bytes" else pack(fields)
            return Stored(name, frame(type_, flags, bent_body) + rest)
        case "flags":
            return Stored(name, frame(type_, draw(st.sampled_from([1, 2, 3, 4, 0x8000])), body) + rest)
        case "frame":
            head = data[:4] + bytes([draw(st.integers(0, 3)), draw(st.integers(0, 14))]) + data[6:8]
            head += (len(body) + draw(st.sampled_from([-1, 1, 32, 1 << 20, 1 << 31]))).to_bytes(4, "big", signed=False)
            return Stored(name, head + body + hashlib.sha256(head + body).digest() + rest)
        case "bytes":
            return Stored(name, bend_bytes(draw, data))
        case _:
            return Stored(draw(_other_name(name)), data)


def _other_name(name: str) -> st.SearchStrategy[str]:
    others = [name.replace("0", "1", 1), name[:-1] + "7", "store", entry_key(0, 0), retired_key(3), name]
    return st.sampled_from([other for other in others if parse_key(other) is not None])


def _bend_columns(draw: Draw, good: Stored, header: Header) -> Stored:
    type_, flags, body, _, stored = unframe(good.data)
    values = header.read(body)
    packed = zstandard.ZstdDecompressor().decompress(stored) if stored else b""
    how = draw(st.sampled_from(["value"] * 9 + ["packed", "stored", "bomb", "bomb", "header", "header", "body"]))
    announced = None
    match how:
        case "value":
            packed = pack(bend_value(draw, msgpack.unpackb(packed) if packed else [[], [], [], [], None]))
            stored = compress(packed)
        case "packed":
            packed = bend_bytes(draw, packed)
            stored = compress(packed)
        case "stored":
            stored = bend_bytes(draw, stored)
        case "bomb":
            stored, announced, packed = draw(st.sampled_from(bombs()) | st.sampled_from(packed_bombs()))
    if how in {"value", "packed", "stored", "bomb"}:
        values[header.stored], values[header.digest] = len(stored), hashlib.sha256(stored).digest()
        values[header.unpacked] = len(packed) if announced is None else announced
        if header.hash is not None:
            values[header.hash] = hashlib.sha256(packed).digest()
    elif how == "header":
        at = draw(st.integers(0, len(values) - 1))
        values[at] = draw(digests if isinstance(values[at], bytes) else odd_values.filter(_is_number))
    written = header.write(values)
    if how == "body":
        written = bend_bytes(draw, written)
    return _renamed(good.name, frame(type_, flags, written) + stored)


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _renamed(name: str, data: bytes) -> Stored:
    """Chunks are named by their hash."""
    match parse_key(name):
        case ChunkKey(chapter, number):
            return Stored(chunk_key(ChunkKey(chapter, number, data[24:56])), data)
        case _:
            return Stored(name, data)


def _bend_archive(draw: Draw, body: bytes, rest: bytes) -> bytes:
    fields = msgpack.unpackb(body)
    how = draw(st.sampled_from(["table", "table", "bytes", "content", "content", "packed", "bomb", "many", "many"]))
    if how == "bytes":
        return frame(ObjectType.ARCHIVE, 0, bend_bytes(draw, body)) + rest
    if how == "table" or not fields["blocks"]:
        return frame(ObjectType.ARCHIVE, 0, pack(bend_value(draw, fields))) + rest
    row = fields["blocks"][0]
    content, stored, times = zstandard.ZstdDecompressor().decompress(rest), rest, 1
    match how:
        case "content":
            content = pack(bend_value(draw, msgpack.unpackb(content)))
            stored = compress(content)
        case "packed":
            content = bend_bytes(draw, content)
            stored = compress(content)
        case "bomb":
            stored, row[1], content = draw(st.sampled_from(bombs()) | st.sampled_from(packed_bombs()))
        case _:
            content = _heavy_block(fields["chapter"])
            stored, times = compress(content), draw(st.sampled_from([1, 16]))
            row[3:] = [1, 9, []]
    row[0], row[2] = len(stored), hashlib.sha256(stored).digest()
    if how != "bomb":
        row[1] = len(content)
    fields["blocks"] = [row] * times
    return frame(ObjectType.ARCHIVE, 0, pack(fields)) + stored * times


def _heavy_block(chapter: Any) -> bytes:
    """Nine entries of a megabyte each, which compress to nothing."""
    fields = {"kind": 3, "chapter": chapter, "stamp": 1, "previous": bytes(32), "nonce": bytes(16), "scopes": []}
    padded = [pack(fields | {"number": number, "new": bytes(1_000_000)}) for number in range(1, 10)]
    return pack([[frame(ObjectType.ENTRY, 0, body) for body in padded], [], []])


@st.composite
def random_objects(draw: Draw, good: st.SearchStrategy[Stored]) -> Stored:
    """Bytes that have nothing to do with the object, under its name; a frame of it around them, or not."""
    name, data = draw(good)
    random = draw(st.binary(max_size=300) | odd_values.filter(lambda value: not isinstance(value, Raw)).map(pack))
    return Stored(
        name,
        frame(data[5], 0, random) + draw(st.sampled_from([b"", b"", b"", b"x"])) if draw(st.booleans()) else random,
    )
