"""Behaviour around a store: trying again, counting, and tracing.

Each is a ``FileStore`` around a ``FileStore``. The usual stack is
``RetryingStore(MeteredStore(backend))``: every attempt is counted, because every attempt is billed.

Invariants:
- A wrapper adds no state of its own to what the store holds, and never changes a key or a byte.
- ``RetryingStore`` ends: attempts, each attempt's time and the time of all together are bounded.
- An outcome that was ambiguous stays so: AlreadyExists after a lost answer is passed on as AlreadyExists.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TypeVar

from logstore.clock import Clock, SystemClock
from logstore.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable
from logstore.filestore.base import Blob, FileStore, Listed
from logstore.spans import Tracer, span_of

__all__ = ["MeteredStore", "RetrySettings", "RetryingStore", "StoreStatistics", "TracedStore", "VerbStatistics"]

T = TypeVar("T")

PAGE_KEYS = 1_000  # S3 answers a LIST in pages of that many keys and bills each


# Trying again -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How long ``RetryingStore`` goes on. Times in milliseconds; every number is at least 1."""

    attempts_max: int = 8
    attempt_timeout_ms: int = 10_000
    deadline_ms: int = 30_000
    pause_first_ms: int = 50
    pause_max_ms: int = 2_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:  # the deadline goes into open entries: a fraction would ruin them
                raise InvalidArgument(f"needs a whole number, at least 1 {field.name}={value!r:.40}")

    def pause_ceiling_ms(self, failures: int) -> int:
        """The longest pause after that many failures: it doubles each time, up to ``pause_max_ms``.

        >>> [RetrySettings().pause_ceiling_ms(failures) for failures in (1, 2, 3, 99)]
        [50, 100, 200, 2000]
        """
        return min(self.pause_max_ms, self.pause_first_ms << min(failures - 1, 32))


