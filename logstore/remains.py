"""What is left of a damaged log, and how it goes on without the rest. docs/rfcs/0005-copies.md, "Loss".

A check says what is wrong; this says what a store without the damage consists of: which sessions are kept and how far,
and which entries stand in the places of those that are gone.

Invariants:
- Nothing is written, and an object is called lost only after it was asked for by name.
- The entries planned are dense and their stamps increase, so that each may follow the one before it.
- A session is kept up to its first slot that is not whole, and no further.
- Everything left out that was stored is told, once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from logstore.check import decode_segment_data
from logstore.entry import Address, Begin, Body, Closed, Entry, Exclusive, Open, Tick, decode_entry
from logstore.errors import Corrupt, LimitExceeded, NotFound
from logstore.filestore.base import FileStore, Listed
from logstore.finding import Finding
from logstore.keys import EntryKey, RetiredKey, SegmentKey, entry_key, parse_key, retired_key, segment_key
from logstore.retired import Retired, decode_retired
from logstore.segment import Segment
from logstore.session import SessionId, Tip
from logstore.walk import Walked, fetch, walk

__all__ = ["KeptSession", "PlannedEntry", "Remains", "loss", "survey_remains"]

HOLE_MAX: Final = 100_000  # entries put in place again in one chapter: twenty times what a chapter is meant to hold
IDLE_MS: Final = (
    30_000  # of an open entry put in place again; its session ends in the copy, so that nobody waits for it
)
SEAL_MS: Final = 90_000
GONE: Final = "it is gone"


def loss(key: str, what: str, next_step: str) -> Finding:
    """Something that the copy has not, or not as it was."""
    return Finding("damage", key, what, next_step)


@dataclass(frozen=True, slots=True)
class PlannedEntry:
    """An entry of the copy's roster. ``was``: the source's, with its bytes; None: it stands for one that is lost.

    ``body`` is what the source had, or what stands for it.
    """

    address: Address
    stamp: int
    body: Body
    was: tuple[Entry, bytes] | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether nobody can say what it was; nor, of the end of a chapter, what stood before it."""
        return self.was is None and isinstance(self.body, Tick | Closed)

    @property
    def exclusive(self) -> Exclusive | None:
        """What it claims, if it is an exclusive open entry that counts."""
        exclusive = self.body.exclusive if isinstance(self.body, Open) else None
        return exclusive if self.was is None or self.was[0].valid else None


@dataclass(slots=True)
class KeptSession:
    """A session of the copy: what attaches at ``tip`` is not in it. ``ended``: by a final of its own.

    ``lost``: what ended it before its time. ``stamp``: that of its last slot that is kept, a final of its own aside.
    """

    id: SessionId
    tip: Tip
    stamp: int
    is_replaced: bool
    named: int = 0
    ended: bool = False
    lost: str | None = None
    known: int = 0  # slots, as far as any object or tick says
    sequence_known: int = 0  # events, likewise
    is_stuck: bool = False  # at an absent slot
    witness: str | None = None

    @property
    def held(self) -> int:
        """The slots below its final, or its tip."""
        return self.tip.slot - self.ended

    @property
    def needs_final(self) -> bool:
        """Whether the copy ends it: it lost what came next, or nobody knows how long it may be silent."""
        return not self.ended and (self.lost is not None or self.is_replaced)


@dataclass(slots=True)
class Remains:
    """All of it. ``records`` are of chapters 0 to ``first`` - 1; None stands for one that is lost."""

    first: int = 0
    records: list[tuple[Retired, bytes] | None] = field(default_factory=list)
    entries: list[PlannedEntry] = field(default_factory=list)
    sessions: dict[Address, KeptSession] = field(default_factory=dict)
    losses: list[Finding] = field(default_factory=list)


async def survey_remains(source: FileStore, root: bytes | None) -> Remains:
    """Read the records, the roster and all segments of ``source``, whose chain begins at ``root`` (None: nobody knows).

    Cost: a LIST per 1,000 keys, twice for segments; a GET per object. Raises NotFound where there is no log,
    LimitExceeded where more of the roster is gone than can be meant, Unavailable.
    """
    survey = _Survey(source, root)
    await survey.read_records()
    await survey.read_roster()
    survey.plan_entries()
    await survey.read_sessions()
    return survey.remains


