"""Requests, counted by the meter of each log, and what they cost on S3. In simulated time: an answer takes 60 ms.

append         100,000 small events by 64 callers, each awaiting one before its next
reader         a reader that follows a log where nothing happens, for a month (six hours, times 120)
control plane  ``examples/pipecd`` for an hour: servers of web, agents and operations; 100 agents poll the second, as
               PipeCD's do; each has a deployment in that hour, with thirty reports

Nothing lists. Beside them: a request for each event; SlateDB's idle database, "less than $5 a month" (its blog on its
benchmarks); one PUT a second, $12.96 a month, litestream's rule of thumb (its issue 261).

Prices: S3 Standard in us-east-1, https://aws.amazon.com/s3/pricing/, November 2026, without traffic and storage.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest

import logstore
from benchmarks.bench_polling import EVERY_S, NOW, Load
from benchmarks.conftest import Once, Record, Sizes
from benchmarks.documents import deployment, uuid
from benchmarks.events import small_events
from benchmarks.figure import THE_GOAL, Figure
from examples.pipecd import ControlPlane, DeploymentStatus, StageStatus
from logstore import Log, StoreStatistics
from logstore.testing.simulation import SimulatedLoop, SimulatedStore, Weather

T = TypeVar("T")

PUT_USD, GET_USD = 0.005 / 1_000, 0.0004 / 1_000
SLATEDB_IDLE_USD, LITESTREAM_USD = 5.0, 12.96
CALLERS = 64
HOURS_PER_MONTH = 720
IDLE_HOURS = 6
REPORTS = 30
LATENCY_MS = 30.0  # of each way


class World:
    """One bucket, far away, and simulated time."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop(random.Random(1), time_s_max=10**7, steps_max=10**9)
        self.store = SimulatedStore(self.loop, random.Random(2), remote=True)

    def run(self, scenario: Callable[[World], Coroutine[Any, Any, T]]) -> T:
        return self.loop.run_until_complete(scenario(self))

    def log(self, name: str) -> Log:
        """The log as a process of that name sees it."""
        process = self.loop.process(name)
        face = self.store.face(process, weather=Weather(latency_ms=LATENCY_MS))
        return logstore.open(face, clock=process.clock, rng=random.Random(name))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.loop.close()


def usd(counted: StoreStatistics) -> float:
    """What requests cost; nothing may have been listed."""
    assert counted.list.requests == 0
    price = counted.create.requests * PUT_USD + counted.get.requests * GET_USD
    assert price == pytest.approx(counted.price_usd)
    return price


def test_appending(once: Once[StoreStatistics], record: Record, sizes: Sizes, world: World) -> None:
    """Napkin: 64 events a segment at most; four in flight share them, so sixteen or more."""
    events = small_events(sizes.priced_events)

    async def append(world: World) -> StoreStatistics:
        async with world.log("web") as log, log.writer("web") as writer:
            await writer.append(events[0])
            before = log.requests()

            async def call_in_turn(first: int) -> None:
                for event in events[first::CALLERS]:
                    await writer.append(event)

            await asyncio.gather(*map(call_in_turn, range(CALLERS)))
            return log.requests() - before

    counted = once(lambda: world.run(append))
    work = f"{len(events):,} events by {CALLERS} callers"
    record(Figure(work, counted.requests, len(events), "requests", "one an event", less=True, goal=1 / 15))
    record(Figure(work, usd(counted), len(events) * PUT_USD, "USD", "one PUT an event", less=True, goal=1 / 15))


async def follow(log: Log) -> None:
    async for _ in log.follow():
        pass


