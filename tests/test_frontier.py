"""Frontiers: the watermark is exact, chains are held, and what is retired is left only when it was read."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.entry import Begin, Body, Closed, Entry, Exclusive, Open, Tick, encode_entry, next_entry
from logstore.errors import Corrupt, Trimmed
from logstore.frontier import Frontier, Position
from logstore.retired import Retired, RetiredSession
from logstore.segment import Segment, SegmentEncoder
from logstore.session import SessionId, Tip

STORE_ID, STORE_DIGEST = bytes(16), b"s" * 32
NONCE = bytes(16)
Address = tuple[int, int]


@dataclass
class World:
    """A log as its writers made it: entries in order, and the segments of each session in order."""

    rng: random.Random
    entries: list[Entry] = field(default_factory=list)
    sessions: dict[Address, list[Segment]] = field(default_factory=dict)
    tips: dict[Address, Tip] = field(default_factory=dict)
    encoder: SegmentEncoder = field(default_factory=SegmentEncoder)

    def post(self, body: Body) -> Entry:
        tail = self.entries[-1] if self.entries else None
        stamp = (tail.stamp if tail else 0) + self.rng.randint(1, 50)
        _, entry = encode_entry(next_entry(tail, STORE_DIGEST, body, stamp, NONCE))
        self.entries.append(entry)
        if isinstance(body, Open) and entry.valid:
            self.sessions[entry.address] = []
            self.tips[entry.address] = Tip.of(entry)
        return entry

    def write(self, address: Address, count: int, *, final: bool = False) -> Segment:
        """The session's next segment, stamped by a clock of its own."""
        tip = self.tips[address]
        opened = next(entry for entry in self.entries if entry.address == address)
        key = SessionId.of(opened).segment_key(tip.slot)
        events = [("k", "d", "t", b"\xc0", None)] * count
        first_stamp = tip.stamp + self.rng.randint(1, 200)
        _, segment = self.encoder.encode(
            key,
            events,
            first_sequence=tip.sequence,
            stamp=first_stamp,
            acknowledged=tip.slot if final else self.rng.randint(0, tip.slot),
            previous=tip.digest,
            final=final,
        )
        self.sessions[address].append(segment)
        self.tips[address] = tip.after(segment)
        if final:
            del self.tips[address]
        return segment

    def body(self) -> Body:
        """Some body that may follow the tail."""
        if not self.entries or isinstance(self.entries[-1].body, Closed):
            return Begin()
        choice = self.rng.random()
        if choice < 0.5:
            exclusive = Exclusive(("k",), None) if self.rng.random() < 0.3 else None
            return Open("w", 1, 2, 4, exclusive)
        if choice < 0.8:
            return Tick(tuple((*address, tip.slot) for address, tip in self.tips.items()))
        return Closed()

    @classmethod
    def random(cls, rng: random.Random, steps: int) -> World:
        world = cls(rng)
        world.post(Begin())
        for _ in range(steps):
            if world.tips and rng.random() < 0.65:
                final = rng.random() < 0.2
                world.write(rng.choice(list(world.tips)), 0 if final else rng.randint(0, 3), final=final)
            else:
                world.post(world.body())
        return world


