"""Where the code once differed from docs/FORMAT.md. Each test is named after its cause."""

from __future__ import annotations

import msgpack
import pytest

from logstore.entry import decode_entry
from logstore.errors import Corrupt, InvalidArgument
from logstore.event import LEVELS_MAX, Event, EventEncoder, decode_data
from logstore.identity import decode_identity
from logstore.keys import SegmentKey, parse_key
from logstore.receipt import Receipt
from logstore.retired import decode_retired
from logstore.segment import SegmentEncoder, decode_segment
from logstore.token import encode_token
from logstore.unsettled import Question
from tests.golden.independent import ENTRY, RETIRED, STORE, write_segment, write_small
from tests.test_golden import golden, segment_key_of

KEY = SegmentKey("web-1", 0, 1, 0)
RECEIPT = Receipt("web-1", 0, 1, 0, 0, 2, 98304001)


def decode_columns(columns: list[object]) -> None:
    """Decode the golden segment of one event with other columns, digests made to agree."""
    key, _, _, values = golden("segment-one-event")
    decode_segment(segment_key_of(key), write_segment(values, columns=msgpack.packb(columns)))


@pytest.mark.parametrize("codes", [b"\x00", b"\x00\x00\x00"])
def test_two_byte_codes_of_odd_length_leaked_struct_error(codes: bytes) -> None:
    """Codes of another size than the events need are Corrupt, for more than 256 names too."""
    names = [f"name-{number}" for number in range(257)]
    with pytest.raises(Corrupt, match="web%2F1"):
        decode_columns([None, [names, codes], [["t"], None], ["k"], [b"\xc0"], None])


@pytest.mark.parametrize(
    "kinds",
    [
        [["a", "a"], b"\x00"],
        [["a"], b"\x00"],
        [["a", ""], b"\x00"],
        [["a", "é" * 101], b"\x00"],
    ],
    ids=["twice", "codes of one name", "empty", "too long"],
)
def test_names_that_format_rules_out_were_read(kinds: list[object]) -> None:
    """Kinds and types are distinct names of 1 to 200 bytes, and a single one has no codes."""
    with pytest.raises(Corrupt, match="web%2F1"):
        decode_columns([None, kinds, [["t"], None], ["k"], [b"\xc0"], None])
    with pytest.raises(Corrupt, match="web%2F1"):
        decode_columns([None, [["t"], None], kinds, ["k"], [b"\xc0"], None])


def test_metas_of_no_event_were_read() -> None:
    """The column of metas is nil when no event has any."""
    with pytest.raises(Corrupt, match="web%2F1"):
        decode_columns([None, [["k"], None], [["t"], None], ["k"], [b"\xc0"], [[], []]])


@pytest.mark.parametrize(
    ("name", "field"),
    [("store", "ancestor"), ("entry-open", "exclusive"), ("entry-open-exclusive", "predecessor")],
)
def test_an_absent_field_passed_for_nil(name: str, field: str) -> None:
    """A field that may be nil must be there all the same."""
    key, _, _, values = golden(name)
    values = dict(values)
    del (values["exclusive"] if field == "predecessor" else values)[field]
    if name == "store":
        with pytest.raises(Corrupt, match=r"key=store field=ancestor"):
            decode_identity(write_small(STORE, values))
    else:
        with pytest.raises(Corrupt, match=rf"key={key} field={field}"):
            decode_entry(values["chapter"], values["number"], write_small(ENTRY, values))


@pytest.mark.parametrize(
    "scopes", [[[["b"], 0, 1], [["a"], 0, 2]], [[["b", "a"], 0, 1]], [[["a"], 0, 1], [["a"], 0, 1]]]
)
def test_scopes_out_of_order_were_read(scopes: list[object]) -> None:
    """Scopes and their kinds are sorted and distinct, in entries and in retirement records."""
    _, _, _, values = golden("entry-tick")
    with pytest.raises(Corrupt, match=r"roster/0000000000/0000000007.*scopes"):
        decode_entry(0, 7, write_small(ENTRY, {**values, "scopes": scopes}))
    _, _, _, values = golden("retired")
    with pytest.raises(Corrupt, match=r"retired/0000000000.*scopes"):
        decode_retired(0, write_small(RETIRED, {**values, "scopes": scopes}))


@pytest.mark.parametrize("sessions", [[[2, 0, 1], [1, 0, 1]], [[1, 0, 1], [1, 5, 1]]])
def test_a_session_retired_twice_counted_once(sessions: list[object]) -> None:
    """A retirement record lists its sessions in ascending order, each once."""
    _, _, _, values = golden("retired")
    with pytest.raises(Corrupt, match=r"retired/0000000000.*sessions"):
        decode_retired(0, write_small(RETIRED, {**values, "sessions": sessions}))


