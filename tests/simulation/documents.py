"""Worlds in which servers write documents: in shared collections, in one that is unique, and a sum that all add to.

The same fates befall them as in other worlds. What they are told goes into ``Deed``s; afterwards a second, simple
telling of docs/rfcs/0009-documents.md folds the true log, and everything that anybody was told must agree with it.
"""

from __future__ import annotations

import asyncio
import math
import random
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Any, Final

import logstore
from logstore import (
    AlreadyExists,
    Block,
    ClockSkew,
    Conflict,
    Log,
    NotFound,
    NotStored,
    Stage,
    StageLogs,
    Trimmed,
    Unavailable,
    Unknown,
)
from logstore.event import Data
from projections import Collection, Documents, DocumentStore, Index, Projection, Rejected, WriteReceipt
from projections.document import Version
from tests.simulation.actors import Actor, Job
from tests.simulation.truth import TrueEvent
from tests.simulation.world import World

__all__ = ["Auditing", "DocumentWorld"]

KEYS: Final = tuple(f"d{i}" for i in range(4))
SEATS: Final = tuple(f"s{i}" for i in range(3))
SUM: Final = "sum"
STAGES: Final = ("plan", "apply")
BLOCKS: Final = 40
KINDS: Final = {"Box": KEYS, "Seat": SEATS, "Sum": (SUM,)}
Forgivable: Final = (Unavailable, ClockSkew)
SETTLE_S: Final = 10
WATCHED: Final = [("n", ">=", 0)]


def objection(before: int, after: int) -> bool:
    """Whether the guard is against a change; which ones it is against depends on what came before."""
    return zlib.crc32(b"%d %d" % (before, after)) % 5 == 0


def guard(before: Data | None, after: Data | None) -> None:
    """Refuse one change in five."""
    if before is not None and after is not None and objection(before["last"], after["last"]):
        raise Rejected("the guard is against it")


COLLECTIONS: Final = (
    Collection("Box", indexes=[Index("n")], guard=guard),
    Collection("Seat", unique=True),
    Collection("Sum"),
)
FOLDS: Final[Sequence[Callable[[], Projection]]] = tuple(collection.fold for collection in COLLECTIONS)


class Told(Enum):
    """What the caller of a write was told."""

    NOTHING = "nothing"
    STORED = "stored"
    APPLIED = "applied"
    REFUSED = "refused"  # by the fold, finally
    EXISTS = "exists"
    ABSENT = "absent"  # there is no such document: nothing is stored, nor will be
    OTHERWISE = "otherwise"  # the same, for another reason
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Deed:
    """One call of a write, and what came of it.

    ``stored_s``: when the caller knew that it is stored; ``ended_s``: that, or otherwise. ``saw``: whose writes its
    process was shown before.
    """

    number: int
    process: str
    kind: str
    key: str
    do: str
    blind: bool
    called_s: float
    told: Told = Told.NOTHING
    stored_s: float = math.inf
    ended_s: float = math.inf
    saw: frozenset[str] = frozenset()

    @property
    def meta(self) -> dict[str, Any]:
        """By what its events are known."""
        return {"id": self.id}

    @property
    def id(self) -> str:
        """Its number, as text."""
        return str(self.number)


Call = Callable[[Deed], Awaitable[WriteReceipt]]


@dataclass(slots=True)
class Printing:
    """What became of a stage log: which indices were sent, which are known to be stored, and whether it is complete."""

    sent: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)
    complete_s: float = math.inf  # when somebody was told
    stored_late: set[int] = field(default_factory=set)  # told stored, by calls that began after that


@dataclass(slots=True)
class Watcher:
    """Somebody who watches what matches, and saves it with the token. It outlives its processes."""

    seen: dict[str, Data] = field(default_factory=dict)
    saved: tuple[str | None, dict[str, Data]] = (None, {})

    async def watch(self, documents: Documents[Any], rng: random.Random) -> None:
        """Go on from what was saved, for ever."""
        token, seen = self.saved
        self.seen = dict(seen)
        async for change in documents.watch(WATCHED, after=token):
            if change.type == "removed":
                self.seen.pop(change.key, None)
            else:
                assert change.document is not None
                self.seen[change.key] = change.document
            if rng.random() < 0.5:
                self.saved = (change.token, dict(self.seen))
            if rng.random() < 0.1:
                await asyncio.sleep(rng.uniform(0, 2))


