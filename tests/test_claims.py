"""One of many: whoever dies, sleeps or is told nothing, wherever: one creation has an effect. RFC 0009 §5."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any, Final

import pytest

from logstore import (
    AlreadyExists,
    Conflict,
    Event,
    InvalidArgument,
    LogStoreError,
    NotStored,
    Unavailable,
    Unknown,
)
from logstore.claim import decode_claim
from logstore.keys import ClaimKey, claim_key, parse_key
from projections import Collection, DocumentStore, View
from projections.document import CollectionFold
from projections.tombstone import Tombstone
from tests.scene import Carry, Gate, Machine, Scene, directed, lose, quick, refuse, until

GRACE_MS: Final = 40_000
LASTS_S: Final = GRACE_MS / 2_000  # how long a claim's event counts
SEAT: Final = Collection("Seat", unique=True)
KEY: Final = "s"


@asynccontextmanager
async def serving(machine: Machine, collection: Collection = SEAT) -> AsyncIterator[DocumentStore]:
    """A process that has the seats open."""
    async with (
        machine.open(quick(), grace_ms=GRACE_MS) as log,
        DocumentStore.open(log, writer=machine.name, collections=[collection]) as db,
    ):
        yield db


async def create(db: DocumentStore, by: str, key: str = KEY) -> str:
    """Try to take the seat; what the caller is told."""
    try:
        await db.collection("Seat").create(key, {"by": by})
    except AlreadyExists:
        return "exists"
    except (NotStored, Unknown, Unavailable):
        return "unsure"
    return "created"


async def told(scene: Scene) -> list[str]:
    """What happened to the seat, by a telling of its own: who created it, in order, and deletions."""
    happened: list[str] = []
    newest, is_there = -1, False
    async with scene.machine(f"teller at {scene.loop.time()}").open(read_only=True) as log:
        async for event in log.read():
            assert event.meta is not None
            fields = event.meta["document"]
            if fields["do"] == "delete":
                happened += ["deleted"] if is_there else []
                is_there = False
                continue
            if event.key != KEY:
                continue
            number, last_stamp, _ = fields["claim"]
            if number > newest and event.stamp <= last_stamp and not is_there:
                assert event.data is not None
                newest, is_there = number, True
                happened.append(event.data["by"])
    return happened


async def copies(scene: Scene, number: int = 0) -> int:
    """How many events there are of a claim."""
    async with scene.machine(f"counter at {scene.loop.time()}").open(read_only=True) as log:
        metas = [event.meta["document"] async for event in log.read() if event.meta]
        return sum(meta.get("claim", (None,))[0] == number for meta in metas)


async def seat(scene: Scene) -> str | None:
    """Who has the seat, as a process sees it that begins now."""
    async with (
        scene.machine(f"reader at {scene.loop.time()}").open(read_only=True) as log,
        DocumentStore.open(log, collections=[SEAT]) as db,
    ):
        seats = db.collection("Seat")
        return str(seats.get(KEY)["by"]) if KEY in seats else None


def claims(scene: Scene) -> list[int]:
    """The numbers that are claimed."""
    keys = [parse_key(name) for name in scene.store.keys("claims/")]
    return [key.number for key in keys if isinstance(key, ClaimKey) and key.key == KEY]


# Where a creator may die, sleep, or be told nothing


Act = Callable[[Carry], Awaitable[Any]]


def at_request(machine: Machine, number: int, act: Act) -> None:
    """From now on, the process' request of that number meets ``act``, whatever its verb."""
    call, asked = machine.script._call, count()

    async def counted(verb: str, key: str, carry: Carry) -> Any:
        return await call(verb, key, (lambda: act(carry)) if next(asked) == number else carry)

    machine.script._call = counted  # type: ignore[method-assign]


def at_each(play: Callable[[Scene, int], Awaitable[bool]]) -> None:
    """Play for each request of a creation, until it takes no more; ``play`` says whether there was one."""
    there = True
    for request in count():
        if not there:
            break
        assert request < 30

        @directed
        async def one(scene: Scene, request: int = request) -> None:
            nonlocal there
            there = await play(scene, request)

        one()


def die_before(machine: Machine) -> Act:
    async def act(carry: Carry) -> Any:
        machine.process.crash()
        await asyncio.get_running_loop().create_future()

    return act


def die_after(machine: Machine) -> Act:
    async def act(carry: Carry) -> Any:
        with suppress(LogStoreError):
            await carry()
        machine.process.crash()
        await asyncio.get_running_loop().create_future()

    return act


