"""Start the demo's processes, kill one, wait for the others, and ask whether the promises were kept.

The conductor writes one event itself: the last. It reads everything first, so that its clock, and so that event, is
behind all others; readers end there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import logstore
from logstore import Log, StoreStatistics
from logstore.errors import InvalidArgument, LogStoreError, NotFound
from logstore.filestore import VerbStatistics
from projections.demo.ledger import ACKNOWLEDGED, REFUSED, Ledger, Name, end_event, settings
from projections.demo.reader import read_names
from projections.demo.verdict import Promise, judge_reading, judge_settled_order
from projections.demo.workload import Deployment

__all__ = ["WRITERS", "DemoFailed", "Outcome", "conduct"]

WRITERS: Final = 4
VICTIM: Final = 1
KILL_AFTER: Final = 1 / 3  # of the victim's share; it is held up at twice that if the kill comes late
PROCESS_S_MAX: Final = 120
LOCAL_MS: Final = (750, 500)  # creation deadline and idle time, which make the seal time
REMOTE_MS: Final = (3_000, 1_000)


class DemoFailed(LogStoreError):
    """A process of the demo ended badly. Look at what it printed."""


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


class _Process:
    """One of the demo's processes: says ready, waits for go, prints a report."""

    def __init__(self, module: str, config: dict[str, Any]) -> None:
        self._command = (sys.executable, "-m", f"projections.demo.{module}", json.dumps(config))
        self.name = f"{module} {config.get('writer', config.get('reader'))}"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> _Process:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        await self._line()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PROCESS_S_MAX):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise DemoFailed(f"a process of the demo hangs process={self.name!r} after_s={PROCESS_S_MAX}") from None
        if not line:
            raise DemoFailed(f"a process of the demo ended process={self.name!r} status={await self._process.wait()}")
        return line

    def go(self) -> None:
        """Let it work."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    def require_alive(self) -> None:
        """Raise DemoFailed when it has ended."""
        assert self._process is not None
        if self._process.returncode is not None:
            raise DemoFailed(f"a process of the demo ended process={self.name!r} status={self._process.returncode}")

    async def kill(self) -> None:
        """SIGKILL it."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def report(self) -> dict[str, Any]:
        """What it printed in the end."""
        assert self._process is not None
        line = await self._line()
        if await self._process.wait() != 0:
            raise DemoFailed(f"a process of the demo failed process={self.name!r} status={self._process.returncode}")
        report: dict[str, Any] = json.loads(line)
        return report


async def conduct(
    url: str, work: list[list[Deployment]], directory: Path, on_progress: Callable[[int], None]
) -> Outcome:
    """Run the demo at ``url``, which must hold no log yet; ``directory`` is for files that pass between processes.

    ``on_progress`` is told how many events are acknowledged. Raises InvalidArgument, DemoFailed, Unavailable.
    """
    remote = url.startswith("s3:")
    deadline_ms, idle_ms = REMOTE_MS if remote else LOCAL_MS
    await _require_no_log(url)
    for index, share in enumerate(work):
        (directory / f"share-{index}.json").write_text(json.dumps(share))
    config = {"url": url, "directory": str(directory), "deadline_ms": deadline_ms, "idle_ms": idle_ms}
    async with logstore.open(url, settings=settings(deadline_ms, idle_ms)) as log, AsyncExitStack() as stack:
        following = await stack.enter_async_context(_Process("reader", {**config, "reader": "following"}))
        lives, killed_after = await _write(work, config, directory, on_progress, stack)
        written_s = time.time()
        await _append_end(log)
        seen = await following.report()
        settled_s = time.time()
        cold = await stack.enter_async_context(_Process("reader", {**config, "reader": "cold"}))
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
        f"{len(lives)} writers": _sum([_statistics(life["requests"]) for life in lives]),
        "following reader": _statistics(seen["requests"]),
        "cold reader": _statistics(seen_cold["requests"]),
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


async def _require_no_log(url: str) -> None:
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

    def life_of(writer: int, life: int, stop_after: int | None = None) -> _Process:
        return _Process("writer", {**config, "writer": writer, "life": life, "stop_after": stop_after})

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


def _statistics(counts: dict[str, dict[str, int]]) -> StoreStatistics:
    return StoreStatistics(**{verb: VerbStatistics(**count) for verb, count in counts.items()})


def _sum(many: list[StoreStatistics]) -> StoreStatistics:
    return StoreStatistics(
        *(sum((getattr(one, verb.name) for one in many), VerbStatistics()) for verb in fields(StoreStatistics))
    )
