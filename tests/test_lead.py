"""The lead over some kinds: one process at a time has it, whoever sleeps, dies, or is taken over. RFC 0011 §2.

What a leader was told about a commit must be what the log holds: acknowledged, it is there; Fenced or NotStored, it is
not and never will be. And whoever ``confirm`` told that it leads, led at some moment after it asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

import pytest

from logstore import Event, Log, LogSettings, Receipt, WriterSettings
from logstore.entry import Open
from logstore.errors import (
    Conflict,
    Fenced,
    InvalidArgument,
    LimitExceeded,
    LogStoreError,
    Unavailable,
    Unknown,
)
from logstore.lead import Lead
from logstore.testing.process import ProcessState
from logstore.writer import APPEND_EVENTS_MAX
from tests.scene import Carry, Gate, Scene, directed, hang, hang_after, lose, quick, refuse, until

T = TypeVar("T")
KIND: Final = "Account"
SEAL_S: Final = 1 + 4 * 1  # of quick(): the idle time and four creation deadlines
POLL_S: Final = 0.1
DEAF: Final = quick(follow_ms=600_000)  # learns of others by its own requests alone
GRACE_MS: Final = 40_000


def of(*keys: str, kind: str = KIND) -> list[Event]:
    return [Event(kind, key, "changed", {"id": key}) for key in keys]


class Leader:
    """A process that leads, or tries to, until it is told to end."""

    def __init__(
        self,
        scene: Scene,
        name: str,
        *,
        settings: LogSettings,
        kinds: Sequence[str],
        opening: dict[str, Any],
        how: dict[str, Any],
    ) -> None:
        self.scene = scene
        self.name = name
        self.machine = scene.machine(name)
        self.script = self.machine.script
        self._settings = settings
        self._kinds = kinds
        self._opening = opening
        self._how = how
        self._over = asyncio.Event()
        self.log: Log
        self.lead: Lead
        self._leads: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.life = asyncio.create_task(self._outlive())

    async def _outlive(self) -> None:
        """Seen from outside: a process that is killed ends, though nothing in it does."""
        life = self.machine.start(self._live())
        while not life.done() and self.machine.process.state is not ProcessState.CRASHED:
            await asyncio.wait([life], timeout=0.05)
        if life.done():
            await life

    async def _live(self) -> None:
        async with self.machine.open(self._settings, **self._opening) as self.log:
            self.lead = self.log.lead(self.name, self._kinds)
            try:
                await self.lead.acquire(**self._how)
            except Exception as error:  # noqa: BLE001 - whatever it was, the test wants to see it
                self._leads.set_exception(error)
                return
            self._leads.set_result(None)
            await self._over.wait()
            await self.lead.aclose()

    @property
    def leads(self) -> bool:
        return self._leads.done() and self._leads.exception() is None

    async def until_it_leads(self) -> None:
        await asyncio.shield(self._leads)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something in its process, so that pausing and killing it reaches it."""
        return self.machine.start(coroutine)

    def append(self, *keys: str) -> asyncio.Task[Receipt]:
        return self.run(self.lead.append(of(*keys)))

    def confirm(self) -> asyncio.Task[None]:
        return self.run(self.lead.confirm())

    async def end(self) -> None:
        if self.machine.process.state is not ProcessState.CRASHED:
            self.machine.process.resume()
        self._over.set()
        if not self._leads.done():
            self.machine.process.crash()
        async with asyncio.timeout(1_000):
            await self.life


class Troupe:
    """Those who lead in a scene, in the order of their coming; ended when the scene is over."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.members: list[Leader] = []

    def begin(
        self,
        name: str,
        *,
        settings: LogSettings | None = None,
        kinds: Sequence[str] = (KIND,),
        opening: dict[str, Any] | None = None,
        **how: Any,
    ) -> Leader:
        """Start a process that wants to lead."""
        leader = Leader(self.scene, name, settings=settings or quick(), kinds=kinds, opening=opening or {}, how=how)
        self.members.append(leader)
        return leader

    async def lead(self, name: str, **arguments: Any) -> Leader:
        """Start one, and wait until it leads."""
        leader = self.begin(name, **arguments)
        async with asyncio.timeout(1_000):
            await leader.until_it_leads()
        return leader


@asynccontextmanager
async def troupe(scene: Scene) -> AsyncIterator[Troupe]:
    made = Troupe(scene)
    try:
        yield made
    finally:
        for leader in made.members:
            await leader.end()


async def outcome(call: Awaitable[object]) -> str:
    """How a call ended: the name of its error, or "stored"."""
    try:
        await call
    except LogStoreError as error:
        return type(error).__name__
    return "stored"


def exclusive_entries(scene: Scene) -> list[tuple[str, bool]]:
    """(writer, valid) of each exclusive entry, in order."""
    opened = [entry for entry in scene.roster() if isinstance(entry.body, Open) and entry.body.exclusive]
    return [(entry.body.writer, entry.valid) for entry in opened if isinstance(entry.body, Open)]


# One at a time -----------------------------------------------------------------------------------


@directed
async def test_beside_a_healthy_leader_an_opener_is_refused(scene: Scene) -> None:
    """It gets Conflict, which says who leads; the leader goes on as if nothing had been."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        with pytest.raises(Conflict, match="writer=a"):
            await t.lead("b")
        await a.append("x")
        await a.confirm()
        assert scene.ids() == ["x"]
        assert exclusive_entries(scene) == [("a", True)]


