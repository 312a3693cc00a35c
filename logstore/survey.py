"""What a log holds and how it fares, found out without reading its events.

The roster says which sessions there are; a listing says how many slots each has and how many bytes; the last slot
of a session says how many events came before it, and whether it has ended. So a survey costs a few requests per
session and none per segment. It trusts the chains that a ``check`` verifies.

Invariants:
- The frontier it leaves behind is the one that a reading of everything listed would have reached.
- Silence is the store's own: the time of its answer less the time of the session's last object.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, TypeVar

from logstore.clock import stamp_ms
from logstore.entry import Address, Closed, Entry, decode_entry
from logstore.errors import Corrupt, Missing, Unavailable
from logstore.filestore.base import FileStore, Listed
from logstore.frontier import Frontier, OpenSession
from logstore.identity import Identity
from logstore.keys import RETIRED, EntryKey, RetiredKey, SegmentKey, entry_key, parse_key, retired_key, segment_key
from logstore.retired import decode_retired
from logstore.segment import Segment, decode_segment
from logstore.session import SessionId, Tip
from logstore.walk import Walked, fetch, walk

__all__ = ["OpenSessionSurvey", "Sealing", "Survey", "WriterSurvey", "take_survey"]

SESSIONS_AT_ONCE: Final = 16
CHECK: Final = "run `logstore check`"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OpenSessionSurvey:
    """A session that has not ended. ``silent_ms``: since its last object, by the store's own times.

    ``last_stamp``: its last seen stamp, which the watermark cannot pass while it is open.
    ``holds_watermark``: it is the one that holds it back. ``seal_ms``: when silent for so long it may be sealed.
    """

    writer: str
    chapter: int
    session: int
    slots: int
    events: int
    bytes: int
    last_stamp: int
    silent_ms: int | None
    idle_ms: int
    seal_ms: int
    holds_watermark: bool

    @property
    def may_be_sealed(self) -> bool:
        """Whether it has been silent for its seal time."""
        return self.silent_ms is not None and self.silent_ms >= self.seal_ms


@dataclass(frozen=True, slots=True)
class WriterSurvey:
    """Who has written: so many sessions, ``open`` of them not ended, their events and bytes.

    ``last_stamp``: the greatest that was seen of any of them.
    """

    writer: str
    sessions: int
    open: int
    events: int
    bytes: int
    last_stamp: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a log holds. Counts are of chapters that are not retired; ``writers`` by name.

    ``newest_stamp``: the greatest of any event, ``newest_entry_stamp`` of any roster entry; 0 without one.
    ``skew_ms``: how far the store's clock is ahead of this machine's. ``now_ms``: the store's time, None: not told.
    ``chapter_begun_ms``: when the newest chapter began, by its first entry; ``chapter_sessions`` were opened in it.
    ``oldest_ended_ms``: when the oldest chapter that is not retired ended, None: it has not. ``left_over``: objects of
    chapters retired a grace ago or longer, ``left_over_since_ms``: since when the first of them could be deleted.
    ``lost_entry``: the key of a roster entry that is gone, and whose session has segments; "" where none is seen.

    >>> async def who_writes(log):
    ...     return [session.writer for session in (await log.survey()).open_sessions]
    """

    store_id: str
    created_ms: int
    history: str
    grace_ms: int
    chapters_retired: int
    chapters: int
    entries: int
    sessions: int
    open_sessions: tuple[OpenSessionSurvey, ...]
    writers: tuple[WriterSurvey, ...]
    segments: int
    events: int
    bytes: int
    watermark: int
    newest_stamp: int
    newest_entry_stamp: int
    now_ms: int | None
    skew_ms: int
    chapter_begun_ms: int | None = None
    chapter_sessions: int = 0
    oldest_ended_ms: int | None = None
    left_over: int = 0
    left_over_since_ms: int | None = None
    lost_entry: str = ""

    @property
    def watermark_lag_ms(self) -> int:
        """How far the watermark is behind the newest event; 0: all is settled."""
        return max(0, stamp_ms(self.newest_stamp) - stamp_ms(self.watermark))

    @property
    def holder(self) -> OpenSessionSurvey | None:
        """The session that holds the watermark back; None when nothing, or only the want of a newer entry, does."""
        return next((session for session in self.open_sessions if session.holds_watermark), None)


