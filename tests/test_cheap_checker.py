"""Whether the simulation's checker of what is cheap (P14) would notice: each way to list, told by hand."""

from __future__ import annotations

import math

import pytest

from logstore.testing.store import Request
from tests.simulation.checkers import SILENCE_S, p14_cheap
from tests.simulation.evidence import Evidence
from tests.simulation.history import History
from tests.simulation.truth import Truth


def request(sent_s: float, process: str, verb: str = "list", key: str = "roster/") -> Request:
    done = {"list": "listed", "create": "created"}[verb]
    return Request(0, process, verb, key, "", sent_s, sent_s, sent_s, effect=done, outcome=done)


def complaints(*requests: Request, attempts: tuple[tuple[float, float], ...] = ()) -> int:
    now_s = 0.0
    history = History(lambda: now_s)
    for began_s, ended_s in attempts:
        now_s = began_s
        with history.attempt("leader0.1"):
            now_s = ended_s
    evidence = Evidence(history, Truth([], [], {}, {}), requests, True, {}, 0, "full", lambda s: math.nan)
    return len(list(p14_cheap(evidence)))


@pytest.mark.parametrize("process", ["writer0.1", "reader.1", "leader0.1", "last"])
def test_who_does_not_want_to_lead_may_not_list(process: str) -> None:
    """Not once; a view's snapshots, the probe of a store, and keepers are another matter."""
    assert complaints(request(1.0, process)) == 1
    assert complaints(request(1.0, process, key="snapshots/x/"), request(1.0, process, key="probe/x/")) == 0
    assert complaints(request(1.0, "keeper.1")) == 0


def test_an_attempt_to_lead_looks_once() -> None:
    """A second look in one attempt is a complaint, but after a seal time; one in the next is not."""
    first, again, later = request(1.0, "leader0.1"), request(2.0, "leader0.1"), request(5.2, "leader0.1")
    assert complaints(first, again, later, attempts=((0.0, 9.0),)) == 2
    assert complaints(first, request(1.0 + SILENCE_S, "leader0.1"), attempts=((0.0, 9.0),)) == 0
    assert complaints(first, later, attempts=((0.0, 3.0), (3.0, 9.0))) == 0
    assert complaints(first, later, attempts=((0.0, 3.0),)) == 1
