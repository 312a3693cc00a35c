"""The damage catalogue: whatever became of an object, reading it raises Corrupt naming its key, and builds little.

Where a test wants one contradiction and nothing else wrong, the object is written anew with its digests made to agree
(``tests/golden/independent.py``), so that only the check in question can find it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from logstore.archive import decode_archive
from logstore.archivecheck import check_archives
from logstore.chunk import decode_chunk
from logstore.entry import decode_entry
from logstore.errors import Corrupt, InvalidArgument
from logstore.event import decode_data
from logstore.filestore import MemoryStore
from logstore.finding import Finding, Progress
from logstore.frame import unpack
from logstore.identity import decode_identity
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    EntryKey,
    ManifestKey,
    PinKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StoreKey,
    parse_key,
    segment_key,
)
from logstore.manifest import decode_manifest
from logstore.pin import decode_pin
from logstore.receipt import Receipt
from logstore.registration import decode_registration
from logstore.retired import decode_retired
from logstore.segment import COUNT_MAX, Segment, decode_archived_segment, decode_segment
from logstore.session import Tip
from logstore.token import decode_token, encode_token
from tests.golden.independent import (
    ARCHIVE,
    CHUNK,
    ENTRY,
    MANIFEST,
    PIN,
    REGISTRATION,
    RETIRED,
    SEGMENT,
    STORE,
    compress,
    digest_of,
    frame,
    pack_block,
    pack_rows,
    unframe,
    unplain,
    write_archive,
    write_chunk,
    write_segment,
    write_small,
)
from tests.test_golden import SEGMENTS, golden, in_order, shelved

MIB = 1 << 20


@dataclass(frozen=True)
class Sample:
    """A golden object, and how the library reads it."""

    key: str
    type: int
    good: bytes
    decode: Callable[[bytes], object]

    def refuses(self, data: bytes, saying: str = "") -> None:
        """Assert that ``data`` in this object's place is damage, and that the message names the key."""
        with pytest.raises(Corrupt, match=f"{saying}.*key={re.escape(self.key)}[ ;]"):
            self.decode(data)


def sample(name: str) -> Sample:
    key, data, _, _ = golden(name)
    match parse_key(key):
        case StoreKey():
            return Sample(key, STORE, data, decode_identity)
        case EntryKey(chapter, number):
            return Sample(key, ENTRY, data, lambda data: decode_entry(chapter, number, data))
        case RetiredKey(chapter):
            return Sample(key, RETIRED, data, lambda data: decode_retired(chapter, data))
        case SegmentKey() as parsed:
            return Sample(key, SEGMENT, data, lambda data: decode_segment(parsed, data))
        case ManifestKey() as manifest:
            return Sample(key, MANIFEST, data, lambda data: decode_manifest(manifest, data))
        case RegistrationKey() as registration:
            return Sample(key, REGISTRATION, data, lambda data: decode_registration(registration, data))
        case ChunkKey() as chunk:
            return Sample(key, CHUNK, data, lambda data: decode_chunk(chunk, data))
        case PinKey() as pin:
            return Sample(key, PIN, data, lambda data: decode_pin(pin, data))
        case ArchiveKey() as archive:
            return Sample(key, ARCHIVE, data, lambda data: decode_archive(archive, data))
        case _:
            raise AssertionError(key)


ARCHIVE_KEY = ArchiveKey(0, bytes.fromhex("fedcba9876543210"), 0)
ARCHIVED = sample("archive")
PACKED = pack_block([sample("entry-open").good, sample("segment-one-event").good])
CONTENT: list[list[bytes]] = msgpack.unpackb(PACKED)
FRAME = CONTENT[1][0]
NUMBER_OF_ROW: list[Any] = [None, True, -1, 1.5, "1", b"\x01", [1], {}]
NO_BYTES_OF_ONE: list[Any] = [None, [], [None], ["x"], [b"", b""], b"x", {}, [[]]]


def row_of(packed: bytes, stored: bytes) -> list[Any]:
    """What an archive's table says of a block of session 1: its open entry, and slot 0."""
    return [len(stored), len(packed), hashlib.sha256(stored).digest(), 1, 1, [[1, 0, 1]]]


def one_block(packed: bytes, stored: bytes | None = None, **fields: Any) -> bytes:
    """An archive of one block, whatever it unpacks to; fields may be given otherwise."""
    stored = compress(packed) if stored is None else stored
    return write_archive(0, 0, [[]], stored=[stored], **{"blocks": [row_of(packed, stored)], **fields})


def test_one_good_block_is_good() -> None:
    """The archive that the tests below bend is read when nothing is bent."""
    (content,) = decode_archive(ARCHIVE_KEY, one_block(PACKED))
    assert content.entries == {1: sample("entry-open").good}
    assert content.segments == {(1, 0): (FRAME, GOOD_COLUMNS)}


@contextmanager
def memory_below(bytes_max: int) -> Iterator[None]:
    """Assert that at no moment within more than ``bytes_max`` were allocated."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < bytes_max, f"peak {peak:,} bytes"


SAMPLES = [
    pytest.param(sample(name), id=name)
    for name in (
        *("store", "entry-begin", "entry-open-exclusive", "entry-tick", "entry-closed", "retired"),
        *("segment-one-event", "segment-heartbeat", "segment-final"),
        *("entry-tick-point", "manifest", "chunk-rows", "registration", "pin", "archive"),
    )
]
ONE_EVENT = sample("segment-one-event")
ONE_EVENT_VALUES = golden("segment-one-event")[3]
FIVE_EVENTS = sample("segment-many-names-and-metas")
FIVE_EVENTS_VALUES = golden("segment-many-names-and-metas")[3]
ROWS_CHUNK = sample("chunk-rows")
ROWS_CHUNK_VALUES = golden("chunk-rows")[3]

# Bytes, whatever they are of -----------------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES)
def test_any_flipped_bit_is_found(sample: Sample) -> None:
    """Each bit of each byte of an object, flipped, makes it Corrupt."""
    for position in range(len(sample.good)):
        for bit in range(8):
            damaged = bytearray(sample.good)
            damaged[position] ^= 1 << bit
            sample.refuses(bytes(damaged))


@pytest.mark.parametrize("sample", SAMPLES)
def test_any_truncation_is_found(sample: Sample) -> None:
    """An object cut short anywhere, to nothing too, is Corrupt."""
    for size in range(len(sample.good)):
        sample.refuses(sample.good[:size])
        sample.refuses(sample.good[-size:] if size else b"")


@pytest.mark.parametrize("sample", SAMPLES)
def test_appended_bytes_are_found(sample: Sample) -> None:
    """Nothing may follow an object, not even itself."""
    for more in (b"\x00", b"\n", b"LGST", bytes(4096), sample.good):
        sample.refuses(sample.good + more)
        sample.refuses(more + sample.good)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize(
    "foreign",
    [b"", b"\x00", bytes(4096), b"\xff" * 300, b'{"id": 1}\n', b"\x28\xb5\x2f\xfd" + bytes(90), b"LGST", b"LGST\x01"],
    ids=["empty", "zero", "zeros", "ones", "json", "zstd", "magic", "version"],
)
def test_foreign_bytes_are_found(sample: Sample, foreign: bytes) -> None:
    """What is no object of ours, zero-length and zero-filled files included, is damage and not data."""
    sample.refuses(foreign)
    sample.refuses(foreign[:1] * len(sample.good))


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("version", [0, 2, 3, 255])
def test_another_format_version_is_named(sample: Sample, version: int) -> None:
    """An object of a later version is refused by that reason, so that one knows to upgrade."""
    data = sample.good[:4] + bytes([version]) + sample.good[5:]
    with pytest.raises(Corrupt, match=rf"format version key={re.escape(sample.key)} version={version} .*upgrade"):
        sample.decode(data)


@pytest.mark.parametrize("sample", SAMPLES)
def test_unknown_flags_are_refused(sample: Sample) -> None:
    """A flag means must-understand: every bit but a segment's final and sealed is refused, digest right or not."""
    type_, _, body, _, rest = unframe(sample.good)
    for bit in range(16):
        if not (type_ == SEGMENT and 1 << bit in {0x0001, 0x0002}):
            said = {0x8000: "is encrypted", 0x4000: "is signed"}.get(1 << bit, "features unknown")
            sample.refuses(frame(type_, 1 << bit, body) + rest, said)
            sample.refuses(frame(type_, 1 << bit | 1, body) + rest, said)


