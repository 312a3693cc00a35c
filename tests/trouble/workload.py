"""A control plane at work: writers, a follower, a view that snapshots, documents that are claimed and counted.

Each party is as a process of its own: it opens the log for itself, has its own connections, and lives for some
appends before its next life. All notes what it was told in one ledger. What goes wrong meanwhile is not its business:
an error that the world may cause is noted, and the party goes on; any other ends the run.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from logstore import (
    AlreadyExists,
    Log,
    LogSettings,
    LogStoreError,
    NotFound,
    NotStored,
    Position,
    Reader,
    Receipt,
    RetrySettings,
    StoredEvent,
    Unknown,
    Writer,
    WriterSettings,
)
from projections import Collection, DocumentStore, Projection, View
from projections.demo.verdict import Promise
from tests.trouble.ledger import Ledger, Name, line, name_of
from tests.trouble.verdict import judge, next_row

__all__ = ["COLLECTIONS", "RETRY", "SETTINGS", "WITHIN_S", "Lines", "Workload"]

RETRY: Final = RetrySettings(attempt_timeout_ms=1_500, deadline_ms=3_000)
SETTINGS: Final = LogSettings(
    writer=WriterSettings(idle_ms=1_000, idle_ms_max=2_000, tick_ms=2_000, session_age_ms_max=20_000), retry=RETRY
)
COLLECTIONS: Final = (Collection("Seat", unique=True), Collection("Counter"))
WITHIN_S: Final = 120.0  # far more than any call may take: what takes longer hangs
CALLERS: Final = 4
LIFE_APPENDS: Final = (40, 400)
PACE_S: Final = 0.05  # callers are agents that report, not a benchmark
AGAIN_S: Final = 0.3
SNAPSHOT_CHANCE: Final = 0.02


class Lines(Projection):
    """A row for each caller: how many events, the last, and a sum over all in order."""

    name, kinds = "lines", frozenset({"Line"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        return next_row(state, name_of(event))


class Workload:
    """``open_log`` opens the log as the named party sees it; ``sound`` opens it past all trouble, for the verdict."""

    def __init__(
        self, open_log: Callable[[str], Log], sound: Callable[[], Log], *, writers: int = 3, seed: int = 0
    ) -> None:
        self.ledger = Ledger()
        self._open_log = open_log
        self._sound = sound
        self._writers = writers
        self._rng = random.Random(seed)
        self._numbers: dict[tuple[int, int], int] = {}
        self._latest: Receipt | None = None
        self._stop = asyncio.Event()
        self._written = asyncio.Event()
        self._done: set[str] = set()
        self._followed: Position | None = None
        self._lived: dict[str, Any] = {}
        self._seats_wanted: Counter[str] = Counter()

    def stop(self) -> None:
        """Everybody ends what he is at."""
        self._stop.set()

    async def acknowledged(self, more: int) -> None:
        """Return when so many more appends are acknowledged: the log is at work."""
        want = len(self.ledger.acknowledged) + more
        while len(self.ledger.acknowledged) < want:  # noqa: ASYNC110 - a workload paces itself
            await asyncio.sleep(PACE_S)

    async def failed(self, more: int = 1) -> None:
        """Return when so many more errors are noted: the trouble has arrived."""
        want = self.ledger.errors.total() + more
        while self.ledger.errors.total() < want:  # noqa: ASYNC110 - see above
            await asyncio.sleep(PACE_S)

    async def run(self) -> None:
        """Work until stopped; readers go on until they have all that was written."""
        async with self._sound() as log, DocumentStore.open(log, writer="first", collections=COLLECTIONS) as db:
            await db.collection("Counter").create("c", {"n": 0})
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self._live("follower", self._follow))
            readers.create_task(self._live("view", self._view))
            async with asyncio.TaskGroup() as writers:
                for number in range(self._writers):
                    writers.create_task(self._live(f"web-{number}", partial(self._write, number)))
                for number in range(2):
                    writers.create_task(self._live(f"docs-{number}", partial(self._document, number)))
            self._written.set()

    async def verdict(self) -> list[Promise]:
        """Settle what is unknown, seal what is silent, and hold what was told against what is there."""
        async with self._sound() as log, asyncio.timeout(2 * WITHIN_S):
            await asyncio.gather(*(self._resolve(log, *each) for each in list(self.ledger.unknown.items())))
            while not all(sealing.sealed for sealing in await log.seal()):  # noqa: ASYNC110 - others' clocks decide
                await asyncio.sleep(AGAIN_S)
            read = [name_of(event) async for event in log.read(kinds={"Line"})]
            async with View.open(log, Lines()) as view:
                rows = rows_of(view)
                await view.settle()
            settled = [name_of(event) async for event in log.read(kinds={"Line"}, settled=True)]
            async with DocumentStore.open(log, collections=COLLECTIONS) as db:
                seats = {seat: self._by(db, seat) for seat in self.ledger.seats}
                counter = db.collection("Counter").get("c")["n"]
            damage = [str(finding) async for finding in log.check() if finding.severity == "damage"]
        return judge(
            self.ledger,
            read=read,
            settled=settled,
            views={"a new view": rows, "the view that went through all this": self._lived},
            seats=seats,
            counter=counter,
            damage=damage,
            retry=RETRY,
            within_s=WITHIN_S,
        )

    async def _resolve(self, log: Log, name: Name, token: str) -> None:
        try:
            await log.resolve(token)
        except NotStored:
            self.ledger.refused.add(name)
            self.ledger.resolved["not stored"] += 1
        else:
            self.ledger.acknowledged.add(name)
            self.ledger.resolved["stored"] += 1
        del self.ledger.unknown[name]

    @staticmethod
    def _by(db: DocumentStore, seat: str) -> str:
        try:
            return str(db.collection("Seat").get(seat)["by"])
        except NotFound:
            return ""

    async def _live(self, party: str, life: Callable[[Log], Awaitable[None]]) -> None:
        """Life after life."""
        ended = self._written if party in ("follower", "view") else self._stop
        while party not in self._done:
            try:
                async with self._opened(party) as log:
                    self.ledger.lives += 1
                    await life(log)
                    if ended.is_set():
                        self._done.add(party)
            except LogStoreError as error:
                self.ledger.note_error(f"{party.partition('-')[0]} lives", error)
                await self._pause(AGAIN_S)

    @asynccontextmanager
    async def _opened(self, party: str) -> AsyncIterator[Log]:
        log = self._open_log(party)
        try:
            async with log:
                yield log
        finally:
            total = log.requests().total
            self.ledger.requests.update(requests=total.requests, failed=total.failed)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _timed(self, call: Awaitable[Any]) -> tuple[Any, float]:
        """Its result, and how long it took; nothing may take longer than WITHIN_S."""
        began_s = monotonic()
        try:
            async with asyncio.timeout(WITHIN_S):
                return await call, monotonic() - began_s
        finally:
            self.ledger.longest_s = max(self.ledger.longest_s, monotonic() - began_s)

    # Writers ----------------------------------------------------------------------------------

    async def _write(self, party: int, log: Log) -> None:
        left = iter(range(self._rng.randrange(*LIFE_APPENDS)))

        async def call(writer: Writer, caller: int) -> None:
            for _ in left:
                if self._stop.is_set():
                    return
                await self._append(writer, party, caller)
                await self._pause(self._rng.uniform(0, 2 * PACE_S))

        async with log.writer(f"web-{party}") as writer, asyncio.TaskGroup() as group:
            for caller in range(CALLERS):
                group.create_task(call(writer, caller))

    async def _append(self, writer: Writer, party: int, caller: int) -> None:
        number = self._numbers[party, caller] = self._numbers.get((party, caller), -1) + 1
        name = Name(party, caller, number)
        try:
            receipt, took_s = await self._timed(writer.append(line(name)))
        except Unknown as error:
            self.ledger.note_error("append", error)
            self.ledger.unknown[name] = error.token
        except LogStoreError as error:  # ClockSkew as NotStored: what opens no session stores nothing
            self.ledger.note_error("append", error)
            self.ledger.refused.add(name)
        else:
            self.ledger.note_append(name, receipt, took_s)
            self._latest = receipt

    # Readers ----------------------------------------------------------------------------------

    async def _follow(self, log: Log) -> None:
        """Sees what comes, from where it was when trouble stopped it; at the end, what there still is."""
        await self._note(log.follow(after=self._followed, kinds={"Line"}), self._written)
        if self._written.is_set():
            await self._note(log.read(after=self._followed, kinds={"Line"}), None)

    async def _note(self, reader: Reader, until: asyncio.Event | None) -> None:
        async def note() -> None:
            try:
                async for event in reader:
                    self.ledger.followed[name_of(event)] += 1
            finally:
                self._followed = reader.position

        noting = asyncio.create_task(note())
        stopping = asyncio.create_task(until.wait() if until is not None else asyncio.Event().wait())
        try:
            await asyncio.wait([noting, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            noting.cancel()
            stopping.cancel()
            outcome, _ = await asyncio.gather(noting, stopping, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    async def _view(self, log: Log) -> None:
        """Waits for what others have just stored; takes a snapshot now and then."""
        async with View.open(log, Lines(), follow=True) as view:
            while not self._written.is_set():
                if (latest := self._latest) is not None:
                    try:
                        _, took_s = await self._timed(view.wait_for(latest, timeout=30))
                    except (LogStoreError, TimeoutError) as error:
                        self.ledger.note_error("view", error)
                    else:
                        self.ledger.visible_s.append(took_s)
                if self._rng.random() < SNAPSHOT_CHANCE:
                    await self._snapshot(view)
                await asyncio.sleep(2 * PACE_S)
            await view.refresh()
            self._lived = rows_of(view)

    async def _snapshot(self, view: View) -> None:
        try:
            async with asyncio.timeout(30):  # it waits for a watermark, which somebody's silence may hold
                await view.snapshot()
            self.ledger.snapshots += 1
        except (LogStoreError, TimeoutError) as error:
            self.ledger.note_error("snapshot", error)

    # Documents --------------------------------------------------------------------------------

    async def _document(self, party: int, log: Log) -> None:
        name = f"docs-{party}"
        async with DocumentStore.open(log, writer=name, collections=COLLECTIONS) as db:
            for _ in range(self._rng.randrange(*LIFE_APPENDS) // 8):
                if self._stop.is_set():
                    return
                await self._take_seat(db, name)
                await self._count(db)
                await self._pause(self._rng.uniform(0, 8 * PACE_S))

    async def _take_seat(self, db: DocumentStore, name: str) -> None:
        """Every party wants every seat, once each."""
        seat, self._seats_wanted[name] = f"s{self._seats_wanted[name]}", self._seats_wanted[name] + 1
        told = self.ledger.seats.setdefault(seat, [])
        try:
            await self._timed(db.collection("Seat").create(seat, {"by": name}))
            told.append(name)
        except AlreadyExists:
            pass
        except (LogStoreError, TimeoutError) as error:
            self.ledger.note_error("claim", error)

    async def _count(self, db: DocumentStore) -> None:
        """Add one to a number that all add to."""

        def add(document: Any) -> None:
            document["n"] += 1

        try:
            async with asyncio.timeout(60):  # it waits until it is settled, as a snapshot does
                await self._timed(db.collection("Counter").modify("c", add, attempts_max=100))
            self.ledger.counted["yes"] += 1
        except (LogStoreError, TimeoutError) as error:
            self.ledger.counted["no" if isinstance(error, NotStored) else "perhaps"] += 1
            self.ledger.note_error("count", error)


def rows_of(view: View) -> dict[str, Any]:
    """All rows of a view of ``Lines``."""
    page = view.find(limit=1_000)
    assert page.cursor is None
    return {key: dict(row) for key, row in zip(page.keys, page.rows, strict=True)}
