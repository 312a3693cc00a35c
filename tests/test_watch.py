"""Watching: whoever takes in what is told has what matches now, wherever it stopped and went on. RFC 0009 §7."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from logstore import InvalidArgument, StaleStore, Trimmed
from logstore.errors import AlreadyExists, Conflict, NotFound
from logstore.event import Data
from logstore.token import decode_token, encode_token
from projections import Collection, Documents, DocumentStore, Index, Rejected
from projections.watch import DocumentChange
from tests.scene import Scene, directed, quick
from tests.test_documents import serving
from tests.test_keeper import age, keep, opened

DOC = Collection("Doc", indexes=[Index("n")])
WHERE = [("n", ">=", 0)]


class Consumer:
    """Takes in what a watch tells: ``has`` is what it believes to match, ``token`` where it would go on."""

    def __init__(self, where: Any = WHERE) -> None:
        self.where = where
        self.has: dict[str, Data] = {}
        self.token: str | None = None
        self.told: list[DocumentChange] = []

    def take(self, change: DocumentChange) -> None:
        """One change."""
        self.told.append(change)
        if change.type == "removed":
            self.has.pop(change.key, None)
        else:
            assert change.document is not None
            self.has[change.key] = change.document
        self.token = change.token

    async def follow(self, docs: Documents[Any], *, at_most: int = 1_000, idle_s: float = 2, each_s: float = 0) -> None:
        """Go on from where it stopped, until so much was told, or nothing for a while; it may be slow."""
        async with aclosing(docs.watch(self.where, after=self.token)) as changes:
            for _ in range(at_most):
                try:
                    async with asyncio.timeout(idle_s):
                        self.take(await anext(changes))
                    await asyncio.sleep(each_s)
                except TimeoutError:
                    break


def matching(docs: Documents[Any], where: Any = WHERE) -> dict[str, Data]:
    page = docs.find(where)
    return dict(zip(page.keys, page.rows, strict=True))


async def next_of(changes: AsyncGenerator[DocumentChange, None]) -> DocumentChange:
    async with asyncio.timeout(60):
        return await anext(changes)


def plain(change: DocumentChange) -> tuple[str, str, Any, Any]:
    return (change.type, change.key, change.document, change.before)


@directed
async def test_what_matches_is_told_first_then_what_happens(scene: Scene) -> None:
    """Added in the order of keys; then added, modified, removed, each with the document before and after."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        for key, n in (("b", 1), ("a", 0), ("x", -1)):
            await docs.create(key, {"n": n})
        async with aclosing(docs.watch(WHERE)) as changes:
            assert plain(await next_of(changes)) == ("added", "a", {"n": 0}, None)
            assert plain(await next_of(changes)) == ("added", "b", {"n": 1}, None)
            steps: list[tuple[Any, tuple[str, str, Any, Any]]] = [
                (docs.update("x", {"n": 5}), ("added", "x", {"n": 5}, None)),
                (docs.update("x", {"n": 6}), ("modified", "x", {"n": 6}, {"n": 5})),
                (docs.update("x", {"n": -6}), ("removed", "x", {"n": -6}, {"n": 6})),
                (docs.delete("a"), ("removed", "a", None, {"n": 0})),
                (docs.create("c", {"n": 2}), ("added", "c", {"n": 2}, None)),
            ]
            for write, expected in steps:
                await write
                assert plain(await next_of(changes)) == expected


@directed
async def test_what_does_not_match_before_or_after_is_not_told(scene: Scene) -> None:
    """Nor a write that was refused, nor one that leaves the document as it was, nor a tombstone that goes."""
    unique = Collection("Doc", unique=True)
    async with (
        scene.machine("web").open(quick(), grace_ms=40_000) as log,
        DocumentStore.open(log, writer="web", collections=[unique]) as db,
    ):
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        async with aclosing(docs.watch(WHERE)) as changes:
            assert (await next_of(changes)).key == "a"
            await docs.create("x", {"n": -1})
            await docs.update("x", {"n": -2})
            await docs.delete("x")
            await docs.update("a", {"n": 1})
            await docs.update("a", {})
            await asyncio.sleep(30)
            await docs.create("last", {"n": 1})
            assert docs.view.state("x") is None
            assert (await next_of(changes)).key == "last"


