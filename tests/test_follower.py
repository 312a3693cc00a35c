"""Following: what is stored and then what comes, once, in order, cheaply, through outages, and never in silence."""

from __future__ import annotations

import asyncio
import random

import pytest

from logstore import (
    Corrupt,
    FollowSettings,
    Log,
    LogSettings,
    Missing,
    Reader,
    Unavailable,
    WriterSettings,
)
from logstore.filestore.base import Blob
from logstore.follower import LOCAL, REMOTE
from logstore.keys import entry_key
from tests.scene import Carry, Machine, Scene, directed, event, events, hang, moved_by, quick, read, refuse, take

ALWAYS = 10**9


async def note(reader: Reader, seen: list[str]) -> None:
    async for each in reader:
        seen.append(each.key)  # noqa: PERF401  one by one: others look at it meanwhile


# What it yields -------------------------------------------------------------------------------


@directed
async def test_history_first_and_then_what_comes(scene: Scene) -> None:
    """There is no gap and no overlap between what was stored when following began and what came then."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer, scene.machine("reader").open() as other:
        for i in range(20):
            await writer.append(event(f"e{i:03}"))
        seen: list[str] = []
        following = asyncio.create_task(note(other.follow(), seen))
        for i in range(20, 200):
            await writer.append(event(f"e{i:03}"))
        await asyncio.sleep(2)
        assert seen == [f"e{i:03}" for i in range(200)]
        following.cancel()


@directed
async def test_moves_are_told_and_nothing_is_read_for_them(scene: Scene) -> None:
    """Whatever is new is told, to who begins at the tail; and a reader that begins later on that log misses nothing."""
    async with scene.machine("web").open() as log, log.writer("web") as writer, scene.machine("looker").open() as other:
        for i in range(200):
            await writer.append(event(f"e{i:03}"))
        moves = other.moves()
        await anext(moves)  # now it looks
        moved = asyncio.ensure_future(anext(moves))
        await asyncio.sleep(3)
        assert not moved.done()
        assert other.requests().get.requests < 50
        await writer.append(event("e200"))
        await asyncio.wait_for(moved, 3)
        assert await take(other.follow(), 201) == [f"e{i:03}" for i in range(201)]
        await moves.aclose()


@directed
async def test_an_unsettled_follower_has_events_within_a_poll(scene: Scene) -> None:
    """What another process stored is there after a poll and a GET or two, settled or not."""
    settings = LogSettings(follow=FollowSettings(poll_ms_min=100, poll_ms_max=100))
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("first"))
        async with scene.machine("reader").open(settings) as other:
            reader = other.follow()
            assert await take(reader, 1) == ["first"]
            for i in range(20):
                await asyncio.sleep(0.37)
                await writer.append(event(f"e{i}"))
                began_s = scene.loop.time()
                assert await take(reader, 1) == [f"e{i}"]
                assert scene.loop.time() - began_s < 0.15


@directed
async def test_a_settled_follower_yields_the_total_order_as_the_watermark_moves(scene: Scene) -> None:
    """Several writers at once: what each settled follower yields, whenever it came, is the one order of the log."""
    rng = random.Random(7)

    async def work(name: str) -> None:
        machine = scene.machine(name, skew_ms=rng.randint(-900, 900))
        async with machine.open(quick(writer=WriterSettings(idle_ms=300, idle_ms_max=300))) as log:
            for i in range(4):
                async with log.writer(name) as writer:
                    for j in range(5):
                        await writer.append_many(events(f"{name}.{i}.{j}.a", f"{name}.{i}.{j}.b"))
                        await asyncio.sleep(rng.choice([0, 0.05, 0.4]))

    async with scene.machine("one").open(quick()) as one, scene.machine("two").open(quick()) as two:
        seen: list[list[str]] = [[], [], []]
        following = [asyncio.create_task(note(one.follow(settled=True), seen[0]))]
        working = [asyncio.create_task(work(f"w{i}")) for i in range(3)]
        await asyncio.sleep(1)
        following.append(asyncio.create_task(note(two.follow(settled=True), seen[1])))
        following.append(asyncio.create_task(note(one.follow(settled=True), seen[2])))
        await asyncio.gather(*working)
        await asyncio.sleep(15)
        for each in following:
            each.cancel()
    assert seen == [scene.ids()] * 3
    assert len(seen[0]) == 120


@directed
async def test_followers_at_different_places_each_see_everything_after_it(scene: Scene) -> None:
    """One follower serves readers at all positions, of all kinds, early and late, ahead of it and behind."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer, scene.machine("reader").open() as other:
        positions = []
        reader = log.read()
        for i in range(10):
            await writer.append(event(f"e{i}", "even" if i % 2 == 0 else "odd"))
            reader = log.read()
            async for _ in reader:
                pass
            positions.append(moved_by(reader.position))
        seen: list[list[str]] = [[] for _ in range(11)]
        following = [asyncio.create_task(note(other.follow(after=positions[i]), seen[i])) for i in (9, 0, 5)]
        await asyncio.sleep(3)
        following.append(asyncio.create_task(note(other.follow(after=positions[3], kinds=["odd"]), seen[3])))
        await writer.append(event("e10", "even"))
        await writer.append(event("e11", "odd"))
        await asyncio.sleep(3)
        for each in following:
            each.cancel()
    assert seen[0] == [f"e{i}" for i in range(1, 12)]
    assert seen[5] == [f"e{i}" for i in range(6, 12)]
    assert seen[9] == ["e10", "e11"]
    assert seen[3] == ["e5", "e7", "e9", "e11"]


