"""A store that misbehaves on purpose: what networks and services do, by plan or by seeded chance.

    plan = {"create": [None, Fault.LOSE_ANSWER]}        the second create lands, and its caller is told Unavailable
    chances = {("get", Fault.REFUSE): 0.1}              one get in ten is refused

    store = FaultyStore(MemoryStore(), plan=plan, chances=chances, rng=random.Random(7))

A plan is used up first, verb by verb; then chance decides. Two runs with equal seeds and equal
calls in equal order meet equal faults.

Invariants:
- Every fault is one that a promise of ``FileStore`` allows: what lands is whole, and a name has one winner.
- A call without a fault reaches the store within unchanged.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Never, TypeVar

from logstore.errors import LogStoreError, Unavailable
from logstore.filestore.base import Blob, FileStore, Listed

__all__ = ["Fault", "FaultyStore"]

T = TypeVar("T")


class Fault(Enum):
    """What can go wrong with one call; all but the hanging ones raise Unavailable."""

    REFUSE = "the request was refused, or lost on its way: nothing happened (also S3's 409)"
    LOSE_ANSWER = "the request was carried out, but its answer was lost or cut short"
    LAND_LATE = "a create or delete is carried out at some later moment, behind its caller's back (others: REFUSE)"
    HANG = "nothing happens, and no answer ever comes"
    HANG_AFTER = "the request was carried out, and no answer ever comes"


class FaultyStore:
    """A FileStore around ``store``; what goes wrong is drawn for each call.

    ``plan`` holds, for each verb, what happens to its next calls (None: nothing), ``chances`` the
    probabilities that count when it is used up.
    Creations and deletions that land late wait until ``land()``, or until chance lets them land
    before some later call (each before the next with probability ``landing_chance``). ``faults``
    counts what happened.
    """

    def __init__(
        self,
        store: FileStore,
        *,
        rng: random.Random | None = None,
        plan: Mapping[str, Iterable[Fault | None]] | None = None,
        chances: Mapping[tuple[str, Fault], float] | None = None,
        landing_chance: float = 0.25,
    ) -> None:
        self._store = store
        self.remote = store.remote
        self._rng = rng or random.Random(0)
        self._plan = {verb: deque(faults) for verb, faults in (plan or {}).items()}
        self._chances = dict(chances or {})
        self._landing_chance = landing_chance
        self._late: list[Callable[[], Awaitable[object]]] = []
        self.faults: dict[Fault, int] = dict.fromkeys(Fault, 0)

    def __repr__(self) -> str:
        return f"<FaultyStore faults={sum(self.faults.values())} late={len(self._late)} {self._store!r}>"

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore."""
        return await self._call("create", key, lambda: self._store.create(key, data))

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore."""
        return await self._call("get", key, lambda: self._store.get(key, start, stop))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore. Each listing draws one fault; a lost answer is one that breaks off behind its first key."""
        fault = self._draw("list")
        if fault not in (None, Fault.LOSE_ANSWER, Fault.HANG_AFTER):
            await self._fail(fault, "list", prefix)
        async for listed in self._store.list(prefix, after):
            yield listed
            if fault is not None:
                await self._fail(fault, "list", prefix)

    async def delete(self, key: str) -> None:
        """See FileStore."""
        await self._call("delete", key, lambda: self._store.delete(key))

    async def aclose(self) -> None:
        """Close the store within; what has not landed never will."""
        self._late.clear()
        await self._store.aclose()

    async def land(self) -> int:
        """Let everything land that is still under way, in a random order; return how many did."""
        late, self._late = self._late, []
        self._rng.shuffle(late)
        for carry_out in late:
            await _land(carry_out)
        return len(late)

    async def _call(self, verb: str, key: str, carry_out: Callable[[], Awaitable[T]]) -> T:
        await self._land_some()
        match fault := self._draw(verb):
            case None:
                return await carry_out()
            case Fault.LOSE_ANSWER | Fault.HANG_AFTER:
                await carry_out()  # an AlreadyExists or NotFound is an answer that did arrive
            case Fault.LAND_LATE if verb in ("create", "delete"):
                self._late.append(carry_out)
            case _:
                pass
        return await self._fail(fault, verb, key)

    def _draw(self, verb: str) -> Fault | None:
        """Decide what happens to the next call of ``verb``."""
        if planned := self._plan.get(verb):
            fault = planned.popleft()
        else:
            drawn = (f for (v, f), chance in self._chances.items() if v == verb and self._rng.random() < chance)
            fault = next(drawn, None)
        if fault is not None:
            self.faults[fault] += 1
        return fault

    async def _fail(self, fault: Fault, verb: str, key: str) -> Never:
        if fault in (Fault.HANG, Fault.HANG_AFTER):
            await asyncio.get_running_loop().create_future()  # until the caller is cancelled
        raise Unavailable(f"made to fail verb={verb} key={key} fault={fault.name}")

    async def _land_some(self) -> None:
        landing = [c for c in self._late if self._rng.random() < self._landing_chance]
        self._late = [c for c in self._late if c not in landing]
        for carry_out in landing:
            await _land(carry_out)


async def _land(carry_out: Callable[[], Awaitable[object]]) -> None:
    """Carry out what nobody waits for any more: a name taken meanwhile stays its winner's."""
    with suppress(LogStoreError):
        await carry_out()
