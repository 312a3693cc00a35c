"""The targets: every decoder of stored bytes, of a user's token, of a name, of a line of input, of an expression."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

from hypothesis import strategies as st

from logstore import Log, Protection
from logstore.archive import decode_part
from logstore.check import decode_segment_data
from logstore.chunk import Chunk, encode_chunk
from logstore.claim import encode_claim
from logstore.entry import encode_entry
from logstore.errors import Corrupt, InvalidArgument, InvalidCursor, LimitExceeded, LogStoreError, StaleStore
from logstore.event import EncodedEvent, EventEncoder, decode_data
from logstore.filestore import MemoryStore
from logstore.frame import ObjectType
from logstore.frontier import Position
from logstore.gone import encode_gone
from logstore.identity import encode_identity
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    EntryKey,
    Key,
    ManifestKey,
    PinKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StageGoneKey,
    StagePageKey,
    StoreKey,
    chunk_key,
    entry_key,
    escape_name,
    parse_key,
    segment_key,
    unescape_name,
)
from logstore.manifest import encode_manifest
from logstore.named import decode_named
from logstore.pin import encode_pin
from logstore.protection import protect
from logstore.receipt import Receipt
from logstore.registration import encode_registration
from logstore.retired import encode_retired
from logstore.segment import COLUMNS_BYTES_MAX, Segment, SegmentEncoder, decode_archived_segment
from logstore.stagepage import Page, decode_head, encode_page
from logstore.unsettled import Question
from projections.cli.documentlines import document_of_line, fields_of_document
from projections.cli.inputs import batches_of_lines
from projections.cli.jsonlines import event_and_place, line_of_event
from projections.cli.projection import load_projection
from projections.cli.terminal import address_of, age_of
from projections.console.collections import Asked
from projections.decoded import DecodedRows, decode_each
from projections.past import parse_moment, stamp_of
from projections.query import Query, find
from projections.tombstone import decode_state
from projections.values import encode
from projections.watch import _stamp_of
from tests.fuzz import texts
from tests.fuzz.bend import bend_bytes, bend_value, odd_values, pack
from tests.fuzz.objects import GOOD, HEADERS, Stored, bent, names, random_objects
from tests.fuzz.verdict import Target
from tests.golden.independent import frame, unframe
from tests.protected import KEYRING, SIGNING_KEYS, TRUST
from tests.test_event import read_only
from tests.test_keys import build
from tests.test_query import Table

__all__ = ["TARGETS"]

KIB, MIB = 1 << 10, 1 << 20
FACTOR: Final = 120  # an empty map takes a byte, and 72 bytes once it is decoded; what is checked may be there twice
CONSTANT: Final = 10 * MIB  # what little may announce, and what 64 kB may hold (logstore/frame.py)


# Objects of a store ---------------------------------------------------------------------------


def announced(stored: Stored) -> int:
    """Up to which size a decoder may unpack what follows the frame: what it announces, if that is within the limits."""
    header = HEADERS.get(stored.data[5]) if len(stored.data) > 12 else None
    if header is None or len(stored.data) < 12 + sum(header.widths):
        return 0
    size = header.read(stored.data[12 : 12 + sum(header.widths)])[header.unpacked]
    return size if size <= (16 * MIB if stored.data[5] == ObjectType.STAGE_PAGE else COLUMNS_BYTES_MAX) else 0


def allowance_of_object(stored: Stored) -> int:
    return CONSTANT + FACTOR * len(stored.data) + 3 * announced(stored) + min(FACTOR * announced(stored), 40 * MIB)


def same_object(value: Any) -> Any:
    """What an object says, without digests and sizes that follow from how its bytes are laid out."""
    match value:
        case Segment():
            return replace(value, digest=b"", columns=None, columns_bytes=0), events_of(value)
        case Page():
            return replace(value.head, digest=b"", size=0, weight=0), value.blocks
    return replace(value, digest=b"") if hasattr(value, "digest") and not hasattr(value, "pages") else value


def events_of(segment: Segment) -> list[EncodedEvent]:
    columns = segment.columns
    if columns is None:
        return []
    assert len(columns.keys) == len(columns.payloads) == segment.count
    assert set(map(type, columns.keys)) == {str}
    assert set(map(type, columns.payloads)) == {bytes}
    return [
        (columns.kind(at), columns.keys[at], columns.type(at), columns.payloads[at], columns.metas.get(at) or None)
        for at in range(segment.count)
    ]


def write_object(value: Any, given: Stored) -> Stored:
    """Any object but an archive, written again under its name."""
    data: bytes
    match parse_key(given.name):
        case StoreKey():
            data = encode_identity(value)
        case EntryKey():
            data = encode_entry(value)[0]
        case RetiredKey():
            data = encode_retired(value)
        case ManifestKey():
            data = encode_manifest(value)
        case RegistrationKey(_, number):
            data = encode_registration(number, value)
        case PinKey():
            data = encode_pin(value)
        case ClaimKey():
            data = encode_claim(value)
        case StageGoneKey():
            data = encode_gone(value)
        case ChunkKey() as key:
            assert isinstance(value, Chunk)
            data, hash_, _ = encode_chunk(value.keys, value.states)
            return Stored(chunk_key(replace(key, hash=hash_)), data)
        case StagePageKey() as key:
            head = value.head
            data, _ = encode_page(
                key,
                value.blocks,
                run=head.run,
                stop=head.stop,
                previous=head.previous if key.number else None,
                complete=head.complete,
                abandoned=head.abandoned,
            )
        case SegmentKey() as key:
            data, _ = SegmentEncoder().encode(
                key,
                events_of(value),
                first_sequence=value.first_sequence,
                stamp=value.stamp,
                acknowledged=value.acknowledged,
                previous=value.previous,
                final=value.final,
                sealed=value.sealed,
            )
        case _:
            return given
    return Stored(given.name, data)


def object_target(kind: str) -> Target:
    good = GOOD[kind]
    return Target(
        kind,
        (good, *[bent(good)] * 4, random_objects(good)),
        decode=lambda stored: decode_named(*stored),
        errors=(Corrupt,),
        allowance=allowance_of_object if kind != "archive" else allowance_of_archive,
        again=write_object,
        same=same_object,
        named=lambda stored: stored.name,
    )


def allowance_of_archive(stored: Stored) -> int:
    """The largest of its blocks may be in memory twice, another one beside it; whatever the object holds."""
    key = parse_key(stored.name)
    if not isinstance(key, ArchiveKey):
        return allowance_of_object(stored)
    try:
        blocks = decode_part(key, stored.data, len(stored.data)).blocks
    except Corrupt:
        return allowance_of_object(stored)
    largest = max((block.unpacked for block in blocks), default=0)
    return allowance_of_object(stored) + 4 * largest + min(FACTOR * largest, 40 * MIB)


def decode_data_of_segment(stored: Stored) -> Segment:
    return decode_segment_data(*stored)


def decode_head_of_page(stored: Stored) -> Any:
    key = parse_key(stored.name)
    return decode_head(key, stored.data) if isinstance(key, StagePageKey) else decode_named(*stored)


def decode_table(stored: Stored) -> Any:
    key = parse_key(stored.name)
    return decode_part(key, stored.data, len(stored.data)) if isinstance(key, ArchiveKey) else decode_named(*stored)


def decode_from_archive(given: tuple[bytes, bytes]) -> Segment:
    return decode_archived_segment(SegmentKey("w", 0, 1, 2), *given)


def alike(kind: str, name: str, decode: Callable[[Stored], Any]) -> Target:
    """Another decoder of the same objects."""
    return replace(object_target(kind), name=name, decode=decode, again=None)


@st.composite
def bent_envelopes(draw: Any, good: st.SearchStrategy[Stored]) -> Stored:
    """An envelope in which something is bent; below its digest, most often."""
    name, data = draw(good)
    type_, flags, body, _, rest = unframe(data)
    match draw(st.sampled_from(["body", "flags", "rest", "bytes"])):
        case "body":
            return Stored(name, frame(type_, flags, bend_bytes(draw, body)) + rest)
        case "flags":
            return Stored(name, frame(type_, draw(st.sampled_from([0, 1, 0x4000, 0x8000, 0xC000])), body) + rest)
        case "rest":
            return Stored(name, frame(type_, flags, body) + bend_bytes(draw, rest))
        case _:
            return Stored(name, bend_bytes(draw, data))


def protected_target(word: str, protection: Protection) -> Target:
    """What a protected store makes of what lies there."""

    async def go(stored: Stored, *, through: bool) -> bytes:
        within = MemoryStore()
        outside = protect(within, protection)
        await (outside if through else within).create(*stored)
        return (await (within if through else outside).get(stored.name)).data

    def write(stored: Stored) -> Stored:
        return Stored(stored.name, asyncio.run(go(stored, through=True)))

    def write_again(data: bytes, stored: Stored) -> Stored:
        try:
            return write(Stored(stored.name, data))
        except Corrupt:
            return stored  # bent within its envelope: left for its decoder to find

    good = st.one_of(GOOD["segment"], GOOD["claim"], GOOD["stage page"]).map(write)
    return Target(
        f"{word} object",
        (good, bent_envelopes(good), bent_envelopes(good)),
        lambda stored: asyncio.run(go(stored, through=False)),
        (Corrupt,),
        lambda stored: CONSTANT + FACTOR * len(stored.data),
        write_again,
        named=lambda stored: stored.name,
    )


@st.composite
def segments_with_bent_data(draw: Any) -> Stored:
    """A segment whose columns are right, with data of events that is not."""
    key = SegmentKey("w", 0, 1, 0)
    odd = odd_values.map(pack) | st.builds(lambda value: pack({"a": value}), odd_values)
    batch = [("k", "d", "t", draw(odd), draw(st.none() | odd)) for _ in range(draw(st.integers(1, 3)))]
    data, _ = SegmentEncoder().encode(key, batch, first_sequence=0, stamp=1, acknowledged=0, previous=bytes(32))
    return Stored(segment_key("w", 0, 1, 0), data)


# Data of events, rows -------------------------------------------------------------------------

datas = st.dictionaries(st.text(max_size=5), texts.values, max_size=4)


@st.composite
def bent_datas(draw: Any) -> bytes:
    data = draw(datas)
    if draw(st.booleans()):
        return pack(bend_value(draw, data))
    return bend_bytes(draw, pack(data)) if draw(st.booleans()) else pack(draw(odd_values))


ODD_KEY: Final = "d\n1\u2028"
SHOWN_KEY: Final = r"key='d\n1\u2028'"
PAYLOADS: Final = (datas.map(pack), bent_datas(), st.binary(max_size=60))
TOMBSTONES: Final = tuple(each.map(lambda data: b"\x92\xcf" + bytes(7) + b"\x09" + data) for each in PAYLOADS)


def allowance_of_bytes(given: Any) -> int:
    return CONSTANT + FACTOR * len(given)


def look_at_row(row: bytes) -> Any:
    """A row as a view hands it out, and as an index is built of it."""
    data = DecodedRows().of(ODD_KEY, row)
    ((_, seen),) = decode_each([(ODD_KEY, row)])
    assert read_only(seen) == data or "nan" in repr(data)
    with suppress(InvalidArgument):  # NaN has no place in an index
        encode(seen)
    return data


def print_event(payload: bytes) -> str:
    """What the tool prints of an event of somebody's, and takes again."""
    line = line_of_event(texts.stored(payload))
    if '{"$float":"NaN"}' not in line:  # which no writer of ours stores, and none takes
        event, _ = event_and_place(line.encode())
        EventEncoder().encode(event)
    return line


