"""The protocol of DESIGN §6, one generator per role.

Read it as the code of the real processes with everything taken away that does not decide who wins: bytes, digests,
tasks, time-outs as durations. What is left is small:

- The **roster** is a list of entries with predictable names. `walk` goes to its first absent number, `post` creates
  that number. A `closed` entry ends a chapter, the list goes on at entry 0 of the next.
- Posting an `open` entry gives a process a **session**: a prefix in which it alone creates slots 0, 1, 2, …, until a
  *final* ends it. `write_session` sends slots and acknowledges them in slot order.
- A creation without an answer may land at any later time. `find_out` gets certainty: it reads the slot, and where it is
  absent creates a final there, so that nothing else can ever land.
- `sealer` does the same to somebody else's session, unless something says that the gap was stored once (Missing).
- `reader` reads the roster number by number and each session slot by slot, and knows by its **watermark** below which
  stamp nothing new can appear.
- `collector` retires a whole chapter, and deletes it one grace later. Whoever concludes anything from an object or a
  404 of a chapter goes through `ask`: the **sleeper's rule**.

Every process has a `Mind`, which is all it remembers from one step to the next. Generators are resumed with answers;
`yield from` calls a part of the protocol. Two rules of style keep a suspended process readable by the explorer (which
identifies it by where it stands and what its variables hold): no `for` loop around a `yield`, and a `yield` stands
alone on the right of an assignment or as a statement. `explorer.check_style` enforces both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.model.bugs import Bug
from tests.model.store import (
    CREATED,
    EXISTS,
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
    Record,
    Request,
    Segment,
    Send,
    Session,
    Sleep,
    Steps,
    Tell,
    log,
    retired,
    roster,
)

STORED, NOT_STORED, UNKNOWN = "stored", "not stored", "unknown"
"""What `append` tells its caller: it returned, raised NotStored, or raised Unknown."""


@dataclass(frozen=True)
class Rules:
    """The settings of a store, and the mistakes planted in everybody who uses it."""

    bugs: frozenset[Bug] = frozenset()
    flights: int = 1  # so many slots of a session may be unacknowledged
    chapter_entries: int = 3  # a keeper closes a chapter that has so many entries
    grace: int = 0  # deletion begins so long after the record; 0: nothing is ever retired
    roster_may_lose: bool = False  # then posters look beyond the tail before they believe in it
    slots_may_get_lost: bool = False  # then owners read their last slot again, sealers look again after the seal
    retries: bool = True  # a creation without an answer is made again, or given up: the schedule decides

    def has(self, bug: Bug) -> bool:
        return bug in self.bugs


@dataclass
class Mind:
    """What a process remembers. `at` is the next roster number it has not read."""

    name: str
    rules: Rules
    at: tuple[int, int] = (0, 1)
    stamp: int = 0  # the clock: the highest stamp given or read
    haste: int = 0  # how far this process's clock runs ahead of the others with every stamp
    nonce: int = 0
    looks: dict[int, int] = field(default_factory=dict)  # chapter: start of the last look that found no record

    def next_stamp(self) -> int:
        self.stamp += 1 + self.haste
        return self.stamp

    def heed(self, at: tuple[int, int], entry: Entry) -> None:
        """Take in one roster entry: reading merges stamps into the clock."""
        if not self.rules.has(Bug.STAMP_BELOW_TAIL):
            self.stamp = max(self.stamp, entry.stamp)


# The sleeper's rule.


def ask(me: Mind, chapter: int, request: Request) -> Steps:
    """(answer, record or None): a request about a chapter, and *after* it a look whether the chapter is retired.

    That no record was there may be relied on until half the grace after the *start* of that look: deletion begins a
    whole grace after the record, so whatever was asked by then was asked before any deletion.
    """
    if me.rules.has(Bug.LOOK_BEFORE_NOT_AFTER):
        record = yield from look(me, chapter)
        answer = yield request
    else:
        answer = yield request
        record = yield from look(me, chapter)
    return answer, record


def look(me: Mind, chapter: int) -> Steps:
    """The retirement record of the chapter, or None while a look that found none is young enough."""
    if not me.rules.grace or me.rules.has(Bug.NO_LOOK):
        return None
    start = yield Clock()
    reliable = me.rules.grace * 2 if me.rules.has(Bug.LOOK_FOR_WHOLE_GRACE_AND_MORE) else me.rules.grace // 2
    if chapter in me.looks and start - me.looks[chapter] <= reliable:
        return None
    record = yield Get(retired(chapter))
    if record is None:
        if me.rules.has(Bug.LOOK_FROM_ITS_END):
            start = yield Clock()
        me.looks[chapter] = start
    return record


# The roster.


def walk(me: Mind) -> Steps:
    """Go along the roster to its first absent number and leave `me.at` there. False: an entry is missing."""
    while True:
        found = yield from step(me)
        if found != "entry":
            return found == "tail"


def step(me: Mind) -> Steps:
    """Read one number of the roster: "entry" (and `me.at` moved on), "tail" or "missing"."""
    chapter, number = me.at
    entry, record = yield from ask(me, chapter, Get(roster(chapter, number)))
    if record is not None:
        me.at = (chapter + 1, 0)
        return "entry"
    if entry is not None:
        me.heed(me.at, entry)
        ends = entry.kind == "closed" and not me.rules.has(Bug.NUMBER_AFTER_CLOSED)
        me.at = (chapter + 1, 0) if ends else (chapter, number + 1)
        return "entry"
    if not me.rules.roster_may_lose:
        return "tail"
    return (yield from look_beyond(me))


def look_beyond(me: Mind) -> Steps:
    """Is the absent number the tail, or was it lost? Something beyond it says."""
    chapter, number = me.at
    beyond = yield Get(roster(chapter, number + 1))
    if beyond is None and number:
        beyond = yield Get(roster(chapter + 1, 0))
    if beyond is None:
        return "tail"
    again, record = yield from ask(me, chapter, Get(roster(chapter, number)))
    if again is not None or record is not None:
        return "entry"  # it was only read too early; the next step reads it
    yield Tell("missing", roster(chapter, number))
    return "missing"


def post(me: Mind, kind: str, *, only_in: int | None = None, slots: tuple[tuple[Session, int], ...] = ()) -> Steps:
    """Append an entry to the roster; its place, or None when it was not posted (`only_in`, or a missing entry)."""
    while True:
        sound = yield from walk(me)
        if not sound or (only_in is not None and me.at[0] != only_in):
            return None
        posted = yield from create_entry(me, kind, slots)
        if posted is not None:
            return posted


def create_entry(me: Mind, kind: str, slots: tuple[tuple[Session, int], ...]) -> Steps:
    """Try to create the number at `me.at`; its place when it is ours. At number 0 the entry is a begin, for anybody."""
    chapter, number = me.at
    me.nonce += 1
    entry = Entry(kind if number else "begin", me.next_stamp(), me.name, me.nonce, slots if number else ())
    ours = yield from insist(me, roster(chapter, number), entry)
    record = yield from look(me, chapter)
    if record is not None:
        me.at = (chapter + 1, 0)  # void: it landed in a retired chapter
        return None
    return (chapter, number) if ours and number else None


def insist(me: Mind, key: Key, body: Body) -> Steps:
    """Create, and create again when no answer came: True = ours is there, False = another's, None = we gave up."""
    while True:
        answer = yield Create(key, body)
        if answer == CREATED:
            return True
        if answer == EXISTS:
            found = yield Get(key)
            return found == body
        again = yield from perhaps(me)
        if not again:
            return None


