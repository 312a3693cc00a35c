"""Transactions of a leader: all or nothing, serializable, in the order of their commits. RFC 0011 §3."""

# ruff: noqa: PT012 - a transaction raises where it is left

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Final

import pytest

from logstore import Event, LogSettings, Receipt, RetrySettings
from logstore.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    InvalidArgument,
    LimitExceeded,
    LogStoreError,
    NotFound,
    NotStored,
    Unavailable,
)
from logstore.event import LEVELS_MAX, Data
from logstore.writer import APPEND_EVENTS_MAX
from projections import Collection, DocumentStore, Index, Rejected
from projections.document import Write
from projections.locks import WAIT_S
from projections.transactions import Transaction
from tests.scene import Carry, Gate, Machine, Scene, directed, hang, lose, quick, refuse

DEAF: Final = quick(follow_ms=600_000)


def never_below_zero(before: Data | None, after: Data | None) -> None:
    if after is not None and after.get("n", 0) < 0:
        raise Rejected("below zero")


DOC: Final = Collection("Doc", exclusive=True, indexes=[Index("n")])
SUM: Final = Collection("Sum", exclusive=True, guard=never_below_zero)
OPEN: Final = Collection("Open")


@asynccontextmanager
async def leading(
    machine: Machine, *collections: Collection, settings: LogSettings | None = None, **how: Any
) -> AsyncIterator[DocumentStore]:
    """A process that leads two collections, or those given."""
    async with (
        machine.open(settings or quick()) as log,
        DocumentStore.open(
            log, writer=machine.name, collections=collections or [DOC, SUM], mode="exclusive", **how
        ) as db,
    ):
        yield db


async def stored(scene: Scene, kind: str = "Doc") -> dict[str, dict[str, Any]]:
    """The documents of a collection as a process that begins now sees them."""
    machine = scene.machine(f"reader at {scene.loop.time()}")
    async with (
        machine.open(read_only=True) as log,
        DocumentStore.open(log, collections=[DOC, SUM]) as db,
    ):
        page = db.collection(kind).find()
        return {key: dict(document) for key, document in zip(page.keys, page.rows, strict=True)}


async def appended(scene: Scene) -> list[str]:
    """The keys of all events, in total order."""
    async with scene.machine(f"log reader at {scene.loop.time()}").open(read_only=True) as log:
        return [each.key async for each in log.read()]


def free(db: DocumentStore) -> bool:
    """Whether no document is locked, and nobody waits."""
    return repr(db._led.locks) == "<Locks had=0 waiting=0>"


# All or nothing ----------------------------------------------------------------------------------


@directed
async def test_a_transaction_is_one_append(scene: Scene) -> None:
    """Its writes are one segment, in order, seen together by everybody; and its own reads show them before."""
    machine = scene.machine("web")
    async with leading(machine) as db:
        puts, gets = machine.script.count("create"), machine.script.count("get", "log/")
        async with db.transaction() as tx:
            await tx.create("Doc", "a", {"n": 1})
            await tx.create("Sum", "s", {"n": 5})
            await tx.update("Doc", "a", {"m": 2})
            await tx.update("Doc", "a", lambda doc: {**doc, "n": doc["n"] + 1})
            assert await tx.get("Doc", "a") == {"n": 2, "m": 2}
            assert (await tx.find("Doc", [("n", "==", 2)])).keys == ["a"]
            await tx.delete("Sum", "s")
            with pytest.raises(NotFound):
                await tx.get("Sum", "s")
            await tx.create("Sum", "s", {"n": 6})
            assert "a" not in db.collection("Doc")
        assert tx.receipt is not None
        assert (tx.receipt.count, machine.script.count("create")) == (6, puts + 1)
        assert machine.script.count("get", "log/") == gets
        assert (db.collection("Doc").get("a"), db.collection("Sum").get("s")) == ({"n": 2, "m": 2}, {"n": 6})
        assert free(db)
    assert await stored(scene) == {"a": {"n": 2, "m": 2}}
    assert await stored(scene, "Sum") == {"s": {"n": 6}}


