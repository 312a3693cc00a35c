"""Real processes on a real directory: killed, doubled, stopped. What was acknowledged is there, once.

Nothing sleeps for a while and hopes: each test waits for a condition, with a bound.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import logstore
from logstore import Finding, Log
from tests.zygote import SEAL_MS, SETTINGS, Zygote, acknowledged

KILLS = 50
SEED = int(os.environ.get("SEED", "2"))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as made:
        yield made


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "log").as_uri()


def log_at(url: str) -> Log:
    return logstore.open(url, settings=SETTINGS)


async def until(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 30) -> None:
    """Wait for a condition that other processes bring about."""
    deadline_s = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline_s, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.002)


async def until_noted(file: Path, count: int) -> None:
    async def enough() -> bool:
        return len(acknowledged(file)) >= count

    await until(enough, f"{count} acknowledged in {file.name}")


async def seal_all(log: Log) -> None:
    """Seal what the dead have left open, as soon as it may be."""

    async def all_sealed() -> bool:
        return all(sealing.sealed for sealing in await log.seal())

    await until(all_sealed, "every session is sealed", seconds=SEAL_MS / 1000 + 20)


async def read(log: Log) -> Counter[str]:
    """How often each event is in the settled order; each life's events must have come in order of its sessions."""
    counts: Counter[str] = Counter()
    sequences: dict[tuple[int, int], int] = {}
    async for event in log.read(settled=True):
        counts[event.key] += 1
        session = (event.chapter, event.session)
        assert event.seq == sequences.get(session, -1) + 1, "a session's events come in order and without a gap"
        sequences[session] = event.seq
    return counts


async def damage(log: Log) -> list[Finding]:
    return [finding async for finding in log.check() if finding.severity == "damage"]


async def test_kill_9_at_random_moments_loses_nothing_that_was_acknowledged(
    zygote: Zygote, url: str, tmp_path: Path
) -> None:
    """Fifty times a writer is killed somewhere in its work; what it noted as acknowledged is read, once."""
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    async with log_at(url) as log:
        files = {f"life{n}": tmp_path / f"life{n}" for n in range(KILLS)}
        for life, file in files.items():
            callers = rng.choice((1, 8, 64))
            pid = zygote.spawn(url=url, writer="w", life=life, callers=callers, events=10**6, file=str(file))
            await until_noted(file, rng.choice((0, 1, rng.randrange(200))))
            spin_until_s = time.perf_counter() + rng.uniform(0, 0.02)
            while time.perf_counter() < spin_until_s:
                pass
            zygote.kill(pid)
        await seal_all(log)
        counts = await read(log)
        told = {f"{life}-{number}" for life, file in files.items() for number in acknowledged(file)}
        assert len(told) > KILLS
        assert not told - counts.keys(), "acknowledged and missing"
        assert not [key for key, count in counts.items() if count > 1], "there twice"
        assert await damage(log) == []


async def test_two_processes_with_one_writers_name_both_keep_all(zygote: Zygote, url: str, tmp_path: Path) -> None:
    """A name is no lock: each process has a session of its own, at full speed."""
    events = 3_000
    async with log_at(url) as log:
        files = {life: tmp_path / life for life in ("one", "two")}
        pids = [
            zygote.spawn(url=url, writer="w", life=life, callers=32, events=events, file=str(file))
            for life, file in files.items()
        ]
        assert [zygote.wait(pid) for pid in pids] == [0, 0]
        assert [len(acknowledged(file)) for file in files.values()] == [events, events]
        await seal_all(log)
        assert await read(log) == {f"{life}-{number}": 1 for life in files for number in range(events)}
        assert [finding async for finding in log.check()] == []
        assert {session.writer for session in (await log.survey()).open_sessions} == set()


async def test_a_stopped_writer_that_was_sealed_loses_nothing_and_doubles_nothing(
    zygote: Zygote, url: str, tmp_path: Path
) -> None:
    """SIGSTOP in the middle of its work, sealed by another process, SIGCONT: it notices, and goes on in a new one."""
    events, stops = 4_000, 2
    file = tmp_path / "sleeper"
    async with log_at(url) as log:
        pid = zygote.spawn(url=url, writer="w", life="sleeper", callers=16, events=events, file=str(file))
        for stop in range(stops):
            await until_noted(file, (stop + 1) * events // 4)
            os.kill(pid, signal.SIGSTOP)
            assert len(acknowledged(file)) < events, "stopped in the middle"
            [open_session] = (await log.survey()).open_sessions
            await seal_all(log)
            assert open_session.writer == "w"
            assert (await log.survey()).open_sessions == ()
            os.kill(pid, signal.SIGCONT)
        assert zygote.wait(pid) == 0
        assert sorted(acknowledged(file)) == list(range(events))
        await seal_all(log)
        assert await read(log) == {f"sleeper-{number}": 1 for number in range(events)}
        assert (await log.survey()).sessions >= stops + 1
        assert await damage(log) == []
