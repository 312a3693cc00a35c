"""The simulated loop is asyncio with a time of its own, and processes that can stop and die."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import pytest

from logstore.testing.loop import SimulatedLoop, Stuck
from logstore.testing.process import Process, SimulatedClock, current_process

T = TypeVar("T")


@pytest.fixture
def loop() -> Iterator[SimulatedLoop]:
    loop = SimulatedLoop(random.Random(0), time_s_max=100_000, steps_max=10_000)
    yield loop
    loop.close()


def run(loop: SimulatedLoop, main: Coroutine[Any, Any, T]) -> T:
    return loop.run_until_complete(main)


# Time -----------------------------------------------------------------------------------------


def test_an_hour_takes_a_moment(loop: SimulatedLoop) -> None:
    """Virtual time jumps to the next timer; nothing really sleeps."""
    began = time.perf_counter()
    run(loop, asyncio.sleep(3_600))
    assert round(loop.time()) == 3_600
    assert time.perf_counter() - began < 1


def test_timers_fire_in_order_of_time_and_then_of_making(loop: SimulatedLoop) -> None:
    """Later timers fire later, equal ones first come first served, cancelled ones never."""
    fired: list[str] = []

    async def main() -> None:
        for name, delay in [("c", 3), ("a", 1), ("b", 2), ("b again", 2), ("never", 1)]:
            timer = loop.call_later(delay, fired.append, name)
            if name == "never":
                timer.cancel()
        await asyncio.sleep(4)

    run(loop, main())
    assert fired == ["a", "b", "b again", "c"]


def test_running_takes_a_microsecond(loop: SimulatedLoop) -> None:
    """A chain of ready callbacks takes hardly any time, but some: nobody waits for ever for a time that is near."""

    async def main() -> float:
        for _ in range(1_000):
            await asyncio.sleep(0)
        return loop.time()

    assert run(loop, main()) == pytest.approx(1e-3, rel=0.1)


def test_waiting_for_a_rounding_error_ends(loop: SimulatedLoop) -> None:
    """Who waits until a time, computing anew how long, gets there although the last wait is too short to add."""

    async def main() -> None:
        await asyncio.sleep(1e5 - 1)
        until_s = loop.time() + 0.1
        while (left_s := until_s - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s / 2):
                    await loop.create_future()
            except TimeoutError:
                continue

    run(loop, main())


def test_asyncio_works_as_it_does(loop: SimulatedLoop) -> None:
    """Timeouts, groups, gather, wait, queues and shields behave as on a real loop."""

    async def after(delay: float, value: str) -> str:
        await asyncio.sleep(delay)
        return value

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(10)
        assert round(loop.time(), 3) == 5
        assert tuple(await asyncio.gather(after(2, "x"), after(1, "y"))) == ("x", "y")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(after(i, str(i))) for i in range(3)]
        assert [task.result() for task in tasks] == ["0", "1", "2"]
        done, pending = await asyncio.wait([asyncio.ensure_future(after(9, "z"))], timeout=1)
        assert not done
        (late,) = pending
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(late), 1)
        assert await late == "z"
        queue: asyncio.Queue[int] = asyncio.Queue()
        loop.call_later(1, queue.put_nowait, 7)
        assert await queue.get() == 7

    run(loop, main())


def test_a_thread_answers_after_a_virtual_delay(loop: SimulatedLoop) -> None:
    """to_thread runs inline, later; its result and its exception come through."""

    async def main() -> None:
        assert await asyncio.to_thread(lambda: 6 * 7) == 42
        assert loop.time() > 0
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    run(loop, main())


def test_a_forgotten_generator_is_closed(loop: SimulatedLoop) -> None:
    """An asynchronous generator that nobody finishes runs its finally block, waits included."""
    closed: list[float] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            closed.append(loop.time())

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(2)

    run(loop, main())
    assert closed == pytest.approx([1.0], abs=1e-3)


# Processes ------------------------------------------------------------------------------------


async def tick(ticks: list[float], every: float = 1.0) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every)
        ticks.append(loop.time())


def test_what_a_process_starts_belongs_to_it(loop: SimulatedLoop) -> None:
    """Tasks, timers and threads inherit the process; the world has none."""
    process = loop.process("web-1")

    async def main() -> list[Process | None]:
        seen: list[Process | None] = [current_process()]
        here = loop.create_future()

        async def child() -> None:
            seen.append(current_process())

        async def parent() -> None:
            await asyncio.create_task(child())
            loop.call_later(1, lambda: here.set_result(current_process()))
            seen.append(await asyncio.to_thread(current_process))
            seen.append(await here)

        await process.start(parent())
        return seen

    assert run(loop, main()) == [None, process, process, process]


def test_a_paused_process_stands_still_and_its_timers_fire_late(loop: SimulatedLoop) -> None:
    """While one process is stopped the others go on; its overdue timer fires when it goes on."""
    stopped, other = loop.process("stopped"), loop.process("other")
    ticks: dict[str, list[float]] = {"stopped": [], "other": []}

    async def main() -> None:
        _ = stopped.start(tick(ticks["stopped"]))
        _ = other.start(tick(ticks["other"]))
        await asyncio.sleep(1.5)
        stopped.pause()
        await asyncio.sleep(9)
        stopped.resume()
        await asyncio.sleep(1.25)

    run(loop, main())
    assert ticks["other"] == pytest.approx(list(range(1, 12)), abs=1e-3)
    assert ticks["stopped"] == pytest.approx([1.0, 10.5, 11.5], abs=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_after_a_pause_an_answer_and_an_overdue_timeout_race(seed: int) -> None:
    """Chance decides which of the two a resumed process sees first, and both happen."""
    outcomes = {seed: _resume_with_both(seed) for seed in range(seed * 8, seed * 8 + 8)}
    assert set(outcomes.values()) == {"answer", "timeout"}


def _resume_with_both(seed: int) -> str:
    loop = SimulatedLoop(random.Random(seed))
    process = loop.process("p")

    async def ask(answer: asyncio.Future[str]) -> str:
        try:
            async with asyncio.timeout(1):
                return await answer
        except TimeoutError:
            return "timeout"

    async def main() -> str:
        answer = loop.create_future()
        asked = process.start(ask(answer))
        await asyncio.sleep(0.5)
        process.pause()
        loop.call_later(0.1, answer.set_result, "answer")
        await asyncio.sleep(5)
        process.resume()
        return await asked

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_crashed_process_does_nothing_more(loop: SimulatedLoop) -> None:
    """SIGKILL runs no finally block and fires no timer, not even when the loop is closed and asked again."""
    process = loop.process("doomed")
    ticks: list[float] = []
    last_words: list[str] = []

    async def live() -> None:
        try:
            await tick(ticks)
        finally:
            last_words.append("sorry")

    async def main() -> None:
        _ = process.start(live())
        await asyncio.sleep(2.5)
        process.pause()
        process.crash()
        process.resume()
        await asyncio.sleep(10)
        assert (len(ticks), last_words) == (2, [])

    run(loop, main())


def test_closing_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    """Whatever the finally blocks of forgotten tasks do, closing the loop ends them without a warning or complaint."""
    loop = SimulatedLoop(random.Random(0))
    process = loop.process("doomed")

    started: list[asyncio.Task[None]] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(1)
            started.append(asyncio.create_task(asyncio.sleep(1)))
            await loop.create_future()

    async def main() -> None:
        _ = process.start(stubborn())
        started.append(asyncio.create_task(stubborn()))
        await asyncio.sleep(1)
        process.crash()

    loop.run_until_complete(main())
    loop.close()
    loop.close()
    assert loop.is_closed()
    assert loop.complaints == []
    assert not recwarn.list


def test_closing_is_silent_inside_a_context_manager_that_is_a_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits in the end of one waits in a throw, not in a step: what that waits for is ended first, too."""
    loop = SimulatedLoop(random.Random(0))
    process = loop.process("doomed")
    unraisable: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)

    class Slow:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None:
            for _ in range(3):
                await asyncio.sleep(1)

    @asynccontextmanager
    async def nested() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(Slow())
            yield

    async def live() -> None:
        async with nested():
            await asyncio.sleep(1_000)

    async def main() -> None:
        _ = process.start(live())
        await asyncio.sleep(1)
        process.crash()

    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert unraisable == []