@directed
async def test_an_error_in_the_body_writes_nothing(scene: Scene) -> None:
    """Whatever it is, it is the caller's to see; nothing is appended, no lock is left."""
    async with leading(scene.machine("web")) as db:
        for error in (ValueError("mine"), Conflict("mine"), KeyboardInterrupt(), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                async with db.transaction() as tx:
                    await tx.create("Doc", "a", {"n": 1})
                    raise error
            assert free(db)
        assert len(db.collection("Doc")) == 0
    assert await appended(scene) == []


@directed
async def test_a_caught_error_leaves_the_transaction_whole(scene: Scene) -> None:
    """What was refused is not written; what was written before and after is."""
    async with leading(scene.machine("web")) as db:
        async with db.transaction() as tx:
            await tx.create("Doc", "a", {"n": 1})
            for refused, error in (
                (tx.create("Doc", "a", {"n": 2}), AlreadyExists),
                (tx.update("Doc", "b", {"n": 2}), NotFound),
                (tx.update("Doc", "b", lambda doc: doc), NotFound),
                (tx.delete("Doc", "b"), NotFound),
                (tx.get("Doc", "b"), NotFound),
                (tx.create("Sum", "s", {"n": -1}), Conflict),
                (tx.update("Doc", "a", {"n": 2}, when=[("n", "==", 7)]), Conflict),
                (tx.update("Doc", "a", {"n": 2}, if_version="1-00"), Conflict),
            ):
                with pytest.raises(error):
                    await refused
            await tx.create("Doc", "c", {"n": 3})
        assert free(db)
    assert await stored(scene) == {"a": {"n": 1}, "c": {"n": 3}}


@directed
async def test_what_a_caller_does_later_to_what_it_gave_matters_to_nobody(scene: Scene) -> None:
    """One dict for several documents, a patch that is changed below the guard's bound, what `get` returned, meta."""
    async with leading(scene.machine("web")) as db:
        async with db.transaction() as tx:
            given: dict[str, Any] = {"deep": [0]}
            meta = {"by": "ann"}
            for n, key in enumerate("abc"):
                given["n"] = n
                await tx.create("Doc", key, given, meta=meta)
            given["deep"].append(1)
            meta["by"] = "bob"
            with pytest.raises(TypeError):
                (await tx.get("Doc", "a"))["n"] = 7  # type: ignore[index]  # the mistake
        assert [dict(each) for each in db.collection("Doc").find().rows] == [{"deep": (0,), "n": n} for n in range(3)]
        async with db.transaction() as tx:
            await tx.create("Sum", "s", {"n": 1})
            patch = {"n": 2}
            await tx.update("Sum", "s", patch)
            patch["n"] = -1
        assert db.collection("Sum").get("s") == {"n": 2}


@directed
async def test_a_guard_a_version_and_a_clause_are_judged_before_anything_is_written(scene: Scene) -> None:
    """What a transaction may write the fold takes: every event of the log has its effect."""
    async with leading(scene.machine("web")) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        version = docs.version("a")
        async with db.transaction() as tx:
            await tx.update("Doc", "a", {"n": 2}, if_version=version, when=[("n", "==", 1)])
            with pytest.raises(Conflict):  # nobody can know the version of what is not written yet
                await tx.update("Doc", "a", {"n": 3}, if_version=version)
            await tx.delete("Doc", "a", when=[("n", "==", 2)])
            await tx.create("Doc", "a", {"n": 4})
        with pytest.raises(Conflict):
            async with db.transaction() as tx:
                await tx.update("Doc", "a", {"n": 5})
                await tx.delete("Doc", "a", if_version=version)
        assert docs.get("a") == {"n": 4}
        async with db.transaction() as tx:
            await tx.create("Sum", "s", {"n": 1})
            await tx.update("Sum", "s", {"n": 0})
            with pytest.raises(Conflict, match="below zero"):
                await tx.update("Sum", "s", {"n": -1})
    assert (await stored(scene), await stored(scene, "Sum")) == ({"a": {"n": 4}}, {"s": {"n": 0}})


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for _ in range(levels - 1):
        document = {"a": document}
    return document


BAD: Final[list[tuple[str, Callable[[Transaction], Awaitable[None]]]]] = [
    ("unknown kind", lambda tx: tx.create("Else", "a", {})),
    ("empty key", lambda tx: tx.create("Doc", "", {})),
    ("key no text", lambda tx: tx.create("Doc", 5, {})),  # type: ignore[arg-type]  # the mistake
    ("no mapping", lambda tx: tx.create("Doc", "x", [1])),  # type: ignore[arg-type]  # the mistake
    ("nothing", lambda tx: tx.create("Doc", "x", None)),  # type: ignore[arg-type]  # the mistake
    ("unstorable", lambda tx: tx.create("Doc", "x", {"a": object()})),
    ("no patch", lambda tx: tx.update("Doc", "a", 5)),  # type: ignore[arg-type]  # the mistake
    ("no change", lambda tx: tx.update("Doc", "a", None)),  # type: ignore[arg-type]  # the mistake
    ("unstorable patch", lambda tx: tx.update("Doc", "a", {"a": object()})),
    ("nonsense returned", lambda tx: tx.update("Doc", "a", lambda _: 5)),  # type: ignore[arg-type,return-value]
    ("no version", lambda tx: tx.update("Doc", "a", {}, if_version=5)),  # type: ignore[arg-type]  # the mistake
    ("no clause", lambda tx: tx.update("Doc", "a", {}, when=[("n", "===", 5)])),
    ("own meta", lambda tx: tx.update("Doc", "a", {}, meta={"document": 1})),
    ("meta no mapping", lambda tx: tx.delete("Doc", "a", meta=5)),  # type: ignore[arg-type]  # the mistake
    ("no type", lambda tx: tx.delete("Doc", "a", type="")),
    ("too deep", lambda tx: tx.create("Doc", "x", nested(LEVELS_MAX + 1))),
    ("a row too deep", lambda tx: tx.create("Doc", "x", nested(LEVELS_MAX))),
    ("a merged row too deep", lambda tx: tx.update("Doc", "a", nested(LEVELS_MAX))),
]


@pytest.mark.parametrize(("what", "mistake"), BAD, ids=[what for what, _ in BAD])
@directed
async def test_bad_arguments(scene: Scene, what: str, mistake: Callable[[Transaction], Awaitable[None]]) -> None:
    """InvalidArgument, at the latest at the commit; nothing is written, and the leader goes on."""
    async with leading(scene.machine("web")) as db:
        await db.collection("Doc").create("a", {"n": 1})
        with pytest.raises(InvalidArgument):
            async with db.transaction() as tx:
                await tx.create("Doc", "other", {})
                await mistake(tx)
        assert free(db)
        await db.collection("Doc").update("a", {"n": 2})
    assert await stored(scene) == {"a": {"n": 2}}, what


@directed
async def test_limits(scene: Scene) -> None:
    """More than one append takes is LimitExceeded at the commit, in whole; just as much is not."""
    async with leading(scene.machine("web")) as db:
        with pytest.raises(LimitExceeded):
            async with db.transaction() as tx:
                for number in range(APPEND_EVENTS_MAX + 1):
                    await tx.create("Doc", f"d{number}", {})
        with pytest.raises(LimitExceeded):
            async with db.transaction() as tx:
                for key in "abc":
                    await tx.create("Doc", key, {"blob": b"x" * (3 << 20)})
        assert free(db)
        assert len(db.collection("Doc")) == 0
        async with db.transaction() as tx:
            for number in range(300):
                await tx.create("Doc", f"d{number}", {})
        assert len(db.collection("Doc")) == 300


@directed
async def test_a_transaction_outside_of_its_with(scene: Scene) -> None:
    """Before, after, and twice: InvalidArgument; nothing is written by it."""
    async with leading(scene.machine("web")) as db:
        tx = db.transaction()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: tx.get("Doc", "a"),
            lambda: tx.find("Doc"),
            lambda: tx.find("Doc", [("n", "==", 99)]),
            lambda: tx.create("Doc", "a", {}),
            lambda: tx.update("Doc", "a", {}),
            lambda: tx.delete("Doc", "a"),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument, match="not open"):
                await call()
        async with tx:
            await tx.create("Doc", "b", {"n": 1})
        for call in calls:
            with pytest.raises(InvalidArgument, match="not open"):
                await call()
        with pytest.raises(InvalidArgument, match="once"):
            async with tx:
                pass
        with pytest.raises(InvalidArgument, match="once"):
            async with db.transaction() as tx, tx:
                pass
        assert free(db)
    assert await appended(scene) == ["b"]
    with pytest.raises((InvalidArgument, Unavailable)):
        async with db.transaction():
            pass


