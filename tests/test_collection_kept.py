"""Collections over time: snapshots with tombstones in them, views of the past, keepers, checks, copies, rescues."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

import logstore
from logstore import Finding, KeepSettings, copy_store
from logstore.check import check
from logstore.errors import AlreadyExists, Conflict, Corrupt, NotFound
from logstore.filestore import MemoryStore
from logstore.keys import ClaimKey, claim_key
from projections import Collection, Documents, DocumentStore, Index, View, diff
from projections import keep as keep_on
from projections.document import CollectionFold
from projections.tombstone import Tombstone, is_tombstone
from tests.scene import Machine, Scene, directed, quick
from tests.test_keeper import GRACE_MS, GRACE_S, age, keep, of_chapter

SEAT = Collection("Seat", unique=True, indexes=[Index("n")])


class SeatAgain(CollectionFold):
    """The same by another name: no snapshot of one is one of the other."""

    def __init__(self) -> None:
        super().__init__(SEAT)
        self.tag = "again"


@asynccontextmanager
async def serving(machine: Machine, history: str = "full") -> AsyncIterator[Documents[Any]]:
    async with (
        machine.open(quick(), grace_ms=GRACE_MS, history=history) as log,
        DocumentStore.open(log, writer=machine.name, collections=[SEAT]) as db,
    ):
        yield db.collection("Seat")


async def turn(seats: Documents[Any], rng: random.Random) -> None:
    """Somebody does something to a seat."""
    key = rng.choice("abcdef")
    with suppress(AlreadyExists, NotFound, Conflict):
        match rng.choice(["create", "create", "update", "delete", "delete"]):
            case "create":
                await seats.create(key, {"n": rng.randrange(9)})
            case "update":
                await seats.update(key, {"n": rng.randrange(9)})
            case _:
                await seats.delete(key)


async def compare(scene: Scene, at: list[int]) -> int:
    """P10: from the newest snapshot, from the beginning, and at each moment: equal. Returns how many graves."""
    machine = scene.machine(f"reader at {scene.loop.time()}")
    async with (
        machine.open(quick(), read_only=True) as log,
        View.open(log, SEAT.fold()) as restarted,
        View.open(log, SeatAgain()) as folded,
    ):
        assert restarted.damage == []
        for pending in (False, True):
            assert restarted.digest(pending=pending) == folded.digest(pending=pending)
        assert restarted.find() == folded.find()
        for stamp in at:
            async with View.open(log, SEAT.fold(), at=stamp) as one, View.open(log, SeatAgain(), at=stamp) as other:
                assert one.digest() == other.digest()
                assert one.find() == other.find()
        return sum(map(is_tombstone, dict(folded._state.base_rows().items()).values()))


@pytest.mark.parametrize("seed", range(4))
def test_p10_a_collections_snapshot_and_the_rest_is_the_whole(seed: int) -> None:
    """With tombstones in rows, in snapshots and in what follows; by two processes; at every moment of the past."""
    rng, graves = random.Random(seed), 0

    @directed
    async def play(scene: Scene) -> None:
        nonlocal graves
        stamps: list[int] = []
        one, other = scene.machine("one", skew_ms=-1_500), scene.machine("other", skew_ms=1_500)
        async with serving(one) as ones, serving(other) as others:
            for _ in range(5):
                for _ in range(6):
                    await turn(rng.choice([ones, others]), rng)
                manifest = await rng.choice([ones, others]).view.snapshot()
                stamps.append(manifest.stamp)
                graves += await compare(scene, stamps)
                await asyncio.sleep(rng.choice([0, 3, GRACE_S / 2 + 1]))
            for docs in (ones, others):
                await docs.view.refresh()
            assert ones.find() == others.find()
            last = max(stamps)
            async with scene.machine("differ").open(quick(), read_only=True) as log:
                mine = await diff(log, SEAT.fold(), stamps[0], last)
                assert mine == await diff(log, SeatAgain(), stamps[0], last)
                assert all(change.old != change.new for change in mine), "a tombstone that goes is no change"

    play()
    assert graves, "there were tombstones"


@directed
async def test_verdicts_do_not_depend_on_how_the_watermark_rose(scene: Scene) -> None:
    """P8: a copy above its claim's last stamp, met by a view that follows and by one that begins later: one manifest.

    Verdicts are part of it, so whoever takes the snapshot at a point must have the same.
    """
    async with serving(scene.machine("one")) as seats, scene.machine("helper").open(quick()) as log:
        await seats.create("d", {"n": 1})
        await seats.delete("d")
        claim = await log.claims.find(ClaimKey("Seat", "d", 0))
        assert claim is not None
        await asyncio.sleep(GRACE_S / 2 + 1)
        async with log.writer("helper") as helper:
            receipt = await helper.append(claim.event())
        await seats.view.settled(receipt, timeout=60)
        await seats.view.snapshot()
        followed = seats.view._state.final_verdicts()
        async with View.open(log, SeatAgain()) as view:
            assert view.watermark >= receipt.stamp
            at_once = view._state.final_verdicts()
        assert [(each.stamp, each.kind) for each in followed] == [(receipt.stamp, "rejected")]
        assert at_once == followed


@directed
async def test_a_tombstone_in_a_snapshot_goes_from_the_next(scene: Scene) -> None:
    """It is a row of the manifest while it lasts, no document, and leaves when the watermark has passed it."""
    async with serving(scene.machine("web")) as seats:
        await seats.create("gone", {"n": 1})
        await seats.create("stays", {"n": 2})
        await seats.delete("gone")
        first = await seats.view.snapshot()
        assert (first.rows, len(seats)) == (2, 1)
        await asyncio.sleep(GRACE_S / 2 + 1)
        second = await seats.view.snapshot()
        assert (second.rows, len(seats)) == (1, 1)
        assert f"{second.rows_digest:064x}" == seats.view.digest()
    async with scene.machine("reader").open(quick(), read_only=True) as log:
        async with View.open(log, SEAT.fold(), at=first.stamp) as past:
            assert isinstance(past.state("gone"), Tombstone)
            assert past.get("gone") is None
            assert past.find().keys == ["stays"]
        async with View.open(log, SEAT.fold(), at=second.stamp) as past:
            assert past.state("gone") is None


@directed
async def test_a_late_copy_after_a_restart_from_a_snapshot_changes_nothing(scene: Scene) -> None:
    """The tombstone is in the snapshot: who never saw the document ignores its copy all the same."""
    async with serving(scene.machine("web")) as seats:
        await seats.create("d", {"n": 1})
        await (await seats.delete("d")).settled(60)
        await seats.view.snapshot()
    async with serving(scene.machine("next")) as seats:
        log = seats._log
        claim = await log.claims.find(ClaimKey("Seat", "d", 0))
        assert claim is not None
        async with log.writer("helper") as helper:
            await seats.view.wait_for(await helper.append(claim.event()))
        assert "d" not in seats
        await seats.create("d", {"n": 2})
        assert seats.get("d") == {"n": 2}


@directed
async def test_a_keeper_keeps_collections(scene: Scene) -> None:
    """``keep`` with a collection's fold: snapshots, retirement, collection; documents are right after."""
    async with serving(scene.machine("day1"), "drop") as seats:
        for number in range(4):
            await seats.create(f"k{number}", {"n": number})
        await seats.delete("k0")
        await seats._log.close_chapter()
        await seats.create("k9", {"n": 9})
    keeper = scene.machine("keeper")
    settings = KeepSettings()
    async with keeper.open(quick(), grace_ms=GRACE_MS, history="drop") as log:
        rounds = keep_on(
            log, [SEAT.fold()], settings=settings, snapshot_ms=1_000, pause_ms=GRACE_MS // 2, rng=random.Random(0)
        )
        async with aclosing(rounds):
            for _ in range(8):
                done = await anext(rounds)
                assert done.problems == []
    await age()
    await keep(scene)
    assert of_chapter(scene, 0) == []
    async with serving(scene.machine("day2"), "drop") as seats:
        assert seats.view.damage == []
        assert seats.find().keys == ["k1", "k2", "k3", "k9"]
        await seats.create("k0", {"n": 10})
        await seats.delete("k1")
        await seats.create("k1", {"n": 11})
        assert seats.get("k0") == {"n": 10}
    assert len(scene.store.keys("claims/")) == 7, "claims stay"


