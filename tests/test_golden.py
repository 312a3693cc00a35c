"""The golden files decode for ever, to what stands beside them; the library and FORMAT.md mean the same bytes."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import replace
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore import Protection
from logstore.archive import decode_archive, decode_part
from logstore.chunk import decode_chunk
from logstore.claim import decode_claim, encode_claim
from logstore.digest import rows_digest
from logstore.entry import Begin, Entry, Open, decode_entry, encode_entry, require_follows
from logstore.filestore import MemoryStore
from logstore.filestore.base import Blob
from logstore.frontier import Frontier
from logstore.gone import decode_gone, encode_gone
from logstore.identity import decode_identity, encode_identity
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    EntryKey,
    Fold,
    ManifestKey,
    PinKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StageGoneKey,
    StageId,
    StagePageKey,
    StoreKey,
    archive_key,
    parse_key,
    stage_page_key,
)
from logstore.manifest import alive_mask, decode_manifest, encode_manifest
from logstore.pin import PinRecord, decode_pin, encode_pin
from logstore.protection import protect
from logstore.registration import decode_registration, encode_registration
from logstore.retired import decode_retired, encode_retired
from logstore.segment import decode_archived_segment, decode_segment
from logstore.shelf import ArchivedChapter
from logstore.stagepage import HEAD_BYTES, PageHead, decode_head, decode_page
from logstore.stagepage import require_follows as require_page_follows
from tests.golden import library, protected
from tests.golden.example import stage_page_example, worked_example
from tests.golden.independent import (
    CLAIM,
    ENTRY,
    MANIFEST,
    PIN,
    REGISTRATION,
    RETIRED,
    STAGE_GONE,
    STORE,
    Row,
    Values,
    alive,
    dead_bits,
    digest_of,
    digest_of_stage,
    fingerprint,
    hash_of_rows,
    pack_rows,
    place,
    plain,
    read_archive,
    read_chunk,
    read_segment,
    read_small,
    read_stage_page,
    sum_of_rows,
    unplain,
    write_archive,
    write_chunk,
    write_segment,
    write_small,
    write_stage_page,
)
from tests.golden.make import V1, write_new
from tests.protected import KEY, KEYRING, SIGNING_KEYS, TRUST

NAMES = [
    *("store", "store-copied", "store-copy-with-root", "retired"),
    *("entry-begin", "entry-open", "entry-open-exclusive", "entry-open-exclusive-invalid-overlap"),
    *(
        "entry-open-exclusive-second-scope",
        "entry-open-exclusive-successor",
        "entry-open-exclusive-invalid-predecessor",
    ),
    *("entry-tick", "entry-tick-empty", "entry-closed", "entry-begin-of-chapter-1"),
    *("segment-one-event", "segment-many-names-and-metas", "segment-300-kinds"),
    *("segment-heartbeat", "segment-final", "segment-sealed-final"),
    *("segment-sealed-final-between-entries", "segment-final-stamped-as-an-entry"),
    *("entry-open-of-chapter-1", "entry-tick-point-first", "entry-tick-point"),
    *("chunk-rows", "chunk-one-row", "manifest", "manifest-empty", "registration", "registration-dropped"),
    *("archive", "retired-archived", "pin", "pin-released", "claim"),
    *("stagepage-two-blocks", "stagepage-gaps", "stagepage-complete", "stagepage-left", "stagepage-abandoned"),
    *("stagepage-complete-empty", "gone"),
]
SEGMENTS = [name for name in NAMES if name.startswith("segment-")]
CHUNKS = [name for name in NAMES if name.startswith("chunk-")]
STAGE_PAGES = [name for name in NAMES if name.startswith("stagepage-")]
SMALL = [name for name in NAMES if name not in [*SEGMENTS, *CHUNKS, *STAGE_PAGES, "archive"]]
CHAPTER_1 = ["begin-of-chapter-1", "open-of-chapter-1", "tick-point-first", "tick-point"]
CHAPTER_0 = [*(name for name in NAMES if name.startswith("entry-") and name[6:] not in CHAPTER_1), *SEGMENTS]
TYPES = {
    "store": STORE,
    "entry": ENTRY,
    "retired": RETIRED,
    "manifest": MANIFEST,
    "registration": REGISTRATION,
    "pin": PIN,
    "claim": CLAIM,
    "gone": STAGE_GONE,
}


def type_of(name: str) -> int:
    return TYPES[name.partition("-")[0]]


def golden(name: str) -> tuple[str, bytes, str, Values]:
    """Return a golden object's key, bytes, digest and values."""
    path = V1 / f"{name}.bin"
    values = json.loads(path.with_suffix(".json").read_text())
    return values.pop("key"), path.read_bytes(), values.pop("object_digest"), values


