"""The library's objects as the plain values of ``independent.py``, and back."""

from __future__ import annotations

from typing import Any

from logstore.entry import Begin, Closed, Entry, Open, Tick, encode_scopes
from logstore.event import EncodedEvent
from logstore.identity import Identity
from logstore.keys import SegmentKey
from logstore.retired import Retired
from logstore.segment import Segment, SegmentEncoder
from tests.golden.independent import Values, plain

KINDS = (Begin, Open, Tick, Closed)


def store_values(identity: Identity) -> Values:
    values: Values = plain({name: getattr(identity, name) for name in Identity.__slots__ if name != "digest"})
    return values


def entry_values(entry: Entry) -> Values:
    values: dict[str, Any] = {
        name: getattr(entry, name) for name in ("chapter", "number", "stamp", "previous", "nonce")
    }
    values["kind"] = KINDS.index(type(entry.body))
    values["scopes"] = encode_scopes(entry.scopes)
    if isinstance(entry.body, Open):
        values |= {name: getattr(entry.body, name) for name in ("writer", "idle_ms", "seal_ms", "flights")}
        exclusive = entry.body.exclusive
        values["exclusive"] = exclusive and {"kinds": exclusive.kinds, "predecessor": exclusive.predecessor}
    if isinstance(entry.body, Tick):
        values["slots"] = entry.body.slots
    flat: Values = plain(values)
    return flat


def retired_values(retired: Retired) -> Values:
    values: dict[str, Any] = {
        name: getattr(retired, name) for name in ("chapter", "closed", "digest", "stamp", "archives")
    }
    values["scopes"] = encode_scopes(retired.scopes)
    values["sessions"] = [[number, *held] for number, held in sorted(retired.sessions.items())]
    flat: Values = plain(values)
    return flat


def segment_values(segment: Segment) -> Values:
    columns, events = segment.columns, []
    if columns is not None:
        for index in range(segment.count):
            meta = columns.metas.get(index)
            events.append(
                {
                    "kind": columns.kind(index),
                    "key": columns.keys[index],
                    "type": columns.type(index),
                    "payload": columns.payloads[index].hex(),
                    "meta": None if meta is None else meta.hex(),
                }
            )
    names = (
        "final",
        "sealed",
        "first_sequence",
        "stamp",
        "acknowledged",
    )
    return {
        "chapter": segment.key.chapter,
        "session": segment.key.session,
        "slot": segment.key.slot,
        **{name: getattr(segment, name) for name in names},
        "previous": segment.previous.hex(),
        "events": events,
    }


def encode_segment(key: SegmentKey, values: Values) -> tuple[bytes, Segment]:
    """Let the library write a segment."""
    events = [
        EncodedEvent(
            event["kind"],
            event["key"],
            event["type"],
            bytes.fromhex(event["payload"]),
            None if event["meta"] is None else bytes.fromhex(event["meta"]),
        )
        for event in values["events"]
    ]
    return SegmentEncoder().encode(
        key,
        events,
        first_sequence=values["first_sequence"],
        stamp=values["stamp"],
        acknowledged=values["acknowledged"],
        previous=bytes.fromhex(values["previous"]),
        final=values["final"],
        sealed=values["sealed"],
    )
