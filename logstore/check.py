"""Walk everything that lies in a store and list all that is wrong with it, not only the first.

Passes, each in the order of a listing and fetched ahead: the retirement records, the roster, then everything, and
snapshots (``snapshotcheck.py``), archives (``archivecheck.py``) and stage logs (``stagecheck.py``).
A reader stops at the first damage, because it must not pass over anything; a check goes on behind it, with
less knowledge: what follows a lost or unreadable object is checked for itself and against what comes next, not
against what is gone. The log may be in use meanwhile: what a listing seems to lack is asked for by name before it is
called lost.

Invariants:
- Nothing is written, and every object is fetched at most once (gaps are asked for once more).
- Memory: a few hundred bytes per roster entry that is not retired; segments come and go.
- A finding is about one object, or about one session, chapter or prefix; a lost object is reported once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from logstore.archivecheck import check_archives
from logstore.entry import Address, Closed, Entry, Open, Tick, require_follows
from logstore.errors import Corrupt, NotFound
from logstore.event import decode_data
from logstore.filestore.base import FileStore, Listed
from logstore.finding import RESTORE, Finding, Progress, damage, note
from logstore.identity import Identity, decode_identity
from logstore.keys import (
    RETIRED,
    STORE,
    ClaimKey,
    EntryKey,
    PinKey,
    RetiredKey,
    SegmentKey,
    StoreKey,
    entry_key,
    parse_key,
    retired_key,
    segment_key,
    session_prefix,
)
from logstore.named import decode_named
from logstore.retired import Retired
from logstore.segment import Segment
from logstore.session import SessionId, Tip
from logstore.snapshotcheck import check_snapshots
from logstore.stagecheck import check_stage_logs
from logstore.walk import Walked, fetch, walk

__all__ = ["check", "decode_segment_data"]

_OURS: Final = frozenset(
    {"store", "roster", "log", "retired", "snapshots", "chunks", "archive", "pins", "claims", "stagelogs"}
)


T = TypeVar("T")


@dataclass(slots=True)
class _Session:
    """What the roster says of a session: ``opened`` (None: unreadable), and how many slots ticks have ``named``."""

    id: SessionId
    opened: Entry | None
    named: int = 0


@dataclass(slots=True)
class _Reading:
    """A session whose slots are being walked. ``tip`` None: what came before is lost, so nothing can attach to it."""

    session: _Session
    tip: Tip | None
    slot: int = 0
    lost: bool = False
    final: int | None = None
    gap: int | None = None
    behind_gap: int = 0
    void: int = 0

    @property
    def key(self) -> str:
        """The name of the slot that comes next."""
        return _segment_name(self.session.id.segment_key(self.slot))


def check(store: FileStore, progress: Progress | None = None) -> AsyncGenerator[Finding, None]:
    """Yield everything that is wrong in ``store``, and notes. ``progress`` counts what was looked at.

    Cost: a LIST per 1,000 keys, twice for the roster; one GET per object that is not of a retired chapter. Raises
    NotFound when there is no log, Unavailable; damage is never raised.
    """
    return _Check(store, progress or Progress()).findings()


class _Check:
    def __init__(self, store: FileStore, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._first = 0  # the first chapter that is not retired
        self._newest_record: Retired | None = (
            None  # of the chapter before it; None: there is none, or it cannot be read
        )
        self._retired_meanwhile: set[int] = set()
        self._left_over: Counter[int] = Counter()
        self._foreign: dict[str, tuple[str, int]] = {}  # the first of a top-level name, and how many
        self._sessions: dict[Address, _Session] = {}
        self._unknown: list[tuple[Address, Address]] = []  # entries lost or unreadable: first, and the one behind
        self._foreign_findings: list[Finding] = []
        # Of the roster: the entry before, None when there is none or it is lost; and what is known all the same.
        self._previous: Entry | None = None
        self._expected: Address = (0, 0)
        self._chained = True
        self._stamp = 0

    async def findings(self) -> AsyncGenerator[Finding, None]:
        """All passes."""
        identity = await fetch(self._store, STORE, lambda _, data: decode_identity(data))
        if identity.damage is not None:
            yield damage(STORE, identity.damage, RESTORE)
        async with aclosing(self._walk_retired()) as findings:
            async for finding in findings:
                yield finding
        async with aclosing(self._walk_roster(identity.value)) as findings:
            async for finding in findings:
                yield finding
        async with aclosing(self._walk_everything()) as findings:
            async for finding in findings:
                yield finding
        async with aclosing(check_snapshots(self._store, self._progress, self._is_retired)) as findings:
            async for finding in findings:
                yield finding
        async with aclosing(check_archives(self._store, self._progress)) as findings:
            async for finding in findings:
                yield finding
        async with aclosing(check_stage_logs(self._store, self._progress)) as findings:
            async for finding in findings:
                yield finding
        if identity.size == 0 and identity.damage is None:
            if not self._progress.objects:
                raise NotFound(f"no log in this store key={STORE}; check the address")
            yield damage(STORE, "it is gone, so that nobody knows which store this is", RESTORE)
        for finding in self._summaries():
            yield finding

    def _summaries(self) -> Iterator[Finding]:
        for chapter, count in sorted(self._left_over.items()):
            what = f"the chapter is retired; {count} of its objects are still there"
            yield note(retired_key(chapter), what, "nothing to do: `logstore gc` removes them when the grace is over")
        for top, (first, count) in sorted(self._foreign.items()):
            if top == "probe":
                yield note(first, f"{count} left-overs of a probe", "remove them if no probe is running")
            else:
                yield note(first, f"{count} objects under this name are not ours", "keep other things elsewhere")

    def _count(self, walked: Walked[T]) -> None:
        self._progress.objects += 1
        self._progress.bytes += walked.size

    # Retirement records

    async def _walk_retired(self) -> AsyncGenerator[Finding, None]:
        listing = _of_kind(self._store.list(RETIRED), RetiredKey)
        async with aclosing(walk(self._store, listing, _decode_retired)) as records:
            async for walked in records:
                key = parse_key(walked.key)
                assert isinstance(key, RetiredKey)
                if walked.is_absent:
                    yield damage(walked.key, "listed, and gone when asked for", RESTORE)
                    continue
                self._count(walked)
                if walked.damage is not None:
                    yield damage(walked.key, walked.damage, RESTORE)
                    if key.chapter != self._first:
                        continue  # a bad name says nothing about the chapters before it
                elif key.chapter > self._first:
                    what = "a later chapter is retired, and the record of this one is gone"
                    yield damage(retired_key(self._first), what, RESTORE)
                self._first, self._newest_record = key.chapter + 1, walked.value

    def _is_retired(self, chapter: int) -> bool:
        return chapter < self._first or chapter in self._retired_meanwhile

    async def _is_retired_now(self, chapter: int) -> bool:
        """Look again: a chapter may be retired while we check it."""
        if not self._is_retired(chapter):
            if (await fetch(self._store, retired_key(chapter), _decode_retired)).is_absent:
                return False
            self._retired_meanwhile.add(chapter)
        return True

    # The roster

    async def _walk_roster(self, identity: Identity | None) -> AsyncGenerator[Finding, None]:
        record, self._expected = self._newest_record, (self._first, 0)
        self._chained = (record if self._first else identity) is not None
        if record is not None:
            address, self._stamp = (record.chapter, record.closed), record.stamp
            self._previous = Entry(*address, record.stamp, b"", b"", record.scopes, Closed(), record.digest)
        digest = identity.root if identity else b""
        listing = self._unretired_entries()
        async with aclosing(walk(self._store, listing, _decode_entry)) as entries:
            async for walked in entries:
                key = parse_key(walked.key)
                assert isinstance(key, EntryKey)
                address = (key.chapter, key.number)
                while self._expected < address and not self._is_retired(key.chapter):
                    for finding in await self._fill_gap(address, digest):
                        yield finding
                for finding in self._take_walked_entry(address, walked, digest):
                    yield finding
        if self._first and self._expected == (self._first, 0):
            name = entry_key(*self._expected)
            begin = await fetch(self._store, name, _decode_entry)
            if begin.is_absent and not await self._is_retired_now(self._expected[0]):
                yield damage(name, "the chapter before it is retired, and its begin is gone", RESTORE)

    async def _unretired_entries(self) -> AsyncIterator[Listed]:
        async for listed in _of_kind(self._store.list("roster/"), EntryKey):
            key = parse_key(listed.key)
            assert isinstance(key, EntryKey)
            if self._is_retired(key.chapter):
                self._left_over[key.chapter] += 1
            else:
                yield listed

    async def _fill_gap(self, found: Address, digest: bytes) -> list[Finding]:
        """The expected entry was not listed, a later one was: ask for it by name; if it is lost, go on behind it."""
        lost, chapter = self._expected, self._expected[0]
        walked = await fetch(self._store, entry_key(*lost), _decode_entry)
        if not walked.is_absent:
            return list(self._take_walked_entry(lost, walked, digest))
        self._previous, self._chained = None, False
        if await self._is_retired_now(chapter):
            self._expected = (chapter + 1, 0)
            return []
        if found[0] == chapter:
            self._expected = found
            what = "a later entry is there, and this one is gone"
            if found[1] - lost[1] > 1:
                what += f", like all up to {entry_key(chapter, found[1] - 1)}"
        else:
            self._expected = (chapter + 1, 0) if lost[1] else (found[0], 0)
            what = "the list goes on in a later chapter, and this entry is gone"
        self._unknown.append((lost, self._expected))
        return [damage(entry_key(*lost), what, RESTORE)]

    def _take_walked_entry(self, address: Address, walked: Walked[Entry], digest: bytes) -> Iterator[Finding]:
        self._count(walked)
        chapter, number = address
        if self._is_retired(chapter):
            self._left_over[chapter] += 1
            return
        if address < self._expected:
            yield damage(walked.key, "its number was used after the chapter's closed entry", RESTORE)
            return
        entry = walked.value
        if entry is None:
            what = walked.damage or "listed, and gone when asked for"
            yield damage(walked.key, what, RESTORE)
            self._expected, self._previous, self._chained = (chapter, number + 1), None, False
            self._unknown.append((address, self._expected))
            return
        self._progress.entries += 1
        try:
            if self._chained:
                require_follows(entry, self._previous, digest)
            elif entry.stamp <= self._stamp:
                raise Corrupt(f"entry's stamp does not exceed those before it stamp={entry.stamp} before={self._stamp}")
        except Corrupt as error:
            yield damage(walked.key, error, RESTORE)
        self._previous, self._chained, self._expected = entry, True, entry.successor
        self._stamp = max(self._stamp, entry.stamp)
        match entry.body:
            case Open():
                self._sessions[address] = _Session(SessionId.of(entry), entry)
            case Tick(slots):
                yield from self._take_tick(entry, walked.key, slots)

    def _take_tick(self, tick: Entry, key: str, slots: tuple[tuple[int, int, int], ...]) -> Iterator[Finding]:
        for chapter, number, named in slots:
            address = (chapter, number)
            if self._is_retired(chapter) or self._is_unknown(address):
                continue
            session = self._sessions.get(address)
            if session is None:
                yield damage(key, f"the tick names a session that was never opened session={chapter}/{number}", RESTORE)
            else:
                session.named = max(session.named, named)

    def _is_unknown(self, address: Address) -> bool:
        return any(first <= address < behind for first, behind in self._unknown)

    # Everything: segments, and names that are nobody's

    async def _walk_everything(self) -> AsyncGenerator[Finding, None]:
        reading: _Reading | None = None
        seen: set[Address] = set()
        async with aclosing(walk(self._store, self._unretired_segments(), decode_segment_data)) as segments:
            async for walked in segments:
                self._count(walked)
                key = parse_key(walked.key)
                assert isinstance(key, SegmentKey)
                id_ = SessionId(key.chapter, key.session, key.writer)
                if reading is None or reading.session.id != id_:
                    if reading is not None:
                        for finding in await self._end(reading):
                            yield finding
                    reading, findings = await self._begin(id_)
                    seen.add(id_[:2])
                    for finding in findings:
                        yield finding
                for finding in await self._take_walked_segment(reading, key.slot, walked):
                    yield finding
        if reading is not None:
            for finding in await self._end(reading):
                yield finding
        for address, session in self._sessions.items():
            if session.named and address not in seen:
                for finding in await self._end(_Reading(session, None)):
                    yield finding
        for finding in self._foreign_findings:
            yield finding

    async def _unretired_segments(self) -> AsyncIterator[Listed]:
        """Every segment that counts; whatever else is listed is judged by its name on the way."""
        async for listed in self._store.list(""):
            match parse_key(listed.key):
                case SegmentKey(chapter=chapter) if self._is_retired(chapter):
                    self._left_over[chapter] += 1
                case SegmentKey():
                    yield listed
                case PinKey():
                    what = "nothing to do: it counts as one that needs everything, until seven days after it was made"
                    await self._check_alone(listed.key, what)
                case ClaimKey():
                    await self._check_alone(listed.key, RESTORE)
                case None:
                    self._take_foreign(listed.key)
                case StoreKey():
                    self._progress.objects += 1
                    self._progress.bytes += listed.size

    async def _check_alone(self, name: str, next_step: str) -> None:
        """Check an object that nothing else refers to."""
        walked = await fetch(self._store, name, decode_named)
        self._count(walked)
        if walked.damage is not None:
            self._foreign_findings.append(damage(name, walked.damage, next_step))

    def _take_foreign(self, key: str) -> None:
        top = key.split("/", 1)[0]
        if top in _OURS:
            next_step = "find out who put it there; move it away"
            self._foreign_findings.append(damage(key, "no object of ours has such a name", next_step))
        else:
            first, count = self._foreign.get(top, (key, 0))
            self._foreign[top] = (first, count + 1)

    async def _begin(self, id_: SessionId) -> tuple[_Reading, list[Finding]]:
        """Start on a session; one that the roster did not show may have been opened since, or never."""
        session = self._sessions.get(id_[:2])
        if session is not None and session.id == id_:
            assert session.opened is not None
            return _Reading(session, Tip.of(session.opened)), []
        stray = _Reading(_Session(id_, None), None)
        if self._is_unknown(id_[:2]):
            return stray, []
        entry = (await fetch(self._store, entry_key(*id_[:2]), _decode_entry)).value
        if entry is not None and isinstance(entry.body, Open) and SessionId.of(entry) == id_:
            return _Reading(_Session(id_, entry), Tip.of(entry)), []
        if await self._is_retired_now(id_.chapter):
            return stray, []
        prefix = session_prefix(id_.writer, id_.chapter, id_.number)
        what = f"segments of a session that was never opened: {entry_key(*id_[:2])} does not open it"
        return stray, [damage(prefix, what, RESTORE)]

    async def _take_walked_segment(self, reading: _Reading, slot: int, walked: Walked[Segment]) -> list[Finding]:
        findings: list[Finding] = []
        while reading.final is None and reading.gap is None and slot > reading.slot:
            skipped = await fetch(self._store, reading.key, decode_segment_data)
            if skipped.is_absent:
                reading.gap = reading.slot
            else:  # created while we listed
                self._count(skipped)
                findings.extend(self._take_segment(reading, skipped))
        if slot != reading.slot:
            reading.slot, reading.tip = slot, None
        if walked.is_absent:
            if await self._is_retired_now(reading.session.id.chapter):
                return findings
            reading.lost = True
        return [*findings, *self._take_segment(reading, walked)]

    def _take_segment(self, reading: _Reading, walked: Walked[Segment]) -> Iterator[Finding]:
        """Take in the next slot's segment. What lies above a final, or in an invalid session, is void."""
        opened, segment, reading.slot = reading.session.opened, walked.value, reading.slot + 1
        if reading.final is not None or (opened is not None and not opened.valid):
            reading.void += 1
            if segment is not None and reading.final is not None and segment.acknowledged > reading.final:
                key = _segment_name(reading.session.id.segment_key(reading.final))
                yield damage(key, f"a final stands where {walked.key} says that a segment was stored", RESTORE)
            return
        if segment is None:
            yield damage(walked.key, walked.damage or "listed, and gone when asked for", RESTORE)
            reading.tip = None
            return
        self._progress.segments += 1
        self._progress.events += segment.count
        if reading.gap is not None:
            reading.behind_gap += 1
            if segment.acknowledged > reading.gap and not reading.lost:
                reading.lost = True
                key = _segment_name(reading.session.id.segment_key(reading.gap))
                yield damage(key, f"it is gone, and {walked.key} says that it was stored", RESTORE)
        try:
            if reading.tip is not None:
                reading.tip.after(segment)
        except Corrupt as error:
            yield damage(walked.key, error, RESTORE)
        sequence = segment.first_sequence + segment.count
        reading.tip = Tip(segment.key.slot + 1, sequence, segment.stamp, segment.digest)
        if segment.final:
            reading.final = segment.key.slot

    async def _end(self, reading: _Reading) -> list[Finding]:
        """The session was walked: what should have been there and is not, and what lies there in vain."""
        session, id_, findings = reading.session, reading.session.id, list[Finding]()
        prefix = session_prefix(id_.writer, id_.chapter, id_.number)
        reading.slot = reading.slot if reading.gap is None else reading.gap
        if reading.final is not None and session.named > reading.final:
            what = f"a final stands where a tick says that a segment was stored named={session.named}"
            findings.append(damage(_segment_name(id_.segment_key(reading.final)), what, RESTORE))
        elif reading.final is None and not reading.lost and await self._is_lost(reading):
            findings.append(damage(reading.key, "it is gone, and a tick says that it was stored", RESTORE))
        elif reading.gap is not None and not reading.lost:
            what = f"{reading.behind_gap} segments lie behind a slot that is not there yet, or never will be"
            findings.append(note(prefix, what, "nothing to do: they are in flight, or void once the session is sealed"))
        if reading.void:
            what = f"{reading.void} segments are void: above the session's final, or of a session that is not valid"
            findings.append(note(prefix, what, "nothing to do: `logstore gc` removes them"))
        return findings

    async def _is_lost(self, reading: _Reading) -> bool:
        """Whether a tick names the next slot, and it is absent when asked for."""
        if reading.session.named <= reading.slot:
            return False
        walked = await fetch(self._store, reading.key, decode_segment_data)
        return walked.is_absent and not await self._is_retired_now(reading.session.id.chapter)


