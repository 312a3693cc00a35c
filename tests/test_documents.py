"""The document store: what callers are told, at once and when it is settled; what is in the log; what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

import logstore
from logstore import Event, LogSettings, WriterSettings
from logstore.errors import (
    AlreadyExists,
    Conflict,
    InvalidArgument,
    InvalidCursor,
    LimitExceeded,
    LogStoreError,
    NotFound,
    Unavailable,
)
from logstore.event import LEVELS_MAX, Data
from logstore.filestore import MemoryStore
from projections import Collection, DocumentStore, Index, Rejected, View
from projections.document import Write
from tests.scene import Gate, Machine, Scene, directed, quick, refuse, until

DOC = Collection("Doc", indexes=[Index("project.id", "-at"), Index("status")])
SLOW = quick(follow_ms=60_000)  # nothing is polled but by a barrier


def never_below_zero(before: Data | None, after: Data | None) -> None:
    if after is not None and after.get("n", 0) < 0:
        raise Rejected("below zero")


GUARDED = Collection("Sum", guard=never_below_zero)


@asynccontextmanager
async def serving(
    machine: Machine, *collections: Collection, settings: LogSettings | None = None, writer: str | None = ""
) -> AsyncIterator[DocumentStore]:
    """A process that has a document store open."""
    name = machine.name if writer == "" else writer
    async with (
        machine.open(settings or quick()) as log,
        DocumentStore.open(log, writer=name, collections=collections or [DOC]) as db,
    ):
        yield db


@asynccontextmanager
async def several(
    scene: Scene, count: int, *collections: Collection, **arguments: Any
) -> AsyncIterator[list[DocumentStore]]:
    """So many processes, each with a clock of its own."""
    async with AsyncExitStack() as stack:
        machines = [scene.machine(f"web-{number}", **arguments) for number in range(count)]
        yield [await stack.enter_async_context(serving(machine, *collections)) for machine in machines]


async def fresh(scene: Scene, *collections: Collection) -> dict[str, dict[str, Any]]:
    """All documents of the first collection, as a process that begins now sees them."""
    machine = scene.machine(f"reader at {scene.loop.time()}")
    async with (
        machine.open(read_only=True) as log,
        DocumentStore.open(log, collections=collections or [DOC]) as db,
    ):
        page = db.collection((collections or [DOC])[0].kind).find()
        return {key: dict(document) for key, document in zip(page.keys, page.rows, strict=True)}


async def logged(scene: Scene) -> list[tuple[str, str, Any, Any]]:
    """Type, key, data and meta of all events there are, in total order."""
    async with scene.machine(f"reader at {scene.loop.time()}").open(read_only=True) as log:
        return [(each.type, each.key, each.data, each.meta) async for each in log.read()]


# What one caller sees


@directed
async def test_a_write_that_returned_is_in_the_callers_view(scene: Scene) -> None:
    """P9: created, changed, deleted: ``get``, ``in``, ``len``, ``find``, ``count`` and ``version`` show it at once."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc")
        await docs.create("d", {"status": 0, "a": {"b": 1, "c": 2}})
        first = docs.version("d")
        assert ("d" in docs, len(docs), docs.get("d")["status"]) == (True, 1, 0)
        await docs.update("d", {"status": 1, "a": {"b": None}})
        assert docs.get("d") == {"status": 1, "a": {"c": 2}}
        assert docs.version("d") != first
        assert docs.find([("status", "==", 1)]).keys == ["d"]
        assert docs.count([("status", "==", 0)]) == 0
        await docs.delete("d")
        assert ("d" in docs, len(docs), docs.find().keys) == (False, 0, [])
        for read in (docs.get, docs.version):
            with pytest.raises(NotFound, match=r"collection=Doc key='d'"):
                read("d")
        with pytest.raises(NotFound):
            docs.get("d", settled=True)
    assert await fresh(scene) == {}