@directed
async def test_an_opener_looks_once_however_often_the_lead_changes_meanwhile(scene: Scene) -> None:
    """Who leads after its look began then, so it is not silent: Conflict. Seeds 400205 and 813039 looked again."""
    async with troupe(scene) as t:
        a, c = await t.lead("a"), t.begin("c", standby=True)
        gate, b = Gate(), t.begin("b")
        b.script.on("list", "log/", gate.before)
        await gate.met()
        await a.end()
        await c.until_it_leads()
        gate.open()
        with pytest.raises(Conflict, match="writer=c"):
            await b.until_it_leads()
        assert b.script.count("list", "log/") == b.script.count("list", "roster/") == 1


@directed
async def test_an_opener_that_slept_a_seal_time_looks_again(scene: Scene) -> None:
    """Regression: it was told Conflict, and by whom: one who had led and died while it slept."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        await a.append("x")
        a.machine.process.crash()
        await asyncio.sleep(SEAL_S + 3)
        gate, b = Gate(), t.begin("b")
        b.script.on("create", "roster/", gate.before)
        await gate.met()  # it has looked, and sealed a: the tick above that
        b.machine.process.pause()
        c = await t.lead("c", takeover=True)
        c.machine.process.crash()
        await asyncio.sleep(60)
        gate.open()
        b.machine.process.resume()
        await b.until_it_leads()
        assert b.script.count("list", "log/") == 2


@directed
async def test_a_silent_leader_is_taken_over_by_an_opener_at_once(scene: Scene) -> None:
    """An opener finds it silent for its seal time, by the store's times, and leads without any wait."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        await a.append("x")
        a.machine.process.crash()
        await asyncio.sleep(SEAL_S - 2)
        with pytest.raises(Conflict):
            await t.lead("early")
        await asyncio.sleep(4)
        began_s = scene.loop.time()
        b = await t.lead("b")
        assert scene.loop.time() - began_s < 1
        await b.append("y")
        assert scene.ids() == ["x", "y"]


@directed
async def test_a_goodbye_lets_a_standby_in_within_a_poll(scene: Scene) -> None:
    """Whoever ends cleanly says so in its session: nobody waits for a seal time."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        b = t.begin("b", standby=True)
        await a.append("x")
        await asyncio.sleep(10)
        assert not b.leads
        began_s = scene.loop.time()
        await a.end()
        await b.until_it_leads()
        assert scene.loop.time() - began_s < 2 * POLL_S + 0.2
        await b.append("y")
        assert scene.ids() == ["x", "y"]


@directed
async def test_a_standby_leads_soon_after_the_leader_was_killed(scene: Scene) -> None:
    """Within the seal time, a random delay of a quarter of it, and what opening takes."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        b = t.begin("b", standby=True)
        await asyncio.sleep(3)
        assert await outcome(a.append("x")) == "stored"
        a.machine.process.crash()
        began_s = scene.loop.time()
        await b.until_it_leads()
        assert SEAL_S - 1 <= scene.loop.time() - began_s <= SEAL_S * 1.25 + 1
        await b.append("y")
        assert scene.ids() == ["x", "y"]


@directed
async def test_two_openers_at_once_and_three_standbys_at_once(scene: Scene) -> None:
    """Exactly one leads; of the openers the other is refused, and standbys follow one after the other."""
    async with troupe(scene) as t:
        openers = [t.begin("a"), t.begin("b")]
        ends = [await outcome(opener.until_it_leads()) for opener in openers]
        assert sorted(ends) == ["Conflict", "stored"]
        first = openers[ends.index("stored")]
        standbys = [t.begin(name, standby=True) for name in "cde"]
        await asyncio.sleep(5)
        assert not any(standby.leads for standby in standbys)
        await first.append("0")
        await first.end()
        waiting = list(standbys)
        for number in range(3):
            await until(lambda: any(standby.leads for standby in waiting), 60)
            await asyncio.sleep(20)
            [leader] = [standby for standby in waiting if standby.leads]
            await leader.append(str(number + 1))
            await leader.confirm()
            await leader.end()
            waiting.remove(leader)
        assert scene.ids() == ["0", "1", "2", "3"]
        assert all(valid for _, valid in exclusive_entries(scene))


