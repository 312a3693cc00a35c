"""The roster: one dense list for everybody, whoever races, dies, or has a wrong clock."""

from __future__ import annotations

import asyncio
import math
from typing import Never

import pytest

from logstore import ClockSkew, InvalidArgument, LogStoreError, Missing, NotStored, Receipt
from logstore.clock import stamp_ms
from logstore.entry import Closed, Open
from logstore.errors import AlreadyExists, NotFound
from logstore.keys import EntryKey, entry_key, parse_key
from logstore.roster import gallop
from logstore.testing.process import EPOCH_MS
from tests.scene import Carry, Gate, Machine, Scene, directed, event, events, lose, opened_by, quick, read, refuse, take

ALWAYS = 10**9


async def append_one(machine: Machine, key: str) -> Receipt:
    """A process that opens the log, appends once, and ends."""
    async with machine.open(quick()) as log, log.writer(machine.name) as writer:
        return await writer.append(event(key))


def after_closed(scene: Scene) -> list[str]:
    """Names in a chapter's roster above its closed entry."""
    ends = {entry.chapter: entry.number for entry in scene.roster() if isinstance(entry.body, Closed)}
    found = []
    for name in scene.store.keys("roster/"):
        key = parse_key(name)
        if isinstance(key, EntryKey) and key.chapter in ends and key.number > ends[key.chapter]:
            found.append(name)
    return found


# Finding --------------------------------------------------------------------------------------


async def test_galloping_finds_the_last_of_a_dense_run_in_twice_its_logarithm() -> None:
    """Each step doubles until absent, then halves: about 2·log2 of the run's length in probes."""
    for length in [*range(40), 100, 1_000, 5_000, 65_537]:
        probes = 0

        async def probe(number: int, length: int = length) -> str | None:
            nonlocal probes
            probes += 1
            return str(number) if 7 <= number < 7 + length else None

        found = await gallop(probe, 7)
        assert found == (None if length == 0 else (6 + length, str(6 + length)))
        assert probes <= 2 * math.log2(length + 1) + 2, f"{length}: {probes}"


@directed
async def test_a_store_without_entries_has_its_first_appender_begin_it(scene: Scene) -> None:
    """The first append of all creates the begin and then its open entry; nothing before does."""
    async with scene.machine("web").open() as log, scene.machine("reader").open() as reader_log:
        assert await read(reader_log) == []
        following = asyncio.create_task(take(reader_log.follow(), 1))
        await asyncio.sleep(30)
        assert scene.store.keys("roster/") == []
        async with log.writer("web") as writer:
            await writer.append(event("a"))
        assert await following == ["a"]
    assert scene.bodies()[:2] == ["Begin", "Open"]


# Racing ---------------------------------------------------------------------------------------


@directed
async def test_many_openers_at_once_get_a_session_each(scene: Scene) -> None:
    """However many post at the same time, the list stays dense, chained and increasing, and nobody is lost."""
    machines = [scene.machine(f"m{i:02}", skew_ms=(i - 10) * 180) for i in range(20)]
    receipts = await asyncio.gather(*(append_one(machine, machine.name) for machine in machines))
    assert len({receipt.session for receipt in receipts}) == 20
    assert sorted(scene.ids()) == [machine.name for machine in machines]


@directed
async def test_openers_and_closers_race_across_chapters(scene: Scene) -> None:
    """While chapters are closed under their feet openers go on in the next one; no number is used after a closed."""

    async def work(i: int) -> None:
        machine = scene.machine(f"m{i:02}")
        async with machine.open(quick()) as log:
            for round_ in range(3):
                async with log.writer(machine.name) as writer:
                    await writer.append(event(f"{i:02}.{round_}"))
                if i % 3 == 0:
                    await log.close_chapter()

    await asyncio.gather(*(work(i) for i in range(12)))
    assert after_closed(scene) == []
    assert sorted(scene.ids()) == sorted(f"{i:02}.{round_}" for i in range(12) for round_ in range(3))
    entries = scene.roster()
    chapters = {entry.chapter for entry in entries}
    assert len(chapters) >= 3
    for chapter in sorted(chapters)[:-1]:
        assert any(isinstance(entry.body, Open) for entry in entries if entry.chapter == chapter)


