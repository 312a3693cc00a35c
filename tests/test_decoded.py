"""What is remembered decoded is what the row decodes to, within a bound."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from logstore.errors import Corrupt
from projections.decoded import DecodedRows, decode_each


def test_from_the_second_look_on_a_row_is_remembered_while_it_is_the_same_object() -> None:
    """Looking again gives one object; a replaced row, equal or not, is decoded anew."""
    decoded, row = DecodedRows(), msgpack.packb({"a": 1})
    assert decoded.of("d-1", row) == {"a": 1}
    assert len(decoded) == 0
    second = decoded.of("d-1", row)
    assert second == {"a": 1}
    assert decoded.of("d-1", row) is second
    assert decoded.all_of(["d-1"], {"d-1": row})[0] is second
    replaced = bytes(bytearray(row))
    assert decoded.of("d-1", replaced) is not second
    assert decoded.of("d-1", replaced) is decoded.of("d-1", replaced)
    decoded._check()


def test_what_was_seen_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows are looked at once."""
    monkeypatch.setattr("projections.decoded._SEEN_MAX", 10)
    rows = {str(number): msgpack.packb({"number": number}) for number in range(25)}
    decoded = DecodedRows()
    decoded.all_of(rows, rows)
    assert len(decoded._seen) == 5


def test_the_oldest_are_forgotten_at_the_bound() -> None:
    """Never more bytes of rows than the bound; what is forgotten decodes again."""
    row = {str(number): msgpack.packb({"number": number, "text": "x" * 50}) for number in range(100)}
    decoded = DecodedRows(bytes_max=1_000)
    for _ in range(2):
        for key in row:
            assert decoded.of(key, row[key])["number"] == int(key)
            decoded._check()
    assert 5 < len(decoded) < 20
    assert decoded.all_of(row, row) == [msgpack.unpackb(each) for each in row.values()]
    decoded.clear()
    decoded._check()
    assert len(decoded) == 0


@pytest.mark.parametrize("state", [{}, {"a": 1}, {"a": {"b": []}}])
def test_nobody_can_change_what_is_handed_out(state: Any) -> None:
    """Not even an empty row."""
    with pytest.raises(TypeError):
        DecodedRows().of("d-1", msgpack.packb(state))["a"] = 2  # type: ignore[index]


@pytest.mark.parametrize(
    "row",
    [{}, {"a": 1}, {"a": {"b": [1, {"c": b"x"}]}}, {"text": "x" * 2_000}, {"number": 0xC4}],
)
def test_in_passing_rows_are_the_same(row: Any) -> None:
    """``decode_each`` yields what ``DecodedRows`` hands out, but for what makes it read-only."""
    packed = msgpack.packb(row)
    ((key, data),) = decode_each([("d-1", packed)])
    assert (key, msgpack.packb(data, default=dict)) == ("d-1", packed)


@pytest.mark.parametrize(
    "row",
    [
        b"",
        b"\x81",
        b"\x01",
        b"\x80\x80",
        b"\x81\x01\x02",
        msgpack.packb({b"a": 1}),
        msgpack.packb({"a": msgpack.Timestamp(1)}),
    ],
)
def test_in_passing_damage_is_met(row: bytes) -> None:
    """What cannot be decoded to be handed out cannot be decoded in passing."""
    for decode in (lambda: DecodedRows().of("d-1", row), lambda: list(decode_each([("d-1", row)]))):
        with pytest.raises(Corrupt, match="key=d-1"):
            decode()