# Ends -----------------------------------------------------------------------------------------


def test_a_deadlock_is_told_with_who_waits_where(loop: SimulatedLoop) -> None:
    """When nothing can ever run again, Stuck names each waiting task and its place."""

    async def wait_for_godot() -> None:
        await loop.create_future()

    async def main() -> None:
        await loop.process("vladimir").start(wait_for_godot(), name="tree")

    with pytest.raises(Stuck, match=r"nothing left to run(.|\n)*tree: .*wait_for_godot:\d+"):
        run(loop, main())


def test_waiting_for_the_dead_is_a_deadlock(loop: SimulatedLoop) -> None:
    """The tasks of a crashed process never end, and who waits for them is found out."""
    process = loop.process("dead")

    async def main() -> None:
        task = process.start(asyncio.sleep(1))
        process.crash()
        await task

    with pytest.raises(Stuck, match="world"):
        run(loop, main())


def test_time_and_steps_are_bounded() -> None:
    """What polls for ever, or spins without letting time pass, is Stuck."""

    async def poll(delay: float) -> None:
        while True:  # noqa: ASYNC110  spinning is the point
            await asyncio.sleep(delay)

    for delay, bounds in [(1.0, {"time_s_max": 100}), (0.0, {"steps_max": 1_000})]:
        loop = SimulatedLoop(random.Random(0), **bounds)
        with pytest.raises(Stuck, match="still running"):
            loop.run_until_complete(poll(delay))
        loop.close()