def sleep_before(machine: Machine) -> Act:
    async def act(carry: Carry) -> Any:
        machine.process.pause()
        await asyncio.sleep(0)  # parked here
        return await carry()

    return act


def sleep_after(machine: Machine) -> Act:
    async def act(carry: Carry) -> Any:
        try:
            return await carry()
        finally:
            machine.process.pause()
            await asyncio.sleep(0)

    return act


class Creator:
    """Machine "a", that creates the seat in a process of its own, and meets its fate at a request."""

    def __init__(self, scene: Scene, request: int, fate: Callable[[Machine], Act]) -> None:
        self.machine = scene.machine("a")
        self.told: str | None = None
        self.met_fate = False
        self._ready, self._go, self._end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._request, self._fate = request, fate
        self._living = self.machine.start(self._live())

    async def _live(self) -> None:
        async with serving(self.machine) as db:
            await create(db, "a", "another")  # its session is open
            self._ready.set()
            await self._go.wait()
            act = self._fate(self.machine)

            async def meet(carry: Carry) -> Any:
                if self.told is not None:
                    return await carry()
                self.met_fate = True
                return await act(carry)

            at_request(self.machine, self._request, meet)
            self.told = await create(db, "a")
            await self._end.wait()

    async def create(self) -> None:
        """Let it create, until it is told, dead or asleep."""
        await self._ready.wait()
        self._go.set()
        await until(lambda: self.told is not None or self.machine.process.state.value != "running")

    async def wake(self) -> None:
        """Let it go on, to its end."""
        self.machine.process.resume()
        await until(lambda: self.told is not None)

    async def end(self) -> None:
        """Let it close what it has open."""
        self._end.set()
        if self.machine.process.state.value == "paused":
            self.machine.process.resume()
        if self.machine.process.state.value == "running":
            await self._living


@pytest.mark.parametrize("fate", [die_before, die_after])
@pytest.mark.parametrize("pause_s", [0, LASTS_S + 5])
def test_a_creator_may_die_anywhere(fate: Callable[[Machine], Act], pause_s: float) -> None:
    """At each request of a creation, before or after it landed: a second caller decides, soon, or when it is over.

    Either the first has claimed, and its document is there, or the second's is; one effect; and all see the same.
    """
    outcomes = set()

    async def play(scene: Scene, request: int) -> bool:
        first = Creator(scene, request, fate)
        await first.create()
        has_claimed = claims(scene) == [0]
        await asyncio.sleep(pause_s)
        async with serving(scene.machine("b", skew_ms=-1_900)) as db:
            second = await create(db, "b")
            happened = await told(scene)
            if second == "exists":
                assert has_claimed
                assert happened == ["a"]
            else:
                assert second == "created"
                assert happened == ["b"]
                assert not has_claimed or pause_s
            assert await seat(scene) == happened[0]
            assert first.told in {None, "created"}
            assert first.told is None or happened == ["a"]
            assert await create(db, "c") == "exists"
        outcomes.add((first.told, second))
        await first.end()
        return first.met_fate

    at_each(play)
    assert {(None, "created"), (None, "exists"), ("created", "exists")} - outcomes <= (
        {(None, "exists")} if pause_s else set()
    ), "every outcome was met"


@pytest.mark.parametrize("fate", [sleep_before, sleep_after])
@pytest.mark.parametrize("second_s", [0, LASTS_S + 5])
@pytest.mark.parametrize("wakes_s", [0, LASTS_S + 5])
def test_a_creator_may_sleep_anywhere(fate: Callable[[Machine], Act], second_s: float, wakes_s: float) -> None:
    """It wakes after a second caller was told, while its claim still counts, or when it is over.

    One effect ever; who was told that it created did, the other was told that it exists.
    """
    outcomes = set()

    async def play(scene: Scene, request: int) -> bool:
        first = Creator(scene, request, fate)
        await first.create()
        await asyncio.sleep(second_s)
        async with serving(scene.machine("b")) as db:
            second = await create(db, "b")
            await asyncio.sleep(wakes_s)
            if first.told is None:
                await first.wake()
            await asyncio.sleep(5)
            happened = await told(scene)
            assert len(happened) == 1, happened
            assert second == ("created" if happened == ["b"] else "exists")
            if happened == ["b"]:
                assert first.told in {"exists", "unsure"}, "it slept through its requests' deadlines"
            else:
                assert first.told in {"created", "exists", "unsure"}
            assert await seat(scene) == happened[0]
            assert db.collection("Seat").get(KEY) == {"by": happened[0]}
            outcomes.add((first.told, second))
        await first.end()
        return first.met_fate

    at_each(play)
    assert len(outcomes) > 1, outcomes


