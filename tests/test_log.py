"""The log itself: making and opening one, what its arguments refuse, settling, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import logstore
from logstore import (
    Corrupt,
    InvalidArgument,
    LogSettings,
    NotFound,
    Receipt,
    RetrySettings,
    Unavailable,
    UnsafeStore,
    WriterSettings,
)
from logstore.filestore.memory import MemoryStore
from tests.scene import Scene, directed, event, events, hang, lose, quick, read, take

ALWAYS = 10**9


# Opening --------------------------------------------------------------------------------------


@directed
async def test_the_first_to_open_makes_the_log_and_the_others_find_it(scene: Scene) -> None:
    """Many open an empty store at once: one identity, the same for all."""

    async def identity(i: int) -> bytes:
        async with scene.machine(f"m{i}").open() as log:
            return log.identity.id

    assert len(set(await asyncio.gather(*(identity(i) for i in range(10))))) == 1


@directed
async def test_a_lost_answer_to_making_the_log_is_no_matter(scene: Scene) -> None:
    """The identity landed, the answer did not: it is read and used."""
    web = scene.machine("web")
    web.script.on("create", "store", lose, times=2)
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
    assert scene.ids() == ["a"]


@directed
async def test_grace_and_history_are_the_stores_own(scene: Scene) -> None:
    """They are set when the log is made; whoever opens it later gets those, whatever he asks for."""
    async with scene.machine("one").open(grace_ms=10**9, history="drop") as log:
        assert (log.identity.grace_ms, log.identity.history) == (10**9, "drop")
    async with scene.machine("two").open(grace_ms=10**10, history="full") as log:
        assert (log.identity.grace_ms, log.identity.history) == (10**9, "drop")


@directed
async def test_a_log_that_is_not_there_is_not_found(scene: Scene) -> None:
    """Without the right, or the will, to make one: NotFound, and nothing is created."""
    for create, read_only in ((False, False), (True, True)):
        with pytest.raises(NotFound):
            async with scene.machine("m").open(create=create, read_only=read_only):
                pass
    assert scene.store.contents() == {}


@directed
async def test_a_damaged_identity_is_corrupt(scene: Scene) -> None:
    """What the store says of itself is verified like everything else."""
    await scene.world.create("store", b"rubbish")
    with pytest.raises(Corrupt, match="store"):
        async with scene.machine("m").open():
            pass


class Overwriting(MemoryStore):
    """A store that ignores create-if-absent."""

    async def create(self, key: str, data: bytes) -> int | None:
        await self.delete(key)
        return await super().create(key, data)


async def test_a_store_that_overwrites_is_refused() -> None:
    """Such a store is found out before the log is made in it."""
    store = Overwriting()
    with pytest.raises(UnsafeStore):
        async with logstore.open(store):
            pass
    assert [listed.key async for listed in store.list("store")] == []


@directed
async def test_a_store_out_of_reach_is_unavailable_in_bounded_time(scene: Scene) -> None:
    """Opening does not hang."""
    web = scene.machine("web")
    web.script.on("get", "", hang, times=ALWAYS)
    began_s = scene.loop.time()
    with pytest.raises(Unavailable):
        async with web.open(LogSettings(retry=RetrySettings(attempt_timeout_ms=1_000, deadline_ms=3_000))):
            pass
    assert scene.loop.time() - began_s < 4


async def test_arguments_are_checked() -> None:
    """No such history or grace, a log not entered, idle times that the grace cannot bear: argument errors."""
    with pytest.raises(InvalidArgument, match="history"):
        logstore.open(MemoryStore(), history="some")
    for grace_ms in (-5, 0, 1.5e9):
        with pytest.raises(InvalidArgument, match="grace_ms"):
            logstore.open(MemoryStore(), grace_ms=grace_ms)  # type: ignore[arg-type]
    log = logstore.open(MemoryStore())
    for use in (lambda: log.writer("w"), log.read, log.follow):
        with pytest.raises(InvalidArgument, match="not open"):
            use()
    async with logstore.open(MemoryStore(), grace_ms=200_000) as log:
        with pytest.raises(InvalidArgument, match="grace"):
            log.writer("w")
        log.writer("w", WriterSettings(idle_ms=1_000, idle_ms_max=1_000))


async def test_what_was_stored_in_files_is_there_for_the_next_process(tmp_path: Path) -> None:
    """On the default store a log outlives those who wrote it."""
    url = f"file://{tmp_path}/log"
    async with logstore.open(url) as log, log.writer("web-1") as writer:
        await asyncio.gather(*(writer.append(event(f"e{i}")) for i in range(20)))
        await writer.append_many(events("x", "y"))
    async with logstore.open(url, read_only=True) as log:
        assert await read(log) == [*(f"e{i}" for i in range(20)), "x", "y"]
        assert await read(log, settled=True) == await read(log)


# Settling -------------------------------------------------------------------------------------


@directed
async def test_a_settled_receipt_has_its_place_for_ever(scene: Scene) -> None:
    """Once ``settled`` has returned, anybody's settled reading holds the events, and what it begins with stays."""
    async with (
        scene.machine("web").open(quick()) as log,
        log.writer("web") as writer,
        scene.machine("other").open(quick()) as other_log,
        other_log.writer("other") as other,
    ):
        for i in range(5):
            await other.append(event(f"o{i}"))
            receipt = await writer.append(event(f"w{i}"))
            await log.settled(receipt, timeout=60)
            assert log.watermark >= receipt.stamp
            settled = await read(other_log, settled=True)
            assert f"w{i}" in settled
            await other.append(event(f"later{i}"))
            assert (await read(other_log, settled=True))[: len(settled)] == settled


