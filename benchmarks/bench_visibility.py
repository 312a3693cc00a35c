"""How long until another process sees an event: one appends to a directory now and then, another follows.

fastest  the follower polls every 10 ms, its fastest; an event each time both have been quiet for a moment
idle     it polls as it comes, and an event comes after two quiet seconds: it has backed off to 250 ms

From before the call of ``append`` until the follower's loop has the event: two syncs of the disk, then a poll. Beside
it, what as few bytes take to be created in the same directory. The clock is the machine's, for both.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median

from benchmarks.conftest import Once, Record, Sizes
from benchmarks.figure import THE_GOAL, Figure
from benchmarks.visibility import quantile, seen_ms
from logstore import FollowSettings
from logstore.filestore import LocalStore
from logstore.follower import LOCAL

FASTEST = FollowSettings(poll_ms_min=10, poll_ms_max=10)
P50_MS, P99_MS = 15, 60


async def created_ms(directory: Path, count: int) -> list[float]:
    """What the creation of so many small objects takes, each: milliseconds."""
    store, took = LocalStore(directory), []
    for number in range(count):
        started = time.perf_counter()
        await store.create(f"log/{number}", bytes(400))
        took.append((time.perf_counter() - started) * 1e3)
    await store.aclose()
    return took


def test_polling_at_its_fastest(once: Once[list[float]], record: Record, sizes: Sizes, tmp_path: Path) -> None:
    """Napkin: two syncs of the disk, half of 10 ms, a segment read: 7 ms and the disk."""
    url = (tmp_path / "log").as_uri()
    seen = once(lambda: asyncio.run(seen_ms(url, sizes.visible, FASTEST, pause_s=0.05)))
    disk = median(asyncio.run(created_ms(tmp_path / "bare", sizes.visible)))
    for name, ours, goal in (("p50", quantile(seen, 0.5), P50_MS), ("p99", quantile(seen, 0.99), P99_MS)):
        work = f"visible in another process, polling every 10 ms, {name}"
        record(Figure(work, ours, goal, "ms", THE_GOAL, less=True, goal=1, steady=False))
        record(Figure(work, ours, disk, "ms", "a creation in the directory, p50", less=True, steady=False))


def test_backed_off(once: Once[list[float]], record: Record, sizes: Sizes, tmp_path: Path) -> None:
    """Napkin: half of 250 ms, for a fortieth of the polls."""
    pauses = max(1, sizes.visible // 10)
    seen = once(lambda: asyncio.run(seen_ms((tmp_path / "log").as_uri(), pauses, LOCAL, pause_s=sizes.idle_s)))
    work = "visible in another process, after two quiet seconds, p50"
    most = LOCAL.poll_ms_max
    record(Figure(work, quantile(seen, 0.5), most, "ms", "a poll when it is idle", less=True, steady=False))
