"""Start the demo's processes, kill one, wait for the others, and ask whether the promises were kept.

The conductor writes one event itself: the last. It reads everything first, so that its clock, and so that event, is
behind all others; readers end there.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import logstore
from logstore import Log, StoreStatistics
from logstore.errors import InvalidArgument, NotFound
from logstore.filestore import VerbStatistics
from projections.demo.ledger import ACKNOWLEDGED, REFUSED, Ledger, Name, end_event, settings
from projections.demo.process import DemoProcess
from projections.demo.reader import read_names
from projections.demo.verdict import Promise, judge_reading, judge_settled_order
from projections.demo.workload import Deployment

__all__ = ["WRITERS", "Outcome", "conduct", "require_no_log", "statistics_of", "sum_of"]

WRITERS: Final = 4
VICTIM: Final = 1
KILL_AFTER: Final = 1 / 3  # of the victim's share; it is held up at twice that if the kill comes late
LOCAL_MS: Final = (2_000, 500)  # creation deadline and idle time, which make the seal time
REMOTE_MS: Final = (3_000, 1_000)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened, in numbers, and which promises were kept."""

    acknowledged: int
    lives: tuple[dict[str, Any], ...]
    killed_after: int
    stored_unacknowledged: int
    writing_s: float
    settling_s: float
    live: dict[str, Any]
    settled: dict[str, Any]
    cold: dict[str, Any]
    requests: dict[str, StoreStatistics]
    promises: tuple[Promise, ...]

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return all(promise.kept for promise in self.promises)


async def conduct(
    url: str, work: list[list[Deployment]], directory: Path, on_progress: Callable[[int], None]
) -> Outcome:
    """Run the demo at ``url``, which must hold no log yet; ``directory`` is for files that pass between processes.

    ``on_progress`` is told how many events are acknowledged. Raises InvalidArgument, DemoFailed, Unavailable.
    """
    remote = url.startswith("s3:")
    deadline_ms, idle_ms = REMOTE_MS if remote else LOCAL_MS
    await require_no_log(url)
    for index, share in enumerate(work):
        (directory / f"share-{index}.json").write_text(json.dumps(share))
    config = {"url": url, "directory": str(directory), "deadline_ms": deadline_ms, "idle_ms": idle_ms}
    async with logstore.open(url, settings=settings(deadline_ms, idle_ms)) as log, AsyncExitStack() as stack:
        following = await stack.enter_async_context(_reader(config, "following"))
        lives, killed_after = await _write(work, config, directory, on_progress, stack)
        written_s = time.time()
        await _append_end(log)
        seen = await following.report()
        settled_s = time.time()
        cold = await stack.enter_async_context(_reader(config, "cold"))
        seen_cold = await cold.report()
        conductor = log.requests()
    told = {said: _told(directory, said) for said in (ACKNOWLEDGED, REFUSED)}
    promises, unacknowledged = [], 0
    for reader, file in (("live", "live"), ("settled", "following")):
        names = list(read_names(directory / f"names-{file}"))
        judged, unacknowledged = judge_reading(reader, told[ACKNOWLEDGED], told[REFUSED], names)
        promises.extend(judged)
    promises.append(judge_settled_order(seen["settled"], seen_cold["settled"]))
    requests = {
        f"{len(lives)} writers": sum_of([statistics_of(life["requests"]) for life in lives]),
        "following reader": statistics_of(seen["requests"]),
        "cold reader": statistics_of(seen_cold["requests"]),
        "conductor": conductor,
    }
    return Outcome(
        acknowledged=len(told[ACKNOWLEDGED]),
        lives=tuple(lives),
        killed_after=killed_after,
        stored_unacknowledged=unacknowledged,
        writing_s=max(life["ended_s"] for life in lives) - min(life["started_s"] for life in lives),
        settling_s=settled_s - written_s,
        live=seen["live"],
        settled=seen["settled"],
        cold=seen_cold["settled"],
        requests=requests,
        promises=tuple(promises),
    )


def _reader(config: dict[str, Any], name: str) -> DemoProcess:
    return DemoProcess("projections.demo.reader", f"{name} reader", {**config, "reader": name})


async def require_no_log(url: str) -> None:
    """Raise InvalidArgument where a demo cannot run: a log is there, or nobody else can reach the store."""
    if url.startswith("memory:"):
        raise InvalidArgument(
            "a store in memory is one process's; the demo needs file:///directory or s3://bucket/prefix"
        )
    try:
        async with logstore.open(url, read_only=True):
            pass
    except NotFound:
        return
    raise InvalidArgument("there is a log already; give the demo an empty directory or prefix")


async def _write(
    work: list[list[Deployment]],
    config: dict[str, Any],
    directory: Path,
    on_progress: Callable[[int], None],
    stack: AsyncExitStack,
) -> tuple[list[dict[str, Any]], int]:
    """Let the writers write, kill one in the middle, start it again; return what each life that ended well reports."""
    kill_after = max(1, round(sum(map(len, work[VICTIM])) * KILL_AFTER))

    def life_of(writer: int, life: int, stop_after: int | None = None) -> DemoProcess:
        given = {**config, "writer": writer, "life": life, "stop_after": stop_after}
        return DemoProcess("projections.demo.writer", f"writer {writer}", given)

    starting = [life_of(writer, 0, 2 * kill_after if writer == VICTIM else None) for writer in range(len(work))]
    started = await asyncio.gather(*(stack.enter_async_context(process) for process in starting))
    watching = asyncio.create_task(_watch(directory, len(work), on_progress))
    for process in started:
        process.go()
    ledger = Ledger(directory, VICTIM, 0)
    while ledger.count() < kill_after:
        await asyncio.sleep(0.002)
        started[VICTIM].require_alive()
    await started[VICTIM].kill()
    killed_after = ledger.count()
    again = await stack.enter_async_context(life_of(VICTIM, 1))
    again.go()
    lives = await asyncio.gather(*(p.report() for p in (*started[:VICTIM], again, *started[VICTIM + 1 :])))
    watching.cancel()
    on_progress(_noted(directory, len(work)))
    return lives, killed_after


async def _watch(directory: Path, writers: int, on_progress: Callable[[int], None]) -> None:
    while True:
        on_progress(_noted(directory, writers))
        await asyncio.sleep(0.1)


def _noted(directory: Path, writers: int) -> int:
    return sum(Ledger(directory, writer, life).count() for writer in range(writers) for life in (0, 1))


async def _append_end(log: Log) -> None:
    """Append the last event, behind everything there is."""
    async for _ in log.read().runs():
        pass
    async with log.writer("conductor") as writer:
        await writer.append(end_event())


def _told(directory: Path, said: int) -> set[Name]:
    return {
        Name(writer, life, record.number)
        for writer in range(WRITERS)
        for life in (0, 1)
        for record in Ledger(directory, writer, life).records()
        if record.said == said
    }


def statistics_of(counts: dict[str, dict[str, int]]) -> StoreStatistics:
    """A process's requests, out of its report."""
    return StoreStatistics(**{verb: VerbStatistics(**count) for verb, count in counts.items()})


def sum_of(many: list[StoreStatistics]) -> StoreStatistics:
    """The requests of several processes."""
    return StoreStatistics(
        *(sum((getattr(one, verb.name) for one in many), VerbStatistics()) for verb in fields(StoreStatistics))
    )