def test_an_idle_reader(once: Once[StoreStatistics], record: Record, sizes: Sizes, world: World) -> None:
    """Napkin: a GET every two seconds, 1.3 million a month, 0.52 USD."""
    hours = sizes.priced_hours * IDLE_HOURS

    async def wait(world: World) -> StoreStatistics:
        async with world.log("web") as log, log.writer("web") as writer:
            await writer.append(small_events(1)[0])
        async with world.log("reader") as log:
            following = asyncio.create_task(follow(log))
            await asyncio.sleep(3_600)  # the session of the writer is over, the polls have backed off
            before = log.requests()
            await asyncio.sleep(3_600 * hours)
            following.cancel()
            return log.requests() - before

    counted = once(lambda: world.run(wait))
    months = hours / HOURS_PER_MONTH
    price = usd(counted) / months
    work = "an idle reader, a month"
    record(Figure(work, counted.requests / months, 1_296_000, "requests", "one every two seconds", less=True))
    record(Figure(work, price, 1, "USD", THE_GOAL, less=True, goal=1))
    beside = "SlateDB, a whole database, idle, as published"
    record(Figure(work, price, SLATEDB_IDLE_USD, "USD", beside, less=True, steady=False))
    assert price < 1


# A control plane ------------------------------------------------------------------------------


@asynccontextmanager
async def serving(world: World, name: str) -> AsyncIterator[tuple[Log, ControlPlane]]:
    async with world.log(name) as log, ControlPlane.open(log, name, now=lambda: NOW) as plane:
        yield log, plane


async def one_hour(world: World, sizes: Sizes) -> dict[str, StoreStatistics]:
    """Three servers, whose agents ask and report by the clock; what each has asked the store for."""
    async with (
        serving(world, "client-1") as (web_log, _),
        serving(world, "agent-1") as (agent_log, agents),
        serving(world, "ops-1") as (ops_log, _),
    ):
        logs = {"web": web_log, "agents": agent_log, "ops": ops_log}
        before = {name: log.requests() for name, log in logs.items()}
        rng, load = random.Random(3), Load(agents, replace(sizes, agents=sizes.priced_agents))
        seconds = 3_600 * sizes.priced_hours
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(load, seconds))
            for number in range(sizes.priced_agents):
                group.create_task(deploy(agents, number, rng.random() * seconds * 0.8, seconds * 0.2 / REPORTS))
        return {name: log.requests() - before[name] for name, log in logs.items()}


async def ask(load: Load, seconds: float) -> None:
    """Each agent's questions, every second as many as are due: a hundred agents ask 33 times. Answered from memory."""
    per_s = sum(load.agents / every for every in EVERY_S.values())
    rng, kinds = random.Random(4), list(EVERY_S)
    for _ in range(int(seconds)):
        await asyncio.sleep(1)
        for _ in range(int(per_s)):
            load._question(rng.choice(kinds), rng.randrange(load.agents)).find(load.plane.db)


async def deploy(plane: ControlPlane, number: int, begin_s: float, pause_s: float) -> None:
    """A deployment: made, reported on, completed."""
    await asyncio.sleep(begin_s)
    id, stages = uuid("deployment", number), ["stage-0", "stage-1", "stage-2"]
    document: Any = {**deployment(number), "stages": {name: {"id": name, "status": 0} for name in stages}}
    await plane.deployments.add(document)
    for report in range(REPORTS - 2):
        await asyncio.sleep(pause_s)
        await plane.deployments.update_stage_status(id, stages[report % 3], StageStatus(report % 3), "so")
    await plane.deployments.update_status(id, DeploymentStatus.ROLLING_BACK, "it is over")


def test_a_control_plane(once: Once[dict[str, StoreStatistics]], record: Record, sizes: Sizes, world: World) -> None:
    """Napkin: three servers poll once a second, 11,000 GETs, as many for open sessions; a PUT, a few GETs a write."""
    counted = once(lambda: world.run(lambda world: one_hour(world, sizes)))
    hours = sizes.priced_hours
    price = sum(map(usd, counted.values())) / hours
    writes = REPORTS * sizes.priced_agents
    puts = sum(each.create.requests for each in counted.values())
    work = f"a control plane of three servers, {sizes.priced_agents} agents, an hour"
    requests = sum(each.requests for each in counted.values()) / hours
    record(Figure(work, requests, 3_600 * len(counted), "requests", "a poll a second of each", less=True))
    record(Figure(f"{work}: creations", puts, writes, "requests", "its writes", less=True, goal=1.5))
    record(Figure(f"{work}, times 720", price * HOURS_PER_MONTH, LITESTREAM_USD, "USD", "a PUT a second", less=True))
