"""Run many seeds, or tell the story of one.

    python -m tests.simulation --seeds 2000 --first 0 --jobs 2
    python -m tests.simulation --first 1234 --trace
    python -m tests.simulation --everything --seeds 100 --coverage
    python -m tests.simulation --planted --seeds 1000
    python -m tests.simulation --seeds 1000 --bug "404 is not stored"

Exit status 0: every promise kept (with --bug: the bug was caught). 1: it was not; the seeds are printed.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from tests.simulation.bugs import BUGS, planted
from tests.simulation.coverage import Site, table
from tests.simulation.documents import DocumentWorld
from tests.simulation.everything import EverythingWorld
from tests.simulation.leaders import LeaderWorld
from tests.simulation.world import Outcome, World, run

PROBLEMS_SHOWN_MAX = 5
KINDS: Final[dict[str, type[World]]] = {
    "things": World,
    "documents": DocumentWorld,
    "leaders": LeaderWorld,
    "everything": EverythingWorld,
}


def main() -> int:
    """Do what the arguments say."""
    arguments = _parse()
    kind = KINDS[arguments.worlds]
    if arguments.planted:
        return _find_planted(arguments.first, arguments.seeds, arguments.jobs)
    if arguments.trace:
        return _tell(arguments.first, arguments.bug, kind)
    began_s = time.perf_counter()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    failed: list[int] = []
    counts: Counter[str] = Counter()
    points: Counter[tuple[Site, str]] = Counter()
    for outcome in _run_all(seeds, arguments.bug, arguments.jobs, kind, covered=arguments.coverage):
        counts += outcome.counts
        points += outcome.points
        if outcome.problems:
            failed.append(outcome.seed)
            _show(outcome)
            if arguments.bug:
                break
    took_s = time.perf_counter() - began_s
    print(" ".join(f"{name.replace(' ', '_')}={count:,}" for name, count in counts.items()))
    if arguments.coverage:
        print("\n".join(table(points)))
    print(f"seeds={len(seeds)} failed={len(failed)} took_s={took_s:.1f}")
    if failed:
        print(
            f"replay one: python -m tests.simulation --first {failed[0]} --trace"
            + f" --{arguments.worlds}" * (kind is not World)
            + (f" --bug '{arguments.bug}'" if arguments.bug else "")
        )
    return int(bool(failed) is not bool(arguments.bug))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Simulate whole systems, one per seed."
    )
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default 100)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes (default: all cores)")
    parser.add_argument(
        "--bug", choices=sorted(BUGS), help="plant this bug, and stop at the first seed that catches it"
    )
    parser.add_argument("--documents", **_kind("documents"), help="worlds in which servers write documents")
    parser.add_argument("--leaders", **_kind("leaders"), help="worlds in which one server at a time leads")
    parser.add_argument("--everything", **_kind("everything"), help="worlds in which all happens at once")
    parser.add_argument(
        "--planted", action="store_true", help="plant each bug, and say at which of the seeds it is caught first"
    )
    parser.add_argument("--coverage", action="store_true", help="tell which fault struck where in the library")
    parser.add_argument("--trace", action="store_true", help="tell everything that happened under the first seed")
    parser.set_defaults(worlds="things")
    return parser.parse_args()


def _kind(name: str) -> dict[str, Any]:
    return {"dest": "worlds", "action": "store_const", "const": name}


def run_with(
    seed: int,
    bug: str | None = None,
    kind: type[World] | None = None,
    *,
    traced: bool = False,
    covered: bool = False,
) -> Outcome:
    """Live through one seed, with the named bug planted if any."""
    with _silence(), planted(bug):
        if bug is None:
            return run(seed, kind=kind, traced=traced, covered=covered)
        return run(seed, BUGS[bug].circumstances, BUGS[bug].world, traced=traced)


@contextmanager
def _silence() -> Iterator[None]:
    """Storms make the library tell of trouble all the time; whoever runs after a world hears it again."""
    loggers = [logging.getLogger("logstore"), logging.getLogger("projections")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _run_all(
    seeds: range, bug: str | None, jobs: int, kind: type[World], *, covered: bool = False
) -> Iterator[Outcome]:
    work = partial(run_with, bug=bug, kind=kind, covered=covered)
    if jobs == 1:
        yield from map(work, seeds)
        return
    with multiprocessing.Pool(jobs, maxtasksperchild=200) as pool:
        yield from pool.imap(work, seeds)


def _find_planted(first: int, seeds: int, jobs: int) -> int:
    """Each bug and the first seed that catches it, beside the one that is on record."""
    missed = 0
    for name, bug in BUGS.items():
        outcomes = _run_all(range(first, first + seeds), name, jobs, World)
        found = next((outcome.seed for outcome in outcomes if bug.caught_by(outcome.problems)), None)
        missed += found is None
        print(f"{'none' if found is None else found:>6} on record {bug.seed:<5} {name}", flush=True)
    print(f"planted={len(BUGS)} missed={missed}")
    return int(missed > 0)


def _show(outcome: Outcome) -> None:
    print(f"seed={outcome.seed} problems={len(outcome.problems)}")
    for problem in outcome.problems[:PROBLEMS_SHOWN_MAX]:
        print(f"    {problem}")
    sys.stdout.flush()


def _tell(seed: int, bug: str | None, kind: type[World]) -> int:
    outcome = run_with(seed, bug, kind, traced=True)
    print("\n".join(outcome.lines))
    _show(outcome)
    print(f"digest={outcome.digest}")
    return int(bool(outcome.problems))


if __name__ == "__main__":
    sys.exit(main())