class Serving:
    """A server: a document store, written to by several requests at once, and a watch."""

    writes = True
    endures = False

    def __init__(
        self, name: str, deeds: list[Deed], watcher: Watcher, printings: dict[str, Printing], *, pause_s: float
    ) -> None:
        self._name = name
        self._printings = printings
        self._deeds = deeds
        self._watcher = watcher
        self._pause_s = pause_s

    async def work(self, actor: Actor, log: Log) -> None:
        """Serve until told to stop; with another store when retention was faster than this one."""
        assert actor.process is not None
        while not actor.stopping.is_set():
            try:
                async with DocumentStore.open(log, writer=self._name, collections=COLLECTIONS) as db:
                    await self._serve(actor, log, db)
            except Trimmed as error:
                actor.stage.history.trim(actor.process.name, str(error))

    async def _serve(self, actor: Actor, log: Log, db: DocumentStore) -> None:
        rng, stages = actor.rng, {name: StageLogs(log).stage("d", name) for name in STAGES}
        watching = asyncio.create_task(self._watcher.watch(db.collection("Box"), random.Random(rng.random())))
        try:
            for _ in range(rng.randrange(5, 30)):
                await asyncio.gather(
                    *(self._request(actor, db) for _ in range(rng.choice([1, 1, 2, 4]))),
                    *(self._print(actor, stages) for _ in range(rng.choice([0, 0, 1, 2]))),
                )
                await actor.sleep(self._pause_s * rng.choice([0.1, 1, 1, 5]))
                if actor.stopping.is_set():
                    break
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        if not watching.cancelled() and (error := watching.exception()) is not None:
            if isinstance(error, Trimmed):
                self._watcher.saved = (None, {})  # it cannot go on from there: anew
            elif not isinstance(error, Forgivable):
                raise error

    async def _request(self, actor: Actor, db: DocumentStore) -> None:
        rng, name = actor.rng, self._name
        await asyncio.sleep(rng.uniform(0, 0.1))
        docs, seats, sums = (db.collection(collection.kind) for collection in COLLECTIONS)
        key, seat, n = rng.choice(KEYS), rng.choice(SEATS), rng.randrange(4) - 1
        options: dict[str, Any] = {"blind": rng.random() < 0.2}
        if key in docs and rng.random() < 0.3:
            options["if_version"] = docs.version(key)
        if rng.random() < 0.2:
            options["when"] = [("n", "!=", n)]

        def patched(deed: Deed) -> Data:
            return {"last": deed.number, "by": {name: deed.number}, **({"n": n} if n % 2 else {})}

        calls: dict[str, tuple[str, str, str, Call]] = {
            "create": ("Box", key, "create", lambda deed: docs.create(key, {"n": 0, **patched(deed)}, meta=deed.meta)),
            "update": ("Box", key, "update", lambda deed: docs.update(key, patched(deed), meta=deed.meta, **options)),
            "delete": ("Box", key, "delete", lambda deed: docs.delete(key, meta=deed.meta, **options)),
            "take": ("Seat", seat, "create", lambda deed: seats.create(seat, {"by": deed.id}, meta=deed.meta)),
            "leave": ("Seat", seat, "delete", lambda deed: seats.delete(seat, meta=deed.meta)),
            "found": ("Sum", SUM, "create", lambda deed: sums.create(SUM, {"n": 0}, meta=deed.meta)),
            "add": ("Sum", SUM, "add", lambda deed: sums.modify(SUM, _added, meta=deed.meta, attempts_max=3)),
        }
        what = rng.choice(["create", "update", "update", "update", "update", "delete", "take", "take", "leave", "add"])
        if what == "add" and SUM not in sums:
            what = "found"
        kind, key, do, call = calls[what]
        blind = options["blind"] and kind == "Box"
        deed = Deed(len(self._deeds), actor.name, kind, key, do, blind, actor.stage.loop.time())
        deed.saw = frozenset((*_writers(docs.find().rows), *(row["by"] for row in seats.find().rows)))
        await self._do(actor, deed, call)

    async def _print(self, actor: Actor, stages: Mapping[str, Stage]) -> None:
        """Send some blocks of a stage log, which others have sent perhaps; end it now and then."""
        rng, loop = actor.rng, actor.stage.loop
        name, first = rng.choice(STAGES), rng.randrange(BLOCKS)
        printing, called_s = self._printings[name], loop.time()
        blocks = [Block(index, f"line {index}") for index in range(first, min(BLOCKS, first + rng.randrange(1, 8)))]
        printing.sent.update(block.index for block in blocks)
        completes = rng.random() < 0.02
        try:
            if completes:
                await stages[name].complete(blocks)
            else:
                await stages[name].append(blocks)
        except (Conflict, *Forgivable):
            return
        indices = {block.index for block in blocks}
        if called_s > printing.complete_s:
            printing.stored_late |= indices
        printing.stored |= indices
        if completes:
            printing.complete_s = min(printing.complete_s, loop.time())

    async def _do(self, actor: Actor, deed: Deed, call: Call) -> None:
        self._deeds.append(deed)
        loop, history = actor.stage.loop, actor.stage.history
        history.note(actor.name, f"{deed.do} {deed.kind} {deed.key} {deed.id}")
        why = ""
        try:
            receipt = await call(deed)
            deed.stored_s, deed.told = loop.time(), Told.APPLIED if deed.do == "add" else Told.STORED
            if actor.rng.random() < 0.3:
                deed.told = await self._ask(deed, receipt)
        except AlreadyExists as error:
            deed.told, why = Told.EXISTS, str(error)
        except NotFound as error:
            deed.told, why = Told.ABSENT, str(error)
        except Conflict as error:
            deed.told, why = Told.UNKNOWN if deed.do == "add" else Told.OTHERWISE, str(error)
        except NotStored as error:
            deed.told, why = Told.OTHERWISE, str(error)
        except (Unknown, Trimmed, *Forgivable) as error:
            deed.told, why = Told.UNKNOWN, repr(error)
        deed.ended_s = min(deed.stored_s, loop.time())
        history.note(actor.name, f"{deed.told.value} {deed.id} {why}")

    async def _ask(self, deed: Deed, receipt: WriteReceipt) -> Told:
        """What became of a write that is stored, for good."""
        try:
            await receipt.settled(SETTLE_S)
        except (TimeoutError, Trimmed, *Forgivable):
            return deed.told
        except (AlreadyExists, NotFound, Conflict):
            return Told.REFUSED
        return Told.APPLIED