@directed
async def test_a_document_store_that_does_not_lead_has_no_transactions(scene: Scene) -> None:
    """Shared, or reading only; and a collection is written in its own mode."""
    async with leading(scene.machine("web")) as led, scene.machine("other").open(quick()) as log:
        await led.collection("Doc").create("a", {"n": 1})
        async with DocumentStore.open(log, writer="w", collections=[OPEN]) as db:
            for call in (db.transaction, db.confirm):
                with pytest.raises(InvalidArgument, match="does not lead"):
                    await call()  # type: ignore[misc]  # one raises before there is anything to await
        async with DocumentStore.open(log, collections=[DOC]) as db:
            docs = db.collection("Doc")
            assert docs.get("a") == {"n": 1}
            for write in (docs.create("b", {}), docs.update("a", {}), docs.delete("a"), docs.modify("a", dict)):
                with pytest.raises(InvalidArgument):
                    await write
        for arguments in (
            {"writer": "w", "collections": [DOC]},
            {"writer": "w", "collections": [OPEN], "mode": "exclusive"},
            {"collections": [DOC], "mode": "exclusive"},
            {"writer": "w", "collections": [DOC], "mode": "exclusive", "standby": True, "takeover": True},
            {"writer": "w", "collections": [OPEN], "standby": True},
            {"writer": "w", "collections": [DOC], "mode": "both"},
        ):
            with pytest.raises(InvalidArgument):
                DocumentStore.open(log, **arguments)
    with pytest.raises(InvalidArgument):
        Collection("X", unique=True, exclusive=True)


@directed
async def test_a_kind_that_is_led_is_not_opened_as_shared(scene: Scene) -> None:
    """By writers and readers alike: they would see nothing of it, and write documents that its leader never sees."""
    async with leading(scene.machine("web")) as db:
        await db.collection("Doc").create("a", {"n": 1})
    async with scene.machine("other").open(quick()) as log:
        for writer in ("w", None):
            with pytest.raises(InvalidArgument, match=r"only leaders write this kind.*collection=Doc"):
                async with DocumentStore.open(log, writer=writer, collections=[OPEN, Collection("Doc")]):
                    pass


@directed
async def test_writes_in_the_wrong_mode_are_reported_no_ops(scene: Scene) -> None:
    """A kind is exclusive or shared for ever: the fold takes events of its own mode only, and says so of others."""
    async with leading(scene.machine("web")) as db, scene.machine("other").open(quick()) as log:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        conflicts = docs.conflicts()
        told = asyncio.create_task(anext(conflicts))
        await asyncio.sleep(0)
        async with log.writer("rogue") as writer:
            meta = Write("update").meta()
            receipt = await writer.append(Event("Doc", "a", "updated", {"n": 666}, meta))
            await log.settled(receipt, timeout=30)
        assert "as shared" in (await told).verdict.reason
        await docs.view.refresh()
        assert docs.get("a") == {"n": 1}
        async with DocumentStore.open(log, writer="w", collections=[OPEN]) as shared:
            opens = shared.collection("Open")
            await opens.create("o", {"n": 1})
            rejected = asyncio.create_task(anext(opens.conflicts()))
            await asyncio.sleep(0)
            rogue = log.lead("rogue", ["Open"])
            await rogue.acquire()
            receipt = await rogue.append([Event("Open", "o", "updated", {"n": 666}, meta)])
            await rogue.aclose()
            await log.settled(receipt, timeout=30)
            assert "as exclusive" in (await rejected).verdict.reason
            await opens.view.refresh()
            assert opens.get("o") == {"n": 1}
    assert await stored(scene) == {"a": {"n": 1}}