@dataclass
class Reading:
    """What a reader took, kept as plainly as possible beside the frontier."""

    world: World
    frontier: Frontier = field(default_factory=lambda: Frontier(STORE_ID, STORE_DIGEST, None))
    entries: int = 0
    slots: dict[Address, int] = field(default_factory=dict)

    def choices(self) -> list[Address | None]:
        """What can be taken next: None for the next entry, or a session with a next segment."""
        more: list[Address | None] = [None] if self.entries < len(self.world.entries) else []
        return more + [a for a, read in self.slots.items() if read < len(self.world.sessions[a])]

    def take(self, choice: Address | None, rng: random.Random) -> None:
        if choice is None:
            entry = self.world.entries[self.entries]
            assert self.frontier.next_address == entry.address
            self.frontier.take_entry(entry)
            self.entries += 1
            if entry.address in self.world.sessions:
                self.slots[entry.address] = 0
            return
        segment = self.world.sessions[choice][self.slots[choice]]
        for taken in sorted(rng.sample(range(segment.count), min(segment.count, rng.randint(0, 2)))):
            self.frontier.take_events(segment, taken)
            assert self.frontier.sessions[choice].taken == taken
        if rng.random() < 0.5:
            self.frontier.take_segment(segment)
        else:
            self.frontier.take_events(segment, segment.count)
        self.slots[choice] += 1

    def watermark(self) -> int:
        """By definition: the least of the last entry's stamp and the last seen stamp of each session not final."""
        if not self.entries:
            return 0
        seen = [self.world.entries[self.entries - 1].stamp]
        for address, read in self.slots.items():
            segments = self.world.sessions[address][:read]
            if not (segments and segments[-1].final):
                opened = next(entry for entry in self.world.entries if entry.address == address)
                seen.append(segments[-1].stamp if segments else opened.stamp)
        return min(seen)

    def unread_stamps(self) -> list[int]:
        """The stamps of all that was written and not taken: of sessions not known yet, too."""
        return [entry.stamp for entry in self.world.entries[self.entries :]] + [
            segment.stamp
            for address, segments in self.world.sessions.items()
            for segment in segments[self.slots.get(address, 0) :]
        ]