def test_an_undecodable_file_name_leaked_unicode_error() -> None:
    """A file name that is no UTF-8, as os.listdir hands it out, is foreign like any other."""
    assert parse_key("log/\udcff/0000000000/0000000000/0000000000") is None


@pytest.mark.parametrize("value", [msgpack.ExtType(5, b"x"), msgpack.ExtType(5, b""), msgpack.Timestamp(1, 0)])
def test_extension_types_were_stored_and_never_read_again(value: object) -> None:
    """What a reader would refuse is refused at the append."""
    for data in ({"a": value}, {"a": [value]}, {"a": {"b": value}}):
        with pytest.raises(InvalidArgument, match=r"key=d-1 in=data"):
            EventEncoder().encode(Event("Deployment", "d-1", "planned", data))


def test_nesting_was_bounded_by_the_msgpack_in_use() -> None:
    """Data may be 100 levels deep, whatever msgpack can do (511 in 1.1, any in 1.2); one more is refused."""

    def nested(levels: int) -> dict[str, object]:
        return {"a": nested(levels - 1)} if levels > 1 else {}

    encoder = EventEncoder()
    *_, payload, _ = encoder.encode(Event("k", "d-1", "t", nested(LEVELS_MAX)))
    assert decode_data(payload, "key=d-1") is not None
    for data in (nested(LEVELS_MAX + 1), {"a": [nested(LEVELS_MAX - 1)]}):
        with pytest.raises(InvalidArgument, match=r"nested too deep key=d-1 in=data levels=100"):
            encoder.encode(Event("k", "d-1", "t", data))


@pytest.mark.parametrize("payload", [{b"a": 1}, {"a": {b"b": 1}}, {"a": [{"c": b"", b"b": 1}]}])
def test_binary_field_names_were_read(payload: object) -> None:
    """Field names are text at every depth; data of another writer that has others is Corrupt."""
    with pytest.raises(Corrupt, match="key=d-1"):
        decode_data(msgpack.packb(payload), "key=d-1")


def test_a_token_could_be_spelt_in_several_ways() -> None:
    """The unused bits of base64's last letter, its other alphabet and its padding change nothing, and are refused."""
    for word, numbers, parse in (
        ("receipt", list(RECEIPT), Receipt.parse),
        ("unknown", [list(RECEIPT), b"\xfb" * 32], Question.parse),
    ):
        token = encode_token(word, numbers)
        parse(token)
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        others = [token[:-1] + letter for letter in letters if letter != token[-1]]
        others += [token + "=", token + "==", token + "\n", " " + token, token.replace("_", "/"), token.swapcase()]
        for other in others:
            if other != token:
                with pytest.raises(InvalidArgument, match=f"not an? {word}"):
                    parse(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"writer": ""},
        {"writer": 1},
        {"slot": -1},
        {"slot": 10**10},
        {"session": "1"},
        {"count": None},
        {"chapter": True},
    ],
)
def test_a_forged_token_reached_an_assertion(changed: dict[str, object]) -> None:
    """Receipts and questions are addresses: what names no object is refused, though its checksum is right."""
    values = [changed.get(name, value) for name, value in RECEIPT._asdict().items()]
    with pytest.raises(InvalidArgument, match="not a receipt"):
        Receipt.parse(encode_token("receipt", values))
    with pytest.raises(InvalidArgument, match="not a receipt"):
        Question.parse(encode_token("unknown", [values, bytes(32)]))


def test_a_segment_weighed_nothing() -> None:
    """A segment's weight counts its columns, so that what remembers segments is bounded in bytes."""
    encoder = EventEncoder()
    event = encoder.encode(Event("k", "d-1", "t", {"a": "x" * 100_000}))
    data, written = SegmentEncoder().encode(KEY, [event], first_sequence=0, stamp=1, acknowledged=0, previous=bytes(32))
    assert written.weight > 100_000
    assert decode_segment(KEY, data).weight == written.weight


def test_a_writer_kept_other_columns_than_a_reader() -> None:
    """The segment that encoding returns equals the one that decoding does, codes of kinds included."""
    encoder = EventEncoder()
    for count in (1, 2, 256, 257, 300):
        events = [encoder.encode(Event(f"k{i}", "d-1", "t", None, {"i": i})) for i in range(count)]
        data, written = SegmentEncoder().encode(
            KEY, events, first_sequence=0, stamp=1, acknowledged=0, previous=bytes(32)
        )
        assert decode_segment(KEY, data) == written
