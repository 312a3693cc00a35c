"""Worlds in which servers want to lead: one does, others stand by or take over, and clients trust what they are told.

The same fates befall them as in other worlds. What a client did, read and was told is a ``Deed``. Afterwards the true
log says in which order all commits happened; everything must be as if it had happened one by one in that order, each
deed at a moment between its call and its end: strictly serializable, which for one document is linearizable.
"""

from __future__ import annotations

import asyncio
import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import logstore
from logstore import (
    AlreadyExists,
    ClockSkew,
    Conflict,
    Fenced,
    Log,
    LogStoreError,
    NotFound,
    NotStored,
    Trimmed,
    Unavailable,
    Unknown,
)
from logstore.entry import Open
from logstore.event import Data
from logstore.keys import SegmentKey, parse_key
from projections import Collection, Documents, DocumentStore, Projection, Transaction
from tests.simulation.actors import Actor, Job
from tests.simulation.documents import Auditing
from tests.simulation.truth import Truth
from tests.simulation.world import World

__all__ = ["Deed", "LeaderWorld", "Told", "strictly_serializable"]

ACCOUNTS: Final = tuple(f"a{i}" for i in range(4))
DOCS: Final = tuple(f"d{i}" for i in range(3))
MONEY: Final = 25  # in each account at first
COLLECTIONS: Final = (Collection("Account", exclusive=True), Collection("Doc", exclusive=True))
Forgivable: Final = (Unavailable, ClockSkew)
RICH: Final = [("n", ">=", 2)]
Place = tuple[str, str]


class Told(Enum):
    """What a client was told."""

    NOTHING = "nothing"
    DONE = "done"
    OTHERWISE = "otherwise"  # nothing of it is stored, nor will be
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Deed:
    """One call of a client: what it read, whether it wrote, what it was told, and when.

    ``found``: which documents it was told are as ``RICH`` says.
    """

    number: int | str
    process: str
    do: str
    called_s: float
    reads: list[tuple[Place, Data | None]] = field(default_factory=list)
    found: frozenset[str] | None = None
    wrote: bool = False
    told: Told = Told.NOTHING
    ended_s: float = math.inf

    @property
    def id(self) -> str:
        """By what its events are known."""
        return str(self.number)

    @property
    def meta(self) -> dict[str, Any]:
        """What its events carry."""
        return {"id": self.id}


@dataclass(slots=True)
class Commit:
    """What happened at once: the id of the deed, and what each document was afterwards."""

    id: str
    slot: str
    after: dict[Place, dict[str, Any]] = field(default_factory=dict)


class Annals:
    """The true log as commits, one after the other; and what is wrong with it by itself."""

    def __init__(self, truth: Truth) -> None:
        self.commits: list[Commit] = []
        self.stamps: list[int] = []
        self.problems: list[str] = []
        rows: dict[Place, dict[str, Any]] = {}
        self.states: list[dict[Place, dict[str, Any]]] = [{}]
        for true in truth.events:
            event, slot = true.event(), true.key
            if not self.commits or (self.commits[-1].id, self.commits[-1].slot) != (true.id, slot):
                self.commits.append(Commit(true.id, slot))
                self.stamps.append(true.order[0])
                self.states.append(self.states[-1])
            assert event.meta is not None
            place, do = (event.kind, event.key), event.meta["document"]["do"]
            if (do == "create") is (place in rows):
                self.problems.append(f"P6 {do} of {place} by {true.id} is stored and had no effect")
                continue
            assert event.data is not None
            rows[place] = {**rows.get(place, {}), **event.data}
            self.commits[-1].after[place] = rows[place]
            self.states[-1] = dict(rows)
        counts = Counter(commit.id for commit in self.commits)
        self.problems += [f"P6 {id_} is stored {count} times" for id_, count in counts.items() if count > 1]
        self.at = {commit.id: number for number, commit in enumerate(self.commits, 1)}
        for number, state in enumerate(self.states):
            accounts = [row["n"] for (kind, _), row in state.items() if kind == "Account"]
            if accounts and sum(accounts) != MONEY * len(ACCOUNTS):
                self.problems.append(f"P6 after {number} commits there is as much money: {sum(accounts)}")

    def documents(self, kind: str, number: int = -1) -> dict[str, dict[str, Any]]:
        """The documents of a kind after so many commits."""
        return {key: row for (of, key), row in self.states[number].items() if of == kind}

    def moments(self, place: Place, document: Data | None) -> range | None:
        """After which numbers of commits a document was so; they follow each other, for each write has its own mark."""
        numbers = [i for i, state in enumerate(self.states) if state.get(place) == document]
        return range(numbers[0], numbers[-1] + 1) if numbers else None


