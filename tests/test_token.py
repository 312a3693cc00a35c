"""Positions, receipts and questions as text: back to what they were, or refused."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.errors import InvalidArgument
from logstore.frontier import Position, SessionPosition
from logstore.keys import NUMBER_MAX, is_name
from logstore.receipt import Receipt
from logstore.session import Tip
from logstore.token import decode_token, encode_token
from logstore.unsettled import Question

numbers = st.integers(0, NUMBER_MAX)
wide = st.integers(0, 2**64 - 1)
digests = st.binary(min_size=32, max_size=32)
ids = st.binary(min_size=16, max_size=16)
receipts = st.builds(
    Receipt, st.text(min_size=1, max_size=20).filter(is_name), numbers, numbers, numbers, wide, wide, wide
)
questions = st.builds(Question, receipts, digests)
orders = st.tuples(wide, numbers, numbers, wide)
sessions = st.builds(SessionPosition, numbers, numbers, st.builds(Tip, numbers, wide, wide, digests), wide)
positions = st.builds(
    Position, ids, st.tuples(numbers, numbers), digests, st.lists(sessions, max_size=4).map(tuple), st.none() | orders
) | st.builds(Position, ids, st.none(), st.just(b""), st.just(()), st.none())

RECEIPT = Receipt("web/1", 0, 1, 2, 3, 4, 5)
SESSION = SessionPosition(0, 1, Tip(2, 3, 4, b"d" * 32), 5)
POSITION = Position(b"i" * 16, (0, 7), b"e" * 32, (SESSION,), (9, 0, 1, 2))
QUESTION = Question(RECEIPT, b"f" * 32)
TOKENS: list[Any] = [
    pytest.param(str(RECEIPT), Receipt.parse, id="receipt"),
    pytest.param(str(POSITION), Position.parse, id="position"),
    pytest.param(QUESTION.token(), Question.parse, id="question"),
]


@given(receipts)
def test_a_receipt_comes_back(receipt: Receipt) -> None:
    """A receipt survives as text."""
    assert Receipt.parse(str(receipt)) == receipt


@given(positions)
def test_a_position_comes_back(position: Position) -> None:
    """A position survives as text."""
    assert Position.parse(str(position)) == position


@given(questions)
def test_a_question_comes_back(question: Question) -> None:
    """The question of an Unknown survives as text."""
    assert Question.parse(question.token()) == question


@given(receipts | positions | questions)
def test_a_token_is_one_word(value: Any) -> None:
    """A token is letters, digits, ``-`` and ``_``: it fits a shell, a URL and a log line."""
    token = value.token() if isinstance(value, Question) else str(value)
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


@pytest.mark.parametrize(("token", "parse"), TOKENS)
def test_any_changed_letter_is_refused(token: str, parse: Callable[[str], object]) -> None:
    """No letter of a token can be exchanged, dropped, doubled or added without its being refused."""
    parse(token)
    for at in range(len(token)):
        changed = [token[:at] + letter + token[at + 1 :] for letter in "AQgwz09-_=+/ \n\x00é" if letter != token[at]]
        for other in [*changed, token[:at], token[:at] + token[at + 1 :], token[:at] + token[at] * 2 + token[at + 1 :]]:
            if other != token:
                with pytest.raises(InvalidArgument):
                    parse(other)
    for other in (token + "A", token + "=", token + "\n", " " + token, token.upper(), token + token):
        with pytest.raises(InvalidArgument):
            parse(other)


@pytest.mark.parametrize(("token", "parse"), TOKENS)
def test_a_token_of_another_word_is_refused(token: str, parse: Callable[[str], object]) -> None:
    """A receipt is no position, whatever is in it; what is no text is no token either."""
    for other_token, other_parse in (parameter.values for parameter in TOKENS):
        assert isinstance(other_token, str)
        if other_parse is not parse:
            with pytest.raises(InvalidArgument, match="pass it on exactly"):
                parse(other_token)
    body = token.partition("-")[2]
    for other in (body, "", "-", "cursor-" + body, token.partition("-")[0] + "-"):
        with pytest.raises(InvalidArgument):
            parse(other)
    for nothing in (None, 1, token.encode()):
        with pytest.raises(InvalidArgument):
            parse(nothing)  # type: ignore[arg-type]  # what a caller without types may do


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**64 - 1)
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | ids
    | digests,
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("word", "parse", "good"),
    [
        ("receipt", Receipt.parse, list(RECEIPT)),
        ("unknown", Question.parse, [list(RECEIPT), QUESTION.digest]),
        ("position", Position.parse, decode_token("position", str(POSITION))),
    ],
)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_forged_values_are_refused(
    word: str, parse: Callable[[str], object], good: list[Any], data: st.DataObject
) -> None:
    """Other values under a right checksum are refused, or mean what they say; nothing else is raised."""
    at = data.draw(st.integers(0, len(good) - 1))
    for values in ([*good[:at], data.draw(anything), *good[at + 1 :]], data.draw(st.lists(anything, max_size=9))):
        token = encode_token(word, values)
        try:
            parsed = parse(token)
        except InvalidArgument:
            continue
        assert (parsed.token() if isinstance(parsed, Question) else str(parsed)) == token


def test_a_token_of_a_later_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is the first value; what another one means is not guessed at."""
    with monkeypatch.context() as later:
        later.setattr("logstore.token._VERSION", 2)
        token = encode_token("receipt", list(RECEIPT))
        assert decode_token("receipt", token) == list(RECEIPT)
    with pytest.raises(InvalidArgument, match="not a receipt of this library"):
        decode_token("receipt", token)