class RetryingStore:
    """Tries again what was Unavailable or took too long, within ``settings``; then raises Unavailable.

    Pauses are random between zero and a ceiling that doubles (full jitter), so that callers who
    failed together do not come back together. AlreadyExists, NotFound and all other errors pass
    through at once. A create that gave up, or met AlreadyExists, may have landed: read the object to learn.
    ``list`` goes on behind the last key it yielded, and counts attempts and time anew from there.
    ``retries``: how often it tried again, by verb.
    Cost: that of the store, times ``attempts_max`` at worst.
    """

    def __init__(
        self,
        store: FileStore,
        settings: RetrySettings | None = None,
        *,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self.remote = store.remote
        self._settings = settings or RetrySettings()
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()
        self._sleep = sleep
        self.retries: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<RetryingStore {self._store!r}>"

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore and above."""
        return await self._persist("create", key, lambda: self._store.create(key, data))

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore and above."""
        return await self._persist("get", key, lambda: self._store.get(key, start, stop))

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore and above."""
        listing = self._store.list(prefix, after)

        async def step() -> Listed | None:
            nonlocal listing
            try:
                return await anext(listing, None)
            except BaseException:  # an iterator that raised, or was interrupted, is over: begin behind the last key
                listing = self._store.list(prefix, after)
                raise

        while (listed := await self._persist("list", prefix, step)) is not None:
            after = listed.key
            yield listed

    async def delete(self, key: str) -> None:
        """See FileStore and above."""
        await self._persist("delete", key, lambda: self._store.delete(key))

    async def aclose(self) -> None:
        """Close the store within; tried once."""
        await self._store.aclose()

    async def _persist(self, verb: str, key: str, attempt: Callable[[], Awaitable[T]]) -> T:
        settings, started_ms = self._settings, self._clock.elapsed_ms()
        left_ms: float = settings.deadline_ms
        failures = 0
        while True:
            try:
                async with asyncio.timeout(min(settings.attempt_timeout_ms, left_ms) / 1_000):
                    return await attempt()
            except (Unavailable, TimeoutError) as error:
                failures += 1
                pause_ms = self._rng.uniform(0, settings.pause_ceiling_ms(failures))
                if failures < settings.attempts_max and self._left_ms(started_ms) > pause_ms:
                    await self._sleep(pause_ms / 1_000)
                    left_ms = self._left_ms(started_ms)
                    if left_ms > 0:  # it may have slept longer: what is sent late is sent on old news
                        self.retries[verb] += 1
                        continue
                spent_ms = self._clock.elapsed_ms() - started_ms
                last = "timed out" if isinstance(error, TimeoutError) else str(error)
                raise Unavailable(
                    f"gave up verb={verb} key={key} attempts={failures} spent_ms={spent_ms}; last: {last}"
                ) from error

    def _left_ms(self, started_ms: int) -> float:
        return started_ms + self._settings.deadline_ms - self._clock.elapsed_ms()


# Counting ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VerbStatistics:
    """What one verb was used for. ``bytes_in`` went into the store, ``bytes_out`` came out of it."""

    requests: int = 0
    refused: int = 0  # answered with NotFound or AlreadyExists: an answer like any other, and billed
    failed: int = 0  # Unavailable, another error, or interrupted
    bytes_in: int = 0
    bytes_out: int = 0
    answered: int = 0  # with what was asked for; requests under way are neither this, nor refused, nor failed

    def __add__(self, other: VerbStatistics) -> VerbStatistics:
        return VerbStatistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: VerbStatistics) -> VerbStatistics:
        return VerbStatistics(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """What a store was used for, by verb. Subtract an earlier value to count a stretch.

    >>> before = StoreStatistics(create=VerbStatistics(requests=2))
    >>> after = StoreStatistics(create=VerbStatistics(requests=5, bytes_in=10))
    >>> (after - before).create.requests, (after - before).bytes_in
    (3, 10)
    """

    create: VerbStatistics = VerbStatistics()
    get: VerbStatistics = VerbStatistics()
    list: VerbStatistics = VerbStatistics()
    delete: VerbStatistics = VerbStatistics()

    def __sub__(self, other: StoreStatistics) -> StoreStatistics:
        return StoreStatistics(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    @property
    def total(self) -> VerbStatistics:
        """All verbs together."""
        return self.create + self.get + self.list + self.delete

    @property
    def requests(self) -> int:
        """Requests of all verbs; a LIST counts once for each page."""
        return self.total.requests

    @property
    def bytes_in(self) -> int:
        """Bytes sent to the store, those of failed attempts included."""
        return self.total.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes that came out of the store."""
        return self.total.bytes_out

    @property
    def price_usd(self) -> float:
        """What these requests cost on S3 Standard at list price (us-east-1, 2026; traffic and storage are apart).

        $0.005 for a thousand PUT or LIST, $0.0004 for a thousand GET; DELETE is free.

        >>> StoreStatistics(create=VerbStatistics(requests=1_000), get=VerbStatistics(requests=10_000)).price_usd
        0.009
        """
        return (5 * (self.create.requests + self.list.requests) + 0.4 * self.get.requests) / 1_000_000


class MeteredStore:
    """Counts what passes through it. Cost: about a microsecond for each call."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.remote = store.remote
        self._counts: Counter[tuple[str, str]] = Counter()

    def __repr__(self) -> str:
        return f"<MeteredStore requests={self.statistics().requests} {self._store!r}>"

    def statistics(self) -> StoreStatistics:
        """Return the counts since this object was made."""
        return StoreStatistics(
            *(
                VerbStatistics(*(self._counts[verb.name, count.name] for count in fields(VerbStatistics)))
                for verb in fields(StoreStatistics)
            )
        )

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore."""
        with self._request("create"):
            self._counts["create", "bytes_in"] += len(data)
            return await self._store.create(key, data)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore."""
        with self._request("get"):
            blob = await self._store.get(key, start, stop)
            self._counts["get", "bytes_out"] += len(blob.data)
            return blob

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore. Counts a page for the first key, or none, and one more for every 1,000 keys after it."""
        received = 0
        with self._request("list"):
            async for listed in self._store.list(prefix, after):
                if received and received % PAGE_KEYS == 0:
                    self._counts["list", "requests"] += 1
                    self._counts["list", "answered"] += 1
                received += 1
                yield listed

    async def delete(self, key: str) -> None:
        """See FileStore."""
        with self._request("delete"):
            await self._store.delete(key)

    async def aclose(self) -> None:
        """Close the store within; not counted."""
        await self._store.aclose()

    @contextmanager
    def _request(self, verb: str) -> Iterator[None]:
        self._counts[verb, "requests"] += 1
        try:
            yield
        except (AlreadyExists, NotFound):
            self._counts[verb, "refused"] += 1
            raise
        except GeneratorExit:  # who stops listing early has not failed
            self._counts[verb, "answered"] += 1
            raise
        except (Exception, asyncio.CancelledError):
            self._counts[verb, "failed"] += 1
            raise
        self._counts[verb, "answered"] += 1


# Tracing ----------------------------------------------------------------------------------------


class TracedStore:
    """Tells a tracer of each request; within ``RetryingStore``, of each attempt. Cost: a span each."""

    def __init__(self, store: FileStore, tracer: Tracer) -> None:
        self._store = store
        self.remote = store.remote
        self._tracer = tracer

    def __repr__(self) -> str:
        return f"<TracedStore {self._store!r}>"

    async def create(self, key: str, data: bytes) -> int | None:
        """See FileStore."""
        with span_of(self._tracer, "logstore.request", verb="create", key=key, bytes=len(data)):
            return await self._store.create(key, data)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        """See FileStore."""
        with span_of(self._tracer, "logstore.request", verb="get", key=key) as span:
            blob = await self._store.get(key, start, stop)
            span.note(bytes=len(blob.data))
            return blob

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        """See FileStore. One span for all pages, however long the caller takes; nothing is part of it."""
        with self._tracer.span("logstore.request", {"verb": "list", "key": prefix}, current=False):
            async for listed in self._store.list(prefix, after):
                yield listed

    async def delete(self, key: str) -> None:
        """See FileStore."""
        with span_of(self._tracer, "logstore.request", verb="delete", key=key):
            await self._store.delete(key)

    async def aclose(self) -> None:
        """Close the store within; not traced."""
        await self._store.aclose()
