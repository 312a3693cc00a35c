"""Locks on documents: had by one at a time, in the order of asking; nobody waits too long, nor in too long a queue."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque

import pytest

from logstore.errors import Conflict
from logstore.testing.simulation import SimulatedLoop
from projections.locks import Locks
from tests.scene import Scene, directed


@directed
async def test_first_come_first_served(scene: Scene) -> None:
    """Whoever asked first has it first."""
    locks, order = Locks(), list[int]()

    async def use(number: int) -> None:
        await locks.take("d")
        order.append(number)
        await asyncio.sleep(0.01)
        locks._check()
        locks.release("d")

    await asyncio.gather(*map(use, range(20)))
    assert order == list(range(20))
    assert repr(locks) == "<Locks had=0 waiting=0>"


@directed
async def test_too_many_wait_and_too_long(scene: Scene) -> None:
    """Beyond a hundred the next is refused at once; after five seconds whoever waits still."""
    locks = Locks()
    await locks.take("d")
    waiting = [asyncio.create_task(locks.take("d")) for _ in range(100)]
    await asyncio.sleep(0)
    loop = scene.loop
    began_s = loop.time()
    with pytest.raises(Conflict, match="too many"):
        await locks.take("d")
    assert loop.time() - began_s < 0.1
    await locks.take("e")
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(end) for end in ends} == {Conflict}
    assert 5 <= loop.time() - began_s < 5.1
    locks.release("d")
    await locks.take("d")
    assert repr(locks) == "<Locks had=2 waiting=0>"


@pytest.mark.parametrize("released", ["before", "after"])
@directed
async def test_whoever_gives_up_as_the_lock_comes_leaves_it_to_the_next(scene: Scene, released: str) -> None:
    """Cancelled and let in at one moment, in either order: it is told so, and the next one has the lock."""
    locks = Locks()
    await locks.take("d")
    leaving, next_one = asyncio.create_task(locks.take("d")), asyncio.create_task(locks.take("d"))
    await asyncio.sleep(0.01)
    if released == "before":
        locks.release("d")
    leaving.cancel()
    if released == "after":
        locks.release("d")
    [end] = await asyncio.gather(leaving, return_exceptions=True)
    assert isinstance(end, asyncio.CancelledError), end
    await next_one
    locks._check()
    locks.release("d")
    assert repr(locks) == "<Locks had=0 waiting=0>"


@pytest.mark.parametrize("seed", range(20))
def test_locks_against_a_model(seed: int) -> None:
    """Whatever comes, goes, or gives up: at most one has a lock, the queue keeps its order, nothing is left over."""
    loop = SimulatedLoop(random.Random(seed), time_s_max=10_000, steps_max=1_000_000)
    try:
        loop.run_until_complete(_live(random.Random(f"{seed} live")))
    finally:
        loop.close()
    assert loop.complaints == []


async def _live(rng: random.Random) -> None:
    locks = Locks(waiting_max=4, wait_s=0.05)
    asked: dict[str, deque[int]] = defaultdict(deque)  # who waits, or has it, in the order of asking
    had: dict[str, int] = {}
    ends: defaultdict[str, int] = defaultdict(int)

    async def use(number: int) -> None:
        name = rng.choice("ab")
        await asyncio.sleep(rng.randrange(200) / 1_000)
        queue = asked[name]
        full = len(queue) > 4
        queue.append(number)
        try:
            async with asyncio.timeout(rng.choice([None, 0.01, 0.05])):
                await locks.take(name)
        except (Conflict, TimeoutError) as error:
            queue.remove(number)
            ends[type(error).__name__] += 1
            return
        assert not full
        assert name not in had
        assert queue[0] == number, "first come, first served"
        had[name] = number
        await asyncio.sleep(rng.choice([0, 0.01, 0.03]))
        assert had.pop(name) == number
        queue.popleft()
        locks.release(name)
        ends["had"] += 1

    async def check() -> None:
        while True:
            locks._check()
            await asyncio.sleep(0.001)

    checking = asyncio.create_task(check())
    await asyncio.gather(*map(use, range(60)))
    checking.cancel()
    assert len(ends) == 3, "all of it happened"
    assert repr(locks) == "<Locks had=0 waiting=0>"