@directed
async def test_documents_are_read_only(scene: Scene) -> None:
    """At any depth; and what a caller does later to what it gave away matters to nobody."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc")
        given: dict[str, Any] = {"a": {"b": [1]}}
        await docs.create("d", given)
        given["a"]["b"].append(2)
        for container in (docs.get("d"), docs.get("d")["a"], docs.find().rows[0]):
            with pytest.raises(TypeError):
                container["x"] = 1  # type: ignore[index]  # the mistake
        assert docs.get("d") == {"a": {"b": (1,)}}


@directed
async def test_what_can_be_seen_is_told_at_once_and_nothing_is_appended(scene: Scene) -> None:
    """AlreadyExists, NotFound, Conflict (version, clause, owner, guard), each naming the key."""
    owned = Collection("Sum", owners={"sync": "piped-*"}, guard=never_below_zero)
    async with serving(scene.machine("web"), owned) as db:
        sums = db.collection("Sum")
        receipt = await sums.create("s", {"n": 1})
        await receipt.settled(60)
        before = len(await logged(scene))
        refused: list[tuple[Callable[[], Awaitable[Any]], type[LogStoreError], str]] = [
            (lambda: sums.create("s", {"n": 2}), AlreadyExists, "update it"),
            (lambda: sums.create("t", {"n": -1}), Conflict, "below zero"),
            (lambda: sums.create("t", {"n": 1, "sync": 1}), Conflict, "sync is written by piped"),
            (lambda: sums.update("t", {"n": 2}), NotFound, "create it"),
            (lambda: sums.update("t", lambda doc: None), NotFound, "create it"),
            (lambda: sums.update("t", {"n": 2}, blind=True), NotFound, "create it"),
            (lambda: sums.update("s", {"n": -1}), Conflict, "below zero"),
            (lambda: sums.update("s", {"sync": {"x": 1}}), Conflict, "sync is written by piped"),
            (lambda: sums.update("s", {"n": 2}, if_version="9-99"), Conflict, "its version is"),
            (lambda: sums.update("s", {"n": 2}, when=[("n", ">", 1)]), Conflict, "n > 1"),
            (lambda: sums.delete("t"), NotFound, "create it"),
            (lambda: sums.delete("t", blind=True), NotFound, "create it"),
            (lambda: sums.delete("s", if_version="9-99"), Conflict, "its version is"),
            (lambda: sums.delete("s", when=[("n", ">", 1)]), Conflict, "n > 1"),
            (lambda: sums.modify("t", lambda doc: None), NotFound, "create it"),
        ]
        for call, error, message in refused:
            with pytest.raises(error, match=message) as caught:
                await call()
            assert "key='s'" in str(caught.value) or "key='t'" in str(caught.value)
        assert len(await logged(scene)) == before
        assert sums.get("s") == {"n": 1}


@directed
async def test_what_only_the_order_decides_settled_tells(scene: Scene) -> None:
    """Two act on what neither has seen of the other: the first in order is applied, the other is told why not."""
    async with several(scene, 2, DOC) as (one, other):
        ones, others = one.collection("Doc"), other.collection("Doc")
        made = await asyncio.gather(ones.create("d", {"by": 1}), others.create("d", {"by": 2}))
        told = await asyncio.gather(*(each.settled(60) for each in made), return_exceptions=True)
        assert sorted(map(repr, map(type, told))) == ["<class 'NoneType'>", "<class 'logstore.errors.AlreadyExists'>"]
        winner = told.index(None) + 1
        assert await fresh(scene) == {"d": {"by": winner}}
        await ones.view.refresh()
        await others.view.refresh()
        version = ones.version("d")
        assert version == others.version("d")
        receipts = await asyncio.gather(
            ones.update("d", {"a": 1}, if_version=version), others.update("d", {"b": 1}, if_version=version)
        )
        told = await asyncio.gather(*(each.settled(60) for each in receipts), return_exceptions=True)
        assert sorted(map(repr, map(type, told))) == ["<class 'NoneType'>", "<class 'logstore.errors.Conflict'>"]
        assert len((await fresh(scene))["d"]) == 2
        receipts = await asyncio.gather(ones.delete("d"), others.update("d", {"c": 1}))
        told = await asyncio.gather(*(each.settled(60) for each in receipts), return_exceptions=True)
        assert told[0] is None
        assert told[1] is None or isinstance(told[1], NotFound)
        assert await fresh(scene) == {}


@directed
async def test_a_settled_write_stays_as_it_was_told(scene: Scene) -> None:
    """``settled=True`` reads show it from then on, and asking again gives the same answer."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc")
        receipt = await docs.create("d", {"n": 1})
        for _ in range(2):
            await receipt.settled(60)
        assert docs.get("d", settled=True) == {"n": 1}
        later = await docs.update("d", {"n": 2})
        assert docs.get("d", settled=True) == {"n": 1}
        assert docs.find([("n", "==", 1)], settled=True).keys == ["d"]
        assert (docs.count([("n", "==", 2)]), docs.count([("n", "==", 2)], settled=True)) == (1, 0)
        await later.settled(60)
        assert docs.get("d", settled=True) == {"n": 2}


@directed
async def test_settled_says_when_it_took_too_long(scene: Scene) -> None:
    """TimeoutError; the write is there all the same."""
    web = scene.machine("web")
    async with serving(web) as db:
        receipt = await db.collection("Doc").create("d", {})
        web.script.on("create", "roster/", refuse, times=1_000)
        web.script.on("create", "log/", refuse, times=1_000)
        with pytest.raises((TimeoutError, Unavailable)):
            await receipt.settled(2)
        web.script.clear()
        await receipt.settled(60)


# Views that are behind


@directed
async def test_a_view_that_is_behind_refuses_nothing(scene: Scene) -> None:
    """What it shows wrongly, it looks at again before it says no: for each kind of write, blind ones too."""
    async with (
        serving(scene.machine("one"), settings=SLOW) as one,
        serving(scene.machine("other"), settings=SLOW) as other,
    ):
        ones, others = one.collection("Doc"), other.collection("Doc")
        await ones.create("d", {"n": 1})
        await others.update("d", {"n": 2}, blind=True)
        await ones.update("d", {"n": 3}, when=[("n", "==", 2)], blind=True)
        await others.delete("d", when=[("n", "==", 3)], blind=True)
        assert "d" in ones
        await ones.create("d", {"n": 4})
        await others.update("d", lambda doc: doc.update(n=5), blind=True)
        await ones.delete("d")
        assert "d" in others
        await others.create("d", {"n": 6})
    assert await fresh(scene) == {"d": {"n": 6}}