@pytest.mark.parametrize("sample", SAMPLES)
def test_an_object_of_another_type_is_refused(sample: Sample) -> None:
    """Each name calls for one type: whole objects of the others are damage there, its body framed as theirs too."""
    for other in SAMPLES:
        (other_sample,) = other.values
        assert isinstance(other_sample, Sample)
        if other_sample.type != sample.type:
            sample.refuses(other_sample.good, "another type")
    _, flags, body, _, rest = unframe(sample.good)
    for type_ in {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255} - {sample.type}:
        sample.refuses(frame(type_, flags, body) + rest, "another type")


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_body_size_beyond_the_object_is_refused(sample: Sample) -> None:
    """However long the body claims to be, nothing is read or allocated beyond what is there."""
    for size in (0, 1, 1 << 20, (64 << 20) + 1, 2**31, 2**32 - 1):
        with memory_below(1 * MIB):
            sample.refuses(sample.good[:8] + size.to_bytes(4, "big") + sample.good[12:])


@pytest.mark.parametrize("name", ["store", "entry-tick", "registration", "pin"])
def test_a_body_above_its_limit_is_refused(name: str) -> None:
    """A store object, an entry, a registration or a pin is at most a mebibyte, though all else in it be right."""
    _, _, _, values = golden(name)
    small = sample(name)
    small.decode(write_small(small.type, {**values, "new": "x" * (MIB - 1_000)}))
    small.refuses(write_small(small.type, {**values, "new": "x" * MIB}))


# Names ---------------------------------------------------------------------------------------


def test_objects_swapped_between_names_are_found() -> None:
    """Every whole segment, entry, retirement record and archive is damage under every other number."""
    data = ONE_EVENT.good
    key = SegmentKey("web/1", 0, 1, 0)
    decode_segment(key, data)
    for other in (replace(key, chapter=1), replace(key, session=0), replace(key, session=2), replace(key, slot=1)):
        name = segment_key(other.writer, other.chapter, other.session, other.slot)
        with pytest.raises(Corrupt, match=f"another's name key={name} "):
            decode_segment(other, data)
    for chapter, number in ((0, 0), (0, 6), (0, 8), (1, 7), (7, 0)):
        with pytest.raises(Corrupt, match=f"another's name key=roster/{chapter:010d}/{number:010d} "):
            decode_entry(chapter, number, sample("entry-tick").good)
    with pytest.raises(Corrupt, match="another's name key=retired/0000000001"):
        decode_retired(1, sample("retired").good)
    for chapter, number in ((0, 1), (1, 0)):
        with pytest.raises(Corrupt, match=f"another's name key=archive/{chapter:010d}/{'00' * 8}/{number:010d};"):
            decode_archive(ArchiveKey(chapter, bytes(8), number), ARCHIVED.good)


def test_a_segment_of_another_writer_or_store_does_not_attach() -> None:
    """A segment does not hold its writer's name: the digest of the open entry before slot 0 tells them apart."""
    opened = decode_entry(0, 1, sample("entry-open").good)
    other = decode_entry(0, 1, write_small(ENTRY, {**golden("entry-open")[3], "writer": "web-2"}))
    stray = decode_segment(SegmentKey("web-2", 0, 1, 0), ONE_EVENT.good)
    Tip.of(opened).after(stray)
    with pytest.raises(Corrupt, match="key=log/web-2/0000000000/0000000001/0000000000"):
        Tip.of(other).after(stray)


# The header of a segment -------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {"count": 0},
        {"count": 2},
        {"count": COUNT_MAX + 1},
        {"count": 2**32 - 1},
        {"stored_size": 0},
        {"stored_size": 56},
        {"stored_size": 58},
        {"stored_size": (32 << 20) + 1},
        {"columns_size": 0},
        {"columns_size": 43},
        {"columns_size": 45},
        {"columns_size": (64 << 20) + 1},
        {"columns_size": 2**32 - 1},
        {"acknowledged": 1},
        {"acknowledged": 2**64 - 1},
        {"stored_digest": bytes(32)},
        {"flags": 0x0001},
        {"flags": 0x0002},
        {"flags": 0x0003},
        {"chapter": 2**64 - 1},
        {"session": 0},
        {"slot": 2**64 - 1},
    ],
    ids=str,
)
def test_a_header_that_contradicts_itself_is_refused(header: dict[str, Any]) -> None:
    """Counts, sizes and flags of a segment must agree with one another, with its columns and with its name."""
    ONE_EVENT.refuses(write_segment(ONE_EVENT_VALUES, **header))


@pytest.mark.parametrize(
    "header",
    [
        {"flags": 0x0002},
        {"count": 1},
        {"columns_size": 1},
        {"stored_size": 1},
        {"acknowledged": 5},
        {"stored_digest": bytes(32)},
    ],
    ids=str,
)
def test_an_empty_segment_that_contradicts_itself_is_refused(header: dict[str, Any]) -> None:
    """An empty segment has no columns and one stamp; only a final is sealed."""
    sample("segment-heartbeat").refuses(write_segment(golden("segment-heartbeat")[3], **header))


