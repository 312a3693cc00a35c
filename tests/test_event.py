"""Events: what may be appended, what is refused and how, and what comes back read-only."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.errors import InvalidArgument
from logstore.event import Event, EventEncoder, StoredEvent, payload_bytes

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)
datas = st.none() | st.dictionaries(st.text(max_size=8), values, max_size=5)
names = st.text(min_size=1, max_size=50)
events = st.builds(Event, names, st.text(min_size=1, max_size=250), names, datas, datas)


def stored(event: Event) -> StoredEvent:
    """Encode an event and read it back."""
    kind, key, type_, payload, meta = EventEncoder().encode(event)
    return StoredEvent(
        kind=kind,
        key=key,
        type=type_,
        payload=payload,
        meta=meta,
        stamp=4,
        writer="w",
        chapter=1,
        session=2,
        seq=3,
        settled=True,
    )


def read_only(value: Any) -> Any:
    """Return ``value`` as it should come back."""
    if isinstance(value, Mapping):
        return MappingProxyType({name: read_only(inner) for name, inner in value.items()})
    return tuple(map(read_only, value)) if isinstance(value, (list, tuple)) else value


def assert_read_only(value: Any) -> None:
    assert type(value) in {MappingProxyType, tuple, str, bytes, int, float, bool, type(None)}
    for inner in value.values() if isinstance(value, MappingProxyType) else value if isinstance(value, tuple) else ():
        assert_read_only(inner)


def same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from True from 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@given(events)
@settings(deadline=None)
def test_an_event_comes_back_as_it_was_appended_and_read_only(event: Event) -> None:
    """Text, binary, big integers and nested data survive with their types, in their order, and cannot be changed."""
    back = stored(event)
    assert (back.kind, back.key, back.type) == (event.kind, event.key, event.type)
    for found, given_ in ((back.data, event.data), (back.meta, event.meta)):
        assert same(found, read_only(given_))
        assert_read_only(found)


@given(datas)
@settings(deadline=None)
def test_what_was_read_can_be_appended_again(data: Any) -> None:
    """Read-only data is data: appended again it has the same bytes."""
    first = stored(Event("k", "d", "t", data))
    assert stored(Event("k", "d", "t", first.data)).payload == first.payload


def test_data_is_taken_when_appended() -> None:
    """Later changes to the caller's objects do not matter."""
    data = {"list": [1]}
    back = stored(Event("k", "d", "t", data))
    data["list"].append(2)
    assert back.data == {"list": (1,)}


def test_kin_of_plain_types_are_stored_as_these() -> None:
    """Ordered dictionaries, mapping proxies, tuples, enums, also as names, and byte arrays are what they look like."""

    class Colour(StrEnum):
        RED = "red"

    class Level(IntEnum):
        HIGH = 3

    data = OrderedDict(a=MappingProxyType({"b": (1, [2])}), c=Colour.RED, d=Level.HIGH, e=bytearray(b"x"), f=math.inf)
    assert stored(Event("k", "d", "t", data)).data == {
        "a": {"b": (1, (2,))},
        "c": "red",
        "d": 3,
        "e": b"x",
        "f": math.inf,
    }
    named = [Event("k", "d", "t", {"red": 1}), Event("k", "d", "t", {Colour.RED: 1})]
    encoder = EventEncoder()
    for _ in range(2):
        first, second = encoder.encode_all(named)
        assert first == second == encoder.encode(named[1])


loop: dict[str, Any] = {}
loop["self"] = loop