@directed
async def test_a_function_sees_what_was_acknowledged_anywhere_before_the_call(scene: Scene) -> None:
    """Without ``blind``: consecutive additions through alternating processes lose none."""
    async with several(scene, 3, DOC) as stores:
        await stores[0].collection("Doc").create("d", {"n": 0})
        for number in range(9):
            await stores[number % 3].collection("Doc").update("d", lambda doc: doc.update(n=doc["n"] + 1))
    assert await fresh(scene) == {"d": {"n": 9}}


SKEWS = [(-4_900, 4_900), (4_900, -4_900), (-1_900, 1_900)]


async def alternate(scene: Scene, skews: tuple[int, int], step_ms: int, *, blind: bool) -> bool:
    """One client, two servers whose clocks differ: is each of its updates there after the next?"""
    ahead, behind = (scene.machine(f"skew{skew}", skew_ms=skew) for skew in skews)
    async with serving(ahead, settings=SLOW) as one, serving(behind, settings=SLOW) as other:
        await one.collection("Doc").create("d", {"n": 0})
        await other.collection("Doc").update("d", {"n": -1})  # its session is open
        ahead.clock.step(step_ms)
        behind.clock.step(-step_ms)
        for number in range(1, 7):
            docs = (one, other)[number % 2].collection("Doc")
            await docs.update("d", {"n": number}, blind=blind)
            if await fresh(scene) != {"d": {"n": number}}:
                return False
    return True


@pytest.mark.parametrize("skews", SKEWS)
@pytest.mark.parametrize("step_ms", [0, 180_000])
def test_the_barrier_orders_what_one_client_does_through_several_processes(
    skews: tuple[int, int], step_ms: int
) -> None:
    """RFC 0009 §4: with clocks seconds apart, and set minutes apart since, the later of two updates is never lost."""

    @directed
    async def play(scene: Scene) -> None:
        assert await alternate(scene, skews, step_ms, blind=False)

    play()


@pytest.mark.parametrize("skews", [(-1_900, 1_900), (1_900, -1_900)])
def test_without_the_barrier_a_later_update_is_lost(skews: tuple[int, int]) -> None:
    """``blind`` skips it: so the test above can fail, and the docstring says for whom it is."""

    @directed
    async def play(scene: Scene) -> None:
        assert not await alternate(scene, skews, 0, blind=True)

    play()


@directed
async def test_a_clock_beyond_the_bound_writes_nothing(scene: Scene) -> None:
    """Minutes off when the session is opened: ClockSkew, and no event that would outlive all others."""
    async with serving(scene.machine("right")) as db:
        await db.collection("Doc").create("d", {"n": 0})
        wrong = scene.machine("wrong", skew_ms=240_000)
        async with serving(wrong) as other:
            with pytest.raises(logstore.ClockSkew):
                await other.collection("Doc").update("d", {"n": 1})
        await db.collection("Doc").update("d", {"n": 2})
    assert await fresh(scene) == {"d": {"n": 2}}


@directed
async def test_a_barrier_that_began_before_the_call_does_not_count(scene: Scene) -> None:
    """A call that comes while another's look is under way waits for a look of its own."""
    one, other = scene.machine("one"), scene.machine("other")
    async with serving(one, settings=SLOW) as first, serving(other, settings=SLOW) as second:
        docs, others = first.collection("Doc"), second.collection("Doc")
        await docs.create("d", {"n": 0})
        await others.update("d", {"n": 1})
        gate = Gate()
        one.script.on("get", "log/other/", gate.after)
        early = asyncio.create_task(docs.update("d", {"early": True}))
        await gate.met()  # its look has found nothing new
        await others.update("d", {"n": 5})
        late = asyncio.create_task(docs.update("d", lambda doc: doc.update(n=doc["n"] + 1)))
        await asyncio.sleep(0.1)
        gate.open()
        await asyncio.gather(early, late)
        assert docs.get("d") == {"n": 6, "early": True}


# Functions, types, metas