# Tokens ---------------------------------------------------------------------------------------

ROWS: Final = Table({"a": {"status": 1, "name": "x"}, "b": {"status": 2}, "c": {"status": None, "name": 3}})
LOG: Final = cast(Log, SimpleNamespace(identity=SimpleNamespace(id=texts.WATCH_STORE)))


def decode_cursor(text: str) -> Any:
    """The page that a cursor asks for, of whichever query it is of."""
    refused: InvalidCursor | None = None
    for query in texts.QUERIES:
        try:
            position = query.parse_cursor(text, texts.SCOPE)
        except InvalidCursor as error:
            refused = error
        else:
            find(query, ROWS, [], limit=2, cursor=text, scope=texts.SCOPE)
            return query, position
    assert refused is not None
    raise refused


def use_position(text: str) -> Position:
    """A position, and the names of what a reader goes on at."""
    position = Position.parse(text)
    if position.last is not None:
        entry_key(*position.last)
    for session in position.sessions:
        segment_key("w", session.chapter, session.number, session.tip.slot)
    return position


def use_receipt(text: str) -> Receipt:
    receipt = Receipt.parse(text)
    segment_key(*receipt[:4])
    return receipt


def token_target(
    word: str, decode: Callable[[str], Any], again: Callable[[Any, str], str] | None, *errors: type[LogStoreError]
) -> Target:
    inputs = (texts.TOKENS[word], texts.bent_tokens(word), texts.bent_tokens(word), texts.tokens_at_random(word))
    return Target(
        f"{word} token",
        inputs,
        decode,
        errors or (InvalidArgument,),
        allowance_of_bytes,
        again,
        exact=again is not None,
    )


