"""An event loop whose time is a number, and whose every run is a replay.

It runs what is ready, in order; when nothing is, it jumps to the next timer. Nothing ever
sleeps, so an hour of a system's life takes a moment. All that is random comes from one
``random.Random``; equal seeds give equal runs. That needs more than a seed:

- tasks and futures hash by a serial number, so that sets of them have one order;
- the garbage collector is off while it runs, so that finalizers have one time;
- "threads" (``asyncio.to_thread``) run inline and answer after a virtual delay.

Tasks may belong to a ``Process`` that is paused or has crashed; see ``process.py``.

Invariants:
- Time never goes back. A callback takes a microsecond; when none is ready, time jumps to the next timer.
- A run ends with the result, with an error, or with ``Stuck``: never by hanging.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import itertools
import random
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import suppress
from types import AsyncGeneratorType
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

from logstore.testing.process import Process, ProcessState, SimulatedClock, current_process

__all__ = ["SimulatedLoop", "Stuck"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CALLBACK_S = 1e-6  # running takes time, if little: who waits in a loop for a rounding error gets past it
CLOSE_ATTEMPTS_MAX = 100  # a coroutine may wait in its finally blocks; each attempt gets past one wait
_STEPS = ("async_generator_asend", "async_generator_athrow")


class Stuck(AssertionError):
    """The simulation cannot end: nothing is left to run, or a bound is passed. The message says who waits."""


class _Future(asyncio.Future[Any]):
    """A future with one place in every set, that knows the process it was made in."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.serial = loop.next_serial()
        self.process = current_process()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.serial


class _Task(asyncio.Task[Any]):
    """A task with one place in every set, that knows its process."""

    def __init__(
        self,
        coroutine: Generator[Any, None, Any] | Coroutine[Any, Any, Any],
        loop: SimulatedLoop,
        name: object,
        context: contextvars.Context,
    ) -> None:
        self.serial = loop.next_serial()
        self.process = current_process(context)
        owner = self.process.name if self.process else "world"
        super().__init__(coroutine, loop=loop, name=str(name or f"{owner}/{self.serial}"), context=context)

    def __hash__(self) -> int:
        return self.serial


class _Handle(asyncio.Handle):
    """A handle made without asking the loop whether it debugs: it never does, and makes a million of them."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: SimulatedLoop,
        context: contextvars.Context | None,
    ) -> None:
        handle: Any = self  # asyncio's own slots, of which nobody says the types
        handle._context = contextvars.copy_context() if context is None else context
        handle._loop, handle._callback, handle._args = loop, callback, args
        handle._cancelled, handle._repr, handle._source_traceback = False, None, None


class _Timer(_Handle, asyncio.TimerHandle):
    """The same for later."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: SimulatedLoop,
        context: contextvars.Context | None,
    ) -> None:
        _Handle.__init__(self, callback, args, loop, context)
        handle: Any = self
        handle._when, handle._scheduled = when, False


