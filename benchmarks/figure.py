"""Figures: what a workload reached, beside something else that was measured in the same run.

pytest-benchmark writes them into its JSON, with each benchmark's ``extra_info``; what is recorded of a run is a list
of them, and where they come from.

Invariants:
- What is compared between runs is the ratio: ours divided by what it stands beside. Seconds are a machine's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "THE_GOAL", "Figure", "Run", "read_run", "record", "recorded_runs", "shown"]

RESULTS = Path(__file__).parent / "results"

THE_GOAL = "the goal"  # what stands beside a figure that is to be so much, whatever others reach


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report; ``ours`` and ``theirs`` are in ``unit``.

    ``goal``: what the ratio is to be at least; where ``less`` is better, at most. ``steady``: whether the ratio is much
    the same on any machine, so that a worse one tells of a change here.

    >>> figure = Figure("append", ours=600.0, theirs=1_000.0, unit="events/s", beside="the limit", goal=0.5)
    >>> figure.ratio, figure.met
    (0.6, True)
    """

    work: str
    ours: float
    theirs: float
    unit: str
    beside: str
    less: bool = False
    goal: float | None = None
    steady: bool = True

    @property
    def name(self) -> tuple[str, str, str]:
        """What it is the same as from run to run."""
        return self.work, self.unit, self.beside

    @property
    def ratio(self) -> float:
        """Ours divided by theirs."""
        return self.ours / self.theirs

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.ratio <= self.goal if self.less else self.ratio >= self.goal

    def to_json(self) -> dict[str, Any]:
        """As it is written, with what follows from it, for those who read the JSON."""
        return {**asdict(self), "ratio": float(f"{self.ratio:.4g}"), "met": self.met}

    @staticmethod
    def from_json(written: Mapping[str, Any]) -> Figure:
        """The figure that was written so."""
        return Figure(**{name: value for name, value in written.items() if name not in ("ratio", "met")})


def shown(value: float) -> str:
    """A number to three digits that count.

    >>> [shown(value) for value in (1_234_567, 21.44, 0.61803, 0.00042)]
    ['1,230,000', '21.4', '0.618', '0.00042']
    """
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return (
        f"{round(value, digits):,.0f}" if digits <= 0 else f"{round(value, digits):.{digits}f}".rstrip("0").rstrip(".")
    )


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of a run, by the benchmark that they are of. ``about``: the machine, and versions.

    ``circumstances``: for each benchmark the commit, the load and the disk, which differ where runs are put together.
    """

    date: str
    sizes: str
    about: Mapping[str, str]
    figures: Mapping[str, list[Figure]]
    circumstances: Mapping[str, str]


def read_run(path: Path) -> Run:
    """Read what pytest-benchmark wrote."""
    written = json.loads(path.read_text())
    figures: dict[str, list[Figure]] = {}
    for benchmark in written["benchmarks"]:
        module = benchmark["fullname"].partition("::")[0]
        group = Path(module).stem.removeprefix("bench_")
        for each in benchmark["extra_info"].get("figures", ()):
            figures.setdefault(group, []).append(Figure.from_json(each))
    commit, about = written["commit_info"], dict(written["about"])
    at = f"commit {commit['id'][:7]}{' and changes' if commit['dirty'] else ''}"
    here = f"{at}; load {about.pop('load')}; {about.pop('disk')}"
    return Run(written["datetime"][:10], written["sizes"], about, figures, dict.fromkeys(figures, here))


def recorded_runs(directory: Path) -> list[Run]:
    """What was recorded, in the order of the days."""
    return [_read(path) for path in sorted(directory.glob("*.json"))]


def record(run: Run, directory: Path) -> None:
    """Record a run: the figures and where they come from, without each round's seconds.

    What was recorded on the same day, of the same sizes, stays of benchmarks that this run has not.
    """
    path = directory / f"{run.date}-{run.sizes}.json"
    older = _read(path) if path.exists() else replace(run, figures={}, circumstances={})
    figures = {**older.figures, **run.figures}
    shown = {group: [figure.to_json() for figure in figures] for group, figures in figures.items()}
    written = {
        "date": run.date,
        "sizes": run.sizes,
        "about": dict(run.about),
        "circumstances": {**older.circumstances, **run.circumstances},
        "figures": shown,
    }
    path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")


def _read(path: Path) -> Run:
    written = json.loads(path.read_text())
    groups = written["figures"].items()
    figures = {group: [Figure.from_json(each) for each in figures] for group, figures in groups}
    return Run(written["date"], written["sizes"], written["about"], figures, written["circumstances"])