@dataclass(frozen=True, slots=True)
class Sealing:
    """What ``log.seal()`` did about an open session, and why. ``damaged``: it must not be sealed, an object is lost.

    >>> async def seal(log):
    ...     return [(one.session.writer, one.sealed, one.why) for one in await log.seal(dry_run=True)]
    """

    session: OpenSessionSurvey
    sealed: bool
    why: str
    damaged: bool = False


@dataclass(slots=True)
class _Slots:
    """What a listing says of a session: ``dense`` slots from 0 without a gap; all its segments and bytes."""

    dense: int = 0
    segments: int = 0
    bytes: int = 0


@dataclass(slots=True)
class _Ending:
    """The last slot that counts of a session; its open entry's own times when it has none."""

    last: Walked[Segment] | None
    events: int = 0
    slots: int = 0


async def take_survey(store: FileStore, identity: Identity, skew_ms: int) -> tuple[Survey, Frontier]:
    """Return the survey, and the frontier of all that is stored.

    Cost: a LIST per 1,000 keys; one GET per roster entry and per session, up to ``flights`` more per session that
    has not ended. Memory: a few hundred bytes per session. Raises Corrupt, Missing (run `logstore check`), Unavailable.
    """
    retired_ms = await _retired_chapters(store)
    first, frontier = await _first_chapter(store, identity, max(retired_ms, default=None))
    opened: dict[Address, Walked[Entry]] = {}
    left: Counter[int] = Counter()
    entries, now_ms, begun_ms, oldest_ended_ms = 0, None, None, None
    async with aclosing(_roster(store, first, frontier, left)) as walked_entries:
        async for walked in walked_entries:
            entry = _require(walked)
            frontier.take_entry(entry)
            entries, now_ms = entries + 1, walked.now_ms
            if entry.number == 0:
                begun_ms = stamp_ms(entry.stamp)
            if entry.chapter == first and isinstance(entry.body, Closed):
                oldest_ended_ms = stamp_ms(entry.stamp)
            if entry.address in frontier.sessions:
                opened[entry.address] = walked
    slots = await _list_slots(store, first, left)
    lost_entry = await _lost_entry(store, sorted(slots.keys() - opened.keys()))
    lasts: list[Segment] = []
    segments = events = stored = 0
    open_sessions: list[tuple[OpenSession, _Ending, _Slots, Walked[Entry]]] = []
    writers: dict[str, WriterSurvey] = {}
    sessions = list(frontier.sessions.values())
    for start in range(0, len(sessions), SESSIONS_AT_ONCE):
        some = sessions[start : start + SESSIONS_AT_ONCE]
        held = [slots.get(session.address, _Slots()) for session in some]
        endings = await asyncio.gather(*map(_ending, [store] * len(some), some, held))
        for session, listed, ending in zip(some, held, endings, strict=True):
            segments, events, stored = segments + listed.segments, events + ending.events, stored + listed.bytes
            _count(writers, session, ending, listed)
            if ending.last is None:
                open_sessions.append((session, ending, listed, opened[session.address]))
                continue
            segment = _require(ending.last)
            now_ms = ending.last.now_ms
            lasts.append(segment)
            if segment.final:
                del frontier.sessions[session.address]
            else:
                session.tip = Tip(ending.slots, ending.events, segment.stamp, segment.digest)
                open_sessions.append((session, ending, listed, opened[session.address]))
    holder = frontier.holder()
    newest_chapter = frontier.last.chapter if frontier.last else first
    left_over, left_over_since_ms = _left_over(left, retired_ms, identity.grace_ms, now_ms)
    survey = Survey(
        store_id=identity.id.hex(),
        created_ms=identity.created_ms,
        history=identity.history,
        grace_ms=identity.grace_ms,
        chapters_retired=first,
        chapters=frontier.next_address[0] - first + (frontier.next_address[1] > 0),
        entries=entries,
        sessions=len(opened),
        open_sessions=tuple(
            _survey_session(session, ending, listed, entry, holds=session is holder, seal_ms_max=identity.seal_ms_max)
            for session, ending, listed, entry in open_sessions
        ),
        writers=tuple(survey for _, survey in sorted(writers.items(), key=lambda item: item[0].encode())),
        segments=segments,
        events=events,
        bytes=stored,
        watermark=frontier.watermark(),
        newest_stamp=await _newest_stamp(store, lasts),
        newest_entry_stamp=frontier.last.stamp if frontier.last else 0,
        now_ms=now_ms,
        skew_ms=skew_ms,
        chapter_begun_ms=begun_ms,
        chapter_sessions=sum(chapter == newest_chapter for chapter, _ in opened),
        oldest_ended_ms=oldest_ended_ms,
        left_over=left_over,
        left_over_since_ms=left_over_since_ms,
        lost_entry=lost_entry,
    )
    return survey, frontier