def perhaps(me: Mind) -> Steps:
    """The schedule decides whether a creation without an answer is made again."""
    if not me.rules.retries:
        return False
    chosen = yield Choose(("again", "give up"))
    return chosen == "again"


# A writer and its sessions.


@dataclass
class Open:
    """A session of ours. Slots below `acknowledged` are stored for certain and their callers know."""

    id: Session
    sent: list[Segment] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    acknowledged: int = 0
    over: bool = False  # no slot will be sent any more


def writer(
    me: Mind, batches: tuple[str, ...], *, tick_after: int = 0, settles: bool = False, session: Session | None = None
) -> Steps:
    """Append each batch and tell its caller what became of it, in as many sessions as that takes.

    `session` is one opened before the model begins. After `tick_after` acknowledgements of a session the writer posts
    a tick; one that `settles` posts a tick at the end, so that W rises above what it wrote.
    """
    todo = list(batches)
    while todo:
        if session is None:
            session = yield from post(me, "open")
        if session is None:
            return  # a roster entry is missing: nothing can be written
        ours = Open(session)
        session = None
        yield from write_session(me, ours, todo, tick_after)
    if settles:
        yield from post(me, "tick")


def write_session(me: Mind, ours: Open, todo: list[str], tick_after: int) -> Steps:
    """Send slots, acknowledge them in order, and end the session. What has to be appended again is left in `todo`."""
    while not ours.over:
        yield from send(me, ours, todo)
        if ours.acknowledged == len(ours.sent):
            yield from close(me, ours, todo)
            return
        yield from receive(me, ours, todo)
        if tick_after and ours.acknowledged == tick_after and not ours.over:
            tick_after = 0
            yield from post(me, "tick", slots=((ours.id, ours.acknowledged),))


