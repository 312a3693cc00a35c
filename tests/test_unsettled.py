"""Creations whose fate is unclear: what the caller learns is the truth, and one copy or none is left.

Returned = stored. NotStored = never. Unknown = could not be found out, and ``log.resolve`` finds out later.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from logstore import (
    InvalidArgument,
    Log,
    LogSettings,
    Missing,
    NotStored,
    Receipt,
    Unavailable,
    Unknown,
    Writer,
    WriterSettings,
)
from logstore.testing.simulation import Weather
from tests.scene import (
    Act,
    Carry,
    Gate,
    Machine,
    Scene,
    directed,
    event,
    hang,
    hang_after,
    lose,
    opened_by,
    read,
    refuse,
)

ALWAYS = 10**9
ATTEMPTS = 8  # of RetrySettings


async def in_flight(writer: Writer, *keys: str) -> list[asyncio.Task[Receipt]]:
    """Append one event after the other, each in a segment of its own."""
    calls = []
    for key in keys:
        calls.append(asyncio.create_task(writer.append(event(key))))
        await asyncio.sleep(0.05)
    return calls


async def outcome(call: Awaitable[Receipt]) -> str:
    """What a caller is told."""
    try:
        await call
    except (NotStored, Unknown) as error:
        return type(error).__name__
    return "stored"


async def unknown_of(call: Awaitable[Receipt]) -> Unknown:
    with pytest.raises(Unknown) as raised:
        await call
    return raised.value


# One copy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("act", "times"), [(lose, 1), (lose, 5), (hang_after, 1)])
@directed
async def test_a_lost_answer_after_landing_is_stored_exactly_once(scene: Scene, act: Act, times: int) -> None:
    """The creation took effect and its answer got lost: the retry finds its own object, and that is success."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        rule = web.script.on("create", scene.slot("web", 1, 1), act, times=times)
        receipt = await writer.append(event("b"))
        assert (receipt.slot, rule.met) == (1, times)
        assert (await writer.append(event("c"))).slot == 2
        assert await read(log) == ["a", "b", "c"]


@pytest.mark.parametrize("act", [refuse, hang], ids=["refused", "silent"])
@directed
async def test_what_was_refused_or_timed_out_is_tried_again(scene: Scene, act: Act) -> None:
    """A creation that did nothing is retried within the deadline; the caller waits and learns nothing of it."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", "log/", act, times=1)
        assert (await writer.append(event("b"))).slot == 1
        assert writer.statistics().sessions_opened == 1


@directed
async def test_a_creation_that_lands_between_two_attempts_is_one_copy(scene: Scene) -> None:
    """The first attempt lands late, just before the second: AlreadyExists with our own bytes is success."""
    web = scene.machine("web")
    gate = Gate()

    async def land_first(carry: Carry) -> Any:
        await gate.landed()
        return await carry()

    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", "log/", gate.late)
        web.script.on("create", "log/", land_first)
        assert (await writer.append(event("b"))).slot == 1
        assert await read(log) == ["a", "b"]


# Giving up: the slot is sealed ----------------------------------------------------------------


@directed
async def test_giving_up_on_a_slot_gives_up_all_later_ones(scene: Scene) -> None:
    """Slots above a final are void: flights behind the one given up are NotStored too, though they landed."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", scene.slot("web", 1, 1), refuse, times=ATTEMPTS)
        calls = await in_flight(writer, "b", "c", "d")
        assert scene.slot("web", 1, 3) in scene.store.contents()
        assert [await outcome(call) for call in calls] == ["NotStored"] * 3
        await writer.append(event("e"))
        assert await read(log) == ["a", "e"]


@directed
async def test_what_is_still_buffered_is_not_given_up(scene: Scene) -> None:
    """Events that were never sent go into the next session as if nothing had happened."""
    web = scene.machine("web")
    async with web.open(LogSettings(writer=WriterSettings(flights=1))) as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", scene.slot("web", 1, 1), refuse, times=ATTEMPTS)
        calls = await in_flight(writer, "b", "c")
        assert [await outcome(call) for call in calls] == ["NotStored", "stored"]
        assert await read(log) == ["a", "c"]


