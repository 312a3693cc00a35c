"""The simulated store is a perfect bucket behind imperfect weather, and remembers everything."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from logstore.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from logstore.filestore.base import FileStore
from logstore.testing.loop import SimulatedLoop
from logstore.testing.process import EPOCH_MS, Process
from logstore.testing.store import CALM, Request, SimulatedStore, StoreFace, Weather

T = TypeVar("T")


class World:
    """A loop, a bucket, one process, and its way to the bucket."""

    def __init__(self, seed: int = 0, **store: Any) -> None:
        self.loop = SimulatedLoop(random.Random(seed), time_s_max=1_000_000)
        self.store = SimulatedStore(self.loop, random.Random(seed + 1), **store)
        self.process = self.loop.process("web-1")
        self.face = self.store.face(self.process)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    def weather(self, weather: Weather) -> StoreFace:
        self.face.weather = weather
        return self.face


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.loop.close()
    assert world.loop.complaints == []


async def told(call: Coroutine[Any, Any, Any], timeout: float = 600) -> str:
    """What a caller who waits a while is told."""
    try:
        async with asyncio.timeout(timeout):
            await call
            return "done"
    except TimeoutError:
        return "nothing"
    except (Unavailable, AlreadyExists, NotFound) as error:
        return type(error).__name__


# The bucket -----------------------------------------------------------------------------------


def test_it_is_a_filestore_that_keeps_its_promise(world: World) -> None:
    """One creation wins, objects are seen whole or by ranges, lists come in order and pages, deleting is idempotent."""
    face: FileStore = world.face
    world.store.page_keys = 3

    async def main() -> None:
        assert await asyncio.gather(*(told(face.create("k/race", b"%d" % i)) for i in range(16))) != ["done"] * 16
        assert sum(request.landed for request in world.store.requests) == 1
        await face.create("k/a", b"hello")
        blob = await face.get("k/a", 1, 3)
        assert (blob.data, blob.size) == (b"el", 5)
        for i in range(8):
            await face.create(f"l/{i}", b"")
        assert [listed.key async for listed in face.list("l/", after="l/1")] == [f"l/{i}" for i in range(2, 8)]
        await face.delete("k/a")
        await face.delete("k/a")
        with pytest.raises(NotFound):
            await face.get("k/a")
        with pytest.raises(InvalidArgument):
            await face.create("../etc/passwd", b"")
        await face.aclose()

    world.run(main())
    assert sum(request.verb == "list" for request in world.store.requests) == 3


def test_a_creation_that_returned_is_seen_by_all_who_look_later() -> None:
    """Strong reads: whatever the latencies, a get started after a create returned finds the object."""
    for seed in range(20):
        world = World(seed)
        other = world.store.face(world.loop.process("web-2"), weather=Weather(latency_ms=500))

        async def main(face: StoreFace = world.face, other: StoreFace = other) -> None:
            for i in range(5):
                await face.create(f"k/{i}", b"x")
                await other.get(f"k/{i}")

        world.run(main())
        world.loop.close()


def test_answers_carry_the_stores_own_time() -> None:
    """The store's clock is its own, and may tell whole seconds only, absence and refusal included."""
    world = World(skew_ms=90_000, date_ms=1_000)

    async def main() -> None:
        created_ms = await world.face.create("k", b"")
        blob = await world.face.get("k")
        assert created_ms == blob.modified_ms == blob.now_ms == EPOCH_MS + 90_000
        with pytest.raises(AlreadyExists) as taken:
            await world.face.create("k", b"")
        with pytest.raises(NotFound) as absent:
            await world.face.get("l")
        assert taken.value.now_ms == absent.value.now_ms == EPOCH_MS + 90_000

    world.run(main())
    world.loop.close()


def test_two_contents_under_one_name_end_the_run(world: World) -> None:
    """P4: a name deleted and used again for something else is found out at the creation; the same content is fine."""
    face = world.face

    async def main() -> None:
        await face.create("k", b"one")
        await face.delete("k")
        await face.create("k", b"one")
        await face.delete("k")
        await face.create("k", b"two")

    with pytest.raises(AssertionError, match="P4"):
        world.run(main())


def test_damage_is_done_behind_everybodys_back(world: World) -> None:
    """An object can be lost, or one bit of it flipped, without a request."""

    async def main() -> None:
        await world.face.create("k", b"\x00\x00")
        world.store.flip("k", 9)
        assert (await world.face.get("k")).data == b"\x00\x02"
        world.store.lose("k")
        assert await told(world.face.get("k")) == "NotFound"

    world.run(main())
    assert (len(world.store.requests), world.store.contents()) == (3, {})


# The weather ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "answer", "landed"),
    [
        ("throttled", "Unavailable", {False}),
        ("conflict", "Unavailable", {False}),
        ("unsent", "Unavailable", {False}),
        ("lost", "Unavailable", {True}),
        ("late", "Unavailable", {True}),
        ("silent", "nothing", {True, False}),
    ],
)
def test_each_fault_tells_and_does_what_its_name_says(fault: str, answer: str, landed: set[bool]) -> None:
    """What the caller is told, and whether the object is there an hour later, for every kind of weather."""
    strike: dict[str, Any] = {fault: 1.0}
    found: set[bool] = set()
    for seed in range(12):
        world = World(seed)
        face = world.weather(replace(CALM, **strike))

        async def main(world: World = world, face: StoreFace = face) -> None:
            assert await told(face.create("k", b"x")) == answer
            await asyncio.sleep(3_600)
            found.add("k" in world.store.contents())

        world.run(main())
        world.loop.close()
    assert found == landed