def send(me: Mind, ours: Open, todo: list[str]) -> Steps:
    """Start as many creations as may be in flight."""
    last = 1 if me.rules.has(Bug.FINAL_CARRIES_EVENTS) else 0
    while len(todo) > last and len(ours.sent) - ours.acknowledged < me.rules.flights:
        segment = Segment(me.name, me.next_stamp(), todo.pop(0), ours.acknowledged)
        yield Send(log(ours.id, len(ours.sent)), segment)
        if me.rules.has(Bug.ACKNOWLEDGES_BEFORE_STORE):
            yield Tell(str(segment.event), STORED)
        ours.sent.append(segment)


def receive(me: Mind, ours: Open, todo: list[str]) -> Steps:
    """Take in one answer."""
    (key, answer), record = yield from ask(me, ours.id[0], Receive())
    slot = key.slot
    if record is not None:
        yield from settle_by(record, ours, todo)
    elif answer == CREATED or (answer == EXISTS and me.rules.has(Bug.SEALED_SLOT_IS_STORED)):
        ours.stored.append(slot)
        yield from acknowledge(me, ours)
    elif answer == EXISTS:
        yield from find_out(me, ours, todo, gave_up=False)
    else:
        again = yield from perhaps(me)
        if again:
            yield Send(key, ours.sent[slot])
        elif me.rules.has(Bug.REAPPENDS_WITHOUT_SEAL):
            yield from end(ours, todo, "append again")
        else:
            yield from find_out(me, ours, todo, gave_up=True)


def acknowledge(me: Mind, ours: Open) -> Steps:
    """Tell the callers of every slot below which all are stored."""
    if me.rules.has(Bug.ACKNOWLEDGES_OUT_OF_ORDER):
        yield Tell(str(ours.sent[ours.stored[-1]].event), STORED)
    while ours.acknowledged in ours.stored:
        intact = yield from last_slot_is_there(me, ours)
        if not intact:
            return
        yield Tell(str(ours.sent[ours.acknowledged].event), STORED)
        ours.stored.remove(ours.acknowledged)
        ours.acknowledged += 1


def last_slot_is_there(me: Mind, ours: Open) -> Steps:
    """Not in DESIGN, and needed once the store may lose an object: see `worlds.loss_under_a_writer`.

    An owner that slept for the seal time may have been sealed in a slot that it had stored and the store has lost;
    then whatever it creates above is void. So it reads its last slot again, after the creation and before it
    acknowledges. (In these models everybody may have slept, so it does so always.)
    """
    slot = ours.acknowledged - 1
    if not me.rules.slots_may_get_lost or slot < 0 or me.rules.has(Bug.SLEEPER_TRUSTS_ITS_LAST_SLOT):
        return True
    found = yield Get(log(ours.id, slot))
    if found == ours.sent[slot]:
        return True
    yield Tell("missing", log(ours.id, slot))
    ours.over = True
    yield Forget()
    return False


def find_out(me: Mind, ours: Open, todo: list[str], *, gave_up: bool) -> Steps:
    """What became of the slots that are not acknowledged, in slot order; the session ends unless all were stored.

    Three things may lie in a slot. Ours: stored, go on. A final: nothing of ours can be there, nor in any later slot.
    Nothing: *that proves nothing*, the creation may land yet; so put a final there, and look who won.
    """
    while ours.acknowledged < len(ours.sent):
        slot = ours.acknowledged
        found, record = yield from ask(me, ours.id[0], Get(log(ours.id, slot)))
        if record is not None:
            yield from settle_by(record, ours, todo)
            return
        if found == ours.sent[slot]:
            ours.stored = sorted({*ours.stored, slot})
            yield from acknowledge(me, ours)
        elif found is not None:
            # Our own seal after giving up: the caller gets NotStored. Another's: the writer appends again, unseen.
            ours_is_the_seal = gave_up and found.owner == me.name
            yield from end(ours, todo, NOT_STORED if ours_is_the_seal else "append again")
            return
        elif me.rules.has(Bug.ABSENT_IS_NOT_STORED):
            yield from end(ours, todo, NOT_STORED)
            return
        else:
            sealed = yield from insist(me, log(ours.id, slot), a_seal(me, slot))
            if sealed is None:
                yield from end(ours, todo, UNKNOWN)
                return
    yield Forget()