@directed
async def test_the_own_object_found_when_sealing_is_stored(scene: Scene) -> None:
    """All answers got lost, but one attempt had landed: the seal meets it, and the events are stored."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", scene.slot("web", 1, 1), lose, times=1)
        web.script.on("create", scene.slot("web", 1, 1), refuse, times=ATTEMPTS - 1)
        calls = await in_flight(writer, "b", "c")
        assert [await outcome(call) for call in calls] == ["stored", "stored"]
        assert (await writer.append(event("d"))).slot == 3
        assert writer.statistics().sessions_opened == 1
        assert await read(log) == ["a", "b", "c", "d"]


@directed
async def test_an_attempt_that_lands_just_before_the_seal_is_stored(scene: Scene) -> None:
    """Create-if-absent decides between a late landing and the seal; whoever was first is the truth."""
    web = scene.machine("web")
    gate = Gate()

    async def land_first(carry: Carry) -> Any:
        await gate.landed()
        return await carry()

    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", scene.slot("web", 1, 1), gate.late, times=ATTEMPTS)
        web.script.on("create", scene.slot("web", 1, 1), land_first)
        assert (await writer.append(event("b"))).slot == 1
        assert await read(log) == ["a", "b"]


@directed
async def test_a_seal_whose_answer_is_lost_is_still_a_seal(scene: Scene) -> None:
    """The answer to the seal gets lost as well: found under its name it is ours, and the events are NotStored."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", scene.slot("web", 1, 1), refuse, times=ATTEMPTS)
        web.script.on("create", scene.slot("web", 1, 1), lose, times=1)
        with pytest.raises(NotStored):
            await writer.append(event("b"))
        assert await read(log) == ["a"]


@directed
async def test_no_open_entry_means_not_stored(scene: Scene) -> None:
    """When no session can be opened nothing was ever sent: NotStored, and the next append tries again."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        web.script.on("create", "roster/", hang, times=ALWAYS)
        with pytest.raises(NotStored):
            await writer.append(event("a"))
        web.script.clear()
        await writer.append(event("b"))
        assert await read(log) == ["b"]


@directed
async def test_an_open_entry_whose_answer_is_lost_is_used(scene: Scene) -> None:
    """The entry landed, the answer did not arrive: found under its number with our nonce, it is our session."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        web.script.on("create", "roster/0000000000/0000000001", lose, times=1)
        assert (await writer.append(event("a"))).session == 1
    assert len(opened_by(scene.roster(), "web")) == 1


# Unknown --------------------------------------------------------------------------------------


async def become_unknown(web: Machine, log: Log, writer: Writer, act: Act, *keys: str) -> list[Unknown]:
    """Append with a store that never answers, until the writer gives up altogether; then the store is back."""
    web.script.on("create", "log/", act, times=ALWAYS)
    calls = await in_flight(writer, *keys)
    unknowns = [await unknown_of(call) for call in calls]
    web.script.clear()
    return unknowns