def library_values(key: str, data: bytes) -> tuple[Values, str]:
    """Return what the library reads, as values, and the digest it found."""
    match parse_key(key):
        case StoreKey():
            identity = decode_identity(data)
            return library.store_values(identity), identity.digest.hex()
        case EntryKey(chapter, number):
            entry = decode_entry(chapter, number, data)
            return library.entry_values(entry), entry.digest.hex()
        case RetiredKey(chapter):
            return library.retired_values(decode_retired(chapter, data)), digest_of(data).hex()
        case SegmentKey() as segment_key:
            segment = decode_segment(segment_key, data)
            return library.segment_values(segment), segment.digest.hex()
        case ManifestKey() as manifest_key:
            manifest = decode_manifest(manifest_key, data)
            return library.manifest_values(manifest), manifest.digest.hex()
        case RegistrationKey() as registration_key:
            registration = decode_registration(registration_key, data)
            return library.registration_values(registration_key.number, registration), digest_of(data).hex()
        case ChunkKey() as chunk_key:
            return library.chunk_values(decode_chunk(chunk_key, data)), digest_of(data).hex()
        case ClaimKey() as claim_key:
            return library.claim_values(decode_claim(claim_key, data)), digest_of(data).hex()
        case PinKey() as pin_key:
            return library.pin_values(decode_pin(pin_key, data)), digest_of(data).hex()
        case ArchiveKey() as archived:
            part = decode_part(archived, data, len(data))
            return library.archive_values(part, decode_archive(archived, data)), digest_of(data).hex()
        case StagePageKey() as page_key:
            page = decode_page(page_key, data)
            assert decode_head(page_key, data[:HEAD_BYTES]) == page.head
            return library.stage_page_values(page), page.head.digest.hex()
        case StageGoneKey(stage):
            return library.gone_values(decode_gone(stage, data)), digest_of(data).hex()
        case _:
            raise AssertionError(f"no key of ours {key}")


def library_bytes(key: str, data: bytes) -> bytes:
    """Return what the library writes for the small object that it read from ``data``."""
    match parse_key(key):
        case StoreKey():
            return encode_identity(decode_identity(data))
        case EntryKey(chapter, number):
            return encode_entry(decode_entry(chapter, number, data))[0]
        case RetiredKey(chapter):
            return encode_retired(decode_retired(chapter, data))
        case ManifestKey() as manifest_key:
            return encode_manifest(decode_manifest(manifest_key, data))
        case RegistrationKey() as registration_key:
            return encode_registration(registration_key.number, decode_registration(registration_key, data))
        case ClaimKey() as claim_key:
            return encode_claim(decode_claim(claim_key, data))
        case PinKey() as pin_key:
            return encode_pin(decode_pin(pin_key, data))
        case StageGoneKey(stage):
            return encode_gone(decode_gone(stage, data))
        case _:
            raise AssertionError(f"no small object {key}")


def read_independently(name: str, data: bytes) -> Values:
    if name in SEGMENTS:
        return read_segment(data)
    if name in STAGE_PAGES:
        return read_stage_page(data)
    if name == "archive":
        return read_archive(data)[0]
    return read_chunk(data) if name in CHUNKS else read_small(type_of(name), data)


def segment_key_of(key: str) -> SegmentKey:
    parsed = parse_key(key)
    assert isinstance(parsed, SegmentKey)
    return parsed


def stage_page_key_of(key: str) -> StagePageKey:
    parsed = parse_key(key)
    assert isinstance(parsed, StagePageKey)
    return parsed


def entry(name: str) -> Entry:
    key, data, _, _ = golden(f"entry-{name}")
    parsed = parse_key(key)
    assert isinstance(parsed, EntryKey)
    return decode_entry(parsed.chapter, parsed.number, data)


