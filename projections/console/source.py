"""What the pages show, asked of the log. All of the console's requests are made here; it only reads.

Collections are document stores without a writer, followed from the start. Surveys are shared by all who look, and
taken again no sooner than they are worth. A document's history is found by reading the log for its key: there is no
index of events by key, so who asks again soon is told what is new. The newest events are kept from the first time that
somebody asks for them.

Invariants:
- Nothing is written: the log is open read-only.
- What is kept for lookers is bounded: a survey, views of the past, histories, the newest events.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Final

from logstore import (
    InvalidArgument,
    Log,
    LogStoreError,
    NotFound,
    Position,
    StageLogs,
    StoredEvent,
    StoreStatistics,
    Survey,
)
from logstore.event import Data
from logstore.snapshots import FoldSurvey
from projections.console.look import Labels, Look
from projections.document import Collection
from projections.document_store import DocumentStore
from projections.documents import Documents
from projections.past import PastView
from projections.view import View

__all__ = ["History", "Newest", "Overview", "Source"]

SURVEY_S_MIN: Final = 2.0  # a survey is shown for so long,
SURVEY_WORTH: Final = 20  # and for so many times as long as it took
PASTS_MAX: Final = 2  # views of the past that are kept: each holds a whole collection
HISTORIES_MAX: Final = 32  # of keys, that are kept,
HISTORIES_BYTES_MAX: Final = 16 << 20  # and of their events' bytes
EVENTS_MAX: Final = 1_000  # of the newest that are kept,
EVENTS_BYTES_MAX: Final = 16 << 20  # and of their bytes


@dataclass(frozen=True, slots=True)
class Overview:
    """How the log stood, at which mark, and what this process asked of the store in so many seconds."""

    survey: Survey
    folds: tuple[FoldSurvey, ...]
    taken_ms: int
    requests: StoreStatistics
    running_s: float
    mark: str


@dataclass(slots=True)
class Newest:
    """The newest events, oldest first, and how many there are of each kind.

    ``reading``: history is being read yet. ``failure``: what ended that, or what came after.
    """

    events: deque[StoredEvent] = field(default_factory=deque)
    kinds: Counter[str] = field(default_factory=Counter)
    reading: bool = True
    failure: LogStoreError | None = None
    bytes: int = 0

    def take(self, events: Sequence[StoredEvent]) -> None:
        """Keep these, and as many before them as there is room for."""
        self.events.extend(events)
        self.bytes += sum(len(event.payload) for event in events)
        while len(self.events) > EVENTS_MAX or (self.bytes > EVENTS_BYTES_MAX and len(self.events) > 1):
            self.bytes -= len(self.events.popleft().payload)


@dataclass(slots=True)
class History:
    """The events of one key, in order; ``whole``: all there ever were. ``position``: where to go on reading."""

    events: list[StoredEvent]
    whole: bool
    position: Position | None
    bytes: int = 0

    def go_on(self, came: Sequence[StoredEvent], position: Position | None, watermark: int) -> None:
        """These came since; what is stamped at or below the watermark is settled now."""
        self.events.extend(came)
        self.events.sort(key=attrgetter("order"))
        for event in self.events:
            event.settled = event.settled or event.stamp <= watermark
        self.bytes += sum(len(event.payload) for event in came)
        self.position = position


class Source:
    """A log, and the collections that somebody declared. Used as ``async with``."""

    def __init__(self, log: Log, collections: Sequence[Collection] = (), labels: Labels | None = None) -> None:
        self.log = log
        self.collections = {collection.kind: collection for collection in collections}
        if len(self.collections) < len(collections):
            raise InvalidArgument(f"two collections have one kind collections={list(collections)!r:.200}")
        self.stages = StageLogs(log)
        self._labels: Labels = labels or {}
        self._started_s = time.monotonic()
        self._stores: dict[str, DocumentStore] = {}
        self._opening: dict[str, asyncio.Task[Documents[Any]]] = {}
        self._surveying = asyncio.Lock()
        self._overview: tuple[Overview, float] | None = None
        self._pasts: OrderedDict[tuple[str, int], PastView] = OrderedDict()
        self._histories: OrderedDict[tuple[str, str], History] = OrderedDict()
        self._newest = Newest()
        self._came = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Source {self.log!r} collections={list(self.collections)}>"

    async def __aenter__(self) -> Source:
        for kind in self.collections:
            self._open(kind)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        tasks = [*self._opening.values(), *([self._reading] if self._reading else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for store in self._stores.values():
            await store.__aexit__(*exc_info)

    def look(self, kind: str = "") -> Look:
        """How documents of a kind look, now."""
        return Look(self.log.now_ms(), self._labels.get(kind, {}))

    # The log

    async def overview(self) -> Overview:
        """How the log stands. Cost: a survey, a LIST, two GETs a projection; none where the last is fresh enough."""
        async with self._surveying:
            if self._overview is None or time.monotonic() >= self._overview[1]:
                started_s, mark = time.monotonic(), self.mark("log")
                survey, folds = await self.log.survey(), await self.log.snapshots.survey()
                took_s = time.monotonic() - started_s
                overview = Overview(survey, folds, self.log.now_ms(), self.log.requests(), 0, mark)
                self._overview = (overview, time.monotonic() + max(SURVEY_S_MIN, SURVEY_WORTH * took_s))
            seen, _ = self._overview
        return replace(seen, requests=self.log.requests(), running_s=time.monotonic() - self._started_s)

    # Collections

    def _open(self, kind: str) -> None:
        task = self._opening[kind] = asyncio.create_task(self._opened(kind), name=f"console {kind}")
        task.add_done_callback(_heed)

    async def _opened(self, kind: str) -> Documents[Any]:
        if (failed := self._stores.pop(kind, None)) is not None:
            await failed.__aexit__(None, None, None)
        store = DocumentStore.open(self.log, collections=[self.collections[kind]])
        self._stores[kind] = await store.__aenter__()
        return store.collection(kind)

    def held(self, kind: str) -> int | LogStoreError | None:
        """How many documents a collection holds; what kept it from being read; None while it is being read."""
        task = self._opening[kind]
        if not task.done():
            return None
        error = task.exception()
        if error is None:
            return len(task.result())
        if not isinstance(error, LogStoreError):
            raise error
        return error

    async def documents(self, kind: str) -> Documents[Any]:
        """Return a collection that holds all that was acknowledged before; opened again where it had failed.

        Cost: a barrier. Raises NotFound for what nobody declared, and what a view raises.
        """
        self._require_declared(kind)
        if self._opening[kind].done() and self._opening[kind].exception() is not None:
            self._open(kind)
        opening = self._opening[kind]
        documents = await asyncio.shield(opening)
        try:
            await documents.view.refresh()
        except LogStoreError:
            if self._opening[kind] is opening:  # nobody else opens it again
                self._open(kind)
            raise
        return documents

    async def past(self, kind: str, stamp: int) -> PastView:
        """The collection as it was. Cost: as ``View.open(…, at=…)``; none for the last few that were asked for."""
        self._require_declared(kind)
        past = self._pasts.pop((kind, stamp), None)
        if past is None:
            async with View.open(self.log, self.collections[kind].fold(), at=stamp) as past:
                pass  # there is nothing to end: it does not move
        self._pasts[kind, stamp] = past
        while len(self._pasts) > PASTS_MAX:
            self._pasts.popitem(last=False)
        return past

    def _require_declared(self, kind: str) -> None:
        if kind not in self.collections:
            raise NotFound(f"no such collection was declared kind={kind!r:.80}; name it with --collections")

    async def past_document(self, kind: str, key: str, stamp: int) -> Data | None:
        """A document as it was; None where there was none."""
        row = (await self.past(kind, stamp)).get(key)
        return None if row is None else row["doc"]

    async def history(self, kind: str, key: str) -> History:
        """Return all events of a key. Cost: as ``log.read`` of all that is kept; asked again soon, of what is new."""
        history = self._histories.pop((kind, key), None)
        if history is None:
            oldest = await self.log.oldest()
            history = History([], oldest is None, oldest)
        reader = self.log.read(after=history.position)
        came: list[StoredEvent] = []
        async with aclosing(reader.runs()) as runs:
            async for run in runs:
                keys, columns = run.columns.keys, run.columns
                if key in keys:
                    came += run.events(n for n in run.indices if keys[n] == key and columns.kind(n) == kind)
        history.go_on(came, reader.position, reader.watermark)
        self._histories[kind, key] = history
        while len(self._histories) > HISTORIES_MAX or (
            sum(each.bytes for each in self._histories.values()) > HISTORIES_BYTES_MAX
        ):
            self._histories.popitem(last=False)
        return history

    # Events

    async def newest(self) -> Newest:
        """The newest events. Returns at once, or within a second the first time: then history is being read.

        Cost: as ``log.follow`` from the beginning, once.
        """
        if self._reading is None:
            self._newest = Newest()
            self._reading = asyncio.create_task(self._read(self._newest), name="console events")
        newest = self._newest
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while newest.reading:
                    await self._came.wait()
        if newest.failure is not None:
            self._reading = None  # who asks next has it read again
            raise newest.failure
        return newest

    async def _read(self, newest: Newest) -> None:
        try:
            reader = self.log.follow(after=await self.log.oldest())
            async with aclosing(reader.batch(to_tail=True)) as runs:
                async for run in runs:
                    self._keep(newest, run)
            newest.reading = False
            self._tell()
            async with aclosing(reader.runs()) as runs:
                async for run in runs:
                    self._keep(newest, run)
                    self._tell()
        except LogStoreError as error:
            newest.reading, newest.failure = False, error
            self._tell()

    def _keep(self, newest: Newest, run: Any) -> None:
        columns = run.columns
        newest.kinds.update(map(columns.kind, run.indices))
        newest.take(list(run.events(run.indices[-EVENTS_MAX:])))

    def _tell(self) -> None:
        self._came.set()
        self._came = asyncio.Event()

    # Moving
    # A page says at which mark it was made, so that nothing falls between that and the beginning of what it is told.

    def mark(self, of: str) -> str:
        """How far what is shown of something is: of a collection's kind, "events" or "log". Cost: none."""
        if of == "events":
            at = str(sum(self._newest.kinds.values()))
        elif of == "log":
            follower = self.log.follower
            at = "" if follower is None else str(follower.frontier.position())
        else:
            view = self._opening[of].result().view
            at = f"{view.position} {view.watermark}"
        return blake2b(at.encode(), digest_size=8).hexdigest()

    async def moves(self, since: str) -> AsyncGenerator[None, None]:
        """Tell each time that something new is stored, and the overview may be otherwise."""
        async with aclosing(self.log.moves()) as moves:
            async for _ in moves:
                at = self.mark("log")
                if at != since:
                    since = at
                    if self._overview is not None:  # until then the last survey is shown: nothing would be otherwise
                        await asyncio.sleep(max(0.0, self._overview[1] - time.monotonic()))
                    yield

    async def arrivals(self, since: str) -> AsyncGenerator[None, None]:
        """Tell each time that an event came."""
        while True:
            came = self._came
            await self.newest()
            if self.mark("events") == since:
                await came.wait()
            since = self.mark("events")
            yield

    async def changes(self, kind: str, key: str | None, since: str) -> AsyncGenerator[None, None]:
        """Tell each time that a document of a collection changes or settles, or that one does."""
        view = (await self.documents(kind)).view
        subscription = view.subscribe()

        def standing() -> int | bool:
            return view.watermark if key is None else view.is_settled(key)

        stood = standing()
        if self.mark(kind) != since:
            yield
        while True:
            await subscription.wait()
            keys, before, stood = subscription.take_keys(), stood, standing()
            if stood != before or (keys if key is None else key in keys):
                yield


def _heed(task: asyncio.Task[Any]) -> None:
    """Whoever asks for what a task made is told what it met; nobody need."""
    if not task.cancelled():
        task.exception()