# Names ----------------------------------------------------------------------------------------


def name_of(key: Key | None, text: str) -> str:
    return text if key is None else build(key)


def escape_and_back(name: str) -> str:
    escaped = escape_name(name, "writer")
    assert unescape_name(escaped) == name
    assert parse_key(f"log/{escaped}/{'/'.join(['0' * 10] * 3)}") == SegmentKey(name, 0, 0, 0)
    return escaped


# Lines ----------------------------------------------------------------------------------------


def import_event(line: bytes) -> Any:
    event, place = event_and_place(line)
    return EventEncoder().encode(event), place


def print_imported(value: Any, _: bytes) -> bytes:
    (kind, key, type_, payload, meta), place = value
    text = line_of_event(texts.stored(payload, meta, key))
    fields = json.loads(text) | {"kind": kind, "type": type_}
    for name in ("stamp", "writer", "chapter", "session", "seq"):
        fields[name] = None if place is None else getattr(place, name)
    return json.dumps(fields).encode()


def import_document(line: bytes) -> Any:
    key, document = document_of_line(line, None)
    return key, EventEncoder().encode_data(document, key, "document")


def print_document(value: Any, _: bytes) -> bytes:
    key, packed = value
    data = decode_data(packed, "")
    assert data is not None
    return json.dumps(fields_of_document(key, data, None)).encode()