@directed
async def test_a_function_changes_a_copy_and_the_difference_is_the_patch(scene: Scene) -> None:
    """In the log stands what was changed and nothing else: also of nested maps, of lists, and of what was removed."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc")
        await docs.create("d", {"a": {"b": 1, "c": [1]}, "gone": 1, "kept": None})

        def change(document: Any) -> None:
            document["a"]["c"].append(2)
            del document["gone"]
            document["new"] = {"x": True}

        await docs.update("d", change, type="planned", meta={"actor": "ann"})
        await docs.update("d", lambda document: {**document, "a": {"b": 1.0}})
        await docs.update("d", lambda document: None)
        assert docs.get("d") == {"a": {"b": 1.0}, "kept": None, "new": {"x": True}}
        assert type(docs.get("d")["a"]["b"]) is float
    events = [(type_, data) for type_, _, data, _ in await logged(scene)]
    assert events[1:] == [
        ("planned", {"gone": None, "a": {"c": (1, 2)}, "new": {"x": True}}),
        ("updated", {"a": {"c": None, "b": 1.0}}),
        ("updated", {}),
    ]


@directed
async def test_an_event_carries_the_callers_type_and_meta(scene: Scene) -> None:
    """Beside what the fold needs, for create, update, delete, in collections of both sorts; "document" is ours."""
    unique = Collection("Doc", unique=True)
    for collection in (DOC, unique):
        async with serving(scene.machine(f"web {collection}"), collection, writer="web") as db:
            docs = db.collection("Doc")
            await (await docs.create("d", {}, type="born", meta={"actor": "ann"})).settled(60)
            await docs.update("d", {}, type="aged", meta={"actor": "bob"})
            await docs.delete("d", type="died", meta={"actor": "cid"})
            with pytest.raises(InvalidArgument, match="document"):
                await docs.create("e", {}, meta={"document": "mine"})
        events = (await logged(scene))[-3:]
        assert [(type_, meta["actor"], meta["document"]["do"]) for type_, _, _, meta in events] == [
            ("born", "ann", "create"),
            ("aged", "bob", "update"),
            ("died", "cid", "delete"),
        ]


@directed
async def test_a_function_that_fails_or_returns_nonsense_appends_nothing(scene: Scene) -> None:
    """Its exception is the caller's; what is no document is InvalidArgument: a lambda that pops, say."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc")
        await docs.create("d", {"n": 1})
        with pytest.raises(ZeroDivisionError):
            await docs.update("d", lambda document: document.update(n=1 / 0))
        changes: list[Callable[[Any], Any]] = [
            lambda document: document.pop("n"),
            lambda document: [document],
            lambda document: "text",
            lambda document: document.update(n=2**70),
            lambda document: document.update(n={1}),
        ]
        for change in changes:
            with pytest.raises(InvalidArgument):
                await docs.update("d", change)
        assert docs.get("d") == {"n": 1}
    assert len(await logged(scene)) == 1


# Whole changes: modify


@directed
async def test_modify_adds_up_exactly(scene: Scene) -> None:
    """As if nobody else did at the time: four processes add at once, again and again, and the sum is exact."""
    async with several(scene, 4, DOC) as stores:
        await stores[0].collection("Doc").create("d", {"n": 0})

        async def add(store: DocumentStore, times: int) -> None:
            for _ in range(times):
                await store.collection("Doc").modify("d", lambda doc: doc.update(n=doc["n"] + 1), attempts_max=50)

        await asyncio.gather(*(add(store, 4) for store in stores for _ in range(2)))
    assert await fresh(scene) == {"d": {"n": 32}}


@directed
async def test_modify_gives_up_and_says_so(scene: Scene) -> None:
    """Conflict after ``attempts_max``: a guard that never agrees; nothing has changed. NotFound where it is gone."""
    async with serving(scene.machine("web"), GUARDED) as db:
        sums = db.collection("Sum")
        await sums.create("s", {"n": 0})
        calls = 0

        def below(document: Any) -> None:
            nonlocal calls
            calls += 1
            document["n"] = -1

        with pytest.raises(Conflict, match="attempts=3"):
            await sums.modify("s", below, attempts_max=3)
        assert (calls, sums.get("s")) == (3, {"n": 0})
        await sums.delete("s")
        with pytest.raises(NotFound):
            await sums.modify("s", below)


@directed
async def test_an_invariant_within_one_document_holds_without_waiting(scene: Scene) -> None:
    """RFC 0009 §3: withdrawals by several processes, none of which sees the others', never overdraw."""
    balance = Collection("Sum", guard=lambda _, after: never_overdrawn(after))
    async with several(scene, 4, balance) as stores:
        await stores[0].collection("Sum").create("s", {"take": {}})
        receipts = await asyncio.gather(
            *(store.collection("Sum").update("s", {"take": {str(i): 1}}) for i, store in enumerate(stores))
        )
        told = await asyncio.gather(*(receipt.settled(60) for receipt in receipts), return_exceptions=True)
    assert sum(each is None for each in told) == 2
    assert sum(isinstance(each, Conflict) for each in told) == 2
    assert len((await fresh(scene, balance))["s"]["take"]) == 2


def never_overdrawn(after: Data | None) -> None:
    if after is not None and sum(after["take"].values()) > 2:
        raise Rejected("overdrawn")


@directed
async def test_conflicts_tell_every_write_that_changed_nothing(scene: Scene) -> None:
    """By anyone, once it is final, in order, from the call on; what is no write too."""
    async with serving(scene.machine("web"), GUARDED) as db, scene.machine("foreign").open(quick()) as log:
        sums = db.collection("Sum")
        await sums.create("s", {"n": 0})
        async with log.writer("foreign") as writer, aclosing(sums.conflicts()) as conflicts:
            await writer.append(Event("Sum", "s", "hacked", {"n": 5}))
            await writer.append(Event("Sum", "s", "x", {"n": -5}, Write("update").meta()))
            last = await writer.append(Event("Sum", "s", "y", {"n": 1}, Write("update").meta()))
            await log.settled(last, timeout=60)
            first, second = await anext(conflicts), await anext(conflicts)
        assert (first.type, first.writer, first.verdict) == (
            "hacked",
            "foreign",
            ("rejected", "not written by a document store"),
        )
        assert (second.type, second.verdict) == ("x", ("rejected", "below zero"))
        assert sums.get("s") == {"n": 1}