class _Survey:
    def __init__(self, source: FileStore, root: bytes | None) -> None:
        self.remains = Remains()
        self._source = source
        self._root = root
        self._read: dict[Address, tuple[Entry, bytes]] = {}
        self._damaged: dict[Address, str] = {}  # entries that are there, or were, and cannot be used
        self._writers: dict[Address, str] = {}  # sessions under which segments lie
        self._last_numbers: dict[int, int] = {}
        self._is_closed: dict[int, bool] = {}

    def _lose(self, key: str, what: str, next_step: str) -> None:
        self.remains.losses.append(loss(key, what, next_step))

    # Retirement records

    async def read_records(self) -> None:
        """Which chapters are retired: as for a check, a name alone says nothing about those before it."""
        found: dict[int, tuple[Retired, bytes]] = {}
        remains = self.remains
        async with aclosing(walk(self._source, self._listed("retired/", RetiredKey), _decode_retired)) as records:
            async for walked in records:
                key = parse_key(walked.key)
                assert isinstance(key, RetiredKey)
                if walked.value is not None:
                    found[key.chapter] = walked.value
                if walked.value is not None or (walked.damage is not None and key.chapter == remains.first):
                    _require_few(key.chapter - remains.first, walked.key)
                    remains.first = key.chapter + 1
        remains.records = [found.get(chapter) for chapter in range(remains.first)]

    # The roster

    async def read_roster(self) -> None:
        """Read every entry, and ask by name for those that a listing seems to lack."""
        remains = self.remains
        async with aclosing(walk(self._source, self._listed("roster/", EntryKey), _decode_entry)) as entries:
            async for walked in entries:
                self._take_entry(walked)
        async for listed in self._listed("log/", SegmentKey):
            key = parse_key(listed.key)
            assert isinstance(key, SegmentKey)
            self._writers.setdefault((key.chapter, key.session), key.writer)
        chapters = {chapter for chapter, _ in (*self._read, *self._damaged, *self._writers)}
        if not chapters and not remains.first:
            if self._root is None:
                raise NotFound("no log in this store, nor anything left of one; check the address")
            return
        newest = max(chapters, default=remains.first)
        _require_few(newest - remains.first - len(chapters), entry_key(newest, 0))
        while remains.first < newest and remains.first not in chapters:
            remains.records.append(None)  # nothing is left of it but, maybe, rows: as if it were retired
            remains.first += 1
        for chapter, record in enumerate(remains.records):
            if record is None:
                self._lose(
                    retired_key(chapter), "it is gone or damaged", "the copy has one that says that something was here"
                )
        for chapter in range(remains.first, newest + 1):
            await self._read_chapter(chapter, chapter == newest)
        self._damaged |= dict.fromkeys(self._foreign(), "it is not of this list")

    def _take_entry(self, walked: Walked[tuple[Entry, bytes]]) -> None:
        key = parse_key(walked.key)
        assert isinstance(key, EntryKey)
        address = (key.chapter, key.number)
        if walked.value is not None:
            self._read[address] = walked.value
            self._damaged.pop(address, None)
        else:
            self._damaged[address] = _what(walked)

    async def _read_chapter(self, chapter: int, is_newest: bool) -> None:
        """Say how long its list is, and complete it."""
        numbers = {number for of, number in (*self._read, *self._damaged, *self._writers) if of == chapter}
        closed = [number for number in numbers if self._is(Closed, (chapter, number))]
        top = max(numbers, default=-1)
        if closed:
            last = min(closed)
        elif is_newest:
            last = max(top, 0)
        else:
            may_be_closed = top > 0 and (chapter, top) in self._damaged and (chapter, top) not in self._writers
            last = top if may_be_closed else max(top + 1, 1)
        _require_few(last + 1 - len(numbers), entry_key(chapter, last))
        self._last_numbers[chapter], self._is_closed[chapter] = last, bool(closed) or not is_newest
        for number in range(last + 1):
            if (chapter, number) not in self._read and (chapter, number) not in self._damaged:
                self._take_entry(await fetch(self._source, entry_key(chapter, number), _decode_entry))
        for number in sorted(number for number in numbers if number > last):
            was_listed = self._read.pop((chapter, number), None) or self._damaged.pop((chapter, number), None)
            if was_listed is not None:
                self._lose(entry_key(chapter, number), "its number was used after the end of the chapter", "left out")

    def _is(self, kind: type, address: Address) -> bool:
        return address in self._read and isinstance(self._read[address][0].body, kind)

    def _foreign(self) -> list[Address]:
        """Entries that decode and belong to another list: they attach to neither of their neighbours."""
        attached: defaultdict[Address, list[bool]] = defaultdict(list)
        for address, (entry, _) in self._read.items():
            if (before := self._digest_before(address)) is not None:
                attached[address].append(entry.previous == before)
            if (behind := self._read.get(entry.successor)) is not None:
                attached[address].append(behind[0].previous == entry.digest)
        return [address for address, answers in attached.items() if not any(answers)]

    def _digest_before(self, address: Address) -> bytes | None:
        """The digest of what comes before an entry, where that can be read."""
        chapter, number = address
        if number == 0 and chapter == self.remains.first:
            record = self.remains.records[-1] if chapter else None
            return self._root if not chapter else None if record is None else record[0].digest
        before = (chapter, number - 1) if number else (chapter - 1, self._last_numbers[chapter - 1])
        return self._read[before][0].digest if before in self._read else None

    # The plan

    def plan_entries(self) -> None:
        """Put every entry in its place, or another there, one after the other."""
        remains = self.remains
        record = remains.records[-1] if remains.records else None
        stamp = record[0].stamp if record else 0
        addresses = [(chapter, number) for chapter, last in self._last_numbers.items() for number in range(last + 1)]
        claims = self._claims()
        for address in addresses:
            was = self._read.get(address)
            if was is not None and address not in self._damaged and was[0].stamp <= stamp:
                self._damaged[address] = "its stamp does not exceed those before it"
            if was is None or address in self._damaged:
                planned = PlannedEntry(address, stamp + 1, self._body_for(address, claims.get(address)))
                self._lose(
                    entry_key(*address), self._damaged.get(address, GONE), f"the copy has {_named(planned)} there"
                )
            else:
                planned = PlannedEntry(address, was[0].stamp, was[0].body, was)
            stamp = planned.stamp
            remains.entries.append(planned)
            self._plan_session(planned)

    def _claims(self) -> dict[Address, tuple[str, ...]]:
        """The exclusive entries that others know of, by their scopes or as their predecessor, and their kinds."""
        claims: dict[Address, tuple[str, ...]] = {}
        for address, (entry, _) in self._read.items():
            if address not in self._damaged:
                claims |= {(scope.chapter, scope.number): scope.kinds for scope in entry.scopes}
                if (
                    isinstance(entry.body, Open)
                    and entry.body.exclusive
                    and entry.valid
                    and entry.body.exclusive.predecessor
                ):
                    claims[entry.body.exclusive.predecessor] = entry.body.exclusive.kinds
        return claims

    def _body_for(self, address: Address, kinds: tuple[str, ...] | None) -> Body:
        """What stands for an entry that is lost."""
        chapter, number = address
        if number == 0:
            return Begin()
        if self._is_closed[chapter] and number == self._last_numbers[chapter]:
            return Closed()
        if address in self._writers:
            exclusive = None if kinds is None else Exclusive(kinds, None)
            return Open(self._writers[address], IDLE_MS, SEAL_MS, 1, exclusive)
        return Tick()

    def _plan_session(self, planned: PlannedEntry) -> None:
        body, was = planned.body, planned.was
        sessions = self.remains.sessions
        if isinstance(body, Open) and (was is None or was[0].valid):
            digest = was[0].digest if was else self._named_digest(planned.address)
            session_id = SessionId(*planned.address, body.writer)
            tip = Tip(0, 0, planned.stamp, digest)
            sessions[planned.address] = KeptSession(session_id, tip, planned.stamp, is_replaced=was is None)
        elif isinstance(body, Tick):
            for chapter, number, named in body.slots:
                if (session := sessions.get((chapter, number))) is not None:
                    session.named = max(session.named, named)

    def _named_digest(self, lost: Address) -> bytes:
        """The digest of an entry that is lost, as the one behind it says; empty: nobody does."""
        behind = (lost[0], lost[1] + 1)
        return self._read[behind][0].previous if behind in self._read and behind not in self._damaged else b""

    # The sessions

    async def read_sessions(self) -> None:
        """Read every segment, each session up to what is lost, and count what lies above."""
        strays: defaultdict[str, int] = defaultdict(int)
        async with aclosing(walk(self._source, self._listed("log/", SegmentKey), decode_segment_data)) as segments:
            async for walked in segments:
                key = parse_key(walked.key)
                assert isinstance(key, SegmentKey)
                address = (key.chapter, key.session)
                session = self.remains.sessions.get(address)
                if session is not None and session.id == SessionId(*address, key.writer):
                    await self._take_listed(session, key.slot, walked)
                elif not self._is_void(address, key.writer):
                    strays[walked.key.rpartition("/")[0] + "/"] += 1
        for prefix, count in strays.items():
            self._lose(prefix, f"{count} segments of a session that was never opened", "left out")
        for session in self.remains.sessions.values():
            self._conclude(session)

    def _is_void(self, address: Address, writer: str) -> bool:
        """Whether a session counts as one without slots: it claimed what it could not have."""
        body = self._read[address][0].body if address in self._read else None
        return isinstance(body, Open) and body.writer == writer

    async def _take_listed(self, session: KeptSession, slot: int, walked: Walked[Segment]) -> None:
        while slot > session.tip.slot and not _is_over(session):
            name = _segment_name(session, session.tip.slot)
            self._take_next(session, await fetch(self._source, name, decode_segment_data))
        if slot == session.tip.slot and not _is_over(session):
            self._take_next(session, walked)
        elif slot >= session.tip.slot:
            _leave_out(session, slot, walked)

    def _take_next(self, session: KeptSession, walked: Walked[Segment]) -> None:
        """The slot at the session's tip: it attaches, or the session is over."""
        segment, tip = walked.value, session.tip
        if walked.is_absent:
            session.is_stuck = True
            return
        try:
            if segment is None:
                raise Corrupt(_what(walked))
            if not tip.digest:
                tip = tip._replace(digest=segment.previous)
            session.tip = tip.after(segment)
        except Corrupt as error:
            session.lost = str(error).split("; ", maxsplit=1)[0].replace(f" key={walked.key}", "")
            _leave_out(session, tip.slot, walked)
            return
        if segment.final:
            session.ended = True
        else:
            session.stamp = segment.stamp

    def _conclude(self, session: KeptSession) -> None:
        """All was read: has it lost something, and how much?"""
        name = _segment_name(session, session.held)
        if session.lost is None and session.named > session.held:
            session.witness = "a tick"
        if session.lost is None and session.witness is not None:
            what = "a final stands there" if session.ended else GONE
            session.lost = f"{what}, and {session.witness} says that it was stored"
        if session.lost is None:
            return
        slots = max(session.known, session.named) - session.held
        events = session.sequence_known - session.tip.sequence
        counted = f"{events} events" if events > 0 else "nobody knows how many events"
        kept = f"kept: {session.held} slots, {session.tip.sequence} events"
        what = f"{session.lost}: lost, with all above it: {slots} slots, {counted}; {kept}"
        self._lose(name, what, "the session ends there in the copy")

    async def _listed(self, prefix: str, kind: type) -> AsyncIterator[Listed]:
        """What is listed of a kind of key, but for retired chapters."""
        async for listed in self._source.list(prefix):
            key = parse_key(listed.key)
            if isinstance(key, kind) and (
                isinstance(key, RetiredKey) or getattr(key, "chapter", 0) >= self.remains.first
            ):
                yield listed


