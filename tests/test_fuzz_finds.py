"""What fuzzing found. Each test is named after its cause; inputs that can be written down lie in tests/fuzz/corpus/."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import msgpack
import pytest

from logstore import Protection
from logstore.archive import decode_archive
from logstore.check import decode_segment_data
from logstore.claim import decode_claim
from logstore.errors import Corrupt, InvalidArgument, InvalidCursor
from logstore.event import LEVELS_MAX, decode_data
from logstore.filestore.memory import MemoryStore
from logstore.frontier import Position, SessionPosition
from logstore.keys import NUMBER_MAX, ArchiveKey, SegmentKey, archive_key, parse_key, segment_key
from logstore.protection import protect
from logstore.receipt import Receipt
from logstore.segment import SegmentEncoder
from logstore.session import Tip
from logstore.token import encode_token
from projections import Index
from projections.cli.jsonlines import event_of_line, line_of_event, to_json
from projections.cli.projection import load_projection
from projections.cli.terminal import address_of
from projections.decoded import DecodedRows, decode_each
from projections.past import parse_moment
from projections.query import Query
from tests.fuzz.bend import Raw, pack
from tests.fuzz.texts import stored, written_token
from tests.golden.independent import CLAIM, ENTRY, frame, write_archive, write_small
from tests.protected import KEYRING, SIGNING_KEYS, TRUST
from tests.test_golden import golden

MIB = 1 << 20
BINARY_NAME = b"\x81\xc4\x01a\x01"


def peak_of(work: Any) -> int:
    """How much memory a call that raises Corrupt, or none, took at a time."""
    tracemalloc.start()
    try:
        work()
    except Corrupt:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def nested(levels: int, leaf: Any = 1) -> Any:
    value = leaf
    for _ in range(levels):
        value = {"a": value}
    return value


def segment_of(payload: bytes, meta: bytes | None = None) -> tuple[str, bytes]:
    """A segment of one event that has this data."""
    event = ("k", "d-1", "t", payload, meta)
    data, _ = SegmentEncoder().encode(
        SegmentKey("w", 0, 1, 0), [event], first_sequence=0, stamp=1, acknowledged=0, previous=bytes(32)
    )
    return segment_key("w", 0, 1, 0), data


@pytest.mark.parametrize(
    ("values", "key"), [([1], "k"), (7, "k"), ([None], "k"), (["x"], "k"), ([], "k"), ([b"", b""], "k"), ([b""], 3)]
)
def test_a_cursor_of_other_values_leaked_type_error(values: object, key: object) -> None:
    """A cursor holds bytes for each field ordered by, and a key; with anything else in it, it is refused."""
    query = Query.parse([("a", ">", 0)], ["a"])
    cursor = encode_token("cursor", [query.binding("s"), values, key])
    with pytest.raises(InvalidCursor):
        query.parse_cursor(cursor, "s")


@pytest.mark.parametrize("name", ["\ud800", "a.\udfff", "é\ud800"])
def test_a_field_name_that_is_no_utf8_leaked_unicode_error(name: str) -> None:
    """No document has such a field: it is refused wherever fields are named."""
    for ask in (lambda: Query.parse([(name, "==", 1)]), lambda: Query.parse([], [f"-{name}"]), lambda: Index(name)):
        with pytest.raises(InvalidArgument, match="not encodable as UTF-8 field="):
            ask()


def test_a_deep_value_in_a_question_leaked_recursion_error() -> None:
    """Messages show the beginning of what was asked, however deep it is."""
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    clauses: list[Any] = [[("a", "==", deep)], [deep], deep, {"a": deep}]
    questions: list[Any] = [*((where, []) for where in clauses), ([], [deep]), ([], deep)]
    for question in questions:
        with pytest.raises(InvalidArgument):
            Query.parse(*question)


@pytest.mark.parametrize("levels", [LEVELS_MAX + 1, 500])
def test_data_deeper_than_format_says_leaked_recursion_error(levels: int) -> None:
    """Data of another writer that has more than 100 levels is Corrupt when it is looked at: folds and tools recurse."""
    fits, deep = msgpack.packb(nested(LEVELS_MAX)), b"\x81\xa1a" * levels + b"\x01"
    assert decode_data(fits, "key=d-1") is not None
    assert line_of_event(stored(fits))
    for look in (
        lambda: decode_data(deep, "key=d-1"),
        lambda: line_of_event(stored(deep)),
        lambda: DecodedRows().of("d-1", deep),
        lambda: list(decode_each([("d-1", deep)])),
        lambda: decode_segment_data(*segment_of(deep)),
    ):
        with pytest.raises(Corrupt, match=r"nested too deep key=.* levels=100|cannot be read key="):
            look()


def test_wide_data_is_not_deep() -> None:
    """Many maps beside one another are none in one another."""
    wide = msgpack.packb({"a": [{"b": []}] * 500})
    data = decode_data(wide, "key=d-1")
    assert data is not None
    assert len(data["a"]) == 500


@pytest.mark.parametrize("nan", [b"\xcb\x7f\xf8" + bytes(6), b"\xca\xff\xc0\x00\x00"])
def test_a_nan_of_another_writer_leaked_value_error(nan: bytes) -> None:
    """It is shown and exported as what it is, and refused when it is imported."""
    line = line_of_event(stored(b"\x81\xa1a" + nan))
    assert '"data":{"a":{"$float":"NaN"}}' in line
    assert to_json(math.nan) == {"$float": "NaN"}
    with pytest.raises(InvalidArgument, match="NaN cannot be stored field=data"):
        event_of_line(line.encode())


def test_check_allocated_what_data_announces() -> None:
    """Looking at all events of a segment costs no more than a few times their size, whatever their data announces."""
    arrays = b"\x81\xa1a" + b"\xdd\x00\x03\x00\x00" * 300 + bytes(0x30000)
    name, data = segment_of(arrays)
    assert peak_of(lambda: decode_segment_data(name, data)) < 8 * MIB


@pytest.mark.parametrize(
    ("payload", "meta"),
    [(BINARY_NAME, None), (b"\x90", None), (b"\xc0", b"\xc0"), (b"\xc0", BINARY_NAME)],
)
def test_check_took_data_that_no_reader_takes(payload: bytes, meta: bytes | None) -> None:
    """What a reader would refuse, ``check`` refuses, and says of which event: binary field names, too."""
    name, data = segment_of(payload, meta)
    with pytest.raises(Corrupt, match=f"key={name} sequence=0"):
        decode_segment_data(name, data)


@pytest.mark.parametrize("type_", ["", "a" * 201, "é" * 101])
def test_a_claim_of_an_event_that_cannot_be_was_read(type_: str) -> None:
    """The type in a claim is one that an event may have; else whoever meets it would be told of a mistake of his."""
    key, data, _, values = golden("claim")
    claim = parse_key(key)
    decode_claim(claim, data)  # type: ignore[arg-type]  # the golden claim's
    with pytest.raises(Corrupt, match=f"key={key} field=type"):
        decode_claim(claim, write_small(CLAIM, {**values, "type": type_}))  # type: ignore[arg-type]  # likewise


def test_an_archive_was_unpacked_all_at_once() -> None:
    """However many blocks an object of an archive has, no more than two of them are in memory at a time."""
    _, _, _, closed = golden("entry-closed")
    heavy = [write_small(ENTRY, {**closed, "number": number, "new": "x" * 1_000_000}) for number in range(1, 5)]
    key = ArchiveKey(closed["chapter"], bytes(8), 0)
    data = write_archive(key.chapter, key.number, [heavy] * 20)
    assert len(data) < MIB
    contents = decode_archive(key, data)
    assert [len(block.entries) for block in contents] == [4] * 20
    assert peak_of(lambda: decode_archive(key, data)) < 30 * MIB
    assert peak_of(lambda: sum(1 for _ in contents)) < 30 * MIB
    torn = frame(9, 0, msgpack.packb({"chapter": key.chapter, "number": 0, "blocks": [[9, 9, bytes(32), 0, 0, []]]}))
    with pytest.raises(Corrupt, match=f"differs from its digest key={archive_key(key)}"):
        decode_archive(key, torn + bytes(9))


@pytest.mark.parametrize("long", [b"\xcf" + bytes(8), b"\xcc\x00", b"\xd3" + bytes(8)])
def test_a_token_had_several_spellings(long: bytes) -> None:
    """A token whose numbers are written otherwise than we write them is none of ours, its checksum right or not."""
    receipt = Receipt("w", 0, 1, 2, 3, 4, 5)
    assert Receipt.parse(written_token("receipt", pack([1, *receipt]))) == receipt
    with pytest.raises(InvalidArgument, match="not a receipt of this library"):
        Receipt.parse(written_token("receipt", pack([1, "w", Raw(long), *receipt[2:]])))


@pytest.mark.parametrize("at", ["last", "chapter", "number", "slot"])
def test_a_position_beyond_all_names_reached_an_assertion(at: str) -> None:
    """A position is where objects are: numbers that no name has are refused."""

    def position(beyond: str) -> str:
        def number(name: str) -> int:
            most: int = NUMBER_MAX
            return most + 1 if name == beyond else most

        tip = Tip(number("slot"), 0, 0, bytes(32))
        session = SessionPosition(number("chapter"), number("number"), tip, 0)
        return str(Position(bytes(16), (0, number("last")), bytes(32), (session,)))

    Position.parse(position(""))
    with pytest.raises(InvalidArgument, match=r"of this library position=|not a session of a position"):
        Position.parse(position(at))


def test_a_row_of_no_data_reached_an_assertion() -> None:
    """A row is a map; a snapshot of somebody's that has none in its place is Corrupt."""
    with pytest.raises(Corrupt, match="no data is no row key=d-1"):
        DecodedRows().of("d-1", b"\xc0")


