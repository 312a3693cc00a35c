"""Measure a workload in rounds, each beside its peers, and print the ratios.

A machine that others use too is not equally fast for two seconds together. So each round runs the peers first and then
ours, and what counts is the ratio of the medians.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

FSYNC_US_MIN = 50  # no medium that keeps its data without power answers faster; a cache of the machine below does

LINES = pytest.StashKey["list[Line]"]()
DISK = pytest.StashKey[str]()


@dataclass(frozen=True)
class Line:
    """One line of the report: medians in seconds for ``count`` events."""

    work: str
    count: int
    ours_s: float
    beside: str
    beside_s: float
    goal: str


@dataclass(frozen=True)
class Sizes:
    """How much work there is, and how often it is done."""

    segments: int
    segment_events: int
    append_calls: int
    callers: int
    rounds: int


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tiny", action="store_true", help="sizes that show only that the workloads run")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LINES] = []


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    if pytestconfig.getoption("--tiny"):
        return Sizes(segments=3, segment_events=5, append_calls=2, callers=4, rounds=1)
    return Sizes(segments=1_000, segment_events=1_000, append_calls=20, callers=1_000, rounds=7)


class Race:
    """Runs ``ours`` and, before each round of it, each peer; reports the medians."""

    def __init__(self, benchmark: BenchmarkFixture, lines: list[Line], rounds: int) -> None:
        self._benchmark = benchmark
        self._lines = lines
        self._rounds = rounds

    def __call__(
        self,
        work: str,
        ours: Callable[[], object],
        *,
        count: int,
        beside: Mapping[str, Callable[[], object]],
        goal: str = "",
    ) -> None:
        seconds: dict[str, list[float]] = {name: [] for name in beside}
        ours_s: list[float] = []

        def run_peers() -> None:
            for name, peer in beside.items():
                seconds[name].append(_timed(peer))

        def run_ours() -> None:
            ours_s.append(_timed(ours))

        self._benchmark.extra_info["events"] = count
        self._benchmark.pedantic(  # type: ignore[no-untyped-call]
            run_ours, setup=run_peers, rounds=self._rounds, warmup_rounds=1
        )
        for name, times in seconds.items():
            ours_median, beside_median = _median(ours_s, self._rounds), _median(times, self._rounds)
            self._lines.append(Line(work, count, ours_median, name, beside_median, goal))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _median(seconds: list[float], rounds: int) -> float:
    return statistics.median(seconds[-rounds:])  # those before were to warm up


@pytest.fixture
def race(benchmark: BenchmarkFixture, pytestconfig: pytest.Config, sizes: Sizes) -> Race:
    return Race(benchmark, pytestconfig.stash[LINES], sizes.rounds)


@pytest.fixture(scope="session", autouse=True)
def disk(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What an fsync costs where the benchmarks write (elsewhere: ``--basetemp=DIRECTORY``)."""
    before_us = _fsync_us(tmp_path_factory.mktemp("fsync-before"))
    yield
    after_us = _fsync_us(tmp_path_factory.mktemp("fsync-after"))
    note = "" if min(before_us, after_us) >= FSYNC_US_MIN else "; too fast to reach a medium: durable figures flatter"
    pytestconfig.stash[DISK] = (
        f"write 4 KiB + fsync, median of 50: {before_us:.0f} us before, {after_us:.0f} us after{note}"
    )


def _fsync_us(directory: Path) -> float:
    seconds = []
    for number in range(50):
        handle = os.open(directory / str(number), os.O_CREAT | os.O_WRONLY)
        try:
            started = time.perf_counter()
            os.write(handle, bytes(4096))
            os.fsync(handle)
            seconds.append(time.perf_counter() - started)
        finally:
            os.close(handle)
    return statistics.median(seconds) * 1e6


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the report."""
    lines = config.stash[LINES]
    if not lines or config.getoption("--tiny"):
        return
    terminalreporter.section("figures (medians; ratio: how many times as fast as the one beside)")
    row = "{:34}  {:>11}  {:32}  {:>11}  {:>6}  {}"
    terminalreporter.write_line(row.format("work", "events/s", "beside", "events/s", "ratio", "goal"))
    for line in lines:
        ours, beside = line.count / line.ours_s, line.count / line.beside_s
        terminalreporter.write_line(
            row.format(line.work, f"{ours:,.0f}", line.beside, f"{beside:,.0f}", f"{ours / beside:.2f}", line.goal)
        )
    terminalreporter.write_line(config.stash.get(DISK, ""))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    terminalreporter.write_line(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load}, Python {platform.python_version()}"
    )