def _is_over(session: KeptSession) -> bool:
    return session.ended or session.is_stuck or session.lost is not None


def _leave_out(session: KeptSession, slot: int, walked: Walked[Segment]) -> None:
    """A slot above what is kept: in flight, or void, unless it says that what is not kept was stored."""
    session.known = max(session.known, slot + 1)
    if (segment := walked.value) is not None:
        session.sequence_known = max(session.sequence_known, segment.first_sequence + segment.count)
        if segment.acknowledged > session.held:
            session.witness = walked.key


def _segment_name(session: KeptSession, slot: int) -> str:
    return segment_key(session.id.writer, session.id.chapter, session.id.number, slot)


def _named(planned: PlannedEntry) -> str:
    if isinstance(planned.body, Open):
        return f"an open entry of {planned.body.writer}"
    return f"a {type(planned.body).__name__.lower()}"


def _what(walked: Walked[Segment] | Walked[tuple[Entry, bytes]]) -> str:
    """What is wrong with an object, without its name and what to do."""
    if walked.damage is None:
        return GONE
    return str(walked.damage).split("; ", maxsplit=1)[0].replace(f" key={walked.key}", "")


def _require_few(gone: int, key: str) -> None:
    if gone > HOLE_MAX:
        raise LimitExceeded(
            f"more is gone before this object than a log can have lost key={key} gone={gone} limit={HOLE_MAX};"
            " move it away if it is foreign"
        )


def _decode_entry(name: str, data: bytes) -> tuple[Entry, bytes]:
    key = parse_key(name)
    assert isinstance(key, EntryKey)
    return decode_entry(key.chapter, key.number, data), data


def _decode_retired(name: str, data: bytes) -> tuple[Retired, bytes]:
    key = parse_key(name)
    assert isinstance(key, RetiredKey)
    return decode_retired(key.chapter, data), data
