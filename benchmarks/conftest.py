"""Measure a workload in rounds, each beside its peers; print the ratios, and put them into pytest-benchmark's JSON.

A machine that others use too is not equally fast for two seconds together. So each round runs the peers first and then
ours, and what counts is the ratio of the medians.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import mariadb
from benchmarks.documents import deployments
from benchmarks.figure import THE_GOAL, Figure, shown
from benchmarks.loading import store_events

T = TypeVar("T")

WARM_UP = 1  # round that does not count

FSYNC_US_MIN = 50  # no medium that keeps its data without power answers faster; a cache of the machine below does

PACKAGES = ("msgpack", "zstandard", "sortedcontainers", "aioboto3", "eventsourcing", "slatedb", "pymysql")

FIGURES = pytest.StashKey["list[Figure]"]()
NOTES = pytest.StashKey["list[str]"]()
DISK = pytest.StashKey[str]()


@dataclass(frozen=True)
class Peer:
    """Something else that does the same work.

    ``count``: how many events it does it for, where that is not as many as ours. ``at_least``: how many times as fast
    ours is to be. ``steady``: see Figure.
    """

    run: Callable[[], object]
    count: int | None = None
    at_least: float | None = None
    steady: bool = True


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
    shared_documents: int
    commits: int
    reads: int
    view_rounds: int
    agents: int
    polling_s: float
    growth: tuple[int, ...]
    starts: int
    visible: int
    idle_s: float
    priced_events: int
    priced_agents: int
    priced_hours: float
    remote_events: int
    remote_puts: int


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
    shared_documents=40,
    commits=30,
    reads=20,
    view_rounds=1,
    agents=100,
    polling_s=0.6,
    growth=(4_000, 8_000, 12_000),
    starts=1,
    visible=3,
    idle_s=0.01,
    priced_events=640,
    priced_agents=3,
    priced_hours=0.1,
    remote_events=64,
    remote_puts=4,
)


USUAL = Sizes(
    segments=300,
    segment_events=1_000,
    append_calls=64,
    callers=1_000,
    rounds=7,
    view_events=200_000,
    view_keys=20_000,
    documents=100_000,
    documents_found=100_000,
    shared_documents=1_000,
    commits=2_997,
    reads=5_000,
    view_rounds=5,
    agents=500,
    polling_s=10,
    growth=(10_000, 100_000, 1_000_000),
    starts=15,
    visible=200,
    idle_s=2,
    priced_events=100_000,
    priced_agents=100,
    priced_hours=1,
    remote_events=3_200,
    remote_puts=400,
)
FULL = replace(
    USUAL,
    segments=1_000,
    view_events=1_000_000,
    view_keys=100_000,
    documents=1_000_000,
    documents_found=200_000,
    agents=2_000,
    polling_s=60,
    growth=(10_000, 100_000, 1_000_000, 10_000_000),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tiny", action="store_true", help="sizes that show only that the workloads run")
    parser.addoption("--full", action="store_true", help="millions of events and documents")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []
    config.stash[NOTES] = []


def sizes_of(config: pytest.Config) -> tuple[str, Sizes]:
    """How much work there is, and what that is called."""
    if config.getoption("--tiny"):
        return "tiny", TINY
    return ("full", FULL) if config.getoption("--full") else ("usual", USUAL)


@pytest.fixture(scope="session")
def sizes(pytestconfig: pytest.Config) -> Sizes:
    return sizes_of(pytestconfig)[1]


class Race:
    """Runs ``ours`` and, before each round of it, each peer; reports the medians."""

    def __init__(self, benchmark: BenchmarkFixture, record: Record, rounds: int) -> None:
        self._benchmark = benchmark
        self._record = record
        self._rounds = rounds

    def __call__(
        self,
        work: str,
        ours: Callable[[], object],
        *,
        count: int,
        beside: Mapping[str, Callable[[], object] | Peer],
        goal_per_s: float | None = None,
        unit: str = "events/s",
        rounds: int | None = None,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        """Run them; ``prepare`` goes before each round of ours, outside the measured time.

        ``goal_per_s``: what ours is to reach, whatever the peers do.
        """
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

        gc.collect()
        gc.freeze()  # what was prepared for all of them is nobody's to search for garbage
        try:
            self._benchmark.pedantic(  # type: ignore[no-untyped-call]
                run_ours, setup=run_peers, rounds=rounds, warmup_rounds=WARM_UP
            )
        finally:
            gc.unfreeze()
        ours_per_s = count / _median(ours_s, rounds)
        for name, times in seconds.items():
            peer = peers[name]
            per_s = count / _median(times, rounds)
            self._record(Figure(work, ours_per_s, per_s, unit, name, goal=peer.at_least, steady=peer.steady))
        if goal_per_s is not None:
            self._record(Figure(work, ours_per_s, goal_per_s, unit, THE_GOAL, goal=1, steady=False))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    del result  # what was built is taken down outside the measured time
    return seconds


def _median(seconds: list[float], rounds: int) -> float:
    return statistics.median(seconds[-rounds:])  # those before were to warm up


Record = Callable[[Figure], None]


@pytest.fixture
def record(benchmark: BenchmarkFixture, pytestconfig: pytest.Config) -> Record:
    """Put a figure into the report, and into pytest-benchmark's JSON."""

    def put(figure: Figure) -> None:
        benchmark.extra_info.setdefault("figures", []).append(figure.to_json())
        pytestconfig.stash[FIGURES].append(figure)

    return put