@directed
async def test_a_loser_pauses_and_goes_on_from_the_winner(scene: Scene) -> None:
    """Beaten to a number a poster reads the winner's entry, and gets the next: two creations, not many."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await append_one(scene.machine("first"), "x")
        gate = Gate()
        web.script.on("create", "roster/", gate.before)
        call = asyncio.create_task(writer.append(event("a")))
        await gate.met()
        await append_one(scene.machine("winner"), "y")
        gate.open()
        await call
        assert web.script.count("create", "roster/") == 2


@directed
async def test_posts_of_one_process_queue_up(scene: Scene) -> None:
    """Writers of one log do not race each other: each opens with one creation."""
    web = scene.machine("web")
    async with web.open() as log:
        writers = [log.writer(f"w{i}") for i in range(10)]
        await asyncio.gather(*(writer.append(event(writer.name)) for writer in writers))
        assert web.script.count("create", "roster/") == 11


# Ambiguity ------------------------------------------------------------------------------------


@directed
async def test_an_ambiguous_entry_is_found_by_its_nonce(scene: Scene) -> None:
    """An answer lost after landing, several times over: AlreadyExists with our own bytes is success, once."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        web.script.on("create", "roster/", lose, times=5)
        assert (await writer.append(event("a"))).session == 1
    assert len(opened_by(scene.roster(), "web")) == 1


@directed
async def test_an_open_entry_that_lands_after_its_poster_gave_up_is_an_empty_session(scene: Scene) -> None:
    """The poster said NotStored and opened another; the orphan holds nothing and is sealed by who needs it."""
    web = scene.machine("web")
    gate = Gate()
    async with web.open(quick()) as log, log.writer("web") as writer:
        await append_one(scene.machine("first"), "x")
        rule = web.script.on("create", "roster/", gate.late, times=ALWAYS)
        with pytest.raises(NotStored):
            await writer.append(event("never"))
        web.script.clear()
        assert rule.met > 1
        await gate.landed()
        receipt = await writer.append(event("a"))
        assert len(opened_by(scene.roster(), "web")) == 2
        await log.settled(receipt, timeout=30)
        assert await read(log, settled=True) == ["x", "a"]


@directed
async def test_a_store_that_says_taken_but_holds_nothing_is_not_asked_for_ever(scene: Scene) -> None:
    """AlreadyExists for a name whose GET says 404 is a lying store: an error in bounded time, not an endless loop."""

    async def taken(_carry: Carry) -> Never:
        raise AlreadyExists("taken, says the script")

    async def absent(_carry: Carry) -> Never:
        raise NotFound("absent, says the script")

    for number in (0, 1):
        web = scene.machine(f"web{number}")
        async with web.open() as log, log.writer("web") as writer:
            if number:
                await writer.append(event("x"))
                await writer.aclose()
        async with web.open() as log, log.writer("web") as writer:
            web.script.on("create", "roster/", taken, times=ALWAYS)
            web.script.on("get", "roster/", absent, times=ALWAYS if not number else 0)
            async with asyncio.timeout(1_000):
                with pytest.raises(LogStoreError):
                    await writer.append(event("a"))
            web.script.clear()


# Holes ----------------------------------------------------------------------------------------


async def three_sessions(scene: Scene) -> None:
    for key in "abc":
        await append_one(scene.machine(key), key)


@directed
async def test_a_hole_in_the_roster_is_missing_to_everybody(scene: Scene) -> None:
    """Entry n absent, n+1 present: Missing, naming n, for readers and posters; nobody fills the hole."""
    await three_sessions(scene)
    last = scene.roster()[-1].number
    hole = entry_key(0, last - 1)
    scene.store.lose(hole)
    async with scene.machine("other").open() as log, log.writer("other") as writer:
        with pytest.raises(Missing, match=hole):
            await read(log)
        with pytest.raises(Missing, match=hole):
            await writer.append(event("d"))
        with pytest.raises(Missing, match=hole):
            await take(log.follow(), 9)
    assert hole not in scene.store.contents()


@directed
async def test_a_lost_closed_entry_is_missing(scene: Scene) -> None:
    """The closed entry absent, the next chapter's begin present: Missing, and the number is not used again."""
    await three_sessions(scene)
    async with scene.machine("keeper").open() as log:
        assert await log.close_chapter()
    closed = next(entry for entry in scene.roster() if isinstance(entry.body, Closed))
    hole = entry_key(*closed.address)
    scene.store.lose(hole)
    async with scene.machine("other").open() as log:
        with pytest.raises(Missing, match=hole):
            await read(log)
    async with scene.machine("long there").open() as log, log.writer("w") as writer:
        await writer.append(event("d"))
    assert hole not in scene.store.contents()


