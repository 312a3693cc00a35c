"""A control plane under its agents: two thousand poll, two hundred writes a second come in, one process answers.

(By ``make bench-full``; by ``make bench`` a quarter as many, over fewer deployments.)

The control plane is ``examples/pipecd``, over a log in a directory: 200,000 deployments of about a kilobyte, as many
commands and events for a tenth of it, 20,000 applications; nine collections, one view of each. Every agent asks for

16  the commands that wait for it            every 5 seconds
6   the deployments that it has not finished  every 10 seconds
1   the applications that it looks after     every minute
19  the events of a day that nobody handled  every minute

and half of all writes are reports on stages and deployments; the others are commands and events that are created and
handled, and states of applications. Each write brings the view to the log's tail first, and is on disk when it returns.

The load comes by the clock, whether the process keeps up or not. *Asked* is the time in the call; *answered* is from
the moment it was due, so it has what stood in the way: other calls, the fold, the collector, other processes, and the
timer of the loop, a millisecond. CPU is what the process took of all kinds, threads too.

Twice: with Python's garbage collector as it comes, and with full collections made rare, as a server may wish.

Napkin: a page that is remembered 5 us, one that is not 30 and 5 a row: 670 queries take 2 % of a second. A write is
judged twice, encoded, decoded, folded and entered into up to eight indexes, after a barrier: 2 ms; 200 take 40 %.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

import logstore
from benchmarks.conftest import Note, Once, Record, Sizes
from benchmarks.documents import deployment, uuid
from benchmarks.figure import THE_GOAL, Figure
from benchmarks.loading import store_events
from benchmarks.visibility import quantile
from examples.pipecd import CommandStatus, ControlPlane, DeploymentStatus, EventStatus, StageStatus, queries
from logstore import Event
from projections.document import Write

NOW = 1_800_000_000
DAY = 86_400
AGENTS_PER_PROJECT = 10
APPLICATIONS_PER_AGENT = 10
WRITES_PER_AGENT_S = 0.1
EVERY_S = {16: 5, 6: 10, 1: 60, 19: 60}
P99_MS_GOAL = 5


# What there is ----------------------------------------------------------------------------


def piped(number: int, agents: int) -> str:
    return uuid("piped", number % agents)


def project(number: int, agents: int) -> str:
    return uuid("project", number % agents // AGENTS_PER_PROJECT)


def created(kind: str, documents: Iterable[dict[str, Any]]) -> Iterator[Event]:
    """The events that a document store would append to create them."""
    meta = Write("create").meta()
    for document in documents:
        yield Event(kind, document["id"], "created", document, meta)


def deployments(size: int, agents: int) -> Iterator[dict[str, Any]]:
    """Nearly all are over; the newest, two for each agent, are not."""
    running = size - 2 * agents
    for number in range(size):
        at = NOW - (size - number) * 13
        document = deployment(number) | {
            "project_id": project(number, agents),
            "piped_id": piped(number, agents),
            "status": 4 + number % 3 if number < running else number % 4,
            "created_at": at,
            "updated_at": at,
            "stages": {
                f"stage-{place}": {
                    "id": f"stage-{place}",
                    "place": place,
                    "name": "K8S_SYNC",
                    "status": 2 if number < running else 0,
                    "status_reason": "",
                    "requires": [f"stage-{place - 1}"] if place else [],
                    "created_at": at,
                    "updated_at": at,
                }
                for place in range(3)
            },
        }
        yield document | ({"completed_at": at + 60} if number < running else {})


def applications(agents: int) -> Iterator[dict[str, Any]]:
    for number in range(APPLICATIONS_PER_AGENT * agents):
        yield {
            "id": uuid("application", number),
            "project_id": project(number, agents),
            "piped_id": piped(number, agents),
            "name": f"service-{number}",
            "kind": number % 6,
            "git_path": {"repo": {"id": "infrastructure", "branch": "main"}, "path": f"services/{number}"},
            "labels": {"env": "prod"},
            "disabled": False,
            "deleted": False,
            "created_at": NOW - DAY,
            "updated_at": NOW - DAY,
        }


def commands(size: int, agents: int) -> Iterator[dict[str, Any]]:
    for number in range(size):
        yield command(number, agents) | {"status": int(number < size - agents // 4)}


def command(number: int, agents: int) -> dict[str, Any]:
    return {
        "id": uuid("command", number),
        "project_id": project(number, agents),
        "piped_id": piped(number, agents),
        "application_id": uuid("application", number),
        "commander": "somebody",
        "type": 0,
        "status": 0,
        "created_at": NOW,
        "updated_at": NOW,
    }


def events(size: int, agents: int) -> Iterator[dict[str, Any]]:
    for number in range(size):
        yield event(number, agents) | {"status": int(number % 20 > 0), "created_at": NOW - (size - number) * 10}


def event(number: int, agents: int) -> dict[str, Any]:
    return {
        "id": uuid("event", number),
        "project_id": project(number, agents),
        "name": f"image-{number % 50}",
        "event_key": uuid("event key", number % 50),
        "data": "v1.2.3",
        "labels": {"app": f"service-{number % 50}"},
        "status": 0,
        "created_at": NOW,
        "updated_at": NOW,
    }


async def fill(url: str, sizes: Sizes) -> None:
    agents, size = sizes.agents, sizes.documents_found
    await store_events(url, created("Application", applications(agents)), 1_000, writer="client-1")
    for kind, documents in (
        ("Deployment", deployments(size, agents)),
        ("Command", commands(size // 10, agents)),
        ("Event", events(size // 10, agents)),
    ):
        await store_events(url, created(kind, documents), 1_000, writer="agent-1")


# What comes in ----------------------------------------------------------------------------


@dataclass
class Taken:
    """Seconds, by what was asked or written."""

    asked: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answered: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class Load:
    """Agents, and what happens to them."""

    def __init__(self, plane: ControlPlane, sizes: Sizes) -> None:
        self.plane = plane
        self.agents = sizes.agents
        self.rng = random.Random(1)
        self.taken = Taken()
        self.size = sizes.documents_found
        self._new = count(len(plane.commands.documents) + len(plane.events.documents))  # none is there yet
        self._waiting: dict[str, list[str]] = {"Command": [], "Event": []}

    def due(self, seconds: float) -> list[tuple[float, int, int]]:
        """When which query comes from which agent (or a write: 0), from now on."""
        polls = [
            (first + every * turn, number, agent)
            for agent in range(self.agents)
            for number, every in EVERY_S.items()
            for first in [self.rng.random() * every]
            for turn in range(int(seconds / every) + 1)
        ]
        per_s = self.agents * WRITES_PER_AGENT_S
        writes = [(self.rng.random() * seconds, 0, 0) for _ in range(int(per_s * seconds))]
        return sorted(each for each in polls + writes if each[0] < seconds)

    async def run(self, seconds: float) -> None:
        """Let it come in by the clock."""
        began, clock = time.perf_counter(), time.perf_counter
        writing: set[asyncio.Task[None]] = set()
        for due_s, number, agent in self.due(seconds):
            if (ahead := began + due_s - clock()) > 0:
                await asyncio.sleep(ahead)
            if number:
                self._ask(number, agent, began + due_s)
                await asyncio.sleep(0)  # each is a request of its own
            else:
                task = asyncio.create_task(self._write(began + due_s))
                writing.add(task)
                task.add_done_callback(writing.discard)
        await asyncio.gather(*writing)

    def ask_once(self) -> None:
        """Each agent's questions, so that indexes are there."""
        for agent in range(self.agents):
            for number in EVERY_S:
                self._question(number, agent).find(self.plane.db)

    def _question(self, number: int, agent: int) -> queries.Question:
        id = piped(agent, self.agents)
        match number:
            case 16:
                return queries.unhandled_commands(id)
            case 6:
                return queries.not_completed_deployments(id)
            case 1:
                return queries.applications_of_piped(project(agent, self.agents), id)
            case _:
                since = NOW - DAY + int(time.monotonic())
                return queries.events_of_project(project(agent, self.agents), created_since=since, status=0)

    def _ask(self, number: int, agent: int, due: float) -> None:
        started = time.perf_counter()
        page = self._question(number, agent).find(self.plane.db)
        done = time.perf_counter()
        what = f"query {number}"
        self.taken.asked[what].append(done - started)
        self.taken.answered[what].append(done - due)
        self.taken.rows[what] += len(page.rows)

    async def _write(self, due: float) -> None:
        started = time.perf_counter()
        what, writing = self._next_write()
        await writing
        done = time.perf_counter()
        for name in ("write", what):
            self.taken.asked[name].append(done - started)
            self.taken.answered[name].append(done - due)

    def _next_write(self) -> tuple[str, Awaitable[Any]]:
        plane, rng = self.plane, self.rng
        running = uuid("deployment", self.size - 1 - rng.randrange(2 * self.agents))
        draw = rng.random()
        if draw < 0.3:
            status = StageStatus(rng.randrange(3))
            return "stage", plane.deployments.update_stage_status(running, f"stage-{rng.randrange(3)}", status, "so")
        if draw < 0.4:
            return "status", plane.deployments.update_status(running, DeploymentStatus(rng.randrange(4)), "so")
        if draw < 0.5:
            return "metadata", plane.deployments.update_shared_metadata(running, {f"k{rng.randrange(9)}": "v"})
        if draw < 0.6:
            application = uuid("application", rng.randrange(APPLICATIONS_PER_AGENT * self.agents))
            return "sync state", plane.applications.update_sync_state(application, {"status": rng.randrange(3)})
        kind = "Command" if draw < 0.8 else "Event"
        if not (waiting := self._waiting[kind]) or rng.random() < 0.5:
            return "create", self._create(kind, next(self._new))
        id = waiting.pop(rng.randrange(len(waiting)))
        if kind == "Command":
            return "handle", plane.commands.update_status(id, CommandStatus.SUCCEEDED, {}, NOW)
        return "handle", plane.events.update_status(id, EventStatus.SUCCESS, "so")

    async def _create(self, kind: str, number: int) -> None:
        document: Any = (command if kind == "Command" else event)(number, self.agents)
        await (self.plane.commands if kind == "Command" else self.plane.events).add(document)
        self._waiting[kind].append(document["id"])