def _writers(rows: Sequence[Data]) -> Iterator[str]:
    """The ids of those who wrote what these documents show."""
    for row in rows:
        yield from map(str, (row["last"], *row["by"].values()))


def _added(document: Any) -> None:
    document["n"] += 1


class Auditing:
    """Looks at what is settled, again and again; and seals, as whoever follows does."""

    writes = False
    endures = True

    def __init__(
        self, looks: list[tuple[int, str, dict[str, Data]]], collections: Sequence[Collection], *, pause_s: float
    ) -> None:
        self._looks = looks
        self._collections = collections
        self._pause_s = pause_s

    async def work(self, actor: Actor, log: Log) -> None:
        """Look until told to stop."""
        assert actor.process is not None
        while not actor.stopping.is_set():
            try:
                async with DocumentStore.open(log, collections=self._collections) as db:
                    for _ in range(actor.rng.randrange(5, 30)):
                        await actor.sleep(self._pause_s)
                        for collection in self._collections:
                            await db.collection(collection.kind).view.refresh()
                            self._look(db.collection(collection.kind), collection.kind)
                        if actor.stopping.is_set():
                            break
            except Trimmed as error:
                actor.stage.history.trim(actor.process.name, str(error))

    def _look(self, documents: Documents[Any], kind: str) -> None:
        page = documents.find(settled=True)
        rows = dict(zip(page.keys, page.rows, strict=True))
        self._looks.append((documents.view.watermark, kind, rows))


@dataclass(slots=True)
class Row:
    """A document, as the telling has it."""

    document: dict[str, Any] | None
    version: Version
    claim: int = -1
    last_stamp: int = 0


