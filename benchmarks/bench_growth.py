"""What an event costs as a log grows: to ten thousand events, a hundred thousand, a million; by ``bench-full``, ten.

append  ten calls of a thousand, one after the other, on top of so many; the log has been written by the same writer
replay  all of it, by columns, from a directory
open    a view of a tenth as many keys, from the log to the first answer
find    30 of a project, newest first, from that view; not remembered
memory  what a process that only writes has grown by, resident; it remembers 8 MiB of what it wrote

Beside each: the same at a hundred thousand events. Ten thousand is there to tell what is fixed. Appends come last, so
the rest is measured at these sizes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from statistics import median

import logstore
from benchmarks.conftest import Once, Record, Sizes
from benchmarks.documents import PROJECTS, Statuses, project, status_events
from benchmarks.figure import Figure
from benchmarks.memory import status_bytes
from logstore import Event, LogSettings, Writer
from projections import View

EVENTS_PER_KEY = 10
BATCH = 1_000
CALLS = 10
COST_MAX = 1.3
SETTINGS = LogSettings(memory_bytes_max=8 << 20)


class Growing:
    """A log that one writer fills."""

    def __init__(self, writer: Writer, keys: int) -> None:
        self._writer = writer
        self._events = status_events(10**9, keys)
        self.stored = 0

    async def grow(self, size: int) -> None:
        """Append until there are so many."""
        while self.stored < size:
            await asyncio.gather(*map(self._writer.append_many, self._batches(4)))

    async def append(self) -> None:
        """Append one call after the other."""
        for batch in self._batches(CALLS):
            await self._writer.append_many(batch)

    def _batches(self, calls: int) -> Iterable[list[Event]]:
        self.stored += calls * BATCH
        return [list(islice(self._events, BATCH)) for _ in range(calls)]


class Grown:
    """A log of some size, in a directory of its own, that goes on being written; and a view of it."""

    def __init__(self, url: str, growing: Growing, view: View) -> None:
        self.url = url
        self.growing = growing
        self.view = view
        self.us: dict[str, list[float]] = defaultdict(list)

    async def go_round(self) -> None:
        """Measure each work once."""
        await self._time("replay", lambda: _replay(self.url, self.growing.stored), self.growing.stored)
        await self._time("open", lambda: _open(self.url), self.growing.stored)
        await self._time("find", self._find, PROJECTS)

    async def append(self) -> None:
        """Measure that, too: the log is longer afterwards."""
        await self._time("append", self.growing.append, CALLS * BATCH)

    async def _find(self) -> None:
        self.view._forget_finds()
        _ask(self.view)

    async def _time(self, name: str, work: Callable[[], Awaitable[None]], count: int) -> None:
        gc.collect()
        started = time.perf_counter()
        await work()
        self.us[name].append((time.perf_counter() - started) * 1e6 / count)


async def measure(directory: Path, sizes: Iterable[int], rounds: int) -> dict[int, dict[str, float]]:
    """What one event, or one page, costs at each size: microseconds, medians. The sizes take turns."""
    async with AsyncExitStack() as stack:
        logs = {}
        for size in sizes:
            url = (directory / str(size)).as_uri()
            log = await stack.enter_async_context(logstore.open(url, settings=SETTINGS))
            writer = await stack.enter_async_context(log.writer("bench"))
            growing = Growing(writer, size // EVENTS_PER_KEY)
            await growing.grow(size)
            logs[size] = Grown(url, growing, await stack.enter_async_context(View.open(log, Statuses())))
        for _ in range(rounds):
            for grown in logs.values():
                await grown.go_round()
        for _ in range(rounds):
            for grown in logs.values():
                await grown.append()
        return {size: {name: median(us) for name, us in grown.us.items()} for size, grown in logs.items()}


async def _replay(url: str, stored: int) -> None:
    async with logstore.open(url, read_only=True) as log:
        assert stored == sum([len(run.indices) async for run in log.read().runs()])


async def _open(url: str) -> None:
    async with logstore.open(url, read_only=True) as log, View.open(log, Statuses()) as view:
        _ask(view)


def _ask(view: View) -> None:
    for number in range(PROJECTS):
        view.find([("project_id", "==", project(number))], ["-updated_at"], limit=30)


# The memory of a writer, in a process of its own ----------------------------------------------


async def write(url: str, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """What the process has grown by at each size: bytes."""
    found = []
    async with logstore.open(url, settings=SETTINGS) as log, log.writer("bench") as writer:
        growing = Growing(writer, max(sizes) // EVENTS_PER_KEY)
        await growing.append()
        before = status_bytes("VmRSS")
        for size in sizes:
            await growing.grow(size)
            found.append((size, status_bytes("VmRSS") - before))
    return found


def grown_bytes(url: str, sizes: Iterable[int]) -> dict[int, int]:
    command = [sys.executable, "-m", "benchmarks.bench_growth", url, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


# The figures ----------------------------------------------------------------------------------


def test_costs(once: Once[dict[int, dict[str, float]]], record: Record, sizes: Sizes, tmp_path: Path) -> None:
    """Napkin: an append is the same at any size, and so is an event read or folded, and a page."""
    costs = once(lambda: asyncio.run(measure(tmp_path, sizes.growth, sizes.view_rounds)))
    base, last = sizes.growth[1], sizes.growth[-1]
    for name, theirs in costs[base].items():
        for size in sizes.growth:
            if size != base:
                unit = "us a page" if name == "find" else "us an event"
                goal = COST_MAX if size == last else None
                work, beside = f"{name} at {size:,} events", f"the same at {base:,}"
                record(Figure(work, costs[size][name], theirs, unit, beside, less=True, goal=goal))


def test_memory(once: Once[dict[int, int]], record: Record, sizes: Sizes, tmp_path: Path) -> None:
    """Napkin: what is remembered, 8 MiB, and what is under way: four segments."""
    grown = once(lambda: grown_bytes((tmp_path / "log").as_uri(), sizes.growth))
    base, last = sizes.growth[1], sizes.growth[-1]
    work, beside = f"memory of a writer at {last:,} events", f"the same at {base:,}"
    record(Figure(work, grown[last], max(1, grown[base]), "bytes", beside, less=True, goal=COST_MAX, steady=False))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(write(sys.argv[1], [int(size) for size in sys.argv[2:]]))))
