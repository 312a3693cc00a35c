"""Events that another process appends, and how long after its call they are seen here.

``python -m benchmarks.visibility URL COUNT PAUSE_S``: append so many, after pauses of about so many seconds each. An
event says when its call began, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time

import logstore
from logstore import Event, FollowSettings, Log, LogSettings

__all__ = ["quantile", "seen_ms"]


async def seen_ms(url: str, count: int, follow: FollowSettings, *, pause_s: float) -> list[float]:
    """Follow a log while another process appends to it: milliseconds for each event, sorted; the first is left out."""
    async with logstore.open(url, settings=LogSettings(follow=follow)) as log:
        seeing = asyncio.create_task(_see(log, count + 1))
        command = [sys.executable, "-m", "benchmarks.visibility", url, str(count + 1), str(pause_s)]
        process = await asyncio.create_subprocess_exec(*command)
        try:
            if await process.wait():
                raise RuntimeError("the process that appends has failed")
            return sorted((await seeing)[1:])  # the first one opened the session
        finally:
            seeing.cancel()


async def _see(log: Log, count: int) -> list[float]:
    took = list[float]()
    async for event in log.follow():
        assert event.data is not None
        took.append((time.monotonic_ns() - event.data["began_ns"]) / 1e6)
        if len(took) == count:
            break
    return took


def quantile(ordered: list[float], q: float) -> float:
    """Of so many, the one with so large a share below it."""
    return ordered[round(q * (len(ordered) - 1))]


async def append(url: str, count: int, pause_s: float) -> None:
    """Append, now and then."""
    rng = random.Random(1)
    async with logstore.open(url) as log, log.writer("other") as writer:
        for number in range(count):
            await writer.append(Event("Thing", str(number), "changed", {"began_ns": time.monotonic_ns()}))
            await asyncio.sleep(pause_s * rng.uniform(0.8, 1.2))


if __name__ == "__main__":
    asyncio.run(append(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