@directed
async def test_changes_of_one_document_become_one_for_a_slow_consumer(scene: Scene) -> None:
    """However many; what came and went meanwhile is not told at all; the last state is."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 0})
        async with aclosing(docs.watch(WHERE)) as changes:
            first = await next_of(changes)
            assert first.key == "a"
            for n in range(1, 20):
                await docs.update("a", {"n": n}, blind=True)
            await docs.create("brief", {"n": 1})
            await docs.delete("brief")
            await docs.create("b", {"n": 1})
            await docs.update("b", {"n": 2})
            assert plain(await next_of(changes)) == ("modified", "a", {"n": 19}, {"n": 0})
            assert plain(await next_of(changes)) == ("added", "b", {"n": 2}, None)


@directed
async def test_a_late_write_takes_back_what_was_told(scene: Scene) -> None:
    """A pending document that a late arrival below it turns into a no-op is told as it is then."""
    async with serving(scene.machine("late", skew_ms=-1_900), DOC) as late, serving(scene.machine("web"), DOC) as db:
        docs, lates = db.collection("Doc"), late.collection("Doc")
        await lates.create("other", {"n": -1})
        await docs.view.refresh()
        consumer = Consumer()
        watching = asyncio.create_task(consumer.follow(docs, idle_s=20))
        await asyncio.sleep(0.2)
        await docs.create("d", {"n": 1})
        await asyncio.sleep(0.01)
        await lates.create("d", {"n": 7})
        await watching
        assert [plain(change)[:3] for change in consumer.told] == [
            ("added", "d", {"n": 1}),
            ("modified", "d", {"n": 7}),
        ]
        assert consumer.has == matching(docs)


def guard(before: Data | None, after: Data | None) -> None:
    if before is not None and after is not None and (before["n"] + after["n"]) % 5 == 0:
        raise Rejected("the guard is against it")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("unique", [False, True])
def test_whoever_takes_in_what_is_told_has_what_matches_now(seed: int, unique: bool) -> None:
    """Random writes by three processes whose clocks differ, some late, some refused later; consumers stop anywhere.

    Each goes on from the token of the last change that it took, whichever that was, in whichever process, once or after
    every change; at the end each has what ``find`` finds. What any token stands for is tried: all that were ever told.
    """
    rng = random.Random(seed)
    collection = Collection("Doc", indexes=[Index("n")], guard=guard, unique=unique)

    @directed
    async def play(scene: Scene) -> None:
        machines = [scene.machine(f"w{i}", skew_ms=rng.choice([-1_900, 0, 1_900])) for i in range(3)]
        async with (
            serving(machines[0], collection) as a,
            serving(machines[1], collection) as b,
            serving(machines[2], collection) as c,
        ):
            stores = [db.collection("Doc") for db in (a, b, c)]
            writing = True
            saved: list[tuple[str, dict[str, Data]]] = []

            async def write() -> None:
                for _ in range(25):
                    docs, key, n = rng.choice(stores), rng.choice("abcd"), rng.randrange(-2, 6)
                    what = rng.choice(["create", "create", "update", "update", "update", "delete"])
                    with suppress(AlreadyExists, NotFound, Conflict):
                        if what == "create":
                            await docs.create(key, {"n": n})
                        elif what == "update":
                            await docs.update(key, {"n": n}, blind=rng.random() < 0.5)
                        else:
                            await docs.delete(key, blind=rng.random() < 0.5)
                    await asyncio.sleep(rng.choice([0, 0, 0.02, 0.3, 1.5]))

            async def consume(consumer: Consumer) -> None:
                while writing:
                    docs = rng.choice(stores)
                    before = len(consumer.told)
                    at_most, idle_s, each_s = (
                        rng.choice([1, 2, 5, 20]),
                        rng.choice([0.1, 1]),
                        rng.choice([0, 0, 0.5, 3]),
                    )
                    await consumer.follow(docs, at_most=at_most, idle_s=idle_s, each_s=each_s)
                    if len(consumer.told) > before and consumer.token is not None:
                        saved.append((consumer.token, dict(consumer.has)))
                    await asyncio.sleep(rng.choice([0, 0.5]))

            consumers = [Consumer() for _ in range(3)]
            consuming = [asyncio.create_task(consume(consumer)) for consumer in consumers]
            await asyncio.gather(write(), write())
            writing = False
            await asyncio.gather(*consuming)
            for docs in stores:
                await docs.view.refresh()
            expected = matching(stores[0])
            assert all(matching(docs) == expected for docs in stores)
            for consumer in consumers:
                await consumer.follow(rng.choice(stores))
                assert consumer.has == expected
            for token, has in rng.sample(saved, min(8, len(saved))):
                consumer = Consumer()
                consumer.token, consumer.has = token, dict(has)
                await consumer.follow(rng.choice(stores))
                assert consumer.has == expected
        async with (
            scene.machine("later").open(read_only=True) as log,
            DocumentStore.open(log, collections=[collection]) as db,
        ):
            for token, has in rng.sample(saved, min(3, len(saved))):
                consumer = Consumer()
                consumer.token, consumer.has = token, dict(has)
                await consumer.follow(db.collection("Doc"))
                assert consumer.has == expected

    play()


@directed
async def test_a_token_stands_for_nothing_that_was_not_told_yet(scene: Scene) -> None:
    """A slow consumer that takes one of several changes, all settled by then, and stops: the others are told later."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        consumer = Consumer()
        async with aclosing(docs.watch(WHERE)) as changes:
            consumer.take(await next_of(changes))
            receipts = [await docs.create(key, {"n": 1}) for key in "bcd"]
            await receipts[-1].settled(60)
            assert docs.view.watermark >= receipts[-1].receipt.stamp
            consumer.take(await next_of(changes))
        await consumer.follow(docs, at_most=1)
        await consumer.follow(docs)
        assert consumer.has == matching(docs)
        assert len(consumer.has) == 4