def settle_by(record: Record, ours: Open, todo: list[str]) -> Steps:
    """The chapter is retired: its record says for ever which slots were stored."""
    count = dict(record.slots).get(ours.id[1], 0)
    while ours.acknowledged < min(count, len(ours.sent)):
        yield Tell(str(ours.sent[ours.acknowledged].event), STORED)
        ours.acknowledged += 1
    yield from end(ours, todo, "append again")


def end(ours: Open, todo: list[str], verdict: str) -> Steps:
    """No more slots. The verdict holds for everything that is not acknowledged."""
    yield Forget()
    ours.over = True
    rest = [str(segment.event) for segment in ours.sent[ours.acknowledged :] if segment.event]
    if verdict == "append again":
        todo[:0] = rest
    while rest and verdict != "append again":
        yield Tell(rest.pop(0), verdict)


def close(me: Mind, ours: Open, todo: list[str]) -> Steps:
    """End the session by an empty final. Whoever else ends it there is welcome."""
    ours.over = True
    event = todo.pop(0) if todo else None  # FINAL_CARRIES_EVENTS
    final = Segment(me.name, me.next_stamp(), event, ours.acknowledged, final=True)
    stored = yield from insist(me, log(ours.id, len(ours.sent)), final)
    if event is None:
        yield from last_slot_is_there(me, ours)
        return
    record = yield from look(me, ours.id[0])
    if record is not None:
        ours.sent.append(final)
        yield from settle_by(record, ours, todo)
    elif stored:
        yield Tell(event, STORED)
    elif stored is None:
        yield Tell(event, UNKNOWN)
    else:
        todo.insert(0, event)


# Ending other people's sessions, and chapters.


@dataclass
class Witness(Mind):
    """A mind that remembers which sessions the roster opened and which slots its ticks name."""

    opened: tuple[Session, ...] = ()
    named: dict[Session, int] = field(default_factory=dict)

    def heed(self, at: tuple[int, int], entry: Entry) -> None:
        super().heed(at, entry)
        if entry.kind == "open":
            self.opened += (at,)
        for session, count in entry.slots:
            self.named[session] = max(count, self.named.get(session, 0))


def sealer(me: Witness) -> Steps:
    """End any session at any time: silence decides when it is worth doing, never whether it is safe."""
    yield from walk(me)
    names = tuple(map(str, range(len(me.opened))))
    if not names:
        return
    chosen = yield Choose(names)
    yield from seal(me, me.opened[int(chosen)])


def seal(me: Witness, session: Session) -> Steps:
    """Create a final in the first gap of the session, unless something says that the gap was stored once."""
    slot = 0
    while True:
        found, record = yield from ask(me, session[0], Get(log(session, slot)))
        if record is not None or (found is not None and found.final):
            return
        if found is not None:
            me.stamp = max(me.stamp, found.stamp)
            slot += 1
            continue
        verdict = yield from gap(me, session, slot)
        if verdict != "read again":
            return


def gap(me: Witness, session: Session, slot: int) -> Steps:
    """Seal the gap; "read again" when it has been filled meanwhile."""
    stored_once = yield from names_gap(me, session, slot)
    if stored_once and not me.rules.has(Bug.SEALS_OVER_LOSS):
        if not me.rules.has(Bug.SEALS_WITHOUT_REREADING):
            again, record = yield from ask(me, session[0], Get(log(session, slot)))
            if again is not None or record is not None:
                return "read again"
        yield Tell("missing", log(session, slot))
        return "missing"
    sealed = yield from insist(me, log(session, slot), a_seal(me, slot))
    if sealed is False:
        return "read again"
    if me.rules.slots_may_get_lost and not me.rules.has(Bug.SEAL_NOT_REVIEWED):
        # Not in DESIGN: the gap may be one that was filled, acknowledged and lost while this sealer slept.
        stored_once = yield from names_gap(me, session, slot)
        if stored_once:
            yield Tell("missing", log(session, slot))
            return "missing"
    record = yield from look(me, session[0])
    if sealed and record is None:
        yield Tell(f"sealed {session}", slot)
    return "sealed"