@directed
async def test_a_position_ahead_of_the_follower_yields_nothing_twice(scene: Scene) -> None:
    """A reader that starts beyond where the log's follower has got waits for it, and does not go back."""
    web, slow = scene.machine("web"), scene.machine("slow")
    async with web.open() as log, log.writer("web") as writer, slow.open(quick(follow_ms=5_000)) as other:
        await writer.append(event("a"))
        first: list[str] = []
        following = [asyncio.create_task(note(other.follow(), first))]
        await asyncio.sleep(1)
        for key in "bcd":
            await writer.append(event(key))
        reader = log.read()
        async for _ in reader:
            pass
        ahead: list[str] = []
        following.append(asyncio.create_task(note(other.follow(after=moved_by(reader.position)), ahead)))
        await asyncio.sleep(1)
        await writer.append(event("e"))
        await asyncio.sleep(12)
        assert (first, ahead) == (["a", "b", "c", "d", "e"], ["e"])
        for each in following:
            each.cancel()


@directed
async def test_a_slow_consumer_with_little_memory_loses_nothing(scene: Scene) -> None:
    """Nothing is queued for it: what memory no longer holds is fetched again when the consumer gets there."""
    web, slow = scene.machine("web"), scene.machine("slow")
    async with web.open() as log, log.writer("web") as writer, slow.open(LogSettings(memory_bytes_max=5_000)) as other:
        seen: list[str] = []

        async def consume() -> None:
            async for each in other.follow():
                seen.append(each.key)
                await asyncio.sleep(0.05)

        consuming = asyncio.create_task(consume())
        for i in range(200):
            await writer.append(event(f"e{i:03}"))
        await asyncio.sleep(30)
        assert seen == [f"e{i:03}" for i in range(200)]
        consuming.cancel()


@directed
async def test_the_position_of_a_follower_resumes_in_another_process(scene: Scene) -> None:
    """After every event, settled or not: another process goes on exactly there (monotonic reads, P9)."""
    async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        for i in range(12):
            await writer.append_many(events(f"e{i}.0", f"e{i}.1"))
    for settled in (False, True):
        position = None
        seen = []
        for i in range(24):
            async with scene.machine(f"reader {settled} {i}").open() as other:
                reader = other.follow(after=position, settled=settled)
                seen += await take(reader, 1)
                position = moved_by(reader.position)
        assert seen == [f"e{i}.{j}" for i in range(12) for j in range(2)]


# Interrupted ----------------------------------------------------------------------------------


