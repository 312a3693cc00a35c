"""The probe: it passes good stores, finds each planted fault, and cleans up after itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from logstore.errors import NotFound, Unavailable, UnsafeStore
from logstore.filestore import (
    Blob,
    FileStore,
    Listed,
    LocalStore,
    MemoryStore,
    MeteredStore,
    RetryingStore,
    RetrySettings,
    probe,
    require_safe,
)
from logstore.filestore.base import check_key
from logstore.testing.clock import ManualClock
from logstore.testing.faults import Fault, FaultyStore


class OverwritingStore(MemoryStore):
    """Ignores the condition, like services that do not know it."""

    async def create(self, key: str, data: bytes) -> int | None:
        await self.delete(key)
        return await super().create(key, data)


class RacyStore(OverwritingStore):
    """Looks, then writes: refuses a second creation, unless it comes at the same moment."""

    async def create(self, key: str, data: bytes) -> int | None:
        if key in self._objects:
            return await MemoryStore.create(self, key, data)
        await asyncio.sleep(0)
        return await super().create(key, data)


class RefusingOverwritingStore(MemoryStore):
    """Says AlreadyExists, and stores the new bytes all the same."""

    async def create(self, key: str, data: bytes) -> int | None:
        try:
            return await super().create(key, data)
        finally:
            self._objects[key] = (data, 0)


class OnePageStore(MemoryStore):
    """Lists a thousand keys and keeps the others to itself."""

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        count = 0
        async for listed in super().list(prefix, after):
            count += 1
            if count <= 1_000:
                yield listed


class DirectoryOrderStore(MemoryStore):
    """Sorts as a tree walk does, where a directory comes before the names that its own name begins."""

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        for listed in sorted([x async for x in super().list(prefix, after)], key=lambda x: x.key.split("/")):
            yield listed


class LookUpStore(MemoryStore):
    """Takes a position for a look-up: one that does not exist begins from the start."""

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        async for listed in super().list(prefix, after if after in self._objects else ""):
            yield listed


class InclusiveStore(MemoryStore):
    """Begins a listing at the position instead of behind it."""

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        async for listed in super().list(prefix, after[:-1] + chr(ord(after[-1]) - 1) + "~" if after else ""):
            yield listed


class WholeStore(MemoryStore):
    """Ignores ranges."""

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        return await super().get(key)


class StrictDeletionStore(MemoryStore):
    """Refuses to delete what is absent."""

    async def delete(self, key: str) -> None:
        check_key(key)
        if key not in self._objects:
            raise NotFound(f"no such object key={key}")
        await super().delete(key)


class CachedAbsenceStore(MemoryStore):
    """Goes on saying that an object is absent for which it was asked before there was one."""

    def __init__(self) -> None:
        super().__init__()
        self._told_absent: set[str] = set()

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        try:
            blob = await super().get(key, start, stop)
        except NotFound:
            self._told_absent.add(key)
            raise
        if key in self._told_absent:
            raise NotFound(f"cached key={key}")
        return blob


class KeepingStore(MemoryStore):
    """Says that it deleted."""

    async def delete(self, key: str) -> None:
        check_key(key)


def kept(store: MemoryStore) -> list[str]:
    return list(store._keys)


@pytest.mark.parametrize("kind", ["memory", "local", "retrying"])
async def test_a_good_store_passes(tmp_path: Path, kind: str) -> None:
    """Every finding is good, nothing is left behind, and what was there stays."""
    stores: dict[str, FileStore] = {
        "memory": MemoryStore(),
        "local": LocalStore(tmp_path),
        "retrying": RetryingStore(MeteredStore(MemoryStore())),
    }
    store = stores[kind]
    await store.create("log/1", b"x")
    await store.create("probe/other/race/0", b"x")
    findings = await probe(store, nonce="n1", keys=300 if kind == "local" else 1_005)
    assert [str(finding) for finding in findings if not finding.ok] == []
    assert [finding.check for finding in findings] == [
        "one winner",
        "no overwriting",
        "visibility",
        "ranges",
        "deletion",
        "listing",
        "clock",
    ]
    await require_safe(store, "n2")
    assert [listed.key async for listed in store.list("")] == ["log/1", "probe/other/race/0"]
    await store.aclose()


@pytest.mark.parametrize(
    ("store", "broken"),
    [
        (OverwritingStore(), {"one winner", "no overwriting"}),
        (RacyStore(), {"one winner"}),
        (RefusingOverwritingStore(), {"one winner", "no overwriting"}),
        (OnePageStore(), {"listing"}),
        (DirectoryOrderStore(), {"listing"}),
        (LookUpStore(), {"listing"}),
        (InclusiveStore(), {"listing"}),
        (CachedAbsenceStore(), {"visibility"}),
        (WholeStore(), {"ranges"}),
        (StrictDeletionStore(), {"deletion"}),
        (KeepingStore(), {"deletion"}),
        (MemoryStore(clock=ManualClock(wall_ms=1_000)), {"clock"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MemoryStore) else "",
)
async def test_each_broken_promise_is_found(store: MemoryStore, broken: set[str]) -> None:
    """A planted fault shows in its own finding and in no other."""
    findings = await probe(store, nonce="n")
    assert {finding.check for finding in findings if not finding.ok} == broken
    assert all(str(finding).startswith("BROKEN" if finding.check in broken else "ok") for finding in findings)
    if not isinstance(store, KeepingStore):
        assert kept(store) == []


@pytest.mark.parametrize("store", [OverwritingStore(), RacyStore(), RefusingOverwritingStore()])
async def test_a_store_that_overwrites_is_refused(store: MemoryStore) -> None:
    """Where a second creation gets through, a log is not created: UnsafeStore, and no trace of the look."""
    with pytest.raises(UnsafeStore, match=r"create-if-absent does not hold.*probe/n/race"):
        await require_safe(store, "n")
    assert kept(store) == []


class CollectedStore(MemoryStore):
    """Somebody removes an object once: at the second look at it, before the next creation."""

    gets = 0

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        blob = await super().get(key, start, stop)
        self.gets += 1
        if self.gets == 2:
            await self.delete(key)
        return blob


async def test_an_object_collected_while_the_process_slept_is_no_broken_promise() -> None:
    """A second creation was accepted, for the first was gone: seen once it is Unavailable, not UnsafeStore."""
    store = CollectedStore()
    with pytest.raises(Unavailable, match=r"did not hold once.*a second creation.*try again"):
        await require_safe(store, "n")
    await require_safe(store, "n2")
    assert kept(store) == []


async def test_the_first_look_costs_few_requests() -> None:
    """``require_safe`` is five creations, three GETs and one DELETE."""
    store = MeteredStore(MemoryStore())
    await require_safe(store, "n")
    statistics = store.statistics()
    assert (statistics.create.requests, statistics.get.requests, statistics.delete.requests) == (5, 3, 1)
    assert statistics.list.requests == 0


async def test_a_lost_answer_in_a_race_is_no_fault() -> None:
    """Over RetryingStore the winner itself may be told AlreadyExists; only two winners are a fault."""

    async def no_pause(_seconds: float) -> None:
        return

    faulty = FaultyStore(MemoryStore(), plan={"create": [Fault.LOSE_ANSWER, None, Fault.REFUSE]})
    store = RetryingStore(faulty, RetrySettings(), sleep=no_pause)
    await require_safe(store, "n1")
    faulty = FaultyStore(MemoryStore(), plan={"create": [Fault.LOSE_ANSWER] * 3})
    findings = await probe(RetryingStore(faulty, sleep=no_pause), nonce="n2", keys=20)
    assert all(finding.ok for finding in findings)


async def test_a_store_out_of_reach_is_no_finding() -> None:
    """Trouble in reaching the store is Unavailable, and what was written before it is removed."""
    memory = MemoryStore()
    store = FaultyStore(memory, plan={"get": [None] * 6 + [Fault.REFUSE]})
    with pytest.raises(Unavailable):
        await probe(store, nonce="n", keys=20)
    assert kept(memory) == []