# One after the other -----------------------------------------------------------------------------


@directed
async def test_transactions_queue_for_a_document_in_the_order_of_asking(scene: Scene) -> None:
    """None is lost, none fails, and each sees what the one before wrote."""
    async with leading(scene.machine("web")) as db:
        await db.collection("Doc").create("a", {"n": 0, "by": []})

        async def add(number: int) -> None:
            async with db.transaction() as tx:
                doc = await tx.get("Doc", "a")
                await asyncio.sleep(0.001)
                await tx.update("Doc", "a", {"n": doc["n"] + 1, "by": [*doc["by"], number]})

        await asyncio.gather(*map(add, range(50)))
        assert db.collection("Doc").get("a") == {"n": 50, "by": tuple(range(50))}
        assert free(db)


@directed
async def test_a_deadlock_ends_by_the_time_that_one_waits(scene: Scene) -> None:
    """Two that want each other's documents: in five seconds one is told Conflict, and the other goes on."""
    async with leading(scene.machine("web")) as db:
        for key in "ab":
            await db.collection("Doc").create(key, {"n": 0})

        async def take(first: str, second: str, pause_s: float) -> str:
            await asyncio.sleep(pause_s)
            try:
                async with db.transaction() as tx:
                    await tx.update("Doc", first, {"n": 1, "by": first})
                    await asyncio.sleep(1)
                    await tx.update("Doc", second, {"n": 1, "by": first})
            except Conflict:
                return "Conflict"
            return "done"

        began_s = scene.loop.time()
        ends = await asyncio.gather(take("a", "b", 0), take("b", "a", 0.5))
        assert sorted(ends) == ["Conflict", "done"]
        assert WAIT_S < scene.loop.time() - began_s < WAIT_S + 2
        assert free(db)
        winner = "a" if ends[0] == "done" else "b"
        assert {doc["by"] for doc in db.collection("Doc").find().rows} == {winner}


@directed
async def test_questions_in_opposite_orders_do_not_wait_for_each_other(scene: Scene) -> None:
    """`find` locks by key, whatever order it is asked for; both wait for a third, and then one for the other."""
    async with leading(scene.machine("web")) as db:
        for n, key in enumerate("abc"):
            await db.collection("Doc").create(key, {"n": n})

        async def ask(order: str) -> list[str]:
            async with db.transaction() as tx:
                return list((await tx.find("Doc", order_by=[order])).keys)

        async with db.transaction() as tx:
            await tx.get("Doc", "b")
            asking = [asyncio.create_task(ask("n")), asyncio.create_task(ask("-n"))]
            await asyncio.sleep(1)
        assert await asyncio.gather(*asking) == [["a", "b", "c"], ["c", "b", "a"]]
        assert free(db)


@directed
async def test_a_question_does_not_wait_for_ever_while_others_write(scene: Scene) -> None:
    """Commits of its kind are under way all the time: after five seconds it is Conflict, and its locks are free."""
    machine = scene.machine("web")
    slow = replace(quick(), retry=RetrySettings(attempt_timeout_ms=60_000, deadline_ms=60_000))
    async with leading(machine, settings=slow) as db:
        await db.collection("Doc").create("a", {"n": 0})
        gate = Gate()
        machine.script.on("create", "log/", gate.before)
        writing = asyncio.create_task(db.collection("Doc").create("b", {"n": -1}))
        await gate.met()
        began_s = scene.loop.time()
        with pytest.raises(Conflict, match="others write all the time"):
            async with db.transaction() as tx:
                assert (await tx.find("Doc", [("n", ">=", 0)])).keys == ["a"]
        assert WAIT_S <= scene.loop.time() - began_s < WAIT_S + 1
        gate.open()
        await writing
        assert free(db)


@directed
async def test_phantoms(scene: Scene) -> None:
    """What a question did not find, but would now, is Conflict at the commit; what changes no answer is nothing."""
    async with leading(scene.machine("web")) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})

        async def ask_then(what: Callable[[], Awaitable[object]]) -> str:
            try:
                async with db.transaction() as tx:
                    page = await tx.find("Doc", [("n", ">=", 1)])
                    await what()
                    await tx.create("Sum", f"s{scene.loop.time()}", {"n": len(page.keys)})
            except Conflict:
                return "Conflict"
            return "done"

        assert await ask_then(lambda: docs.create("b", {"n": 0})) == "done"
        assert await ask_then(lambda: docs.create("c", {"n": 1})) == "Conflict"
        assert await ask_then(lambda: docs.update("b", {"n": 2})) == "Conflict"
        assert await ask_then(lambda: docs.create("d", {"n": 0})) == "done"
        assert await ask_then(lambda: docs.delete("d")) == "done"
        assert free(db)