@directed
async def test_giving_up_on_a_step_does_not_end_the_following(scene: Scene) -> None:
    """A caller that waits for the next event with a timeout goes on with the same reader; nothing is lost or twice."""
    async with scene.machine("web").open() as log, log.writer("web") as writer, scene.machine("r").open() as other:
        reader = other.follow()
        await writer.append(event("a"))
        assert await take(reader, 1) == ["a"]
        for i in range(5):
            with pytest.raises(TimeoutError):
                await take(reader, 1, timeout=0.5)
            await writer.append_many(events(f"b{i}", f"c{i}"))
            assert await take(reader, 2) == [f"b{i}", f"c{i}"]


@directed
async def test_giving_up_on_a_step_at_any_moment_loses_nothing(scene: Scene) -> None:
    """Wherever in its work a reader is interrupted: iterated again, it yields exactly the rest."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        for i in range(30):
            await writer.append_many(events(f"e{i:02}.0", f"e{i:02}.1"))
    rng = random.Random(8)
    for settled in (False, True):
        async with scene.machine(f"r{settled}").open(LogSettings(memory_bytes_max=1)) as other:
            reader = other.follow(settled=settled)
            seen: list[str] = []
            while len(seen) < 60:
                try:
                    async with asyncio.timeout(rng.uniform(0.0001, 0.03)):
                        await note(reader, seen)
                except TimeoutError:
                    continue
            assert seen == [f"e{i:02}.{j}" for i in range(30) for j in range(2)]


@directed
async def test_an_outage_is_waited_out(scene: Scene) -> None:
    """While the store is away followers wait; when it is back they go on, with nothing said to their readers."""
    reader = scene.machine("reader")
    async with scene.machine("web").open() as log, log.writer("web") as writer, reader.open() as other:
        seen: list[str] = []
        following = asyncio.create_task(note(other.follow(), seen))
        await writer.append(event("a"))
        await asyncio.sleep(2)
        for act in (refuse, hang):
            reader.script.on("get", "", act, times=ALWAYS)
            await asyncio.sleep(60)
            await writer.append(event(f"during {act.__name__}"))
            await asyncio.sleep(60)
            assert not following.done()
            reader.script.clear()
            await asyncio.sleep(30)
        assert seen == ["a", "during refuse", "during hang"]
        following.cancel()


@directed
async def test_leaving_the_log_ends_those_who_follow(scene: Scene) -> None:
    """Nobody is left waiting for a log that is closed: they get Unavailable."""
    async with scene.machine("web").open() as log:
        following = [asyncio.create_task(take(log.follow(settled=settled), 1)) for settled in (False, True)]
        await asyncio.sleep(1)
    async with asyncio.timeout(30):
        results = await asyncio.gather(*following, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]


@directed
async def test_damage_reaches_every_reader_and_is_not_survived_in_silence(scene: Scene) -> None:
    """What polling cannot heal ends all followings with its own error; a new one meets it again."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        async with scene.machine("reader").open() as other:
            following = [asyncio.create_task(take(other.follow(settled=s), 9)) for s in (False, True, False)]
            await asyncio.sleep(1)
            await scene.world.create(scene.slot("web", 1, 1), b"rubbish")
            async with asyncio.timeout(30):
                results = await asyncio.gather(*following, return_exceptions=True)
            assert [type(result) for result in results] == [Corrupt] * 3
            with pytest.raises(Corrupt):
                await take(other.follow(), 9)