def test_no_golden_file_is_lost() -> None:
    """What was released once stays listed here, bytes and values, and nothing unlisted hides there."""
    assert sorted(path.name for path in V1.iterdir()) == sorted(
        f"{name}.{suffix}" for name in NAMES for suffix in ("bin", "json")
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_decodes_to_the_values_beside_it(name: str) -> None:
    """The library reads every object of version 1 as it was meant when it was written."""
    key, data, digest, values = golden(name)
    assert library_values(key, data) == (values, digest)


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_written_from_format_md_reads_the_same(name: str) -> None:
    """FORMAT.md alone is enough to read every golden file to the same values."""
    _, data, digest, values = golden(name)
    assert (read_independently(name, data), digest_of(data).hex()) == (values, digest)


@pytest.mark.parametrize("name", SMALL)
def test_small_objects_agree_in_both_directions(name: str) -> None:
    """What FORMAT.md writes the library reads, and what the library writes FORMAT.md reads."""
    key, data, _, values = golden(name)
    type_ = type_of(name)
    assert library_values(key, write_small(type_, values))[0] == values
    assert read_small(type_, library_bytes(key, data)) == values


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_agree_in_both_directions(name: str) -> None:
    """What FORMAT.md writes the library reads; what the library writes FORMAT.md reads."""
    key, _, _, values = golden(name)
    assert library_values(key, write_segment(values))[0] == values
    assert read_segment(library.encode_segment(segment_key_of(key), values)[0]) == values


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_agree_in_both_directions(name: str) -> None:
    """What FORMAT.md writes the library reads; what the library writes FORMAT.md reads, and both name it alike."""
    key, _, _, values = golden(name)
    assert library_values(key, write_chunk(values))[0] == values
    data, hash_, size = library.encode_rows(values)
    assert read_chunk(data) == values
    assert (hash_, size) == (hash_of_rows(values), len(pack_rows(values)))
    assert key.endswith(f"-{hash_.hex()}")


@pytest.mark.parametrize("name", STAGE_PAGES)
def test_stage_pages_agree_in_both_directions(name: str) -> None:
    """What FORMAT.md writes the library reads; what the library writes FORMAT.md reads."""
    key, _, _, values = golden(name)
    assert library_values(key, write_stage_page(values))[0] == values
    assert read_stage_page(library.encode_stage_page(stage_page_key_of(key), values)) == values
    assert values["stage"] == digest_of_stage(key)


def test_the_golden_stage_logs_are_chains() -> None:
    """Each page continues the one before it, to a reader that checks all; the record names the last page."""
    before: PageHead | None = None
    for name in STAGE_PAGES:
        key, data, _, _ = golden(name)
        page = decode_page(stage_page_key_of(key), data)
        before = before if before is not None and before.key.stage == page.head.key.stage else None
        require_page_follows(page, before)
        before = page.head
    *_, gone = golden("gone")
    *_, digest, abandoned = golden("stagepage-abandoned")
    assert (gone["pages"], gone["digest"]) == (abandoned["number"] + 1, {"hex": digest})


@pytest.mark.parametrize("name", ["manifest", "manifest-empty", "registration", "registration-dropped"])
def test_what_several_write_alike_has_the_same_bytes(name: str) -> None:
    """Of a manifest and a registration the library writes the golden bytes again, as FORMAT.md does."""
    key, data, _, values = golden(name)
    assert library_bytes(key, data) == data == write_small(type_of(name), values)


def test_the_golden_log_is_one_chain() -> None:
    """Its entries and segments follow one another as FORMAT §4, §5 and §7 demand, to a reader that checks them all."""
    _, store, _, _ = golden("store")
    frontier = Frontier(decode_identity(store).id, digest_of(store), None)
    for name in [name.removeprefix("entry-") for name in NAMES if name.startswith("entry-")]:
        if name not in CHAPTER_1:
            frontier.take_entry(entry(name))
    for name in SEGMENTS:
        key, data, _, _ = golden(name)
        frontier.take_segment(decode_segment(segment_key_of(key), data))
    assert not frontier.sessions
    closed = frontier.last
    frontier.take_retirement(decode_retired(0, golden("retired")[1]))
    require_follows(entry("begin-of-chapter-1"), frontier.last, b"")
    require_follows(entry("begin-of-chapter-1"), closed, b"")
    assert isinstance(entry("begin-of-chapter-1").body, Begin)
    for before, after in pairwise(CHAPTER_1):
        require_follows(entry(after), entry(before), b"")


def test_the_golden_manifest_is_of_the_golden_log_and_chunks() -> None:
    """Its point, sessions, chunks and the sum of its rows are those of the objects that it names, as FORMAT §8 says."""
    *_, manifest = golden("manifest")
    *_, point_digest, point = golden("entry-tick-point")
    at = [point[name] for name in ("chapter", "number", "stamp")]
    assert [manifest[name] for name in ("chapter", "number", "stamp")] == at
    assert manifest["entry"] == {"hex": point_digest}
    *_, slot_digest, slot = golden("segment-many-names-and-metas")
    *_, open_digest, opened = golden("entry-open-of-chapter-1")
    assert manifest["sessions"] == [
        [0, 1, slot["slot"] + 1, slot["first_sequence"] + len(slot["events"]), slot["stamp"], {"hex": slot_digest}],
        [1, opened["number"], 0, 0, opened["stamp"], {"hex": open_digest}],
    ]
    rows: list[Row] = []
    for name, (chapter, number, hash_, count, size, dead) in zip(CHUNKS, manifest["chunks"], strict=True):
        key, _, _, chunk = golden(name)
        assert parse_key(key) == ChunkKey(chapter, number, bytes.fromhex(hash_["hex"]))
        assert (count, size) == (len(chunk["rows"]), len(pack_rows(chunk)))
        rows += alive(chunk["rows"], dead and bytes.fromhex(dead["hex"]))
    assert len({row["key"] for row in rows}) == len(rows) == manifest["rows"]
    assert manifest["digest"] == {"hex": sum_of_rows(rows).hex()}


def test_the_golden_fingerprint_is_that_of_the_golden_registration() -> None:
    """What names a projection's snapshots is computed from what its registration says, by both."""
    key, data, _, values = golden("registration")
    computed = fingerprint(*(values[name] for name in ("projection", "version", "kinds", "fold", "tag")))
    parsed = parse_key(key)
    assert isinstance(parsed, RegistrationKey)
    assert decode_registration(parsed, data).key == parsed.fold == Fold("deployments", 3, computed)
    assert golden("manifest")[3]["fingerprint"] == {"hex": computed.hex()}


def shelved(objects: list[tuple[ArchiveKey, bytes]]) -> ArchivedChapter:
    """Chapter 0, to be read from the objects of its archive."""
    stored = {archive_key(key): data for key, data in objects}
    record = replace(decode_retired(0, golden("retired-archived")[1]), archives=tuple(stored))

    async def get(name: str, start: int, stop: int | None) -> Blob | None:
        return Blob(stored[name][start:stop], len(stored[name]), None, None) if name in stored else None

    return ArchivedChapter(record, get, OrderedDict())


async def assert_holds_chapter_0(chapter: ArchivedChapter) -> None:
    """Every golden entry and segment of chapter 0 comes off the shelf as from its own file, and nothing else does."""
    for name in CHAPTER_0:
        key, data, _, _ = golden(name)
        match parse_key(key):
            case EntryKey(_, number):
                assert await chapter.entry(number) == decode_entry(0, number, data)
            case SegmentKey() as slot:
                assert await chapter.segment(slot) == decode_segment(slot, data)
                after = replace(slot, slot=slot.slot + 1)
                assert (await chapter.segment(after) is None) == ("final" in name)
    assert await chapter.entry(10) is None
    assert await chapter.segment(SegmentKey("leader-b", 0, 3, 0)) is None


def names_in(archive: Values) -> list[str]:
    return [name for block in archive["objects"] for name, _ in block]


def in_order() -> list[tuple[str, bytes, Values]]:
    """Name, bytes and values of the golden entries and segments of chapter 0, in the order of an archive."""
    held = [(key, data, values) for key, data, _, values in map(golden, CHAPTER_0)]
    return sorted(held, key=lambda each: place(each[1]))


def test_the_golden_archive_is_of_the_golden_chapter() -> None:
    """It holds each entry and segment of chapter 0, in order, to both: entries whole, segments by frame and columns."""
    key, data, _, values = golden("archive")
    assert names_in(values) == [name for name, _, _ in in_order()]
    assert read_archive(data)[1] == [held for _, _, held in in_order()]
    parsed = parse_key(key)
    assert isinstance(parsed, ArchiveKey)
    entries: dict[int, bytes] = {}
    segments: dict[tuple[int, int], tuple[bytes, bytes]] = {}
    for content in decode_archive(parsed, data):
        entries |= content.entries
        segments |= content.segments
    assert len(entries) + len(segments) == len(CHAPTER_0)
    for name, whole, _ in in_order():
        match parse_key(name):
            case EntryKey(_, number):
                assert entries[number] == whole
            case SegmentKey() as slot:
                framed, columns = segments[slot.session, slot.slot]
                assert framed == whole[: len(framed)]
                assert decode_archived_segment(slot, framed, columns) == decode_segment(slot, whole)


async def test_the_golden_chapter_is_read_from_its_archive() -> None:
    """Who asks for what lay in a retired chapter gets it off the shelf as it is in its own golden file."""
    key, data, _, _ = golden("archive")
    assert golden("retired-archived")[3] == {**golden("retired")[3], "archives": [key]}
    parsed = parse_key(key)
    assert isinstance(parsed, ArchiveKey)
    await assert_holds_chapter_0(shelved([(parsed, data)]))


def test_an_archive_that_the_library_writes_format_md_reads() -> None:
    """What the library makes of the golden chapter is to FORMAT.md the same objects, under the same names."""
    ((key, data),) = library.write_archives(0, bytes(8), [(name, whole) for name, whole, _ in in_order()])
    values, items = read_archive(data)
    assert (values["chapter"], values["number"]) == (key.chapter, key.number) == (0, 0)
    assert items == [held for _, _, held in in_order()]
    assert names_in(values) == names_in(golden("archive")[3]) == [name for name, _, _ in in_order()]


@pytest.mark.slow
def test_an_archive_larger_than_an_object_is_cut_where_format_md_says() -> None:
    """The library begins another block before 4 MiB, another object after 16 MiB; FORMAT.md reads them as one."""
    values = golden("segment-one-event")[3]
    (event,) = values["events"]
    wholes, held = [], []
    for slot in range(9):
        payload = {"payload": Random(slot).randbytes(3 << 20).hex()}
        held.append({**values, "slot": slot, "events": [{**event, **payload}], "stamp": values["stamp"] + slot})
        wholes.append((f"log/web%2F1/0000000000/0000000001/{slot:010d}", write_segment(held[-1])))
    objects = library.write_archives(0, bytes(8), wholes)
    assert [key.number for key, _ in objects] == [0, 1]
    archives = [read_archive(data, {1: "web/1"}) for _, data in objects]
    assert [len(archive["blocks"]) for archive, _ in archives] == [6, 3]
    assert [item for _, items in archives for item in items] == held
    assert [name for archive, _ in archives for name in names_in(archive)] == [name for name, _ in wholes]


@given(st.lists(st.integers(0, 18), max_size=5), st.lists(st.integers(0, 5), max_size=3))
@settings(max_examples=50, deadline=None)
async def test_any_cut_of_an_archive_means_the_same_to_both(cuts: list[int], parts: list[int]) -> None:
    """Wherever blocks and objects of an archive end, the library and FORMAT.md read the same entries and segments."""
    wholes = [whole for _, whole, _ in in_order()]
    blocks = [wholes[start:stop] for start, stop in pairwise(sorted({0, len(wholes), *cuts}))]
    objects = []
    for number, (start, stop) in enumerate(
        pairwise(sorted({0, len(blocks), *(at for at in parts if at < len(blocks))}))
    ):
        objects.append((ArchiveKey(0, bytes(8), number), write_archive(0, number, blocks[start:stop])))
    writers: dict[int, str] = {}
    items = [item for _, data in objects for item in read_archive(data, writers)[1]]
    assert items == [held for _, _, held in in_order()]
    await assert_holds_chapter_0(shelved(objects))


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("open", True),
        ("open-exclusive", True),
        ("open-exclusive-invalid-overlap", False),
        ("open-exclusive-second-scope", True),
        ("open-exclusive-successor", True),
        ("open-exclusive-invalid-predecessor", False),
    ],
)
def test_golden_sessions_are_valid_or_not(name: str, valid: bool) -> None:
    """An exclusive session counts when it overlaps no other scope and names exactly the one it replaces."""
    opened = entry(name)
    assert isinstance(opened.body, Open)
    assert opened.valid is valid