@directed
async def test_no_answer_at_all_is_unknown_and_nothing_is_cleaned_up(scene: Scene) -> None:
    """Neither events nor seal got an answer: Unknown in bounded time; nothing is deleted, the writer goes on."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        began_s = scene.loop.time()
        (unknown,) = await become_unknown(web, log, writer, hang, "b")
        assert scene.loop.time() - began_s < 25
        assert scene.slot("web", 1, 1) in str(unknown)
        assert "\n" not in unknown.token
        after = await writer.append(event("c"))
        assert (after.session > 1, after.slot) == (True, 0)
        assert writer.statistics().events_unknown == 1
        assert web.script.count("delete", "log/") == 0
        assert await read(log) == ["a", "c"]


@pytest.mark.parametrize("by_token", [False, True], ids=["error", "token"])
@directed
async def test_resolve_finds_what_landed(scene: Scene, by_token: bool) -> None:
    """It had landed all the time: any process learns so, and gets the receipt; the readers have it."""
    web, other = scene.machine("web"), scene.machine("other")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        (unknown,) = await become_unknown(web, log, writer, hang_after, "b")
    async with other.open() as log:
        receipt = await log.resolve(unknown.token if by_token else unknown)
        assert (receipt.writer, receipt.session, receipt.slot, receipt.count) == ("web", 1, 1, 1)
        stored = [each async for each in log.read()]
        assert [(each.key, each.seq, each.stamp) for each in stored if each.key == "b"] == [
            ("b", receipt.first_seq, receipt.stamp)
        ]
        assert await log.resolve(unknown) == receipt


@directed
async def test_resolve_after_a_late_landing_says_stored(scene: Scene) -> None:
    """It lands long after the writer gave up and before anybody asks: stored, exactly once."""
    web, other = scene.machine("web"), scene.machine("other")
    gate = Gate()
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        (unknown,) = await become_unknown(web, log, writer, gate.late_silent, "b")
        await writer.append(event("c"))
    await gate.landed()
    async with other.open() as log:
        assert (await log.resolve(unknown)).slot == 1
        assert sorted(await read(log)) == ["a", "b", "c"]


@directed
async def test_two_processes_that_resolve_at_once_agree(scene: Scene) -> None:
    """Their seals race, and the landing with them: all are told the same."""
    machines = [scene.machine(f"m{i}") for i in range(4)]
    web = scene.machine("web")
    gates = [Gate() for _ in range(12)]
    unknowns = []
    async with web.open() as log:
        for i, gate in enumerate(gates):
            async with log.writer(f"w{i}") as writer:
                await writer.append(event(f"a{i}"))
                unknowns += await become_unknown(web, log, writer, gate.late_silent, f"b{i}")
    for i, (gate, unknown) in enumerate(zip(gates, unknowns, strict=True)):

        async def ask(machine: Machine, unknown: Unknown = unknown) -> str:
            async with machine.open() as log:
                return await outcome(log.resolve(unknown))

        asking = [asyncio.create_task(ask(machine)) for machine in machines]
        await asyncio.sleep(random.Random(i).uniform(0, 0.03))
        gate.open()
        told = await asyncio.gather(*asking)
        assert len(set(told)) == 1, f"seed {i}"
        assert (f"b{i}" in scene.ids()) == (told[0] == "stored")


@directed
async def test_resolve_of_a_later_slot_heeds_the_gap_below_it(scene: Scene) -> None:
    """Slot 2 landed but slot 1 never did: nothing above the gap counts, whichever is asked for first."""
    for first in (0, 1):
        web = scene.machine(f"web{first}")
        name = f"web{first}"
        async with web.open() as log, log.writer(name) as writer:
            receipt = await writer.append(event(f"a{first}"))
            web.script.on("create", scene.slot(name, receipt.session, 2), hang_after)
            web.script.on("create", "log/", hang, times=ALWAYS)
            calls = await in_flight(writer, f"b{first}", f"c{first}")
            unknowns = [await unknown_of(call) for call in calls]
            web.script.clear()
        assert scene.slot(name, receipt.session, 2) in scene.store.contents()
        async with scene.machine(f"other{first}").open() as log:
            for which in (first, 1 - first):
                with pytest.raises(NotStored):
                    await log.resolve(unknowns[which])
            assert await read(log, kinds=["Thing"]) == [f"a{i}" for i in range(first + 1)]


@directed
async def test_resolve_never_seals_over_a_lost_object(scene: Scene) -> None:
    """A slot below that was acknowledged and is gone is damage: Missing, and no seal to void what lies above."""
    web, other = scene.machine("web"), scene.machine("other")
    async with web.open() as log, log.writer("web") as writer:
        for key in "abcdef":
            await writer.append(event(key))
        (unknown,) = await become_unknown(web, log, writer, hang_after, "g")
    lost = scene.slot("web", 1, 2)
    scene.store.lose(lost)
    async with other.open() as log:
        with pytest.raises(Missing, match=lost):
            await log.resolve(unknown)
    assert lost not in scene.store.contents()


@directed
async def test_resolve_can_be_asked_again_when_the_store_was_away(scene: Scene) -> None:
    """Without an answer it raises Unavailable, never a guess; asked again it tells the truth."""
    web, other = scene.machine("web"), scene.machine("other")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        (unknown,) = await become_unknown(web, log, writer, hang, "b")
    async with other.open() as log:
        other.script.on("create", "log/", hang, times=ALWAYS)
        with pytest.raises(Unavailable):
            await log.resolve(unknown)
        other.script.clear()
        other.script.on("create", "log/", lose)
        with pytest.raises(NotStored):
            await log.resolve(unknown)


@directed
async def test_resolve_refuses_what_is_no_question(scene: Scene) -> None:
    """A token cut short, of another kind, or none at all is an argument error; a read-only log resolves nothing."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        receipt = await writer.append(event("a"))
        (unknown,) = await become_unknown(web, log, writer, hang, "b")
        for text in ("", "unknown-", unknown.token[:-3], str(receipt), unknown.token.replace("unknown", "receipt")):
            with pytest.raises(InvalidArgument):
                await log.resolve(text)
    async with scene.machine("other").open(read_only=True) as log:
        with pytest.raises(InvalidArgument):
            await log.resolve(unknown)