@directed
async def test_going_on_tells_what_was_deleted_meanwhile(scene: Scene) -> None:
    """From the token of the very first change, too, which stands for nothing but itself."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        for key in "abc":
            await docs.create(key, {"n": 1})
        consumer = Consumer()
        await consumer.follow(docs, at_most=1)
        await docs.delete("a")
        await docs.update("b", {"n": 2})
        await consumer.follow(docs)
        assert consumer.has == {"b": {"n": 2}, "c": {"n": 1}}
        await docs.delete("c")
        await consumer.follow(docs)
        assert consumer.has == {"b": {"n": 2}}


@directed
async def test_going_on_does_not_tell_again_what_is_settled_and_unchanged(scene: Scene) -> None:
    """RFC 0009 §7: only what was told above the watermark may be told again."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        receipts = [await docs.create(f"d{n}", {"n": n}) for n in range(5)]
        await receipts[-1].settled(60)
        consumer = Consumer()
        await consumer.follow(docs)
        assert len(consumer.told) == 5
        await docs.update("d3", {"n": 30})
        await consumer.follow(docs)
        assert [change.key for change in consumer.told[5:]] == ["d3"]
        assert plain(consumer.told[5]) == ("modified", "d3", {"n": 30}, {"n": 3})


@directed
async def test_a_token_outlives_its_process_and_uses_the_last_snapshot(scene: Scene) -> None:
    """Going on costs what ``View.open(at=)`` does: no segment from before the snapshot is read."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        for n in range(5):
            await docs.create(f"d{n}", {"n": n})
        await docs.view.snapshot()
        last = await docs.create("e", {"n": 9})
        await last.settled(60)
        consumer = Consumer()
        await consumer.follow(docs)
        await docs.delete("d0")
    reader = scene.machine("reader")
    async with reader.open(read_only=True) as log, DocumentStore.open(log, collections=[DOC]) as db:
        reader.script.asked.clear()
        await consumer.follow(db.collection("Doc"))
        assert consumer.has == matching(db.collection("Doc"))
        assert "d0" not in consumer.has
        first = scene.slot("web", 1, 0)
        assert reader.script.count("get", first) == 0


@directed
async def test_tokens_that_are_none_are_refused(scene: Scene) -> None:
    """InvalidArgument for nonsense, StaleStore for another store's; a bad where is named."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        consumer = Consumer()
        await consumer.follow(docs)
        token = consumer.token
        assert token is not None
        id_, bound, _ = decode_token("watch", token)
        nonsense: list[Any] = [
            "",
            "nonsense",
            token[:-1],
            token + "A",
            token.upper(),
            token.replace("watch", "cursor"),
            encode_token("watch", []),
            encode_token("watch", [id_]),
            encode_token("watch", [id_, bound, -1]),
            encode_token("watch", [id_, bound, "1"]),
            encode_token("watch", [id_, bound, 1, 2]),
            encode_token("watch", ["text", bound, 1]),
            encode_token("watch", [id_, 1]),
            5,
            b"watch",
        ]
        for each in nonsense:
            with pytest.raises(InvalidArgument):
                await anext(docs.watch(after=each))
        with pytest.raises(StaleStore):
            await anext(docs.watch(after=encode_token("watch", [bytes(len(id_)), bound, 1])))
        for where in ("n", [("n", "~", 1)], None, 5):
            with pytest.raises(InvalidArgument):
                await anext(docs.watch(where))  # type: ignore[arg-type]  # the mistake
        with pytest.raises(InvalidArgument):
            await anext(docs.watch(after=encode_token("watch", [id_, bound, (1 << 63)])))