def strictly_serializable(deeds: Sequence[Deed], annals: Annals) -> Iterator[str]:
    """Contradictions between what clients saw, the times at which they did, and the order of the commits.

    Exact, for the order is given: each deed that only read takes the earliest moment that it can, and an earlier one
    never hurts another. So where one finds none, there is none.
    """
    written = {deed.id: deed for deed in deeds if deed.id in annals.at}
    latest_call = (-math.inf, "")
    for commit in annals.commits:
        if (deed := written.get(commit.id)) is None:
            yield f"P6 {commit.id} is stored, and nobody did it"
            continue
        if deed.ended_s < latest_call[0]:
            yield f"P7 {deed.id} had ended before {latest_call[1]} was called, and is ordered after it"
        latest_call = max(latest_call, (deed.called_s, deed.id))
        before = annals.states[annals.at[deed.id] - 1]
        for place, document in deed.reads:
            if before.get(place) != document:
                yield f"P7 {deed.id} {deed.do} read {place} as {document}, where it is in the order {before.get(place)}"
        found = {key for (kind, key), document in before.items() if kind == "Doc" and document["n"] >= 2}
        if deed.found not in {None, frozenset(found)}:
            yield f"P7 {deed.id} {deed.do} found {deed.found}, where these match in the order: {found}"
    calls = sorted((deed.called_s, annals.at[deed.id]) for deed in written.values())
    first_called_after = [number for _, number in calls]
    for i in range(len(first_called_after) - 2, -1, -1):
        first_called_after[i] = min(first_called_after[i], first_called_after[i + 1])
    ends = sorted((deed.ended_s, annals.at[deed.id]) for deed in written.values() if deed.told is Told.DONE)
    known: list[tuple[float, int]] = []  # when somebody knew of so many commits: ended before, the numbers rising
    for ended_s, number in ends:
        known.append((ended_s, max(number, known[-1][1] if known else 0)))
    seen: list[tuple[float, int]] = []
    reading = [deed for deed in deeds if deed.told is Told.DONE and deed.id not in annals.at and deed.reads]
    for deed in sorted(reading, key=lambda deed: deed.ended_s):
        low, high = 0, len(annals.states)
        for place, document in deed.reads:
            moments = annals.moments(place, document)
            if moments is None:
                yield f"P7 {deed.id} {deed.do} read {place} as {document}, which it never was"
                break
            low, high = max(low, moments.start), min(high, moments.stop)
        else:
            for line in (known, seen):
                if i := bisect_left(line, (deed.called_s, -1)):
                    low = max(low, line[i - 1][1])
            if (i := bisect_left(calls, (deed.ended_s, len(annals.states)))) < len(calls):
                high = min(high, first_called_after[i])
            if low >= high:
                yield (
                    f"P7 {deed.id} {deed.do} of {deed.process} at {deed.called_s:.4f}-{deed.ended_s:.4f} read"
                    f" {deed.reads}: not before {low} commits, and not after {high - 1}"
                )
            seen.append((deed.ended_s, max(low, seen[-1][1] if seen else 0)))


