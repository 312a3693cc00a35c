"""Whether a store keeps the promises of ``FileStore``: asked of the store itself, not of its vendor.

``require_safe`` is the few requests that are worth making before a log is first created in a
store: does create-if-absent refuse, also when creations race? ``probe`` is what ``doctor --probe``
runs: all promises, one *finding* each, good or bad.

Both may run over ``RetryingStore``. A creation whose answer was lost may then report AlreadyExists
to its own winner, so a race in which nobody claims to have won is no fault; two winners are.

Invariants:
- Nothing is written outside ``probe/<nonce>/``; what was written is deleted, also when a check fails.
- A broken promise is a finding, never an exception; only trouble in reaching the store is (``Unavailable``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from logstore.clock import SKEW_MS_MAX, Clock, SystemClock
from logstore.errors import AlreadyExists, LogStoreError, NotFound, Unavailable, UnsafeStore
from logstore.filestore.base import FileStore

__all__ = ["Finding", "probe", "require_safe"]

RACERS_FEW = 4  # enough for a service that decides by "look, then write"
ROUNDS = 5  # races in a probe; a racy service is caught by most single ones
MANY_KEYS = 1_005  # S3 ends a page at 1,000
FLIGHTS = 32  # requests under way at a time


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of a probe found: the promise, whether it is kept, and what was seen."""

    check: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.ok else 'BROKEN'} {self.check}: {self.detail}"


async def require_safe(store: FileStore, nonce: str) -> None:
    """Raise UnsafeStore when ``store`` lets a second creation of a key through, alone or in a race.

    Writes one object, ``probe/<nonce>/race``, and removes it; ``nonce`` must be new. What looks wrong is tried
    once more elsewhere: had this process slept, a collector may have removed its object in between.
    Cost: five creations, three GETs, one DELETE. Raises Unavailable, also when its object is removed meanwhile.
    """
    key = f"probe/{nonce}/race"
    problem = await _what_is_unsafe(store, key)
    if problem is None:
        return
    if await _what_is_unsafe(store, f"probe/{nonce}/again") is None:
        raise Unavailable(
            f"create-if-absent did not hold once, and did when tried again: {problem} key={key}; try again"
        )
    raise UnsafeStore(f"create-if-absent does not hold: {problem} key={key}; use another store")


async def _what_is_unsafe(store: FileStore, key: str) -> str | None:
    try:
        return await _race(store, key, RACERS_FEW) or await _create_again(store, key)
    except NotFound as error:
        raise Unavailable(
            f"what was just created is gone key={key}; try again, and if it recurs use another store"
        ) from error
    finally:
        await _remove(store, key)


async def probe(
    store: FileStore,
    *,
    nonce: str,
    racers: int = 16,
    keys: int = MANY_KEYS,
    clock: Clock | None = None,
) -> list[Finding]:
    """Put ``store`` to the test; return a finding for every promise. Safe beside a log in use.

    ``nonce`` must be new and a key segment; ``racers`` creations race for each of five names;
    ``keys`` objects are listed (fewer than 1,001 do not test paging). Raises Unavailable when the
    store cannot be reached. Cost: about 2 keys + 6 racers requests.
    """
    assert racers >= 2, "nothing to race"
    assert keys >= 10, "nothing to list"
    root = f"probe/{nonce}/"
    checks: list[tuple[str, Callable[[], Awaitable[str | None]], str]] = [
        (
            "one winner",
            lambda: _races(store, root + "race/", racers),
            f"{ROUNDS} races of {racers} creations, one winner each, its bytes stored",
        ),
        ("no overwriting", lambda: _create_again(store, root + "race/0"), "a second creation is refused"),
        ("visibility", lambda: _visibility(store, root + "absent"), "what was absent is there once it was created"),
        ("ranges", lambda: _ranges(store, root + "ranges"), "every range is cut as promised"),
        ("deletion", lambda: _deletion(store, root + "deleted"), "deletes what is there, accepts what is not"),
        (
            "listing",
            lambda: _listing(store, root, keys),
            f"{keys} keys in byte order, over all pages, from any position",
        ),
        (
            "clock",
            lambda: _clock(store, root + "race/0", clock or SystemClock()),
            "store and machine agree on the time",
        ),
    ]
    findings = []
    try:
        for check, run, good in checks:
            try:
                problem = await run()
            except Unavailable:
                raise
            except LogStoreError as error:
                problem = f"an answer that the promise does not allow: {type(error).__name__}: {error}"
            findings.append(Finding(check, problem is None, problem or good))
    finally:
        await _each(lambda key: _remove(store, key), _all_keys(root, keys))
    return findings


# The checks: each returns what is wrong, or None ------------------------------------------------


