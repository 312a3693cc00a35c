"""One random schedule at a time of a large world: the same processes, too many of them to see every schedule.

Several writers with slots in flight (who die, sleep, and start anew), two keepers, two collectors, sealers and readers
of every speed share one store for thousands of requests, while chapters close, are retired and are deleted behind them.
Everything is drawn from one seed: equal seeds give equal runs, and a broken promise names its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.model import protocol
from tests.model.bugs import Bug
from tests.model.promises import Broken, History, beliefs_broken, end_broken, pair_broken, store_broken
from tests.model.protocol import Mind, Reader, Rules, Witness
from tests.model.store import (
    CREATED,
    EXISTS,
    LOST,
    Body,
    Choose,
    Clock,
    Create,
    Delete,
    Entry,
    Forget,
    Get,
    GetAny,
    Key,
    ListChapter,
    Receive,
    Request,
    Send,
    Sleep,
    Steps,
    Store,
    Tell,
    roster,
    show,
    stored,
)


@dataclass(frozen=True)
class Bounds:
    """How large, and how bad. Probabilities are per request."""

    steps: int = 12_000
    writers: int = 4
    readers: int = 3
    sealers: int = 3
    batches: int = 5  # of each incarnation of a writer
    incarnations: int = 60  # of all writers together
    crash: float = 0.003
    lost: float = 0.03
    sleep: float = 0.004
    lands_late: float = 0.03
    check_every: int = 500


RULES = Rules(flights=3, chapter_entries=6, grace=60)


class PromiseBroken(AssertionError):
    """A promise broken by one schedule; the message begins with the seed that replays it."""

    def __init__(self, seed: int, step: int, broken: Broken, tail: list[str]) -> None:
        lines = "\n  ".join(tail)
        super().__init__(f"seed={seed} step={step}: {broken.promise} broken: {broken.how}\n  {lines}")
        self.broken = broken


@dataclass
class Actor:
    """One running process: its generator, the request it waits for, and what it has told."""

    name: str
    process: Steps
    again: Callable[[], Actor | None]  # what takes its place when it has ended or died
    weight: float = 1.0  # how quick it is
    reader: Reader | None = None
    request: Request | None = None
    asleep_until: int = 0
    waiting: list[tuple[Key, Body]] = field(default_factory=list)  # sent, not answered
    beliefs: dict[str, Hashable] = field(default_factory=dict)


class Run:
    """One schedule. `run()` returns itself, or raises PromiseBroken."""

    def __init__(self, seed: int, *bugs: Bug, bounds: Bounds = Bounds(), rules: Rules = RULES) -> None:
        self.seed, self.bounds = seed, bounds
        self.rules = replace(rules, bugs=frozenset(bugs))
        self.random = random.Random(seed)
        self.objects: dict[Key, Body] = dict(stored({roster(0, 0): Entry("begin", 0)}).objects)
        self.first: dict[Key, Body] = dict(self.objects)
        self.late: list[tuple[Key, Body]] = []  # creations nobody waits for
        self.now = self.step = self.incarnations = 0
        self.schedule: list[str] = []
        self.gone: list[Actor] = []  # what they were told stays true
        self.calm = False  # no more faults: let everybody finish
        b = bounds
        self.actors = [
            *(self._writer(number) for number in range(b.writers)),
            *(self._keeper(number) for number in range(2)),
            *(self._collector(number, 0) for number in range(2)),
            *(self._sealer(number) for number in range(b.sealers)),
            *(self._reader(number, 0, None) for number in range(b.readers)),
        ]
        for actor in self.actors:
            self._resume(actor, None)

    def run(self) -> Run:
        while self.step < self.bounds.steps:
            self._step()
            if self.step % self.bounds.check_every == 0:
                self._check()
        self._drain()
        return self

    # Who runs. Each comes back as a new incarnation when it has ended or died.

    def _writer(self, number: int) -> Actor:
        self.incarnations += 1
        name = f"writer-{number}.{self.incarnations}"
        batches = tuple(f"{name}/{batch}" for batch in range(self.bounds.batches))
        mind = Mind(name, self.rules, at=(self._newest(), 0), haste=number)

        def again() -> Actor | None:
            more = self.incarnations < self.bounds.incarnations and not self.calm
            return self._writer(number) if more else None

        return Actor(name, protocol.writer(mind, batches, tick_after=2), again)

    def _keeper(self, number: int) -> Actor:
        mind = Witness(f"keeper-{number}", self.rules, at=(self._newest(), 0))
        return Actor(mind.name, protocol.keeper(mind), lambda: self._keeper(number), weight=3.0)

    def _sealer(self, number: int) -> Actor:
        mind = Witness(f"sealer-{number}", self.rules, at=(self._oldest(), 0))
        return Actor(mind.name, protocol.sealer(mind), lambda: self._sealer(number), weight=2.0)

    def _collector(self, number: int, chapter: int) -> Actor:
        mind = Mind(f"collector-{number}", self.rules)
        process = protocol.collector(mind, chapter)
        following = chapter + 1

        def again() -> Actor | None:
            return self._collector(number, following if actor.request is None else chapter)

        actor = Actor(mind.name, process, again, weight=2.0)
        return actor

    def _reader(self, number: int, chapter: int, snapshot: list[protocol.Read] | None) -> Actor:
        mind = Reader(f"reader-{number}", self.rules, at=(chapter, 0 if chapter else 1), taken=snapshot or [])

        def again() -> Actor | None:
            """Trimmed: plan again from a snapshot that covers what is retired."""
            if mind.stopped != "trimmed":
                return None
            oldest = self._oldest()
            return self._reader(
                number, oldest, [read for read in sorted(self._history().events) if read[1][0] < oldest]
            )

        return Actor(mind.name, protocol.reader(mind), again, weight=(2.0, 0.7, 0.15)[number % 3], reader=mind)

    def _newest(self) -> int:
        """The newest chapter begun, as a LIST of the roster shows it."""
        return max(key.chapter for key in self.objects if key.kind == "roster")

    def _oldest(self) -> int:
        """The oldest chapter that is not retired."""
        return max((key.chapter + 1 for key in self.objects if key.kind == "retired"), default=0)

    # One step: somebody's request is answered.

    def _step(self) -> None:
        self.step += 1
        self.now += self.random.random() < 0.3
        if self.late and (self.calm or self.random.random() < self.bounds.lands_late):
            key, body = self.late.pop(self.random.randrange(len(self.late)))
            self._note("network", f"create {show(key)} lands late: {self._create(key, body)}")
        ready = [actor for actor in self.actors if self._is_ready(actor)]
        if not ready:
            self.now += 1
            return
        quickness = [3.0 if self.calm and actor.reader else actor.weight for actor in ready]
        actor = self.random.choices(ready, quickness)[0]
        chance = 1.0 if self.calm else self.random.random()
        if actor.reader is None and chance < self.bounds.crash:
            self._die(actor)
        elif chance < self.bounds.crash + self.bounds.sleep:
            actor.asleep_until = self.now + self.random.randrange(4 * self.rules.grace)
            self._note(actor.name, f"sleeps until {actor.asleep_until}")
        else:
            self._serve(actor)

    def _is_ready(self, actor: Actor) -> bool:
        until = actor.request.until if isinstance(actor.request, Sleep) else 0
        return self.now >= max(until, actor.asleep_until)

    def _serve(self, actor: Actor) -> None:
        request = actor.request
        answer: Any = None
        match request:
            case Get(key):
                answer = self.objects.get(key)
            case GetAny(keys):
                key = self.random.choice(keys)
                answer = (key, self.objects.get(key))
            case Create(key, body):
                answer = self._create_or_lose(key, body)
            case Receive():
                key, body = actor.waiting.pop(self.random.randrange(len(actor.waiting)))
                answer = (key, self._create_or_lose(key, body))
            case Delete(key):
                self.objects.pop(key, None)
            case ListChapter(chapter):
                answer = tuple(sorted(key for key in self.objects if key.chapter == chapter and key.kind != "retired"))
            case Clock():
                answer = self.now
        self._note(actor.name, f"{show(request)} -> {show(answer)}")
        self._resume(actor, answer)

    def _create_or_lose(self, key: Key, body: Body) -> str:
        if not self.calm and self.random.random() < self.bounds.lost:
            self.late.append((key, body))
            return LOST
        return self._create(key, body)

    def _create(self, key: Key, body: Body) -> str:
        if key in self.objects:
            return EXISTS
        self.objects[key] = body
        self.first.setdefault(key, body)
        return CREATED

    def _resume(self, actor: Actor, answer: Any) -> None:
        """Run a process to its next request of the store, or to its end."""
        try:
            request = actor.process.send(answer)
            while True:
                reply = None
                match request:
                    case Tell(topic, what):
                        self._tell(actor, topic, what)
                    case Send(key, body):
                        actor.waiting.append((key, body))
                    case Forget():
                        self.late += actor.waiting
                        actor.waiting = []
                    case Choose(options):
                        reply = self.random.choice(options)
                    case _:
                        break
                request = actor.process.send(reply)
            actor.request = request
        except StopIteration:
            actor.request = None
            self._replace(actor)

    def _die(self, actor: Actor) -> None:
        self._note(actor.name, "dies")
        self.late += actor.waiting
        if isinstance(actor.request, Create) and self.random.random() < 0.5:
            self.late.append((actor.request.key, actor.request.body))
        self._replace(actor)

    def _replace(self, actor: Actor) -> None:
        self.gone.append(actor)
        if actor in self.actors:
            self.actors.remove(actor)
        following = actor.again()
        if following is not None:
            self.actors.append(following)
            self._resume(following, None)

    # Judging.

    def _tell(self, actor: Actor, topic: str, what: Any) -> None:
        if topic == "read":
            before = actor.beliefs.get(topic)
            if isinstance(before, tuple):
                for stamp, _, _, event in what[0] - before[0]:
                    if stamp <= before[1]:
                        self._fail(Broken("P7 one order", f"{actor.name} got {event} at {stamp} below {before[1]}"))
        actor.beliefs[topic] = what

    def _history(self) -> History:
        return History(Store(frozenset(self.objects.items()), frozenset(self.first.items())))

    def _check(self) -> None:
        history = self._history()
        for broken in store_broken(history, losses=False, late_witnesses=True):
            self._fail(broken)
        for actor in [*self.gone, *self.actors]:
            for broken in beliefs_broken(history, actor.beliefs, losses=False):
                self._fail(broken)
        readers = [actor for actor in self.actors if actor.reader]
        for one in readers:
            for other in readers:
                for broken in pair_broken(one.beliefs, other.beliefs):
                    self._fail(broken)

    def _drain(self) -> None:
        """Let everybody finish undisturbed: then every reader has everything, and every caller an answer."""
        self.calm = True
        for _ in range(20):
            for _ in range(self.bounds.steps // 4):
                self._step()
            if self._is_quiet():
                break
        self._check()
        history = self._history()
        for actor in self.actors:
            if actor.reader:
                for broken in end_broken(history, actor.beliefs, losses=False):
                    self._fail(broken)

    def _is_quiet(self) -> bool:
        """Has every writer ended and every reader read everything?"""
        events = self._history().events
        readers = [actor.beliefs.get("read") for actor in self.actors if actor.reader]
        return all(isinstance(what, tuple) and what[0] >= events for what in readers) and not any(
            actor.name.startswith("writer") for actor in self.actors
        )

    def _fail(self, broken: Broken) -> None:
        raise PromiseBroken(self.seed, self.step, broken, self.schedule[-40:])

    def _note(self, who: str, what: str) -> None:
        self.schedule.append(f"{self.now:5} {who:<13} {what}")

    # What happened, for the curious.

    @property
    def chapters_retired(self) -> int:
        return sum(key.kind == "retired" for key in self.objects)

    @property
    def events(self) -> int:
        return len(self._history().events)

    @property
    def told(self) -> dict[str, int]:
        """How many appends ended how."""
        counts: dict[str, int] = {}
        for actor in [*self.gone, *self.actors]:
            for what in actor.beliefs.values():
                if what in (protocol.STORED, protocol.NOT_STORED, protocol.UNKNOWN):
                    counts[str(what)] = counts.get(str(what), 0) + 1
        return counts