class Telling:
    """RFC 0009, told simply: event after event, in order. ``effects``: how often each id changed something."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Row] = {}
        self.effects: Counter[str] = Counter()
        self.copies: set[str] = set()
        self.changes: dict[tuple[str, str], list[str]] = {}  # of each document, who changed it, one after the other

    def documents(self, kind: str) -> dict[str, Data]:
        """The documents of a kind."""
        return {key: row.document for (of, key), row in self.rows.items() if of == kind and row.document is not None}

    def take(self, true: TrueEvent) -> None:
        """Let one event happen."""
        event = true.event()
        assert event.meta is not None
        fields, place = event.meta["document"], (event.kind, event.key)
        row = self.rows.setdefault(place, Row(None, Version(0, b"")))
        claim = fields.get("claim")
        if claim is not None and event.kind == "Seat":
            if claim[0] <= row.claim:
                self.copies.add(true.id)
                return
            if true.order[0] > claim[1]:
                return
        before = row.document
        if (fields["do"] == "create") is not (before is None):
            return
        if "if_version" in fields and fields["if_version"] != str(row.version):
            return
        if any(before is None or before.get("n") == n for _, _, n in fields.get("when", ())):
            return
        after = _after(before, fields["do"], event.data)
        if event.kind == "Box" and before and after and objection(before["last"], after["last"]):
            return
        if claim is not None:
            row.claim, row.last_stamp = claim[0], claim[1]
        row.document = after
        row.version = row.version.after(true.order) if after is not None else Version(0, b"")
        self.effects[true.id] += 1
        self.changes.setdefault(place, []).append(true.id)


def _after(before: dict[str, Any] | None, do: str, data: Any) -> dict[str, Any] | None:
    if do == "delete":
        return None
    merged = {**(before or {}), **data}
    if before is not None and "by" in before:
        merged["by"] = {**before["by"], **data["by"]}
    return merged


def claims_are_linearizable(deeds: Sequence[Deed], telling: Telling) -> Iterator[str]:
    """Contradictions between when seats were taken and left, by the order, and when somebody was told so.

    The order of a seat's changes is given, so this is exact: a change that had ended is not behind one that was called
    later; and who was told that a seat is taken, or free, was told at a moment at which it may have been.
    """
    by_id = {deed.id: deed for deed in deeds}
    for key in SEATS:
        changes = [by_id[id_] for id_ in telling.changes.get(("Seat", key), ())]
        latest = (-math.inf, "")
        for deed in changes:
            if deed.stored_s < latest[0]:
                yield f"P6 {deed.do} {key} {deed.id} had ended before {latest[1]} was called, and has effect after it"
            latest = max(latest, (deed.called_s, deed.id))
        spans = list(pairwise([None, *changes, None]))  # free first, then taken, and so on
        for deed in deeds:
            if (deed.kind, deed.key) == ("Seat", key) and deed.told in {Told.EXISTS, Told.ABSENT}:
                is_taken = deed.told is Told.EXISTS
                if not any(_may_be_at(deed, begin, end) for begin, end in spans[is_taken::2]):
                    yield f"P6 {deed.do} {key} {deed.id} was told {deed.told.value}, which it was not all the while"


def _may_be_at(deed: Deed, begin: Deed | None, end: Deed | None) -> bool:
    """Whether some moment of a call lies between two changes, each at some moment of its own call."""
    return (begin is None or begin.called_s <= deed.ended_s) and (end is None or end.stored_s >= deed.called_s)


class DocumentWorld(World):
    """Servers that write documents, one who audits, and sometimes keepers."""

    projections = FOLDS

    def populate(self, rng: random.Random) -> list[Actor]:
        """Who lives in it."""
        jobs = self.servers(rng)
        jobs["audit"] = [Auditing(self.looks, COLLECTIONS, pause_s=0.5 * self.slower)]
        return self.cast(jobs, rng)

    def servers(self, rng: random.Random) -> dict[str, list[Job]]:
        """Who serves, two or three."""
        self.deeds: list[Deed] = []
        self.looks: list[tuple[int, str, dict[str, Data]]] = []
        self.printings = {name: Printing() for name in STAGES}
        self.watchers = [Watcher() for _ in range(rng.randint(2, self.most))]
        return {
            f"server{i}": [
                Serving(
                    rng.choice(["web", f"w{i}"]),
                    self.deeds,
                    watcher,
                    self.printings,
                    pause_s=rng.choice([0.2, 0.5]) * self.slower,
                )
            ]
            for i, watcher in enumerate(self.watchers)
        }

    def events(self) -> list[TrueEvent]:
        """The events of documents, in total order."""
        return [event for event in self.truth().events if event.kind in KINDS]

    def unrest(self) -> str:
        """What still has to come to rest: sessions, and what the auditor has seen settled."""
        if rest := super().unrest():
            return rest
        last = max((event.order[0] for event in self.truth().events), default=0)
        for kind in KINDS:
            if max((stamp for stamp, of, _ in self.looks if of == kind), default=0) < last:
                return f"{kind} is not settled up to {last}"
        return ""

    def count_printed(self) -> int:
        """How many blocks are known to be stored."""
        return sum(len(printing.stored) for printing in self.printings.values())

    async def damage(self) -> None:
        """Other worlds are damaged."""

    async def look_back(self) -> None:
        """A last process looks at all documents, and goes on with everybody's watch."""
        process = self.loop.process("last")
        telling = Telling()
        for event in self.events():
            telling.take(event)

        async def look() -> None:
            async with (
                logstore.open(
                    self.store.face(process),
                    clock=process.clock,
                    rng=self.dice("last"),
                    settings=self.stage.log_settings,
                ) as log,
                DocumentStore.open(log, collections=COLLECTIONS) as db,
            ):
                for kind in KINDS:
                    self._compare(db.collection(kind), kind, telling)
                for name, printing in self.printings.items():
                    await self._judge_printing(StageLogs(log).stage("d", name), printing)
                for number, watcher in enumerate(self.watchers):
                    await self._watch_on(db.collection("Box"), number, watcher, telling)

        await process.start(look())

    def _compare(self, documents: Documents[Any], kind: str, telling: Telling) -> None:
        told = telling.documents(kind)
        page = documents.find()
        if dict(zip(page.keys, page.rows, strict=True)) != told:
            self.history.problem(f"P8 the last view of {kind} has {page}, the telling {told}")
        for key in told:
            if documents.version(key) != str(telling.rows[kind, key].version):
                self.history.problem(f"P8 the last view has another version of {kind} {key}")
        if documents.view.digest() != documents.view.digest(pending=True):
            self.history.problem("P8 the last view has pending rows, though all is settled")

    async def _judge_printing(self, stage: Stage, printing: Printing) -> None:
        """What is stored of a stage log, beside what its senders were told."""
        try:
            blocks, complete = await stage.fetch()
        except NotFound:
            blocks, complete = [], False
        indices = [block.index for block in blocks]
        if indices != sorted(set(indices)) or any(block.text != f"line {block.index}" for block in blocks):
            self.history.problem(f"P6 the stage log {stage.id} has {blocks}")
        if not printing.stored <= set(indices) <= printing.sent:
            self.history.problem(f"P1 the stage log {stage.id} has {indices}, of {printing}")
        if printing.complete_s < math.inf and not complete:
            self.history.problem(f"P1 the stage log {stage.id} is not complete any more: {printing}")
        if complete and not printing.stored_late <= set(indices):
            self.history.problem(f"P6 the stage log {stage.id} took blocks after its end: {printing}")

    async def _watch_on(self, documents: Documents[Any], number: int, watcher: Watcher, telling: Telling) -> None:
        expected = {key: document for key, document in telling.documents("Box").items() if document["n"] >= 0}
        try:
            async with asyncio.timeout(30):
                await watcher.watch(documents, random.Random(0))
        except TimeoutError:
            pass
        except Trimmed:
            return
        if watcher.seen != expected:
            self.history.problem(f"P9 a watch of watcher {number} shows {watcher.seen}, the telling {expected}")

    def judge(self) -> list[str]:
        """What anybody was told, beside the telling."""
        events = self.events()
        telling, place = Telling(), 0
        for watermark, kind, rows in sorted(self.looks, key=lambda look: look[0]):
            while place < len(events) and events[place].order[0] <= watermark:
                telling.take(events[place])
                place += 1
            if telling.documents(kind) != rows:
                self.history.problem(
                    f"P8 at {watermark} a view shows {rows} of {kind}, the telling {telling.documents(kind)}"
                )
        for event in events[place:]:
            telling.take(event)
        orders: dict[str, list[tuple[int, int, int, int]]] = {}
        for event in events:
            orders.setdefault(event.id, []).append(event.order)
        for deed in self.deeds:
            self._judge_deed(deed, orders.get(deed.id, []), telling)
        self._judge_barriers(orders)
        self._judge_causality(orders)
        for problem in claims_are_linearizable(self.deeds, telling):
            self.history.problem(problem)
        self._judge_sum(telling)
        return self.history.problems

    def _judge_deed(self, deed: Deed, orders: Sequence[object], telling: Telling) -> None:
        effects, what = (
            telling.effects[deed.id],
            f"{deed.do} {deed.kind} {deed.key} {deed.id} was told {deed.told.value}",
        )
        claimed = (deed.kind, deed.do) == ("Seat", "create")
        if effects > 1:
            self.history.problem(f"P6 {what} and has {effects} effects")
        if len(orders) > 1 and not claimed and deed.do != "add":
            self.history.problem(f"P6 {what} and is stored {len(orders)} times")
        if deed.stored_s < math.inf and not orders:
            self.history.problem(f"P1 {what} and is not stored")
        if deed.told in {Told.OTHERWISE, Told.ABSENT, Told.EXISTS} and effects:
            self.history.problem(f"P6 {what} and changed something")
        if deed.told in {Told.OTHERWISE, Told.ABSENT} and orders and deed.do != "add":
            self.history.problem(f"P6 {what} and is stored")
        if (deed.told is Told.APPLIED or (deed.told is Told.STORED and claimed)) and effects != 1:
            self.history.problem(f"P6 {what} and changed nothing")
        if deed.told is Told.EXISTS and not any(
            telling.effects[other.id] for other in self.deeds if (other.kind, other.key) == (deed.kind, deed.key)
        ):
            self.history.problem(f"P6 {what} and nobody has created it")
        if deed.told is Told.REFUSED and effects:
            self.history.problem(f"P6 {what} and changed something")

    def _judge_barriers(self, orders: dict[str, list[tuple[int, int, int, int]]]) -> None:
        """What was known to be stored before an update was called is ordered before it."""
        stored = sorted(
            (deed.stored_s, min(orders[deed.id]))
            for deed in self.deeds
            if deed.stored_s < math.inf and deed.id in orders
        )
        for deed in self.deeds:
            if deed.blind or deed.do not in {"update", "delete"} or deed.id not in orders:
                continue
            before = [order for stored_s, order in stored if stored_s < deed.called_s]
            if before and max(before) > min(orders[deed.id]):
                self.history.problem(
                    f"P7 {deed.do} {deed.key} {deed.id} is ordered before what was stored when it was called"
                )

    def _judge_causality(self, orders: dict[str, list[tuple[int, int, int, int]]]) -> None:
        """Who is shown a write, settled, is shown what its writer had been shown: the order has that first."""
        for deed in self.deeds:
            for seen in deed.saw if deed.id in orders else ():
                if seen not in orders or min(orders[seen]) > min(orders[deed.id]):
                    self.history.problem(
                        f"P7 {deed.do} {deed.kind} {deed.key} {deed.id} is ordered before {seen}, which its process saw"
                    )

    def _judge_sum(self, telling: Telling) -> None:
        added = [deed for deed in self.deeds if deed.do == "add" and telling.effects[deed.id]]
        total = telling.documents("Sum").get(SUM, {"n": 0})["n"]
        if total != len(added):
            self.history.problem(f"P7 the sum is {total} after {len(added)} additions")

    def count(self) -> Counter[str]:
        """How much happened."""
        counts = super().count()
        counts.update(f"{deed.kind} {deed.do} {deed.told.value}" for deed in self.deeds)
        telling = Telling()
        for event in self.events():
            telling.take(event)
        counts.update(effects=telling.effects.total(), copies=len(telling.copies), looks=len(self.looks))
        counts.update(blocks=self.count_printed())
        return counts