def test_a_key_of_two_lines_made_a_message_of_two() -> None:
    """A row's key is shown as it can be shown on one line."""
    for look in (lambda: DecodedRows().of("d\n1", b"\xc1"), lambda: list(decode_each([("d\n1", b"\xc1")]))):
        with pytest.raises(Corrupt, match=r"key='d\\n1' "):
            look()


@pytest.mark.parametrize("levels", [120, 498, 499, 500, 5_000])
def test_deep_json_leaked_recursion_error(levels: int) -> None:
    """A line may say what an event may hold, 100 levels, and no more."""
    line = b'{"kind": "k", "key": "d", "type": "t", "data": {"a": ' + b"[" * levels + b"]" * levels + b"}}"
    with pytest.raises(InvalidArgument, match=r"nested too deeply field=data levels_max=100|not a line of JSON"):
        event_of_line(line)
    assert event_of_line(line.replace(b"[" * levels, b"[" * 99).replace(b"]" * levels, b"]" * 99)).data


@pytest.mark.parametrize("text", [".:x", "..x:y", "no.such.:x", "a/b:x", "\ud800:x", "tests:\ud800", "a\0b:x"])
def test_a_projection_of_an_odd_name_leaked_type_error(text: str) -> None:
    """What is no name in Python is not imported; the message is one line that any terminal shows."""
    with pytest.raises(InvalidArgument, match=r"needs package\.module") as raised:
        load_projection(text)
    str(raised.value).encode()


def test_an_address_that_is_no_utf8_leaked_unicode_error() -> None:
    """Letters that no file's name has are refused; bytes of one that are no UTF-8 are kept."""
    with pytest.raises(InvalidArgument, match="not an address url="):
        address_of("/srv/\ud800")
    assert address_of("/srv/\udcff") == "file:///srv/%FF"


def test_a_message_about_a_time_could_not_be_printed() -> None:
    """What was typed is shown as it can be shown."""
    for text in ("\ud800", "a\nb"):
        with pytest.raises(InvalidArgument) as raised:
            parse_moment(text, "--from")
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("data", [b"", b"LGST\x01", b"LGST\x01\0" + bytes(60)], ids=["empty", "short", "no such type"])
async def test_what_is_no_object_leaked_value_error_where_it_was_to_be_protected(data: bytes) -> None:
    """A copy into a protected store carries what lies in the other, damage too: it is Corrupt, and names the object."""
    name = segment_key("w", 0, 1, 0)
    for protection in (Protection(keyring=KEYRING), Protection(trust=TRUST, signing_key=SIGNING_KEYS["keeper"])):
        with pytest.raises(Corrupt, match=f"not an object of ours key={name}"):
            await protect(MemoryStore(), protection).create(name, data)