def _count(writers: dict[str, WriterSurvey], session: OpenSession, ending: _Ending, listed: _Slots) -> None:
    """Add a session to what its writer has written."""
    last = None if ending.last is None else _require(ending.last)
    name, stamp = session.id.writer, session.tip.stamp if last is None else last.stamp
    before = writers.get(name, WriterSurvey(name, 0, 0, 0, 0, 0))
    writers[name] = WriterSurvey(
        writer=name,
        sessions=before.sessions + 1,
        open=before.open + (last is None or not last.final),
        events=before.events + ending.events,
        bytes=before.bytes + listed.bytes,
        last_stamp=max(before.last_stamp, stamp),
    )


def _survey_session(
    session: OpenSession, ending: _Ending, listed: _Slots, opened: Walked[Entry], *, holds: bool, seal_ms_max: int
) -> OpenSessionSurvey:
    last: Walked[Entry] | Walked[Segment] = ending.last or opened
    times_told = last.now_ms is not None and last.modified_ms is not None
    return OpenSessionSurvey(
        writer=session.id.writer,
        chapter=session.id.chapter,
        session=session.id.number,
        slots=ending.slots,
        events=ending.events,
        bytes=listed.bytes,
        last_stamp=session.tip.stamp,
        silent_ms=max(0, (last.now_ms or 0) - (last.modified_ms or 0)) if times_told else None,
        idle_ms=session.opened.idle_ms,
        seal_ms=min(session.opened.seal_ms, seal_ms_max),
        holds_watermark=holds,
    )


def _left_over(
    left: Mapping[int, int], retired_ms: Mapping[int, int | None], grace_ms: int, now_ms: int | None
) -> tuple[int, int | None]:
    """How many objects are left of chapters that were retired a grace ago, and since when they may go."""
    count, since_ms = 0, None
    for chapter, objects in left.items():
        recorded_ms = retired_ms.get(chapter)
        if recorded_ms is not None and now_ms is not None and now_ms - recorded_ms >= grace_ms:
            count += objects
            due_ms = recorded_ms + grace_ms
            since_ms = due_ms if since_ms is None else min(since_ms, due_ms)
    return count, since_ms


async def _retired_chapters(store: FileStore) -> dict[int, int | None]:
    """The chapters that are retired, and when the store got each one's record; None: it does not tell."""
    found = {}
    async for listed in store.list(RETIRED):
        if isinstance(key := parse_key(listed.key), RetiredKey):
            found[key.chapter] = listed.modified_ms
    return found


async def _first_chapter(store: FileStore, identity: Identity, newest: int | None) -> tuple[int, Frontier]:
    """The first chapter that is not retired, and the frontier at its beginning; ``newest``: the last that is."""
    if newest is None:
        return 0, Frontier(identity.id, identity.root, None)
    record = _require(await fetch(store, retired_key(newest), lambda _, data: decode_retired(newest, data)))
    last = Entry(newest, record.closed, record.stamp, b"", b"", record.scopes, Closed(), record.digest)
    return newest + 1, Frontier(identity.id, identity.root, last)


async def _roster(
    store: FileStore, first_chapter: int, frontier: Frontier, left: Counter[int]
) -> AsyncGenerator[Walked[Entry], None]:
    """Each entry in turn; ``frontier`` has taken one in before the next is asked for.

    A listing's pages are not of one moment: an entry that it lacks, where it has a later one, is asked for by name.
    """
    async with aclosing(walk(store, _entries(store, first_chapter, left), _decode_entry)) as listed:
        async for walked in listed:
            address = _require(walked).address
            while (expected := frontier.next_address) < address:
                yield await _unlisted(store, expected)
            if expected > address:
                raise Corrupt(f"its number was used after the chapter's closed entry key={walked.key}; {CHECK}")
            yield walked