@directed
async def test_kinds_that_are_led_in_other_sets_are_refused(scene: Scene) -> None:
    """A scope is a set of kinds, for ever: neither a part of it, nor more, nor another that overlaps, can be led."""
    async with troupe(scene) as t:
        a = await t.lead("a", kinds=("A", "B"))
        for kinds in ("A", "ABC", "BC"):
            with pytest.raises(InvalidArgument, match="together"):
                await t.lead("b", kinds=list(kinds), takeover=True)
        other = await t.lead("other", kinds=("C",))
        await a.run(a.lead.append(of("x", kind="A") + of("y", kind="B")))
        await other.run(other.lead.append(of("z", kind="C")))
        await a.end()
        with pytest.raises(InvalidArgument, match="together"):
            await t.lead("later", kinds=("A",))
        assert scene.ids() == ["x", "y", "z"]


@directed
async def test_a_leads_arguments(scene: Scene) -> None:
    """Nothing to lead, too much at once, nothing at all, before and after it leads: nothing is written."""
    async with scene.machine("a").open(quick()) as log:
        with pytest.raises(InvalidArgument):
            log.lead("a", [])
        lead = log.lead("a", [KIND])
        for call in (lead.append(of("x")), lead.confirm()):
            with pytest.raises(InvalidArgument, match="does not lead"):
                await call
        await lead.acquire()
        with pytest.raises(InvalidArgument):
            await lead.append([])
        with pytest.raises(LimitExceeded):
            await lead.append(of("x") * (APPEND_EVENTS_MAX + 1))
        with pytest.raises(LimitExceeded):
            await lead.append([Event(KIND, "x", "changed", {"id": "x", "big": b"x" * (5 << 20)})] * 2)
        with pytest.raises(InvalidArgument, match="once"):
            await lead.acquire()
        await lead.aclose()
        await lead.aclose()
        with pytest.raises(InvalidArgument, match="once"):
            await lead.acquire(standby=True)
        assert exclusive_entries(scene) == [("a", True)]
        for _ in range(5):
            again = log.lead("a", [KIND])
            await again.acquire()
            await again.aclose()
        assert len(log._leads) == 1
        with pytest.raises((InvalidArgument, Unavailable)):
            await lead.append(of("x"))
        assert scene.ids() == []
    async with scene.machine("b").open(read_only=True) as log:
        with pytest.raises(InvalidArgument, match="read-only"):
            log.lead("b", [KIND])


# Taken over --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b", "a"])
@directed
async def test_a_takeover_ends_a_healthy_leader_at_once(scene: Scene, name: str) -> None:
    """The old one is Fenced for all that comes, which is nowhere; whatever the new one is called."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        await a.append("x")
        began_s = scene.loop.time()
        b = await t.lead(name, takeover=True)
        assert scene.loop.time() - began_s < 1
        await b.append("y")
        assert await outcome(a.confirm()) == "Fenced"
        assert await outcome(a.append("z")) == "Fenced"
        with pytest.raises(Fenced):
            a.lead.require()
        await b.append("w")
        await asyncio.sleep(20)
        assert scene.ids() == ["x", "y", "w"]


@pytest.mark.parametrize("name", ["b", "a"])
@directed
async def test_a_takeover_of_a_busy_leader_comes_to_its_end(scene: Scene, name: str) -> None:
    """However fast it writes; each commit is either acknowledged and in the log, or Fenced and not in it."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        told: dict[str, str] = {}

        async def busy(caller: int) -> None:
            for number in range(2_000):
                key = f"{caller}.{number}"
                told[key] = await outcome(a.append(key))
                if told[key] != "stored":
                    return

        working = [asyncio.create_task(busy(caller)) for caller in range(3)]
        await asyncio.sleep(1)
        b = await t.lead(name, takeover=True)
        await asyncio.wait(working)
        await b.append("last")
        assert {"stored", "Fenced"} == set(told.values())
        await asyncio.sleep(10)
        assert sorted(scene.ids()) == sorted(["last", *(key for key, how in told.items() if how == "stored")])
        assert scene.ids()[-1] == "last"


@directed
async def test_whom_a_dead_usurper_succeeded_is_ended_by_who_comes_next(scene: Scene) -> None:
    """A usurper dies between its entry and its seal: the next leader ends both, or two would lead at once."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        await a.append("x")
        b = t.begin("b", takeover=True)
        b.script.on("create", "log/a/", hang, times=100)
        await until(lambda: len(exclusive_entries(scene)) == 2)
        await asyncio.sleep(0.1)
        b.machine.process.crash()
        assert await outcome(a.append("a still leads")) == "stored"
        c = await t.lead("c", takeover=True)
        await c.append("y")
        assert await outcome(a.confirm()) == "Fenced"
        assert await outcome(a.append("z")) == "Fenced"
        await c.confirm()
        assert scene.ids() == ["x", "a still leads", "y"]


@directed
async def test_who_stands_by_ends_whom_a_dead_usurper_succeeded(scene: Scene) -> None:
    """As before, by a standby, which waits for the usurper's seal time."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        b = t.begin("b", takeover=True)
        b.script.on("create", "log/a/", hang, times=100)
        await until(lambda: len(exclusive_entries(scene)) == 2)
        await asyncio.sleep(0.1)
        b.machine.process.crash()
        c = await t.lead("c", standby=True)
        await c.append("y")
        assert await outcome(a.confirm()) == "Fenced"
        assert await outcome(a.append("z")) == "Fenced"
        assert scene.ids() == ["y"]