@pytest.mark.parametrize("fate", [sleep_before, sleep_after])
@pytest.mark.parametrize("wakes_s", [0, LASTS_S - 8, LASTS_S + 5])
def test_a_creator_may_sleep_through_a_deletion(fate: Callable[[Machine], Act], wakes_s: float) -> None:
    """The others finish its creation, delete the document, create it again: what it does then changes nothing."""

    async def play(scene: Scene, request: int) -> bool:
        first = Creator(scene, request, fate)
        await first.create()
        async with (
            serving(scene.machine("b", skew_ms=1_500)) as b,
            serving(scene.machine("c", skew_ms=-1_500)) as c,
        ):
            await create(b, "b")
            winner = (await told(scene))[0]
            await c.collection("Seat").delete(KEY)
            assert await create(c, "c") == "created"
            await b.collection("Seat").delete(KEY)
            await asyncio.sleep(wakes_s)
            if first.told is None:
                await first.wake()
            await asyncio.sleep(3)
            happened = await told(scene)
            assert happened[:4] == [winner, "deleted", "c", "deleted"]
            assert happened[4:] in ([], ["a"])
            if happened[4:]:
                assert winner != "a" or wakes_s > LASTS_S, "it had created, or has claimed anew"
                assert first.told in {"created", "unsure"}
            assert await seat(scene) == (happened[4] if happened[4:] else None)
        await first.end()
        return first.met_fate

    at_each(play)


def test_a_creation_may_be_cancelled_at_any_moment() -> None:
    """The same process creates again: one effect, of the first call or of the second, as it is told."""
    outcomes = set()
    for step in range(0, 120, 5):

        @directed
        async def play(scene: Scene, step: int = step) -> None:
            async with serving(scene.machine("a")) as db:
                creating = asyncio.create_task(create(db, "a"))
                await asyncio.sleep(step / 1_000)
                creating.cancel()
                await asyncio.wait([creating])
                assert creating.cancelled() or creating.result() == "created"
                again = await create(db, "again")
                happened = await told(scene)
                assert happened == (["again"] if again == "created" else ["a"])
                assert creating.cancelled() or happened == ["a"]
                outcomes.add((creating.cancelled(), again))
                await asyncio.sleep(LASTS_S + 5)
                assert await told(scene) == happened
                assert await seat(scene) == happened[0]

        play()
    assert outcomes == {(True, "created"), (True, "exists"), (False, "exists")}


@pytest.mark.parametrize("act", [refuse, lose])
@pytest.mark.parametrize("times", [1, 2, 1_000])
@pytest.mark.parametrize(
    ("verb", "part"),
    [
        ("get", "roster/"),
        ("get", "log/"),
        ("get", "claims/"),
        ("create", "claims/"),
        ("create", "log/"),
        ("create", "roster/"),
    ],
)
def test_an_outage_at_any_step_leaves_one_effect_or_none(act: Any, times: int, verb: str, part: str) -> None:
    """NotStored, Unknown, Unavailable: create it again, and see; a short one nobody notices."""

    @directed
    async def play(scene: Scene) -> None:
        machine = scene.machine("a")
        async with serving(machine) as db, serving(scene.machine("b")) as other:
            rule = machine.script.on(verb, part, act, times)
            first = await create(db, "a")
            assert rule.met, "it happened"
            assert first == "created" if times == 1 else first in {"created", "exists", "unsure"}
            machine.script.clear()
            happened = await told(scene)
            assert happened in ([], ["a"])
            assert first != "created" or happened == ["a"]
            second = await create(other, "b")
            happened = await told(scene)
            assert happened == (["b"] if second == "created" else ["a"])
            assert await create(db, "again") == "exists"
            await asyncio.sleep(LASTS_S)
            assert await told(scene) == happened
            assert await seat(scene) == happened[0]

    play()


# What a claim is, and how long it lasts


