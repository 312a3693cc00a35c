"""The report of the benchmarks: what is recorded, shown, and called worse. Pure; nothing is measured here."""

from __future__ import annotations

import doctest
import json
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import figure, guard
from benchmarks.chart import Bar, Group, Ratio, bars, ratios
from benchmarks.figure import Figure, Run, read_run, record, recorded_runs
from benchmarks.guard import TOLERANCE, not_run, worse
from benchmarks.report import ROOT, main, table, write_page

FAST = Figure("append_many of 1,000", 600.0, 1_000.0, "events/s", "the limit", goal=0.5)
SMALL = Figure("memory", 150.0, 100.0, "bytes", "its payload", less=True, goal=1.2)
HERE = "commit 0123456; load 0.5; fsync 400 us"
RUN = Run(
    "2026-11-27", "usual", {"Python": "3.11"}, {"append": [FAST], "views": [SMALL]}, {"append": HERE, "views": HERE}
)


def written_by_pytest(path: Path, run: Run) -> Path:
    """What pytest-benchmark writes of a run, as far as it is read."""
    benchmarks = [
        {"fullname": f"benchmarks/bench_{group}.py::test_it", "extra_info": {"figures": [f.to_json() for f in figures]}}
        for group, figures in run.figures.items()
    ]
    benchmarks.append({"fullname": "benchmarks/bench_reads.py::test_without", "extra_info": {}})
    written = {
        "datetime": f"{run.date}T10:00:00+00:00",
        "sizes": run.sizes,
        "about": {**run.about, "load": "0.5", "disk": "fsync 400 us"},
        "commit_info": {"id": "0123456789abcdef", "dirty": False},
        "benchmarks": benchmarks,
    }
    path.write_text(json.dumps(written))
    return path


def test_the_examples_in_its_docstrings_are_true() -> None:
    """They are run."""
    failed, tried = doctest.testmod(figure)
    assert (failed, tried > 0) == (0, True)


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (FAST, True),
        (replace(FAST, goal=0.61), False),
        (replace(FAST, goal=None), None),
        (SMALL, False),
        (replace(SMALL, goal=1.5), True),
    ],
)
def test_a_goal_is_met_at_its_ratio(figure: Figure, met: bool | None) -> None:
    """At least, or at most where less is better; without a goal it is neither met nor missed."""
    assert figure.met is met


def test_a_run_is_read_as_pytest_benchmark_wrote_it(tmp_path: Path) -> None:
    """Figures come back by benchmark; a benchmark without any has none."""
    assert read_run(written_by_pytest(tmp_path / "run.json", RUN)) == RUN


def test_a_run_of_changed_files_says_so(tmp_path: Path) -> None:
    """Its commit alone would not give the same figures again."""
    path = written_by_pytest(tmp_path / "run.json", RUN)
    written = json.loads(path.read_text())
    path.write_text(json.dumps({**written, "commit_info": {"id": "0123456789abcdef", "dirty": True}}))
    assert read_run(path).circumstances["append"].startswith("commit 0123456 and changes; load")


def test_what_was_recorded_is_read_back_in_the_order_of_days(tmp_path: Path) -> None:
    """The later day comes later, whichever was recorded first."""
    later = replace(RUN, date="2026-12-01")
    for run in (later, RUN):
        record(run, tmp_path)
    assert recorded_runs(tmp_path) == [RUN, later]


def test_a_run_of_some_benchmarks_leaves_the_others_of_that_day(tmp_path: Path) -> None:
    """What it has is newer, and whole: what a benchmark no longer measures is gone. What it has not stays."""
    record(replace(RUN, figures={"append": [FAST, replace(FAST, work="renamed")], "views": [SMALL]}), tmp_path)
    faster = replace(FAST, ours=700.0)
    record(replace(RUN, figures={"append": [faster]}, circumstances={"append": "commit fedcba9"}), tmp_path)
    (recorded,) = recorded_runs(tmp_path)
    assert recorded.figures == {"append": [faster], "views": [SMALL]}
    assert recorded.circumstances == {"append": "commit fedcba9", "views": HERE}


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (FAST, replace(FAST, ours=600.0 / TOLERANCE - 1), 1),
        (FAST, replace(FAST, ours=600.0 / TOLERANCE + 1), 0),
        (FAST, replace(FAST, ours=6_000.0), 0),
        (SMALL, replace(SMALL, ours=150.0 * TOLERANCE + 1), 1),
        (SMALL, replace(SMALL, ours=150.0 * TOLERANCE - 1), 0),
        (SMALL, replace(SMALL, ours=15.0), 0),
        (FAST, replace(FAST, ours=60.0, theirs=100.0), 0),
        (FAST, replace(FAST, ours=1.0, steady=False), 0),
        (FAST, replace(FAST, ours=1.0, work="another"), 0),
    ],
)
def test_a_ratio_is_worse_beyond_the_tolerance(before: Figure, now: Figure, found: int) -> None:
    """In the direction that is bad for it; not when the machine is slower; not when it is no ratio of machines."""
    assert len(worse([before], [now])) == found