@pytest.mark.parametrize(
    "stored", [b"\x00", compress(b"\xc0"), compress(msgpack.packb([[[], b""], [[], b""], [], [], None]))]
)
def test_an_empty_segment_with_columns_is_refused(stored: bytes) -> None:
    """Count 0 means no stored bytes, whatever they would unpack to."""
    heartbeat, values = sample("segment-heartbeat"), golden("segment-heartbeat")[3]
    for columns in (b"", b"\xc0"):
        heartbeat.refuses(write_segment(values, columns=columns, stored=stored))


@pytest.mark.parametrize("size", [0, 123, 125, 248])
def test_a_header_of_another_size_is_refused(size: int) -> None:
    """A segment's header has 124 bytes."""
    _, _, body, _, rest = unframe(ONE_EVENT.good)
    ONE_EVENT.refuses(frame(SEGMENT, 0, (body * 2)[:size]) + rest, "another size")


@pytest.mark.parametrize(
    "header",
    [
        {"count": 0},
        {"count": 10},
        {"count": 12},
        {"count": MIB + 1},
        {"count": 2**32 - 1},
        {"stored_size": 0},
        {"stored_size": 2**32 - 1},
        {"columns_size": 0},
        {"columns_size": 514},
        {"columns_size": 516},
        {"columns_size": (64 << 20) + 1},
        {"hash": bytes(32)},
        {"stored_digest": bytes(32)},
        {"flags": 0x0001},
        {"type": MANIFEST},
    ],
    ids=str,
)
def test_a_chunk_header_that_contradicts_itself_is_refused(header: dict[str, Any]) -> None:
    """Count, sizes and digests of a chunk must agree with its rows, and its hash with its name."""
    ROWS_CHUNK.refuses(write_chunk(ROWS_CHUNK_VALUES, **header))


@pytest.mark.parametrize("size", [0, 75, 77, 152])
def test_a_chunk_header_of_another_size_is_refused(size: int) -> None:
    """A chunk's header has 76 bytes."""
    _, _, body, _, rest = unframe(ROWS_CHUNK.good)
    ROWS_CHUNK.refuses(frame(CHUNK, 0, (body * 2)[:size]) + rest, "another size")


def test_chunk_columns_that_differ_from_their_hash_are_refused() -> None:
    """The hash of a chunk is that of what its stored bytes unpack to, whatever the header says of it."""
    columns = msgpack.packb([["d-1"], [b"\x80"]])
    values = {"rows": [{"key": "d-1", "state": "80"}]}
    named = bytes.fromhex(ROWS_CHUNK.key[-64:])
    ROWS_CHUNK.refuses(write_chunk(values, columns=columns, hash=named), "cannot be read")


# Compression ---------------------------------------------------------------------------------