@directed
async def test_a_chain_of_takeovers(scene: Scene) -> None:
    """Each ends the one before; only the last leads, and the log has what each acknowledged, in order."""
    async with troupe(scene) as t:
        leaders: list[Leader] = []
        for number in range(5):
            leaders.append(await t.lead(f"n{number}", takeover=number > 0, settings=DEAF))
            await leaders[-1].append(str(number))
        assert [await outcome(leader.confirm()) for leader in leaders] == ["Fenced"] * 4 + ["stored"]
        assert scene.ids() == ["0", "1", "2", "3", "4"]


@directed
async def test_two_usurpers_at_once(scene: Scene) -> None:
    """Both may come to lead, one after the other; only the last does in the end, and each knows what it is."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        await a.append("x")
        b, c = (t.begin(name, takeover=True, settings=DEAF) for name in "bc")
        ends = [await outcome(leader.until_it_leads()) for leader in (b, c)]
        assert "stored" in ends
        told = {
            leader.name: await outcome(leader.append(leader.name))
            for leader, end in zip((b, c), ends, strict=True)
            if end == "stored"
        }
        assert max(told.values()) == "stored"
        confirmed = [await outcome(leader.confirm()) for leader in (a, b, c) if leader.leads]
        assert confirmed.count("stored") == 1
        assert scene.ids() == ["x", *(name for name, how in told.items() if how == "stored")]


@directed
async def test_a_commit_under_way_at_a_takeover_that_lands_first_is_acknowledged(scene: Scene) -> None:
    """It won its slot, so the seal comes above it: the new leader has it, and the old one is told so."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        gate = Gate()
        a.script.on("create", "log/a/", gate.after)
        commit = a.append("x")
        await gate.met()
        b = await t.lead("b", takeover=True)
        gate.open()
        assert await outcome(commit) == "stored"
        assert await outcome(a.append("z")) == "Fenced"
        await b.append("y")
        assert scene.ids() == ["x", "y"]


@directed
async def test_a_commit_under_way_at_a_takeover_that_lands_too_late_is_fenced(scene: Scene) -> None:
    """The seal won its slot: Fenced, and it is not in the log."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        gate = Gate()
        a.script.on("create", "log/a/", gate.before)
        commit = a.append("x")
        await gate.met()
        b = await t.lead("b", takeover=True)
        gate.open()
        assert await outcome(commit) == "Fenced"
        await b.append("y")
        assert scene.ids() == ["y"]


# Being sure --------------------------------------------------------------------------------------


@directed
async def test_a_commit_that_landed_long_ago_says_nothing_of_who_leads_now(scene: Scene) -> None:
    """Its answer is late, a usurper sealed above it and serves: who asks now is told Fenced, not that it leads."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        gate = Gate()
        a.script.on("create", "log/a/", gate.after)
        commit = a.append("x")
        await gate.met()
        b = await t.lead("b", takeover=True)
        await b.append("y")
        assert await outcome(a.confirm()) == "Fenced"
        gate.open()
        assert await outcome(commit) == "stored"


@directed
async def test_confirming_while_a_commit_is_under_way(scene: Scene) -> None:
    """Landed or not, nobody has taken over: it leads, and says so without waiting for the commit."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        for act in ("before", "after"):
            gate = Gate()
            a.script.on("create", "log/a/", getattr(gate, act))
            commit = a.append(act)
            await gate.met()
            assert await outcome(a.confirm()) == "stored"
            assert not commit.done()
            gate.open()
            await commit


@directed
async def test_confirm_ends_when_the_lead_is_lost_meanwhile(scene: Scene) -> None:
    """The commit under way comes to nothing that is known while its object is looked at: the caller hears of it."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        a.script.on("create", "log/a/", hang_after, times=10)
        commit = a.append("x")
        await asyncio.sleep(1.8)  # two deadlines of a second, and it is given up
        gate = Gate()
        a.script.on("get", "log/a/", gate.after)
        confirming = a.confirm()
        assert await outcome(commit) == "Unknown"
        gate.open()
        async with asyncio.timeout(100):
            assert await outcome(confirming) == "Unavailable"