@directed
async def test_following_goes_on_once_the_damage_is_repaired(scene: Scene) -> None:
    """An object that was lost and is restored: the same log can follow again, from where it was."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        for key in "abcdefg":
            await writer.append(event(key))
    name = scene.slot("web", 1, 2)
    lost = scene.store.contents()[name]
    scene.store.lose(name)
    async with scene.machine("reader").open() as other:
        reader = other.follow()
        with pytest.raises(Missing, match=name):
            await take(reader, 7)
        await scene.world.create(name, lost)
        assert await take(other.follow(after=reader.position), 5) == ["c", "d", "e", "f", "g"]


# Polling --------------------------------------------------------------------------------------


def polls(scene: Scene, process: str, since: int) -> list[float]:
    """When a process asked for a roster entry, in virtual seconds."""
    asked = scene.store.requests[since:]
    return [r.sent_s for r in asked if r.process == process and r.key.startswith("roster/")]


@directed
async def test_polling_backs_off_while_idle_and_is_eager_after_a_hit(scene: Scene) -> None:
    """Pauses grow from the least to the most while nothing comes; a hit starts them anew."""
    settings = LogSettings(follow=FollowSettings(poll_ms_min=10, poll_ms_max=250))
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        async with scene.machine("reader").open(settings) as other:
            reader = other.follow()
            await take(reader, 1)
            waiting = asyncio.create_task(take(reader, 1))
            await asyncio.sleep(5)
            since = len(scene.store.requests)
            await asyncio.sleep(10)
            idle = polls(scene, "reader", since)
            assert 38 <= len(idle) <= 52
            await writer.append(event("b"))
            await waiting
            since = len(scene.store.requests)
            waiting = asyncio.create_task(take(reader, 1))
            await asyncio.sleep(0.25)
            assert len(polls(scene, "reader", since)) >= 5
            waiting.cancel()


def test_the_defaults_are_what_design_says() -> None:
    """10 ms to 250 ms locally, 500 ms to 2 s elsewhere."""
    assert (LOCAL.poll_ms_min, LOCAL.poll_ms_max) == (10, 250)
    assert (REMOTE.poll_ms_min, REMOTE.poll_ms_max) == (500, 2_000)


@directed
async def test_many_followers_share_the_polls(scene: Scene) -> None:
    """Fifty readers of one log cost the requests of one."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        costs = []
        for count in (1, 50):
            async with scene.machine(f"r{count}").open() as other:
                readers = [other.follow(settled=i % 2 == 1) for i in range(count)]
                following = [asyncio.create_task(take(reader, 9)) for reader in readers]
                await asyncio.sleep(5)
                before = other.requests()
                await asyncio.sleep(20)
                await writer.append(event(f"b{count}"))
                await asyncio.sleep(20)
                costs.append((other.requests() - before).get.requests)
                for each in following:
                    each.cancel()
        assert costs[1] <= costs[0] * 1.1 + 5