def zstd_without_size(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(data)


GOOD_COLUMNS = zstandard.ZstdDecompressor().decompress(ONE_EVENT.good[168:])
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"


@pytest.mark.parametrize(
    "stored",
    [
        compress(GOOD_COLUMNS)[:-1],
        compress(GOOD_COLUMNS)[:5],
        compress(GOOD_COLUMNS)[:-4] + bytes(4),
        compress(GOOD_COLUMNS) + b"\x00",
        compress(GOOD_COLUMNS) * 2,
        compress(GOOD_COLUMNS) + compress(b"\xc0"),
        SKIPPABLE + compress(GOOD_COLUMNS),
        compress(GOOD_COLUMNS) + SKIPPABLE,
        zstd_without_size(GOOD_COLUMNS),
        compress(GOOD_COLUMNS + b"\xc0"),
        compress(GOOD_COLUMNS[:-1]),
        GOOD_COLUMNS,
        b"\x00" * 57,
        b"\x28",
    ],
    ids=[
        *("cut", "cut to its head", "wrong checksum", "a byte more", "twice", "two frames", "skippable before"),
        *("skippable after", "no size", "unpacks to more", "unpacks to less", "not compressed", "zeros", "one byte"),
    ],
)
def test_stored_bytes_are_one_zstandard_frame_of_the_announced_size(stored: bytes) -> None:
    """Anything but one whole frame that says, and has, the size in the header is refused."""
    ONE_EVENT.refuses(write_segment(ONE_EVENT_VALUES, columns=GOOD_COLUMNS, stored=stored))


NOT_ONE_FRAME = pytest.mark.parametrize(
    "store",
    [
        lambda columns: compress(columns)[:-1],
        lambda columns: compress(columns)[:-4] + bytes(4),
        lambda columns: compress(columns) + b"\x00",
        lambda columns: compress(columns) * 2,
        lambda columns: SKIPPABLE + compress(columns),
        lambda columns: compress(columns) + SKIPPABLE,
        zstd_without_size,
        lambda columns: compress(columns + b"\xc0"),
        lambda columns: compress(columns[:-1]),
        lambda columns: columns,
    ],
    ids=[
        *("cut", "wrong checksum", "a byte more", "twice", "skippable before", "skippable after", "no size"),
        *("unpacks to more", "unpacks to less", "not compressed"),
    ],
)


@NOT_ONE_FRAME
def test_stored_rows_are_one_zstandard_frame_of_the_announced_size(store: Callable[[bytes], bytes]) -> None:
    """Of a chunk, too, anything but one whole frame that says, and has, the size in the header is refused."""
    ROWS_CHUNK.decode(write_chunk(ROWS_CHUNK_VALUES))
    ROWS_CHUNK.refuses(write_chunk(ROWS_CHUNK_VALUES, stored=store(pack_rows(ROWS_CHUNK_VALUES))), "cannot be read")


@NOT_ONE_FRAME
def test_a_block_is_one_zstandard_frame_of_the_announced_size(store: Callable[[bytes], bytes]) -> None:
    """Of a block of an archive, too, anything but one whole frame that says, and has, the announced size is refused."""
    ARCHIVED.refuses(one_block(PACKED, stored=store(PACKED)), "block of an archive cannot be read")


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    """A frame that unpacks to more than it says itself is no bomb: it is cut off where it says it ends."""
    honest = compress(bytes(10_000))
    at = honest.index((10_000 - 256).to_bytes(2, "little"))
    liar = honest[:at] + (1_000 - 256).to_bytes(2, "little") + honest[at + 2 :]
    assert zstandard.frame_content_size(liar) == 1_000
    ONE_EVENT.refuses(write_segment(ONE_EVENT_VALUES, columns=bytes(1_000), stored=liar))


# Columns -------------------------------------------------------------------------------------

NAMES, KEYS, PAYLOADS = [["k"], None], ["a", "b"], [b"\xc0", b"\x80"]
GOOD: list[Any] = [NAMES, NAMES, KEYS, PAYLOADS, None]


def with_column(index: int, column: Any) -> list[Any]:
    return [*GOOD[:index], column, *GOOD[index + 1 :]]


def two_events(columns: Any, *, packed: bytes | None = None) -> bytes:
    """A segment of two events, with these columns, whatever they are."""
    data = msgpack.packb(columns) if packed is None else packed
    return write_segment(ONE_EVENT_VALUES, columns=data, count=2)


def test_two_good_columns_are_good() -> None:
    """The columns that the tests below bend are read when nothing is bent."""
    segment = decode_segment(SegmentKey("web/1", 0, 1, 0), two_events(GOOD))
    assert segment.columns is not None
    assert segment.columns.keys == KEYS
    for good in (
        with_column(0, [["k", "l"], b"\x01\x00"]),
        with_column(4, [[1], [b"\x80"]]),
        with_column(4, [[0, 1], [b"\x80", b"\x80"]]),
    ):
        decode_segment(SegmentKey("web/1", 0, 1, 0), two_events(good))


NO_COLUMNS: list[Any] = [
    *(None, 0, True, "", b"", "abcdef", b"abcdef", {}, {"a": 1}, 1.5, []),
    *(GOOD[:4], [*GOOD, None], [GOOD], with_column(0, GOOD)),
]
NO_NAMES: list[Any] = [
    *(None, [], ["k"], [["k"]], [["k"], None, None], "kk", b"kk", {}, 7),
    *([[], None], [[], b""], [["k", "l"], None], [["k", "l"], b"\x00"], [["k", "l"], b"\x00\x00\x00"]),
    *([["k", "l"], b"\x00\x02"], [["k", "l"], b"\xff\xff"], [["k", "l"], [0, 1]], [["k", "l"], "ab"]),
    *([["k", 1], b"\x00\x01"], [["k", b"l"], b"\x00\x01"], [["k", None], b"\x00\x01"], ["kl", b"\x00\x01"]),
    *([{}, None], [b"k", None], [["k"], b"\x00\x00"], [[["k"]], None], [["k", "k"], b"\x00\x01"]),
    [[f"n{n}" for n in range(257)], b"\x00\x00\x01"],
    [[f"n{n}" for n in range(257)], b"\x00\x00\x01\x01"],
    [[f"n{n}" for n in range(257)], b"\x00\x01"],
]
NO_KEYS: list[Any] = [
    *(None, [], ["a"], ["a", "b", "c"], ["a", 1], ["a", None], [b"a", b"b"], ["a", ["b"]], "ab", {}, 2)
]
NO_PAYLOADS: list[Any] = [
    *(None, [], [b"a"], [b"a"] * 3, [b"a", 1], [b"a", None], ["a", "b"], [b"a", []], b"ab", {}, 2)
]
NO_METAS: list[Any] = [
    *([], [[]], [[], []], [[0]], [[0], []], [[], [b"x"]], [[0], [b"x", b"y"]], [[0, 1], [b"x"]]),
    *([[1, 0], [b"x", b"y"]], [[0, 0], [b"x", b"y"]], [[2], [b"x"]], [[-1], [b"x"]], [[2**63], [b"x"]]),
    *([[0], ["x"]], [["0"], [b"x"]], [[0], [None]], [[None], [b"x"]], [[True], [b"x"]], [[0.0], [b"x"]]),
    *([[0], [b"x"], []], "ab", b"ab", {}, 1, [b"", b""], ["", ""], [0, 0], [None, None], [{}, {}]),
]


@pytest.mark.parametrize(
    "columns",
    [
        *NO_COLUMNS,
        *(
            with_column(index, bad)
            for index, all_bad in enumerate((NO_NAMES, NO_NAMES, NO_KEYS, NO_PAYLOADS, NO_METAS))
            for bad in all_bad
        ),
    ],
    ids=lambda columns: repr(columns)[:60],
)
def test_columns_of_other_shapes_are_refused(columns: Any) -> None:
    """Every column has its type, its length and its range; anything else is Corrupt and never a wrong event."""
    ONE_EVENT.refuses(two_events(columns), "columns cannot be read")


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        msgpack.packb(GOOD)[:-1],
        msgpack.packb(GOOD) + b"\xc0",
        msgpack.packb(GOOD).replace(b"\xa1a", b"\xa1\xff"),
        msgpack.packb(GOOD).replace(b"\xa1a", b"\xd4\x05\x00"),
        msgpack.packb(GOOD).replace(b"\xa1a", b"\xc7\x00\x05"),
        msgpack.packb(GOOD).replace(b"\xa1a", b"\xd6\xff\x00\x00\x00\x00"),
    ],
    ids=["nothing", "reserved byte", "cut", "a value more", "bad UTF-8", "extension", "empty extension", "timestamp"],
)
def test_columns_that_are_not_messagepack_are_refused(packed: bytes) -> None:
    """One value, whole, valid UTF-8, without extension types."""
    ONE_EVENT.refuses(two_events(None, packed=packed))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.integers(0, 5), anything, st.integers(0, 1), anything)
@settings(max_examples=150, deadline=None)
def test_arbitrary_columns_are_read_right_or_not_at_all(column: int, value: Any, part: int, inner: Any) -> None:
    """Whatever stands in place of a column, or of a part of one: Corrupt, or columns of the right lengths."""
    key = SegmentKey("web/1", 0, 1, 0)
    bent: list[Any] = [[["k", "l"], b"\x01\x00"], NAMES, KEYS, PAYLOADS, [[0], [b"\x80"]]]
    candidates = [value if column == 5 else [*bent[:column], value, *bent[column + 1 :]]]
    if column in {0, 1, 4}:
        whole = list(bent[column])
        whole[part] = inner
        candidates.append([*bent[:column], whole, *bent[column + 1 :]])
    for candidate in candidates:
        data = two_events(candidate)
        try:
            segment = decode_segment(key, data)
        except Corrupt:
            ONE_EVENT.refuses(data)
        else:
            assert_events_are_whole(segment)


def assert_events_are_whole(segment: Segment) -> None:
    columns = segment.columns
    assert columns is not None
    for index in range(2):
        assert type(columns.kind(index)) is type(columns.type(index)) is type(columns.keys[index]) is str
        assert type(columns.payloads[index]) is bytes
    assert all(index in {0, 1} and type(meta) is bytes for index, meta in columns.metas.items())


