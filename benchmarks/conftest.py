"""Measure a workload in rounds, each beside its peers, and print the ratios.

A machine that others use too is not equally fast for two seconds together. So each round runs the peers first and then
ours, and what counts is the ratio of the medians.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.documents import deployments
from benchmarks.loading import store_events

FSYNC_US_MIN = 50  # no medium that keeps its data without power answers faster; a cache of the machine below does

LINES = pytest.StashKey["list[Line]"]()
NOTES = pytest.StashKey["list[str]"]()
DISK = pytest.StashKey[str]()


@dataclass(frozen=True)
class Line:
    """One line of the report: medians in seconds for ``count`` events, or reads."""

    work: str
    count: int
    ours_s: float
    beside: str
    beside_s: float  # for as many
    goal: str
    met: bool | None = None


@dataclass(frozen=True)
class Peer:
    """Something else that does the same work.

    ``count``: how many events it does it for, where that is not as many as ours. ``at_least``: how many times as fast
    ours is to be.
    """

    run: Callable[[], object]
    count: int | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Sizes:
    """How much work there is, and how often it is done."""

    segments: int
    segment_events: int
    append_calls: int
    callers: int
    rounds: int
    view_events: int
    view_keys: int
    documents: int
    documents_found: int
    reads: int
    view_rounds: int
    agents: int
    polling_s: float


TINY = Sizes(
    segments=3,
    segment_events=5,
    append_calls=2,
    callers=4,
    rounds=1,
    view_events=60,
    view_keys=20,
    documents=2_000,
    documents_found=12_600,
    reads=20,
    view_rounds=1,
    agents=100,
    polling_s=0.6,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tiny", action="store_true", help="sizes that show only that the workloads run")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LINES] = []
    config.stash[NOTES] = []


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    if pytestconfig.getoption("--tiny"):
        return TINY
    return Sizes(
        segments=1_000,
        segment_events=1_000,
        append_calls=20,
        callers=1_000,
        rounds=7,
        view_events=1_000_000,
        view_keys=100_000,
        documents=1_000_000,
        documents_found=200_000,
        reads=5_000,
        view_rounds=5,
        agents=2_000,
        polling_s=60,
    )


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
        beside: Mapping[str, Callable[[], object] | Peer],
        goal: str = "",
        rounds: int | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        """Run them; ``prepare`` goes before each round of ours, outside the measured time."""
        rounds = rounds or self._rounds
        peers = {name: peer if isinstance(peer, Peer) else Peer(peer) for name, peer in beside.items()}
        seconds: dict[str, list[float]] = {name: [] for name in beside}
        ours_s: list[float] = []

        def run_peers() -> None:
            for name, peer in peers.items():
                seconds[name].append(_timed(peer.run) * count / (peer.count or count))
            prepare()

        def run_ours() -> None:
            ours_s.append(_timed(ours))

        self._benchmark.extra_info["events"] = count
        self._benchmark.pedantic(  # type: ignore[no-untyped-call]
            run_ours, setup=run_peers, rounds=rounds, warmup_rounds=1
        )
        for name, times in seconds.items():
            ours_median, beside_median, least = _median(ours_s, rounds), _median(times, rounds), peers[name].at_least
            met = None if least is None else beside_median / ours_median >= least
            shown = goal if least is None else f">= {least:g}"
            self._lines.append(Line(work, count, ours_median, name, beside_median, shown, met))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    del result  # what was built is taken down outside the measured time
    return seconds


def _median(seconds: list[float], rounds: int) -> float:
    return statistics.median(seconds[-rounds:])  # those before were to warm up


@pytest.fixture
def race(benchmark: BenchmarkFixture, pytestconfig: pytest.Config, sizes: Sizes) -> Race:
    return Race(benchmark, pytestconfig.stash[LINES], sizes.rounds)


@pytest.fixture(scope="session")
def documents_url(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log in a directory with a million documents."""
    url = (tmp_path_factory.mktemp("documents") / "log").as_uri()
    asyncio.run(store_events(url, deployments(sizes.documents), 1_000))
    return url


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Say something below the table."""
    return pytestconfig.stash[NOTES].append


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
    lines, notes = config.stash[LINES], config.stash[NOTES]
    if not (lines or notes) or config.getoption("--tiny"):
        return
    terminalreporter.section("figures (medians; ratio: how many times as fast as the one beside)")
    row = "{:42}  {:>11}  {:38}  {:>11}  {:>6}  {:20}  {}"
    terminalreporter.write_line(row.format("work", "ours/s", "beside", "its/s", "ratio", "goal", "met"))
    for line in lines:
        ours, beside = line.count / line.ours_s, line.count / line.beside_s
        terminalreporter.write_line(
            row.format(
                line.work,
                f"{ours:,.0f}",
                line.beside,
                f"{beside:,.0f}",
                f"{ours / beside:.2f}",
                line.goal,
                {True: "yes", False: "NO", None: ""}[line.met],
            ).rstrip()
        )
    for text in notes:
        terminalreporter.write_line(text)
    terminalreporter.write_line(config.stash.get(DISK, ""))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    terminalreporter.write_line(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load}, Python {platform.python_version()}"
    )
