"""Whole systems under a seed, in the normal test run: many worlds, determinism, and planted bugs that must be found.

Many more seeds: make simulate SEEDS=2000.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.__main__ import run_with
from tests.simulation.bugs import BUGS
from tests.simulation.coverage import Site, known_places, never, reached, struck, table
from tests.simulation.documents import DocumentWorld
from tests.simulation.everything import EverythingWorld
from tests.simulation.leaders import LeaderWorld
from tests.simulation.world import World

pytestmark = pytest.mark.simulate

BATCHES = 14
SEEDS_PER_BATCH = 5
EVERYTHING = (
    (0, 1),
    (2, 4),
    (5, 6),
    (8, 9),
    (10, 12),
    (13, 14),
    (16, 17),
    (18, 20),
    (21, 22),
    (24, 25),
    (3,),
    (7,),
)
SITE_REACHED_MIN = 30  # so often in a batch that something must have gone wrong there
SITES_MIN = 15
SEEDS_FOR_EVERY_PLACE = 26
SPARED_MAX = 10  # a place may be reached less often than that without anything going wrong
SITE_BUSY_MIN = 1_000  # so often that every kind of fault must have struck
SEEDS_PER_BUG_MAX = 30  # the first catches it, until production code changes what happens under it


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_promise_is_kept(batch: int) -> None:
    """Whatever befalls the processes of a world, P1 to P10, P13 and P14 hold in it."""
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        problems = run_with(seed).problems
        assert problems == [], f"replay: python -m tests.simulation --first {seed} --trace"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_documents_are_what_their_writers_were_told(batch: int) -> None:
    """Whatever befalls servers, what they are told of documents, claims, watches agrees with RFC 0009, told simply."""
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        problems = run_with(seed, kind=DocumentWorld).problems
        assert problems == [], f"replay: python -m tests.simulation --documents --first {seed} --trace"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_what_clients_of_leaders_see_is_strictly_serializable(batch: int) -> None:
    """Whoever leads, sleeps, dies or is taken over: what was acknowledged, refused, read fits one order of commits."""
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        problems = run_with(seed, kind=LeaderWorld).problems
        assert problems == [], f"replay: python -m tests.simulation --leaders --first {seed} --trace"


@pytest.mark.parametrize("seeds", EVERYTHING, ids=str)
def test_everything_at_once_keeps_every_promise_with_faults_wherever_the_store_is_asked(seeds: tuple[int, ...]) -> None:
    """Things, documents and leaders on one log: all hold; and each place that asks the store saw something go wrong."""
    points: Counter[tuple[Site, str]] = Counter()
    for seed in seeds:
        outcome = run_with(seed, kind=EverythingWorld)
        points += outcome.points
        assert outcome.problems == [], f"replay: python -m tests.simulation --everything --first {seed} --trace"
    often = [site for site, count in reached(points) if count >= SITE_REACHED_MIN]
    assert len(often) >= SITES_MIN
    assert [site for site in often if not struck(points, site)] == []


@pytest.mark.slow
def test_no_place_that_asks_the_store_is_spared() -> None:
    """Over some dozens of seeds each place that is reached saw something go wrong, each busy one every kind."""
    points: Counter[tuple[Site, str]] = Counter()
    for seed in range(SEEDS_FOR_EVERY_PLACE):
        points += run_with(seed, kind=EverythingWorld).points
    spared = [f"{site}" for site, count in reached(points) if count >= SPARED_MAX and not struck(points, site)]
    assert spared == []
    assert list(never(points, reached_min=SITE_BUSY_MIN)) == [], "\n".join(table(points))


def test_a_request_is_put_down_to_who_awaits_it() -> None:
    """Also when it is gathered, in a task of its own, or goes through wrappers and the memory of objects."""
    places = {site.place for (site, _), _ in run_with(5, covered=True).points.items()}
    assert {"logstore/follower.py:_fetch_segments", "logstore/writer.py:_fly", "logstore/roster.py:is_tail"} <= places
    assert {"logstore/follower.py:_fetch_segments", "logstore/writer.py:_fly", "logstore/keeper.py:_retire"} <= (
        known_places()
    )


@pytest.mark.parametrize(("kind", "seed"), [(World, 7), (DocumentWorld, 7), (LeaderWorld, 7), (EverythingWorld, 1)])
def test_equal_seeds_give_equal_histories(kind: type[World], seed: int) -> None:
    """A world is a function of its seed: in one process, and in another that hashes text differently."""
    here = [run_with(seed, kind=kind).digest, run_with(seed, kind=kind).digest]
    name = kind.__name__
    program = f"from tests.simulation.__main__ import {name}, run_with; print(run_with({seed}, kind={name}).digest)"
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {*here, *there} == {here[0]}


@pytest.mark.parametrize("bug", sorted(BUGS))
def test_a_planted_bug_is_found(bug: str) -> None:
    """Each bug, planted into production code by name, is caught by a checker of what it breaks, within a few seeds."""
    first = BUGS[bug].seed
    assert any(BUGS[bug].caught_by(run_with(seed, bug).problems) for seed in range(first, first + SEEDS_PER_BUG_MAX)), (
        f"production code has moved on; find another seed: python -m tests.simulation --seeds 1000 --bug {bug!r}"
    )