def read_lines(data: bytes) -> bytes:
    async def read() -> list[bytes]:
        return [line async for batch in batches_of_lines(BytesIO(data), "stdin") for line in batch]

    lines = asyncio.run(read())
    return b"\n".join(lines) + (b"\n" if data.endswith(b"\n") else b"")


# Expressions ----------------------------------------------------------------------------------


def ask(pairs: list[tuple[str, str]]) -> Any:
    """What the console finds for the query part of an address."""
    asked = Asked.parse("k", pairs)
    query = Query.parse(asked.where, asked.order_by)
    find(query, ROWS, [], limit=2, scope=texts.SCOPE)
    str(query.clauses), repr(query)
    return asked


def ask_again(asked: Asked, _: Any) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(str(asked.address(asked.cursor))).query, keep_blank_values=True)


def ask_of_python(question: tuple[Any, Any]) -> int:
    query = Query.parse(*texts.built(question))
    return len(find(query, ROWS, [], limit=2, scope=texts.SCOPE).keys)


def expression(
    name: str, inputs: tuple[st.SearchStrategy[Any], ...], decode: Callable[[Any], Any], *errors: type[LogStoreError]
) -> Target:
    return Target(
        name, inputs, decode, errors or (InvalidArgument,), lambda given: CONSTANT + 10 * len(repr(given)[:10_000])
    )