def a_seal(me: Mind, slot: int) -> Segment:
    """A final in a gap. Below a gap everything is stored, and the final says so: it may be the only witness left."""
    acknowledged = 0 if me.rules.has(Bug.SEAL_SAYS_NOTHING) else slot
    return Segment(me.name, me.next_stamp(), acknowledged=acknowledged, final=True)


def names_gap(me: Witness, session: Session, slot: int) -> Steps:
    """Does a tick, or one of the slots that may be in flight above it, say that this slot was stored?"""
    if me.named.get(session, 0) > slot and not me.rules.has(Bug.SEALS_PAST_TICK):
        return True
    last = slot + me.rules.flights - me.rules.has(Bug.SEALER_LOOKS_ONE_SHORT)
    later = slot + 1
    while later <= last:
        found = yield Get(log(session, later))
        if found is not None and found.acknowledged > slot:
            return True
        later += 1
    return False


def keeper(me: Witness) -> Steps:
    """Close the chapter at hand when it is long enough and holds an open entry; then begin the next."""
    yield from walk(me)
    chapter, number = me.at
    if number < me.rules.chapter_entries - 1 or not any(session[0] == chapter for session in me.opened):
        return
    posted = yield from post(me, "closed", only_in=chapter)
    if posted is not None:
        yield from walk(me)
        if me.at[1] == 0:
            yield from create_entry(me, "begin", ())


# Retiring chapters.


def collector(me: Mind, chapter: int) -> Steps:
    """Retire the chapter once all its sessions are final; delete it, all but the record, one grace later.

    The grace counts from a record that was *read*: a creation without an answer may land in a year.
    """
    decided = None
    while True:
        record = yield from read_chapter(me, chapter)
        if record is not None:
            if me.rules.has(Bug.GRACE_FROM_DECISION):
                decided = yield Clock()
            yield Create(retired(chapter), record)
            if me.rules.has(Bug.TRUSTS_ITS_RECORD):
                break
        found = yield Get(retired(chapter))
        if found is not None:
            break
    created = yield Clock()  # or earlier; a real collector asks the store when it was created
    yield Sleep((created if decided is None else decided) + me.rules.grace)
    yield from delete_chapter(chapter)


def delete_chapter(chapter: int) -> Steps:
    """Delete whatever lies in a chapter whose grace is over."""
    keys = yield ListChapter(chapter)
    while keys:
        yield Delete(keys[0])
        keys = keys[1:]


def read_chapter(me: Mind, chapter: int) -> Steps:
    """The record of a chapter that may be retired: closed, the next one begun, every session final. Else None."""
    number = 1
    slots: tuple[tuple[int, int], ...] = ()
    while True:
        entry = yield Get(roster(chapter, number))
        if entry is None:
            return None
        if entry.kind == "closed":
            break
        if entry.kind == "open":
            count = yield from count_slots(me, (chapter, number))
            if count is None:
                return None
            slots += ((number, count),)
        number += 1
    next_begin, record = yield from ask(me, chapter, Get(roster(chapter + 1, 0)))
    return None if next_begin is None or record is not None else Record(slots)


def count_slots(me: Mind, session: Session) -> Steps:
    """How many slots of a finished session count: those before its first final."""
    slot = 0
    while True:
        found = yield Get(log(session, slot))
        if found is None:
            return slot if me.rules.has(Bug.RETIRES_UNFINISHED) else None
        if found.final:
            return slot + me.rules.has(Bug.COUNT_INCLUDES_FINAL)
        slot += 1


# Reading.

Read = tuple[int, Session, int, str]
"""An event as read: (stamp, session, slot, event). Their order is the order of the log."""


@dataclass
class Progress:
    """How far one session was read."""

    next_slot: int = 0
    stamp: int = 0
    final: bool = False