@directed
async def test_a_claim_holds_the_event_and_until_when_it_counts(scene: Scene) -> None:
    """Half a grace after it was decided; the event in the log is the claim's."""
    async with serving(scene.machine("a")) as db:
        receipt = await db.collection("Seat").create(KEY, {"by": "a"}, type="taken", meta={"actor": "ann"})
    name = claim_key(ClaimKey("Seat", KEY, 0))
    claim = decode_claim(ClaimKey("Seat", KEY, 0), scene.store.contents()[name])
    lasts_ms = (claim.last_stamp >> 16) - (receipt.receipt.stamp >> 16)
    assert GRACE_MS // 2 - 1_000 < lasts_ms <= GRACE_MS // 2
    async with scene.machine("reader").open(read_only=True) as log:
        (event,) = [event async for event in log.read()]
    assert claim.event() == Event("Seat", KEY, "taken", {"by": "a"}, event.meta)
    assert event.meta is not None
    assert event.meta["document"]["claim"] == (0, claim.last_stamp, "a")


@directed
async def test_an_owner_that_slept_past_its_claim_claims_anew(scene: Scene) -> None:
    """Its event is rejected by stamp; nobody else having created it meanwhile, the next number is its own."""
    machine = scene.machine("a")

    async def sleep_soon(carry: Carry) -> Any:
        answer = await carry()
        asyncio.get_running_loop().call_later(0.0001, machine.process.pause)
        return answer

    async def claim() -> str:
        async with serving(machine) as db:
            machine.script.on("create", claim_key(ClaimKey("Seat", KEY, 0)), sleep_soon)
            while (answer := await create(db, "a")) == "unsure":
                pass  # a request's deadline passed while it slept
            return answer

    living = machine.start(claim())
    await until(lambda: machine.process.state.value == "paused")
    await asyncio.sleep(LASTS_S + 5)
    assert claims(scene) == [0]
    machine.process.resume()
    assert await living == "created"
    assert claims(scene) == [0, 1]
    assert await told(scene) == ["a"]


@directed
async def test_helper_and_owner_both_append_and_see_the_same(scene: Scene) -> None:
    """Two copies in the log, one effect, one version; ``settled`` says applied to the owner."""
    a, gate = scene.machine("a"), Gate()
    async with serving(a) as one, serving(scene.machine("b", skew_ms=-1_500)) as other:
        a.script.on("create", "log/", gate.before)
        creating = asyncio.create_task(one.collection("Seat").create(KEY, {"by": "a"}))
        await gate.met()
        assert await create(other, "b") == "exists"
        gate.open()
        receipt = await creating
        await receipt.settled(60)
        assert await copies(scene) == 2
        assert await told(scene) == ["a"]
        await other.collection("Seat").view.refresh()
        versions = {db.collection("Seat").version(KEY) for db in (one, other)}
        assert len(versions) == 1
        assert versions.pop().startswith("1-")


@directed
async def test_a_helpers_copy_that_comes_first_is_no_conflict(scene: Scene) -> None:
    """Nobody is told of copies: they were applied."""
    a, gate = scene.machine("a"), Gate()
    async with serving(a) as one, serving(scene.machine("b", skew_ms=-1_500)) as other:
        conflicts = one.collection("Seat").conflicts()
        a.script.on("create", "log/", gate.before)
        creating = asyncio.create_task(one.collection("Seat").create(KEY, {"by": "a"}))
        await gate.met()
        await create(other, "b")
        gate.open()
        await (await creating).settled(60)
        seats = one.collection("Seat")
        refused = await seats.update(KEY, {"x": 1}, if_version=seats.version(KEY), blind=True)
        again = await seats.update(KEY, {"x": 2}, if_version=seats.version(KEY), blind=True)
        await again.settled(60)
        await refused.settled(60)
        last = await other.collection("Seat").delete(KEY)
        await last.settled(60)
        waiting = asyncio.ensure_future(anext(conflicts))
        await asyncio.sleep(1)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        await conflicts.aclose()


@pytest.mark.parametrize("age_s", [0, LASTS_S / 2, LASTS_S + 5])
def test_deleted_and_created_again(age_s: float) -> None:
    """Within the claim's validity and beyond it; twice; by others than before."""

    @directed
    async def play(scene: Scene) -> None:
        async with serving(scene.machine("a")) as one, serving(scene.machine("b")) as other:
            for round_ in range(2):
                assert await create(one, f"a{round_}") == "created"
                assert await create(other, "no") == "exists"
                await asyncio.sleep(age_s)
                await other.collection("Seat").delete(KEY)
                assert await create(other, f"b{round_}") == "created"
                await one.collection("Seat").delete(KEY)
        assert await told(scene) == ["a0", "deleted", "b0", "deleted", "a1", "deleted", "b1", "deleted"]
        assert claims(scene) == [0, 1, 2, 3]
        assert await seat(scene) is None

    play()


