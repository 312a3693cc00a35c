"""Segments: columns in, columns out, and no object per event on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logstore.event
import logstore.reader
import logstore.segment
from logstore.event import EncodedEvent, Event, EventEncoder, StoredEvent, decode_data
from logstore.keys import SegmentKey
from logstore.segment import COUNT_MAX, SegmentEncoder, decode_segment
from tests.test_event import events, read_only, same

KEY = SegmentKey("web-1", 0, 1, 7)
DIGEST = bytes(range(32))


def encode(batch: Sequence[EncodedEvent], **header: Any) -> tuple[bytes, logstore.segment.Segment]:
    whole = {"first_sequence": 3, "stamp": 1_000, "acknowledged": 7, "previous": DIGEST, **header}
    return SegmentEncoder().encode(KEY, batch, **whole)


@given(st.lists(events, max_size=8), st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 7))
@settings(max_examples=75, deadline=None)
def test_any_events_come_back(batch: list[Event], sequence: int, stamp: int, acknowledged: int) -> None:
    """A segment decodes to the events encoded, and to the header it was given."""
    encoder = EventEncoder()
    encoded = [encoder.encode(event) for event in batch]
    data, written = encode(encoded, first_sequence=sequence, stamp=stamp, acknowledged=acknowledged)
    segment = decode_segment(KEY, data)
    assert segment == written
    assert (segment.first_sequence, segment.stamp, segment.acknowledged) == (sequence, stamp, acknowledged)
    assert segment.count == len(batch)
    assert (segment.previous, segment.final, segment.sealed) == (DIGEST, False, False)
    assert (segment.columns is None) == (not batch)
    for index, event in enumerate(batch):
        columns = segment.columns
        assert columns is not None
        assert (columns.kind(index), columns.keys[index], columns.type(index)) == (event.kind, event.key, event.type)
        assert same(decode_data(columns.payloads[index], ""), read_only(event.data))
        meta = columns.metas.get(index)
        assert same(None if meta is None else decode_data(meta, ""), read_only(event.meta))


@pytest.mark.parametrize("names", [1, 2, 255, 256, 257, 1_000])
def test_kinds_and_types_of_any_number(names: int) -> None:
    """One name has no codes, up to 256 have one byte each, more have two; each event keeps its own."""
    batch = [(f"k{i % names}", f"d-{i}", f"t{(i * 7) % names}", b"\xc0", None) for i in range(2_000)]
    columns = decode_segment(KEY, encode(batch)[0]).columns
    assert columns is not None
    assert [columns.kind(i) for i in range(2_000)] == [kind for kind, *_ in batch]
    assert [columns.type(i) for i in range(2_000)] == [type_ for _, _, type_, *_ in batch]
    assert (columns.kind_codes is None) == (names == 1)


def test_a_segment_of_the_most_events() -> None:
    """65,536 events fit in one segment."""
    batch = [("k", f"d-{i}", "t", b"\xc0", None) for i in range(COUNT_MAX)]
    segment = decode_segment(KEY, encode(batch)[0])
    assert segment.count == COUNT_MAX
    assert segment.columns is not None
    assert segment.columns.keys[-1] == f"d-{COUNT_MAX - 1}"


@pytest.mark.parametrize(("final", "sealed"), [(False, False), (True, False), (True, True)])
def test_empty_segments(final: bool, sealed: bool) -> None:
    """A heartbeat, a final and a sealed final have a stamp, no columns, and 168 bytes."""
    data, written = encode([], final=final, sealed=sealed)
    segment = decode_segment(KEY, data)
    assert segment == written
    assert (segment.final, segment.sealed, segment.columns, segment.count) == (final, sealed, None, 0)
    assert segment.stamp == 1_000
    assert len(data) == 168


@pytest.mark.parametrize(
    ("count", "header"),
    [(1, {"final": True}), (1, {"final": True, "sealed": True}), (0, {"sealed": True}), (COUNT_MAX + 1, {})],
)
def test_what_no_reader_would_take_is_never_encoded(count: int, header: dict[str, bool]) -> None:
    """A final is empty, only finals are sealed, and a segment has its limit: to encode otherwise is our mistake."""
    with pytest.raises(AssertionError):
        encode([("k", "d", "t", b"\xc0", None)] * count, **header)


def test_equal_events_have_equal_bytes() -> None:
    """Encoding is a function: a retried creation offers the bytes of the first."""
    batch = [("k", "d-1", "t", b"\x80", b"\x80"), ("l", "d-2", "t", b"\xc0", None)]
    encoder = SegmentEncoder()
    header: dict[str, Any] = {"first_sequence": 0, "stamp": 1, "acknowledged": 0, "previous": DIGEST}
    assert (
        encoder.encode(KEY, batch, **header)[0] == encoder.encode(KEY, batch, **header)[0] == encode(batch, **header)[0]
    )


def test_columns_build_no_object_per_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding 50,000 events to columns constructs no Event and no StoredEvent."""
    batch = [("Deployment", f"d-{i}", "planned", b"\x81\xa1a\x01", None) for i in range(50_000)]
    data, _ = encode(batch)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an object per event")

    monkeypatch.setattr(Event, "__new__", refuse)
    monkeypatch.setattr(StoredEvent, "__init__", refuse)
    monkeypatch.setattr(logstore.event, "decode_data", refuse)
    segment = decode_segment(KEY, data)
    columns = segment.columns
    assert columns is not None
    state = dict(zip(columns.keys, columns.payloads, strict=True))
    assert len(state) == segment.count == 50_000
    assert state["d-49999"] == b"\x81\xa1a\x01"
    assert columns.kind_codes is None
    with pytest.raises(AssertionError, match="an object per event"):
        Event("k", "d", "t")
