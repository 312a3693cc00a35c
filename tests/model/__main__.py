"""`python -m tests.model`: explore every world, plant every mistake, and print what came of it in tables."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.bugs import Bug
from tests.model.catalogue import CATCHES, LARGE, QUICK
from tests.model.explorer import explore
from tests.model.random_schedule import PromiseBroken, Run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--large", action="store_true", help="larger bounds too: minutes, and some GB of memory")
    parser.add_argument("--seeds", type=int, default=20, help="how many random schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--trace", choices=[bug.name for bug in Bug], help="print the schedule that catches one mistake"
    )
    chosen = parser.parse_args()
    if chosen.trace:
        return trace(Bug[chosen.trace])
    sound = explore_all(large=chosen.large)
    sound &= schedules(chosen.first, chosen.seeds)
    sound &= mistakes()
    return 0 if sound else 1


def explore_all(*, large: bool) -> bool:
    """Every world with no mistake planted."""
    print(f"{'world':<21} {'states':>10} {'steps':>11} {'depth':>5} {'s':>6}  what runs")
    total, sound = 0, True
    for world in QUICK + (LARGE if large else ()):
        result = explore(world(), states_max=20_000_000)
        total += result.states
        print(
            f"{result.world.name:<21} {result.states:>10,} {result.transitions:>11,} {result.depth:>5}"
            f" {result.seconds:>6.1f}  {result.world.about}",
            flush=True,
        )
        if result.broken:
            sound = False
            print(result)
    print(f"{'all of them':<21} {total:>10,}  every promise holds in every state\n" if sound else "BROKEN\n")
    return sound


def schedules(first: int, seeds: int) -> bool:
    """Random schedules of the large world."""
    began, chapters, events, steps = time.perf_counter(), 0, 0, 0
    for seed in range(first, first + seeds):
        try:
            run = Run(seed).run()
        except PromiseBroken as broken:
            print(broken)
            return False
        chapters, events, steps = chapters + run.chapters_retired, events + run.events, steps + run.step
    seconds = time.perf_counter() - began
    print(f"{seeds} random schedules from seed {first}: {steps:,} requests, {events:,} events, {chapters:,} chapters")
    print(f"retired, in {seconds:.1f} s; every promise holds\n")
    return True


def mistakes() -> bool:
    """Every planted mistake, and what caught it."""
    print(f"{'planted mistake':<30} {'caught in':<21} {'breaks':<22} {'after states':>12}  how")
    sound = True
    for bug, world, promise in CATCHES:
        result = explore(world(bug))
        caught = result.broken is not None and result.broken.promise == promise
        sound &= caught
        breaks, how = (result.broken.promise, result.broken.how) if result.broken else ("NOTHING", "")
        print(f"{bug.name:<30} {result.world.name:<21} {breaks:<22} {result.states:>12,}  {how}", flush=True)
    uncaught = set(Bug) - {catch.bug for catch in CATCHES}
    print(f"{len(set(Bug) - uncaught)} mistakes, all caught" if sound and not uncaught else "NOT ALL CAUGHT")
    return sound and not uncaught


def trace(bug: Bug) -> int:
    """The shortest schedule that shows one mistake, in every world that catches it."""
    print(f"{bug.name}: {bug.value}")
    for catch in CATCHES:
        if catch.bug is bug:
            print(explore(catch.world(bug)))
    return 0


sys.exit(main())