@pytest.fixture
def race(benchmark: BenchmarkFixture, record: Record, sizes: Sizes) -> Race:
    return Race(benchmark, record, sizes.rounds)


Once = Callable[[Callable[[], T]], T]


@pytest.fixture
def once(benchmark: BenchmarkFixture) -> Once[Any]:
    """Run something that measures itself."""

    def run(work: Callable[[], T]) -> T:
        result: T = benchmark.pedantic(work, rounds=1)  # type: ignore[no-untyped-call]
        return result

    return run


@pytest.fixture(scope="session")
def documents_url(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log in a directory with documents."""
    url = (tmp_path_factory.mktemp("documents") / "log").as_uri()
    asyncio.run(store_events(url, deployments(sizes.documents), 1_000))
    return url


Note = Callable[[str], None]


@pytest.fixture(scope="session")
def note(pytestconfig: pytest.Config) -> Note:
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


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Say where it ran, in what names nobody's machine, and beside what."""
    cpu = output_json["machine_info"]["cpu"].get("brand_raw") or platform.machine()
    output_json["sizes"], _ = sizes_of(config)
    output_json["about"] = {
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "disk": config.stash.get(DISK, ""),
        "load": _load(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "MariaDB": mariadb.version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _load() -> str:
    return ", ".join(f"{value:.1f}" for value in os.getloadavg())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the report."""
    figures, notes = config.stash[FIGURES], config.stash[NOTES]
    if not (figures or notes) or config.getoption("--tiny"):
        return
    terminalreporter.section("figures (medians; ratio: ours divided by the one beside)")
    row = "{:48}  {:>11}  {:12}  {:38}  {:>11}  {:>6}  {:8}  {}"
    terminalreporter.write_line(row.format("work", "ours", "unit", "beside", "its", "ratio", "goal", "met"))
    for figure in figures:
        goal = "" if figure.goal is None else f"{'<=' if figure.less else '>='} {figure.goal:g}"
        met = {True: "yes", False: "NO", None: ""}[figure.met]
        ours, theirs, ratio = shown(figure.ours), shown(figure.theirs), shown(figure.ratio)
        terminalreporter.write_line(
            row.format(figure.work, ours, figure.unit, figure.beside, theirs, ratio, goal, met).rstrip()
        )
    for text in (*notes, config.stash.get(DISK, "")):
        terminalreporter.write_line(text)
    terminalreporter.write_line(
        f"{platform.machine()}, {os.cpu_count()} cores, load {_load()}, Python {platform.python_version()}"
    )