def test_what_was_not_run_is_named_but_for_what_is_not_steady() -> None:
    """A figure that is gone cannot be worse; one that nobody compares is not missed."""
    assert not_run([FAST, SMALL, replace(FAST, work="x", steady=False)], [SMALL]) == [
        "append_many of 1,000, beside the limit"
    ]


@pytest.mark.parametrize(("ours", "status"), [(601.0, 0), (100.0, 1), (600.0, 2)])
def test_the_guard_fails_when_a_ratio_is_worse(tmp_path: Path, ours: float, status: int) -> None:
    """Compared with the newest figure of runs of the same sizes; a run with what is recorded of it shows nothing."""
    record(replace(RUN, date="2026-11-01", figures={"append": [replace(FAST, ours=1.0)]}), tmp_path)
    record(RUN, tmp_path)
    record(replace(RUN, sizes="full", figures={"append": [replace(FAST, ours=1.0)]}), tmp_path)
    now = replace(RUN, figures={"append": [replace(FAST, ours=ours)]})
    assert guard.main([str(written_by_pytest(tmp_path / "now", now))], tmp_path) == status


def test_the_guard_says_when_there_is_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, or none recorded: status 2, and the next step."""
    assert guard.main([str(tmp_path / "absent")], tmp_path) == 2
    assert guard.main([str(written_by_pytest(tmp_path / "now", RUN))], tmp_path) == 2
    record(RUN, tmp_path)
    assert guard.main([str(written_by_pytest(tmp_path / "none", replace(RUN, figures={})))], tmp_path) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.rpartition("; ")[2] for line in said] == [
        "make bench first",
        "make bench-report first",
        "make bench first",
    ]


def test_the_table_says_each_goal_and_whether_it_is_met() -> None:
    """A line for each figure; the same work is named once."""
    lines = table([FAST, replace(FAST, beside="SQLite", theirs=300.0, goal=None), SMALL])
    assert lines[2:] == [
        "| append_many of 1,000 | 600 events/s | the limit | 1,000 | 0.6 | ≥ 0.5 | met |",
        "|  |  | SQLite | 300 | 2 |  |  |",
        "| memory | 150 bytes | its payload | 100 | 1.5 | ≤ 1.2 | **missed** |",
    ]


def test_the_page_has_a_section_and_its_charts_for_each_benchmark(tmp_path: Path) -> None:
    """Of the newest run that has it; each chart that the page shows is there."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "bench-gone-rates.svg").write_text("of a benchmark that is no more")
    older = replace(RUN, date="2026-01-01", figures={"reads": [FAST], "append": []}, circumstances={"reads": "x"})
    write_page([older, replace(RUN, sizes="full", figures={"append": [FAST]}), RUN], tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## Appending",
        "## Appending, in full size",
        "## Views from a log",
        "## Reading a view",
        "## Where they were measured",
    ]
    shown = {line.split("(assets/")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")}
    assert shown == {path.name for path in (tmp_path / "assets").iterdir()}
    assert len(shown) == 7
    assert f"{HERE}.\n" in page


def test_a_run_of_tiny_sizes_is_not_reported(tmp_path: Path) -> None:
    """It shows only that the workloads run."""
    with pytest.raises(SystemExit, match="tiny"):
        main([str(written_by_pytest(tmp_path / "run.json", replace(RUN, sizes="tiny")))])


def test_a_chart_is_xml_and_has_all_that_it_was_given() -> None:
    """Names are escaped; nothing lies outside."""
    group = Group("work <1>", [Bar("logstore", 1_234.0, True), Bar("another & one", 0.5, False)])
    chart = ET.fromstring(bars("Title", "a second", [group]))
    texts = [text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Title", "work <1>", "logstore", "1,230", "another & one", "0.5"} <= set(texts)
    width = float(chart.attrib["width"])
    rectangles = list(chart.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(rectangles) == 2
    assert all(
        0 <= float(r.attrib["x"]) <= float(r.attrib["x"]) + float(r.attrib["width"]) <= width for r in rectangles
    )


def test_a_ratio_that_misses_its_goal_is_of_another_colour() -> None:
    """Also one above 1 whose goal is higher."""
    rows = [Ratio("met", 0.7, 0.6), Ratio("missed", 2.0, 3.0)]
    chart = ET.fromstring(ratios("Title", [Group("work", rows)]))
    assert [r.attrib["class"] for r in chart.iter("{http://www.w3.org/2000/svg}rect")] == ["ours", "worse"]


@pytest.mark.parametrize("target", ["bench", "bench-full", "bench-ceph", "bench-report", "bench-guard"])
def test_a_run_is_written_where_it_is_reported_from(target: str) -> None:
    """Each target names the same file: a variable that was used before it was set made it the empty one."""
    command = ["make", "--dry-run", "--no-print-directory", target]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ".benchmarks/last.json" in told