def test_a_late_landing_comes_after_a_404(world: World) -> None:
    """After a refused creation the name is absent for a while, and then the object is there: a 404 proves nothing."""
    face = world.weather(Weather(late=1.0))

    async def main() -> list[str]:
        assert await told(face.create("k", b"x")) == "Unavailable"
        face.weather = CALM
        answers = [await told(face.get("k"))]
        await asyncio.sleep(60)
        return [*answers, await told(face.get("k"))]

    assert world.run(main()) == ["NotFound", "done"]


def test_cancelling_recalls_nothing(world: World) -> None:
    """A creation that its caller stopped waiting for still lands."""
    face = world.weather(Weather(latency_ms=1_000))

    async def main() -> None:
        assert await told(face.create("k", b"x"), timeout=0.001) == "nothing"
        await asyncio.sleep(60)

    world.run(main())
    assert world.store.keys() == ["k"]
    (request,) = world.store.requests
    assert (request.landed, request.outcome) == (True, "cancelled")


def test_what_a_process_sent_lands_though_it_crashed_or_paused(world: World) -> None:
    """Requests under way do not care about their sender; a paused one gets its answer when it goes on."""
    loop, store = world.loop, world.store
    doomed, sleeper = loop.process("doomed"), loop.process("sleeper")
    answered: list[float] = []

    async def create(process: Process, key: str) -> None:
        await store.face(process, weather=Weather(latency_ms=1_000)).create(key, b"")
        answered.append(loop.time())

    async def main() -> None:
        _ = doomed.start(create(doomed, "doomed"))
        _ = sleeper.start(create(sleeper, "sleeper"))
        await asyncio.sleep(0)
        doomed.crash()
        sleeper.pause()
        await asyncio.sleep(3_600)
        assert answered == []
        sleeper.resume()
        await asyncio.sleep(1)

    world.run(main())
    assert store.keys() == ["doomed", "sleeper"]
    assert answered == pytest.approx([3_600.0])


def test_the_last_words_of_the_dead_send_nothing() -> None:
    """A finally block that runs when the loop is closed cannot reach the store."""
    world = World()

    async def live() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await world.face.create("last-words", b"")

    async def main() -> None:
        _ = world.process.start(live())
        await asyncio.sleep(1)
        world.process.crash()

    world.run(main())
    world.loop.close()
    assert world.store.requests == []


# The history ----------------------------------------------------------------------------------


async def _busy(world: World) -> None:
    """Twenty clients in all weathers."""

    async def client(i: int) -> None:
        process = world.loop.process(f"p{i}")
        weather = Weather(slow=0.1, throttled=0.1, conflict=0.1, unsent=0.1, lost=0.1, late=0.1, silent=0.1)
        face = world.store.face(process, weather=weather)
        calls: list[Callable[[int], Coroutine[Any, Any, Any]]] = [
            lambda j: face.create(f"k/{j}", b"same for all"),
            lambda j: face.get(f"k/{j}"),
            lambda j: face.delete(f"k/{j}"),
        ]
        for j in range(10):
            await told(process.start(told(calls[(i + j) % 3](j), timeout=5)))  # type: ignore[arg-type]

    await asyncio.gather(*(client(i) for i in range(20)))


def test_equal_seeds_give_equal_histories() -> None:
    """The digest of everything asked and answered is a function of the seed."""

    def digest(seed: int) -> str:
        world = World(seed)
        world.run(_busy(world))
        world.loop.close()
        return world.store.digest()

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_the_history_reads_like_a_story(world: World) -> None:
    """Each request prints on one line: when, who, what, what it did, what its caller was told."""

    async def main() -> None:
        await told(world.weather(Weather(latency_ms=0)).create("k", b"x"))
        await told(world.weather(Weather(latency_ms=0, unsent=1.0)).get("k"))

    world.run(main())
    assert [str(request) for request in world.store.requests] == [
        "0.0000 web-1      create k 2d711642b726 arrived=0.0000 created answered=0.0000 created",
        "0.0000 web-1      get    k arrived=never - answered=0.0000 unavailable",
    ]


def test_weather_may_strike_some_verbs_only(world: World) -> None:
    """A store may refuse creations while it still answers other requests."""

    async def main() -> list[str]:
        await world.face.create("k", b"")
        face = world.weather(Weather(throttled=1.0, verbs=("create",)))
        return [await told(face.create("l", b"")), await told(face.get("k"))]

    assert world.run(main()) == ["Unavailable", "done"]


def test_one_request_may_have_weather_of_its_own() -> None:
    """Who is asked as each request is sent may strike just that one; the request says what befell it."""

    def only_the_second(_: StoreFace, request: Request) -> Weather | None:
        return Weather(unsent=1.0) if request.number == 1 else None

    world = World(on_send=only_the_second)

    async def scenario() -> list[str]:
        return [await told(world.face.create(f"a/{i}", b"x")) for i in range(3)]

    assert world.process.pauses == 0
    assert world.run(scenario()) == ["done", "Unavailable", "done"]
    assert [request.fault for request in world.store.requests] == ["", "unsent", ""]
    world.loop.close()


def test_a_request_says_whether_its_process_slept_over_it(world: World) -> None:
    """Paused before the answer came, not before it was sent or after."""

    async def scenario() -> None:
        world.weather(replace(CALM, latency_ms=1_000.0))
        asleep = world.process.start(world.face.create("a", b"x"))
        await asyncio.sleep(0)
        world.process.pause()
        await asyncio.sleep(1)
        world.process.resume()
        await asleep
        await world.process.start(world.face.create("b", b"x"))

    world.run(scenario())
    assert [request.slept for request in world.store.requests] == [True, False]
    assert world.process.pauses == 1
