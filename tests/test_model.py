"""The small models of the protocol: every schedule of small worlds, random schedules of a large one, planted mistakes.

`python -m tests.model` prints what these tests assert.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.model import protocol, random_schedule, retention, worlds
from tests.model.bugs import Bug
from tests.model.catalogue import CATCHES, LARGE, P1, P7, QUICK, Catch
from tests.model.explorer import Process, World, check_style, explore
from tests.model.random_schedule import Bounds, PromiseBroken, Run
from tests.model.store import Create, Get, Segment, Steps, log, stored


def name_of(world: Callable[..., World]) -> str:
    return world().name.replace(" ", "-")


@pytest.mark.parametrize("world", QUICK, ids=name_of)
def test_every_schedule_keeps_the_promises(world: Callable[..., World]) -> None:
    """With no mistake planted, every promise holds in every state of every small world."""
    result = explore(world())
    print(result)
    assert result.broken is None, str(result)


@pytest.mark.slow
@pytest.mark.parametrize("world", LARGE, ids=name_of)
def test_every_schedule_of_the_larger_worlds_keeps_the_promises(world: Callable[..., World]) -> None:
    """The promises hold in every state with more batches, more readers and more lost answers, too."""
    result = explore(world(), states_max=20_000_000)
    print(result)
    assert result.broken is None, str(result)


@pytest.mark.parametrize("catch", CATCHES, ids=lambda catch: f"{catch.bug.name}-{name_of(catch.world)}")
def test_a_planted_mistake_is_caught(catch: Catch) -> None:
    """Each mistake breaks the promise that the catalogue names, and the schedule that shows it is printed."""
    result = explore(catch.world(catch.bug))
    print(result)
    assert result.broken is not None
    assert result.broken.promise == catch.promise
    assert result.trace


def test_every_mistake_is_in_the_catalogue() -> None:
    """No mistake can be planted that no test plants."""
    assert {catch.bug for catch in CATCHES} == set(Bug)


def test_every_sleeper_needs_the_look() -> None:
    """The sleeper's rule is missed by writer, opener, reader and sealer alike."""
    assert {catch.world for catch in CATCHES if catch.bug is Bug.NO_LOOK} == set(retention.SLEEPERS)


@pytest.mark.parametrize("seed", range(4))
def test_random_schedules_keep_the_promises(seed: int) -> None:
    """Thousands of requests by writers, keepers, collectors, sealers and readers break no promise; chapters retire."""
    run = Run(seed).run()
    assert run.chapters_retired > 0
    assert run.told[protocol.STORED] > 100


@pytest.mark.slow
def test_many_random_schedules_keep_the_promises() -> None:
    """120 seeds, some thousand retired chapters."""
    assert sum(Run(seed).run().chapters_retired for seed in range(100, 220)) > 1_000


@pytest.mark.parametrize(
    ("bug", "promise"), [(Bug.STAMP_BELOW_TAIL, P7), (Bug.ACKNOWLEDGES_OUT_OF_ORDER, P1), (Bug.NUMBER_AFTER_CLOSED, P1)]
)
def test_random_schedules_catch_mistakes_and_name_the_seed(bug: Bug, promise: str) -> None:
    """A broken promise of a random schedule says which seed replays it."""
    with pytest.raises(PromiseBroken, match=r"^seed=0 ") as caught:
        Run(0, bug).run()
    assert caught.value.broken.promise == promise


def test_without_the_sleepers_rule_random_schedules_fail_at_once() -> None:
    """No look at all does not survive the first seed."""
    with pytest.raises(PromiseBroken, match=r"^seed=0 "):
        Run(0, Bug.NO_LOOK).run()


def test_equal_seeds_give_equal_schedules() -> None:
    """A seed is all it takes to see a run again; another seed is another run."""
    bounds = Bounds(steps=1_000)
    one, two, other = (Run(seed, bounds=bounds).run().schedule for seed in (5, 5, 6))
    assert one == two
    assert one != other


# The explorer is itself believed by everybody, so it gets tests of its own.


def two_that_race(reader: bool) -> World:
    """Two processes create one name and read it back."""

    def racer(name: str) -> Callable[[], Steps]:
        def role() -> Steps:
            yield Create(log((0, 1), 0), Segment(name, 1))
            yield Get(log((0, 1), 0))

        return role

    names = ("left", "right")
    return World("race", "", tuple(Process(name, racer(name), reader=reader) for name in names), stored({}))


def test_the_explorer_sees_every_interleaving() -> None:
    """Two processes of two steps each: two winners, and every way to be part done."""
    result = explore(two_that_race(reader=True))
    # Nobody has created: 1. One has: 2 winners × (winner at 2 of 2 places left) × (loser at 3) = 12.
    assert result.states == 1 + 2 * 2 * 3


def test_reading_at_once_saves_states_and_no_outcome() -> None:
    """The reduction that takes steady reads at once ends in the same states by fewer ways."""
    full, reduced = explore(two_that_race(reader=True)), explore(two_that_race(reader=False))
    assert reduced.states < full.states
    assert reduced.depth == full.depth


def test_processes_hide_nothing_from_the_explorer() -> None:
    """In the protocol no yield stands where it would hide a part of a process's state."""
    assert check_style(protocol) == []
    assert check_style(retention) == []


def test_a_counterexample_is_a_readable_schedule() -> None:
    """The shortest way to a broken promise is printed line by line: who, what, with what answer."""
    result = explore(worlds.flights(Bug.ACKNOWLEDGES_OUT_OF_ORDER))
    assert str(result).splitlines()[-1] == (
        "    2. writer-1  create log/0/1/1 <b 3 by writer-1 ack<0> -> log/0/1/1 created   [b: stored]"
    )


def test_the_models_know_nothing_of_the_code() -> None:
    """A model is a second opinion: it imports the standard library and itself."""
    for path in Path(protocol.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.startswith("tests.model") or name.partition(".")[0] in sys.stdlib_module_names, path


def test_random_rules_are_the_protocols() -> None:
    """The random world runs with flights, chapters and a grace, none of them switched off."""
    assert random_schedule.RULES.flights > 1
    assert random_schedule.RULES.grace > 0