@directed
async def test_confirm_costs_one_get_and_is_shared(scene: Scene) -> None:
    """Calls that began before a request began share it; one that comes while it is under way gets the next."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        await a.append("x")
        await a.confirm()  # looked at the chapter
        asked = a.script.count("get")
        await a.confirm()
        assert a.script.count("get") == asked + 1
        gate = Gate()
        a.script.on("get", "log/a/", gate.before)
        first = a.confirm()
        await gate.met()
        others = [a.confirm() for _ in range(10)]
        await asyncio.sleep(0.01)
        gate.open()
        await asyncio.gather(first, *others)
        assert a.script.count("get") == asked + 3


@directed
async def test_confirm_that_was_under_way_at_a_takeover_does_not_answer_a_later_call(scene: Scene) -> None:
    """A request that began before the call proves nothing about the time after it."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        gate = Gate()
        a.script.on("get", "log/a/", gate.after)
        early = a.confirm()
        await gate.met()
        b = await t.lead("b", takeover=True)
        await b.append("y")
        late = a.confirm()
        await asyncio.sleep(0.01)
        gate.open()
        assert await outcome(late) == "Fenced"
        assert await outcome(early) in {"stored", "Fenced"}


@directed
async def test_confirm_is_unavailable_when_nobody_answers(scene: Scene) -> None:
    """Then nobody knows; the lead goes on, and the next call is told."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        rule = a.script.on("get", "log/a/", refuse, times=10_000)
        assert await outcome(a.confirm()) == "Unavailable"
        rule.times = 0
        await a.confirm()
        await a.append("x")


@directed
async def test_commits_cost_one_put_each_and_share_it(scene: Scene) -> None:
    """One segment is under way at a time, and holds all that came meanwhile."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        puts, gets = a.script.count("create"), a.script.count("get")
        await a.append("x")
        assert (a.script.count("create"), a.script.count("get")) == (puts + 1, gets)
        receipts = await asyncio.gather(*(a.append(str(number)) for number in range(50)))
        assert (a.script.count("create"), a.script.count("get")) == (puts + 2, gets)
        assert {receipt.slot for receipt in receipts} == {1}
        assert scene.ids() == ["x", *map(str, range(50))]


@directed
async def test_an_idle_leader_costs_two_puts_per_idle_time(scene: Scene) -> None:
    """An empty segment each half of it; nothing is asked, but by who follows."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        await a.append("x")
        before = len(a.script.asked)
        await asyncio.sleep(20)
        asked = [(verb, key) for verb, key in a.script.asked[before:] if "log/a/" in key]
        assert {verb for verb, _ in asked} == {"create"}
        assert 36 <= len(asked) <= 41


# Staying -----------------------------------------------------------------------------------------


@directed
async def test_a_quiet_leader_lives_and_lets_the_watermark_move(scene: Scene) -> None:
    """Nobody who follows seals it in minutes; and what somebody else appends is settled in a second or so."""
    async with troupe(scene) as t, scene.machine("web").open(quick()) as log, log.writer("web") as writer:
        a = await t.lead("a")
        standby = t.begin("b", standby=True)
        await asyncio.sleep(60)
        for number in range(3):
            receipt = await writer.append(Event("Thing", "t", "changed", {"id": f"w{number}"}))
            await log.settled(receipt, timeout=3)
            await asyncio.sleep(15)
        assert not standby.leads
        await a.append("x")
        await a.confirm()
        assert not [each for each in scene.segments("log/a/") if each.sealed]


OLD: Final = quick(writer=WriterSettings(idle_ms=1_000, idle_ms_max=2_000, session_age_ms_max=7_000))
BIG: Final = quick(writer=WriterSettings(idle_ms=1_000, idle_ms_max=2_000, session_bytes_max=2_000))


@pytest.mark.parametrize("settings", [OLD, BIG])
@directed
async def test_a_leader_rolls_over_and_goes_on(scene: Scene, settings: LogSettings) -> None:
    """At an age or a size it goes on in a new session; nobody gets in between, nothing is lost, no call fails."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=settings)
        t.begin("b", standby=True)
        for number in range(40):
            await asyncio.gather(a.append(str(number)), a.confirm())
            await asyncio.sleep(0.5)
        assert scene.ids() == list(map(str, range(40)))
        entries = exclusive_entries(scene)
        assert len(entries) > 2
        assert set(entries) == {("a", True)}


def holding(scene: Scene, gate: Gate, *, entries: int) -> Callable[[Carry], Awaitable[Any]]:
    """Requests wait before the gate while so many exclusive entries are there."""

    async def hold(carry: Carry) -> Any:
        return await (gate.before(carry) if len(exclusive_entries(scene)) == entries else carry())

    return hold