def test_unknown_fields_are_ignored() -> None:
    """A later writer may add map keys; this reader passes over them, whatever they hold."""
    for name in (
        "store",
        "entry-tick",
        "entry-tick-point",
        "retired",
        "manifest",
        "registration",
        "pin",
        "claim",
        "gone",
    ):
        key, _, _, values = golden(name)
        more = {**values, "new": {"a": [1, {"b": [None, 0.5]}]}, "newer": None}
        assert library_values(key, write_small(type_of(name), more))[0] == values


def test_a_point_that_is_nil_is_none() -> None:
    """A tick whose point is nil is a tick like any other; one that builds on nothing is a point."""
    key, _, _, values = golden("entry-tick-point")
    assert "point" not in library_values(key, write_small(ENTRY, {**values, "point": None}))[0]
    assert library_values(key, write_small(ENTRY, {**values, "point": []}))[0] == {**values, "point": []}


texts = st.text(min_size=1, max_size=8)
packed = st.binary(min_size=1, max_size=12).map(bytes.hex)


@st.composite
def segments(draw: st.DrawFn) -> Values:
    """Any segment."""
    names = draw(st.lists(texts, min_size=1, max_size=4))
    name = st.sampled_from(names)
    event = {"kind": name, "key": texts, "type": name, "payload": packed, "meta": st.none() | packed}
    events = draw(st.lists(st.fixed_dictionaries(event), max_size=6))
    final = not events and draw(st.booleans())
    slot = draw(st.integers(0, 10**10 - 1))
    return {
        "chapter": draw(st.integers(0, 10**10 - 1)),
        "session": draw(st.integers(0, 10**10 - 1)),
        "slot": slot,
        "final": final,
        "sealed": final and draw(st.booleans()),
        "first_sequence": draw(st.integers(0, 2**64 - 1)),
        "stamp": draw(st.integers(0, 2**64 - 1)),
        "acknowledged": slot if final else draw(st.integers(0, slot)),
        "previous": draw(st.binary(min_size=32, max_size=32)).hex(),
        "events": events,
    }


