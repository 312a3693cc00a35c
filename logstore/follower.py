"""Poll the log's ends: the next roster entry, and the next slot of each open session.

One follower per log serves all its readers and views. It moves one frontier, fast and cheaply, and
remembers what it fetched; readers catch up to that frontier at their own pace. A round asks for everything
that could come next, all at once; after a hit the next round starts at once, otherwise the pause grows.

Invariants:
- No LIST; an idle round costs one GET, and one per open session; once a minute two more, and one per flight of these.
- ``refresh`` returns when rounds that began after the call have found every end that there was: each absent slot
  counts for its own session, so that no number of busy writers can hold it up.
- Silent sessions are sealed however busy the others are.
- What this process stored is taken in without a request.
- An error that polling cannot heal (Corrupt, Missing, Trimmed) ends the follower and reaches every waiter.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from logstore.catchup import pass_retirement
from logstore.clock import Clock
from logstore.entry import Address, Closed, Entry
from logstore.errors import ClockSkew, LogStoreError, Missing, Unavailable
from logstore.frontier import Frontier, OpenSession
from logstore.keys import NUMBER_MAX, segment_key
from logstore.looks import Looks
from logstore.notices import Notices
from logstore.objects import Objects
from logstore.roster import gallop, is_tail
from logstore.segment import Segment
from logstore.witness import is_witnessed

__all__ = ["Follower", "FollowSettings"]

_log = logging.getLogger(__name__)

CHECK_MS: Final = 60_000  # between looks beyond the ends
OWED_MS: Final = 90_000  # half as long again as a writer leaves events without an entry above them
ENTRIES_WINDOW_MAX: Final = 32
MEASURED_AFTER_ROUNDS: Final = 8  # a session that showed no end in so many is written as fast as we read
PAUSE_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class FollowSettings:
    """How eagerly to poll: milliseconds between rounds that find nothing, growing from ``_min`` to ``_max``.

    >>> FollowSettings(poll_ms_min=5, poll_ms_max=1_000).poll_ms_max
    1000
    """

    poll_ms_min: int
    poll_ms_max: int


LOCAL: Final = FollowSettings(poll_ms_min=10, poll_ms_max=250)
REMOTE: Final = FollowSettings(poll_ms_min=500, poll_ms_max=2_000)


@dataclass(frozen=True, slots=True)
class FollowerStatistics:
    """How far a follower is. ``rounds``: how often it has polled, since it was started.

    ``chapter``, ``entry``: the last of the roster that it has read. ``watermark``: a stamp, 0 at the beginning.
    """

    rounds: int
    chapter: int
    entry: int
    open_sessions: int
    watermark: int


class Follower:
    """Keeps ``frontier`` at the log's ends. Started by the first reader that follows."""

    def __init__(
        self,
        frontier: Frontier,
        *,
        objects: Objects,
        looks: Looks,
        clock: Clock,
        rng: random.Random,
        settings: FollowSettings,
        on_entry: Callable[[Entry], None],
        seal: Callable[[OpenSession], Awaitable[object]] | None,
        tick: Callable[[int], Awaitable[object]] | None,
        event_stamp: int,
        seal_ms_max: int,
    ) -> None:
        self.frontier = frontier
        self._objects = objects
        self._looks = looks
        self._clock = clock
        self._rng = rng
        self._settings = settings
        self._on_entry = on_entry
        self._seal = seal
        self._tick = tick
        self._seal_ms_max = seal_ms_max
        self._event_stamp = event_stamp  # at or above the last event taken in
        self._say = Notices(_log, store=frontier.store_id.hex())
        self._owed_since_ms: int | None = None
        self._failure: Exception | None = None
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._barriers: list[asyncio.Future[None]] = []
        self._settled_wanted = 0
        now_ms = clock.elapsed_ms()
        self._checked_ms = now_ms
        self._seen_ms: dict[Address, int] = dict.fromkeys(frontier.sessions, now_ms)
        self._seal_delay_ms: dict[Address, int] = {}
        self._windows: dict[Address, int] = {}
        self._entries_window = 1
        self._ended: set[Address] = set()  # sessions whose next slot was absent in the last round
        self._roster_ended = False  # likewise
        self._rounds = 0
        self._task = asyncio.create_task(self._run(), name="logstore follower")

    def __repr__(self) -> str:
        return f"<Follower {self.frontier!r} rounds={self._rounds} failure={self._failure!r}>"

    def statistics(self) -> FollowerStatistics:
        """How far it is. Cost: O(open sessions). Any thread may call."""
        last, sessions = self.frontier.last, list(self.frontier.sessions.values())
        stamps = [session.tip.stamp for session in sessions]
        return FollowerStatistics(
            rounds=self._rounds,
            chapter=last.chapter if last else 0,
            entry=last.number if last else 0,
            open_sessions=len(sessions),
            watermark=min([last.stamp, *stamps]) if last else 0,
        )

    @property
    def is_alive(self) -> bool:
        """Whether it polls still. Cost: none."""
        return self._failure is None

    async def aclose(self) -> None:
        """Stop polling; whoever waits gets Unavailable."""
        self._task.cancel()
        await asyncio.wait([self._task])

    # For readers

    async def refresh(self) -> None:
        """Return once everything acknowledged before this call, by anyone, is within the frontier.

        Concurrent calls share a round. Cost: one GET per end, two for the roster's tail. Raises what polling met.
        """
        self._require_alive()
        barrier: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers.append(barrier)
        self._wake.set()
        await barrier

    def changed(self) -> asyncio.Event:
        """An event that is set when the frontier moves from where it is now, or polling ends; raises what ended it."""
        self._require_alive()
        return self._changed

    def take_own(self, address: Address) -> None:
        """This process stored something in its session at ``address``, or ended it: take it in, and tell everybody."""
        if self._failure is None and self._take_remembered([address]):
            self._tell_changed()

    @contextmanager
    def wanting_settled(self, wanted: bool = True) -> Iterator[None]:
        """Within it somebody waits for the watermark; while anybody does, silent sessions are sealed."""
        self._settled_wanted += wanted
        self._wake.set()
        try:
            yield
        finally:
            self._settled_wanted -= wanted

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise _again(self._failure) from self._failure

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # The loop

    async def _run(self) -> None:
        pause_ms = float(self._settings.poll_ms_min)
        barriers: list[asyncio.Future[None]] = []
        try:
            while True:
                self._wake.clear()
                barriers, self._barriers = self._barriers, []
                try:
                    moved = await self._reach_ends(bool(barriers))
                except Unavailable as error:
                    moved = False
                    _fail(barriers, error)
                _finish(barriers)
                await self._seal_silent()
                await self._tick_owed()
                if moved:
                    pause_ms = self._settings.poll_ms_min
                elif not self._barriers:
                    await self._pause(pause_ms)
                    pause_ms = min(pause_ms * PAUSE_GROWTH, self._settings.poll_ms_max)
        except LogStoreError as error:
            self._failure = error
            self._say("following-ended", error=error)
        except asyncio.CancelledError:
            self._failure = Unavailable("the log was closed while it was being followed")
            raise
        except Exception as error:  # a mistake of ours, or memory is out: nobody may be left waiting
            self._failure = error
            self._say("following-ended", error=error)
            raise
        finally:
            assert self._failure is not None
            _fail([*barriers, *self._barriers], self._failure)
            self._tell_changed()

    async def _pause(self, pause_ms: float) -> None:
        try:
            async with asyncio.timeout(pause_ms * self._rng.uniform(0.8, 1.0) / 1000):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _reach_ends(self, is_barrier: bool) -> bool:
        """One round; for a barrier as many as it takes to find every end, the tail made sure of."""
        moved = await self._round()
        if is_barrier:
            moved |= await self._find_all_ends()
        if self._clock.elapsed_ms() - self._checked_ms >= CHECK_MS:
            self._checked_ms = self._clock.elapsed_ms()
            await self._check_tail()
            await self._check_sessions()
        return moved

    async def _find_all_ends(self) -> bool:
        """Go on with rounds until the roster's end was found, and that of each session opened up to it. Any moves?"""
        moved, rounds, found = False, 1, set(self._ended)
        while not (self._roster_ended and await self._check_tail()):
            moved |= await self._round()
            rounds, found = rounds + 1, found | self._ended
        wanted = [session for address, session in self.frontier.sessions.items() if address not in found]
        stops: dict[Address, int] = {}
        while wanted:
            if rounds >= MEASURED_AFTER_ROUNDS and not stops:
                stops = {session.address: await self._measure(session) for session in wanted}
            moved |= await self._round()
            rounds += 1
            wanted = [
                session
                for session in wanted
                if session.address in self.frontier.sessions
                and session.address not in self._ended
                and session.tip.slot < stops.get(session.address, NUMBER_MAX)
            ]
        return moved

    async def _measure(self, session: OpenSession) -> int:
        """How many slots a session has: at least those that are acknowledged now."""
        first = session.tip.slot
        last = await gallop(lambda slot: self._objects.segment(session.id.segment_key(slot)), first)
        return first if last is None else last[0] + 1

    async def _check_tail(self) -> bool:
        return await is_tail(self._objects, self._looks, *self.frontier.next_address)

    async def _check_sessions(self) -> None:
        """Make sure that we wait for slots that are not written yet, not for one that was lost."""
        for session in list(self.frontier.sessions.values()):
            slot = session.tip.slot
            if await is_witnessed(session, self._objects) and session.tip.slot == slot:
                await self._require_present(session, slot)

    async def _require_present(self, session: OpenSession, slot: int) -> None:
        """A slot that was stored: raise Missing if it is absent on another look, unless its chapter is retired."""
        key = session.id.segment_key(slot)
        if await self._objects.segment(key) is None and await self._looks.look(key.chapter) is None:
            name = segment_key(key.writer, key.chapter, key.session, key.slot)
            raise Missing(f"a segment is gone key={name}; restore it, or `logstore copy --accept-loss`")

    async def _round(self) -> bool:
        """Ask for everything that could come next, and take in what came. Whether anything did."""
        self._rounds += 1
        moved = self._take_remembered(tuple(self.frontier.sessions))
        frontier = self.frontier
        chapter, number = frontier.next_address
        sessions = [(session, session.tip.slot, session.named) for session in frontier.sessions.values()]
        self._ended, self._roster_ended = set(), False
        shelved = self._objects.shelved()
        (found, roster_ended), segments = await asyncio.gather(
            self._fetch_entries(chapter, number),
            asyncio.gather(*(self._fetch_segments(session, slot) for session, slot, _ in sessions)),
        )
        for due in {chapter, *(session.id.chapter for session, _, _ in sessions)}:
            if due in shelved:
                continue
            if self._objects.is_shelved(due):  # since the round began: what it found may be from before
                return True
            if self._looks.fresh(due):
                continue
            if (record := await self._looks.retired(due)) is not None:
                await pass_retirement(frontier, record, self._objects, self._looks)
                self._tell_changed()
                return True
        self._roster_ended = roster_ended
        for (session, slot, named), (arrived, ended) in zip(sessions, segments, strict=True):
            if ended:
                self._ended.add(session.address)
            moved |= self._take_segments(session, arrived)
            if not arrived and slot < named and session.tip.slot == slot and session.address in frontier.sessions:
                await self._require_present(session, slot)
        if self._take_entries(found):
            moved = True
            self._take_remembered(tuple(frontier.sessions))  # what this process has stored in a session just read of
        if moved:
            self._tell_changed()
        return moved

    async def _fetch_entries(self, chapter: int, number: int) -> tuple[list[Entry], bool]:
        """The next entries, and whether there was none after them. What it found is the round's alone to conclude from.

        A round that failed leaves some of its requests under way; when they are answered another round runs.
        """
        window = range(number, number + self._entries_window)
        entries = await asyncio.gather(*(self._objects.entry(chapter, n) for n in window))
        present = entries[: entries.index(None)] if None in entries else entries
        found = [entry for entry in present if entry is not None]
        ended = len(found) < len(entries) and not (found and isinstance(found[-1].body, Closed))
        self._entries_window = min(self._entries_window * 2, ENTRIES_WINDOW_MAX) if found else 1
        return found, ended

    async def _fetch_segments(self, session: OpenSession, slot: int) -> tuple[list[Segment], bool]:
        """The next segments of a session, and whether there was none after them; as ``_fetch_entries``."""
        window = self._windows.get(session.address, 1)
        keys = [session.id.segment_key(slot + i) for i in range(window)]
        segments = await asyncio.gather(*(self._objects.segment(key) for key in keys))
        present = segments[: segments.index(None)] if None in segments else segments
        self._windows[session.address] = min(window * 2, session.opened.flights * 2) if present else 1
        return [segment for segment in present if segment is not None], len(present) < window

    def _take_remembered(self, addresses: Collection[Address]) -> bool:
        """Take in what this process stored or fetched already of the roster and these sessions; whether anything.

        Only of chapters known unretired: for the others a round looks first.
        """
        moved = False
        while (entry := self._objects.remembered_entry(*self.frontier.next_address)) is not None:
            if not self._looks.fresh(entry.chapter):
                break
            moved |= self._take_entries([entry])
        sessions = self.frontier.sessions
        for session in [sessions[address] for address in addresses if address in sessions]:
            if not self._looks.fresh(session.id.chapter):
                continue
            while (segment := self._objects.remembered_segment(session.id.segment_key(session.tip.slot))) is not None:
                moved |= self._take_segments(session, [segment])
                if segment.final:
                    break
        return moved

    def _take_entries(self, entries: list[Entry]) -> bool:
        moved = False
        for entry in entries:
            if entry.address == self.frontier.next_address:
                self.frontier.take_entry(entry)
                if entry.address in self.frontier.sessions:
                    self._seen_ms[entry.address] = self._clock.elapsed_ms()
                self._on_entry(entry)
                moved = True
        return moved

    def _take_segments(self, session: OpenSession, segments: list[Segment]) -> bool:
        moved = False
        for segment in segments:
            if session.address in self.frontier.sessions and segment.key.slot == session.tip.slot:
                self.frontier.take_segment(segment)
                if segment.count:
                    self._event_stamp = max(self._event_stamp, segment.stamp)
                self._seen_ms[session.address] = self._clock.elapsed_ms()
                moved = True
        if session.address not in self.frontier.sessions:
            for known in (self._seen_ms, self._windows, self._seal_delay_ms):
                known.pop(session.address, None)
        return moved

    # Sealing

    async def _seal_silent(self) -> None:
        """End sessions that have been silent for their seal time and a random while, if anybody needs the watermark."""
        if self._seal is None or not self._settled_wanted:
            return
        for session in list(self.frontier.sessions.values()):
            address, seal_ms = session.address, min(session.opened.seal_ms, self._seal_ms_max)
            if address not in self.frontier.sessions:
                continue  # ended while another was being sealed
            silent_ms = self._clock.elapsed_ms() - self._seen_ms[address]
            delay_ms = self._seal_delay_ms.setdefault(address, self._rng.randint(0, seal_ms // 4))
            if silent_ms >= seal_ms + delay_ms:
                del self._seal_delay_ms[address]
                try:
                    await self._seal(session)
                except Unavailable:
                    self._seen_ms[address] = self._clock.elapsed_ms() - seal_ms
                self._wake.set()
                if self._barriers:
                    return  # the others are sealed after the next round

    async def _tick_owed(self) -> None:
        """Post the tick that a writer or sealer owed and died before posting, if anybody needs the watermark."""
        last = self.frontier.last
        if last is None or last.stamp >= self._event_stamp:
            self._owed_since_ms = None
            return
        if self._tick is None or not self._settled_wanted:
            return
        now_ms = self._clock.elapsed_ms()
        if self._owed_since_ms is None:
            self._owed_since_ms = now_ms + self._rng.randint(0, OWED_MS // 2)
        if now_ms - self._owed_since_ms >= OWED_MS:
            self._owed_since_ms = None
            with suppress(Unavailable, ClockSkew):  # then it is tried again
                await self._tick(self._event_stamp)


def _finish(barriers: list[asyncio.Future[None]]) -> None:
    for barrier in barriers:
        if not barrier.done():
            barrier.set_result(None)


def _again(error: Exception) -> Exception:
    """A new error to raise for one that was met elsewhere; one that nobody raised on purpose stays a bug's."""
    if isinstance(error, LogStoreError):
        return type(error)(str(error))
    broken = RuntimeError(f"following broke by a mistake: {error!r}")
    broken.__cause__ = error
    return broken


def _fail(barriers: list[asyncio.Future[None]], error: Exception) -> None:
    for barrier in barriers:
        if not barrier.done():
            barrier.set_exception(_again(error))