@pytest.mark.parametrize(("moment", "entries"), [("roster/", 1), ("log/a/", 2)])
@directed
async def test_a_takeover_while_the_leader_rolls_over(scene: Scene, moment: str, entries: int) -> None:
    """Before its entry or before its final: one leads in the end; what waits meanwhile is Fenced, and nowhere."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=replace(OLD, follow=DEAF.follow))
        await a.append("x")
        gate = Gate()
        a.script.on("create", moment, holding(scene, gate, entries=entries), times=10_000)
        await gate.met()
        waiting = a.append("y")
        b = await t.lead("b", takeover=True)
        await b.append("z")
        gate.open()
        assert await outcome(waiting) == "Fenced"
        assert await outcome(a.confirm()) == "Fenced"
        await b.confirm()
        assert scene.ids() == ["x", "z"]
        assert all(valid for _, valid in exclusive_entries(scene))


@directed
async def test_an_entry_of_another_scope_read_while_rolling_over_fences_nobody(scene: Scene) -> None:
    """Between its new entry and its new session a leader reads that others lead other kinds: what is that to it?"""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=OLD)
        await a.append("x")
        gate = Gate()
        a.script.on("create", "log/a/", holding(scene, gate, entries=2), times=10_000)
        await gate.met()
        other = await t.lead("other", kinds=("Other",))
        await asyncio.sleep(0.3)
        gate.open()
        await a.confirm()
        await a.append("y")
        await other.run(other.lead.append(of("z", kind="Other")))
        assert scene.ids() == ["x", "y", "z"]


@directed
async def test_confirm_waits_for_the_new_session_while_the_leader_rolls_over(scene: Scene) -> None:
    """Its own final says nothing of who leads; the new session does."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=OLD)
        await a.append("x")
        gate = Gate()

        async def hold(carry: Carry) -> Any:
            return await (gate.after(carry) if len(exclusive_entries(scene)) == 2 else carry())

        a.script.on("create", "log/a/", hold, times=10_000)
        await gate.met()
        confirming = a.confirm()
        await asyncio.sleep(0.1)
        assert not confirming.done()
        gate.open()
        await confirming
        await a.append("y")
        assert scene.ids() == ["x", "y"]


@directed
async def test_a_copy_of_a_leader_that_wrote_on_ends_it_as_it_rolls_over(scene: Scene) -> None:
    """A machine was cloned with the leader in it: it finds the other's commit where it wanted its final."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=replace(OLD, follow=DEAF.follow))

        async def meanwhile(carry: Carry) -> Any:
            if len(exclusive_entries(scene)) == 2 and not scene.ids():
                await scene.put_segment(*scene.session("a", 1), "of the copy")
            return await carry()

        a.script.on("create", "log/a/", meanwhile, times=10_000)
        await until(lambda: bool(scene.ids()), 30)
        await asyncio.sleep(1)
        assert await outcome(a.append("x")) == "Fenced"
        assert scene.ids() == ["of the copy"]


# A commit that nobody answered -------------------------------------------------------------------


async def goes_on(scene: Scene, a: Leader, *before: str) -> None:
    """It leads, and what it commits now is stored."""
    await a.confirm()
    await a.append("next")
    await asyncio.sleep(20)
    assert scene.ids() == [*before, "next"]


@directed
async def test_a_commit_whose_answer_was_lost_is_stored(scene: Scene) -> None:
    """Tried again it meets itself."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        a.script.on("create", "log/a/", lose)
        assert await outcome(a.append("x")) == "stored"
        await goes_on(scene, a, "x")


@directed
async def test_a_commit_that_never_landed_is_not_stored(scene: Scene) -> None:
    """Its own final took the slot: NotStored; the leader goes on in a new session."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        first = a.lead.address
        a.script.on("create", "log/a/", hang, times=2)
        told = await asyncio.gather(*(outcome(a.append(key)) for key in "xyz"))
        assert set(told) <= {"NotStored", "stored"}
        assert told[0] == "NotStored"
        stored = [key for key, how in zip("xyz", told, strict=True) if how == "stored"]
        await goes_on(scene, a, *stored)
        assert a.lead.address != first


@directed
async def test_a_commit_that_lands_after_its_final_is_not_stored(scene: Scene) -> None:
    """Late, it finds its slot taken by the final: NotStored was true and stays so."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        gate = Gate()
        a.script.on("create", "log/a/", gate.late_silent, times=2)
        assert await outcome(a.append("x")) == "NotStored"
        await a.append("x again")
        await gate.landed()
        await goes_on(scene, a, "x again")


@directed
async def test_a_commit_that_lands_before_its_final_is_stored(scene: Scene) -> None:
    """Given up, it landed all the same before the final did: stored, and the leader goes on in its session."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        first, gate = a.lead.address, Gate()

        async def after_it(carry: Carry) -> Any:
            await gate.landed()
            return await carry()

        a.script.on("create", "log/a/", gate.late_silent, times=2)
        a.script.on("create", "log/a/", after_it)
        assert await outcome(a.append("x")) == "stored"
        assert a.lead.address == first
        await goes_on(scene, a, "x")


@directed
async def test_a_commit_given_up_where_another_sealed_is_fenced(scene: Scene) -> None:
    """Another's final stands in its slot."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        a.script.on("create", "log/a/", hang, times=2)
        commit = a.append("x")
        await asyncio.sleep(0.2)
        b = await t.lead("b", takeover=True)
        assert await outcome(commit) == "Fenced"
        assert await outcome(a.append("y")) == "Fenced"
        await goes_on(scene, b)