@directed
async def test_write_skew_is_impossible(scene: Scene) -> None:
    """Each asks for what the other is about to write; under way at the same time, one of them is told Conflict."""
    machine = scene.machine("web")
    async with leading(machine) as db:
        gate = Gate()
        machine.script.on("create", "log/web/", gate.after)

        async def at_most_one(asks: str, writes: str) -> str:
            try:
                async with db.transaction() as tx:
                    if not (await tx.find(asks)).keys and not (await tx.find(writes)).keys:
                        await asyncio.sleep(0.01)
                        await tx.create(writes, writes, {"n": 1})
            except Conflict:
                return "Conflict"
            return "done"

        both = asyncio.gather(at_most_one("Doc", "Sum"), at_most_one("Sum", "Doc"))
        await gate.met()
        await asyncio.sleep(0.1)
        gate.open()
        assert sorted(await both) == ["Conflict", "done"]
        assert len(db.collection("Doc")) + len(db.collection("Sum")) == 1


@directed
async def test_two_tasks_of_one_transaction_do_not_wait_for_each_other(scene: Scene) -> None:
    """Both ask for a document that another transaction has: when that is done, both have it."""
    async with leading(scene.machine("web")) as db:
        await db.collection("Doc").create("a", {"n": 1})
        began = asyncio.Event()

        async def hold() -> None:
            async with db.transaction() as tx:
                await tx.get("Doc", "a")
                began.set()
                await asyncio.sleep(1)

        holding = asyncio.create_task(hold())
        await began.wait()
        async with asyncio.timeout(3), db.transaction() as tx:
            await asyncio.gather(*(tx.update("Doc", "a", lambda doc: {"n": doc["n"] + 1}) for _ in range(2)))
        await holding
        assert db.collection("Doc").get("a") == {"n": 3}
        assert free(db)


@directed
async def test_what_still_waits_for_a_lock_when_its_transaction_ends_leaves_none(scene: Scene) -> None:
    """One of two gathered calls fails, the transaction ends; the other's lock comes later, and is given back."""
    async with leading(scene.machine("web")) as db:
        for key in "ab":
            await db.collection("Doc").create(key, {"n": 1})
        began = asyncio.Event()

        async def hold() -> None:
            async with db.transaction() as tx:
                await tx.get("Doc", "a")
                began.set()
                await asyncio.sleep(1)

        holding = asyncio.create_task(hold())
        await began.wait()
        late: list[asyncio.Task[Any]] = []
        with pytest.raises(ValueError, match="mine"):
            async with db.transaction() as tx:
                late.append(asyncio.create_task(tx.get("Doc", "a")))
                await tx_sleep()
                raise ValueError("mine")
        await holding
        with pytest.raises(InvalidArgument, match="not open"):
            await late[0]
        assert free(db)
        async with asyncio.timeout(1):
            await db.collection("Doc").update("a", {"n": 2})


async def tx_sleep() -> None:
    await asyncio.sleep(0.1)


# Called off, or not known ------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["lock", "body", "commit"])
@directed
async def test_a_cancelled_transaction_leaves_no_lock(scene: Scene, where: str) -> None:
    """While it waits for a document, in its body, or while it commits: in the end nothing is locked."""
    machine = scene.machine("web")
    async with leading(machine) as db:
        await db.collection("Doc").create("a", {"n": 1})
        gate = Gate()
        if where == "commit":
            machine.script.on("create", "log/web/", gate.after)

        async def work() -> None:
            async with db.transaction() as tx:
                await tx.update("Doc", "a", {"n": 2})
                if where == "body":
                    await asyncio.sleep(10)

        if where == "lock":
            async with db.transaction() as tx:
                await tx.get("Doc", "a")
                working = asyncio.create_task(work())
                await asyncio.sleep(0.1)
                working.cancel()
                await asyncio.wait([working])
        else:
            working = asyncio.create_task(work())
            await asyncio.sleep(0.1)
            working.cancel()
            await asyncio.wait([working])
        assert working.cancelled()
        gate.open()
        await asyncio.sleep(1)
        assert free(db)
        assert db.collection("Doc").get("a") == {"n": 2 if where == "commit" else 1}
        await db.collection("Doc").update("a", {"n": 3})
    assert await stored(scene) == {"a": {"n": 3}}


@directed
async def test_cancelled_while_it_commits_nobody_sees_what_was_before(scene: Scene) -> None:
    """Its locks are had until it is known what became of it: the next one adds to what it wrote."""
    machine = scene.machine("web")
    async with leading(machine) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        gate = Gate()
        machine.script.on("create", "log/web/", gate.before)
        first = asyncio.create_task(docs.modify("a", lambda doc: {"n": doc["n"] + 1}))
        creating = asyncio.create_task(docs.create("b", {"by": "first"}))
        await gate.met()
        for call in (first, creating):
            call.cancel()
        await asyncio.wait([first, creating])
        second = asyncio.create_task(docs.modify("a", lambda doc: {"n": doc["n"] + 1}))
        again = asyncio.create_task(docs.create("b", {"by": "second"}))
        await asyncio.sleep(0.1)
        assert not second.done()
        gate.open()
        await second
        with suppress(AlreadyExists):
            await again
        assert docs.get("a") == {"n": 3}
        assert docs.get("b")["by"] == ("second" if again.exception() is None else "first")
        assert free(db)


