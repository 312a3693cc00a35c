"""What people and programs pass in: tokens, names, lines of JSON, expressions. Good ones, and bent ones."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import strategies as st

from logstore.event import Event, StoredEvent
from logstore.frontier import Position, SessionPosition
from logstore.receipt import Receipt
from logstore.session import Tip
from logstore.token import decode_token
from logstore.unsettled import Question
from projections.cli.jsonlines import to_json
from projections.query import OPERATORS, Query
from projections.query import Position as RowPosition
from projections.values import encode
from tests.fuzz.bend import LEVELS, Draw, bend_bytes, bend_value, pack
from tests.fuzz.objects import GOOD, digests, ids, names, numbers, stamps, wide
from tests.test_event import events, values

__all__ = [
    "ADDRESSES",
    "AGES",
    "BINDING",
    "CLAUSES",
    "DOCUMENT_LINES",
    "EVENT_LINES",
    "KEYS",
    "MODULES",
    "MOMENTS",
    "QUERIES",
    "QUESTIONS_ASKED",
    "SCOPE",
    "STREAMS",
    "TOKENS",
    "WATCH_STORE",
    "bent_lines",
    "bent_tokens",
    "built",
    "stored",
    "tokens_at_random",
    "values",
]

# Tokens ---------------------------------------------------------------------------------------

SCOPE: Final = "store/things/1"
WATCH_STORE: Final = bytes(range(16))
BINDING: Final = bytes(range(12))
QUERIES: Final = (
    Query.parse(),
    Query.parse([("status", "==", 1)], ["-updated_at"]),
    Query.parse([("status", ">", 0)], ["status", "name"]),
)
receipts = st.builds(Receipt, names, numbers, numbers, numbers, wide, wide, wide)
tips = st.builds(Tip, numbers, wide, stamps, digests)
sessions = st.builds(SessionPosition, numbers, numbers, tips, wide)
positions = st.builds(
    Position,
    ids,
    st.tuples(numbers, numbers),
    digests,
    st.lists(sessions, max_size=3).map(tuple),
    st.none() | st.tuples(stamps, numbers, numbers, wide),
) | st.builds(Position, ids, st.none(), st.just(b""), st.just(()), st.none())
words = st.integers(-9, 9) | st.text(max_size=3) | st.none()
rows = st.builds(RowPosition, st.tuples(words.map(encode), words.map(encode)), st.text(max_size=5))
TOKENS: Final[dict[str, st.SearchStrategy[str]]] = {
    "receipt": receipts.map(str),
    "position": positions.map(str),
    "unknown": st.builds(Question, receipts, digests).map(Question.token),
    "cursor": st.sampled_from(QUERIES).flatmap(
        lambda query: rows.map(lambda row: query.cursor(row._replace(values=row.values[: len(query.order)]), SCOPE))
    ),
    "watch": stamps.map(lambda stamp: written_token("watch", pack([1, WATCH_STORE, BINDING, stamp]))),
}


def written_token(word: str, packed: bytes) -> str:
    """A token of these values, whose checksum is right."""
    checked = zlib.crc32(packed).to_bytes(4, "big") + packed
    return f"{word}-{base64.urlsafe_b64encode(checked).decode().rstrip('=')}"


@st.composite
def bent_tokens(draw: Draw, word: str) -> str:
    token: str = draw(TOKENS[word])
    match draw(st.sampled_from(["value"] * 6 + ["version", "packed", "text", "word"])):
        case "value":
            values = bend_value(draw, decode_token(word, token))
            return written_token(word, pack([1, *values] if isinstance(values, list) else [1, values]))
        case "version":
            return written_token(word, pack(bend_value(draw, [1, *decode_token(word, token)])))
        case "packed":
            return written_token(word, bend_bytes(draw, pack([1, *decode_token(word, token)])))
        case "text":
            text = bend_bytes(draw, token.encode())
            return text.decode(errors="surrogateescape" if draw(st.booleans()) else "replace")
        case _:
            return f"{draw(st.sampled_from([*TOKENS, '', 'é']))}-{token.partition('-')[2]}"


def tokens_at_random(word: str) -> st.SearchStrategy[str]:
    letters = st.text("ABCabc019-_=+/ ", max_size=40) | st.text(max_size=9)
    return (
        letters.map(lambda text: f"{word}-{text}")
        | letters
        | st.binary(max_size=60).map(lambda packed: written_token(word, packed))
    )


# Names ----------------------------------------------------------------------------------------

segments_of_names = st.sampled_from(
    [
        "%2F",
        "%2f",
        "%",
        "%%",
        ".",
        "..",
        "%2E",
        "%C3",
        "é",
        "\udcff",
        "\x00",
        "0000000001",
        "gone",
        "-1",
        "٠",
        "\n",
        "a" * 99,
    ]
) | st.text(max_size=4)
KEYS: Final = (
    st.one_of(*GOOD.values()).map(lambda stored: stored.name),
    st.one_of(*GOOD.values())
    .map(lambda stored: stored.name)
    .flatmap(
        lambda name: st.tuples(st.integers(0, len(name)), segments_of_names, st.integers(0, 11)).map(
            lambda at: name[: at[0]] + at[1] + name[at[0] + at[2] :]
        )
    ),
    st.lists(segments_of_names, max_size=6).map("/".join),
)

# Lines ----------------------------------------------------------------------------------------

PLACE: Final = {"stamp": 5, "writer": "w", "chapter": 0, "session": 1, "seq": 2, "settled": True, "time": "x"}
ODD_JSON: Final = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5_000, "-0", "-0.0", "1.5e-400", "18446744073709551616"),
    *(
        '"\\ud800"',
        '"\\u0000"',
        '"\\n"',
        '""',
        "null",
        "true",
        "[]",
        "{}",
        '{"": {}}',
        '{"a": 1, "a": 2}',
        '"' + "a" * 300 + '"',
    ),
    *(
        '{"$bytes": "AP8="}',
        '{"$bytes": "A"}',
        '{"$bytes": "é"}',
        '{"$bytes": 1}',
        '{"$float": "NaN"}',
        '{"$float": 1}',
    ),
    *(
        '{"$float": "Infinity"}',
        '{"$map": {"$map": {}}}',
        '{"$map": []}',
        '{"$new": 1}',
        '{"$": 1}',
        '{"$map": {"$bytes": 1}}',
    ),
    *("{", "[", '"', "\\", "01", "1.", "\ufeff{}", "'a'", "{}{}", "nul"),
]


DEEP_JSON: Final = [
    *("[" * levels + "]" * levels for levels in LEVELS),
    *('{"a":' * levels + "1" + "}" * levels for levels in LEVELS),
    *('{"$map":{"a":' * levels + "1" + "}}" * levels for levels in (49, 50, 51, 100, 250, 499)),
]
odd_json = st.sampled_from(ODD_JSON) | st.sampled_from(ODD_JSON) | st.sampled_from(DEEP_JSON)


@st.composite
def event_lines(draw: Draw) -> bytes:
    event: Event = draw(events)
    fields: dict[str, Any] = {"kind": event.kind, "key": event.key, "type": event.type}
    fields |= {"data": to_json(event.data)} | ({} if event.meta is None else {"meta": to_json(event.meta)})
    return json.dumps(fields | draw(st.sampled_from([{}, PLACE])), ensure_ascii=draw(st.booleans())).encode(
        errors="surrogatepass"
    )


@st.composite
def document_lines(draw: Draw) -> bytes:
    key, document = draw(names), to_json(draw(st.dictionaries(st.text(max_size=4), values, max_size=3)))
    apart = draw(st.booleans())
    return json.dumps({"key": key, "document": document} if apart else document | {"id": key}).encode()


@st.composite
def bent_lines(draw: Draw, good: st.SearchStrategy[bytes]) -> bytes:
    """A field of a line, replaced by what JSON, or JSON as Python has it, may say; or its bytes bent."""
    line = draw(good)
    if not draw(st.integers(0, 3)):
        return bend_bytes(draw, line)
    fields = json.loads(line)
    name = draw(
        st.sampled_from([*fields, "", "extra", "$map", "stamp", "writer", "seq", "id", "data", "meta", "document"])
    )
    odd = draw(odd_json)
    if draw(st.booleans()):
        odd = f'{{"a": [{odd}, 1], "$b": {draw(odd_json)}}}'
    members = [f"{json.dumps(each)}: {json.dumps(value)}" for each, value in fields.items() if each != name]
    members.insert(draw(st.integers(0, len(members))), f"{json.dumps(name)}: {odd}")
    return ("{" + ", ".join(members) + "}").encode(errors="surrogatepass")


EVENT_LINES: Final = event_lines()
DOCUMENT_LINES: Final = document_lines()
STREAMS: Final = (
    st.lists(st.binary(max_size=20), max_size=6).map(b"\n".join),
    st.integers(0, 3_000).map(lambda lines: b"x\n" * lines) | st.sampled_from([b"x" * 70_000 + b"\ny", b"\n" * 9_000]),
    st.sampled_from([b"x" * (9 << 20), b"a\n" + b"x" * (9 << 20) + b"\nb"]),
)


def stored(payload: bytes, meta: bytes | None = None, key: str = "d-1") -> StoredEvent:
    """An event of somebody's, as a reader has it."""
    return StoredEvent("k", key, "t", payload, meta, 4, "w", 1, 2, 3, True)