@directed
async def test_closing_while_the_store_is_away_ends_in_bounded_time(scene: Scene) -> None:
    """A writer that closes with flights that get no answer tells its callers Unknown and stops."""
    web = scene.machine("web")
    async with web.open() as log:
        writer = log.writer("web")
        await writer.append(event("a"))
        web.script.on("create", "", hang, times=ALWAYS)
        calls = await in_flight(writer, "b", "c")
        async with asyncio.timeout(60):
            await writer.aclose()
        assert [await outcome(call) for call in calls] == ["Unknown", "Unknown"]
        web.script.clear()


@directed
async def test_a_cancelled_creation_that_landed_is_not_sent_twice(scene: Scene) -> None:
    """Cancelling the callers does not cancel the flight: it is retried, found, and counted once."""
    web = scene.machine("web")
    async with web.open() as log, log.writer("web") as writer:
        await writer.append(event("a"))
        web.script.on("create", "log/", hang_after)
        doomed = asyncio.create_task(writer.append(event("doomed")))
        await asyncio.sleep(1)
        doomed.cancel()
        assert (await writer.append(event("b"))).slot == 2
        assert await read(log) == ["a", "doomed", "b"]


@pytest.mark.parametrize("seed", range(6))
@directed
async def test_in_any_weather_every_caller_learns_the_truth(scene: Scene, seed: int) -> None:
    """However the network misbehaves, what was returned is there once, what was refused is not and never will be."""
    rng = random.Random(seed)
    web = scene.machine("web")
    told: dict[str, str] = {}
    unknowns: dict[str, Unknown] = {}
    ask: Callable[[float], Awaitable[None]] = asyncio.sleep
    async with web.open(LogSettings(writer=WriterSettings(flights=3))) as log, log.writer("web") as writer:
        web.face.weather = Weather(throttled=0.1, unsent=0.1, lost=0.15, late=0.15, silent=0.1, late_ms=30_000)

        async def append(key: str) -> None:
            await ask(rng.uniform(0, 60))
            try:
                await writer.append(event(key))
                told[key] = "stored"
            except NotStored:
                told[key] = "not stored"
            except Unknown as error:
                unknowns[key] = error

        await asyncio.gather(*(append(f"e{i:03}") for i in range(120)))
        web.face.weather = Weather()
    await asyncio.sleep(60)
    async with scene.machine("other").open() as log:
        for key, unknown in unknowns.items():
            told[key] = "stored" if await outcome(log.resolve(unknown)) == "stored" else "not stored"
        stored = await read(log)
    assert sorted(stored) == sorted(key for key, what in told.items() if what == "stored"), f"seed {seed}"
    assert len(told) == 120
