"""The library's objects as the plain values of ``independent.py``, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from logstore.archive import ArchiveWriter, BlockContent, Part
from logstore.chunk import Chunk, encode_chunk
from logstore.claim import Claim
from logstore.entry import Begin, Closed, Entry, Open, Tick, decode_entry, encode_scopes
from logstore.event import EventEncoder
from logstore.gone import Gone
from logstore.identity import Identity
from logstore.keys import (
    ArchiveKey,
    EntryKey,
    ManifestKey,
    SegmentKey,
    StagePageKey,
    entry_key,
    parse_key,
    segment_key,
    stage_page_key,
)
from logstore.manifest import Manifest
from logstore.pin import PinRecord
from logstore.registration import Registration
from logstore.retired import Retired
from logstore.segment import Segment, SegmentEncoder, decode_archived_segment, decode_segment
from logstore.stagepage import Block, Page, encode_page
from tests.golden.independent import Values, digest_of_stage, plain

KINDS = (Begin, Open, Tick, Closed)
VERDICTS = ("rejected", "parked")


def store_values(identity: Identity) -> Values:
    named = [name for name in Identity.__slots__ if name not in {"digest", "origin"}]
    values: Values = plain({name: getattr(identity, name) for name in named})
    return values | ({} if identity.origin is None else plain({"root": identity.origin}))


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
        if entry.body.point is not None:
            values["point"] = [list(manifest_name(key).values()) for key in entry.body.point]
    flat: Values = plain(values)
    return flat


def manifest_name(key: ManifestKey) -> dict[str, Any]:
    """The fields of a manifest that its name holds."""
    return {
        **{name: getattr(key.fold, name) for name in ("projection", "version", "fingerprint")},
        **{name: getattr(key, name) for name in ("chapter", "number")},
    }


def manifest_values(manifest: Manifest) -> Values:
    values: Values = plain(
        {
            **manifest_name(manifest.key),
            "stamp": manifest.stamp,
            "entry": manifest.entry_digest,
            "sessions": [[session.chapter, session.number, *session.tip] for session in manifest.sessions],
            "rows": manifest.rows,
            "digest": manifest.rows_digest.to_bytes(32, "big"),
            "chunks": [
                [each.key.chapter, each.key.number, each.key.hash, each.rows, each.size, each.dead]
                for each in manifest.chunks
            ],
            "verdicts": [[*verdict[:-1], VERDICTS.index(verdict.kind)] for verdict in manifest.verdicts],
        }
    )
    return values


def registration_values(number: int, registration: Registration) -> Values:
    values: Values = plain({name: getattr(registration, name) for name in Registration.__slots__})
    return {**values, "number": number}


def claim_values(claim: Claim) -> Values:
    """The fields of a claim."""
    *_, payload, meta = EventEncoder().encode(claim.event())
    named = {name: getattr(claim, name) for name in ("id", "claimant", "last_stamp", "type")}
    key = claim.key
    values: Values = plain(
        {
            "kind": key.kind,
            "document": key.key,
            "number": key.number,
            **named,
            "data": payload,
            "meta": meta,
        }
    )
    return values


def pin_values(pin: PinRecord) -> Values:
    named = {name: getattr(pin, name) for name in ("owner", "chapter", "expires_ms")}
    values: Values = plain({"id": pin.key.id, "number": pin.key.number, **named})
    return values


def archive_values(part: Part, contents: Iterable[BlockContent]) -> Values:
    """The values of a whole archive in one object."""
    chapter = part.key.chapter
    writers: dict[int, str] = {}
    objects = []
    for content in contents:
        placed = []
        for number, data in content.entries.items():
            entry = decode_entry(chapter, number, data)
            if isinstance(entry.body, Open):
                writers[number] = entry.body.writer
            placed.append(((entry.stamp, 0, 0, number), entry_key(chapter, number), entry.digest))
        for (session, slot), held in content.segments.items():
            key = SegmentKey(writers[session], chapter, session, slot)
            segment = decode_archived_segment(key, *held)
            placed.append(((segment.stamp, 1, session, slot), segment_key(*key_fields(key)), segment.digest))
        objects.append([[name, digest.hex()] for _, name, digest in sorted(placed)])
    names = ("stored", "unpacked", "digest", "entry", "entries", "slots")
    blocks = [[getattr(block, name) for name in names] for block in part.blocks]
    return {"chapter": chapter, "number": part.key.number, "blocks": plain(blocks), "objects": objects}


def key_fields(key: SegmentKey) -> tuple[str, int, int, int]:
    return key.writer, key.chapter, key.session, key.slot


def write_archives(chapter: int, nonce: bytes, objects: list[tuple[str, bytes]]) -> list[tuple[ArchiveKey, bytes]]:
    """Let the library archive objects, by name, in this order."""
    writer, made = ArchiveWriter(chapter, nonce), []
    for name, data in objects:
        match parse_key(name):
            case EntryKey(_, number):
                full = writer.take_entry(decode_entry(chapter, number, data), data)
            case SegmentKey() as key:
                full = writer.take_segment(decode_segment(key, data), data)
            case _:
                raise AssertionError(name)
        made += [full] if full else []
    return [*made, writer.finish()]


def chunk_values(chunk: Chunk) -> Values:
    rows = zip(chunk.keys, chunk.states, strict=True)
    return {"rows": [{"key": key, "state": state.hex()} for key, state in rows]}


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
        (
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


def encode_rows(values: Values) -> tuple[bytes, bytes, int]:
    """Let the library write a chunk: its bytes, its hash, and its columns' size."""
    rows = values["rows"]
    return encode_chunk([row["key"] for row in rows], [bytes.fromhex(row["state"]) for row in rows])


def stage_page_values(page: Page) -> Values:
    head = page.head
    return {
        "stage": digest_of_stage(stage_page_key(head.key)),
        "number": head.key.number,
        **{name: getattr(head, name) for name in ("complete", "abandoned", "run", "stop")},
        "previous": head.previous.hex(),
        "blocks": [{name: getattr(block, name) for name in Block.__slots__} for block in page.blocks],
    }


def encode_stage_page(key: StagePageKey, values: Values) -> bytes:
    """Let the library write a page of a stage log."""
    return encode_page(
        key,
        [Block(**block) for block in values["blocks"]],
        previous=bytes.fromhex(values["previous"]) if key.number else None,
        **{name: values[name] for name in ("complete", "abandoned", "run", "stop")},
    )[0]


def gone_values(gone: Gone) -> Values:
    stage = {name: getattr(gone.stage, name) for name in ("deployment", "stage", "retry")}
    values: Values = plain({**stage, "pages": gone.pages, "digest": gone.digest})
    return values