REFUSED: list[Any] = [
    pytest.param({"x": math.nan}, "NaN cannot be stored", id="NaN"),
    pytest.param({"x": [{"y": (1.0, -math.nan)}]}, "NaN cannot be stored", id="NaN within"),
    pytest.param({1: "x"}, "field names are text", id="number as name"),
    pytest.param({b"x": 1}, "field names are text", id="binary as name"),
    pytest.param({None: 1}, "field names are text", id="None as name"),
    pytest.param({"a": [{"b": {2: 1}}]}, "field names are text", id="number as name within"),
    pytest.param({"a": MappingProxyType({2: 1})}, "field names are text", id="number as name in a proxy"),
    pytest.param({"x": 2**64}, "cannot be stored", id="integer too large"),
    pytest.param({"x": -(2**63) - 1}, "cannot be stored", id="integer too small"),
    pytest.param({"x": "\ud800"}, "cannot be stored", id="lone surrogate"),
    pytest.param({"\ud800": 1}, "cannot be stored", id="lone surrogate as name"),
    pytest.param({"x": {1, 2}}, "cannot be stored", id="set"),
    pytest.param({"x": object()}, "cannot be stored", id="object"),
    pytest.param({"x": Decimal(1)}, "cannot be stored", id="decimal"),
    pytest.param({"x": datetime.now(UTC)}, "cannot be stored", id="datetime"),
    pytest.param({"x": 1j}, "cannot be stored", id="complex"),
    pytest.param({"x": range(3)}, "cannot be stored", id="range"),
    pytest.param(loop, "nested too deep", id="loop"),
    pytest.param([1], "needs a mapping or None", id="list"),
    pytest.param("x", "needs a mapping or None", id="text"),
    pytest.param(1, "needs a mapping or None", id="number"),
    pytest.param(False, "needs a mapping or None", id="False"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_data_that_cannot_be_read_back_is_refused_at_the_append(data: Any, reason: str) -> None:
    """The refusal says why, names the event's key, and says whether it is about data or meta."""
    encoder = EventEncoder()
    with pytest.raises(InvalidArgument, match=f"{reason}.*") as about_data:
        encoder.encode(Event("Deployment", "d-1", "planned", data))
    with pytest.raises(InvalidArgument, match=f"{reason}.*") as about_meta:
        encoder.encode(Event("Deployment", "d-1", "planned", None, data))
    for error, field in ((about_data, "data"), (about_meta, "meta")):
        assert "key=d-1" in str(error.value)
        assert field in str(error.value)
        assert "\n" not in str(error.value)
    good = Event("Deployment", "d-1", "planned", {"x": 1})
    assert encoder.encode(good) == EventEncoder().encode(good), "a refusal leaves nothing behind in the encoder"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("kind", "", "needs 1 to 200 bytes"),
        ("kind", "k" * 201, "needs 1 to 200 bytes"),
        ("kind", "é" * 101, "needs 1 to 200 bytes"),
        ("kind", None, "needs text"),
        ("kind", b"k", "needs text"),
        ("kind", "\udcff", "not encodable as UTF-8"),
        ("type", "", "needs 1 to 200 bytes"),
        ("type", "🚀" * 51, "needs 1 to 200 bytes"),
        ("type", 1, "needs text"),
        ("key", "", "needs 1 to 1024 bytes"),
        ("key", "k" * 1_025, "needs 1 to 1024 bytes"),
        ("key", "é" * 513, "needs 1 to 1024 bytes"),
        ("key", 7, "needs text"),
        ("key", "\ud800", "not encodable as UTF-8"),
    ],
    ids=ascii,
)
def test_names_and_keys_have_their_sizes(field: str, value: Any, reason: str) -> None:
    """Kinds and types take 1 to 200 bytes of UTF-8, keys 1 to 1,024; the refusal names the argument, each time."""
    encoder = EventEncoder()
    good = Event("Deployment", "d-1", "planned")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=f"{reason}.* {field}="):
            encoder.encode(good._replace(**{field: value}))


plain_events = st.builds(
    Event,
    st.sampled_from(["Deployment", "Event"]),
    st.text("abc", min_size=1, max_size=9),
    st.just("changed"),
    st.dictionaries(st.text(max_size=8), st.integers(0, 9) | st.text(max_size=5) | st.none(), max_size=3),
    st.none(),
)


@given(st.lists(plain_events, max_size=6), st.lists(events, max_size=2), st.lists(plain_events, max_size=3))
@settings(deadline=None)
def test_many_are_encoded_as_each_by_itself(before: list[Event], odd: list[Event], after: list[Event]) -> None:
    """Whether all are plain, and checked together, or some are not."""
    encoder, batch = EventEncoder(), [*before, *odd, *after]
    for _ in range(2):  # the second time names are known
        assert encoder.encode_all(batch) == [EventEncoder().encode(event) for event in batch]


PLAIN = Event("Deployment", "d-1", "planned", {"x": 1})
WRONG: list[Any] = [
    *(PLAIN._replace(data=refused.values[0]) for refused in REFUSED),
    *(PLAIN._replace(meta=refused.values[0]) for refused in REFUSED),
    *(PLAIN._replace(**dict[str, Any]({name: ""})) for name in ("kind", "key", "type")),
    *(PLAIN._replace(**dict[str, Any]({name: "é" * 600})) for name in ("kind", "key", "type")),
    *(PLAIN._replace(**dict[str, Any]({name: 7})) for name in ("kind", "key", "type")),
    PLAIN._replace(key="k" * 1_025),
    PLAIN._replace(key="\ud800"),
]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_one_wrong_among_many_is_refused_as_by_itself(number: int, place: int) -> None:
    """With the same words, wherever it stands; nothing is left behind."""
    wrong, encoder = WRONG[number], EventEncoder()
    encoder.encode(PLAIN)
    with pytest.raises(InvalidArgument) as alone:
        EventEncoder().encode(wrong)
    batch = [PLAIN, PLAIN]
    batch.insert(place, wrong)
    with pytest.raises(InvalidArgument) as among:
        encoder.encode_all(batch)
    assert str(among.value) == str(alone.value)
    assert encoder.encode_all([PLAIN, PLAIN]) == [EventEncoder().encode(PLAIN)] * 2


def test_the_largest_names_and_keys_fit() -> None:
    """The limits themselves are allowed, counted in bytes."""
    for kind, key in (("k" * 200, "k" * 1_024), ("é" * 100, "é" * 512), ("🚀" * 50, "🚀" * 256)):
        back = stored(Event(kind, key, kind))
        assert (back.kind, back.key, back.type) == (kind, key, kind)


def test_an_event_stands_in_the_total_order() -> None:
    """Its order is stamp, chapter, session, sequence; its repr says where it is."""
    back = stored(Event("Deployment", "d-1", "planned", {"a": 1}))
    assert back.order == (4, 1, 2, 3)
    assert repr(back) == "<StoredEvent Deployment d-1 planned key=d-1 writer=w chapter=1 session=2 seq=3 stamp=4>"


def test_what_events_weigh() -> None:
    """Size limits count keys, payloads and metas in bytes."""
    encoder = EventEncoder()
    batch = [encoder.encode(Event("k", "d-1", "t", {"a": 1})), encoder.encode(Event("k", "d-2", "t", None, {}))]
    assert payload_bytes(batch) == 3 + 4 + 3 + 1 + 1