@directed
async def test_a_foreign_writers_events_corrupt_nothing(scene: Scene) -> None:
    """RFC 0009 §2: events of the kind without the store's meta are no-ops, deletions too; the view goes on."""
    async with serving(scene.machine("web"), settings=SLOW) as db, scene.machine("foreign").open(quick()) as log:
        docs = db.collection("Doc")
        await docs.create("d", {"n": 1})
        version = docs.version("d")
        deep: Any = 1
        for _ in range(LEVELS_MAX - 8):
            deep = [deep]
        async with log.writer("foreign") as writer:
            for meta in (
                None,
                {},
                {"document": {"do": "update", "schema": 1, "when": [["n", "==", deep]]}},
                {"document": {"do": "update", "schema": 1, "when": deep}},
                {"document": {"do": "create", "schema": 1, "claim": [0, 2**64 - 1, "x"]}},
                {"document": {"do": "delete", "schema": 1, "if_version": "1-00"}},
            ):
                for data in (None, {"n": 2}):
                    await writer.append(Event("Doc", "d", "hacked", data, meta))
        await docs.view.refresh()
        assert (docs.get("d"), docs.version("d"), docs.count()) == ({"n": 1}, version, 1)
        await docs.update("d", {"n": 3})
        assert docs.get("d") == {"n": 3}


# Limits of what can be stored


def nested(levels: int) -> Any:
    document: Any = {}
    for _ in range(levels - 1):
        document = {"x": document}
    return document


@pytest.mark.parametrize("unique", [False, True])
def test_a_document_that_cannot_be_a_row_is_refused_at_the_call(unique: bool) -> None:
    """Too deep, too big, or not storable: nothing is appended, nothing claimed, and the key stays free."""

    @directed
    async def play(scene: Scene) -> None:
        async with serving(scene.machine("web"), Collection("Doc", unique=unique)) as db:
            docs = db.collection("Doc")
            for document, error in [
                (nested(LEVELS_MAX), InvalidArgument),
                (nested(LEVELS_MAX + 1), InvalidArgument),
                ({"x": float("nan")}, InvalidArgument),
                ({1: 2}, InvalidArgument),
                ({"x": b"x" * (9 << 20)}, LimitExceeded),
            ]:
                with pytest.raises(error):
                    await docs.create("d", document)
            assert scene.store.keys("claims/") == []
            await (await docs.create("d", nested(LEVELS_MAX - 1))).settled(60)
            if not unique:
                with pytest.raises(InvalidArgument):
                    await docs.update("d", nested(LEVELS_MAX))
        assert len(await logged(scene)) == 1

    play()


BAD: list[tuple[str, dict[str, Any]]] = [
    ("find", {"where": "status"}),
    ("find", {"where": None}),
    ("find", {"where": {"status": 1}}),
    ("find", {"where": [("status", "==")]}),
    ("find", {"where": [("status", "~", 1)]}),
    ("find", {"where": [(5, "==", 1)]}),
    ("find", {"where": ["abc"]}),
    ("find", {"where": [("", "==", 1)]}),
    ("find", {"where": [("-status", "==", 1)]}),
    ("find", {"where": [("a..b", "==", 1)]}),
    ("find", {"order_by": "status"}),
    ("find", {"order_by": [5]}),
    ("find", {"order_by": ["--status"]}),
    ("find", {"order_by": [""]}),
    ("find", {"order_by": None}),
    ("find", {"limit": -1}),
    ("find", {"limit": "5"}),
    ("find", {"cursor": "nonsense"}),
    ("count", {"where": "status"}),
    ("explain", {"where": 5}),
    ("create", {"key": "k", "document": None}),
    ("create", {"key": "k", "document": [1]}),
    ("create", {"key": "k", "document": []}),
    ("create", {"key": "k", "document": "text"}),
    ("create", {"key": "", "document": {}}),
    ("create", {"key": 5, "document": {}}),
    ("create", {"key": "k" * 1_025, "document": {}}),
    ("create", {"key": "k", "document": {}, "type": ""}),
    ("create", {"key": "k", "document": {}, "type": 5}),
    ("create", {"key": "k", "document": {}, "meta": 5}),
    ("create", {"key": "k", "document": {}, "meta": ["a"]}),
    ("update", {"key": "d", "change": None}),
    ("update", {"key": "d", "change": [("n", 2)]}),
    ("update", {"key": "d", "change": "n"}),
    ("update", {"key": "d", "change": {"n": 2}, "when": "n == 1"}),
    ("update", {"key": "d", "change": {"n": 2}, "when": [("n", "~", 1)]}),
    ("update", {"key": "d", "change": {"n": 2}, "when": iter([("n", "==", 1)])}),
    ("update", {"key": "d", "change": {"n": 2}, "if_version": 1}),
    ("update", {"key": "d", "change": {"n": 2}, "meta": 5}),
    ("delete", {"key": "d", "when": "n == 1"}),
    ("delete", {"key": "d", "if_version": b"1-00"}),
]