# What it costs ----------------------------------------------------------------------------


@contextmanager
def full_collections() -> Iterator[list[float]]:
    """How long each full collection takes that happens within."""
    took: list[float] = []
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        elif info["generation"] == 2:
            took.append(time.perf_counter() - began)

    gc.callbacks.append(note)
    try:
        yield took
    finally:
        gc.callbacks.remove(note)


async def poll(url: str, sizes: Sizes, note: Note, record: Record, what: str) -> None:
    async with logstore.open(url) as log:
        began = time.perf_counter()
        async with ControlPlane.open(log, "agent-1", now=lambda: NOW) as plane:
            load = Load(plane, sizes)
            load.ask_once()
            opened_s = time.perf_counter() - began
            await load.run(sizes.polling_s / 2)  # each agent has asked the hot ones three times: pages are remembered
            load.taken = Taken()
            cpu, wall = time.process_time(), time.perf_counter()
            with full_collections() as collections:
                await load.run(sizes.polling_s)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            note(
                f"polling, {what}: {load.size:,} deployments, {load.agents:,} agents for {wall:.0f} s;"
                f" opened, folded and indexed in {opened_s:.1f} s;"
                f" {len(collections)} full collections of at most {max(collections, default=0) * 1e3:.0f} ms"
            )
            report(load, wall, note)
            record(goal(f"a control plane polled, {what}", cpu / wall, 1, "cores"))
            hottest = max(quantile(sorted(load.taken.answered[f"query {number}"]), 0.99) for number in (16, 6))
            record(goal(f"queries 16 and 6 answered, p99, {what}", hottest * 1e3, P99_MS_GOAL, "ms"))