class SeatAgain(CollectionFold):
    """The same by another name: folds everything, for no snapshot is its own."""

    def __init__(self) -> None:
        super().__init__(SEAT)
        self.tag = "again"


@directed
async def test_a_tombstone_is_kept_exactly_until_the_watermark_reaches_the_last_stamp(scene: Scene) -> None:
    """P8, P10: in a view that has folded everything and in one that restarted from a snapshot: rows and digest."""
    async with serving(scene.machine("a")) as db:
        seats = db.collection("Seat")
        await create(db, "other", "t")
        await create(db, "a")
        await seats.delete(KEY)
        tombstone = seats.view.state(KEY)
        assert isinstance(tombstone, Tombstone)
        await seats.view.snapshot()
        assert KEY not in seats
        assert len(seats) == 1
        seen = set()
        for _ in range(60):
            async with (
                scene.machine(f"r{scene.loop.time()}").open(quick(), read_only=True) as log,
                View.open(log, SEAT.fold()) as restarted,
                View.open(log, SeatAgain()) as folded,
            ):
                assert restarted.damage == []
                assert restarted.digest() == folded.digest()
                assert restarted.digest(pending=True) == folded.digest(pending=True)
                is_over = restarted.watermark >= tombstone.until
                assert (restarted.state(KEY) is None) == is_over
                assert len(restarted) == 1
                await seats.view.refresh()
                if seats.view.watermark == restarted.watermark:
                    assert seats.view.digest() == restarted.digest()
                seen.add(is_over)
            await seats.view.snapshot()
            await asyncio.sleep(0.5)
        assert seen == {False, True}
        assert seats.view.state(KEY) is None
        assert len(seats) == 1


@directed
async def test_a_collection_that_becomes_unique_keeps_its_older_documents(scene: Scene) -> None:
    """By a higher version; what is created under the lower one still counts; the higher one claims."""
    shared, unique = Collection("Seat"), Collection("Seat", unique=True, version=2)
    async with serving(scene.machine("old"), shared) as old:
        await create(old, "old")
        async with serving(scene.machine("new"), unique) as new:
            assert new.collection("Seat").get(KEY) == {"by": "old"}
            assert await create(new, "new") == "exists"
            assert await create(new, "new", "t") == "created"
            assert await create(old, "late", "u") == "created"
            await until(lambda: "u" in new.collection("Seat"), 60)
            await new.collection("Seat").delete(KEY)
            assert await create(new, "new") == "created"
    assert len(scene.store.keys("claims/")) == 2


@directed
async def test_two_who_claim_at_once_have_one_winner(scene: Scene) -> None:
    """Twenty callers in four processes: one is told that it created; the document is its own; all claims are one."""
    async with (
        serving(scene.machine("a", skew_ms=-1_900)) as a,
        serving(scene.machine("b", skew_ms=1_900)) as b,
        serving(scene.machine("c")) as c,
        serving(scene.machine("d")) as d,
    ):
        answers = await asyncio.gather(
            *(create(db, f"{name}{i}") for name, db in zip("abcd", (a, b, c, d), strict=True) for i in range(5))
        )
        assert sorted(answers) == ["created"] + ["exists"] * 19
        names = [f"{name}{i}" for name in "abcd" for i in range(5)]
        assert await told(scene) == [names[answers.index("created")]]
    assert claims(scene) == [0]


@directed
async def test_a_claim_that_cannot_become_a_document_is_told_and_passes(scene: Scene) -> None:
    """Somebody's nonsense under the key's next number: Conflict names who claimed, until the claim is over."""
    async with serving(scene.machine("a")) as db:
        log, seats = db._log, db.collection("Seat")
        nonsense = Event("Seat", KEY, "x", {"by": "x"}, {"document": {"do": "destroy", "schema": 1}})
        await log.claims.take(ClaimKey("Seat", KEY, 0), "vandal", nonsense, log.claims.last_stamp())
        with pytest.raises(Conflict, match="claimed by vandal"):
            await seats.create(KEY, {"by": "a"})
        await asyncio.sleep(LASTS_S + 1)
        assert await create(db, "a") == "created"
        assert claims(scene) == [0, 1]