# Checks, copies, rescues


async def filled() -> MemoryStore:
    """Seats taken, left, taken again."""
    store = MemoryStore()
    async with (
        logstore.open(store, settings=quick()) as log,
        DocumentStore.open(log, writer="web", collections=[SEAT]) as db,
    ):
        seats = db.collection("Seat")
        for key in "abc":
            await seats.create(key, {"n": 1})
        await seats.delete("b")
        await seats.create("b", {"n": 2})
    return store


async def contents(store: MemoryStore) -> dict[str, bytes]:
    return {listed.key: (await store.get(listed.key)).data async for listed in store.list("")}


async def store_of(objects: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for name, data in objects.items():
        await store.create(name, data)
    return store


async def findings(store: MemoryStore) -> list[Finding]:
    return [finding async for finding in check(store)]


@pytest.fixture
async def objects() -> dict[str, bytes]:
    return await contents(await filled())


NAME = claim_key(ClaimKey("Seat", "a", 0))
OTHER = claim_key(ClaimKey("Seat", "b", 1))


async def test_claims_check_clean(objects: dict[str, bytes]) -> None:
    """Nothing is wrong with what this library has written; they are no foreign objects."""
    assert sorted(name for name in objects if name.startswith("claims/")) == [
        claim_key(ClaimKey("Seat", key, number)) for key, number in [("a", 0), ("b", 0), ("b", 1), ("c", 0)]
    ]
    assert await findings(await store_of(objects)) == []


@pytest.mark.parametrize("spoiled", ["cut", "flipped", "empty", "another's", "foreign"])
async def test_a_damaged_claim_is_named(objects: dict[str, bytes], spoiled: str) -> None:
    """By ``check``, once, with its key; and a creator that meets it is told Corrupt, with its key."""
    data = objects[NAME]
    bad = {
        "cut": data[:-1],
        "flipped": data[:20] + bytes([data[20] ^ 4]) + data[21:],
        "empty": b"",
        "another's": objects[OTHER],
        "foreign": b"hello",
    }[spoiled]
    store = await store_of({**objects, NAME: bad})
    damaged = [finding for finding in await findings(store) if finding.severity == "damage"]
    assert [finding.key for finding in damaged] == [NAME]
    async with logstore.open(store, read_only=True) as log:
        with pytest.raises(Corrupt, match="claims/Seat/a/"):
            await log.claims.find(ClaimKey("Seat", "a", 0))


async def test_every_bit_of_a_claim_counts(objects: dict[str, bytes]) -> None:
    """P12: no single flipped bit passes for another claim."""
    data = objects[NAME]
    store = await store_of(objects)
    async with logstore.open(store, read_only=True) as log:
        for bit in range(0, len(data) * 8, 7):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            await store.delete(NAME)
            await store.create(NAME, bytes(flipped))
            with pytest.raises(Corrupt):
                await log.claims.find(ClaimKey("Seat", "a", 0))


async def test_a_foreign_object_among_claims_is_named(objects: dict[str, bytes]) -> None:
    """A name there that is no claim's."""
    store = await store_of({**objects, "claims/Seat/a/notes.txt": b"hello"})
    assert [finding.key for finding in await findings(store)] == ["claims/Seat/a/notes.txt"]


@pytest.mark.parametrize("accept_loss", [False, True])
async def test_a_copy_carries_claims(objects: dict[str, bytes], accept_loss: bool) -> None:
    """Byte for byte, by an ordinary copy and by a rescue; in the copy the key is as taken as it was."""
    target = MemoryStore()
    await copy_store(await store_of(objects), target, accept_loss=accept_loss, rng=random.Random(0))
    copied = await contents(target)
    names = [name for name in objects if name.startswith("claims/")]
    assert names
    assert {name: copied[name] for name in names} == {name: objects[name] for name in names}
    assert await findings(target) == []
    await require_served(target)


async def require_served(store: MemoryStore) -> None:
    """Documents, and what may be created, are as they were in the original."""
    async with (
        logstore.open(store, settings=quick()) as log,
        DocumentStore.open(log, writer="again", collections=[SEAT]) as db,
    ):
        seats = db.collection("Seat")
        assert {key: dict(seats.get(key)) for key in seats.find().keys} == {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 1}}
        with pytest.raises(AlreadyExists):
            await seats.create("a", {"n": 5})
        await seats.delete("a")
        await seats.create("a", {"n": 6})
        assert seats.get("a") == {"n": 6}


async def test_a_rescue_leaves_a_damaged_claim_and_says_so(objects: dict[str, bytes]) -> None:
    """The others are carried; the copy checks clean and serves."""
    target, said = MemoryStore(), list[Finding]()
    source = await store_of({**objects, NAME: objects[NAME][:-1]})
    await copy_store(source, target, accept_loss=True, on_loss=said.append, rng=random.Random(0))
    assert [finding.key for finding in said] == [NAME]
    copied = await contents(target)
    assert NAME not in copied
    assert OTHER in copied
    assert await findings(target) == []
    await require_served(target)
