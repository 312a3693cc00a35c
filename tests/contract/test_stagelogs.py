"""Stage logs over every kind of store: what several processes append is read once, from anywhere, while it grows."""

from __future__ import annotations

import asyncio
import random

import pytest

import logstore
from logstore import Block, Conflict, Stage, StageLogs, Unavailable
from logstore.check import check
from logstore.filestore import FileStore, MemoryStore
from logstore.testing.faults import Fault, FaultyStore
from tests.contract.test_log import IMPATIENT, QUICK, Shared

BLOCKS = 40


def blocks(*indices: int) -> list[Block]:
    return [Block(index, f"line {index} é\x00", index % 4, 1_700_000_000_000 + index) for index in indices]


async def test_what_several_append_is_read_once(store: FileStore) -> None:
    """Two processes send overlapping blocks at once, a third follows: everybody ends up with each block once."""
    shared = Shared(store)
    async with (
        logstore.open(shared, settings=QUICK) as one,
        logstore.open(shared, settings=QUICK) as other,
        logstore.open(shared, settings=QUICK) as third,
    ):
        stages = [StageLogs(log).stage("d/1", "ap ply", 2) for log in (one, other)]
        before = one.requests(), other.requests()

        async def follow() -> list[int]:
            return [block.index async for block in StageLogs(third).stage("d/1", "ap ply", 2).follow()]

        async def send(stage: Stage, seed: int) -> None:
            rng = random.Random(seed)
            for first in range(0, BLOCKS, 4):
                await stage.append(blocks(*rng.sample(range(first, first + 6), 4), *range(first, first + 4)))

        following = asyncio.create_task(follow())
        await asyncio.gather(*(send(stage, seed) for seed, stage in enumerate(stages)))
        await stages[0].complete()
        with pytest.raises(Conflict):
            await stages[1].append(blocks(1_000))
        found, completed = await StageLogs(third).stage("d/1", "ap ply", 2).fetch()
        assert completed
        assert [block.index for block in found] == sorted({block.index for block in found})
        assert found == blocks(*[block.index for block in found])
        assert set(range(BLOCKS)) <= {block.index for block in found}
        assert sorted(await following) == [block.index for block in found]
        assert await stages[1].fetch(BLOCKS - 3) == (found[BLOCKS - 3 :], True)
        assert [str(stage) for stage in await StageLogs(third).stages("d/1")] == ["d/1/ap ply/2"]
        assert sum((log.requests() - at).list.requests for log, at in zip((one, other), before, strict=True)) == 0
    assert [finding async for finding in check(shared)] == []
    target = MemoryStore()
    await logstore.copy_store(shared, target, rng=random.Random(0))
    async with logstore.open(target) as log:
        assert (await StageLogs(log).stage("d/1", "ap ply", 2).fetch())[0] == found


async def test_an_end_far_away_is_read_by_ranges(store: FileStore) -> None:
    """From a high offset heads are fetched, 176 bytes each, and the pages that hold what was asked for."""
    shared = Shared(store)
    async with logstore.open(shared, settings=QUICK) as log:
        stage = StageLogs(log).stage("d", "s")
        for number in range(20):
            await stage.append([Block(number, random.Random(number).randbytes(5_000).hex())])
    async with logstore.open(shared, settings=QUICK) as log:
        before = log.requests()
        found, completed = await StageLogs(log).stage("d", "s").fetch(18)
        assert ([block.index for block in found], completed) == ([18, 19], False)
        assert (log.requests() - before).bytes_out < 2 * 6_000 + 12 * 176


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.LAND_LATE, Fault.REFUSE])
async def test_an_ambiguous_creation_is_no_second_block(store: FileStore, fault: Fault) -> None:
    """Whatever becomes of a creation, appending again until it returns stores each block once."""
    async with logstore.open(Shared(store), settings=QUICK):
        pass
    faulty = FaultyStore(Shared(store), rng=random.Random(7), chances={("create", fault): 0.5})
    async with logstore.open(faulty, settings=IMPATIENT) as log:
        stage = StageLogs(log).stage("d", "s")
        for number in range(20):
            for _ in range(100):
                try:
                    await stage.append(blocks(number, number + 1))
                except Unavailable:
                    continue
                break
        await faulty.land()
    assert faulty.faults[fault] > 0
    async with logstore.open(Shared(store), settings=QUICK) as log:
        assert await StageLogs(log).stage("d", "s").fetch() == (blocks(*range(21)), False)
        assert [finding async for finding in log.check()] == []