@directed
async def test_a_token_is_good_for_its_question_only(scene: Scene) -> None:
    """With other clauses, in another collection, or in a later version of its own, it would leave changes out."""
    newer = Collection("Doc", version=2)
    consumer = Consumer()
    async with serving(scene.machine("web"), DOC, Collection("Other")) as db:
        await db.collection("Doc").create("a", {"n": 1})
        await consumer.follow(db.collection("Doc"))
        for watching in (
            db.collection("Doc").watch([("n", ">=", 1)], after=consumer.token),
            db.collection("Other").watch(WHERE, after=consumer.token),
        ):
            with pytest.raises(InvalidArgument, match="of another question"):
                await anext(watching)
    async with serving(scene.machine("newer"), newer) as db:
        with pytest.raises(InvalidArgument, match="of another question"):
            await anext(db.collection("Doc").watch(WHERE, after=consumer.token))


@directed
async def test_a_token_from_before_what_retention_kept_is_trimmed(scene: Scene) -> None:
    """P11: never a wrong difference: Trimmed, and a watch without the token goes on."""
    consumer = Consumer()
    async with (
        opened(scene.machine("web")) as log,
        DocumentStore.open(log, writer="web", collections=[DOC]) as db,
    ):
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        await docs.create("b", {"n": 1})
        await consumer.follow(docs)
        await log.close_chapter()
        await docs.delete("a")
        for n in range(2):
            await docs.view.snapshot()
            await docs.update("b", {"n": n + 2})
    await age()
    retired, _ = await keep(scene)
    assert retired[0].startswith("0 yes"), retired
    await age()
    await keep(scene)
    async with (
        opened(scene.machine("again")) as log,
        DocumentStore.open(log, writer="web", collections=[DOC]) as db,
    ):
        docs = db.collection("Doc")
        with pytest.raises(Trimmed):
            await consumer.follow(docs)
        fresh = Consumer()
        await fresh.follow(docs)
        assert fresh.has == {"b": {"n": 3}}
        assert consumer.token is not None


@directed
async def test_a_watch_ends_with_what_ended_its_view(scene: Scene) -> None:
    """It does not hang."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        changes = docs.watch()
        waiting = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(1)
        docs.view._failure = NotFound("broken for a test")
        docs.view._wake_all()
        with pytest.raises(NotFound, match="broken"):
            await waiting
        docs.view._failure = None


@directed
async def test_who_forgets_a_watch_is_forgotten(scene: Scene) -> None:
    """P13: nothing is remembered for a consumer that has gone."""
    async with serving(scene.machine("web"), DOC) as db:
        docs = db.collection("Doc")
        await docs.create("a", {"n": 1})
        async with aclosing(docs.watch()) as changes:
            await next_of(changes)
            assert len(docs.view._subscriptions) == 1
        del changes
        assert len(docs.view._subscriptions) == 0