def test_a_failing_callback_ends_the_run(loop: SimulatedLoop) -> None:
    """An exception in a callback (a checker in the store, say) is raised out of the run at once."""

    async def main() -> None:
        loop.call_later(1, lambda: 1 // 0)
        await asyncio.sleep(10)

    with pytest.raises(ZeroDivisionError):
        run(loop, main())
    assert round(loop.time(), 3) == 1


def test_lost_exceptions_are_complaints_except_of_the_dead() -> None:
    """A task whose exception nobody took is noticed, unless its process has crashed."""
    loop = SimulatedLoop(random.Random(0))
    alive, dead = loop.process("alive"), loop.process("dead")

    async def fail() -> None:
        raise ValueError("nobody listens")

    async def main() -> None:
        _ = alive.start(fail())
        _ = dead.start(fail())
        await asyncio.sleep(1)
        dead.crash()

    loop.run_until_complete(main())
    loop.close()
    (complaint,) = loop.complaints
    assert "alive" in complaint
    assert "nobody listens" in complaint


def test_what_a_crashed_process_gathered_is_lost_with_it() -> None:
    """A gathering whose exception nobody took is a complaint too, unless it was made in a process that has crashed."""
    loop = SimulatedLoop(random.Random(0))
    alive, dead = loop.process("alive"), loop.process("dead")
    held: list[asyncio.Future[tuple[None, None]]] = []

    async def fail() -> None:
        raise ValueError("nobody listens")

    async def gather() -> None:
        held.append(asyncio.gather(fail(), fail()))
        await asyncio.sleep(10)

    async def main() -> None:
        _ = alive.start(gather())
        _ = dead.start(gather())
        await asyncio.sleep(1)
        dead.crash()
        held.clear()

    loop.run_until_complete(main())
    loop.close()
    (complaint,) = loop.complaints
    assert "_GatheringFuture exception was never retrieved" in complaint


def test_sets_of_tasks_and_futures_have_one_order() -> None:
    """Iterating over a set of tasks is the same in every run: they hash by serial number, not by address."""

    def order() -> list[str]:
        loop = SimulatedLoop(random.Random(0))

        async def main() -> list[str]:
            garbage = [object() for _ in range(random.randrange(1_000))]  # shifts addresses, and only those
            tasks = {loop.create_task(asyncio.sleep(1), name=str(i)) for i in range(100)}
            del garbage
            return [task.get_name() for task in tasks]

        names = loop.run_until_complete(main())
        loop.close()
        return names

    assert order() == order()


# Clocks ---------------------------------------------------------------------------------------


def test_clocks_are_skewed_drift_and_step(loop: SimulatedLoop) -> None:
    """A wall clock differs by skew, drift and steps; the elapsed clock by drift alone, and pauses count."""
    true, fast = loop.process("true").clock, loop.process("fast", skew_ms=500, drift=0.01)
    run(loop, asyncio.sleep(100))
    fast.pause()
    run(loop, asyncio.sleep(100))
    assert (true.elapsed_ms(), fast.clock.elapsed_ms()) == (200_000, 202_000)
    assert fast.clock.wall_ms() - true.wall_ms() == 2_500
    fast.clock.step(-10_000)
    assert fast.clock.wall_ms() - true.wall_ms() == -7_500
    assert fast.clock.elapsed_ms() == 202_000
    assert repr(SimulatedClock(lambda: 0.0, skew_ms=3)) == "<SimulatedClock ahead_ms=3>"
