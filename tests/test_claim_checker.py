"""The checker of claims is exact: a history that fits some order passes, and one that fits none does not."""

from __future__ import annotations

import math

import pytest

from tests.simulation.documents import Deed, Telling, Told, claims_are_linearizable

CREATED, DELETED = "create", "delete"


def deed(number: int, do: str, called_s: float, ended_s: float, told: Told = Told.STORED) -> Deed:
    stored_s = ended_s if told is Told.STORED else math.inf
    return Deed(number, "web", "Seat", "s0", do, False, called_s, told, stored_s, ended_s)


def contradictions(deeds: list[Deed], changes: list[int]) -> list[str]:
    """What is wrong with these calls, where the log has the changes in this order."""
    telling = Telling()
    telling.changes["Seat", "s0"] = [str(number) for number in changes]
    return list(claims_are_linearizable(deeds, telling))


TAKEN, LEFT = deed(0, CREATED, 1, 2), deed(1, DELETED, 3, 4)


def test_calls_that_overlap_may_have_any_order() -> None:
    """A seat is taken, left, and taken again by somebody who called before it was left."""
    assert contradictions([TAKEN, LEFT, deed(2, CREATED, 2.5, 9)], [0, 1, 2]) == []


def test_what_had_ended_is_not_behind_what_was_called_later() -> None:
    """The order of effects respects time."""
    (problem,) = contradictions([TAKEN, LEFT, deed(2, CREATED, 9, 10), deed(3, DELETED, 5, 6)], [0, 1, 2, 3])
    assert problem == "P6 delete s0 3 had ended before 2 was called, and has effect after it"


@pytest.mark.parametrize(
    ("told", "called_s", "ended_s", "is_possible"),
    [
        (Told.EXISTS, 0, 0.9, False),  # nobody had begun to take it
        (Told.EXISTS, 0, 1, True),
        (Told.EXISTS, 4, 5, True),  # the call to leave it ended then
        (Told.EXISTS, 4.1, 5, False),
        (Told.ABSENT, 0, 0.5, True),
        (Told.ABSENT, 2.1, 2.9, False),  # taken for certain
        (Told.ABSENT, 2, 2.1, True),
        (Told.ABSENT, 5, 6, True),
    ],
)
def test_an_answer_is_one_that_was_true_at_some_moment(
    told: Told, called_s: float, ended_s: float, is_possible: bool
) -> None:
    """Who is told that a seat is taken, or free, is told what may have been so between the call and its end."""
    asked = deed(2, CREATED if told is Told.EXISTS else DELETED, called_s, ended_s, told)
    assert (contradictions([TAKEN, LEFT, asked], [0, 1]) == []) is is_possible
