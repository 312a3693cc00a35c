"""One simulated bucket, and the weather between it and each process.

The bucket itself is linearizable and never loses anything; all that goes wrong goes wrong on the
way. A request is *sent*, *arrives* (takes effect, in one instant) or not, and is *answered* or not,
each at its own seeded time. What a caller sees says little about what happened: an answer may be
lost, a creation may land long after its poster gave up, and cancelling a call recalls nothing.

    sent ── may never arrive ──▶ arrives: takes effect ── answer may be lost, late, wrong ──▶ answered

``Weather`` says how often each of that happens. Every request is recorded in ``requests``.

Invariants (checked here, at every creation):
- P4: no name ever holds two contents, not even after deletion (below ``scratch`` it may).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from logstore.errors import AlreadyExists, LogStoreError, NotFound, Unavailable
from logstore.filestore.base import Blob, Listed, check_key, check_prefix, check_range
from logstore.filestore.memory import MemoryStore
from logstore.testing.loop import SimulatedLoop
from logstore.testing.process import Process, ProcessState, SimulatedClock

__all__ = ["CALM", "Request", "SimulatedStore", "StoreFace", "Weather"]

T = TypeVar("T")
Act = Callable[[], Coroutine[Any, Any, T]]  # what a request does when it arrives; never waits


@dataclass(frozen=True, slots=True)
class Weather:
    """How the way to the store behaves: probabilities per request, at most one of which strikes, and times.

    Times are virtual milliseconds. ``latency_ms`` is the mean of one way; ``slow_ms`` what a slow request adds at most.
    """

    latency_ms: float = 3.0
    slow: float = 0.0  # a way that takes up to slow_ms more
    slow_ms: float = 2_000.0
    throttled: float = 0.0  # 503: nothing was done
    conflict: float = 0.0  # 409 for a create: nothing was done, though it sounds like it
    unsent: float = 0.0  # the connection broke before: nothing was done
    lost: float = 0.0  # the connection broke after: it was done
    late: float = 0.0  # the connection broke, the request is under way, lands up to late_ms later
    silent: float = 0.0  # never an answer, until the caller gives up; done, not done, or done late
    late_ms: float = 60_000.0
    verbs: tuple[str, ...] = ()  # which requests it strikes; none named: all


CALM = Weather()


@dataclass(slots=True)
class Request:
    """What became of one request. Times are virtual seconds; None = did not happen."""

    number: int
    process: str
    verb: str
    key: str
    content: str  # the digest of what a create carries
    sent_s: float
    arrived_s: float | None = None
    answered_s: float | None = None
    effect: str = ""  # what it did at the store: created, exists, found, absent, listed, deleted
    outcome: str = ""  # what the caller was told; "" = nothing
    fault: str = ""  # what the weather did to it, as its field is named
    slept: bool = False  # whether its process was paused before it was answered

    @property
    def landed(self) -> bool:
        """Whether it created an object."""
        return self.effect == "created"

    def __str__(self) -> str:
        arrived, answered = _seconds(self.arrived_s), _seconds(self.answered_s)
        return (
            f"{_seconds(self.sent_s)} {self.process:<10} {self.verb:<6} {self.key}"
            f"{' ' + self.content if self.content else ''} arrived={arrived} {self.effect or '-'}"
            f" answered={answered} {self.outcome or '-'}"
        )


class SimulatedStore:
    """The bucket all processes share.

    >>> import asyncio, random
    >>> loop = SimulatedLoop(random.Random(1))
    >>> store = SimulatedStore(loop, random.Random(2))
    >>> face = store.face(loop.process("web-1"))
    >>> loop.run_until_complete(face.create("log/a", b"x")) > 0
    True
    >>> store.requests[0].outcome
    'created'
    >>> loop.close()

    Everybody's invariant: a name is used for one content, for ever (P4); ``scratch`` is excepted, and names that
    ``is_garbage`` calls so when something lands there.

    ``on_send`` is called as each request is sent, in its caller's stack, and may return the weather for this one;
    ``on_request`` when one is over.

    For processes: face. For scenarios: contents, ever, keys, holds, lose, flip, forget, restore. For checkers:
    requests, digest.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        rng: random.Random,
        *,
        remote: bool = False,
        skew_ms: int = 0,
        drift: float = 0.0,
        date_ms: int = 1,
        page_keys: int = 1_000,
        scratch: str = "probe/",
        is_garbage: Callable[[SimulatedStore, str], bool] = lambda _, key: False,
        on_send: Callable[[StoreFace, Request], Weather | None] = lambda _, __: None,
        on_request: Callable[[Request], None] | None = None,
    ) -> None:
        self.loop = loop
        self.remote = remote
        self.clock = SimulatedClock(loop.time, skew_ms=skew_ms, drift=drift)
        self.page_keys = page_keys
        self.requests: list[Request] = []
        self._rng = rng
        self._date_ms = date_ms
        self._scratch = scratch
        self._is_garbage = is_garbage
        self._on_send = on_send
        self._on_request = on_request
        self._bucket = MemoryStore(clock=self.clock)
        self._ever: dict[str, bytes] = {}  # every name ever used, and what it held first

    def __repr__(self) -> str:
        return f"<SimulatedStore {self._bucket!r} requests={len(self.requests)}>"

    def face(self, process: Process | None, *, weather: Weather = CALM) -> StoreFace:
        """Return the FileStore through which ``process`` (None: the world) sees the bucket."""
        return StoreFace(self, process, weather)

    # For scenarios and checkers -----------------------------------------------------------

    def contents(self) -> dict[str, bytes]:
        """Return what the bucket holds now, in key order."""
        return {key: self._look(key) for key in self.keys()}

    def ever(self) -> dict[str, bytes]:
        """Return what every name held that was ever used, in key order: what was deleted, too."""
        return dict(sorted(self._ever.items()))

    def forget(self, key: str) -> None:
        """Damage: the object is lost, and that its name was ever used: whoever takes it anew is not to blame."""
        self.lose(key)
        self._ever.pop(key, None)

    def holds(self, key: str) -> bool:
        """Whether the bucket holds an object of this name now."""
        return key in self.keys(key)

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys of the bucket now, in order."""
        return [listed.key for listed in _at_once(_page(self._bucket, prefix, "", None))]

    def lose(self, key: str) -> None:
        """Damage: the object is gone, as if it never was."""
        _at_once(self._bucket.delete(key))

    def flip(self, key: str, bit: int) -> None:
        """Damage: one bit of the object is another."""
        data = bytearray(self._look(key))
        data[bit // 8 % len(data)] ^= 1 << bit % 8
        self.restore(key, bytes(data))

    def restore(self, key: str, data: bytes) -> None:
        """Undo damage."""
        self.lose(key)
        _at_once(self._bucket.create(key, data))

    def digest(self) -> str:
        """Return one hash over everything that was ever asked and answered: the identity of a run."""
        return hashlib.sha256("\n".join(map(str, self.requests)).encode()).hexdigest()

    def _look(self, key: str) -> bytes:
        return _at_once(self._bucket.get(key)).data

    # Requests -----------------------------------------------------------------------------

    async def ask(self, face: StoreFace, verb: str, key: str, act: Act[T], data: bytes = b"") -> T:
        """Carry one request to the bucket and its answer back, through the weather of ``face``."""
        process = face.process
        if process is not None and process.state is ProcessState.CRASHED:
            await self.loop.create_future()  # only a finally block of the dead can get here: it gets no answer
        content = hashlib.sha256(data).hexdigest()[:12] if verb == "create" else ""
        name = process.name if process else "world"
        request = Request(len(self.requests), name, verb, key, content, self.loop.time())
        self.requests.append(request)
        answer: asyncio.Future[T] = self.loop.create_future()
        way = _Way(self._rng, self._on_send(face, request) or face.weather, verb)
        request.fault = way.fault
        pauses = process.pauses if process else 0
        self._send(way, request, act, answer)
        try:
            result = await answer
        except BaseException as error:
            request.outcome = _outcome(error)
            raise
        else:
            request.outcome = request.effect
            return result
        finally:
            request.answered_s = self.loop.time()
            request.slept = process is not None and process.pauses > pauses
            if self._on_request is not None:
                self._on_request(request)

    def _send(self, way: _Way, request: Request, act: Act[T], answer: asyncio.Future[T]) -> None:
        """Plan when the request arrives and what its caller is told; both happen whatever the caller does."""

        def arrive() -> None:
            result, error = self._act(request, act)
            if not way.answers:
                return
            self._later(way.back_ms, lambda: _settle(answer, result, error))

        if way.there_ms is not None:
            self._later(way.there_ms, arrive)
        if way.refusal is not None:
            refusal = Unavailable(f"{way.refusal} verb={request.verb} key={request.key}")
            self._later(way.back_ms, lambda: _settle(answer, None, refusal))

    def _later(self, ms: float, callback: Callable[[], None]) -> None:
        self.loop.call_later(ms / 1000, callback, context=self.loop.nowhere)

    def _act(self, request: Request, act: Act[T]) -> tuple[T | None, LogStoreError | None]:
        """The instant at which a request takes effect."""
        request.arrived_s = self.loop.time()
        try:
            result = _at_once(act())
        except LogStoreError as error:
            request.effect = _outcome(error)
            if isinstance(error, AlreadyExists | NotFound) and error.now_ms is not None:
                error.now_ms = self.date(error.now_ms)
            return None, error
        request.effect = _EFFECTS[request.verb]
        if request.landed and not request.key.startswith(self._scratch):
            self._remember(request)
        return result, None

    def _remember(self, request: Request) -> None:
        data = self._look(request.key)
        held = self._ever.setdefault(request.key, data)
        is_same = held == data or self._is_garbage(self, request.key)
        assert is_same, f"P4: a name was used for two contents: {request}"

    def date(self, now_ms: int) -> int:
        """The store's time as it tells it: HTTP dates have whole seconds."""
        return now_ms // self._date_ms * self._date_ms


