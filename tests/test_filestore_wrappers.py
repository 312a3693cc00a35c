"""RetryingStore ends and keeps ambiguity; MeteredStore counts what is billed; FaultyStore does as it is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from logstore.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from logstore.filestore import FileStore, Listed, MemoryStore, MeteredStore, RetryingStore, RetrySettings
from logstore.testing.clock import ManualClock
from logstore.testing.faults import Fault, FaultyStore


class Pauses:
    """Stands in for asyncio.sleep: notes each pause, and lets the clock advance by it."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.clock.advance(round(seconds * 1_000))


class Stack:
    """RetryingStore(MeteredStore(FaultyStore(MemoryStore()))), with time by hand and a plan of faults."""

    def __init__(self, seed: int = 0, settings: RetrySettings | None = None, **plan: list[Fault | None]) -> None:
        self.clock = ManualClock()
        self.pauses = Pauses(self.clock)
        self.memory = MemoryStore(clock=self.clock)
        self.faulty = FaultyStore(self.memory, plan=plan, rng=random.Random(seed), landing_chance=0)
        self.metered = MeteredStore(self.faulty)
        self.store = RetryingStore(self.metered, settings, clock=self.clock, rng=random.Random(seed), sleep=self.pauses)


async def keys_of(store: FileStore, prefix: str = "", after: str = "") -> list[str]:
    return [listed.key async for listed in store.list(prefix, after)]


async def test_what_is_unavailable_is_tried_again() -> None:
    """Every verb gets over a few refusals, and returns what the store said in the end."""
    refused: list[Fault | None] = [Fault.REFUSE] * 3
    stack = Stack(create=list(refused), get=list(refused), list=list(refused), delete=list(refused))
    assert await stack.store.create("a", b"x") is not None
    assert (await stack.store.get("a")).data == b"x"
    assert await keys_of(stack.store) == ["a"]
    await stack.store.delete("a")
    assert stack.metered.statistics().requests == 16
    assert stack.faulty.faults[Fault.REFUSE] == 12


async def test_attempts_are_bounded() -> None:
    """After its last attempt a call raises Unavailable, which names key, attempts and the last reason."""
    stack = Stack(settings=RetrySettings(attempts_max=3), get=[Fault.REFUSE] * 9)
    with pytest.raises(Unavailable, match=r"gave up verb=get key=a attempts=3 .*fault=REFUSE"):
        await stack.store.get("a")
    assert stack.metered.statistics().get.requests == 3
    assert len(stack.pauses.seconds) == 2


async def test_the_deadline_covers_all_attempts() -> None:
    """No pause begins that would end after the deadline, however many attempts are left."""
    settings = RetrySettings(attempts_max=1_000, deadline_ms=5_000)
    stack = Stack(settings=settings, create=[Fault.REFUSE] * 1_000)
    before_ms = stack.clock.elapsed_ms()
    with pytest.raises(Unavailable):
        await stack.store.create("a", b"x")
    assert stack.clock.elapsed_ms() - before_ms <= 5_000
    assert 3 < stack.metered.statistics().create.requests < 100


async def test_who_slept_beyond_the_deadline_sends_nothing_more() -> None:
    """A process that was suspended in a pause gives up when it wakes: what it would send rests on old news."""
    stack = Stack(settings=RetrySettings(deadline_ms=5_000), create=[Fault.REFUSE])

    async def suspended(_: float) -> None:
        stack.clock.advance(60_000)

    stack.store._sleep = suspended
    with pytest.raises(Unavailable, match="spent_ms=60000"):
        await stack.store.create("a", b"x")
    assert stack.metered.statistics().create.requests == 1


