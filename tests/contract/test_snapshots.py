"""Snapshots and copies over every kind of store: written, started from, copied, and found sound."""

from __future__ import annotations

import random

import logstore
from logstore import Event, copy_store
from logstore.check import check
from logstore.filestore import FileStore, MemoryStore
from projections import Projection, View, diff
from tests.contract.test_log import QUICK, Shared


class Things(Projection):
    name, kinds, fold = "things", frozenset({"Thing"}), "put"


async def test_a_view_starts_from_a_snapshot_and_the_store_is_copied(store: FileStore) -> None:
    """Two snapshots, the second with what changed; a reader starts there, looks back, and finds the same in a copy."""
    shared, memory = Shared(store), MemoryStore()
    async with (
        logstore.open(shared, settings=QUICK) as log,
        log.writer("web") as writer,
        View.open(log, Things()) as view,
    ):
        await writer.append_many([Event("Thing", f"t-{number}", "made", {"n": number}) for number in range(50)])
        first = await view.snapshot()
        gone = Event("Thing", "t-7", "gone", None)
        await writer.append_many([Event("Thing", "t-3", "changed", {"n": -3}), gone])
        second = await view.snapshot()
        digest = view.digest()
    async with logstore.open(shared, read_only=True) as log, View.open(log, Things()) as view:
        assert (view.damage, len(view), view.digest(pending=True)) == ([], 49, digest)
        assert log.requests().get.requests < 40
        async with View.open(log, Things(), at=first.stamp) as past:
            assert len(past) == 50
        assert [change.key for change in await diff(log, Things(), first.stamp, second.stamp)] == ["t-3", "t-7"]
    await copy_store(shared, memory, rng=random.Random(0))
    assert [finding async for finding in check(shared)] == [finding async for finding in check(memory)] == []
    async with logstore.open(memory, read_only=True) as log, View.open(log, Things()) as view:
        assert (view.damage, view.digest(pending=True)) == ([], digest)