@directed
async def test_a_commit_that_cannot_be_seen_yet_keeps_its_locks(scene: Scene) -> None:
    """It is stored, but the view cannot be brought there while nothing is answered: nobody reads what was before."""
    machine = scene.machine("web")
    async with leading(machine, settings=DEAF) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        async with scene.machine("other").open(quick()) as log, log.writer("w") as writer:
            await writer.append(Event("Else", "e", "changed", {}))  # an entry that the leader has not read
            view, wait_for = docs.view, docs.view.wait_for
            failures = 3

            async def fail_first(receipt: Receipt, timeout: float | None = None) -> None:
                nonlocal failures
                failures -= 1
                if failures >= 0:
                    raise Unavailable("the disk is full")
                await wait_for(receipt, timeout)

            view.wait_for = fail_first  # type: ignore[method-assign]  # what a full disk does
            first = asyncio.create_task(docs.update("a", {"n": 2}))
            await asyncio.sleep(0.5)
            second = asyncio.create_task(docs.modify("a", lambda doc: {"n": doc["n"] + 1}))
            await first
            await second
            assert failures < 0
        assert docs.get("a") == {"n": 3}


@directed
async def test_a_leader_whose_view_is_over_serves_no_more(scene: Scene) -> None:
    """What is stored is acknowledged; with a view that does not show it nothing more is judged."""
    async with leading(scene.machine("web")) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})

        async def fail(_receipt: Receipt, timeout: float | None = None) -> None:
            raise MemoryError

        docs.view.wait_for = fail  # type: ignore[method-assign,assignment]  # what no memory does
        await docs.update("a", {"n": 2})
        for call in (docs.update("a", {"n": 3}), docs.create("b", {}), db.confirm()):
            with pytest.raises(Unavailable, match="view"):
                await call
    assert await stored(scene) == {"a": {"n": 2}}


@directed
async def test_a_commit_that_is_not_stored_changed_nothing(scene: Scene) -> None:
    """NotStored: the view shows what was before, no lock is left, and the next one is judged on that."""
    machine = scene.machine("web")
    async with leading(machine) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        machine.script.on("create", "log/web/", hang, times=2)
        with pytest.raises(NotStored):
            await docs.update("a", {"n": 2})
        assert docs.get("a") == {"n": 1}
        await docs.modify("a", lambda doc: {"n": doc["n"] + 1})
        assert docs.get("a") == {"n": 2}
        assert free(db)


@directed
async def test_who_leads_no_more_is_told_in_every_transaction(scene: Scene) -> None:
    """Fenced: for one under way, for one that only read, for one that only looks whether it may; reads go on stale."""
    machine = scene.machine("a")
    async with leading(machine, settings=DEAF) as db:
        await db.collection("Doc").create("x", {"n": 1})
        with pytest.raises(Fenced):
            async with db.transaction() as tx:
                await tx.get("Doc", "x")
                async with leading(scene.machine("b"), takeover=True) as other:
                    await other.collection("Doc").update("x", {"n": 2})
        for call in (db.confirm(), db.collection("Doc").update("x", {"n": 3})):
            with pytest.raises(Fenced):
                await call
        with pytest.raises(Fenced):
            async with db.transaction():
                pass
        assert db.collection("Doc").get("x") == {"n": 1}
        assert free(db)
    assert await stored(scene) == {"x": {"n": 2}}


@directed
async def test_a_transaction_that_only_reads_confirms_the_lead(scene: Scene) -> None:
    """One GET, shared; nothing is written."""
    machine = scene.machine("web")
    async with leading(machine, settings=DEAF) as db:
        await db.collection("Doc").create("a", {"n": 1})
        await db.confirm()
        asked, puts = machine.script.count("get"), machine.script.count("create")

        async def look() -> None:
            async with db.transaction() as tx:
                await tx.find("Doc", [("n", "==", 1)])

        async with db.transaction() as tx:
            await tx.get("Doc", "a")
        assert tx.receipt is None
        assert machine.script.count("get") == asked + 1
        await asyncio.gather(*(look() for _ in range(10)))
        assert machine.script.count("create") - puts <= 1  # a heartbeat, at most


@directed
async def test_at_shows_all_collections_at_one_moment(scene: Scene) -> None:
    """Before, between, and after two transactions, each of which wrote two collections."""
    async with leading(scene.machine("web")) as db, scene.machine("other").open(quick()) as log:
        receipts = []
        for number in (1, 2):
            async with db.transaction() as tx:
                for kind in ("Doc", "Sum"):
                    with suppress(NotFound):
                        await tx.delete(kind, "x")
                    await tx.create(kind, "x", {"n": number})
            assert tx.receipt is not None
            receipts.append(tx.receipt)
        await log.settled(receipts[-1], timeout=60)
        for moment, expected in [(receipts[0].stamp, 1), (receipts[1].stamp - 1, 1), (receipts[1].stamp, 2)]:
            async with db.at(moment) as views:
                assert [views(kind).get("x")["doc"] for kind in ("Doc", "Sum")] == [{"n": expected}] * 2  # type: ignore[index]
        async with db.at(receipts[0].stamp - 1) as views:
            assert [views(kind).get("x") for kind in ("Doc", "Sum")] == [None, None]