@given(st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_as_columns_are_refused(packed: bytes) -> None:
    """Random bytes in place of the columns, digests agreeing, raise Corrupt and nothing else."""
    ONE_EVENT.refuses(two_events(None, packed=packed))


# Archives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "wrongs"),
    [
        (0, [*NUMBER_OF_ROW, 0, len(compress(PACKED)) - 1, len(compress(PACKED)) + 1, 2**64 - 1]),
        (1, [*NUMBER_OF_ROW, 0, len(PACKED) - 1, len(PACKED) + 1, 80 * MIB + 1, 2**64 - 1]),
        (2, [None, "x" * 32, 32, b"", bytes(31), bytes(32), bytes(33)]),
        (3, [*NUMBER_OF_ROW, 10**10, 2**64 - 1]),
        (4, [*NUMBER_OF_ROW, 0, 2, 2**64 - 1]),
        (5, [None, 1, "x", b"x", {}, [1], ["x"], [None], [[]], [[1, 0]], [[1, 0, 1, 0]], [{}]]),
        (5, [[[1, 0, wrong]] for wrong in NUMBER_OF_ROW]),
        (5, [[], [[1, 0, 0]], [[1, 0, 2]], [[1, 1, 1]], [[2, 0, 1]], [[1, 0, 1], [2, 0, 1]], [[0, 0, 1], [1, 0, 1]]]),
        (5, [[[1, 0, 1], [1, 0, 1]], [[1, 0, 1], [2, 0, 0]], [[2, 0, 0], [1, 0, 1]], [[1, 0, 1], [1, 1, 0]]]),
        (5, [[[10**10, 0, 1]], [[1, 10**10, 1]], [[1, 0, 10**10 + 1]], [[1, 0, 2**64 - 1]], [[1, 0, 10**10]]]),
    ],
    ids=["stored", "unpacked", "digest", "entry", "entries", *["slots"] * 5],
)
def test_a_block_of_another_table_is_refused(field: int, wrongs: list[Any]) -> None:
    """Sizes, digest, entries and slots that the table announces have their types, and are those of the block."""
    row = row_of(PACKED, compress(PACKED))
    for wrong in wrongs:
        with memory_below(MIB):
            ARCHIVED.refuses(one_block(PACKED, blocks=[[*row[:field], wrong, *row[field + 1 :]]]))


def test_a_table_of_another_shape_is_refused() -> None:
    """An archive's chapter and number are those of its name, and its blocks an array of such arrays."""
    row = row_of(PACKED, compress(PACKED))
    for fields in (
        *({"chapter": wrong} for wrong in (*NUMBER_OF_ROW, 1, 10**10)),
        *({"number": wrong} for wrong in (*NUMBER_OF_ROW, 1, 10**10)),
        *({"blocks": wrong} for wrong in (*map(unplain, ROWS), [], row, [row[:-1]], [[*row, 0]], [row, row])),
    ):
        ARCHIVED.refuses(one_block(PACKED, **fields))
    _, _, body, _, rest = unframe(one_block(PACKED))
    for field in ("chapter", "number", "blocks"):
        fields = msgpack.unpackb(body)
        del fields[field]
        ARCHIVED.refuses(frame(ARCHIVE, 0, msgpack.packb(fields)) + rest, "field")


def test_where_a_block_has_no_entries_the_first_is_nought() -> None:
    """A block without entries says that they are none from number 0 on."""
    packed = pack_block([ONE_EVENT.good])
    row = row_of(packed, compress(packed))
    slots = [[1, 0, 1]]
    (content,) = decode_archive(ARCHIVE_KEY, one_block(packed, blocks=[[*row[:3], 0, 0, slots]]))
    assert not content.entries
    ARCHIVED.refuses(one_block(packed, blocks=[[*row[:3], 1, 0, slots]]), "field")


@pytest.mark.parametrize(
    "content",
    [
        *(None, 0, "abc", b"abc", {}, {"a": 1, "b": 2, "c": 3}, [], [[], [], []], [*CONTENT[:2]], [*CONTENT, []]),
        *([None, *CONTENT[1:]], [[], *CONTENT[1:]], [CONTENT[0] * 2, *CONTENT[1:]], [["x"], *CONTENT[1:]]),
        *([[1], *CONTENT[1:]], [[CONTENT[0]], *CONTENT[1:]], [b"x", *CONTENT[1:]], [{}, *CONTENT[1:]]),
        *([CONTENT[0], frames, CONTENT[2]] for frames in (None, [], [None], ["x" * 168], [b""], [bytes(168)], "x")),
        *([CONTENT[0], [FRAME[:-1]], CONTENT[2]], [CONTENT[0], [FRAME + b"\x00"], CONTENT[2]]),
        *([CONTENT[0], [FRAME, FRAME], CONTENT[2] * 2], [CONTENT[0], [sample("segment-heartbeat").good], [b""]]),
        *([*CONTENT[:2], bad] for bad in NO_BYTES_OF_ONE),
    ],
)
def test_a_block_of_another_shape_is_refused(content: Any) -> None:
    """A block is entries, frames and columns, as many as its table says, each of them bytes."""
    ARCHIVED.refuses(one_block(msgpack.packb(content)), "block of an archive cannot be read")


@pytest.mark.parametrize("packed", [b"", b"\xc1", PACKED[:-1], PACKED + b"\xc0", b"\x93" + b"\xd4\x05\x00" * 3])
def test_a_block_that_is_not_messagepack_is_refused(packed: bytes) -> None:
    """One value, whole, without extension types."""
    stored = zstandard.ZstdCompressor(write_content_size=True, write_checksum=True).compress(packed)
    ARCHIVED.refuses(one_block(packed, stored=stored), "block of an archive cannot be read")


@given(anything, st.integers(0, 3))
@example([b""], 0)
@example([b""], 2)
@settings(max_examples=100, deadline=None)
def test_arbitrary_blocks_are_refused(value: Any, part: int) -> None:
    """Whatever stands in place of a block, or of a part of one, digests agreeing, raises Corrupt and nothing else."""
    ARCHIVED.refuses(one_block(msgpack.packb(value if part == 3 else [*CONTENT[:part], value, *CONTENT[part + 1 :]])))


