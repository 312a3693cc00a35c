"""The position at a stamp is a function of the log, however far a reading has got beyond it."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.entry import Open, Tick
from logstore.frontier import Position, SessionPosition
from logstore.session import Tip
from logstore.trail import SettledTrail
from tests.test_frontier import STORE_ID, Reading, World


def position_by_format(world: World, stamp: int) -> Position:
    """What FORMAT §8 says of ``sessions``, from the whole log."""
    entries = [entry for entry in world.entries if entry.stamp <= stamp]
    if not entries:
        return Position(STORE_ID, None, b"", ())
    sessions = []
    for opened in entries:
        if isinstance(opened.body, Open) and opened.valid:
            tip, last = Tip.of(opened), opened.stamp
            for segment in world.sessions[opened.address]:
                if segment.final:
                    break
                last = segment.stamp
                if segment.stamp <= stamp:
                    tip = tip.after(segment)
            if last >= stamp:
                sessions.append(SessionPosition(*opened.address, tip, 0))
    return Position(STORE_ID, entries[-1].address, entries[-1].digest, tuple(sessions))


def start(reading: Reading) -> SettledTrail:
    trail = SettledTrail(reading.frontier.position())
    reading.frontier.trail = trail
    return trail


@given(st.randoms(use_true_random=False), st.integers(5, 60))
@settings(max_examples=100, deadline=None)
def test_what_no_cut_to_come_needs_is_not_kept(rng: random.Random, steps: int) -> None:
    """Told what is settled, a reading without cuts keeps of each session one tip below it; the next cut is right."""
    world = World.random(rng, steps)
    reading, settled = Reading(world), 0
    trail = start(reading)
    while choices := reading.choices():
        taken = rng.choice(choices)
        reading.take(taken, rng)
        tips = [] if taken is None else list(trail._later.get(taken, ()))
        is_final = taken is not None and taken not in reading.frontier.sessions  # then nothing was kept, nor let go
        assert is_final or len([tip for tip in tips if tip.stamp <= settled]) <= 1
        settled = reading.frontier.watermark()
        trail.settle(settled)
        if rng.random() < 0.1:
            assert trail.cut(settled) == position_by_format(world, settled)
    assert trail.cut(settled) == position_by_format(world, settled)


@given(st.randoms(use_true_random=False), st.integers(5, 60))
@settings(max_examples=200, deadline=None)
def test_a_cut_is_what_format_says(rng: random.Random, steps: int) -> None:
    """At any stamp that the watermark has reached, whatever the reading had taken in by then."""
    world = World.random(rng, steps)
    reading = Reading(world)
    trail, cut_at = start(reading), 0
    while choices := reading.choices():
        reading.take(rng.choice(choices), rng)
        watermark = reading.frontier.watermark()
        if watermark > cut_at and rng.random() < 0.3:
            cut_at = rng.randint(cut_at + 1, watermark)
            assert trail.cut(cut_at) == position_by_format(world, cut_at)


@given(st.randoms(use_true_random=False), st.integers(5, 40))
@settings(max_examples=100, deadline=None)
def test_what_is_kept_of_a_trail_is_bounded(rng: random.Random, steps: int) -> None:
    """After a cut at the watermark nothing is kept of sessions that have ended, nor of anything below it."""
    world = World.random(rng, steps)
    reading = Reading(world)
    trail = start(reading)
    while choices := reading.choices():
        reading.take(rng.choice(choices), rng)
        watermark = reading.frontier.watermark()
        trail.cut(watermark)
        assert all(entry.stamp > watermark for entry in trail._entries)
        assert all(tips[0].stamp > watermark for tips in trail._later.values())
        ended = {address for address, tips in trail._later.items() if address not in reading.frontier.sessions}
        assert set(trail._tips) <= set(reading.frontier.sessions) | ended | {
            address for address, tip in trail._tips.items() if tip.stamp == watermark
        }


def test_points_are_told_in_order_until_they_are_cut() -> None:
    """Only ticks so marked, only up to the stamp asked for, and each until the cut has passed it."""
    world = World(random.Random(0))
    world.post(world.body())
    first, plain, second = (world.post(Tick((), point)) for point in ((), None, ()))
    reading = Reading(world)
    trail = start(reading)
    while choices := reading.choices():
        reading.take(choices[0], random.Random(0))
    assert trail.points(first.stamp - 1) == []
    assert trail.points(plain.stamp) == [first]
    assert trail.points(second.stamp) == [first, second]
    trail.cut(first.stamp)
    assert trail.points(second.stamp) == [second]