@given(segments(), st.text(min_size=1, max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_segment_means_the_same_to_both(values: Values, writer: str) -> None:
    """Whatever a segment holds, the library and FORMAT.md read it alike, from whichever of the two wrote it."""
    key = SegmentKey(writer, values["chapter"], values["session"], values["slot"])
    data = write_segment(values)
    segment = decode_segment(key, data)
    assert library.segment_values(segment) == values == read_segment(data)
    assert segment.digest == digest_of(data)
    written, as_read = library.encode_segment(key, values)
    assert read_segment(written) == values
    assert decode_segment(key, written) == as_read, "the writer keeps what a reader would read"


blocks_of_pages = st.dictionaries(
    st.integers(0, 2**63 - 1),
    st.fixed_dictionaries(
        {"text": st.text(max_size=8), "severity": st.integers(0, 255), "created_ms": st.integers(0, 2**63 - 1)}
    ),
    max_size=6,
)


@given(blocks_of_pages, st.booleans(), st.text(min_size=1, max_size=20), st.integers(0, 10**10 - 1))
@settings(max_examples=100, deadline=None)
def test_any_stage_page_means_the_same_to_both(
    held: dict[int, Values], complete: bool, deployment: str, number: int
) -> None:
    """Whatever a page holds, the library and FORMAT.md read it alike, from whichever of the two wrote it."""
    key = StagePageKey(StageId(deployment, "s", 0), number)
    stop = max(held, default=-1) + 1
    run = stop - 1 if held else 0
    while run - 1 in held:
        run -= 1
    values = {
        "stage": digest_of_stage(stage_page_key(key)),
        "number": number,
        "complete": complete or not held,
        "abandoned": False,
        "run": run,
        "stop": stop,
        "previous": (b"\1" * 32 if number else bytes(32)).hex(),
        "blocks": [{"index": index, **held[index]} for index in sorted(held)],
    }
    data = write_stage_page(values)
    assert library.stage_page_values(decode_page(key, data)) == values == read_stage_page(data)
    assert read_stage_page(library.encode_stage_page(key, values)) == values


rows_of_chunks = st.dictionaries(texts, packed, min_size=1, max_size=20).map(
    lambda states: [{"key": key, "state": states[key]} for key in sorted(states, key=str.encode)]
)


@given(rows_of_chunks)
@settings(max_examples=100, deadline=None)
def test_any_chunk_means_the_same_to_both(rows: list[Row]) -> None:
    """Whatever rows a chunk holds, the library and FORMAT.md read, name and sum them alike, whoever wrote it."""
    values: Values = {"rows": rows}
    key = ChunkKey(0, 7, hash_of_rows(values))
    data = write_chunk(values)
    assert library.chunk_values(decode_chunk(key, data)) == values == read_chunk(data)
    written, hash_, size = library.encode_rows(values)
    assert read_chunk(written) == values
    assert (hash_, size) == (key.hash, len(pack_rows(values)))
    as_bytes = [(row["key"], bytes.fromhex(row["state"])) for row in rows]
    assert rows_digest(as_bytes).to_bytes(32, "big") == sum_of_rows(rows)


@given(rows_of_chunks, st.sets(st.integers(0, 19)))
@settings(max_examples=100, deadline=None)
def test_the_dead_are_the_same_to_both(rows: list[Row], buried: set[int]) -> None:
    """Which rows of a chunk are dead the library and FORMAT.md read alike."""
    dead = dead_bits(len(rows), {index for index in buried if index < len(rows)})
    mask = [True] * len(rows) if dead is None else alive_mask(dead, len(rows))
    assert alive(rows, dead) == [row for row, lives in zip(rows, mask, strict=True) if lives]


numbers, stamps = st.integers(0, 10**10 - 1), st.integers(0, 2**64 - 1)
digests = st.binary(min_size=32, max_size=32).map(plain)


@st.composite
def listed_chunks(draw: st.DrawFn) -> list[Any]:
    """What a manifest says of any chunk."""
    count = draw(st.integers(1, 20))
    dead = dead_bits(count, draw(st.sets(st.integers(0, count - 1), max_size=count - 1)))
    return [draw(numbers), draw(numbers), draw(digests), count, draw(stamps), plain(dead)]


@st.composite
def manifests(draw: st.DrawFn) -> Values:
    """Any manifest."""
    chunks = draw(st.lists(listed_chunks(), max_size=3, unique_by=str))
    stamp = draw(stamps)
    sessions = draw(st.dictionaries(st.tuples(numbers, numbers), st.tuples(numbers, stamps, stamps, digests)))
    verdict = st.tuples(numbers, numbers, stamps, st.integers(0, stamp))
    verdicts = draw(st.dictionaries(verdict, st.integers(0, 1)))
    return {
        "projection": draw(st.text(min_size=1, max_size=20)),
        "version": draw(st.integers(1, 10**10 - 1)),
        "fingerprint": plain(draw(st.binary(min_size=8, max_size=8))),
        "chapter": draw(numbers),
        "number": draw(numbers),
        "stamp": stamp,
        "entry": draw(digests),
        "sessions": [[*address, *tip] for address, tip in sorted(sessions.items())],
        "rows": sum(count - (int(dead["hex"], 16).bit_count() if dead else 0) for *_, count, _, dead in chunks),
        "digest": draw(digests),
        "chunks": chunks,
        "verdicts": sorted(([*event, kind] for event, kind in verdicts.items()), key=itemgetter(3, 0, 1, 2)),
    }


@given(manifests())
@settings(max_examples=100, deadline=None)
def test_any_manifest_means_the_same_to_both(values: Values) -> None:
    """Whatever a manifest says, the library and FORMAT.md read it alike, and write the same bytes."""
    fold = Fold(values["projection"], values["version"], unplain(values["fingerprint"]))
    data = write_small(MANIFEST, values)
    manifest = decode_manifest(ManifestKey(fold, values["chapter"], values["number"]), data)
    assert library.manifest_values(manifest) == values == read_small(MANIFEST, data)
    assert manifest.digest == digest_of(data)
    assert encode_manifest(manifest) == data


folds = st.tuples(st.text(min_size=1, max_size=20), st.integers(1, 10**10 - 1), st.binary(min_size=8, max_size=8))


@given(st.dictionaries(folds, st.tuples(numbers, numbers)))
@settings(max_examples=100, deadline=None)
def test_any_point_means_the_same_to_both(built_on: dict[tuple[Any, ...], tuple[int, int]]) -> None:
    """Whatever manifests a point names, the library and FORMAT.md read it alike, from whichever of the two wrote it."""
    key, _, _, values = golden("entry-tick-point")
    values = {**values, "point": plain(sorted((*fold, *point) for fold, point in built_on.items()))}
    data = write_small(ENTRY, values)
    assert library_values(key, data) == (values, digest_of(data).hex())
    assert read_small(ENTRY, library_bytes(key, data)) == values


@st.composite
def registrations(draw: st.DrawFn) -> Values:
    """Any registration."""
    return {
        "registered": draw(st.booleans()),
        "number": draw(st.integers(0, 10**10 - 1)),
        "projection": draw(st.text(min_size=1, max_size=20)),
        "version": draw(st.integers(1, 10**10 - 1)),
        "kinds": sorted(draw(st.sets(texts)), key=str.encode),
        "fold": draw(texts),
        "tag": draw(st.text()),
    }


@given(registrations())
@settings(max_examples=100, deadline=None)
def test_any_registration_means_the_same_to_both(values: Values) -> None:
    """Whatever is registered, the library and FORMAT.md read it alike, write the same bytes and name it alike."""
    _, number, *declared = values.values()
    key = RegistrationKey(Fold(values["projection"], values["version"], fingerprint(*declared)), number)
    data = write_small(REGISTRATION, values)
    registration = decode_registration(key, data)
    assert library.registration_values(number, registration) == values == read_small(REGISTRATION, data)
    assert encode_registration(number, registration) == data


@st.composite
def pins(draw: st.DrawFn) -> Values:
    """Any pin."""
    return {
        "id": plain(draw(st.binary(min_size=8, max_size=8))),
        "number": draw(numbers),
        "owner": draw(st.text(max_size=20)),
        "chapter": draw(numbers),
        "expires_ms": draw(stamps),
    }


@given(pins())
@settings(max_examples=100, deadline=None)
def test_any_pin_means_the_same_to_both(values: Values) -> None:
    """Whatever a pin says, the library and FORMAT.md read it alike, from whichever of the two wrote it."""
    key = PinKey(unplain(values["id"]), values["number"])
    pin = PinRecord(key, values["owner"], values["chapter"], values["expires_ms"])
    assert decode_pin(key, write_small(PIN, values)) == pin
    assert read_small(PIN, encode_pin(pin)) == values


def test_the_worked_examples_are_the_golden_files() -> None:
    """The hex in FORMAT.md is that of the golden segment and of the golden page, byte for byte."""
    text = Path(__file__).parent.parent.joinpath("docs/FORMAT.md").read_text()
    assert worked_example() in text
    assert stage_page_example() in text


def test_golden_files_are_never_overwritten(tmp_path: Path) -> None:
    """The script writes what is missing, and leaves alone what is there, even when it is nonsense."""
    tmp_path.joinpath("store.bin").write_bytes(b"precious")
    names = write_new(tmp_path)
    assert set(names) == set(NAMES) - {"store"}
    assert tmp_path.joinpath("store.bin").read_bytes() == b"precious"
    assert write_new(tmp_path) == []


# Protected objects (§17) --------------------------------------------------------------------------

PROTECTED = Path(__file__).parent / "golden" / "v1-protected"


@pytest.mark.parametrize("name", ["segment-many-names-and-metas", "manifest", "store"])
def test_protected_objects_decode_for_ever(name: str) -> None:
    """A golden object, signed, then encrypted: the library and §17 alone read the same there, and write it alike."""
    key, plain = json.loads((V1 / f"{name}.json").read_text())["key"], (V1 / f"{name}.bin").read_bytes()
    stored = (PROTECTED / f"{name}.bin").read_bytes()
    secret = b"keeper".ljust(32)
    signed = protected.read_encrypted(key, stored, KEY)
    assert protected.read_signed(key, signed, SIGNING_KEYS["keeper"].public) == plain
    salt = stored[28:60]
    assert protected.write_encrypted(key, protected.write_signed(key, plain, secret), KEY, salt) == stored

    async def by_the_library() -> bytes:
        store, made = MemoryStore(), MemoryStore()
        await store.create(key, stored)
        protection = Protection(KEYRING, TRUST, SIGNING_KEYS["keeper"], lambda _: salt)
        await protect(made, protection).create(key, plain)
        assert (await made.get(key)).data == stored
        return (await protect(store, protection).get(key)).data

    assert asyncio.run(by_the_library()) == plain
