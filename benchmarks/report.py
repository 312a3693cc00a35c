"""Write the report: ``python -m benchmarks.report RUN.json``, of what pytest-benchmark wrote.

It makes docs/benchmarks.md, its charts in docs/assets, and records the figures in benchmarks/results. A run of some
benchmarks only leaves the others as they were recorded last, with the day they are of.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.chart import Bar, Group, Ratio, bars, ratios
from benchmarks.figure import RESULTS, THE_GOAL, Figure, Run, read_run, record, recorded_runs, shown

__all__ = ["main", "markdown", "rates_chart", "ratios_chart"]

ROOT = Path(__file__).parent.parent
SECTIONS = {
    "append": "Appending",
    "visibility": "Until another process sees it",
    "ceph": "On S3: a real Ceph on the same machine",
    "requests": "Requests, and what they cost",
    "growth": "As a log grows",
    "imports": "Starting",
    "decode": "Reading a log",
    "views": "Views from a log",
    "snapshots": "Views from a snapshot",
    "reads": "Reading a view",
    "documents": "Documents that many write",
    "history": "A real history",
    "budget": "Views within a memory budget",
    "polling": "A control plane under its agents",
}
SIZES = {"usual": "", "full": ", in full size"}
INTRODUCTION = """\
# Benchmarks

Each line is what `benchmarks/bench_*.py` measured: ours and what stands beside it, in turns, in one run, on the same
data. So read the ratios; rates are those of one machine on one day, under the load and on the disk that each section
names. *Durable* means synced to the disk. What stands in the way where a goal is missed, and what was tried, is in
[performance](performance.md). `make bench` measures anew, `make bench-guard` compares the ratios with those recorded,
`make bench-report` records them and writes this page.
"""


def main(arguments: Sequence[str]) -> None:
    """Read a run, write the page."""
    run = read_run(Path(arguments[0]))
    if run.sizes == "tiny":
        raise SystemExit("a run of tiny sizes shows only that the workloads run; make bench measures")
    record(run, RESULTS)
    write_page(recorded_runs(RESULTS), ROOT / "docs")


def write_page(runs: Sequence[Run], docs: Path) -> None:
    """Write the page and its charts, of runs in the order of their days."""
    charts = {}
    for group, title, run in sections(runs):
        for name, draw in {"rates": rates_chart, "ratios": ratios_chart}.items():
            if chart := draw(title, run.figures[group]):
                charts[_chart_name(group, run, name)] = chart
    for path in (docs / "assets").glob("bench-*.svg"):
        path.unlink()
    for name, chart in charts.items():
        (docs / "assets" / name).write_text(chart)
    (docs / "benchmarks.md").write_text(markdown(runs, charts))


def sections(runs: Sequence[Run]) -> Iterator[tuple[str, str, Run]]:
    """Each benchmark, its title, and the last run that has figures of it; of each size."""
    for group, title in SECTIONS.items():
        for sizes, more in SIZES.items():
            if run := next((run for run in reversed(runs) if run.sizes == sizes and group in run.figures), None):
                yield group, title + more, run


def _chart_name(group: str, run: Run, name: str) -> str:
    return f"bench-{group}-{name}{'' if run.sizes == 'usual' else f'-{run.sizes}'}.svg"


def markdown(runs: Sequence[Run], charts: Iterable[str]) -> str:
    """The page."""
    parts, shown_runs = [INTRODUCTION], list[Run]()
    for group, title, run in sections(runs):
        if run not in shown_runs:
            shown_runs.append(run)
        parts.append(f"## {title}\n\n{_origin(run, group)}, {run.circumstances[group]}.\n")
        names = [_chart_name(group, run, name) for name in ("rates", "ratios")]
        parts += [f"![{title}](assets/{name})\n" for name in names if name in charts]
        parts.append("\n".join(table(run.figures[group])) + "\n")
    parts.append("## Where they were measured\n")
    for run in shown_runs:
        about = "\n".join(f"- {name}: {text}" for name, text in run.about.items() if text)
        parts.append(f"{_origin(run)}.\n\n{about}\n")
    return "\n".join(parts)


def _origin(run: Run, group: str = "") -> str:
    target = "bench-ceph" if group == "ceph" else "bench-full" if run.sizes == "full" else "bench"
    return f"{run.date}, `make {target}`"


def table(figures: Iterable[Figure]) -> list[str]:
    """One line for each figure; the same work and the same of ours are said once."""
    lines, before = ["| work | ours | beside | theirs | ratio | goal | |", "|---|---|---|---|---|---|---|"], None
    for figure in figures:
        mine = (figure.work, figure.ours, figure.unit)
        work, ours = ("", "") if mine == before else (figure.work, f"{shown(figure.ours)} {figure.unit}")
        before = mine
        goal = "" if figure.goal is None else f"{'≤' if figure.less else '≥'} {shown(figure.goal)}"
        met = {True: "met", False: "**missed**", None: ""}[figure.met]
        theirs, ratio = shown(figure.theirs), shown(figure.ratio)
        lines.append(f"| {work} | {ours} | {figure.beside} | {theirs} | {ratio} | {goal} | {met} |")
    return lines


def rates_chart(title: str, figures: Iterable[Figure]) -> str:
    """What each reaches that is counted by the second; "" where nothing is. Bytes have no place on the same axis."""
    groups: dict[str, dict[str, Bar]] = {}
    for figure in figures:
        if figure.unit.endswith("/s") and figure.unit != "bytes/s" and figure.beside != THE_GOAL:
            group = groups.setdefault(figure.work, {"": Bar("logstore", figure.ours, True)})
            group[figure.beside] = Bar(figure.beside, figure.theirs, False)
    return bars(title, "a second", [Group(work, [*each.values()]) for work, each in groups.items()]) if groups else ""


def ratios_chart(title: str, figures: Iterable[Figure]) -> str:
    """How each figure with a goal stands to it; "" where none has one. Where less is better, times as little."""
    groups: dict[str, list[Ratio]] = {}
    for figure in figures:
        if figure.goal is not None and figure.ratio > 0:
            turn = -1 if figure.less else 1
            row = Ratio(figure.beside, figure.ratio**turn, figure.goal**turn)
            groups.setdefault(figure.work, []).append(row)
    return ratios(title, [Group(work, rows) for work, rows in groups.items()]) if groups else ""


if __name__ == "__main__":
    main(sys.argv[1:])
