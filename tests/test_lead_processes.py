"""Real processes that lead, over a real directory: killed, stopped, continued, taken over.

What was acknowledged is there, what was refused is not, and what was seen by whoever led is linearizable. Nothing
sleeps for a while and hopes: each test waits for a condition, with a bound.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import logstore
from tests.leading import SEAL_S, SETTINGS
from tests.simulation.leaders import Annals, Deed, Told, strictly_serializable
from tests.simulation.truth import Truth
from tests.zygote import Zygote


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path, zygote: Zygote) -> Stage:
    return Stage(tmp_path, zygote)


class Server:
    """A process that leads, or stands by."""

    def __init__(self, stage: Stage, name: str, how: str) -> None:
        self.file = stage.path / f"{len(stage.servers)}.notes"
        self._zygote = stage.zygote
        self._ended = False
        self._notes: list[dict[str, Any]] = []
        self._read_bytes = 0
        self.pid = stage.zygote.spawn("lead", url=stage.url, writer=name, file=str(self.file), how=how)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._ended = True
        self._zygote.kill(self.pid)

    def stop(self) -> None:
        """Let it end cleanly."""
        if not self._ended:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)
            self._ended = True
            assert self._zygote.wait(self.pid) == 0

    def notes(self) -> list[dict[str, Any]]:
        """What it noted, but for a line that it was killed in."""
        if self.file.exists():
            with self.file.open("rb") as file:
                file.seek(self._read_bytes)
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._read_bytes += len(whole) + 1
                self._notes += map(json.loads, whole.split(b"\n"))
        return self._notes

    @property
    def done(self) -> int:
        """How much it was told is done."""
        return sum(note.get("told") == "done" for note in self.notes())

    @property
    def terms(self) -> int:
        """How often it came to lead."""
        return sum("leads" in note for note in self.notes())

    @property
    def ends(self) -> int:
        """How often it was told that it leads no more."""
        return sum("ends" in note for note in self.notes())


class Stage:
    """A directory, and the processes of a test."""

    def __init__(self, path: Path, zygote: Zygote) -> None:
        self.path = path
        self.zygote = zygote
        self.url = (path / "log").as_uri()
        self.servers: list[Server] = []

    def server(self, name: str, how: str = "standby") -> Server:
        """Start one."""
        self.servers.append(Server(self, name, how))
        return self.servers[-1]

    def deeds(self) -> list[Deed]:
        """What all were told; of two lines about one deed the later counts."""
        deeds: dict[str, Deed] = {}
        for server in self.servers:
            for note in server.notes():
                if "id" in note:
                    deed = Deed(note["id"], server.file.name, note["do"], note["called"], wrote=note["do"] == "write")
                    deed.reads = [(("Doc", key), document) for key, document in note["reads"].items()]
                    deed.told, deed.ended_s = Told(note["told"]), note.get("ended", math.inf)
                    deeds[note["id"]] = deed
        return list(deeds.values())

    async def judge(self) -> int:
        """All stop; what they were told, beside what is there. Returns how many deeds there were."""
        for server in self.servers:
            server.stop()
        root = self.path / "log"
        async with logstore.open(self.url, settings=SETTINGS) as log:
            assert [finding async for finding in log.check() if finding.severity == "damage"] == []
            contents = {listed.key: (await log._store.get(listed.key)).data async for listed in log._store.list("")}
        assert root.is_dir()
        annals, deeds = Annals(Truth.of(contents)), self.deeds()
        wrong = [
            f"{deed.id} was told {deed.told}"
            for deed in deeds
            if (deed.told is Told.DONE and deed.wrote and deed.id not in annals.at)
            or (deed.told is Told.OTHERWISE and deed.id in annals.at)
        ]
        assert [*annals.problems, *wrong, *strictly_serializable(deeds, annals)] == []
        return len(deeds)


async def until(condition: Callable[[], bool], what: str, seconds: float = 30) -> float:
    """Wait for a condition that other processes bring about; return how long that took."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - began_s


async def until_serves(server: Server, count: int = 20) -> None:
    """Wait until a process has done so much more."""
    before = server.done
    await until(lambda: server.done > before + count, f"{server.file.name} serves")


async def until_told(server: Server, ends: int = 0) -> None:
    """Wait until a process was told more often than so that it leads no more."""
    await until(lambda: server.ends > ends, f"{server.file.name} is told")


def more_than(measure: Callable[[], int], by: int) -> Callable[[], bool]:
    """Whether a number has grown by more than so much since now."""
    before = measure()
    return lambda: measure() > before + by


async def test_a_killed_leader_is_followed_by_a_standby(stage: Stage) -> None:
    """Not before its seal time, but soon after; again and again, and nothing that was acknowledged is lost."""
    leader = stage.server("a")
    for number in range(2):
        await until_serves(leader)
        standby = stage.server(f"b{number}")
        await until_serves(leader)
        assert not standby.terms
        leader.kill()
        killed_s = time.monotonic()
        await until_serves(standby, 0)
        assert time.monotonic() - killed_s > SEAL_S / 3
        leader = standby
    await until_serves(leader)
    assert await stage.judge() > 80


async def test_a_stopped_leader_that_goes_on_is_fenced(stage: Stage) -> None:
    """SIGSTOP until another leads, SIGCONT: what it tries is refused, and what it had acknowledged is there."""
    a, b = stage.server("a"), stage.server("b", "takeover")
    for _ in range(2):
        await until(more_than(lambda: a.done + b.done, 40), "somebody serves")
        first, second = (a, b) if a.terms - a.ends > b.terms - b.ends else (b, a)
        ends = first.ends
        first.signal(signal.SIGSTOP)
        await until_serves(second)
        first.signal(signal.SIGCONT)
        await until_told(first, ends)
    assert any("Fenced" in note.get("why", "") for server in (a, b) for note in server.notes())
    assert await stage.judge() > 60


@pytest.mark.parametrize("name", ["a", "b"])
async def test_a_chain_of_takeovers(stage: Stage, name: str) -> None:
    """Each usurper leads though the one before is well and busy, whatever it is called; and that one is told."""
    leader = stage.server("a")
    await until_serves(leader)
    for _ in range(3):
        usurper = stage.server(name, "takeover")
        await until_serves(usurper)
        await until_told(leader)
        leader.stop()
        leader = usurper
    assert await stage.judge() > 60


@pytest.mark.parametrize(
    ("seed", "operations"),
    [(5, 1_500), *(pytest.param(seed, 10_000, marks=pytest.mark.slow) for seed in (6, 7, 8))],
)
async def test_four_processes_under_all_signals_are_linearizable(stage: Stage, seed: int, operations: int) -> None:
    """Operation after operation, while chance stops, continues, kills and lets others take over."""
    rng = random.Random(seed)
    alive = [stage.server(f"s{number}") for number in range(4)]
    stopped: list[Server] = []
    for _ in range(operations // 500):
        await until(more_than(lambda: sum(server.done for server in stage.servers), 500), "somebody serves")
        server = max(alive, key=lambda server: (server.terms - server.ends, server.done))
        match rng.choice(["stop", "stop", "kill", "usurp"]):
            case "stop" if len(alive) > 1:
                alive.remove(server)
                stopped.append(server)
                server.signal(signal.SIGSTOP)
            case "kill" if len(alive) > 1:
                alive.remove(server)
                server.kill()
                alive.append(stage.server(f"s{len(stage.servers)}"))
            case _:
                alive.append(stage.server("usurper", "takeover"))
        if len(stopped) > rng.randrange(3):
            server = stopped.pop(0)
            server.signal(signal.SIGCONT)
            alive.append(server)
    assert await stage.judge() >= operations
