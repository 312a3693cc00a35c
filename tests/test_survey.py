"""The survey agrees with a complete reading, and sealing ends what is silent by the store's own times."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

import logstore
from logstore import Corrupt, Event, InvalidArgument, Log, LogSettings, Missing, RetrySettings, WriterSettings
from logstore.catchup import catch_up
from logstore.clock import Clock
from logstore.entry import Tick, decode_entry, encode_entry
from logstore.filestore import FileStore, MemoryStore
from logstore.filestore.base import Listed
from logstore.filestore.wrappers import MeteredStore
from logstore.frontier import Frontier
from logstore.keys import EntryKey, entry_key, parse_key, segment_key
from logstore.segment import SegmentEncoder
from logstore.survey import take_survey
from logstore.testing import ManualClock
from projections import keep

IDLE_MS, SEAL_MS = 1_000, 1_000 + 4 * 500
SETTINGS = LogSettings(
    writer=WriterSettings(idle_ms=IDLE_MS, idle_ms_max=IDLE_MS, tick_ms=3_600_000),
    retry=RetrySettings(attempt_timeout_ms=500, deadline_ms=500),
)


def log_in(store: FileStore, clock: Clock, *, read_only: bool = False) -> Log:
    return logstore.open(store, settings=SETTINGS, clock=clock, rng=random.Random(1), read_only=read_only)


def event(key: str) -> Event:
    return Event("Deployment", key, "planned", {"status": 1})


async def abandon(store: FileStore, clock: ManualClock, name: str, events: int) -> None:
    """Leave a session open, as a killed process would: its final is deleted again."""
    async with log_in(store, clock) as log, log.writer(name) as writer:
        receipts = [await writer.append(event(f"{name}-{n}")) for n in range(events)]
    receipt = receipts[-1]
    await store.delete(segment_key(name, receipt.chapter, receipt.session, receipt.slot + 1))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_ms=1_700_000_000_000)


@pytest.fixture
async def store(clock: ManualClock) -> FileStore:
    """A session that ended in a chapter that closed; two open ones in the next."""
    store = MemoryStore(clock=clock)
    async with log_in(store, clock) as log:
        async with log.writer("piped-1") as writer:
            await writer.append_many([event(f"d-{n}") for n in range(10)])
        assert await log.close_chapter()
    await abandon(store, clock, "dead", 3)
    await abandon(store, clock, "dead", 1)
    return store


async def test_a_survey_counts_what_a_reading_would(store: FileStore, clock: ManualClock) -> None:
    """Sessions, events and the watermark are those of a complete reading, for a few requests."""
    async with log_in(store, clock, read_only=True) as log:
        survey = await log.survey()
        requests = log.requests()
        events = [event async for event in log.read()]
    assert (survey.chapters, survey.sessions, survey.events) == (2, 3, 14) == (2, 3, len(events))
    assert survey.segments == len([k async for k in store.list("log/")])
    assert [(s.writer, s.slots, s.events) for s in survey.open_sessions] == [("dead", 3, 3), ("dead", 1, 1)]
    assert survey.holder == survey.open_sessions[0]
    assert (survey.chapter_sessions, survey.left_over, survey.left_over_since_ms) == (2, 0, None)
    assert survey.created_ms <= (survey.oldest_ended_ms or 0) <= (survey.chapter_begun_ms or 0) <= (survey.now_ms or 0)
    assert survey.watermark == survey.open_sessions[0].last_stamp < survey.newest_stamp
    assert requests.create.requests == requests.delete.requests == 0
    assert survey.newest_stamp >= max(event.stamp for event in events)


async def test_a_survey_names_those_who_wrote(store: FileStore, clock: ManualClock) -> None:
    """By name: their sessions, how many have not ended, what they hold, and when they were last heard."""
    async with log_in(store, clock, read_only=True) as log:
        survey = await log.survey()
        newest = {event.writer: event.stamp async for event in log.read()}
    assert [(w.writer, w.sessions, w.open, w.events) for w in survey.writers] == [
        ("dead", 2, 2, 4),
        ("piped-1", 1, 0, 10),
    ]
    assert sum(w.bytes for w in survey.writers) == survey.bytes
    assert all(w.last_stamp >= newest[w.writer] for w in survey.writers)


async def test_its_frontier_is_that_of_a_reading(store: FileStore, clock: ManualClock) -> None:
    """What it says of open sessions is what one who read them knows: seals attach there."""
    async with log_in(store, clock) as log:
        _, surveyed = await take_survey(store, log.identity, 0)
        read = Frontier(log.identity.id, log.identity.digest, None)
        async with aclosing(catch_up(read, log._objects, log._looks, log._stamps)) as runs:
            async for _ in runs:
                pass
    assert surveyed.sessions == read.sessions
    assert surveyed.position() == read.position()


async def test_an_entry_that_is_gone_is_named(store: FileStore, clock: ManualClock) -> None:
    """P12: it failed an assertion, and ended whoever asks: `status`, `doctor`, `seal`, and the daemon `keep`."""
    await store.delete(entry_key(0, 1))
    async with log_in(store, clock) as log:
        with pytest.raises(Missing, match=r"this one is gone key=roster/0000000000/0000000001; run `logstore check`"):
            await log.survey()
        async with aclosing(keep(log)) as rounds:
            done = await anext(rounds)
    assert [type(problem) for problem in done.problems][:1] == [Missing]


async def test_an_entry_behind_a_closed_one_is_named(store: FileStore, clock: ManualClock) -> None:
    """P12: a number that nobody may use any more."""
    *_, closed = [listed.key async for listed in store.list("roster/0000000000/")]
    key = parse_key(closed)
    assert isinstance(key, EntryKey)
    used = decode_entry(key.chapter, key.number, (await store.get(closed)).data)
    late, _ = encode_entry(replace(used, number=key.number + 1, body=Tick()))
    await store.create(entry_key(0, key.number + 1), late)
    async with log_in(store, clock, read_only=True) as log:
        with pytest.raises(Corrupt, match=f"closed entry key={entry_key(0, key.number + 1)}; run `logstore check`"):
            await log.survey()


class Paged(MeteredStore):
    """A store whose listings pass over one object: it was created when its page had been made."""

    def __init__(self, store: FileStore, late: str) -> None:
        super().__init__(store)
        self._late = late

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Listed]:
        async for listed in super().list(prefix, after):
            if listed.key != self._late:
                yield listed


@pytest.mark.parametrize("late", [entry_key(0, 2), entry_key(0, 3), entry_key(1, 0)])
async def test_an_entry_that_a_listing_lacks_is_asked_for(store: FileStore, clock: ManualClock, late: str) -> None:
    """Somebody created it, and a later one, while page after page came."""
    async with log_in(store, clock, read_only=True) as log:
        whole = await log.survey()
    async with log_in(Paged(store, late), clock, read_only=True) as log:
        assert await log.survey() == whole


async def test_segments_tell_of_an_entry_that_is_gone(store: FileStore, clock: ManualClock) -> None:
    """P12: where no later entry was left to tell, a log that had lost its roster was said to be empty and well."""
    async with log_in(store, clock, read_only=True) as log:
        assert (await log.survey()).lost_entry == ""
        for chapter in ("0000000000", "0000000001"):
            async for listed in store.list(f"roster/{chapter}/"):
                await store.delete(listed.key)
    async with log_in(store, clock, read_only=True) as log:
        assert (await log.survey()).lost_entry == entry_key(0, 1)


async def test_slots_behind_a_final_or_a_gap_do_not_count(store: FileStore, clock: ManualClock) -> None:
    """Only what a reader would read is counted: up to the first final, and without a gap."""
    async with log_in(store, clock) as log:
        before = await log.survey()
        _, frontier = await take_survey(store, log.identity, 0)
        sessions = list(frontier.sessions.values())
        clock.advance(SEAL_MS)
        await log.seal()
    for session in sessions:
        key = session.id.segment_key(session.tip.slot + 1)
        data, _ = SegmentEncoder().encode(
            key,
            (),
            first_sequence=session.tip.sequence,
            stamp=session.tip.stamp + 1_000_000,
            acknowledged=0,
            previous=session.tip.digest,
        )
        await store.create(segment_key(key.writer, key.chapter, key.session, key.slot), data)
    async with log_in(store, clock) as log:
        after = await log.survey()
    assert (after.events, after.open_sessions) == (before.events, ())


async def test_seal_ends_what_was_silent_for_its_seal_time(store: FileStore, clock: ManualClock) -> None:
    """The clock is the store's; a session is left alone before, sealed after, and everything settles."""
    async with log_in(store, clock) as log:
        early = await log.seal()
        assert [(s.sealed, "may live" in s.why) for s in early] == [(False, True)] * 2
        clock.advance(SEAL_MS)
        dry = await log.seal(dry_run=True)
        assert [s.sealed for s in dry] == [True, True]
        assert len((await log.survey()).open_sessions) == 2, "a dry run changes nothing"
        done = await log.seal()
        assert [(s.sealed, s.why) for s in done] == [(True, "sealed at slot 3"), (True, "sealed at slot 1")]
        assert await log.seal() == ()
        survey = await log.survey()
        assert (survey.open_sessions, survey.watermark_lag_ms) == ((), 0)
        assert len([event async for event in log.read(settled=True)]) == 14
        assert [finding async for finding in log.check()] == []