@dataclass
class Reader(Witness):
    """A mind that reads: its frontier, what it has taken, and what it knows to be settled."""

    last_stamp: int = 0  # of the last roster entry read
    sessions: dict[Session, Progress] = field(default_factory=dict)
    taken: list[Read] = field(default_factory=list)
    settled_to: int = 0  # the highest watermark so far
    stopped: str = ""  # Trimmed or Missing

    def watermark(self) -> int:
        """Nothing unseen can be at or below it.

        An unseen event belongs to a session opened later (its stamp is above its open entry's, and that above the last
        entry's) or to one listed and not final (its stamp is above the last one seen there).
        """
        behind = [progress.stamp for progress in self.sessions.values() if not progress.final]
        if self.rules.has(Bug.WATERMARK_FORGETS_NEW_SESSION):
            behind = [p.stamp for p in self.sessions.values() if not p.final and p.next_slot]
        return min([self.last_stamp, *behind]) + self.rules.has(Bug.WATERMARK_ONE_TOO_HIGH)

    def wanted(self) -> tuple[Key, ...]:
        """The next number of the roster and the next slot of each session that is not final."""
        slots = [log(id, progress.next_slot) for id, progress in self.sessions.items() if not progress.final]
        if self.rules.has(Bug.SKIPS_ABSENT_SLOT):
            slots += [log(id, progress.next_slot + 1) for id, progress in self.sessions.items() if not progress.final]
        return (roster(*self.at), *slots)

    def take_entry(self, entry: Entry) -> None:
        self.heed(self.at, entry)
        if entry.kind == "open":
            self.sessions[self.at] = Progress(stamp=entry.stamp)
        self.last_stamp = entry.stamp
        chapter, number = self.at
        self.at = (chapter + 1, 0) if entry.kind == "closed" else (chapter, number + 1)

    def take_segment(self, session: Session, slot: int, segment: Segment) -> None:
        progress = self.sessions[session]
        progress.next_slot, progress.stamp = slot + 1, segment.stamp
        progress.final = segment.final and not self.rules.has(Bug.READS_PAST_FINAL)
        if segment.event is not None:
            self.taken = sorted([*self.taken, (segment.stamp, session, slot, segment.event)])

    def has_read_all(self, chapter: int, record: Record) -> bool:
        """Was every listed session read up to its listed slot?"""
        read = {id: progress.next_slot for id, progress in self.sessions.items()}
        return all(read.get((chapter, number), 0) >= count for number, count in record.slots)

    def leave(self, chapter: int) -> None:
        """Everything of a retired chapter was read: its sessions are over, its roster too."""
        self.sessions = {id: progress for id, progress in self.sessions.items() if id[0] != chapter}
        self.at = max(self.at, (chapter + 1, 0))

    def testimony(self) -> tuple[frozenset[Read], int, tuple[int, int], frozenset[Session], str]:
        """What it has taken, its highest watermark, where it is, which sessions it follows, and why it stopped."""
        self.settled_to = max(self.settled_to, self.watermark())
        following = frozenset(id for id, progress in self.sessions.items() if not progress.final)
        return frozenset(self.taken), self.settled_to, self.at, following, self.stopped


def reader(me: Reader) -> Steps:
    """Read whatever comes next, for ever, or until the log cannot be read on."""
    while not me.stopped:
        yield from read_one(me)


def read_one(me: Reader) -> Steps:
    """Ask for one object. Neither an object nor a 404 means anything in a chapter that may be deleted."""
    key, found = yield GetAny(me.wanted())
    chapter = key.chapter
    record = None
    if not trusts(me, found):
        record = yield from look(me, chapter)
    if record is not None and me.has_read_all(chapter, record):
        me.leave(chapter)
    elif record is not None:
        me.stopped = "trimmed"
    elif key.kind == "roster" and found is not None:
        me.take_entry(found)
    elif found is not None:
        me.take_segment(key.session, key.slot, found)
    elif key.kind == "log" and key.slot < me.named.get(key.session, 0):
        yield from named_by_tick(me, key)
    yield Tell("read", me.testimony())


def trusts(me: Reader, found: Body | None) -> bool:
    """The two mistakes of a reader that does not look."""
    if found is None:
        return me.rules.has(Bug.READER_TRUSTS_404)
    return isinstance(found, Segment) and found.final and me.rules.has(Bug.READER_TRUSTS_FINALS)


def named_by_tick(me: Reader, key: Key) -> Steps:
    """A tick says that the absent slot was stored. It may only have been read too early: read it once more."""
    if me.rules.has(Bug.IGNORES_TICK_SLOTS):
        return
    again, record = yield from ask(me, key.chapter, Get(key))
    if again is None and record is None:
        me.stopped = "missing"
        yield Tell("missing", key)