def test_an_archived_segment_is_held_by_its_frame() -> None:
    """Each bit of its frame, flipped, and columns of another size make it Corrupt under the name that it had."""
    key, columns = SegmentKey("web/1", 0, 1, 0), CONTENT[2][0]
    assert decode_archived_segment(key, FRAME, columns) == decode_segment(key, ONE_EVENT.good)
    archived = Sample(ONE_EVENT.key, SEGMENT, FRAME, lambda data: decode_archived_segment(key, data, columns))
    for bit in range(8 * len(FRAME)):
        damaged = bytearray(FRAME)
        damaged[bit // 8] ^= 1 << bit % 8
        archived.refuses(bytes(damaged))
    archived.refuses(FRAME[:-1])
    archived.refuses(FRAME + b"\x00")
    for wrong in (b"", columns[:-1], columns + b"\xc0", bytes(len(columns))):
        with pytest.raises(Corrupt, match=f"key={re.escape(ONE_EVENT.key)} "):
            decode_archived_segment(key, FRAME, wrong)


WHOLES = [whole for _, whole, _ in in_order()]
FIRST, SECOND, THIRD = WHOLES[:3], WHOLES[3:14], WHOLES[14:]


def archive_of(blocks: list[list[bytes]]) -> bytes:
    return write_archive(0, 0, blocks)


async def findings_of(data: bytes) -> list[Finding]:
    """What a check says of a store in which ``data`` is the golden archive."""
    store = MemoryStore()
    await store.create("retired/0000000000", sample("retired-archived").good)
    await store.create(ARCHIVED.key, data)
    return [finding async for finding in check_archives(store, Progress())]


LACKING = pytest.mark.parametrize(
    "blocks",
    [
        *([], [FIRST], [FIRST, SECOND], [SECOND, THIRD], [FIRST, THIRD]),
        *([FIRST, SECOND, THIRD[1:]], [FIRST, SECOND, THIRD[:2], THIRD[3:]], [FIRST, SECOND, THIRD[:-2]]),
        *([FIRST[1:], SECOND, THIRD], [FIRST[:-1], SECOND, THIRD]),
        *([SECOND, FIRST, THIRD], [FIRST, THIRD, SECOND], [THIRD, SECOND, FIRST]),
        *([FIRST, FIRST, SECOND, THIRD], [FIRST, SECOND, THIRD, THIRD]),
    ],
    ids=[
        *("nothing", "only the first", "without the last", "without the first", "without the second"),
        *("without a slot", "without a heartbeat", "without a final"),
        *("without the begin", "without an entry"),
        *("first two swapped", "last two swapped", "reversed", "the first twice", "the last twice"),
    ],
)


@LACKING
async def test_an_archive_that_lacks_something_is_refused_whole(blocks: list[list[bytes]]) -> None:
    """Before anything of it is handed out, an archive must hold, in order and once, what the chapter's record says."""
    chapter = shelved([(ARCHIVE_KEY, archive_of(blocks))])
    for _ in range(2):
        with pytest.raises(Corrupt, match="key=retired/0000000000;"):
            await chapter.entry(0)
        with pytest.raises(Corrupt, match="key=retired/0000000000;"):
            await chapter.segment(SegmentKey("web/1", 0, 1, 0))


@LACKING
async def test_a_check_finds_what_an_archive_lacks(blocks: list[list[bytes]]) -> None:
    """Of the golden archive a check says nothing; where objects are absent or not in order it says so, and ends."""
    assert await findings_of(ARCHIVED.good) == []
    found = await findings_of(archive_of(blocks))
    assert {finding.severity for finding in found} == {"damage"}
    assert {finding.key for finding in found} <= {ARCHIVED.key, "retired/0000000000"}


# Fields of small objects ---------------------------------------------------------------------

NUMBER: list[Any] = [None, True, -1, 1.5, "1", {"hex": "01"}, [1], {"a": 1}]
BINARY: list[Any] = [None, 1, "x" * 16, "x" * 32, {"hex": ""}, {"hex": "00" * 15}, {"hex": "00" * 33}, [0] * 16]
TEXT: list[Any] = [None, 1, True, {"hex": "78"}, ["x"], {"a": 1}]
ROWS: list[Any] = [None, 1, "x", {"hex": "00"}, {"a": 1}, [1], ["x"], [None], [[]], [[1]], [[1, 2]], [[1, 2, 3, 4]]]
TRIPLES: list[Any] = [
    *ROWS,
    [[1, 2, -3]],
    [[1, 2, True]],
    [[1, 2, "3"]],
    [[1, 2, 3], [1, 2]],
    [[1, 2, None]],
    [[1, 2, 3.0]],
]
SCOPES: list[Any] = [
    *ROWS,
    [[[], 0, 1]],
    [["k", 0, 1]],
    [[[1], 0, 1]],
    [[["k"], -1, 1]],
    [[["k"], 0, None]],
    [[["k", 1], 0, 1]],
]
KINDS: list[Any] = [None, 1, "k", {"hex": "6b"}, [], [1], [None], ["b", "a"], ["a", "a"], [["a"]]]
SHA, F = {"hex": "5a" * 32}, {"hex": "00" * 8}

WRONG: dict[str, dict[str, list[Any]]] = {
    "store": {
        "id": BINARY,
        "created_ms": NUMBER,
        "grace_ms": NUMBER,
        "history": [*TEXT, "", "Full", "never"],
        "ancestor": BINARY[1:],
    },
    "entry-open": {
        "kind": [*NUMBER, 4, 255, 2**64 - 1, 0],
        "chapter": [*NUMBER, 1, 10**10, 2**64 - 1],
        "number": [*NUMBER, 2, 10**10],
        "stamp": NUMBER,
        "previous": BINARY,
        "nonce": BINARY,
        "scopes": SCOPES,
        "writer": [*TEXT, "", "a" * 201, "é" * 101, "/" * 86],
        "idle_ms": NUMBER,
        "seal_ms": NUMBER,
        "flights": [*NUMBER, 0, 65, 2**64 - 1],
        "exclusive": [1, True, "x", [], {"a": 1}, {"kinds": ["k"]}, {"predecessor": None}],
    },
    "entry-begin": {"kind": [1, 2, 3]},
    "entry-tick": {"slots": TRIPLES, "kind": [0, 1]},
    "retired": {
        "chapter": [*NUMBER, 1, 10**10],
        "closed": [*NUMBER, 10**10],
        "digest": BINARY,
        "stamp": NUMBER,
        "scopes": SCOPES,
        "sessions": TRIPLES,
        "archives": [None, 1, "x", {"hex": "00"}, {"a": 1}, [1], [None], [["x"]]],
    },
    "manifest": {
        "projection": [*TEXT, "", "Deployments"],
        "version": [*NUMBER, 0, 4, 10**10],
        "fingerprint": [*BINARY, {"hex": "00" * 8}],
        "chapter": [*NUMBER, 0, 10**10],
        "number": [*NUMBER, 2, 10**10],
        "stamp": [*NUMBER, 0],
        "entry": BINARY,
        "sessions": [
            *ROWS,
            *([[0, 1, 2, 6, 5]], [[0, 1, 2, 6, 5, SHA, 0]], [[0, 1, 2, 6, -5, SHA]], [[0, 1, True, 6, 5, SHA]]),
            *([[0, 1, 2, 6, 5, {"hex": "5a"}]], [[0, 1, 2, 6, 5, None]], [[0, 1, 10**10, 6, 5, SHA]]),
            *([[0, 2, 2, 6, 5, SHA], [0, 1, 2, 6, 5, SHA]], [[0, 1, 2, 6, 5, SHA], [0, 1, 3, 6, 5, SHA]]),
        ],
        "rows": [*NUMBER, 9, 11],
        "digest": BINARY,
        "chunks": [
            *ROWS,
            *([], [[1, 2, SHA, 9, 1, None]], [[1, 2, SHA, 10, 1]], [[1, 2, SHA, 10, 1, None, 0]]),
            *([[1, 2, {"hex": "5a"}, 10, 1, None]], [[1, 10**10, SHA, 10, 1, None]], [[1, 2, SHA, 10, None, None]]),
            *([[1, 2, SHA, 10, 1, 0]], [[1, 2, SHA, 10, 1, "00"]], [[1, 2, SHA, 10, 1, False]]),
            *([[1, 2, SHA, 10, 1, {"hex": dead}]] for dead in ("", "0000", "00", "000000")),
            *([[1, 2, SHA, 11, 1, {"hex": dead}]] for dead in ("01", "010000", "0008", "ff07")),
            [[1, 2, SHA, 10, 1, None], [1, 2, {"hex": "a5" * 32}, 3, 1, {"hex": "07"}]],
            [[1, 2, SHA, 10, 1, None], [1, 2, {"hex": "a5" * 32}, 0, 1, None]],
            [[1, 2, SHA, 5, 1, None], [1, 2, SHA, 5, 1, None]],
        ],
        "verdicts": [
            *ROWS,
            *([[0, 1, 0, 5]], [[0, 1, 0, 5, 0, 0]], [[0, 1, 0, 5, 2]], [[0, 1, 0, 5, None]], [[0, 1, 0, -5, 0]]),
            *([[0, 1, 0, 5, "rejected"]], [[0, 1, 0, 5, False]], [[0, 1, 0, 2**64 - 1, 0]]),
            *([[0, 1, 1, 5, 0], [0, 1, 0, 5, 0]], [[0, 1, 0, 6, 0], [0, 1, 1, 5, 0]], [[0, 1, 0, 5, 0]] * 2),
            [[0, 1, 0, 5, 0], [0, 1, 0, 5, 1]],
            [[0, 1, sequence, 5, 0] for sequence in range(10_001)],
        ],
    },
    "registration": {
        "registered": [None, 0, 1, "true", {"hex": "01"}, [True]],
        "number": [*NUMBER, 1, 10**10],
        "projection": [*TEXT, "", "Deployments"],
        "version": [*NUMBER, 0, 4, 10**10],
        "kinds": [*KINDS, ["Application"], ["Deployment", "Application", "Zusammenhängend"]],
        "fold": [*TEXT, "", "put"],
        "tag": [*TEXT, "", "e\u0301"],
    },
    "pin": {
        "id": [*BINARY, {"hex": "00" * 8}],
        "number": [*NUMBER, 1, 10**10],
        "owner": TEXT,
        "chapter": [*NUMBER, 10**10],
        "expires_ms": NUMBER,
    },
}
PREDECESSORS: list[Any] = [0, True, "x", [], [1], [1, 2, 3], [1, -2], ["1", 2], [None, None], {"a": 1}, [1, True]]


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in WRONG.items() for field in fields])
def test_a_field_absent_or_of_another_type_is_refused(name: str, field: str) -> None:
    """A known field of a small object is there, of its type and within its range, or the object is Corrupt."""
    small, values = sample(name), golden(name)[3]
    small.refuses(write_small(small.type, {key: value for key, value in values.items() if key != field}))
    for wrong in WRONG[name][field]:
        small.refuses(write_small(small.type, {**values, field: wrong}))