@pytest.mark.parametrize(("method", "arguments"), BAD, ids=lambda each: str(each)[:60])
@pytest.mark.parametrize("unique", [False, True], ids=["shared", "unique"])
async def test_bad_arguments_are_named_and_change_nothing(method: str, arguments: dict[str, Any], unique: bool) -> None:
    """InvalidArgument (a cursor: InvalidCursor) at the call, in collections of both sorts; no claim, no event."""
    store = MemoryStore()
    async with (
        logstore.open(store) as log,
        DocumentStore.open(log, writer="web", collections=[Collection("Doc", unique=unique)]) as db,
    ):
        docs = db.collection("Doc")
        await docs.create("d", {"n": 1})
        names = [listed.key async for listed in store.list("")]

        async def call() -> None:
            answer = getattr(docs, method)(**arguments)
            if method in {"create", "update", "delete"}:
                await answer

        with pytest.raises((InvalidArgument, InvalidCursor)):
            await call()
        assert [listed.key async for listed in store.list("")] == names
        assert docs.find().rows == [{"n": 1}]


# Queries


@directed
async def test_documents_are_found_by_their_own_fields(scene: Scene) -> None:
    """Nested ones, in any order, page by page, by an index where one serves; a field named "doc" is just a field."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc")
        await asyncio.gather(
            *(
                docs.create(f"d-{n:02}", {"project": {"id": n % 2}, "at": n, "status": n % 3, "doc": {"at": -n}})
                for n in range(20)
            )
        )
        where = [("project.id", "==", 1), ("at", "<", 17)]
        first = docs.find(where, ["-at"], limit=3)
        assert first.keys == ["d-15", "d-13", "d-11"]
        assert [row["at"] for row in first.rows] == [15, 13, 11]
        second = docs.find(where, ["-at"], limit=9, cursor=first.cursor)
        assert second.keys == ["d-09", "d-07", "d-05", "d-03", "d-01"]
        assert second.cursor is None
        assert docs.find(order_by=["status", "-project.id", "at"], limit=2).keys == ["d-03", "d-09"]
        assert docs.find([("doc.at", "<=", -19)]).keys == ["d-19"]
        assert docs.find([("doc", "==", {"at": -3})]).keys == ["d-03"]
        assert docs.count(where) == 8
        assert docs.count([("status", "in", {0, 1})]) == 14
        index = docs.explain(where, ["-at"]).index
        assert index == Index("doc.project.id", "-doc.at")
        with pytest.raises(InvalidCursor):
            docs.find(where, ["at"], cursor=first.cursor)


# Models


@dataclass
class Stage:
    name: str
    status: int = 0


@dataclass
class Deployment:
    title: str
    stages: list[Stage] = field(default_factory=list)
    by_name: dict[str, Stage] = field(default_factory=dict)
    main: Stage | None = None
    tags: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    title: str
    state: dict[str, int] | None = None


@directed
async def test_a_model_leaves_alone_what_its_function_does(scene: Scene) -> None:
    """An optional field that others own, and have not written yet, does not stand against a change of another."""
    owned = Collection("Doc", owners={"state": "agent"})
    async with serving(scene.machine("web"), owned) as db:
        docs = db.collection("Doc", Report)
        await docs.create("d", {"title": "a"})

        def rename(report: Report) -> None:
            report.title = "b"

        await docs.update("d", rename)
        assert docs.get("d") == Report("b")


class Validated:
    """What pydantic's models have in common, as far as it matters here."""

    def __init__(self, n: int) -> None:
        self.n = n

    @classmethod
    def model_validate(cls, document: Any) -> Validated:
        assert type(document) is dict
        if not isinstance(document["n"], int):
            raise ValueError(f"n is no number: {document['n']!r}")
        return cls(document["n"])

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        assert mode == "json"
        return {"n": self.n}


@directed
async def test_documents_as_dataclasses(scene: Scene) -> None:
    """Nested, in lists and maps; written, read, found, changed by a function; and what it got is the caller's own."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc", Deployment)
        made = Deployment("a", [Stage("plan")], {"x": Stage("x", 1)}, Stage("main"), ["t"], {"k": [1]})
        await docs.create("d", made)
        assert docs.get("d") == made
        found: list[Any] = docs.find([("main.name", "==", "main")]).rows
        assert found == [made]

        def finish(deployment: Deployment) -> None:
            deployment.stages[0].status = 4
            deployment.by_name["y"] = Stage("y")
            deployment.tags.append("done")
            deployment.main = None

        await docs.update("d", finish)
        await docs.update("d", lambda deployment: Deployment(**{**vars(deployment), "title": "b"}))
        changed = docs.get("d")
        assert (changed.title, changed.stages, changed.tags) == ("b", [Stage("plan", 4)], ["t", "done"])
        assert (changed.by_name, changed.main) == ({"x": Stage("x", 1), "y": Stage("y")}, None)
        assert (await docs.modify("d", lambda deployment: None)) is not None
        changed.tags.append("only here")
        assert docs.get("d").tags == ["t", "done"]
        await docs.update("d", {"title": "c"})
        assert docs.get("d").title == "c"
    events = await logged(scene)
    assert events[2][2] == {"title": "b"}


@directed
async def test_documents_as_models_that_validate(scene: Scene) -> None:
    """Whatever has ``model_validate`` and ``model_dump``; it is given what it may keep."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc", Validated)
        await docs.create("d", Validated(1))

        def add(model: Validated) -> None:
            model.n += 1

        await docs.update("d", add)
        await docs.modify("d", lambda model: Validated(model.n + 1))
        assert docs.get("d").n == 3
        await docs.update("d", {"n": "text"})
        with pytest.raises(InvalidArgument, match=r"model=Validated cause=.*no number"):
            docs.get("d")