class Leading:
    """A server that wants to lead, as a standby or by force, and serves several clients while it does."""

    writes = True
    endures = False

    def __init__(self, name: str, world: LeaderWorld, *, pause_s: float, usurps: float) -> None:
        self._name = name
        self._world = world
        self._pause_s = pause_s
        self._usurps = usurps

    async def work(self, actor: Actor, log: Log) -> None:
        """Lead, again and again, until told to stop."""
        while not actor.stopping.is_set():
            leading = asyncio.create_task(self._lead(actor, log))
            stopping = asyncio.create_task(actor.stopping.wait())
            try:
                await asyncio.wait([leading, stopping], return_when=asyncio.FIRST_COMPLETED)
                if not self._serves:
                    leading.cancel()
                await asyncio.wait([leading])
            finally:
                leading.cancel()
                stopping.cancel()
                await asyncio.wait([leading, stopping])
            if not leading.cancelled() and (error := leading.exception()) is not None:
                raise error

    _serves = False

    async def _lead(self, actor: Actor, log: Log) -> None:
        rng, history = actor.rng, actor.stage.history
        assert actor.process is not None
        me = actor.process.name
        self._serves = False
        how: dict[str, Any] = {"standby": True}
        if rng.random() < self._usurps:
            how = rng.choice([{"takeover": True}, {}])
            await actor.sleep(self._pause_s * 5)
        try:
            store = DocumentStore.open(log, writer=self._name, collections=COLLECTIONS, mode="exclusive", **how)
            async with AsyncExitStack() as stack:
                with nullcontext() if how else history.attempt(me):
                    db = await stack.enter_async_context(store)
                history.note(me, f"leads, by {how}")
                self._world.terms += 1
                self._serves = True
                try:
                    await self._serve(actor, db)
                finally:
                    self._serves = False
            history.note(me, "led")
        except Trimmed as error:
            history.trim(me, str(error))
        except (Conflict, Fenced, Unknown) as error:
            history.note(me, f"leads not: {error}")
            await actor.sleep(self._pause_s)

    async def _serve(self, actor: Actor, db: DocumentStore) -> None:
        rng = actor.rng
        for _ in range(rng.choice([5, 15, 40])):
            await asyncio.gather(*(self._request(actor, db) for _ in range(rng.choice([1, 2, 4]))))
            await actor.sleep(self._pause_s * rng.choice([0.1, 1, 1, 3]))
            if actor.stopping.is_set():
                return
            db._led.require()

    async def _request(self, actor: Actor, db: DocumentStore) -> None:
        rng, world = actor.rng, self._world
        await asyncio.sleep(rng.uniform(0, 0.1))
        do = rng.choice(["transfer", "transfer", "write", "write", "modify", "confirmed", "confirmed", "look", "stale"])
        if do == "transfer" and not len(db.collection("Account")):
            do = "found"
        if do in {"confirmed", "stale"}:
            await self._read(actor, db, do)
            return
        deed = world.begin(actor, do)
        history, why = actor.stage.history, ""
        patience_s = rng.choice([rng.expovariate(1 / 2), rng.uniform(0, 0.1)]) if rng.random() < 0.2 else None
        try:
            async with asyncio.timeout(patience_s):
                await getattr(self, f"_{do}")(db, deed, rng)
            deed.told, deed.ended_s = Told.DONE, actor.stage.loop.time()
        except (Conflict, AlreadyExists, NotFound, NotStored, Fenced) as error:
            deed.told, why = Told.OTHERWISE, repr(error)
        except Unknown as error:
            deed.told, why = Told.UNKNOWN, repr(error)
            world.unknowns.append((deed, error))
        except (TimeoutError, *Forgivable) as error:
            deed.told, why = Told.UNKNOWN, repr(error)
        history.note(actor.name, f"{deed.told.value} {deed.id} {why}")

    async def _read(self, actor: Actor, db: DocumentStore, do: str) -> None:
        """Every document by itself: each is one read."""
        world, history = self._world, actor.stage.history
        places = [("Account", key) for key in ACCOUNTS] + [("Doc", key) for key in DOCS]
        deeds = [world.begin(actor, do) for _ in places]
        try:
            if do == "confirmed":
                await db.confirm()
        except (Fenced, *Forgivable) as error:
            history.note(actor.name, f"does not confirm {deeds[0].id}: {error!r}")
            return
        for place, deed in zip(places, deeds, strict=True):
            deed.reads.append((place, _document(db.collection(place[0]), place[1])))
            deed.told, deed.ended_s = Told.DONE, actor.stage.loop.time()

    # What clients do

    async def _found(self, db: DocumentStore, deed: Deed, _rng: random.Random) -> None:
        async with db.transaction() as tx:
            for key in ACCOUNTS:
                await tx.create("Account", key, {"n": MONEY, "by": deed.id}, meta=deed.meta)

    async def _transfer(self, db: DocumentStore, deed: Deed, rng: random.Random) -> None:
        source, target = rng.sample(ACCOUNTS, 2)
        async with db.transaction() as tx:
            a, b = await _get(tx, deed, "Account", source), await _get(tx, deed, "Account", target)
            if a is None or b is None:
                return
            await asyncio.sleep(rng.choice([0, 0, 0.05]))
            amount = rng.randrange(1, 10)
            deed.wrote = True
            await tx.update("Account", source, {"n": a["n"] - amount, "by": deed.id}, meta=deed.meta)
            await tx.update("Account", target, {"n": b["n"] + amount, "by": deed.id}, meta=deed.meta)

    async def _write(self, db: DocumentStore, deed: Deed, rng: random.Random) -> None:
        async with db.transaction() as tx:
            if rng.random() < 0.5:
                deed.found = frozenset((await tx.find("Doc", RICH)).keys)
                await asyncio.sleep(rng.choice([0, 0.05]))
            for key in rng.sample(DOCS, rng.choice([1, 1, 2])):
                deed.wrote = True
                document = {"n": rng.randrange(4), "by": deed.id}
                if await _get(tx, deed, "Doc", key) is None:
                    await tx.create("Doc", key, document, meta=deed.meta)
                else:
                    await tx.update("Doc", key, document, meta=deed.meta)

    async def _modify(self, db: DocumentStore, deed: Deed, rng: random.Random) -> None:
        key = rng.choice(DOCS)

        def change(document: Any) -> None:
            deed.reads.append((("Doc", key), dict(document)))
            document["n"] += 1
            document["by"] = deed.id

        deed.wrote = True
        await db.collection("Doc").modify(key, change, meta=deed.meta)

    async def _look(self, db: DocumentStore, deed: Deed, rng: random.Random) -> None:
        """A transaction that only reads, of both kinds: all at one moment."""
        async with db.transaction() as tx:
            page = await tx.find("Doc", [("n", ">=", 0)])
            found = dict(zip(page.keys, page.rows, strict=True))
            deed.reads += [(("Doc", key), found.get(key)) for key in DOCS]
            for key in rng.sample(ACCOUNTS, 2):
                await _get(tx, deed, "Account", key)


