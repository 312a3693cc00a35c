"""The one event loop behind the sync face: in a thread of its own, started at the first use, ended with the process.

Callers in any thread hand it a coroutine and wait (``wait``), or look at what only the loop changes (``look``). The
loop has the *turn* while it runs, and leaves it while it rests, waiting for sockets, threads and timers. Whoever looks
takes the turn if it is free, and looks in its own thread; where it is not, the loop looks for it, as its next step.

Why not always: measured on two cores, a look in one's own thread takes 1 microsecond, one by the loop 30, for it
changes threads twice; and with three other threads that compute 26 milliseconds, for each change may wait for the
interpreter.

Invariants:
- What the asyncio API changes between two awaits nobody sees half changed: all look in turn.
- Who looks wakes nothing and starts nothing: a loop that rests would not notice.
- A call that waits ends: with what its coroutine ends with, or with an error that says what kept it from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import logging
import os
import selectors
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import aclosing, suppress
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar

from logstore.errors import InvalidArgument, LogStoreError
from logstore.notices import Notices

__all__ = ["Background", "Face", "Iteration", "inner", "iterate", "look", "wait"]

_say = Notices(logging.getLogger(__name__))

END_S: Final = 1.0  # what closing everything at the end of the process may take
LEAVE_S: Final = 0.2  # how long a call may go on whose ``with`` was left in another thread
_FORKED: Final = "this was opened before the process forked, and its thread is not in this one; open it again here"
_ENDED: Final = "the process is ending, and what was open is closed; join your threads before"
_CANCELLED: Final = "closed in another thread meanwhile; call again with what is open"
_WITHIN: Final = (
    "this waits for the event loop, and is called by a function that the loop waits for; call it after that, or before"
)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)


class Entered(Protocol):
    """What ``async with`` enters."""

    async def __aenter__(self) -> object:
        """Open it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> object:
        """Close it."""
        ...


class _Turn(selectors.DefaultSelector):
    """Whose turn it is; and the loop's selector, which leaves the turn for as long as it waits."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.owner = 0  # the thread that has it; a hint to all others
        self.is_free = False  # a hint: the loop rests

    def take(self) -> None:
        """It is the loop's."""
        self.is_free = False  # whoever looks from now on queues behind the loop
        self.lock.acquire()
        self.owner = threading.get_ident()

    def leave(self) -> None:
        """It is anybody's."""
        self.owner = 0
        self.lock.release()
        self.is_free = True

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.leave()
        try:
            return super().select(timeout)
        finally:
            self.take()