# Expressions ----------------------------------------------------------------------------------


def without_surrogates(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """As an address's query part has them: it is UTF-8, or it is no address."""
    return [(name, value.encode(errors="ignore").decode()) for name, value in pairs]


paths = st.sampled_from(["status", "a.b", "-x", "", ".", "a..b", "é", "\ud800", "a.\udfff", "a" * 500]) | st.text(
    max_size=5
)
signs = st.sampled_from([*OPERATORS, "", "=", "like", "\ud800"])
typed = (
    odd_json | st.sampled_from(["a,b", ",", "[1, 2]", "[[1], {}]", " ", "\ud800", '{"a": [NaN]}']) | st.text(max_size=6)
)
QUESTIONS_ASKED: tuple[st.SearchStrategy[Any], ...] = (
    st.tuples(st.just("status"), st.sampled_from(list(OPERATORS)), st.sampled_from(["1", "a", "[1]", "a,b"])).map(
        lambda clause: [*zip("fov", clause, strict=True), ("order", "-name")]
    ),
    st.lists(
        st.tuples(st.sampled_from(["f", "o", "v", "order", "cursor", "kind", "", "x"]), paths | signs | typed),
        max_size=9,
    ),
    st.lists(st.tuples(paths, signs, typed), max_size=14).map(
        lambda clauses: [pair for clause in clauses for pair in zip("fov", clause, strict=True)]
    ),
)
QUESTIONS_ASKED = tuple(each.map(without_surrogates) for each in QUESTIONS_ASKED)


@dataclass(frozen=True)
class Deep:
    """Lists, or maps, in one another: what nobody can print."""

    levels: int
    named: bool

    def build(self) -> Any:
        value: Any = 1
        for _ in range(self.levels):
            value = {"a": value} if self.named else [value]
        return value


def built(value: Any) -> Any:
    """A question, or a part of one, with what is deep in it."""
    if isinstance(value, list | tuple):
        return type(value)(map(built, value))
    return value.build() if isinstance(value, Deep) else value


odd_arguments = st.one_of(
    values,
    st.sampled_from(
        [float("nan"), 1 << 64, -(1 << 63) - 1, "\ud800", ["\ud800"], {"\ud800": 1}, {1: 2}, object, b"x", {1}, (1,)]
    ),
    st.builds(Deep, st.sampled_from(LEVELS), st.booleans()),
)
CLAUSES: Final = (
    st.tuples(
        st.lists(
            st.tuples(
                names.filter(lambda name: not set(name) & set(".-")), st.sampled_from(["==", "<", "contains"]), values
            ),
            max_size=2,
        ),
        st.just(["-name"]),
    ),
    st.tuples(st.lists(st.tuples(paths, signs, odd_arguments), max_size=3), st.lists(paths, max_size=3)),
    st.tuples(odd_arguments, odd_arguments),
)
AGES: Final = (
    st.tuples(st.integers(0, 999_999_999), st.sampled_from(["s", "min", "h", "d"])).map(
        lambda age: f"{age[0]}{age[1]}"
    ),
    st.sampled_from(["30", "d", "-1d", "1.5d", "٣d", "30d\n", " 30d", "1" * 5_000 + "d", "30D", "", "\ud800"]),
    st.text(max_size=8),
)
MOMENTS: Final = (
    st.integers(0, 1 << 34).map(lambda seconds: str(datetime.fromtimestamp(seconds, UTC))) | stamps.map(str),
    st.sampled_from(
        [
            *(
                "1" * 5_000,
                "18446744073709551616",
                "٣",
                "0001-01-01T00:00:00+23:59",
                "9999-12-31T23:59:59.999999-23:59",
            ),
            *(
                "1969-12-31T23:59:59Z",
                "2026-11-26",
                "2026-W01",
                "2026-11-26T10:00:00+99:99",
                "\ud800",
                "2026-11-26T24:00",
                "\n",
            ),
        ]
    ),
    st.text("0123456789-:TZ+. W\n", max_size=30) | st.text(max_size=9),
)
MODULES: Final = (
    st.sampled_from(["tests.folds:Sums", "tests.folds:Journal"]),
    st.sampled_from(
        [
            *(
                ":",
                "x:",
                ":x",
                "",
                ".:x",
                "..x:y",
                ".no_such:x",
                "no such:x",
                "no/such:x",
                "no\x00such:x",
                "é.é:é",
                "\ud800:x",
            ),
            *(
                "tests:\ud800",
                "tests:__name__",
                "no_such.:x",
                "no_such..x:y",
                "tests.folds:a.b",
                "tests.folds:\n",
                "no\nsuch:x",
            ),
        ]
    ),
    st.text("./:\x00 é\ud800\n", max_size=9),
)
ADDRESSES: Final = (
    st.sampled_from(["s3://bucket/cp", "file:///srv", "/srv/x", "x y"]),
    st.sampled_from(["", "\x00", "a\x00b", "\ud800", "\udcff", "://", "file://", "a\nb", "é", "~", "." * 5_000]),
    st.text(max_size=9),
)
