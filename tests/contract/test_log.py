"""The log over every kind of store: what is acknowledged is read by others, once, in one order, without a LIST."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

import logstore
from logstore import (
    Event,
    FollowSettings,
    Log,
    LogSettings,
    NotStored,
    Receipt,
    RetrySettings,
    Writer,
    WriterSettings,
)
from logstore.errors import Unavailable, Unknown
from logstore.filestore import FileStore
from logstore.testing.faults import Fault, FaultyStore

QUICK = LogSettings(
    writer=WriterSettings(idle_ms=200, linger_ms=2),
    follow=FollowSettings(poll_ms_min=5, poll_ms_max=20),
)
IMPATIENT = replace(QUICK, retry=RetrySettings(attempts_max=2, pause_first_ms=1, pause_max_ms=1, deadline_ms=5_000))
WRITERS, CALLERS, EVENTS = 3, 8, 25
SETTLED_WITHIN_S = 60


class Shared:
    """A store that a second log may use after the first has closed."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.remote = store.remote
        self.create, self.get, self.list, self.delete = store.create, store.get, store.list, store.delete

    async def aclose(self) -> None:
        """It is closed by who opened it."""


async def append_all(log: Log, name: str) -> list[tuple[str, Receipt]]:
    """Append from several callers at once, each one event after the other; what was acknowledged."""
    async with log.writer(name) as writer:

        async def call(caller: int) -> list[tuple[str, Receipt]]:
            keys = [f"{name}-{caller}-{number}" for number in range(EVENTS)]
            return [(key, await writer.append(Event("Thing", key, "made", {"caller": caller}))) for key in keys]

        called = await asyncio.gather(*map(call, range(CALLERS)))
    return [one for calls in called for one in calls]


async def test_many_writers_one_order(store: FileStore) -> None:
    """What three logs acknowledged a fourth reads once, in each caller's order; two settled readers agree."""
    logs = [logstore.open(Shared(store), settings=QUICK) for _ in range(WRITERS)]
    for log in logs:
        await log.__aenter__()
    try:
        acknowledged = await asyncio.gather(*(append_all(log, f"w{n}") for n, log in enumerate(logs)))
        requests = [log.requests() for log in logs]
    finally:
        for log in logs:
            await log.__aexit__(None, None, None)
    receipts = dict(one for of_log in acknowledged for one in of_log)
    async with logstore.open(Shared(store), settings=QUICK) as log:
        await log.settled(max(receipts.values(), key=lambda receipt: receipt.stamp), timeout=SETTLED_WITHIN_S)
        orders = [[event.key async for event in log.read(settled=True)] for _ in range(2)]
        assert log.requests().list.requests == 0
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(receipts)
    for writer in range(WRITERS):
        for caller in range(CALLERS):
            mine = [key for key in orders[0] if key.startswith(f"w{writer}-{caller}-")]
            assert mine == [f"w{writer}-{caller}-{number}" for number in range(EVENTS)]
    assert sum(request.list.requests for request in requests) == 0


async def test_a_reader_follows_another_process(store: FileStore) -> None:
    """What one log appends another's follower yields, and a saved position goes on exactly behind it."""
    async with (
        logstore.open(Shared(store), settings=QUICK) as one,
        logstore.open(Shared(store), settings=QUICK) as other,
        one.writer("w") as writer,
    ):
        await writer.append(Event("Thing", "a", "made"))
        reader = other.follow()
        events = aiter(reader)
        assert (await anext(events)).key == "a"
        position = str(reader.position)
        await writer.append_many([Event("Thing", key, "made") for key in "bcd"])
        assert [(await anext(events)).key for _ in range(3)] == list("bcd")
    async with logstore.open(Shared(store), settings=QUICK) as third:
        assert [event.key async for event in third.read(after=position)] == list("bcd")


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LAND_LATE, Fault.REFUSE])
async def test_an_ambiguous_creation_leaves_one_copy_or_none(store: FileStore, fault: Fault) -> None:
    """Whatever becomes of a request, what is returned is there once, and what is refused is not there."""
    async with logstore.open(Shared(store), settings=QUICK) as log:
        await log.close_chapter()
    faulty = FaultyStore(Shared(store), rng=random.Random(7), chances={("create", fault): 0.4})
    told: dict[str, bool] = {}
    async with logstore.open(faulty, settings=IMPATIENT) as log, log.writer("w") as writer:
        for number in range(20):
            told[f"k{number}"] = await is_stored(log, writer, f"k{number}")
        await faulty.land()
    assert faulty.faults[fault] > 0
    async with logstore.open(Shared(store), settings=QUICK) as log:
        read = [event.key async for event in log.read()]
        assert [finding async for finding in log.check() if finding.severity == "damage"] == []
    assert sorted(read) == sorted(key for key, stored in told.items() if stored)


async def is_stored(log: Log, writer: Writer, key: str) -> bool:
    """Append once; where it could not be found out whether it is stored, ask until the store can say."""
    try:
        await writer.append(Event("Thing", key, "made"))
    except NotStored:
        return False
    except Unknown as unknown:
        for _ in range(100):
            try:
                await log.resolve(unknown)
            except NotStored:
                return False
            except Unavailable:
                continue
            return True
        raise
    return True