class _Call(concurrent.futures.Future[T]):
    """What a thread waits for."""

    def __init__(self, within: Face[Any] | None) -> None:
        super().__init__()
        self.within = within
        self.task: asyncio.Task[T] | None = None
        self.is_daemons = threading.current_thread().daemon

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """On the loop: begin."""
        self.task = asyncio.get_running_loop().create_task(coroutine)
        self.task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        error = InvalidArgument(_CANCELLED) if task.cancelled() else task.exception()
        if self.done() or self.task is None:
            return
        if error is not None:
            self.set_exception(error)
        else:
            self.set_result(task.result())

    def cancel_task(self) -> None:
        """On the loop: let it be cancelled, if it has not ended; not before its first step: what is left is left."""
        if self.task is not None:
            asyncio.get_running_loop().call_soon(self.task.cancel)

    def revoke(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """On the loop: let it not begin, or be cancelled if it has."""
        if self.task is not None:
            self.cancel_task()
        else:
            coroutine.close()
            self.cancel()

    def abandon(self) -> None:
        """On the loop: let its thread wait for ever. It is a daemon, and the process is ending."""
        self.task = None

    def is_within(self, face: Face[Any]) -> bool:
        """Whether it was called of ``face``, or of what that handed out."""
        within = self.within
        while within is not None and within is not face:
            within = within._within
        return within is not None


class Background:
    """A thread with an event loop. ``current()`` is the process's."""

    _current: Background | None = None
    _starting = threading.Lock()
    _is_too_late = False
    _inherited: Final[list[Background]] = []  # after a fork: kept, for what they refer to shares files with the parent

    @classmethod
    def current(cls) -> Background:
        """The loop of this process, started unless it runs. Raises InvalidArgument when the process is ending."""
        if (current := cls._current) is None:
            with cls._starting:
                if (current := cls._current) is None:
                    if cls._is_too_late:
                        raise InvalidArgument(_ENDED)
                    current = cls._current = cls()
        return current

    def __init__(self) -> None:
        self._turn = _Turn()
        self._loop = asyncio.SelectorEventLoop(self._turn)
        self._gate = threading.RLock()  # a finalizer may come through while its thread is in it
        self._over = ""  # why nothing runs here any more
        self._calls: set[_Call[Any]] = set()
        self._open: dict[int, Entered] = {}
        self._closing: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="logstore", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Background open={len(self._open)} calls={len(self._calls)}{self._over and ' over'}>"

    def _run(self) -> None:
        self._turn.take()
        try:
            while not self._over:
                with suppress(KeyboardInterrupt, SystemExit):  # of a caller's function: its caller gets it
                    self._loop.run_forever()
        finally:
            self._turn.leave()
            self._loop.close()

    # Waiting and looking

    def wait(self, coroutine: Coroutine[Any, Any, T], within: Face[Any] | None = None) -> T:
        """Return what ``coroutine`` returns; an interrupt of this thread cancels it, and waits until it has ended.

        Cost: some 40 microseconds besides. Raises what it raises; InvalidArgument where nobody would run it.
        """
        return self.result(self.start(coroutine, within))

    def start(self, coroutine: Coroutine[Any, Any, T], within: Face[Any] | None) -> _Call[T]:
        """Begin a call; ``result`` waits for it."""
        call = _Call[T](within)
        try:
            if self._turn.owner == threading.get_ident():
                raise InvalidArgument(_WITHIN)
            self._submit(call, partial(call.begin, coroutine))
        except InvalidArgument:
            coroutine.close()
            raise
        except BaseException:  # interrupted: only the loop knows whether it has begun
            self._soon(partial(call.revoke, coroutine))
            raise
        return call

    def result(self, call: _Call[T]) -> T:
        """Wait until a call has ended, and return what it returned."""
        try:
            return call.result()
        except BaseException:
            if not call.done():  # it is this thread that was interrupted
                self.stop(call)
            raise

    def stop(self, call: _Call[Any]) -> None:
        """Cancel a call, and wait until it has ended."""
        self._soon(call.cancel_task)
        concurrent.futures.wait([call])

    def look(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what a function returns that does not wait, called while nothing changes. See above for the cost."""
        turn = self._turn
        if turn.owner == threading.get_ident():
            return function(*args, **kwargs)
        if self._over:
            raise InvalidArgument(self._over)
        if turn.is_free and not turn.lock.locked():
            with turn.lock:  # not ``acquire``: no interrupt comes between taking it and being bound to leave it
                turn.owner = threading.get_ident()
                try:
                    return function(*args, **kwargs)
                finally:
                    turn.owner = 0
        call = _Call[R](None)
        self._submit(call, partial(_look, call, partial(function, *args, **kwargs)))
        return call.result()

    def _submit(self, call: _Call[Any], begin: Callable[[], None]) -> None:
        with self._gate:
            if self._over:
                raise InvalidArgument(self._over)
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            self._loop.call_soon_threadsafe(begin)

    def _soon(self, callback: Callable[[], object]) -> None:
        with self._gate:
            if not self._over:
                self._loop.call_soon_threadsafe(callback)

    def close_soon(self, iterator: AsyncGenerator[Any, None]) -> None:
        """Close an iterator that nobody refers to any more. Waits for nothing: any thread's collector may call it."""
        self._soon(partial(self._close, iterator))

    def _close(self, iterator: AsyncGenerator[Any, None]) -> None:
        self._note_closing(self._loop.create_task(_closed(iterator)))

    def _note_closing(self, task: asyncio.Task[Any]) -> None:
        """Refer to a task until it has ended; the end of the process waits for it."""
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # What is open

    async def enter(self, entered: Entered) -> None:
        """Open; what is not closed before the process ends is closed then."""
        await entered.__aenter__()
        self._open[id(entered)] = entered

    async def leave(
        self,
        face: Face[Any],
        entered: Entered,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; calls that other threads are waiting for within it end then."""
        this = asyncio.current_task()
        assert this is not None
        self._open.pop(id(entered), None)
        self._note_closing(this)
        try:
            await entered.__aexit__(kind, error, traceback)
        finally:
            tasks = {call.task for call in self._calls if call.task and call.task is not this and call.is_within(face)}
            await _end_tasks(tasks, LEAVE_S)

    def let_go(self, entered: Entered) -> None:
        """Close what an interrupt kept from being left, as after an error; nothing if it was left."""
        self._soon(lambda: self._loop.call_soon(self._let_go, entered))  # behind the first step of leaving, if it began

    def _let_go(self, entered: Entered) -> None:
        if self._open.pop(id(entered), None) is not None:
            self._note_closing(self._loop.create_task(_give_up(entered)))

    # Ending

    def end(self) -> None:
        """Close what is open, last opened first; what takes too long is left as it is. Then nothing runs any more."""
        with self._gate:
            if self._over:
                return
            self._over = _ENDED
            self._loop.call_soon_threadsafe(self._begin_ending)
        self._thread.join(3 * END_S)

    def _begin_ending(self) -> None:
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        for call in self._calls:
            if call.is_daemons:
                call.abandon()
        try:
            async with asyncio.timeout(END_S):
                if self._closing:
                    await asyncio.wait(self._closing)
                for entered in reversed(list(self._open.values())):
                    await _give_up(entered)
        except TimeoutError:
            _say("left-open", what=[repr(entered) for entered in self._open.values()])
        for call in list(self._calls):
            if call.task is not None and not call.done():
                call.set_exception(InvalidArgument(_ENDED))
        await _end_tasks({task for task in asyncio.all_tasks() if task is not self._ending}, 0)
        self._loop.stop()

    @classmethod
    def end_current(cls) -> None:
        """The main thread has ended: before the threads that stores work in do, close what is open."""
        with cls._starting:
            cls._is_too_late = True
        if cls._current is not None:
            cls._current.end()

    @classmethod
    def forget_parents(cls) -> None:
        """In a process just forked: whatever was open is the parent's."""
        cls._starting = threading.Lock()
        if (parents := cls._current) is not None:
            parents._over, parents._gate, parents._turn.owner = _FORKED, threading.RLock(), 0
            cls._inherited.append(parents)
            cls._current = None


threading._register_atexit(Background.end_current)  # type: ignore[attr-defined]  # ``atexit`` is too late: see above
os.register_at_fork(after_in_child=Background.forget_parents)


async def _end_tasks(tasks: set[asyncio.Task[Any]], patience_s: float) -> None:
    """Wait for tasks to end, then make them."""
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=patience_s)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LEAVE_S)


async def _give_up(entered: Entered) -> None:
    """Close, as after an error: nobody said that what is under way is to be done. Nor is anybody told how that went."""
    error = SystemExit("its with was not left")
    try:
        await entered.__aexit__(type(error), error, None)
    except Exception as error:  # noqa: BLE001 - others are to be closed, too
        _say("closed-badly", what=repr(entered), error=error)


async def _closed(iterator: AsyncGenerator[Any, None]) -> None:
    with suppress(Exception):  # nobody is left to be told
        await iterator.aclose()


def _look(call: _Call[R], function: Callable[[], R]) -> None:
    try:
        call.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it is the caller's
        call.set_exception(error)


class Iteration(Generator[T, None, None]):
    """What an asynchronous iterator yields, as a plain one; for one thread at a time.

    ``close``, in any thread, ends it, also while another one waits in it. So does letting go of it.
    """

    def __init__(
        self, behind: Background, batches: AsyncGenerator[Iterable[T], None], within: Face[Any] | None
    ) -> None:
        self._behind = behind
        self._batches = batches
        self._within = within
        self._batch: Iterator[T] = iter(())
        self._step: _Call[Iterable[T] | None] | None = None
        self._lock = threading.Lock()
        self._is_closed = False  # by ``close``
        self._is_over = False
        self.is_interrupted = False  # ended by something else than its end

    def __repr__(self) -> str:
        return f"<Iteration of {self._batches!r}{' over' if self._is_over else ''}>"

    def send(self, value: None, /) -> T:
        """Return the next; what ``for`` calls."""
        while True:
            for item in self._batch:
                return item
            batch = self._next_batch()
            if batch is None:
                raise StopIteration
            self._batch = iter(batch)

    def _next_batch(self) -> Iterable[T] | None:
        with self._lock:
            if self._is_over:
                return None
            if self._step is not None:
                raise ValueError("another thread is waiting in this iterator; give each its own")
            self._step = step = self._behind.start(_next(self._batches), self._within)
        try:
            batch = self._behind.result(step)
        except BaseException as error:
            if self._is_closed and isinstance(error, LogStoreError):  # by another thread
                return None
            self._is_over = self.is_interrupted = True
            raise
        finally:
            self._step = None
        self._is_over = batch is None or self._is_closed
        return None if self._is_over else batch

    def throw(self, kind: Any, value: Any = None, traceback: TracebackType | None = None, /) -> T:
        """End it, and raise."""
        self.close()
        return super().throw(kind, value, traceback)

    def close(self) -> None:
        """End it, and return when it has ended; a thread that waits in it is told that there is no more."""
        with self._lock:  # from here on no step begins
            self.is_interrupted = self.is_interrupted or not self._is_over
            self._is_closed = self._is_over = True
            self._batch = iter(())
            step = self._step
        if step is not None:
            self._behind.stop(step)
        self._behind.wait(self._batches.aclose(), self._within)

    def __del__(self) -> None:
        self._behind.close_soon(self._batches)


async def _next(batches: AsyncGenerator[T, None]) -> T | None:
    return await anext(batches, None)


async def _one_by_one(items: AsyncGenerator[T, None]) -> AsyncGenerator[Iterable[T], None]:
    async with aclosing(items):
        async for item in items:
            yield (item,)


class Face(Generic[A_co]):
    """An object of the asyncio API, seen from outside its loop. ``within``: what handed it out."""

    _events: Iteration[Any] | None = None

    def __init__(self, inner: A_co, within: Face[Any] | None = None) -> None:
        self._inner = inner
        self._within = within
        self._behind: Background = Background.current() if within is None else within._behind

    def __repr__(self) -> str:
        return f"<sync {self._inner!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Face) and self._inner is other._inner

    def __hash__(self) -> int:
        return id(self._inner)

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._behind.wait(coroutine, self)

    def _look(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._behind.look(function, *args, **kwargs)

    def _iterate(self, items: AsyncGenerator[T, None]) -> Iteration[T]:
        return Iteration(self._behind, _one_by_one(items), self)

    def _resume(self, by_batch: Callable[[], AsyncGenerator[Iterable[T], None]]) -> Iteration[T]:
        """The one iteration of what is an iterator itself; a new one where that was interrupted, which goes on."""
        if self._events is None or self._events.is_interrupted:
            self._events = Iteration(self._behind, by_batch(), self._within)
        return self._events

    def _enter(self: Face[Entered]) -> None:
        self._behind.wait(self._behind.enter(self._inner), self)

    def _exit(
        self: Face[Entered],
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._behind.wait(self._behind.leave(self, self._inner, kind, error, traceback), self)
        except BaseException:
            self._behind.let_go(self._inner)
            raise


def inner(face: Face[T]) -> T:
    """What is behind a face. Raises InvalidArgument for what has none."""
    if not isinstance(face, Face):
        raise InvalidArgument(f"needs what the sync face opened, not the asyncio API given={face!r:.60}")
    return face._inner


def wait(coroutine: Coroutine[Any, Any, T], within: Face[Any] | None = None) -> T:
    """See ``Background.wait``."""
    return Background.current().wait(coroutine, within)


def look(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """See ``Background.look``."""
    return Background.current().look(function, *args, **kwargs)


def iterate(items: AsyncGenerator[T, None], within: Face[Any]) -> Iteration[T]:
    """Return what an asynchronous iterator yields, as a plain one."""
    return within._iterate(items)