@pytest.mark.parametrize(("field", "wrongs"), [("kinds", KINDS), ("predecessor", PREDECESSORS)])
def test_an_exclusive_claim_of_another_shape_is_refused(field: str, wrongs: list[Any]) -> None:
    """Kinds are sorted names, at least one; a predecessor is an address or nil."""
    small, values = sample("entry-open-exclusive"), golden("entry-open-exclusive")[3]
    for wrong in wrongs:
        small.refuses(write_small(ENTRY, {**values, "exclusive": {**values["exclusive"], field: wrong}}), "field")


@pytest.mark.parametrize(
    "point",
    [
        *(value for value in ROWS if value is not None),
        *(
            [["d", 1, F, 1]],
            [["d", 1, F, 1, 2, 3]],
            [["d", 1, F, 1, True]],
            [["d", 1, F, 1, -2]],
            [["d", 1, F, None, 2]],
        ),
        *([["", 1, F, 1, 2]], [["/" * 86, 1, F, 1, 2]], [["a" * 201, 1, F, 1, 2]], [[F, 1, F, 1, 2]]),
        *([["d", 1, {"hex": ""}, 1, 2]], [["d", 1, {"hex": "00" * 9}, 1, 2]], [["d", 1, "x" * 8, 1, 2]]),
        *([["d", 10**10, F, 1, 2]], [["d", 1, F, 10**10, 2]], [["d", 1, F, 1, 10**10]], [["d", 0, F, 1, 2]]),
        *([["d", 1, F, 1, 2]] * 2, [["e", 1, F, 1, 2], ["d", 1, F, 1, 2]], [["d", 2, F, 1, 2], ["d", 1, F, 1, 2]]),
        [["d", 1, F, 1, 2], ["d", 1, F, 1, 3]],
    ],
    ids=str,
)
def test_a_point_of_another_shape_is_refused(point: Any) -> None:
    """A point names manifests, sorted and one for each fold, or is nil."""
    small, values = sample("entry-tick-point"), golden("entry-tick-point")[3]
    small.refuses(write_small(ENTRY, {**values, "point": point}), "field")


@pytest.mark.parametrize("name", ["store", "entry-open", "retired", "manifest", "registration", "pin", "archive"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\xc1",
        b"\x80\x80",
        b"\x90",
        b"\x81\xa1a",
        b"\x81\x01\x02",
        b"\x81\xc4\x01a\x01",
        b"\x81\xa1\xff\x01",
        b"\x81\xa1a\xd4\x05\x00",
        b"\x81\x90\x01",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 2_000 + b"\xc0",
        b"\x81\xa1a" * 2_000 + b"\xc0",
    ],
    ids=lambda body: body[:8].hex() or "empty",
)
def test_a_body_that_is_no_map_of_named_fields_is_refused(name: str, body: bytes) -> None:
    """Whatever bytes are framed, reading them ends in Corrupt: also lengths beyond the end and nesting without end."""
    small = sample(name)
    with memory_below(MIB):
        small.refuses(frame(small.type, 0, body))


@given(anything, st.sampled_from(sorted(golden("entry-open-exclusive")[3])))
@settings(max_examples=100, deadline=None)
def test_arbitrary_fields_are_read_right_or_not_at_all(value: Any, field: str) -> None:
    """Whatever stands in a field of an entry, decoding it returns an entry or raises Corrupt naming the key."""
    _, _, body, _, _ = unframe(sample("entry-open-exclusive").good)
    fields = {**msgpack.unpackb(body), field: value}
    data = frame(ENTRY, 0, msgpack.packb(fields))
    try:
        decode_entry(0, 2, data)
    except Corrupt:
        sample("entry-open-exclusive").refuses(data)


# Bombs: memory is asserted -------------------------------------------------------------------


def nested_arrays(depth: int, announced: int, filler: int) -> bytes:
    """Arrays in one another, each announcing many items that are not there."""
    return (b"\xdd" + struct.pack(">I", announced)) * depth + b"\xc0" * filler