class SimulatedLoop(asyncio.BaseEventLoop):
    """Virtual time for asyncio.

    >>> import asyncio, random
    >>> loop = SimulatedLoop(random.Random(1))
    >>> async def nap():
    ...     await asyncio.sleep(3_600)
    ...     return round(loop.time())
    >>> loop.run_until_complete(nap())
    3600
    >>> loop.close()

    Running: run_until_complete, time, steps, close. Processes: process. Debugging: complaints, waiting.
    """

    def __init__(
        self,
        rng: random.Random,
        *,
        time_s_max: float = 1e6,
        steps_max: int = 10_000_000,
        thread_delay_ms_max: float = 2.0,
    ) -> None:
        self._running = False
        super().__init__()
        self._rng = rng
        self._time_s_max = time_s_max
        self._steps_max = steps_max
        self._thread_delay_ms_max = thread_delay_ms_max
        self._time_s = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._serials = itertools.count()
        self._tasks: list[_Task] = []
        self._tasks_max = 256
        self._closed = False
        self.steps = 0
        self.complaints: list[str] = []
        self.nowhere = contextvars.Context()  # belongs to no process: the world, the network, the store

    def __repr__(self) -> str:
        return f"<SimulatedLoop time_s={self._time_s:.3f} steps={self.steps} timers={len(self._timers)}>"

    # Processes ----------------------------------------------------------------------------

    def process(self, name: str, *, skew_ms: int = 0, drift: float = 0.0) -> Process:
        """Return a new process on a machine of its own."""
        return Process(name, SimulatedClock(self.time, skew_ms=skew_ms, drift=drift), self._unpark)

    def _unpark(self, process: Process) -> None:
        """Make ready what was parked.

        A real loop that wakes up finds answers in its sockets and timers overdue at once. Which it
        sees first depends on how many layers an answer has to climb; so here chance decides.
        """
        parked, process.parked = process.parked, []
        timers_first = self._rng.random() < 0.5
        parked.sort(key=lambda handle: isinstance(handle, asyncio.TimerHandle) is not timers_first)
        self._ready.extend(parked)

    # Running ------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._time_s

    def next_serial(self) -> int:
        """A number never given before."""
        return next(self._serials)

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run the world's main task to its end; return its result. Raises Stuck."""
        assert not self._running
        assert not self._closed
        main: asyncio.Future[T]
        if asyncio.isfuture(future):
            main = future
        else:
            main = self.create_task(cast("Coroutine[Any, Any, T]", future), name="world", context=self.nowhere)
        with _Alone(self):
            self._run_until(main)
        return main.result()

    def _run_until(self, main: asyncio.Future[Any]) -> None:
        """Run handle after handle; let time pass when none is ready. What a simulation costs is spent here."""
        ready, is_done = self._ready, main.done
        while not is_done():
            if not ready:
                self._wait()
                continue
            handle: Any = ready.popleft()
            if handle._cancelled:
                continue
            process = current_process(handle._context)
            if process is not None and process.state is not ProcessState.RUNNING:
                if process.state is ProcessState.PAUSED:
                    process.parked.append(handle)
                continue
            self.steps += 1
            self._time_s += CALLBACK_S
            if self.steps > self._steps_max:
                raise Stuck(
                    f"still running after steps={self.steps} time_s={self._time_s:.3f}; who waits:\n{self.waiting()}"
                )
            handle._context.run(handle._callback, *handle._args)  # what it raises ends the run

    def _wait(self) -> None:
        """Jump to the next timer."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise self._stuck("nothing left to run")
        self._time_s = max(self._time_s, self._timers[0][0])
        if self._time_s > self._time_s_max:
            raise self._stuck("still running")
        while self._timers and self._timers[0][0] <= self._time_s:
            self._ready.append(heapq.heappop(self._timers)[2])

    def _stuck(self, what: str) -> Stuck:
        return Stuck(f"{what} time_s={self._time_s:.3f}; who waits:\n{self.waiting()}")

    def waiting(self) -> str:
        """Tell, line by line, what every unfinished task of every living process waits for."""
        alive = [t for t in self._tasks if not t.done() and not (t.process and t.process.state is ProcessState.CRASHED)]
        return "\n".join(f"  {task.get_name()}: {_where(task)}" for task in alive)

    def is_running(self) -> bool:
        """Whether ``run_until_complete`` is active."""
        return self._running

    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def close(self) -> None:
        """Forget all tasks, as a power cut would, without a sound; what they complained about is in ``complaints``."""
        if self._closed:
            return
        self._ready.clear()
        self._timers.clear()
        with _Alone(self):
            while self._tasks:  # closing one may start another
                tasks, self._tasks = self._tasks, []
                for task in tasks:
                    if not task.done():
                        _bury(task)
            self._closed = True
            self._ready.clear()
            self._timers.clear()
            gc.collect()

    # What asyncio needs -------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run ``callback`` after what is ready now."""
        handle = _Handle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """The same as ``call_soon``: there is one thread."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` after ``delay`` virtual seconds."""
        return self.call_at(self._time_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run ``callback`` at a virtual time."""
        timer = _Timer(when, callback, args, self, context)
        if not self._closed:
            heapq.heappush(self._timers, (when, self.next_serial(), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer stays in the heap until its time has come."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return _Future(self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """A task of this loop, of the process that creates it unless ``context`` says otherwise."""
        task = _Task(coro, self, name, contextvars.copy_context() if context is None else context)
        if len(self._tasks) >= self._tasks_max:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._tasks_max = max(256, 2 * len(self._tasks))
        self._tasks.append(task)
        return task

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run ``func`` as if in a thread: its result comes after a virtual delay, cancelled or not."""
        future = self.create_future()

        def run() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  whatever it is, it is the caller's
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self._rng.uniform(0, self._thread_delay_ms_max) / 1000, run)
        return future

    def get_debug(self) -> bool:
        """Never: asyncio's debug mode reads real clocks."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio reports, without ending the run for it, is kept in ``complaints``."""
        task = context.get("task") or context.get("future")
        process = _process_of(task)
        if process is None or process.state is not ProcessState.CRASHED:
            self.complaints.append(f"{context['message']}: {task!r} {context.get('exception')!r}")

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: ``close`` forgets them."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: there are no threads."""

    def finalize_asyncgen(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close a forgotten asynchronous generator in a task of the process that forgot it."""
        if not self._closed:
            self.call_soon(lambda: self.create_task(_aclose(generator)))


def _process_of(awaitable: object) -> Process | None:
    """The process of a task; of what gathers several, that of the first."""
    children = getattr(awaitable, "_children", ())  # of asyncio.gather's future, which has no task of its own
    return _process_of(children[0]) if children else getattr(awaitable, "process", None)


class _Alone:
    """While entered: the running loop, no garbage collection, our own finalizer of asynchronous generators."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._collecting = gc.isenabled()
        gc.disable()
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=lambda generator: None, finalizer=self._loop.finalize_asyncgen)
        self._loop._running = True
        asyncio._set_running_loop(self._loop)

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)
        self._loop._running = False
        sys.set_asyncgen_hooks(*self._hooks)
        if self._collecting:
            gc.enable()