@directed
async def test_an_idle_follower_notices_a_hole_at_its_end_within_a_minute_or_so(scene: Scene) -> None:
    """It polls for n; n was lost and n+1 is there: the look at what lies beyond finds it out."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        reader = scene.machine("reader")
        async with reader.open() as other:
            following = reader.start(take(other.follow(), 9, timeout=1_000))
            await asyncio.sleep(5)
            lost = entry_key(0, scene.roster()[-1].number + 1)
            reader.process.pause()
            async with scene.machine("two").open() as two:
                for key in "bc":
                    await two.writer(key).append(event(key))
            scene.store.lose(lost)
            reader.process.resume()
            with pytest.raises(Missing, match=lost):
                async with asyncio.timeout(150):
                    await following


# Barriers -------------------------------------------------------------------------------------


async def follower_of(log: Log) -> asyncio.Task[list[str]]:
    following = asyncio.create_task(take(log.follow(), ALWAYS, timeout=10_000))
    await asyncio.sleep(1)
    return following


@directed
async def test_a_refresh_holds_everything_acknowledged_before_it(scene: Scene) -> None:
    """A barrier waits for a round that began after it: what anybody was told before the call is within the frontier."""
    reader = scene.machine("reader")
    async with scene.machine("web").open() as log, reader.open(quick(follow_ms=60_000)) as other:
        following = await follower_of(other)
        follower = other.follower
        assert follower is not None
        async with log.writer("web") as writer:
            for i in range(10):
                receipt = await writer.append(event(f"e{i}"))
                began_s = scene.loop.time()
                await follower.refresh()
                assert scene.loop.time() - began_s < 1
                session = follower.frontier.sessions[receipt.chapter, receipt.session]
                assert session.tip.slot > receipt.slot
        following.cancel()


@directed
async def test_refreshes_at_the_same_time_share_a_round(scene: Scene) -> None:
    """A hundred callers cost about what one costs."""
    async with scene.machine("web").open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        async with scene.machine("reader").open(quick(follow_ms=60_000)) as other:
            following = await follower_of(other)
            follower = other.follower
            assert follower is not None
            costs = []
            for count in (1, 100):
                before = other.requests()
                await asyncio.gather(*(follower.refresh() for _ in range(count)))
                costs.append((other.requests() - before).requests)
            assert costs[0] <= 6
            assert costs[1] <= 2 * costs[0]
            following.cancel()


@directed
async def test_a_refresh_without_a_store_says_so(scene: Scene) -> None:
    """An unanswered barrier is Unavailable within the deadline; the next one succeeds when the store is back."""
    reader = scene.machine("reader")
    async with scene.machine("web").open() as log, log.writer("web") as writer, reader.open(quick()) as other:
        await writer.append(event("a"))
        following = await follower_of(other)
        follower = other.follower
        assert follower is not None
        reader.script.on("get", "", hang, times=ALWAYS)
        with pytest.raises(Unavailable):
            async with asyncio.timeout(30):
                await follower.refresh()
        reader.script.clear()
        await follower.refresh()
        assert await read(other) == ["a"]
        following.cancel()


@directed
async def test_a_refresh_ends_beside_many_busy_writers(scene: Scene) -> None:
    """Regression: it waited for a round that found nothing at all, which never comes where enough others write."""
    reader, ended = scene.machine("reader"), asyncio.Event()
    writing = [machine.start(write_until(ended, machine)) for machine in map(scene.machine, "abcdefgh")]
    async with scene.machine("web").open() as log, log.writer("web") as writer, reader.open(quick()) as other:
        following = await follower_of(other)
        follower = other.follower
        assert follower is not None
        for i in range(3):
            receipt = await writer.append(event(f"e{i}"))
            async with asyncio.timeout(1):
                await follower.refresh()
            assert follower.frontier.holds(receipt.chapter, receipt.session, receipt.slot)
        ended.set()
        await asyncio.gather(*writing)
        following.cancel()


@directed
async def test_a_refresh_ends_though_a_session_is_written_faster_than_it_is_read(scene: Scene) -> None:
    """Regression: likewise; such a session is measured once, and read to there."""
    reader, web, ended = scene.machine("reader"), scene.machine("web"), asyncio.Event()

    async def slow(carry: Carry) -> Blob:
        await asyncio.sleep(0.2)
        blob: Blob = await carry()
        return blob

    writing = web.start(write_until(ended, web))
    await asyncio.sleep(1)
    async with reader.open(quick()) as other:
        following = await follower_of(other)
        follower = other.follower
        assert follower is not None
        reader.script.on("get", "log/", slow, times=ALWAYS)
        await asyncio.sleep(5)
        stored = scene.session("web", 1)[1].slot
        assert follower.frontier.sessions[0, 1].tip.slot < stored
        async with asyncio.timeout(60):
            await follower.refresh()
        assert follower.frontier.sessions[0, 1].tip.slot >= stored
        assert not writing.done()
        ended.set()
        await writing
        following.cancel()


async def write_until(ended: asyncio.Event, machine: Machine) -> None:
    """One event after the other, without a pause."""
    async with machine.open() as log, log.writer(machine.name) as writer:
        number = 0
        while not ended.is_set():
            await writer.append(event(f"{machine.name}{number}"))
            number += 1


@directed
async def test_what_a_failed_round_left_under_way_concludes_nothing(scene: Scene) -> None:
    """An answer that comes after its round has failed is no end for the next one: a refresh would return too early."""
    async with (
        scene.machine("a").open() as one,
        one.writer("a") as writer,
        scene.machine("reader").open(quick(follow_ms=60_000)) as log,
    ):
        await writer.append(event("a0"))
        following = asyncio.create_task(take(log.follow(), 2))
        await asyncio.sleep(1)
        follower = log.follower
        assert follower is not None
        await follower.refresh()
        (session,) = follower.frontier.sessions.values()
        follower._ended, follower._roster_ended = set(), False
        assert await follower._fetch_segments(session, session.tip.slot) == ([], True)
        assert await follower._fetch_entries(*follower.frontier.next_address) == ([], True)
        assert (follower._ended, follower._roster_ended) == (set(), False)
        following.cancel()
