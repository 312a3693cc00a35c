"""The store loses a slot: whoever reads is told, unless nothing that is left says that it was there."""

from __future__ import annotations

import pytest

import logstore
from logstore import Event
from logstore.errors import Missing
from logstore.filestore import MemoryStore
from logstore.keys import segment_key
from logstore.testing import ManualClock

SLOTS = 9


async def filled(store: MemoryStore, clock: ManualClock) -> None:
    """One session of ``SLOTS`` segments of an event each, and its final."""
    async with logstore.open(store, clock=clock) as log, log.writer("w") as writer:
        for number in range(SLOTS):
            await writer.append(Event("K", "k", "t", {"n": number}))


@pytest.mark.parametrize("passed_ms", [0, 1_000], ids=["written this moment", "written before"])
@pytest.mark.parametrize("slot", range(SLOTS))
async def test_a_lost_slot_is_missing_not_the_end(slot: int, passed_ms: int) -> None:
    """Regression: a reader took a lost slot for its session's end, also where it measured one being written."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await filled(store, clock)
    name = segment_key("w", 0, 1, slot)
    await store.delete(name)
    clock.advance(passed_ms)
    async with logstore.open(store, clock=clock) as log:
        with pytest.raises(Missing, match=name):
            [event async for event in log.read()]


async def test_readers_that_skip_damage_go_on_beside_a_lost_slot() -> None:
    """What lies before the gap is read, what lies behind is left, the loss is told, other sessions are whole."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    await filled(store, clock)
    await store.delete(segment_key("w", 0, 1, 4))
    async with logstore.open(store, clock=clock) as log, log.writer("other") as writer:
        await writer.append(Event("K", "k", "t", {"n": 99}))
        reader = log.read(on_damage="skip")
        assert [event.data["n"] async for event in reader if event.data] == [0, 1, 2, 3, 99]
        assert [type(damage) for damage in reader.damage] == [Missing]
