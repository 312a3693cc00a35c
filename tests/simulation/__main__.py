"""Run many seeds, or tell the story of one.

    python -m tests.simulation --seeds 2000 --first 0 --jobs 2
    python -m tests.simulation --first 1234 --trace
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
from functools import partial

from tests.simulation.bugs import BUGS, planted
from tests.simulation.documents import DocumentWorld
from tests.simulation.leaders import LeaderWorld
from tests.simulation.world import Outcome, World, run

PROBLEMS_SHOWN_MAX = 5


def main() -> int:
    """Do what the arguments say."""
    arguments = _parse()
    kind = LeaderWorld if arguments.leaders else DocumentWorld if arguments.documents else World
    if arguments.trace:
        return _tell(arguments.first, arguments.bug, kind)
    began_s = time.perf_counter()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    failed: list[int] = []
    counts: Counter[str] = Counter()
    for outcome in _run_all(seeds, arguments.bug, arguments.jobs, kind):
        counts += outcome.counts
        if outcome.problems:
            failed.append(outcome.seed)
            _show(outcome)
            if arguments.bug:
                break
    took_s = time.perf_counter() - began_s
    print(" ".join(f"{name.replace(' ', '_')}={count:,}" for name, count in counts.items()))
    print(f"seeds={len(seeds)} failed={len(failed)} took_s={took_s:.1f}")
    if failed:
        print(
            f"replay one: python -m tests.simulation --first {failed[0]} --trace{' --documents' * arguments.documents}"
            + " --leaders" * arguments.leaders
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
    parser.add_argument("--documents", action="store_true", help="worlds in which servers write documents")
    parser.add_argument("--leaders", action="store_true", help="worlds in which one server at a time leads")
    parser.add_argument("--trace", action="store_true", help="tell everything that happened under the first seed")
    return parser.parse_args()


def run_with(seed: int, bug: str | None = None, kind: type[World] | None = None, *, traced: bool = False) -> Outcome:
    """Live through one seed, with the named bug planted if any."""
    logging.getLogger("logstore").setLevel(logging.ERROR)  # storms make it warn all the time
    with planted(bug):
        if bug is None:
            return run(seed, kind=kind, traced=traced)
        return run(seed, BUGS[bug].circumstances, BUGS[bug].world, traced=traced)


def _run_all(seeds: range, bug: str | None, jobs: int, kind: type[World]) -> Iterator[Outcome]:
    work = partial(run_with, bug=bug, kind=kind)
    if jobs == 1:
        yield from map(work, seeds)
        return
    with multiprocessing.Pool(jobs, maxtasksperchild=200) as pool:
        yield from pool.imap(work, seeds)


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
