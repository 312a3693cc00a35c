"""Compare a run's ratios with those last recorded: ``python -m benchmarks.guard RUN.json``; status 1 when one is worse.

A ratio is worse when it is more than ``TOLERANCE`` times as bad: on a machine with other work two runs of the same code
differ by a third now and then. Only steady figures of runs of the same sizes are compared. What is wanted but was
not run is named, and is no failure. Record a run after the guard has passed it: what is recorded is the new measure.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.figure import RESULTS, Figure, read_run, recorded_runs, shown

__all__ = ["TOLERANCE", "main", "not_run", "worse"]

TOLERANCE = 1.6


def worse(before: Iterable[Figure], now: Iterable[Figure], tolerance: float = TOLERANCE) -> list[str]:
    """One line for each figure whose ratio is worse than before, beyond what chance does."""
    known = {figure.name: figure for figure in before}
    lines = []
    for figure in now:
        was = known.get(figure.name)
        if was is None or not figure.steady:
            continue
        times = figure.ratio / was.ratio if figure.less else was.ratio / figure.ratio
        if times > tolerance:
            lines.append(
                f"{figure.work}, beside {figure.beside}: {shown(figure.ratio)}, was {shown(was.ratio)};"
                f" {shown(times)} times as bad"
            )
    return lines


def not_run(before: Iterable[Figure], now: Iterable[Figure]) -> list[str]:
    """What was recorded and has no figure in this run."""
    names = {figure.name for figure in now}
    return [f"{figure.work}, beside {figure.beside}" for figure in before if figure.steady and figure.name not in names]


def main(arguments: Sequence[str], results: Path = RESULTS) -> int:
    """Compare; return the exit status: 0 none is worse, 1 some are, 2 there is nothing to compare."""
    path = Path(arguments[0])
    if not path.exists():
        print(f"no run path={path}; make bench first", file=sys.stderr)
        return 2
    run = read_run(path)
    recorded = [other for other in recorded_runs(results) if other.sizes == run.sizes]
    if not recorded:
        print(f"nothing recorded sizes={run.sizes}; make bench-report first", file=sys.stderr)
        return 2
    groups: dict[str, list[Figure]] = {}
    for other in recorded:
        groups.update(other.figures)
    if not run.figures or all(groups.get(group) == figures for group, figures in run.figures.items()):
        print(f"nothing new to compare path={path}; make bench first", file=sys.stderr)
        return 2
    if others := sorted(groups.keys() - run.figures.keys()):
        print(f"not run: {', '.join(others)}")
    found, count = list[str](), 0
    for group, now in run.figures.items():
        before = groups.get(group, [])
        for line in not_run(before, now):
            print(f"not in this run: {line}")
        found += worse(before, now)
        count += len(now)
    for line in found:
        print(f"worse: {line}")
    print(f"{count} figures, {len(found)} worse by more than {TOLERANCE:g} times")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