@pytest.mark.parametrize("key", ["k" * 201, "é" * 43])
def test_a_key_that_cannot_be_claimed_is_refused(key: str) -> None:
    """More than 200 bytes, or than 255 once escaped: nothing is claimed, nothing appended."""

    @directed
    async def play(scene: Scene) -> None:
        async with serving(scene.machine("a")) as db:
            with pytest.raises(InvalidArgument, match="bytes"):
                await db.collection("Seat").create(key, {"by": "a"})
        assert scene.store.keys("claims/") == []
        assert scene.segments() == []

    play()


@pytest.mark.parametrize("key", ["k" * 200, "é" * 42, "a/b", "..", ".", "%2F", "a b", "A", "a\n", "-", "~x", "tmp"])
def test_a_key_that_can_be_claimed_is_claimed(key: str) -> None:
    """Whatever it looks like as a name in the bucket; each its own."""

    @directed
    async def play(scene: Scene) -> None:
        async with serving(scene.machine("a")) as db, serving(scene.machine("b")) as other:
            assert await create(db, "a", key) == "created"
            assert await create(other, "b", key) == "exists"
            (name,) = scene.store.keys("claims/")
            assert parse_key(name) == ClaimKey("Seat", key, 0)

    play()


@directed
async def test_a_creation_costs_what_the_docstring_says(scene: Scene) -> None:
    """A barrier, a GET and a PUT more than a plain one; a barrier where it exists; no LIST."""
    machine = scene.machine("a")
    async with serving(machine) as db:
        await create(db, "a", "first")
        await asyncio.sleep(0.3)
        machine.script.asked.clear()
        assert await create(db, "a") == "created"
        count = machine.script.count
        assert (count("get", "claims/"), count("create", "claims/"), count("create", "log/")) == (1, 1, 1)
        assert count("list") == 0
        machine.script.asked.clear()
        assert await create(db, "b") == "exists"
        assert (count("get", "claims/"), count("create"), count("list")) == (0, 0, 0)


@directed
async def test_many_incarnations_are_galloped_over(scene: Scene) -> None:
    """Of a key created and deleted thirty times, long ago: a GET for each doubling, not for each time."""
    async with serving(scene.machine("a")) as db:
        for _ in range(30):
            assert await create(db, "a") == "created"
            await db.collection("Seat").delete(KEY)
        await asyncio.sleep(LASTS_S + 5)
    machine = scene.machine("b")
    async with serving(machine) as db:
        machine.script.asked.clear()
        assert await create(db, "b") == "created"
        assert machine.script.count("get", "claims/") <= 1 + 2 * 5
    assert claims(scene) == list(range(31))


@directed
async def test_a_claim_whose_object_is_lost_right_away_is_told(scene: Scene) -> None:
    """A lost answer and then no object: Missing, or Unavailable, never a creation that two believe theirs."""
    machine = scene.machine("a")

    async def vanish(carry: Carry) -> Any:
        with pytest.raises(AlreadyExists):
            await carry()
        scene.forget(claim_key(ClaimKey("Seat", KEY, 0)))
        raise AlreadyExists("it was there")

    async with serving(machine) as db, serving(scene.machine("b")) as other:
        gate = Gate()
        machine.script.on("create", "claims/", gate.before)
        creating = asyncio.create_task(db.collection("Seat").create(KEY, {"by": "a"}))
        await gate.met()
        log = other._log
        event = Event("Seat", KEY, "x", {"by": "b"})
        await log.claims.take(ClaimKey("Seat", KEY, 0), "b", event, log.claims.last_stamp())
        machine.script.clear()
        machine.script.on("get", "claims/", lambda carry: _lost(scene, carry))
        gate.open()
        with pytest.raises(LogStoreError, match="claim"):
            await creating


async def _lost(scene: Scene, carry: Carry) -> Any:
    scene.forget(claim_key(ClaimKey("Seat", KEY, 0)))
    return await carry()


@directed
async def test_the_barrier_comes_before_the_look_for_claims(scene: Scene) -> None:
    """Deleted elsewhere and acknowledged before the call, though this view has not seen it: it is created anew."""
    async with serving(scene.machine("a")) as one, serving(scene.machine("b")) as other:
        await create(one, "a")
        await other.collection("Seat").view.refresh()
        await one.collection("Seat").delete(KEY)
        assert await create(other, "b") == "created"
        assert await told(scene) == ["a", "deleted", "b"]