@dataclass
class Account:
    """A model."""

    balance: int = 0
    tags: list[str] = field(default_factory=list)


@directed
async def test_documents_of_an_exclusive_collection(scene: Scene) -> None:
    """create, update, delete and modify, with patches, functions and a model, are transactions of one write."""
    async with leading(scene.machine("web")) as db:
        accounts = db.collection("Doc", Account)
        receipt = await accounts.create("a", Account(5))
        await receipt.settled(60)
        with pytest.raises(AlreadyExists):
            await accounts.create("a", Account())
        await accounts.update("a", {"balance": 6})

        def earn(account: Account) -> None:
            account.balance += 1

        await asyncio.gather(*(accounts.modify("a", earn) for _ in range(10)))
        await accounts.update("a", lambda account: Account(account.balance, ["x"]))
        assert accounts.get("a") == Account(16, ["x"])
        assert db.collection("Doc").get("a") == {"balance": 16, "tags": ("x",)}
        version = accounts.version("a")
        with pytest.raises(Conflict):
            await accounts.delete("a", when=[("balance", "==", 0)])
        await accounts.update("a", {"balance": 17}, if_version=version)
        with pytest.raises(Conflict):
            await accounts.update("a", {"balance": 18}, if_version=version)
        await accounts.delete("a")
        for write in (accounts.update("a", {}), accounts.delete("a"), accounts.modify("a", earn)):
            with pytest.raises(NotFound):
                await write
        assert free(db)
    assert await stored(scene) == {}


# Serializable ------------------------------------------------------------------------------------

KEYS: Final = ("a", "b", "c")
Rows = dict[str, dict[str, dict[str, Any]]]


@dataclass(slots=True)
class Deed:
    """A transaction: what it did and was told, when, and where it is in the log."""

    number: int
    began_after: int  # so many commits were known to be stored
    steps: list[tuple[Any, ...]] = field(default_factory=list)
    end: str = ""
    receipt: Receipt | None = None


async def act(tx: Transaction, rng: random.Random, number: int) -> tuple[Any, ...]:
    """Do something at random; return what, and what came of it."""
    kind, key, n = rng.choice(["Doc", "Sum"]), rng.choice(KEYS), rng.randrange(4)
    do = rng.choice(["get", "get", "find", "create", "update", "apply", "delete"])
    order, limit = rng.choice([(), ("n",), ("-n",)]), rng.choice([None, 1, 2])
    told: Any = None
    meta = {"number": number}
    try:
        match do:
            case "get":
                told = dict(await tx.get(kind, key))
            case "find":
                page = await tx.find(kind, [("n", ">=", n)], order, limit)
                told = [(key, dict(row)) for key, row in zip(page.keys, page.rows, strict=True)]
            case "create":
                await tx.create(kind, key, {"n": n, "by": number}, meta=meta)
            case "update":
                await tx.update(kind, key, {"n": n}, meta=meta)
            case "apply":
                await tx.update(kind, key, lambda doc: {**doc, "n": doc["n"] + 1}, meta=meta)
            case "delete":
                await tx.delete(kind, key, meta=meta)
    except (NotFound, AlreadyExists) as error:
        told = type(error).__name__
    return (do, kind, key, n, order, limit, number, told)


def replay(rows: Rows, step: tuple[Any, ...]) -> Any:
    """Do the same to plain dictionaries; return what a caller would have been told."""
    do, kind, key, n, order, limit, number, _ = step
    of = rows[kind]
    if do == "find":
        found = sorted((key, row) for key, row in of.items() if row["n"] >= n)
        if order:
            found.sort(key=lambda each: -each[1]["n"] if order == ("-n",) else each[1]["n"])
        return [(key, dict(row)) for key, row in found[:limit]]
    if (do == "create") == (key in of):
        return "AlreadyExists" if do == "create" else "NotFound"
    match do:
        case "get":
            return dict(of[key])
        case "create":
            of[key] = {"n": n, "by": number}
        case "update":
            of[key] = {**of[key], "n": n}
        case "apply":
            of[key] = {**of[key], "n": of[key]["n"] + 1}
        case "delete":
            del of[key]
    return None


def copy_of(rows: Rows) -> Rows:
    return {kind: {key: dict(row) for key, row in of.items()} for kind, of in rows.items()}


def fits(rows: Rows, deed: Deed) -> bool:
    """Whether a transaction may have read what it did from these documents."""
    return all(replay(rows, step) == step[-1] for step in deed.steps)