class StoreFace:
    """The FileStore of one process. ``weather`` may be changed at any time."""

    def __init__(self, store: SimulatedStore, process: Process | None, weather: Weather) -> None:
        self.store = store
        self.process = process
        self.weather = weather
        self.remote = store.remote

    def __repr__(self) -> str:
        return f"<StoreFace process={self.process.name if self.process else 'world'} of {self.store!r}>"

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore."""
        check_key(key)
        now_ms = await self.store.ask(self, "create", key, lambda: self.store._bucket.create(key, data), data)
        return None if now_ms is None else self.store.date(now_ms)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore."""
        check_key(key)
        check_range(start, stop)
        blob = await self.store.ask(self, "get", key, lambda: self.store._bucket.get(key, start, stop))
        return Blob(blob.data, blob.size, self._date(blob.modified_ms), self._date(blob.now_ms))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore. Pages are requests of their own: what comes or goes between them is seen or not."""
        check_prefix(prefix)
        while True:
            act = functools.partial(_page, self.store._bucket, prefix, after, self.store.page_keys)
            page = await self.store.ask(self, "list", prefix, act)
            for listed in page:
                yield Listed(listed.key, listed.size, self._date(listed.modified_ms))
            if len(page) < self.store.page_keys:
                return
            after = page[-1].key

    async def delete(self, key: str) -> None:
        """See FileStore."""
        check_key(key)
        await self.store.ask(self, "delete", key, lambda: self.store._bucket.delete(key))

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""

    def _date(self, ms: int | None) -> int | None:
        return None if ms is None else self.store.date(ms)


@dataclass(slots=True)
class _Way:
    """What the weather does to one request: drawn when it is sent.

    ``there_ms``: how long until it arrives, None = never. ``answers``: whether the bucket's answer
    gets back, ``back_ms`` later. ``refusal``: what the caller is told instead, ``back_ms`` after sending.
    ``fault``: what struck it.
    """

    rng: random.Random
    weather: Weather
    verb: str
    there_ms: float | None = field(init=False)
    back_ms: float = field(init=False)
    answers: bool = field(init=False, default=True)
    refusal: str | None = field(init=False, default=None)
    fault: str = field(init=False, default="")

    def __post_init__(self) -> None:
        rng, weather = self.rng, self.weather
        self.there_ms, self.back_ms = self._trip_ms(), self._trip_ms()
        dice = rng.random() if not weather.verbs or self.verb in weather.verbs else 1.0
        for fault in ("throttled", "conflict", "unsent", "lost", "late", "silent"):
            dice -= getattr(weather, fault)
            if dice < 0:
                self._strike(fault)
                return

    def _trip_ms(self) -> float:
        rng, weather = self.rng, self.weather
        trip_ms = rng.expovariate(1 / weather.latency_ms) if weather.latency_ms else 0.0
        if rng.random() < weather.slow:
            self.fault = "slow"
            trip_ms += rng.uniform(0, weather.slow_ms)
        return trip_ms

    def _strike(self, fault: str) -> None:
        self.fault = fault
        late_ms = self.rng.uniform(0, self.weather.late_ms)
        match fault:
            case "throttled":
                self.there_ms, self.answers, self.refusal = None, False, "slow down (503)"
            case "conflict":
                if self.verb == "create":
                    self.there_ms, self.answers, self.refusal = None, False, "conditional request conflict (409)"
            case "unsent":
                self.there_ms, self.answers, self.refusal = None, False, "connection refused"
            case "lost":  # the refusal comes after the arrival
                assert self.there_ms is not None
                self.answers, self.refusal, self.back_ms = False, "connection reset", self.there_ms + self.back_ms
            case "late":
                self.there_ms, self.answers, self.refusal = late_ms, False, "connection reset"
            case "silent":
                self.answers = False
                self.there_ms = self.rng.choice([self.there_ms, None, late_ms])


_EFFECTS = {"create": "created", "get": "found", "list": "listed", "delete": "deleted"}
_OUTCOMES: dict[type[BaseException], str] = {
    AlreadyExists: "exists",
    NotFound: "absent",
    Unavailable: "unavailable",
    asyncio.CancelledError: "cancelled",
    GeneratorExit: "",
}


def _outcome(error: BaseException) -> str:
    return _OUTCOMES.get(type(error), type(error).__name__)


def _seconds(time_s: float | None) -> str:
    return "never" if time_s is None else f"{time_s:.4f}"


def _settle(answer: asyncio.Future[T], result: Any, error: LogStoreError | None) -> None:
    if answer.done():  # the caller gave up
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


async def _page(bucket: MemoryStore, prefix: str, after: str, keys: int | None) -> list[Listed]:
    page: list[Listed] = []
    async for listed in bucket.list(prefix, after):
        page.append(listed)
        if len(page) == keys:
            break
    return page


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("the bucket must not wait")