@directed
async def test_settling_ticks_once_and_not_again(scene: Scene) -> None:
    """A hundred callers that wait for one receipt post one tick, and none if an entry lies above it."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        receipt = await writer.append(event("a"))
        await asyncio.gather(*(log.settled(receipt, timeout=60) for _ in range(100)))
        await log.settled(receipt, timeout=60)
        assert scene.bodies().count("Tick") == 1


@directed
async def test_settling_somebody_elses_receipt(scene: Scene) -> None:
    """A receipt travels as text; any process may wait for it, a read-only one if others move the watermark."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        text = str(await writer.append(event("a")))
    async with scene.machine("other").open(quick(), read_only=True) as other:
        await other.settled(Receipt.parse(text), timeout=60)
        assert await read(other, settled=True) == ["a"]


@directed
async def test_waiting_to_be_settled_can_time_out(scene: Scene) -> None:
    """While somebody holds the watermark ``settled`` waits, until its timeout, and can be asked again."""
    async with scene.machine("holder").open() as one, scene.machine("web").open() as two:
        await one.writer("holder").append(event("h"))
        receipt = await two.writer("web").append(event("a"))
        with pytest.raises(TimeoutError):
            await two.settled(receipt, timeout=5)
        await two.settled(receipt, timeout=120)


# Ending ---------------------------------------------------------------------------------------


@directed
async def test_leaving_a_log_leaves_nothing_behind(scene: Scene) -> None:
    """No task goes on, no request is made: writers have flushed, followers have ended."""
    web = scene.machine("web")
    async with web.open(quick()) as log:
        writer = log.writer("web")
        await writer.append(event("a"))
        following = asyncio.create_task(take(log.follow(settled=True), 9))
        await asyncio.sleep(1)
    asked = len(web.script.asked)
    await asyncio.gather(following, return_exceptions=True)
    await asyncio.sleep(3_600)
    assert len(web.script.asked) == asked
    assert scene.loop.waiting().count("\n") == 0


@directed
async def test_leaving_by_an_error_flushes_too(scene: Scene) -> None:
    """An exception in the body does not lose what was appended before it."""

    async def work() -> None:
        async with scene.machine("web").open() as log, log.writer("web") as writer:
            call = asyncio.create_task(writer.append(event("a")))
            await asyncio.sleep(0)
            assert not call.done()
            raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="own"):
        await work()
    assert scene.ids() == ["a"]


@directed
async def test_leaving_while_the_store_is_away_ends(scene: Scene) -> None:
    """Everything that ends a log is bounded in time, with no store to answer."""
    web = scene.machine("web")
    async with web.open(quick()) as log:
        writers = [log.writer(f"w{i}") for i in range(5)]
        for writer in writers:
            await writer.append(event(writer.name))
        web.script.on("create", "", hang, times=ALWAYS)
        web.script.on("get", "", hang, times=ALWAYS)
        began_s = scene.loop.time()
    assert scene.loop.time() - began_s < 60


@directed
async def test_repr_tells_what_a_log_is_doing(scene: Scene) -> None:
    """Store, requests, writers and follower are in it, and the address holds no secret."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        assert "writers=1" in repr(log)
        assert "follower=None" in repr(log)
        following = asyncio.create_task(take(log.follow(), 9))
        await asyncio.sleep(1)
        assert "rounds=" in repr(log)
        following.cancel()