async def _aclose(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


def _bury(task: asyncio.Task[Any]) -> None:
    """End the coroutine of a task that will never run again, however often its finally blocks want to wait."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    _end(task.get_coro())


def _end(waiter: Any) -> None:
    """End what waits, and first what it waits for: an outer one, ended, would leave the inner to the collector."""
    for _ in range(CLOSE_ATTEMPTS_MAX if hasattr(waiter, "close") else 0):
        if (inner := _awaited_by(waiter)) is not None:
            _end(inner)
        with suppress(BaseException):  # the finally blocks of the dead: "coroutine ignored GeneratorExit" and worse
            waiter.close()
        if (getattr(waiter, "cr_frame", None) or getattr(waiter, "gi_frame", None)) is None:
            return


def _awaited_by(waiter: Any) -> Any:
    """What a coroutine, a generator, or the step of an asynchronous generator waits for."""
    if type(waiter).__name__ in _STEPS:  # which do not say whose they are
        waiter = next(each for each in gc.get_referents(waiter) if isinstance(each, AsyncGeneratorType))
    names = ("cr_await", "gi_yieldfrom", "ag_await")
    return next((inner for name in names if (inner := getattr(waiter, name, None)) is not None), None)


def _where(task: asyncio.Task[Any]) -> str:
    """The innermost places of a suspended task, outermost first."""
    places: list[str] = []
    waiter: Any = task.get_coro()
    while waiter is not None:
        frame = getattr(waiter, "cr_frame", None) or getattr(waiter, "gi_frame", None)
        if frame is not None:
            places.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        waiter = _awaited_by(waiter)
    return " > ".join(places[-6:]) or repr(task)