@pytest.mark.parametrize("seed", range(12))
@directed
async def test_random_transactions_are_serializable(scene: Scene, seed: int) -> None:
    """Replayed one by one in the order of their commits, each reads what it had read, and the end is the same."""
    rng = random.Random(f"serializable {seed}")
    machine = scene.machine("web")
    deeds: list[Deed] = []
    known = 0

    async def slow(carry: Carry) -> Any:
        await asyncio.sleep(rng.choice([0, 0.005, 0.05]))
        return await (lose(carry) if rng.random() < 0.05 else carry())

    async def live(db: DocumentStore) -> None:
        nonlocal known
        for _ in range(12):
            await asyncio.sleep(rng.choice([0, 0.01, 0.1]))
            deed = Deed(len(deeds), known)
            deeds.append(deed)
            try:
                async with asyncio.timeout(rng.choice([None, None, None, 0.02])), db.transaction() as tx:
                    for _ in range(rng.randrange(1, 5)):
                        deed.steps.append(await act(tx, rng, deed.number))
                        if rng.random() < 0.5:
                            await asyncio.sleep(rng.choice([0, 0.001, 0.01]))
                    if rng.random() < 0.1:
                        raise ValueError("of the caller")
                deed.end, deed.receipt = "done", tx.receipt
                known += tx.receipt is not None
            except (Conflict, ValueError, TimeoutError, NotStored) as error:
                deed.end = type(error).__name__

    machine.script.on("create", "log/web/", slow, times=1_000_000)
    async with leading(machine) as db:
        await asyncio.gather(*(live(db) for _ in range(8)))
        await asyncio.sleep(1)
        assert free(db)
        shown: Rows = {}
        for kind in ("Doc", "Sum"):
            page = db.collection(kind).find()
            shown[kind] = dict(zip(page.keys, map(dict, page.rows), strict=True))
    await _judge(scene, deeds, shown)


async def _judge(scene: Scene, deeds: Sequence[Deed], shown: Rows) -> None:
    async with scene.machine("judge").open(read_only=True) as log:
        numbers = [event.meta["number"] async for event in log.read() if event.meta is not None]
    commits = [number for number, _ in groupby(numbers)]
    assert len(commits) == len(set(commits)), "what is committed together is together, and once"
    assert {deed.number for deed in deeds if deed.receipt is not None} <= set(commits)
    ends = {deeds[number].end for number in commits}
    assert ends <= {"done", "TimeoutError"}, "cancelled while it commits it may be stored; refused it is not"
    by_order = [deeds[number] for number in commits]
    rows: Rows = {"Doc": {}, "Sum": {}}
    states = [copy_of(rows)]
    for deed in by_order:
        for step in deed.steps:
            assert replay(rows, step) == step[-1], f"{deed} at {step}"
        states.append(copy_of(rows))
    assert rows == shown
    for deed in deeds:
        if deed.end == "done" and deed.receipt is None:
            assert any(fits(copy_of(rows), deed) for rows in states[deed.began_after :]), deed
    assert len(by_order) > 10


async def _carry(carry: Carry) -> Any:
    return await carry()


# A bank ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@directed
async def test_a_bank_has_always_as_much_money(scene: Scene, seed: int) -> None:
    """Transfers at once, answers lost, commits given up, leaders taken over: it adds up at every moment."""
    rng = random.Random(f"bank {seed}")
    total, accounts = 100, [f"a{number}" for number in range(5)]
    done = {"stored": 0}

    async def fate(carry: Carry) -> Any:
        acts: list[Callable[[Carry], Awaitable[Any]]] = [_carry, lose, hang, refuse]
        return await rng.choices(acts, [9, 1, 1, 1])[0](carry)

    async def transfer(db: DocumentStore) -> None:
        source, target = rng.sample(accounts, 2)
        async with db.transaction() as tx:
            a, b = await tx.get("Sum", source), await tx.get("Sum", target)
            await asyncio.sleep(rng.choice([0, 0.01]))
            amount = rng.randrange(1, 30)
            await tx.update("Sum", source, {"n": a["n"] - amount})
            await tx.update("Sum", target, {"n": b["n"] + amount})

    async def client(db: DocumentStore) -> None:
        for _ in range(6):
            try:
                await transfer(db)
            except (Fenced, Unavailable, InvalidArgument):
                return
            except LogStoreError:
                continue
            done["stored"] += 1

    async with leading(scene.machine("first")) as db, db.transaction() as tx:
        for account in accounts:
            await tx.create("Sum", account, {"n": total // len(accounts)})
    auditor = scene.machine("auditor")
    async with auditor.open(quick()) as log, DocumentStore.open(log, collections=[SUM]) as audited:
        sums: list[int] = []

        async def audit() -> None:
            while True:
                await audited.collection("Sum").view.refresh()
                for settled in (True, False):
                    page = audited.collection("Sum").find(settled=settled)
                    if page.rows:
                        sums.append(sum(row["n"] for row in page.rows))
                await asyncio.sleep(0.2)

        auditing = asyncio.create_task(audit())
        for number in range(3):
            machine = scene.machine(f"m{number}")
            with suppress(LogStoreError):
                async with leading(machine, takeover=True) as db:
                    machine.script.on("create", "log/", fate, times=1_000_000)
                    clients = [asyncio.create_task(client(db)) for _ in range(3)]
                    if rng.random() < 0.5:
                        await asyncio.sleep(0.2)
                        with suppress(LogStoreError):
                            async with leading(scene.machine(f"usurper{number}"), takeover=True) as usurping:
                                await asyncio.gather(*(client(usurping) for _ in range(3)))
                    await asyncio.gather(*clients)
                    machine.script.clear()
        auditing.cancel()
        await asyncio.wait([auditing])
    assert done["stored"] > 10
    assert set(sums) == {total}
    assert sum(row["n"] for row in (await stored(scene, "Sum")).values()) == total