@pytest.mark.parametrize("lands", [True, False])
@pytest.mark.parametrize("anew", [True, False])
@directed
async def test_a_commit_that_nobody_answers_is_unknown(scene: Scene, lands: bool, anew: bool) -> None:
    """Then this lead is over; ``resolve`` says how it ended, in any process, before or after another leads."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        await a.append("before")
        a.script.on("create", "log/a/", hang_after if lands else hang, times=1_000)
        with pytest.raises(Unknown) as unknown:
            await a.append("x")
        for call in (a.append("y"), a.confirm()):
            assert await outcome(call) == "Unavailable"
        await asyncio.sleep(20)
        if anew:
            b = await t.lead("b")
            await b.append("z")
        async with scene.machine("asker").open(quick()) as log:
            asked = [await outcome(log.resolve(unknown.value.token)) for _ in range(2)]
        assert asked == ["stored" if lands else "NotStored"] * 2
        assert scene.ids() == ["before"] + ["x"] * lands + ["z"] * anew


@directed
async def test_a_heartbeat_that_never_lands_loses_nothing(scene: Scene) -> None:
    """The leader ends its session there, and goes on in a new one."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        await a.append("x")
        a.script.on("create", "log/a/", hang, times=2)
        await asyncio.sleep(5)
        assert exclusive_entries(scene) == [("a", True)] * 2
        await goes_on(scene, a, "x")


@directed
async def test_an_opening_whose_entry_was_answered_late(scene: Scene) -> None:
    """Its answer lost it leads; given up, whoever comes later waits for the seal time of a leader that never was."""
    async with troupe(scene) as t:
        b = t.begin("b")
        await asyncio.sleep(0)
        b.script.on("create", "roster/", lose, skip=1)  # after the chapter's beginning
        await b.until_it_leads()
        await b.append("x")
        await b.end()
        c = t.begin("c")
        await asyncio.sleep(0)
        c.script.on("create", "roster/", hang_after, times=100)
        assert await outcome(c.until_it_leads()) == "Unavailable"
        assert exclusive_entries(scene) == [("b", True), ("c", True)]
        assert await outcome(t.lead("d")) == "Conflict"
        e = await t.lead("e", standby=True)
        await e.append("y")
        assert scene.ids() == ["x", "y"]


@directed
async def test_appends_that_wait_for_room_when_the_lead_is_lost_are_fenced(scene: Scene) -> None:
    """Back-pressure ends with the lead: nobody is left waiting."""
    settings = quick(writer=WriterSettings(idle_ms=1_000, idle_ms_max=2_000, buffer_events_max=2))
    async with troupe(scene) as t:
        a = await t.lead("a", settings=replace(settings, follow=DEAF.follow))
        gate = Gate()
        a.script.on("create", "log/a/", gate.before)
        commits = [a.append(str(number)) for number in range(10)]
        await gate.met()
        await t.lead("b", takeover=True)
        gate.open()
        assert [await outcome(commit) for commit in commits] == ["Fenced"] * 10
        assert scene.ids() == []


@directed
async def test_closing_commits_what_was_asked_for(scene: Scene) -> None:
    """What was called before ``aclose`` is answered; ``aclose`` in trouble ends all the same."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        commits = [a.append(str(number)) for number in range(5)]
        await asyncio.sleep(0)
        await a.run(a.lead.aclose())
        assert [await outcome(commit) for commit in commits] == ["stored"] * 5
        b = await t.lead("b")
        b.script.on("create", "log/b/", hang, times=1_000)
        async with asyncio.timeout(30):
            await b.end()
        assert scene.ids() == list("01234")


# Asleep ------------------------------------------------------------------------------------------


@directed
async def test_a_leader_that_slept_while_a_standby_took_over(scene: Scene) -> None:
    """SIGSTOP, SIGCONT: whatever it tries then is Fenced, and what it had acknowledged is there."""
    async with troupe(scene) as t:
        a = await t.lead("a")
        b = t.begin("b", standby=True)
        await a.append("x")
        a.machine.process.pause()
        await b.until_it_leads()
        await b.append("y")
        a.machine.process.resume()
        calls = [a.confirm(), a.append("z"), a.confirm()]
        assert [await outcome(call) for call in calls] == ["Fenced"] * 3
        await goes_on(scene, b, "x", "y")


@directed
async def test_a_leader_that_slept_and_was_sealed_by_who_only_reads(scene: Scene) -> None:
    """Nobody else leads, yet its session is ended: Fenced, and it can be opened again."""
    async with troupe(scene) as t, scene.machine("reader").open(quick()) as log:
        a = await t.lead("a", settings=DEAF)
        await a.append("x")
        a.machine.process.pause()
        await asyncio.sleep(SEAL_S + 2)
        assert [sealing.sealed for sealing in await log.seal()] == [True]
        a.machine.process.resume()
        assert await outcome(a.append("y")) == "Fenced"
        b = await t.lead("b")
        await goes_on(scene, b, "x")


async def collect(scene: Scene, t: Troupe) -> None:
    """Somebody takes over and ends; then its chapter is closed, retired, and deleted a grace later."""
    b = await t.lead("b", opening=DROPPING, takeover=True)
    await b.append("y")
    await b.end()
    async with scene.machine("keeper").open(quick(), **DROPPING) as log:
        assert await log.close_chapter()
    await scene.retire(0)
    await asyncio.sleep(1.1 * GRACE_MS / 1_000)
    assert scene.collect(0)


DROPPING: Final[dict[str, Any]] = {"history": "drop", "grace_ms": GRACE_MS}


@pytest.mark.parametrize("asks", ["confirm", "append", "heartbeat"])
@directed
async def test_a_leader_that_wakes_after_its_seal_was_collected(scene: Scene, asks: str) -> None:
    """DESIGN §6: its next slot is absent, and that says nothing: Fenced, whatever it tries first."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF, opening=DROPPING)
        await a.append("x")
        a.machine.process.pause()
        await collect(scene, t)
        c = await t.lead("c", opening=DROPPING)
        a.machine.process.resume()
        if asks == "heartbeat":
            await asyncio.sleep(5)
        else:
            assert await outcome(a.confirm() if asks == "confirm" else a.append("z")) == "Fenced"
        with pytest.raises(Fenced):
            a.lead.require()
        for call in (a.append("w"), a.confirm()):
            assert await outcome(call) == "Fenced"
        await c.confirm()