async def test_pauses_have_full_jitter_under_a_doubling_ceiling() -> None:
    """Pause n is anywhere between nothing and min(first x 2^n, max); seeds make it repeatable, and differ."""
    settings = RetrySettings(attempts_max=8, pause_first_ms=50, pause_max_ms=400, deadline_ms=100_000)
    pauses = []
    for seed in range(200):
        stack = Stack(seed, settings, get=[Fault.REFUSE] * 8)
        with pytest.raises(Unavailable):
            await stack.store.get("a")
        pauses.append(stack.pauses.seconds)
    for position, ceiling_ms in enumerate([50, 100, 200, 400, 400, 400, 400]):
        column_ms = [seconds[position] * 1_000 for seconds in pauses]
        assert 0 <= min(column_ms) < 0.1 * ceiling_ms
        assert 0.9 * ceiling_ms < max(column_ms) <= ceiling_ms
    assert len({tuple(seconds) for seconds in pauses}) == 200


async def test_an_attempt_that_hangs_is_cut_off() -> None:
    """Silence counts as a failed attempt after the attempt's own limit, in every verb."""
    settings = RetrySettings(attempt_timeout_ms=5)
    hangs: list[Fault | None] = [Fault.HANG]
    stack = Stack(settings=settings, create=list(hangs), get=list(hangs), list=list(hangs), delete=list(hangs))
    await stack.store.create("a", b"x")
    assert (await stack.store.get("a")).data == b"x"
    assert await keys_of(stack.store) == ["a"]
    await stack.store.delete("a")
    assert stack.metered.statistics().total.failed == 4


async def test_cancellation_is_not_a_failure_to_be_retried() -> None:
    """A caller who is cancelled gets out at once, whatever attempts are left."""
    stack = Stack(create=[Fault.HANG])
    task = asyncio.create_task(stack.store.create("a", b"x"))
    while not stack.faulty.faults[Fault.HANG]:  # noqa: ASYNC110  # one turn of the loop or two, no time
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stack.metered.statistics().create.requests == 1


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.HANG_AFTER])
async def test_ambiguity_is_kept(fault: Fault) -> None:
    """A creation that landed and whose answer was lost meets its own object: AlreadyExists, for the caller to read."""
    stack = Stack(settings=RetrySettings(attempt_timeout_ms=5), create=[fault])
    with pytest.raises(AlreadyExists):
        await stack.store.create("a", b"mine")
    assert (await stack.store.get("a")).data == b"mine"


async def test_a_late_landing_is_whoever_comes_first() -> None:
    """A creation that lands behind its caller's back neither overwrites nor wins against the one before it."""
    stack = Stack(settings=RetrySettings(attempts_max=1), create=[Fault.LAND_LATE, Fault.LAND_LATE])
    for key in ("a", "b"):
        with pytest.raises(Unavailable):
            await stack.store.create(key, b"late")
    await stack.store.create("a", b"early")
    assert await stack.faulty.land() == 2
    assert [(await stack.memory.get(key)).data for key in ("a", "b")] == [b"early", b"late"]


async def test_answers_pass_through_at_once() -> None:
    """AlreadyExists, NotFound and InvalidArgument are answers: they cost one request and no pause."""
    stack = Stack()
    await stack.store.create("a", b"x")
    with pytest.raises(AlreadyExists):
        await stack.store.create("a", b"y")
    with pytest.raises(NotFound):
        await stack.store.get("b")
    with pytest.raises(InvalidArgument):
        await stack.store.get("../b")
    assert stack.pauses.seconds == []
    assert stack.metered.statistics().requests == 4


async def test_a_broken_listing_goes_on_behind_its_last_key() -> None:
    """However often a listing breaks, each key comes once and in order, and progress renews the attempts."""
    broken: list[Fault | None] = [Fault.LOSE_ANSWER] * 20
    stack = Stack(settings=RetrySettings(attempts_max=2), list=broken)
    keys = [f"a/{n:02d}" for n in range(20)]
    for key in keys:
        await stack.memory.create(key, b"")
    assert await keys_of(stack.store, "a/") == keys


async def test_a_listing_without_progress_gives_up() -> None:
    """A listing that never gets on raises Unavailable like any other call."""
    stack = Stack(settings=RetrySettings(attempts_max=4), list=[Fault.REFUSE] * 9)
    with pytest.raises(Unavailable, match="verb=list key=a/ attempts=4"):
        await keys_of(stack.store, "a/")