def _segment_name(key: SegmentKey) -> str:
    return segment_key(key.writer, key.chapter, key.session, key.slot)


async def _of_kind(listing: AsyncIterator[Listed], kind: type) -> AsyncIterator[Listed]:
    async for listed in listing:
        if isinstance(parse_key(listed.key), kind):
            yield listed


# Decoding by name


def _decode_retired(name: str, data: bytes) -> Retired:
    retired = decode_named(name, data)
    assert isinstance(retired, Retired)
    return retired


def _decode_entry(name: str, data: bytes) -> Entry:
    entry = decode_named(name, data)
    assert isinstance(entry, Entry)
    return entry


def decode_segment_data(name: str, data: bytes) -> Segment:
    """Decode a segment, and each of its events' data: nobody else looks at all of them."""
    segment = decode_named(name, data)
    assert isinstance(segment, Segment)
    if segment.columns is not None:
        for index, payload in enumerate(segment.columns.payloads):
            decode_data(payload, partial(_where, name, segment.first_sequence + index))
        for index, meta in segment.columns.metas.items():
            where = partial(_where, name, segment.first_sequence + index)
            if decode_data(meta, where) is None:
                raise Corrupt(f"an event's meta is not a map {where()}; run `logstore check`")
    return segment


def _where(name: str, sequence: int) -> str:
    return f"key={name} sequence={sequence}"