@directed
async def test_a_function_of_a_model_writes_what_it_changed_and_nothing_else(scene: Scene) -> None:
    """Neither the model's defaults, which may be another's fields, nor that it does not know a field: it stays."""
    owned = Collection("Doc", owners={"main": "piped-*"})
    async with serving(scene.machine("web"), owned) as db, serving(scene.machine("piped-1"), owned) as agent:
        docs = db.collection("Doc")
        await docs.create("d", {"title": "a", "n": 1, "newer": {"x": 1}})
        await db.collection("Doc", Validated).update("d", lambda model: Validated(model.n + 1))
        assert docs.get("d") == {"title": "a", "n": 2, "newer": {"x": 1}}
        await docs.create("e", {"title": "a"})
        deployments = db.collection("Doc", Deployment)
        await agent.collection("Doc").update("e", {"main": {"name": "m", "status": 1}})

        def rename(deployment: Deployment) -> None:
            deployment.title = "b"

        await docs.create("f", {"title": "a"})
        for key in "ef":
            await (await deployments.update(key, rename)).settled(60)
        assert docs.get("e") == {"title": "b", "main": {"name": "m", "status": 1}}
        assert docs.get("f") == {"title": "b"}


@directed
async def test_a_dataclass_of_an_older_release_works_on(scene: Scene) -> None:
    """What it does not know, at any depth, it does not see, and leaves alone; what it needs and lacks is told."""
    async with serving(scene.machine("web")) as db:
        docs, deployments = db.collection("Doc"), db.collection("Doc", Deployment)
        stored = {"title": "a", "newer": 1, "main": {"name": "m", "newer": 2}}
        await docs.create("d", stored)
        assert deployments.get("d") == Deployment("a", main=Stage("m"))

        def rename(deployment: Deployment) -> None:
            deployment.title = "b"

        await deployments.update("d", rename)
        assert docs.get("d") == {**stored, "title": "b"}
        await docs.create("e", {"title": "a", "main": {"status": 1}})
        with pytest.raises(InvalidArgument, match=r"model=Stage missing=\['name'\]"):
            deployments.get("e")


async def test_what_is_no_model_is_refused() -> None:
    """A plain class; and a kind that is not open."""
    async with (
        logstore.open(MemoryStore()) as log,
        DocumentStore.open(log, writer="web", collections=[DOC]) as db,
    ):
        for model in (int, object, MemoryStore):
            with pytest.raises(InvalidArgument, match="a model is"):
                db.collection("Doc", model)
        with pytest.raises(InvalidArgument, match="no such collection"):
            db.collection("Other")
        with pytest.raises(InvalidArgument):
            await db.collection("Doc", Deployment).create("d", 5)  # type: ignore[arg-type]  # the mistake


# Opening


@directed
async def test_a_store_without_a_writer_only_reads(scene: Scene) -> None:
    """Every write is InvalidArgument, whatever there is; nothing is written, not even where the log could."""
    async with serving(scene.machine("web")) as db:
        await db.collection("Doc").create("d", {"n": 1})
    reader = scene.machine("reader")
    async with (
        reader.open(read_only=True) as log,
        DocumentStore.open(log, collections=[DOC, Collection("U", unique=True)]) as db,
    ):
        for docs in (db.collection("Doc"), db.collection("U")):
            for write in (
                docs.create("e", {}),
                docs.update("d", {}) if docs is not db.collection("U") else docs.create("d", {}),
                docs.create("d", {}),
            ):
                with pytest.raises((InvalidArgument, NotFound)):
                    await write
        with pytest.raises(InvalidArgument, match="without a writer"):
            await db.collection("Doc").delete("d")
        with pytest.raises(InvalidArgument, match="without a writer"):
            await db.collection("Doc").modify("d", lambda document: None)
        assert db.collection("Doc").get("d") == {"n": 1}
    assert reader.script.count("create") == 0


async def test_a_store_is_opened_right_or_not_at_all() -> None:
    """Modes that are not there, a kind twice, collections before it was entered, a projection that cannot be."""
    async with logstore.open(MemoryStore()) as log:
        with pytest.raises(InvalidArgument, match="mode"):
            DocumentStore.open(log, collections=[DOC], mode="alone")  # type: ignore[arg-type]  # the mistake
        with pytest.raises(InvalidArgument, match="one kind"):
            DocumentStore.open(log, collections=[DOC, Collection("Doc", version=2)])
        db = DocumentStore.open(log, collections=[DOC])
        with pytest.raises(InvalidArgument, match="no such collection"):
            db.collection("Doc")


@directed
async def test_a_store_that_does_not_answer_is_unavailable(scene: Scene) -> None:
    """One error of the library, however many collections there are; and nothing is left running."""
    web = scene.machine("web")
    async with web.open(quick()) as log:
        web.script.on("get", "roster/", refuse, times=10_000)
        for collections in ([DOC], [DOC, GUARDED], [DOC, GUARDED, Collection("Third")]):
            with pytest.raises(Unavailable):
                async with DocumentStore.open(log, writer="web", collections=collections):
                    raise AssertionError("entered")