@directed
async def test_a_lost_identity_is_missing_and_not_made_again(scene: Scene) -> None:
    """A store with a roster but without its identity was damaged: nobody creates another one."""
    await three_sessions(scene)
    scene.store.lose("store")
    with pytest.raises(Missing, match="store"):
        async with scene.machine("other").open():
            pass
    assert "store" not in scene.store.contents()


@directed
async def test_the_last_entry_may_vanish_unnoticed(scene: Scene) -> None:
    """Nothing names the last entry of the roster: that it is gone cannot be known (P12), and work goes on."""
    await append_one(scene.machine("a"), "a")
    scene.store.lose(entry_key(0, scene.roster()[-1].number))
    async with scene.machine("other").open() as log:
        assert await read(log) == ["a"]


# Chapters -------------------------------------------------------------------------------------


@directed
async def test_closing_a_chapter_opens_the_next(scene: Scene) -> None:
    """The closer creates the begin of the next chapter; new sessions open there; open ones run on in the old one."""
    async with scene.machine("web").open() as log, log.writer("web") as old:
        await old.append(event("a"))
        assert await log.close_chapter()
        assert scene.bodies() == ["Begin", "Open", "Closed", "Begin"]
        assert (await old.append(event("b"))).chapter == 0
        async with log.writer("web") as new:
            assert (await new.append(event("c"))).chapter == 1
        assert await read(log) == ["a", "b", "c"]


@directed
async def test_a_chapter_without_a_session_is_not_closed(scene: Scene) -> None:
    """Nothing is posted into an empty log, or into a chapter that holds no open entry."""
    async with scene.machine("web").open() as log:
        assert not await log.close_chapter()
        assert scene.store.keys("roster/") == []
        async with log.writer("web") as writer:
            await writer.append(event("a"))
        assert await log.close_chapter()
        entries = len(scene.roster())
        assert not await log.close_chapter()
        assert len(scene.roster()) == entries


@directed
async def test_a_closed_entry_is_posted_only_into_the_chapter_it_was_decided_for(scene: Scene) -> None:
    """A closer held up while others close that chapter, and fill the next, does not end the next one."""
    await append_one(scene.machine("web"), "a")
    slow = scene.machine("slow")
    async with slow.open() as log, scene.machine("fast").open() as fast:
        gate = Gate()
        slow.script.on("create", "roster/", gate.before)
        closing = asyncio.create_task(log.close_chapter())
        await gate.met()
        assert await fast.close_chapter()
        await append_one(scene.machine("next"), "b")
        gate.open()
        assert not await closing
    assert [entry.address for entry in scene.roster() if isinstance(entry.body, Closed)] == [(0, 3)]


@directed
async def test_closers_that_race_close_once(scene: Scene) -> None:
    """Of many that close at the same time one does; the others are told that they did not."""
    await append_one(scene.machine("web"), "a")

    async def close(i: int) -> bool:
        async with scene.machine(f"k{i}").open() as log:
            return await log.close_chapter()

    assert sum(await asyncio.gather(*(close(i) for i in range(8)))) == 1
    assert scene.bodies().count("Closed") == 1


@directed
async def test_when_the_closer_dies_the_next_appender_begins_the_chapter(scene: Scene) -> None:
    """No reader creates a begin, however long it waits for one; whoever appends next does."""
    await append_one(scene.machine("web"), "a")
    closer = scene.machine("closer")

    async def close() -> None:
        async with closer.open() as log:
            gate = Gate()
            closer.script.on("create", entry_key(1, 0), gate.before)
            await log.close_chapter()

    closing = closer.start(close())
    await asyncio.sleep(1)
    closer.process.crash()
    assert scene.bodies()[-1] == "Closed"
    async with scene.machine("reader").open(quick()) as log:
        following = asyncio.create_task(take(log.follow(), 2))
        settled = asyncio.create_task(take(log.follow(settled=True), 1))
        assert await read(log) == ["a"]
        await asyncio.sleep(30)
        assert entry_key(1, 0) not in scene.store.contents()
        assert (await append_one(scene.machine("next"), "b")).chapter == 1
        assert await following == ["a", "b"]
        assert await settled == ["a"]
    assert not closing.done()