# All ------------------------------------------------------------------------------------------

_TARGETS = [
    *map(object_target, GOOD),
    replace(
        alike("segment", "data of a segment", decode_data_of_segment),
        inputs=(GOOD["segment"], segments_with_bent_data(), segments_with_bent_data(), bent(GOOD["segment"])),
    ),
    alike("stage page", "head of a stage page", decode_head_of_page),
    alike("archive", "table of an archive", decode_table),
    protected_target("encrypted", Protection(keyring=KEYRING)),
    protected_target("signed", Protection(trust=TRUST, signing_key=SIGNING_KEYS["keeper"])),
    Target(
        "data",
        PAYLOADS,
        lambda payload: decode_data(payload, "key=d-1"),
        (Corrupt,),
        allowance_of_bytes,
        named=lambda _: "key=d-1",
    ),
    Target(
        "row",
        (*PAYLOADS, *TOMBSTONES),
        lambda row: decode_state(row, ODD_KEY),
        (Corrupt,),
        allowance_of_bytes,
        named=lambda _: SHOWN_KEY,
    ),
    Target("row looked at", PAYLOADS, look_at_row, (Corrupt,), allowance_of_bytes, named=lambda _: SHOWN_KEY),
    Target("event printed", PAYLOADS, print_event, (Corrupt,), allowance_of_bytes, named=lambda _: "key=d-1"),
    token_target("receipt", use_receipt, lambda value, _: str(value)),
    token_target("position", use_position, lambda value, _: str(value)),
    token_target("unknown", Question.parse, lambda value, _: value.token()),
    token_target("cursor", decode_cursor, lambda value, _: value[0].cursor(value[1], texts.SCOPE), InvalidCursor),
    token_target("watch", lambda text: _stamp_of(LOG, texts.BINDING, text), None, InvalidArgument, StaleStore),
    Target("key", texts.KEYS, parse_key, (), allowance_of_bytes, name_of, exact=True),
    Target(
        "name",
        (names, st.text(max_size=250), st.text("\udcff/%.", max_size=9)),
        escape_and_back,
        (InvalidArgument,),
        allowance_of_bytes,
        named=lambda _: "writer=",
    ),
    Target(
        "event line",
        (texts.EVENT_LINES, texts.bent_lines(texts.EVENT_LINES), st.binary(max_size=40)),
        import_event,
        (InvalidArgument,),
        allowance_of_bytes,
        print_imported,
    ),
    Target(
        "document line",
        (texts.DOCUMENT_LINES, texts.bent_lines(texts.DOCUMENT_LINES), st.binary(max_size=40)),
        import_document,
        (InvalidArgument,),
        allowance_of_bytes,
        print_document,
    ),
    Target(
        "lines",
        texts.STREAMS,
        read_lines,
        (LimitExceeded,),
        lambda data: 50 * MIB + FACTOR * min(len(data), MIB // 2),
        lambda value, _: value,
        exact=True,
        named=lambda _: "input=stdin",
    ),
    Target("question of the console", texts.QUESTIONS_ASKED, ask, (InvalidArgument,), lambda _: CONSTANT, ask_again),
    expression("question", texts.CLAUSES, ask_of_python),
    expression("age", texts.AGES, age_of),
    expression("moment", texts.MOMENTS, lambda text: stamp_of(parse_moment(text, "--from"))),
    expression("projection", texts.MODULES, load_projection),
    expression("address", texts.ADDRESSES, address_of),
]
TARGETS: Final = {target.name: target for target in _TARGETS}