@directed
async def test_several_collections_are_apart(scene: Scene) -> None:
    """Equal keys in two kinds are two documents; one writer serves both."""
    async with serving(scene.machine("web"), DOC, GUARDED) as db:
        await db.collection("Doc").create("k", {"n": 1})
        await db.collection("Sum").create("k", {"n": 2})
        assert (db.collection("Doc").get("k"), db.collection("Sum").get("k")) == ({"n": 1}, {"n": 2})
        await db.collection("Sum").delete("k")
        assert "k" in db.collection("Doc")
    assert scene.bodies().count("Open") == 1


# Versions of a collection


@directed
async def test_a_higher_version_is_built_beside_the_old_one(scene: Scene) -> None:
    """Upcast from the log; old and new processes write at once; the old one takes what it understands."""

    def upcast(data: Data, version: int) -> Data:
        return {("name" if key == "title" else key): value for key, value in data.items()}

    old, new = Collection("Doc"), Collection("Doc", version=2, upcast=upcast, indexes=[Index("name")])
    async with serving(scene.machine("old"), old) as before:
        await before.collection("Doc").create("d", {"title": "a", "n": 1})
        async with serving(scene.machine("new"), new) as after:
            assert after.collection("Doc").find([("name", "==", "a")]).keys == ["d"]
            await before.collection("Doc").update("d", {"title": "b"})
            await after.collection("Doc").update("d", {"n": 2})
            await until(lambda: after.collection("Doc").get("d") == {"name": "b", "n": 2}, 60)
            await until(lambda: before.collection("Doc").get("d") == {"title": "b", "n": 2}, 60)
            await after.collection("Doc").create("e", {"name": "new"})
            await until(lambda: "e" in before.collection("Doc"), 60)
            assert before.collection("Doc").get("e") == {"name": "new"}


# What it costs


@directed
async def test_requests_are_as_the_docstrings_say(scene: Scene) -> None:
    """Reads: none. A write: one PUT. A barrier: a GET for each open session and the roster's; blind ones: none."""
    web, other = scene.machine("web"), scene.machine("other")
    async with serving(web, settings=patient()) as db, serving(other, settings=patient()) as second:
        docs = db.collection("Doc")
        await docs.create("d", {"n": 0})
        await second.collection("Doc").update("d", {"m": 0})
        await docs.view.refresh()

        async def asked(call: Callable[[], Awaitable[Any]]) -> tuple[int, int, int]:
            await asyncio.sleep(1)  # after a hit the follower looks again at once
            web.script.asked.clear()
            await call()
            count = web.script.count
            return count("create"), count("get"), count("list")

        async def reads() -> None:
            docs.get("d"), docs.version("d"), docs.find(), docs.count(), len(docs), "d" in docs

        assert await asked(reads) == (0, 0, 0)
        assert await asked(lambda: docs.create("e", {})) == (1, 0, 0)
        assert await asked(lambda: docs.update("d", {"n": 1}, blind=True)) == (1, 0, 0)
        assert await asked(lambda: docs.delete("e", blind=True)) == (1, 0, 0)
        sessions, roster_and_tail = 2, 3
        creates, gets, lists = await asked(lambda: docs.update("d", {"n": 2}))
        assert (creates, lists) == (1, 0)
        assert gets <= sessions + roster_and_tail
        creates, gets, lists = await asked(lambda: asyncio.gather(*(docs.update("d", {f"f{i}": 1}) for i in range(20))))
        assert (creates, lists) == (1, 0), "twenty callers share an append"
        assert gets <= 2 * (sessions + roster_and_tail), "and a barrier, or two"


def patient() -> LogSettings:
    """Sessions stay open, and nothing is polled."""
    return quick(writer=WriterSettings(idle_ms=600_000, idle_ms_max=600_000, tick_ms=600_000), follow_ms=600_000)


@directed
async def test_an_append_whose_view_fails_is_stored_all_the_same(scene: Scene) -> None:
    """The receipt is the truth; what is wrong with the view its next look tells."""
    web = scene.machine("web")
    async with serving(web) as db:
        docs = db.collection("Doc")
        docs.view._failure = Unavailable("broken for a test")
        receipt = await docs._append("d", Write("create"), "created", {"n": 1}, None)
        assert receipt.count == 1
        with pytest.raises(LogStoreError):
            await docs.view.refresh()
    assert await fresh(scene) == {"d": {"n": 1}}


@directed
async def test_a_view_of_the_past_has_the_documents_of_then(scene: Scene) -> None:
    """``Collection.fold()`` is the projection for ``View.open(at=)``."""
    async with serving(scene.machine("web")) as db:
        docs = db.collection("Doc")
        receipt = await docs.create("d", {"n": 1})
        await docs.update("d", {"n": 2})
        last = await docs.delete("d")
        await last.settled(60)
    async with (
        scene.machine("reader").open(read_only=True) as log,
        View.open(log, DOC.fold(), at=receipt.receipt.stamp) as past,
    ):
        row = past.get("d")
        assert row is not None
        assert row["doc"] == {"n": 1}