async def test_metering_counts_by_verb() -> None:
    """Requests, refusals, failures and bytes are told apart by verb, and a stretch by subtraction."""
    store = MeteredStore(FaultyStore(MemoryStore(), plan={"get": [None, None, Fault.REFUSE]}))
    await store.create("a/1", b"12345")
    before = store.statistics()
    with pytest.raises(AlreadyExists):
        await store.create("a/1", b"123")
    assert (await store.get("a/1", 1, 3)).data == b"23"
    with pytest.raises(NotFound):
        await store.get("a/2")
    with pytest.raises(Unavailable):
        await store.get("a/1")
    await store.delete("a/1")
    stretch = store.statistics() - before
    assert (stretch.create.requests, stretch.create.refused, stretch.create.bytes_in) == (1, 1, 3)
    assert (stretch.get.requests, stretch.get.refused, stretch.get.failed, stretch.get.bytes_out) == (3, 1, 1, 2)
    assert (stretch.delete.requests, stretch.list.requests) == (1, 0)
    assert (stretch.requests, stretch.bytes_in, stretch.bytes_out) == (5, 3, 2)
    assert store.statistics().bytes_in == 8
    assert repr(store).startswith("<MeteredStore requests=6 ")


@pytest.mark.parametrize(("keys", "pages"), [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_000, 2), (2_001, 3)])
async def test_a_listing_is_counted_by_pages(keys: int, pages: int) -> None:
    """A LIST is billed for each thousand keys, and once when there are none."""

    class Many(MemoryStore):
        async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
            for n in range(keys):
                yield Listed(f"{prefix}{n:04d}", 0, None)

    store = MeteredStore(Many())
    assert len(await keys_of(store, "a/")) == keys
    assert store.statistics().list.requests == pages


async def test_leaving_a_listing_early_is_no_failure() -> None:
    """Only the pages that were looked at count, and none of them as failed."""
    store = MeteredStore(MemoryStore())
    for n in range(3):
        await store.create(f"a/{n}", b"")
    listing = store.list("a/")
    assert isinstance(listing, AsyncIterator)
    assert (await anext(listing)).key == "a/0"
    await listing.aclose()  # type: ignore[attr-defined]  # it is a generator
    statistics = store.statistics().list
    assert (statistics.requests, statistics.failed) == (1, 0)


async def test_the_price_is_that_of_the_price_list() -> None:
    """A thousand PUTs or LISTs cost half a cent, a thousand GETs a twenty-fifth of one, deletions nothing."""
    store = MeteredStore(MemoryStore())
    for n in range(10):
        await store.create(f"a/{n}", b"")
        await store.get(f"a/{n}")
        await store.delete(f"a/{n}")
    assert await keys_of(store) == []
    assert store.statistics().price_usd == pytest.approx(11 * 0.005 / 1_000 + 10 * 0.0004 / 1_000)


@pytest.mark.parametrize("remote", [False, True])
def test_wrappers_are_as_remote_as_what_they_wrap(remote: bool) -> None:
    """Poll and linger times follow the backend through any stack."""
    memory = MemoryStore()
    memory.remote = remote
    assert RetryingStore(MeteredStore(FaultyStore(memory))).remote is remote


async def test_equal_seeds_give_equal_faults() -> None:
    """A run of FaultyStore replays from its seed, and another seed gives another run."""

    async def run(seed: int) -> tuple[list[str], int]:
        memory = MemoryStore()
        chances = {("create", fault): 0.1 for fault in (Fault.REFUSE, Fault.LOSE_ANSWER, Fault.LAND_LATE)}
        store = FaultyStore(memory, rng=random.Random(seed), chances=chances)
        story = []
        for n in range(200):
            try:
                await store.create(f"a/{n % 150}", b"x")
                story.append("stored")
            except (AlreadyExists, Unavailable) as error:
                story.append(str(error))
        return story, await store.land()

    assert await run(1) == await run(1)
    assert await run(1) != await run(2)
    story = "".join((await run(1))[0])
    assert all(fault in story for fault in ("REFUSE", "LOSE_ANSWER", "LAND_LATE"))