async def test_a_writer_known_to_be_gone_is_sealed_at_once(store: FileStore, clock: ManualClock) -> None:
    """All its sessions, silent or not; those of others are left alone."""
    async with log_in(store, clock) as log:
        name = (await log.survey()).open_sessions[0].writer
        assert await log.seal(writer=f"{name}-2") == ()
        dry = await log.seal(writer=name, dry_run=True)
        assert {(s.sealed, s.why) for s in dry} == {(True, "it would be sealed: its writer is gone")}
        done = await log.seal(writer=name)
        assert [s.session for s in done] == [s.session for s in dry]
        assert all(s.sealed for s in done)
        assert (await log.survey()).open_sessions == ()


async def test_a_session_that_lost_a_slot_is_not_sealed(store: FileStore, clock: ManualClock) -> None:
    """A seal over a lost object would make the loss for ever; it is reported, and the other session is sealed."""
    async with log_in(store, clock) as log:
        first, _ = (await log.survey()).open_sessions
        await store.delete(segment_key(first.writer, first.chapter, first.session, 1))
        clock.advance(SEAL_MS)
        lost, other = await log.seal()
    assert (lost.sealed, lost.damaged, lost.why.split(":")[0]) == (False, True, "Missing")
    assert other.sealed


async def test_a_read_only_log_seals_nothing(store: FileStore, clock: ManualClock) -> None:
    """Who may not write may still ask what would be done."""
    async with log_in(store, clock, read_only=True) as log:
        assert len(await log.seal(dry_run=True)) == 2
        with pytest.raises(InvalidArgument, match="read-only"):
            await log.seal()