async def _unlisted(store: FileStore, address: Address) -> Walked[Entry]:
    """The entry at ``address``, below one that is there."""
    walked = await fetch(store, entry_key(*address), _decode_entry)
    if not walked.is_absent:
        return walked
    if not (await fetch(store, retired_key(address[0]), lambda _, data: decode_retired(address[0], data))).is_absent:
        raise Unavailable(f"its chapter was retired while it was looked at key={walked.key}; look again")
    raise Missing(f"a later entry is there, and this one is gone key={walked.key}; {CHECK}")


async def _entries(store: FileStore, first_chapter: int, left: Counter[int]) -> AsyncIterator[Listed]:
    """Every entry of the roster; those of retired chapters are only counted, in ``left``."""
    async for listed in store.list("roster/"):
        key = parse_key(listed.key)
        if isinstance(key, EntryKey) and key.chapter >= first_chapter:
            yield listed
        elif isinstance(key, EntryKey):
            left[key.chapter] += 1


async def _list_slots(store: FileStore, first_chapter: int, left: Counter[int]) -> dict[Address, _Slots]:
    """Every session's slots; those of retired chapters are only counted, in ``left``.

    Two writers never share a session's number, so the address is enough.
    """
    sessions: dict[Address, _Slots] = {}
    async for listed in store.list("log/"):
        key = parse_key(listed.key)
        if isinstance(key, SegmentKey) and key.chapter >= first_chapter:
            slots = sessions.setdefault((key.chapter, key.session), _Slots())
            slots.segments += 1
            slots.bytes += listed.size
            slots.dense += key.slot == slots.dense
        elif isinstance(key, SegmentKey):
            left[key.chapter] += 1
    return sessions


async def _lost_entry(store: FileStore, unlisted: list[Address]) -> str:
    """The first entry that is gone of those that opened ``unlisted`` sessions; others are new, or were not valid."""
    for address in unlisted:
        if (await fetch(store, entry_key(*address), _decode_entry)).is_absent:
            return entry_key(*address)
    return ""


async def _ending(store: FileStore, session: OpenSession, slots: _Slots) -> _Ending:
    """Find the last slot that counts: the last one without a gap before it, or the first final.

    A final is only created by somebody who knows all slots below; so above the first there is no other, only what was
    in flight: fewer than ``flights`` slots.
    """
    if slots.dense == 0:
        return _Ending(None)
    last = await _fetch_slot(store, session.id, slots.dense - 1)
    if not _require(last).final:
        before = range(max(0, slots.dense - session.opened.flights), slots.dense - 1)
        for walked in await asyncio.gather(*(_fetch_slot(store, session.id, slot) for slot in before)):
            if _require(walked).final:
                last = walked
                break
    segment = _require(last)
    return _Ending(last, segment.first_sequence + segment.count, segment.key.slot + 1)


async def _newest_stamp(store: FileStore, lasts: list[Segment]) -> int:
    """The newest event's stamp. Finals and heartbeats are empty: the events lie in the slots before them."""
    newest = 0
    for last in sorted(lasts, key=lambda segment: segment.stamp, reverse=True):
        segment = last
        while segment.stamp > newest and segment.count == 0 and segment.key.slot > 0:
            before = SessionId(segment.key.chapter, segment.key.session, segment.key.writer)
            segment = _require(await _fetch_slot(store, before, segment.key.slot - 1))
        newest = max(newest, segment.stamp if segment.count else 0)
    return newest


async def _fetch_slot(store: FileStore, session: SessionId, slot: int) -> Walked[Segment]:
    key = session.segment_key(slot)
    name = segment_key(key.writer, key.chapter, key.session, key.slot)
    return await fetch(store, name, lambda _, data: decode_segment(key, data))


def _require(walked: Walked[T]) -> T:
    """The object itself; its damage is raised."""
    if walked.damage is not None:
        raise walked.damage
    if walked.value is None:
        raise Missing(f"listed, and gone when asked for key={walked.key}; {CHECK}")
    return walked.value


def _decode_entry(name: str, data: bytes) -> Entry:
    key = parse_key(name)
    assert isinstance(key, EntryKey)
    return decode_entry(key.chapter, key.number, data)