def test_columns_larger_than_the_limit_are_never_unpacked() -> None:
    """Sizes above 64 MiB are refused by the header alone, and sizes below it hold for the frame as well."""
    zeros = bytes(65 * MIB)
    bomb, unsized = compress(zeros), zstd_without_size(zeros)
    del zeros
    for stored in (bomb, unsized):
        for announced in (65 * MIB, 1_000, 0):
            data = write_segment(ONE_EVENT_VALUES, columns=b"x", stored=stored, columns_size=announced)
            with memory_below(MIB):
                ONE_EVENT.refuses(data)


@pytest.mark.parametrize("filler", [0, 70_000])
def test_nested_arrays_in_columns_take_no_memory(filler: int) -> None:
    """Arrays are allocated by announced length: a thousand in one another are refused before any is."""
    packed = b"\x96" + nested_arrays(1_000, 65_536, filler)
    with memory_below(2 * MIB):
        ONE_EVENT.refuses(two_events(None, packed=packed), "columns cannot be read")


def test_many_small_arrays_in_columns_take_little_memory() -> None:
    """Columns consist of a handful of lists; a column of lists is given up after as many."""
    packed = msgpack.packb(with_column(3, [[]] * 65_000))
    data = two_events(None, packed=packed)
    with memory_below(6 * MIB):
        ONE_EVENT.refuses(data, "columns cannot be read")


def test_blocks_larger_than_the_limit_are_never_unpacked() -> None:
    """Sizes above 80 MiB are refused by the table alone, and sizes below it hold for the frame as well."""
    stored = compress(bytes(81 * MIB))
    row = row_of(b"", stored)
    for announced in (81 * MIB, 1_000, 0):
        data = one_block(b"", stored=stored, blocks=[[row[0], announced, *row[2:]]])
        with memory_below(MIB):
            ARCHIVED.refuses(data)


@pytest.mark.parametrize("filler", [0, 1 << 20])
def test_nested_arrays_in_a_block_take_no_memory(filler: int) -> None:
    """Of a block, too, arrays in one another are refused before any is allocated."""
    data = one_block(b"\x93" + nested_arrays(1_000, 1 << 20, filler))
    with memory_below(4 * MIB):
        ARCHIVED.refuses(data, "block of an archive cannot be read")


def test_many_small_arrays_in_a_block_take_little_memory() -> None:
    """A block consists of four arrays; one of more is given up after as many."""
    data = one_block(msgpack.packb([[[]] * 500_000, [], []]))
    with memory_below(8 * MIB):
        ARCHIVED.refuses(data, "block of an archive cannot be read")


@pytest.mark.parametrize("name", ["store", "entry-open", "retired", "manifest", "registration", "pin", "archive"])
def test_nested_arrays_in_a_small_object_take_no_memory(name: str) -> None:
    """Unknown fields are ignored, but not built when they announce what is not there."""
    small = sample(name)
    bomb = frame(small.type, 0, b"\x81\xa3new" + nested_arrays(1_000, 900_000, 900_000))
    with memory_below(4 * MIB):
        small.refuses(bomb)


def test_a_message_about_a_large_value_is_small() -> None:
    """A complaint shows the beginning of the value it is about, and no more than that."""
    retired, values = sample("retired"), golden("retired")[3]
    data = write_small(RETIRED, {**values, "sessions": [["x" * 50] * 20] * 1_000})
    retired.refuses(data)
    with pytest.raises(Corrupt) as raised:
        retired.decode(data)
    assert len(str(raised.value)) < 300


def test_more_containers_than_the_limit_are_refused() -> None:
    """A body of more than 1,048,576 arrays and maps is refused, however small each is."""
    retired = sample("retired")
    retired.refuses(frame(RETIRED, 0, b"\x81\xa3new\xdd" + (MIB + 1).to_bytes(4, "big") + b"\x90" * (MIB + 1)), "body")
    for item in (b"\x80", b"\x90"):
        with pytest.raises(ValueError, match="more than 1000 arrays and maps"):
            unpack(b"\xdd" + (70_000).to_bytes(4, "big") + item * 70_000, containers_max=1_000)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x81\xa1a" + nested_arrays(1_000, 60_000, 60_000),
        b"\x81\xa1a" + nested_arrays(1_000, 2**32 - 1, 0),
        b"\x81\xa1a" * 100_000 + b"\xc0",
        b"\xdf\xff\xff\xff\xff\xa1a\xc0",
        b"\x81\xa1a\xdb\xff\xff\xff\xff",
    ],
    ids=["announced", "announced beyond", "deep", "map", "text"],
)
def test_bombs_in_payloads_take_no_memory(payload: bytes) -> None:
    """An event's data is somebody else's bytes: looking at them costs no more memory than a few times their size."""
    with memory_below(2 * MIB), pytest.raises(Corrupt, match="key=d-1 seq=0"):
        decode_data(payload, "key=d-1 seq=0")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xc0\xc0",
        b"\x01",
        b"\x90",
        b"\xa1a",
        b"\x81\x01\x02",
        b"\x81\xa1a\xd4\x05\x00",
        b"\x81\xa1\xff\x01",
    ],
    ids=lambda payload: payload.hex() or "empty",
)
def test_data_that_is_no_map_is_refused(payload: bytes) -> None:
    """Data is one map with text names, or nil; the error says whose it is."""
    with pytest.raises(Corrupt, match="key=d-1 seq=0"):
        decode_data(payload, "key=d-1 seq=0")


def test_bombs_in_tokens_take_no_memory() -> None:
    """A position somebody passes in may be anything, its checksum right: refused for little memory."""
    for packed in (nested_arrays(1_000, 60_000, 60_000), b"\x91" * 5_000, b"\xc1", b"\x93\x01", b"\xc0", b"\x90"):
        checked = zlib.crc32(packed).to_bytes(4, "big") + packed
        token = f"position-{base64.urlsafe_b64encode(checked).decode().rstrip('=')}"
        with memory_below(2 * MIB), pytest.raises(InvalidArgument, match="position"):
            decode_token("position", token)
    long = encode_token("receipt", ["x" * 2 * MIB])
    with memory_below(2 * len(long)), pytest.raises(InvalidArgument, match="receipt"):
        Receipt.parse(long)


def test_every_golden_segment_is_within_its_digest() -> None:
    """The digest of a segment covers its columns: the frame's body holds theirs."""
    for name in SEGMENTS:
        _, data, digest, _ = golden(name)
        _, _, body, _, rest = unframe(data)
        assert digest_of(data).hex() == digest
        if rest:
            with pytest.raises(Corrupt, match="differs from its digest"):
                sample(name).decode(frame(SEGMENT, 0, body) + rest[:-1] + bytes([rest[-1] ^ 1]))
