"""How many mistakes are planted, and which are those that other systems made: proof is worth what it would notice."""

from __future__ import annotations

import re
from typing import Final

from tests.crashes.bugs import BUGS as CRASHES
from tests.fuzz.bugs import BUGS as FUZZ
from tests.model.bugs import Bug as Model
from tests.pages import ROOT, read
from tests.simulation.bugs import BUGS as SIMULATION

PROMISES: Final = {f"P{number}" for number in range(1, 15)}
SOURCES: Final = [*(ROOT / "tests" / "simulation").glob("*.py"), ROOT / "logstore" / "testing" / "store.py"]
PLANTED_MIN: Final = 40
PEERS_MIN: Final = 8
FAILURES: Final = {
    "zombie writer",
    "GC removes the fence",
    "slow reader loses a file",
    "GC races publication",
    "ambiguous PUT",
    "correctness by LIST",
    "clock skew decides the order",
    "torn segment",
    "snapshot poisoning",
    "request cost",
}


def test_at_least_forty_mistakes_are_planted() -> None:
    """The model, the simulation, crashes and fuzzing each plant some; each has a test that it is caught."""
    assert min(len(SIMULATION), len(CRASHES), len(FUZZ), len(Model)) >= PEERS_MIN
    assert len(SIMULATION) + len(CRASHES) + len(FUZZ) + len(Model) >= PLANTED_MIN


def test_at_least_eight_planted_mistakes_are_those_of_peers() -> None:
    """Each names the failure and who had it; together they are nearly all that logs on object stores suffered from."""
    named = [*(bug.peer for bug in SIMULATION.values()), *(bug.peer for bug in CRASHES.values())]
    peers = [peer for peer in named if peer]
    assert len(peers) >= PEERS_MIN
    assert {peer.partition(" (")[0] for peer in peers} == FAILURES
    assert all(peer.endswith(")") for peer in peers)


def test_every_promise_has_a_checker_and_a_mistake_that_it_catches() -> None:
    """docs/testing.md names them: each is a function or a class of the simulation, and a bug breaks each promise."""
    rows = re.findall(r"^\| (P\d+) [^|]*\| (.*) \|$", read("docs/testing.md"), re.MULTILINE)
    code = "".join(path.read_text() for path in SOURCES)
    named = {name for _, text in rows for name in re.findall(r"`(\w+)`", text)}
    assert {name for name in named if not re.search(rf"(def|class) {name}\b", code)} == set()
    assert {promise for promise, _ in rows} == PROMISES
    assert {promise for bug in SIMULATION.values() for promise in bug.breaks} >= PROMISES