def goal(work: str, ours: float, at_most: float, unit: str) -> Figure:
    return Figure(work, ours, at_most, unit, THE_GOAL, less=True, goal=1, steady=False)


def report(load: Load, wall: float, note: Note) -> None:
    taken = load.taken
    row = "  {:12} {:>8} {:>6} {:>10} {:>10} {:>13} {:>13}"
    note(row.format("", "per s", "rows", "asked p50", "asked p99", "answered p50", "answered p99"))
    for what, asked in taken.asked.items():
        answered = taken.answered[what]
        times = [f"{quantile(sorted(each), q) * 1e3:.2f} ms" for each in (asked, answered) for q in (0.50, 0.99)]
        rows = f"{taken.rows[what] / len(asked):.1f}" if what in taken.rows else ""
        note(row.format(what, f"{len(asked) / wall:.0f}", rows, *times))
    asking = sum(sum(asked) for what, asked in taken.asked.items() if what.startswith("query")) / wall
    note(f"  queries: {asking:.1%} of one core")


@pytest.fixture(scope="module")
def url(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = (tmp_path_factory.mktemp("polling") / "log").as_uri()
    asyncio.run(fill(url, sizes))
    return url


@pytest.mark.parametrize("collector", ["collector as it comes", "full collections rare"])
def test_polling(url: str, sizes: Sizes, *, once: Once[None], note: Note, record: Record, collector: str) -> None:
    thresholds = gc.get_threshold()
    if collector == "full collections rare":
        gc.set_threshold(*thresholds[:2], 1_000)
    try:
        once(lambda: asyncio.run(poll(url, sizes, note, record, collector)))
    finally:
        gc.set_threshold(*thresholds)
