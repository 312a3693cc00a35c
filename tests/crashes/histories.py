"""What is done on a disk before it crashes, what the doers were told, and what must be true of what is left."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import logstore
from logstore import Block, Event, KeepSettings, Log, NotStored, StageLogs, Unknown, Writer
from logstore.errors import AlreadyExists, LogStoreError, NotFound, Trimmed
from logstore.filestore import LocalStore
from logstore.filestore import local as local_module
from logstore.testing.process import EPOCH_MS, Process
from logstore.testing.simulation import SimulatedLoop
from projections import Collection, DocumentStore, Projection, View
from tests.disk import Call, Disk, Left, SteppingLoop
from tests.scene import quick

__all__ = ["GRACE_MS", "HISTORIES", "Host", "Told", "examine", "played"]

GRACE_MS: Final = 40_000
SEAL_S: Final = 30  # longer than the seal times of all sessions of ``quick`` settings


class Things(Projection):
    """What every event left: its row is its data."""

    name, kinds, fold = "things", frozenset({"Thing"}), "put"


def thing(id_: str, batch: Sequence[str]) -> Event:
    """An event whose data tells its id, all ids of its batch, and bytes that follow from its id."""
    return Event("Thing", id_, "changed", {"id": id_, "batch": list(batch), "fill": id_ * 20})


@dataclass
class Told:
    """What callers were told, and after how many calls: acknowledged and read things stay, refused ones never come."""

    disk: Disk
    sent: set[str] = field(default_factory=set)
    stored: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)  # by key and winner
    blocks: dict[int, int] = field(default_factory=dict)
    completed: int | None = None
    errors: list[BaseException] = field(default_factory=list)
    ended_ms: int = 0
    logged: list[str] = field(default_factory=list)
    last: bool = False
    died: int = 0
    complaints: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @property
    def now(self) -> int:
        return len(self.disk.calls)

    @property
    def in_doubt(self) -> bool:
        """Whether somebody was told, or the operator by the process's log, that a sync failed, and what to do."""
        said = [*map(str, self.errors), *self.logged]
        return any("check the disk, mount it anew, then restart this process" in line for line in said)

    async def append(self, writer: Writer, *ids: str) -> bool:
        """Append a batch and keep what came of it; whether it was acknowledged."""
        self.sent.update(ids)
        try:
            await writer.append_many([thing(id_, ids) for id_ in ids])
        except NotStored as error:
            self.refused.update(ids)
            self.errors.append(error)
        except Unknown as error:
            self.unknown.update(dict.fromkeys(ids, error.token))
            self.errors.append(error)
        except LogStoreError as error:
            self.errors.append(error)
        else:
            self.stored.update(dict.fromkeys(ids, self.now))
            return True
        return False

    def saw(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            self.read.setdefault(id_, self.now)


@dataclass
class Host:
    """A machine with a disk; its processes share nothing else."""

    loop: SimulatedLoop
    disk: Disk
    root: Path
    history: str = "full"
    seed: int = 0
    follow_ms: int = 100
    stores: list[LocalStore] = field(default_factory=list)

    def process(self, name: str, skew_ms: int = 0) -> Process:
        return self.loop.process(name, skew_ms=skew_ms)

    @asynccontextmanager
    async def open(self, process: Process) -> AsyncIterator[Log]:
        store = LocalStore(self.root, clock=process.clock)
        self.stores.append(store)
        rng = random.Random(f"{self.seed} {process.name}")
        settings = quick(follow_ms=self.follow_ms)
        async with logstore.open(
            store, settings=settings, grace_ms=GRACE_MS, history=self.history, clock=process.clock, rng=rng
        ) as log:
            yield log


Refuse = Callable[[Host, int, str, str], OSError | None]


# Histories ---------------------------------------------------------------------------------------


async def writers(host: Host, told: Told) -> None:
    """Two processes make the log at once and write; a third reads all the while, and posts what it has read."""

    async def write(name: str, first: int) -> None:
        await asyncio.sleep(first / 100)
        async with host.open(host.process(name)) as log, log.writer(name) as writer:
            for round_ in range(2):
                batches = [[f"{name}-{round_}-{n}-{i}" for i in range(n + 1)] for n in range(2)]
                await asyncio.gather(*(told.append(writer, *batch) for batch in batches))
            if name == "web":  # two segments in flight
                await asyncio.gather(*(_later(n / 1000, told.append(writer, f"web-flight-{n}")) for n in range(4)))

    async def read() -> None:
        async with host.open(host.process("reader")) as log, View.open(log, Things(), follow=True) as view:
            for _ in range(40):
                before = log.requests().create.requests
                await view.refresh()
                told.saw(_keys(view))
                await log.tick(log.now_ms() << 16)
                assert log.requests().create.requests > before
                await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:
        for first, name in enumerate(("web", "api")):
            group.create_task(write(name, first))
        group.create_task(_later(0.02, read()))


async def upkeep(host: Host, told: Told) -> None:
    """Claims, stage logs, snapshots, a chapter that is retired and deleted, a process that is killed on the way."""
    async with host.open(host.process("day one")) as log:
        await asyncio.gather(_create(log, told, "one"), _create(log, told, "two"))
        async with log.writer("web") as writer, View.open(log, Things()) as view:
            await told.append(writer, "d1-a", "d1-b")
            await _print_lines(log, told)
            await log.close_chapter()
            await told.append(writer, "d1-c")
            for _ in range(2):
                await told.append(writer, f"d1-{told.now}")
                await view.snapshot()
            told.saw(_keys(view))
    killed = host.process("killed")
    dead = asyncio.Event()

    linked = False

    def kill(call: Call) -> None:
        """Between the link of its sixth segment and the sync of that, for which the directory is opened."""
        nonlocal linked
        linked |= call.function == "link" and call.other.startswith("log/killed/") and call.other.endswith("5")
        if linked and not told.died and call.function == "open" and call.path.startswith("log/killed/"):
            killed.crash()
            told.died = told.now
            dead.set()

    host.disk.after = kill
    dying = killed.start(_write_on(host, told, killed))
    await dead.wait()
    assert not dying.done()
    deleted: list[str] = []
    for life in range(5):
        await asyncio.sleep(1.2 * GRACE_MS / 1000)
        async with host.open(host.process(f"keeper {life}")) as log:
            await log.seal()
            keeper = log.keeper(KeepSettings())
            async with DocumentStore.open(log, collections=[DEPLOYMENTS]), View.open(log, Things()) as view:
                await view.snapshot()
            async with View.open(log, DEPLOYMENTS.fold()) as view:
                await view.snapshot()
            await keeper.retire()
            deleted += [garbage.key async for garbage in keeper.collect()]
            await keeper.sweep()
            async with log.writer("web") as writer:
                await told.append(writer, f"life-{life}")
    assert any(key.startswith("log/") for key in deleted), "the history is to delete a chapter"


async def one_process(host: Host, told: Told) -> None:
    """A process does a little of everything, and goes on whatever it is told; at the end it writes once more.

    What ``told`` has as ``last`` is whether it could.
    """

    async def attempt(work: Awaitable[object], within_s: float = 15) -> None:
        try:
            async with asyncio.timeout(within_s):
                await work
        except Exception as error:  # noqa: BLE001  whatever it is, the test looks at it
            if not (isinstance(error, TimeoutError) and told.in_doubt):  # it waits for what it may not read any more
                told.errors.append(error)

    async def snapshot(log: Log) -> None:
        async with View.open(log, Things()) as view:
            told.saw(_keys(view))
            await view.snapshot()

    async def live(name: str) -> None:
        async with host.open(host.process(name)) as log, log.writer("web") as writer:
            await told.append(writer, f"{name}-a", f"{name}-b")
            await asyncio.gather(*(_later(n / 1000, told.append(writer, f"{name}-c{n}")) for n in range(3)))
            await attempt(_print_lines(log, told))
            await attempt(snapshot(log))
            await attempt(told.append(writer, f"{name}-d"))
            await attempt(log.keeper().sweep())
            await asyncio.sleep(5)
            await attempt(host.stores[-1].delete("nothing/there"))
            for n in range(3):  # the disk is well again, in the end
                told.last = await told.append(writer, f"{name}-last-{n}")
                if told.last:
                    break
                await asyncio.sleep(5)

    for n in range(3):  # a process that could not even open is started again, unless it says that the disk is in doubt
        await attempt(live(f"life{n}"), within_s=120)
        if told.last or told.in_doubt:
            break
        await asyncio.sleep(5)
    await asyncio.sleep(SEAL_S)


HISTORIES: Final[dict[str, tuple[str, Callable[[Host, Told], Awaitable[None]]]]] = {
    "writers": ("full", writers),
    "upkeep": ("drop", upkeep),
    "one process": ("full", one_process),
}
DEPLOYMENTS: Final = Collection("Deployment", unique=True)


async def _write_on(host: Host, told: Told, process: Process) -> None:
    async with host.open(process) as log, log.writer("killed") as writer:
        for n in range(1_000):
            await told.append(writer, f"killed-{n}", f"killed-{n}-too")


async def _create(log: Log, told: Told, who: str) -> None:
    """Claim keys that another claims as well: each has one winner."""
    async with DocumentStore.open(log, writer=who, collections=[DEPLOYMENTS]) as db:
        for n in range(2):
            with suppress(AlreadyExists):
                await db.collection("Deployment").create(f"d-{n}", {"who": who})
                told.claimed[f"d-{n} {who}"] = told.now


async def _print_lines(log: Log, told: Told) -> None:
    stage = StageLogs(log).stage("d-0", "build")
    for n in range(0, 4, 2):
        await stage.append([Block(index=i, text=f"line {i}", created_ms=EPOCH_MS) for i in (n, n + 1)])
        told.blocks |= {n: told.now, n + 1: told.now}
    await stage.complete()
    told.completed = told.now


async def _later(seconds: float, work: Awaitable[object]) -> None:
    await asyncio.sleep(seconds)
    await work


def _keys(view: View) -> list[str]:
    return [str(key) for key in view.find().keys]


@contextmanager
def simulated(root: Path, seed: int, *, step: bool, history: str, began_ms: int = 0) -> Iterator[Host]:
    """A host in virtual time, whose disk is under ``LocalStore`` while entered."""
    loop = (SteppingLoop if step else SimulatedLoop)(random.Random(seed), time_s_max=200_000, steps_max=2_000_000)
    disk = Disk(root, lambda: (EPOCH_MS + began_ms) * 1_000_000 + int(loop.time() * 1e9))
    with patch.object(local_module, "os", disk):
        try:
            yield Host(loop, disk, root, history, seed)
        finally:
            loop.close()
            disk.close_all()


def played(name: str, root: Path, seed: int, refuse: Refuse | None = None) -> Told:
    """Play a history below ``root``, to its end, on a disk that refuses what ``refuse`` says."""
    history, play = HISTORIES[name]
    with simulated(root, seed, step=True, history=history) as host, ExitStack() as stack:
        told = Told(host.disk)
        heard = logging.Handler(logging.WARNING)
        heard.emit = lambda record: told.logged.append(record.getMessage())  # type: ignore[method-assign]
        stack.callback(logging.getLogger("logstore").removeHandler, heard)
        logging.getLogger("logstore").addHandler(heard)
        if refuse is not None:
            host.disk.refuse = partial(refuse, host)
        host.loop.run_until_complete(play(host, told))
        told.ended_ms = int(host.loop.time() * 1000)
        told.complaints = list(host.loop.complaints)
        told.open = host.disk.handles
    return told


# What must be true of what is left ----------------------------------------------------------------


def examine(left: Left, told: Told, at: int, root: Path, history: str) -> list[str]:
    """Problems of a disk that was left after ``at`` calls: laid below ``root``, and opened as it is."""
    began_ms = told.ended_ms + 1_000
    left.lay(root, (EPOCH_MS + told.ended_ms) * 1_000_000)
    problems: list[str] = []
    with simulated(root, 0, step=False, history=history, began_ms=began_ms) as host:
        host.follow_ms = 5_000

        async def look() -> None:
            try:
                await _examine(host, told, at, problems, lambda name: host.process(name, skew_ms=began_ms))
            except LogStoreError as error:
                problems.append(f"{type(error).__name__}: {error}")

        host.loop.run_until_complete(look())
        problems += host.loop.complaints
    return problems


async def _examine(host: Host, told: Told, at: int, problems: list[str], process: Callable[[str], Process]) -> None:
    due = {id_ for id_, when in (told.stored | told.read).items() if when <= at}
    due |= {id_ for id_, when in told.stored.items() if when <= at}

    def compare(what: str, found: Sequence[str]) -> None:
        there = set(found)
        wrong = {
            "missing": due - there,
            "refused, and there": there & told.refused,
            "never sent": there - told.sent - {"after"},
            "in part": {id_ for id_ in there for other in _batch_of[id_] if other not in there},
        }
        problems.extend(f"{what}: {how} {sorted(ids)}" for how, ids in wrong.items() if ids)
        if len(found) != len(there):
            problems.append(f"{what}: twice")

    _batch_of: dict[str, list[str]] = {}

    def whole(data: Any) -> str:
        id_ = str(data["id"])
        assert data["fill"] == id_ * 20, "bytes of an event have changed"
        _batch_of[id_] = list(data["batch"])
        return id_

    async with host.open(process("after")) as log:
        problems += [str(finding) async for finding in log.check() if finding.severity == "damage"]
        await _look_at_claims_and_lines(log, told, at, problems)
        async with View.open(log, Things()) as view:
            compare("view", [whole(view.get(key)) for key in _keys(view)])
        async with log.writer("web") as writer:
            await writer.append(thing("after", ["after"]))
        await asyncio.sleep(SEAL_S)
        if any(not sealing.sealed for sealing in await log.seal()):
            problems.append("a session cannot be sealed")
        due.add("after")
        try:
            read = [event async for event in log.read(settled=True) if event.kind == "Thing"]
        except Trimmed:
            read = []
        else:
            compare("settled", [whole(event.data) for event in read])
    async with host.open(process("later")) as log, View.open(log, Things()) as view:
        rows = {key: view.get(key) for key in _keys(view)}
        compare("view, later", [whole(row) for row in rows.values()])
        if read and {event.key: dict(event.data or {}) for event in read} != {
            key: dict(row or {}) for key, row in rows.items()
        }:
            problems.append("the view is not what the events fold to")
        await view.snapshot()
        problems += [str(finding) async for finding in log.check() if finding.severity == "damage"]
        await asyncio.sleep(2 * GRACE_MS / 1000)
        await log.keeper().sweep()
    problems += [f"left in tmp: {name}" for name in os.listdir(host.root / "tmp")]


async def _look_at_claims_and_lines(log: Log, told: Told, at: int, problems: list[str]) -> None:
    claimed = {key: when <= at for key, when in told.claimed.items()}
    if claimed:
        async with DocumentStore.open(log, writer="again", collections=[DEPLOYMENTS]) as db:
            deployments = db.collection("Deployment")
            for winner, acknowledged in claimed.items():
                key, _, who = winner.partition(" ")
                if acknowledged:
                    if deployments.get(key)["who"] != who:
                        problems.append(f"claimed by {who}, and another's: {key}")
                    with suppress(AlreadyExists):
                        await deployments.create(key, {"who": "again"})
                        problems.append(f"claimed by {who}, and claimed again: {key}")
    try:
        blocks, completed = await StageLogs(log).stage("d-0", "build").fetch()
    except NotFound:
        blocks, completed = [], False
    if missing := {n for n, when in told.blocks.items() if when <= at} - {block.index for block in blocks}:
        problems.append(f"lines missing {missing}")
    if any(block.text != f"line {block.index}" for block in blocks):
        problems.append("a line has changed")
    if told.completed is not None and told.completed <= at and not completed:
        problems.append("completed, and open again")