async def _get(tx: Transaction, deed: Deed, kind: str, key: str) -> Data | None:
    try:
        document = await tx.get(kind, key)
    except NotFound:
        document = None
    deed.reads.append(((kind, key), document))
    return document


def _document(documents: Documents[Any], key: str) -> Data | None:
    return documents.get(key) if key in documents else None


class LeaderWorld(World):
    """Servers that lead one after the other, one who audits, and sometimes keepers."""

    projections: Sequence[Callable[[], Projection]] = tuple(collection.fold for collection in COLLECTIONS)
    mark = ""  # what the numbers of deeds begin with, where others have numbers, too

    def populate(self, rng: random.Random) -> list[Actor]:
        """Who lives in it."""
        jobs = self.leaders(rng, "server")
        jobs["audit"] = [Auditing(self.audits, COLLECTIONS, pause_s=0.5 * self.slower)]
        return self.cast(jobs, rng)

    def leaders(self, rng: random.Random, name: str) -> dict[str, list[Job]]:
        """Who wants to lead, two or three."""
        self.dealings: list[Deed] = []
        self.unknowns: list[tuple[Deed, Unknown]] = []
        self.audits: list[tuple[int, str, dict[str, Data]]] = []
        self.terms = 0
        usurps = rng.choice([0.0, 0.3, 0.6])
        return {
            f"{name}{i}": [
                Leading(rng.choice(["web", f"w{i}"]), self, pause_s=rng.choice([0.1, 0.3]) * self.slower, usurps=usurps)
            ]
            for i in range(rng.randint(2, self.most))
        }

    def commits(self) -> Truth:
        """The log, of what leaders write."""
        return self.truth().of_kinds({collection.kind for collection in COLLECTIONS})

    def begin(self, actor: Actor, do: str) -> Deed:
        """Note that a client does something."""
        assert actor.process is not None
        number = f"{self.mark}{len(self.dealings)}" if self.mark else len(self.dealings)
        deed = Deed(number, actor.process.name, do, self.loop.time())
        self.dealings.append(deed)
        self.history.note(deed.process, f"{do} {deed.id}")
        return deed

    def unrest(self) -> str:
        """What still has to come to rest: sessions, and what the auditor has seen settled."""
        if rest := super().unrest():
            return rest
        last = max((event.order[0] for event in self.truth().events), default=0)
        for collection in COLLECTIONS:
            if max((stamp for stamp, of, _ in self.audits if of == collection.kind), default=0) < last:
                return f"{collection.kind} is not settled up to {last}"
        return ""

    async def damage(self) -> None:
        """Other worlds are damaged."""

    async def look_back(self) -> None:
        """A last process asks what became of what is unknown, looks at all documents, and leads."""
        process = self.loop.process("last")

        async def look() -> None:
            async with logstore.open(
                self.store.face(process),
                clock=process.clock,
                rng=self.dice("last"),
                settings=self.stage.log_settings,
            ) as log:
                for deed, unknown in self.unknowns:
                    await self._resolve(log, deed, unknown)
                annals = Annals(self.commits())
                async with DocumentStore.open(
                    log, writer="last", collections=COLLECTIONS, mode="exclusive", standby=True
                ) as db:
                    await db.confirm()
                    for collection in COLLECTIONS:
                        page = db.collection(collection.kind).find()
                        shown = dict(zip(page.keys, page.rows, strict=True))
                        if shown != annals.documents(collection.kind):
                            self.history.problem(
                                f"P8 the last leader shows {shown}, there is {annals.documents(collection.kind)}"
                            )

        await process.start(look())

    async def _resolve(self, log: Log, deed: Deed, unknown: Unknown) -> None:
        try:
            await log.resolve(unknown)
            deed.told = Told.DONE
        except NotStored:
            deed.told = Told.OTHERWISE
        except LogStoreError as error:
            self.history.problem(f"P6 cannot be resolved in calm weather: {deed.id} {error!r}")

    def judge(self) -> list[str]:
        """What anybody was told or saw, beside the annals."""
        annals = Annals(self.commits())
        for problem in [*annals.problems, *self._are_as_told(annals)]:
            self.history.problem(problem)
        sure = [deed for deed in self.dealings if deed.do != "stale"]
        for problem in strictly_serializable(sure, annals):
            self.history.problem(problem)
        for problem in [*self._stale_reads(annals), *self._looks_are_cuts(annals), *self._one_accepts_at_a_time()]:
            self.history.problem(problem)
        return self.history.problems

    def _are_as_told(self, annals: Annals) -> Iterator[str]:
        for deed in self.dealings:
            stored = deed.id in annals.at
            writes = deed.wrote or deed.do == "found"
            if deed.told is Told.DONE and writes and not stored:
                yield f"P1 {deed.do} {deed.id} of {deed.process} was acknowledged, and is not stored"
            if deed.told is Told.OTHERWISE and stored:
                yield f"P6 {deed.do} {deed.id} of {deed.process} was refused, and is stored"

    def _stale_reads(self, annals: Annals) -> Iterator[str]:
        """What is read without confirming was so once, and never goes back in one process."""
        seen: dict[tuple[str, Place], int] = {}
        for deed in self.dealings:
            for place, document in deed.reads if deed.do == "stale" else ():
                moments = annals.moments(place, document)
                if moments is None:
                    yield f"P7 {deed.id} read {place} as {document}, which it never was"
                    continue
                if moments.stop <= seen.get((deed.process, place), 0):
                    yield f"P7 {deed.id} of {deed.process} read {place} as {document}, and has seen later ones"
                seen[deed.process, place] = max(seen.get((deed.process, place), 0), moments.start)

    def _looks_are_cuts(self, annals: Annals) -> Iterator[str]:
        for watermark, kind, rows in self.audits:
            number = bisect_left(annals.stamps, watermark + 1)
            if annals.documents(kind, number) != rows:
                yield f"P8 at {watermark} a view shows {rows} of {kind}, there is {annals.documents(kind, number)}"

    def _one_accepts_at_a_time(self) -> Iterator[str]:
        """Nothing is stored in a leader's session once its successor's has anything but its end.

        What lands again under a name that was collected is garbage.
        """
        truth, names = self.truth(), set[str]()
        held: dict[tuple[int, int], list[float]] = {}
        sessions = {(id_.chapter, id_.number): session for id_, session in truth.sessions.items()}
        for request in sorted(self.store.requests, key=lambda request: request.arrived_s or 0):
            key = parse_key(request.key)
            if not request.landed or request.key in names or request.arrived_s is None:
                continue
            names.add(request.key)
            if isinstance(key, SegmentKey):
                session = sessions[key.chapter, key.session]
                if isinstance(session.opened.body, Open) and session.opened.body.exclusive is None:
                    continue
                if key.slot < session.slots - session.final:
                    held.setdefault((key.chapter, key.session), []).append(request.arrived_s)
        last = (-math.inf, (0, 0))
        for address in sorted(held):
            if min(held[address]) < last[0]:
                yield f"P6 the sessions {last[1]} and {address} both accepted, {last[0]:.4f} {min(held[address]):.4f}"
            last = max(last, (max(held[address]), address))

    def count(self) -> Counter[str]:
        """How much happened."""
        counts = super().count()
        counts.update(f"{deed.do} {deed.told.value}" for deed in self.dealings)
        counts.update(terms=self.terms, looks=len(self.audits), commits=len(Annals(self.commits()).commits))
        return counts
