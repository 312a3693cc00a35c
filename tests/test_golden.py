"""The golden files decode for ever, to what stands beside them; the library and FORMAT.md mean the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.entry import Begin, Entry, Open, decode_entry, encode_entry, require_follows
from logstore.frontier import Frontier
from logstore.identity import decode_identity, encode_identity
from logstore.keys import EntryKey, RetiredKey, SegmentKey, StoreKey, parse_key
from logstore.retired import decode_retired, encode_retired
from logstore.segment import decode_segment
from tests.golden import library
from tests.golden.example import worked_example
from tests.golden.independent import (
    ENTRY,
    RETIRED,
    STORE,
    Values,
    digest_of,
    read_segment,
    read_small,
    write_segment,
    write_small,
)
from tests.golden.make import V1, write_new

NAMES = [
    *("store", "store-copied", "retired"),
    *("entry-begin", "entry-open", "entry-open-exclusive", "entry-open-exclusive-invalid-overlap"),
    *(
        "entry-open-exclusive-second-scope",
        "entry-open-exclusive-successor",
        "entry-open-exclusive-invalid-predecessor",
    ),
    *("entry-tick", "entry-tick-empty", "entry-closed", "entry-begin-of-chapter-1"),
    *("segment-one-event", "segment-many-names-and-metas", "segment-300-kinds"),
    *("segment-heartbeat", "segment-final", "segment-sealed-final"),
]
SEGMENTS = [name for name in NAMES if name.startswith("segment-")]
SMALL = [name for name in NAMES if name not in SEGMENTS]
TYPES = {"store": STORE, "entry": ENTRY, "retired": RETIRED}


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
        case _:
            raise AssertionError(f"no small object {key}")


def segment_key_of(key: str) -> SegmentKey:
    parsed = parse_key(key)
    assert isinstance(parsed, SegmentKey)
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
    read = read_segment(data) if name in SEGMENTS else read_small(type_of(name), data)
    assert (read, digest_of(data).hex()) == (values, digest)


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


def test_the_golden_log_is_one_chain() -> None:
    """Its entries and segments follow one another as FORMAT §4, §5 and §7 demand, to a reader that checks them all."""
    _, store, _, _ = golden("store")
    frontier = Frontier(decode_identity(store).id, digest_of(store), None)
    for name in [name for name in NAMES if name.startswith("entry-") and name != "entry-begin-of-chapter-1"]:
        frontier.take_entry(entry(name.removeprefix("entry-")))
    for name in SEGMENTS:
        key, data, _, _ = golden(name)
        frontier.take_segment(decode_segment(segment_key_of(key), data))
    assert sorted(frontier.sessions) == [(0, 2), (0, 4)]
    for number in (2, 4):
        del frontier.sessions[0, number]
    closed = frontier.last
    frontier.take_retirement(decode_retired(0, golden("retired")[1]))
    require_follows(entry("begin-of-chapter-1"), frontier.last, b"")
    require_follows(entry("begin-of-chapter-1"), closed, b"")
    assert isinstance(entry("begin-of-chapter-1").body, Begin)


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
    for name in ("store", "entry-tick", "retired"):
        key, _, _, values = golden(name)
        more = {**values, "new": {"a": [1, {"b": [None, 0.5]}]}, "newer": None}
        assert library_values(key, write_small(type_of(name), more))[0] == values


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


def test_the_worked_example_is_the_golden_file() -> None:
    """The hex in FORMAT.md is that of the golden segment, byte for byte."""
    text = Path(__file__).parent.parent.joinpath("docs/FORMAT.md").read_text()
    assert worked_example() in text


def test_golden_files_are_never_overwritten(tmp_path: Path) -> None:
    """The script writes what is missing, and leaves alone what is there, even when it is nonsense."""
    tmp_path.joinpath("store.bin").write_bytes(b"precious")
    names = write_new(tmp_path)
    assert set(names) == set(NAMES) - {"store"}
    assert tmp_path.joinpath("store.bin").read_bytes() == b"precious"
    assert write_new(tmp_path) == []