@given(st.integers(0, 2**32), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_the_watermark_is_exact(seed: int, steps: int) -> None:
    """In any order of reading it equals its definition, never falls, and nothing unread is at or below it."""
    rng = random.Random(seed)
    reading = Reading(World.random(rng, steps))
    before = 0
    while choices := reading.choices():
        reading.take(rng.choice(choices), rng)
        watermark = reading.frontier.watermark()
        assert watermark == reading.watermark()
        assert watermark >= before
        assert all(stamp > watermark for stamp in reading.unread_stamps())
        holder = reading.frontier.holder()
        assert watermark == (holder.tip.stamp if holder else reading.world.entries[reading.entries - 1].stamp)
        before = watermark


@given(st.integers(0, 2**32), st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_a_position_says_where_the_frontier_is(seed: int, steps: int) -> None:
    """It lists exactly the sessions not ended, where each goes on, and comes back from its text."""
    rng = random.Random(seed)
    reading = Reading(World.random(rng, steps))
    assert reading.frontier.position() == Position(STORE_ID, None, b"")
    while choices := reading.choices():
        reading.take(rng.choice(choices), rng)
        frontier = reading.frontier
        position = frontier.position()
        last = reading.world.entries[reading.entries - 1]
        assert (position.store_id, position.last, position.digest) == (STORE_ID, last.address, last.digest)
        open_ones = {
            address: read
            for address, read in reading.slots.items()
            if not (read and reading.world.sessions[address][read - 1].final)
        }
        assert {(s.chapter, s.number): s.tip.slot for s in position.sessions} == open_ones
        assert Position.parse(str(position)) == position
        assert frontier.copy().position() == position


def record_of(world: World, chapter: int) -> Retired | None:
    """The retirement record of a chapter; None unless it is closed and all its sessions are final."""
    entries = [entry for entry in world.entries if entry.chapter == chapter]
    sessions = {}
    for entry in entries:
        if isinstance(entry.body, Open):
            segments = world.sessions.get(entry.address)
            if segments is None:
                sessions[entry.number] = RetiredSession(0, entry.stamp)
            elif segments and segments[-1].final:
                stamps = [entry.stamp, *(segment.stamp for segment in segments[:-1])]
                sessions[entry.number] = RetiredSession(len(segments) - 1, max(stamps))
            else:
                return None
    last = entries[-1]
    if not isinstance(last.body, Closed):
        return None
    return Retired(chapter, last.number, last.digest, last.stamp, last.scopes, sessions)


def finished_world(seed: int, steps: int) -> World:
    """A random world whose chapter 0 can be retired."""
    world = World.random(random.Random(seed), steps)
    for address in [address for address in world.tips if address[0] == 0]:
        world.write(address, 0, final=True)
    if not any(isinstance(entry.body, Closed) for entry in world.entries):
        world.post(Closed())
    return world


@given(st.integers(0, 2**32), st.integers(0, 25))
@settings(max_examples=60, deadline=None)
def test_a_retired_chapter_is_left_only_when_all_it_held_was_read(seed: int, steps: int) -> None:
    """Wherever a reading stands: Trimmed while a listed slot is unread, else it goes on behind the chapter."""
    rng = random.Random(seed)
    reading = Reading(finished_world(seed, steps))
    record = record_of(reading.world, 0)
    assert record is not None
    while True:
        before = reading.frontier.copy()
        read_all = all(reading.slots.get((0, number), 0) >= held.slots for number, held in record.sessions.items())
        if read_all:
            after = reading.frontier.copy()
            after.take_retirement(record)
            assert all(chapter > 0 for chapter, _ in after.sessions)
            assert after.next_address == max(before.next_address, (1, 0))
            assert after.watermark() >= before.watermark()
            unread = [
                segment
                for address, segments in reading.world.sessions.items()
                for segment in segments[reading.slots.get(address, 0) :]
            ]
            assert all(segment.stamp > after.watermark() for segment in unread if segment.count)
        else:
            with pytest.raises(Trimmed, match="record=retired/0000000000"):
                reading.frontier.take_retirement(record)
            assert reading.frontier.position() == before.position(), "a refusal changes nothing"
        choices = reading.choices()
        if not choices:
            return
        reading.take(rng.choice(choices), rng)


def test_half_a_segment_is_not_all_of_it() -> None:
    """A reader in the middle of the last listed segment is Trimmed."""
    world = World(random.Random(0))
    world.post(Begin())
    opened = world.post(Open("w", 1, 2, 4))
    segment = world.write(opened.address, 2)
    world.write(opened.address, 0, final=True)
    world.post(Closed())
    record = record_of(world, 0)
    assert record is not None
    frontier = Frontier(STORE_ID, STORE_DIGEST, None)
    for entry in world.entries:
        frontier.take_entry(entry)
    frontier.take_events(segment, 1)
    with pytest.raises(Trimmed, match="session=1 slots_read=0 slots=1"):
        frontier.take_retirement(record)
    frontier.take_events(segment, 2)
    frontier.take_retirement(record)
    assert frontier.sessions == {}


def test_a_tick_names_slots_and_never_fewer() -> None:
    """What a tick says to exist is remembered for sessions still open, the greatest number of all ticks."""
    world = World(random.Random(0))
    world.post(Begin())
    opened = world.post(Open("w", 1, 2, 4))
    for slots in (3, 5, 4):
        world.post(Tick(((*opened.address, slots), (0, 99, 7))))
    frontier = Frontier(STORE_ID, STORE_DIGEST, None)
    named = []
    for entry in world.entries:
        frontier.take_entry(entry)
        named.append(frontier.sessions[opened.address].named if frontier.sessions else 0)
    assert named == [0, 0, 3, 5, 5]


# Chains --------------------------------------------------------------------------------------


def session_of_three() -> tuple[Entry, list[Segment]]:
    world = World(random.Random(1))
    world.post(Begin())
    opened = world.post(Open("web/1", 1, 2, 4))
    return opened, [world.write(opened.address, count) for count in (2, 0, 3)]


def test_a_tip_moves_over_a_session() -> None:
    """Slot, sequence, stamp and digest go on from segment to segment, a heartbeat included."""
    opened, segments = session_of_three()
    tip = Tip.of(opened)
    assert tip == (0, 0, opened.stamp, opened.digest)
    for slot, (segment, sequence) in enumerate(zip(segments, (2, 2, 5), strict=True)):
        tip = tip.after(segment)
        assert tip == (slot + 1, sequence, segment.stamp, segment.digest)


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_a_segment_that_does_not_attach_is_damage(slot: int) -> None:
    """Another digest before it, a sequence with a gap, a stamp not above the last: Corrupt, naming the segment."""
    opened, segments = session_of_three()
    tip = Tip.of(opened)
    for segment in segments[:slot]:
        tip = tip.after(segment)
    segment = segments[slot]
    tip.after(segment)
    for wrong in (
        replace(segment, previous=bytes(32)),
        replace(segment, previous=segment.digest),
        replace(segment, first_sequence=tip.sequence + 1),
        replace(segment, first_sequence=tip.sequence - 1),
        replace(segment, stamp=tip.stamp),
        replace(segment, stamp=tip.stamp - 1),
        replace(segment, stamp=0),
    ):
        with pytest.raises(Corrupt, match=f"key=log/web%2F1/0000000000/0000000001/000000000{slot} "):
            tip.after(wrong)
    with pytest.raises(AssertionError):
        tip._replace(slot=slot + 1).after(segment)


def test_an_entry_that_does_not_follow_is_damage() -> None:
    """Another digest before it, a stamp not above the last, other scopes: Corrupt, and nothing is taken."""
    world = World(random.Random(2))
    for body in (Begin(), Open("a", 1, 2, 4, Exclusive(("k",), None)), Tick(), Closed(), Begin()):
        world.post(body)
    frontier = Frontier(STORE_ID, STORE_DIGEST, None)
    for entry in world.entries:
        name = f"key=roster/{entry.chapter:010d}/{entry.number:010d}"
        before = frontier.position()
        wrongs = [replace(entry, previous=b"x" * 32), replace(entry, scopes=(*entry.scopes, *world.entries[1].scopes))]
        if entry.scopes:
            wrongs.append(replace(entry, scopes=()))
        else:
            wrongs.pop()
        if frontier.last is not None:
            wrongs += [replace(entry, stamp=frontier.last.stamp), replace(entry, stamp=0)]
        for wrong in wrongs:
            with pytest.raises(Corrupt, match=name):
                frontier.take_entry(wrong)
            assert frontier.position() == before
        frontier.take_entry(entry)


def test_an_invalid_exclusive_session_is_final_at_once() -> None:
    """It has no slots, holds no watermark and appears in no position."""
    world = World(random.Random(3))
    world.post(Begin())
    first = world.post(Open("a", 1, 2, 4, Exclusive(("k",), None)))
    second = world.post(Open("b", 1, 2, 4, Exclusive(("k",), None)))
    frontier = Frontier(STORE_ID, STORE_DIGEST, None)
    for entry in world.entries:
        frontier.take_entry(entry)
    assert (first.valid, second.valid) == (True, False)
    assert list(frontier.sessions) == [first.address]


# Scopes --------------------------------------------------------------------------------------

KINDS = [("a",), ("b",), ("c",), ("a", "b"), ("b", "c"), ("a", "b", "c")]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(-1, 8)) | st.none(), max_size=12))
@settings(max_examples=100, deadline=None)
def test_scopes_follow_from_the_entries_before(claims: list[tuple[tuple[str, ...], int] | None]) -> None:
    """Exclusive entries are valid if their scope is new, overlaps none and names none, or names what it replaces."""
    world = World(random.Random(4))
    world.post(Begin())
    holders: dict[tuple[str, ...], int] = {}
    for number, claim in enumerate(claims, start=1):
        if claim is None:
            entry = world.post(Tick())
        else:
            kinds, named = claim
            entry = world.post(Open("w", 1, 2, 4, Exclusive(kinds, None if named < 0 else (0, named))))
            overlapping = [other for other in holders if set(other) & set(kinds) and other != kinds]
            valid = not overlapping and named == holders.get(kinds, -1)
            assert entry.valid is valid
            if valid:
                holders[kinds] = number
        assert [(scope.kinds, scope.chapter, scope.number) for scope in entry.scopes] == [
            (kinds, 0, holder) for kinds, holder in sorted(holders.items())
        ]