@directed
async def test_a_commit_found_in_a_collected_chapter_does_not_prove_the_lead(scene: Scene) -> None:
    """Sent after the call it won its slot, of a session that was over long ago."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=replace(DEAF, writer=WriterSettings(idle_ms=2_000)), opening=DROPPING)
        await a.append("x")
        a.machine.process.pause()
        await collect(scene, t)
        asking, answering = Gate(), Gate()
        a.script.on("get", "log/a/", asking.before)
        a.script.on("create", "log/a/", answering.after)
        confirming = a.confirm()  # before anything that is late in that process
        a.machine.process.resume()
        await answering.met()
        asking.open()
        assert await outcome(confirming) == "Fenced"
        answering.open()


@directed
async def test_a_commit_that_lands_in_a_collected_chapter_is_fenced(scene: Scene) -> None:
    """It won its slot, of a session that was over long ago."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF, opening=DROPPING)
        await a.append("x")
        gate = Gate()
        a.script.on("create", "log/a/", gate.before, times=100)
        commit = a.append("z")
        await gate.met()
        a.machine.process.pause()
        await collect(scene, t)
        gate.open()
        await asyncio.sleep(1)
        a.machine.process.resume()
        assert await outcome(commit) == "Fenced"
        assert await outcome(a.confirm()) == "Fenced"


@directed
async def test_a_commit_that_landed_before_its_chapter_was_collected_is_stored(scene: Scene) -> None:
    """Its answer was lost; asleep for a grace, its own final then wins the empty slot: the record knows better."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF, opening=DROPPING)
        await a.append("x")
        a.script.on("create", "log/a/", hang_after, times=2)
        commit = a.append("z")
        await asyncio.sleep(0.3)
        a.machine.process.pause()
        await collect(scene, t)
        a.machine.process.resume()
        assert await outcome(commit) == "stored"
        assert await outcome(a.append("w")) == "Fenced"
        assert await outcome(a.confirm()) == "Fenced"


@directed
async def test_a_rolling_over_leader_that_slept_until_its_chapter_was_collected(scene: Scene) -> None:
    """It finds that another entry succeeded its own, though that chapter is gone."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=replace(OLD, follow=DEAF.follow), opening=DROPPING)
        await a.append("x")
        a.machine.process.pause()
        await collect(scene, t)
        a.machine.process.resume()
        await asyncio.sleep(5)
        assert await outcome(a.append("w")) == "Fenced"


# Nobody listens ----------------------------------------------------------------------------------


@directed
async def test_whoever_is_cancelled_leaves_no_complaint(scene: Scene) -> None:
    """Confirming, or committing: what comes of it afterwards, an error too, is nobody's."""
    async with troupe(scene) as t:
        a = await t.lead("a", settings=DEAF)
        asked, sent = Gate(), Gate()
        a.script.on("get", "log/a/", asked.before)
        calls = [a.confirm(), a.confirm()]
        await asked.met()
        calls.append(a.confirm())
        a.script.on("create", "log/a/", sent.before)
        commit = a.append("x")
        await sent.met()
        await asyncio.sleep(0.01)
        for call in (*calls, commit):
            call.cancel()
        await asyncio.wait([*calls, commit])
        await t.lead("b", takeover=True)
        asked.open()
        sent.open()
        await asyncio.sleep(5)
        assert scene.ids() == []
        with pytest.raises(Fenced):
            a.lead.require()