async def _race(store: FileStore, key: str, racers: int) -> str | None:
    """Let creations of ``key`` with different bytes race."""

    async def run(racer: int) -> bool:
        try:
            await store.create(key, b"racer %d" % racer)
            return True
        except AlreadyExists:
            return False

    won = await asyncio.gather(*(run(racer) for racer in range(racers)))
    winners = [racer for racer, has_won in enumerate(won) if has_won]
    if len(winners) > 1:
        return f"{len(winners)} of {racers} racing creations won"
    stored = (await store.get(key)).data
    if stored not in {b"racer %d" % racer for racer in winners or range(racers)}:
        return f"not the winner's bytes are stored, but {stored[:20]!r}"
    return None


async def _races(store: FileStore, prefix: str, racers: int) -> str | None:
    for round_ in range(ROUNDS):
        if problem := await _race(store, f"{prefix}{round_}", racers):
            return problem
    return None


async def _create_again(store: FileStore, key: str) -> str | None:
    """Create ``key``, which exists, once more."""
    before = (await store.get(key)).data
    try:
        await store.create(key, b"overwritten")
    except AlreadyExists:
        after = (await store.get(key)).data
        return None if after == before else "a creation was refused and overwrote all the same"
    return "a second creation of a key was accepted"


async def _visibility(store: FileStore, key: str) -> str | None:
    """Ask for ``key`` before it is there and after: tailing asks for what is absent, again and again."""
    with suppress(NotFound):
        await store.get(key)
    await store.create(key, b"x")
    try:
        await store.get(key)
    except NotFound:
        return "an object that was asked for before its creation is absent after it, as if a cache said so"
    return None


async def _ranges(store: FileStore, key: str) -> str | None:
    data = bytes(range(100))
    await store.create(key, data)
    for start, stop in (
        (0, None),
        (0, 10),
        (10, 20),
        (90, 200),
        (99, None),
        (100, None),
        (100, 110),
        (500, 600),
        (7, 7),
    ):
        blob = await store.get(key, start, stop)
        if blob.data != data[start:stop] or blob.size != len(data):
            return f"wrong bytes or size start={start} stop={stop} got_bytes={len(blob.data)} got_size={blob.size}"
    return None


async def _deletion(store: FileStore, key: str) -> str | None:
    await store.delete(key)
    await store.create(key, b"x")
    await store.delete(key)
    await store.delete(key)
    try:
        await store.get(key)
    except NotFound:
        return None
    return "a deleted object is still there"


async def _listing(store: FileStore, root: str, count: int) -> str | None:
    many = sorted(_many_keys(root, count))
    await _each(lambda key: store.create(key, b""), reversed(many))
    prefix = root + "many/"
    listed = [line.key async for line in store.list(prefix, "")]
    if sorted(listed) != many:
        return f"the listing is not complete want_keys={len(many)} got_keys={len(listed)}"
    if listed != many:
        return "keys do not come in byte order"
    for after in (many[3], many[-3], many[4] + "~", prefix + "nested", many[-1]):
        got = [line.key async for line in store.list(prefix, after)]
        if got != [key for key in many if key > after]:
            return f"a position is not kept after={after} got_keys={len(got)}"
    return None


async def _clock(store: FileStore, key: str, clock: Clock) -> str | None:
    store_ms = (await store.get(key)).now_ms
    offset_ms = 0 if store_ms is None else store_ms - clock.wall_ms()
    if abs(offset_ms) > SKEW_MS_MAX:
        return f"clocks differ; repair this machine's time synchronisation offset_ms={offset_ms} bound_ms={SKEW_MS_MAX}"
    return None


# Small helpers ------------------------------------------------------------------------------------


def _many_keys(root: str, count: int) -> Iterable[str]:
    """Keys that a naive order gets wrong (a directory sorts by its slash), then numbers up to ``count``."""
    nasty = ["a", "a-", "a.b", "a0", "a_", "a~", "B", "nested/x", "nested-x", "nested.x"]
    return [f"{root}many/{name}" for name in nasty + [f"{n:05d}" for n in range(count - len(nasty))]]


def _all_keys(root: str, count: int) -> Iterable[str]:
    yield from (f"{root}race/{n}" for n in range(ROUNDS))
    yield from (f"{root}absent", f"{root}ranges", f"{root}deleted")
    yield from _many_keys(root, count)


async def _remove(store: FileStore, key: str) -> None:
    with suppress(NotFound):  # what a bad store may say
        await store.delete(key)


async def _each(call: Callable[[str], Awaitable[object]], keys: Iterable[str]) -> None:
    """Call once for each key, some at a time; the first error is raised when all are done."""
    rest = iter(keys)
    errors: list[LogStoreError] = []

    async def work() -> None:
        for key in rest:
            try:
                await call(key)
            except LogStoreError as error:
                errors.append(error)

    await asyncio.gather(*(work() for _ in range(FLIGHTS)))
    if errors:
        raise errors[0]