@directed
async def test_a_read_only_log_posts_nothing(scene: Scene) -> None:
    """Without the right to write there is no writer, no closing, no resolving, and no store to be made."""
    with pytest.raises(NotFound):
        async with scene.machine("none").open(read_only=True):
            pass
    await append_one(scene.machine("web"), "a")
    async with scene.machine("reader").open(read_only=True) as log:
        assert await read(log) == ["a"]
        with pytest.raises(InvalidArgument):
            log.writer("web")
        with pytest.raises(InvalidArgument):
            await log.close_chapter()


# Clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_ms", [-3_600_000, -5_500, 5_500, 3_600_000])
@directed
async def test_a_clock_beyond_the_bound_posts_nothing(scene: Scene, skew_ms: int) -> None:
    """More than 5 s from the store's time, ahead or behind: ClockSkew, and the roster is not touched."""
    await append_one(scene.machine("right"), "a")
    entries = scene.roster()
    broken = scene.machine("broken", skew_ms=skew_ms)
    async with broken.open() as log, log.writer("w") as writer:
        with pytest.raises(ClockSkew):
            await writer.append_many(events("x", "y"))
        with pytest.raises(ClockSkew):
            await log.close_chapter()
        assert await read(log) == ["a"]
        broken.clock.step(-skew_ms)
        assert (await writer.append(event("b"))).session > 0
    assert scene.roster()[: len(entries)] == entries
    assert abs(stamp_ms(scene.roster()[-1].stamp) - EPOCH_MS - scene.loop.time() * 1000) < 1_000


@pytest.mark.parametrize("skew_ms", [-4_500, -2_500, 2_500, 4_500])
@directed
async def test_a_clock_within_the_bound_is_corrected(scene: Scene, skew_ms: int) -> None:
    """Between the error of measurement and the bound the offset is taken off: stamps are near the store's time."""
    receipt = await append_one(scene.machine("w", skew_ms=skew_ms), "a")
    assert abs(stamp_ms(receipt.stamp) - EPOCH_MS - scene.loop.time() * 1000) < 200


@pytest.mark.parametrize("skew_ms", [-1_800, 1_800])
@directed
async def test_noise_is_not_corrected(scene: Scene, skew_ms: int) -> None:
    """A difference that an HTTP Date cannot measure is left alone."""
    receipt = await append_one(scene.machine("w", skew_ms=skew_ms), "a")
    assert abs(stamp_ms(receipt.stamp) - EPOCH_MS - scene.loop.time() * 1000 - skew_ms) < 200


@directed
async def test_a_stepping_clock_pushes_no_stamp(scene: Scene) -> None:
    """Set an hour ahead in the middle of a session, the clock is judged at the next answer; stamps go on evenly."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.clock.step(3_600_000)
        for key in "bcd":
            receipt = await writer.append(event(key))
            assert abs(stamp_ms(receipt.stamp) - EPOCH_MS - scene.loop.time() * 1000) < 200
        await asyncio.sleep(40)
        with pytest.raises(ClockSkew):
            await writer.append(event("refused"))


@directed
async def test_a_late_answer_is_not_a_wrong_clock(scene: Scene) -> None:
    """A process that was stopped between question and answer does not mistake its pause for skew."""
    web = scene.machine("web")

    async def life() -> Receipt:
        async with web.open() as log, log.writer("web") as writer:
            await writer.append(event("a"))
            gate = Gate()
            web.script.on("create", "log/", gate.after)
            call = asyncio.create_task(writer.append(event("b")))
            await gate.met()
            web.process.pause()
            gate.open()
            await call
            async with log.writer("other") as other:
                return await other.append(event("c"))

    living = web.start(life())
    await asyncio.sleep(20)
    web.process.resume()
    assert (await living).slot == 0


@directed
async def test_a_clock_that_lags_never_stamps_below_the_tail(scene: Scene) -> None:
    """A poster first lifts its clock above the tail's stamp: the list increases whatever the machines believe."""
    await append_one(scene.machine("ahead", skew_ms=1_900), "a")
    receipt = await append_one(scene.machine("behind", skew_ms=-1_900), "b")
    entries = scene.roster()
    assert [entry.stamp for entry in entries] == sorted(entry.stamp for entry in entries)
    assert receipt.stamp > entries[-2].stamp
    assert scene.ids() == ["a", "b"]


@directed
async def test_a_refused_post_is_tried_again(scene: Scene) -> None:
    """A roster creation that did nothing is retried within the deadline."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        web.script.on("create", "roster/", refuse, times=3)
        assert (await writer.append(event("a"))).session == 1
