"""A view on a real log: it holds what was acknowledged, finds it, and says when it is final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import logstore
from logstore import Event, Log, StoredEvent, Writer, WriterSettings
from logstore.errors import InvalidArgument, InvalidCursor
from logstore.filestore import MemoryStore
from projections import Change, FoldFailed, Index, Projection, Rejected, Verdict, View
from projections.query import Query
from tests.scene import Scene, die, directed, event, events, quick, until


class Deployments(Projection):
    name, kinds, fold = "deployments", frozenset({"Deployment"}), "put"
    indexes = (Index("project_id", "-updated_at"), Index("piped_id", "status"))


class Counters(Projection):
    """Adds up; refuses to go below zero."""

    name, kinds = "counters", frozenset({"Counter"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        total = (state["total"] if state else 0) + event.data["add"]
        if total < 0:
            raise Rejected(f"{total} is below zero")
        return {"total": total}


def deployment(number: int, **fields: Any) -> Event:
    data = {"project_id": f"p{number % 2}", "piped_id": "a", "status": number % 3, "updated_at": number, **fields}
    return Event("Deployment", f"d-{number}", "changed", data)


def add(number: int) -> Event:
    return Event("Counter", "c", "added", {"add": number})


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    """A log in memory whose sessions end as soon as somebody wants the watermark."""
    async with logstore.open(MemoryStore()) as log:
        yield log


@pytest.fixture
async def writer(log: Log) -> AsyncIterator[Writer]:
    async with log.writer("web-1", WriterSettings(idle_ms=50)) as writer:
        yield writer


async def test_an_entered_view_holds_everything_acknowledged_before(log: Log, writer: Writer) -> None:
    """What was acknowledged before ``async with`` is visible in it, other kinds are not."""
    await writer.append_many([deployment(1), Event("Other", "o", "changed", {})])
    async with View.open(log, Deployments()) as view:
        assert list(view.keys()) == ["d-1"]
        row = view.get("d-1")
        assert row is not None
        assert dict(row)["updated_at"] == 1
        assert view.get("o") is None


async def test_rows_are_read_only(log: Log, writer: Writer) -> None:
    """Nobody can change a view by changing what it handed out, at any depth."""
    await writer.append(deployment(1, nested={"list": [{"x": 1}]}))
    async with View.open(log, Deployments()) as view:
        row: Any = view.get("d-1")
        for container in (row, row["nested"], row["nested"]["list"][0]):
            with pytest.raises(TypeError):
                container["x"] = 2
        assert row["nested"]["list"] == ({"x": 1},)


async def test_refresh_brings_what_others_acknowledged_before_the_call(log: Log, writer: Writer) -> None:
    """Without following a view stands still until it is refreshed."""
    async with View.open(log, Deployments()) as view:
        await writer.append(deployment(1))
        assert view.get("d-1") is None
        await view.refresh()
        assert view.get("d-1") is not None


@pytest.mark.parametrize("follow", [False, True])
async def test_wait_for_reads_ones_own_writes(log: Log, writer: Writer, follow: bool) -> None:
    """After ``wait_for(receipt)`` the view holds what the receipt stands for."""
    async with View.open(log, Deployments(), follow=follow) as view:
        receipt = await writer.append(deployment(1))
        await view.wait_for(receipt, timeout=5)
        assert view.get("d-1") is not None


async def test_a_following_view_reads_its_own_process_without_a_request(log: Log, writer: Writer) -> None:
    """P9: while the log is followed, waiting for a receipt of this process asks nothing of the store."""
    async with View.open(log, Deployments(), follow=True) as view:
        await view.wait_for(await writer.append(deployment(1)), timeout=5)
        receipt = await writer.append(deployment(2))
        before = log.requests()
        await view.wait_for(receipt, timeout=5)
        assert (log.requests() - before).requests == 0
        assert view.get("d-2") is not None


async def test_find_pages_through_an_index_while_rows_change(log: Log, writer: Writer) -> None:
    """Pages follow each other by cursor; what stays in place is returned once; the index is used and kept up."""
    await writer.append_many([deployment(number) for number in range(40)])
    async with View.open(log, Deployments()) as view:
        where = [("project_id", "==", "p1")]
        first = view.find(where, ["-updated_at"], limit=10)
        assert first.keys == [f"d-{number}" for number in range(39, 19, -2)]
        await view.wait_for(await writer.append_many([deployment(41), deployment(19, project_id="gone")]))
        second = view.find(where, ["-updated_at"], limit=10, cursor=first.cursor)
        assert second.keys == [f"d-{number}" for number in range(17, 0, -2)]
        assert second.cursor is None
        assert view.find(where, ["-updated_at"], limit=1).keys == ["d-41"]
        assert view.explain(where, ["-updated_at"], limit=10).index == Deployments.indexes[0]
        assert view.count([("piped_id", "==", "a"), ("status", "==", 1)]) == 13


async def test_a_page_asked_again_is_of_now(log: Log, writer: Writer) -> None:
    """A page is remembered, but never longer than it is right: a change of any field of one of its rows is seen."""
    await writer.append_many([deployment(number) for number in range(9)])
    async with View.open(log, Deployments()) as view:
        where = [("project_id", "==", "p1")]
        for note in ("a", "b"):
            await view.wait_for(await writer.append(deployment(7, note=note)))
            for _ in range(3):
                assert view.find(where, ["-updated_at"], limit=2).rows[0]["note"] == note
        remembered = view.find(where, ["-updated_at"], limit=2)
        assert view.find(where, ["-updated_at"], limit=2).rows[0] is remembered.rows[0]
        view._decoded.clear()
        assert view.find(where, ["-updated_at"], limit=2).rows[0] is not remembered.rows[0]


async def test_what_was_asked_before_is_not_parsed_again(
    log: Log, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many others were asked meanwhile; nonsense is refused as ever, and pages are the caller's own."""
    await writer.append_many([deployment(number) for number in range(9)])
    parsed: list[object] = []
    parse = Query.parse

    def noted(*asked: Any) -> Query:
        parsed.append(asked)
        return parse(*asked)

    monkeypatch.setattr(Query, "parse", noted)
    async with View.open(log, Deployments()) as view:
        where = [("project_id", "==", "p1")]
        first, *_ = [view.find(where, ["-updated_at"], limit=2) for _ in range(3)]
        for number in range(2_000):
            view.find([("project_id", "==", f"p{number + 9}")], ["-updated_at"], limit=2)
        parsed.clear()
        again = view.find(where, ["-updated_at"], limit=2)
        assert (again, parsed) == (first, [])
        again.keys.clear()
        again.rows.clear()
        assert view.find(where, ["-updated_at"], limit=2) == first
        assert view.find(where, ["-updated_at"], limit=2, settled=True).keys == []
        for limit in (True, 0, "2", [2]):
            with pytest.raises(InvalidArgument):
                view.find(where, ["-updated_at"], limit=limit)  # type: ignore[arg-type]
        nonsense: list[Any] = [[], "nonsense", b"2"]
        for cursor in nonsense:
            with pytest.raises(InvalidCursor):
                view.find(where, ["-updated_at"], limit=2, cursor=cursor)
        parsed.clear()
        await view.wait_for(await writer.append(deployment(7, note="new")))
        assert [row.get("note") for row in view.find(where, ["-updated_at"], limit=2).rows] == ["new", None]
        assert parsed


async def test_questions_asked_are_bounded(log: Log, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no room is parsed again; answers are the same."""
    monkeypatch.setattr("projections.query._PLACES_MAX", 5)
    await writer.append_many([deployment(number) for number in range(9)])
    async with View.open(log, Deployments()) as view:
        for _ in range(4):
            for number in range(9):
                assert len(view.find([("project_id", "==", f"p{number}")]).keys) == {0: 5, 1: 4}.get(number, 0)
        assert len(view._asked._places) <= 5


async def test_a_settled_query_is_answered_at_the_watermark(log: Log, writer: Writer) -> None:
    """While rows are changed, added and deleted by what is pending, ``settled=True`` finds and counts those before."""
    receipt = await writer.append_many([deployment(number) for number in range(40)])
    async with View.open(log, Deployments()) as view:
        await view.settled(receipt, timeout=10)
        assert view.find(settled=True) == view.find()
        changed = [deployment(39, updated_at=0), deployment(37, project_id="p0"), deployment(41)]
        await view.wait_for(await writer.append_many([*changed, Event("Deployment", "d-35", "deleted", None)]))
        where = [("project_id", "==", "p1")]
        assert view.find(where, ["-updated_at"], limit=3).keys == ["d-41", "d-33", "d-31"]
        first = view.find(where, ["-updated_at"], limit=3, settled=True)
        assert (first.keys, first.rows[0]["updated_at"]) == (["d-39", "d-37", "d-35"], 39)
        second = view.find(where, ["-updated_at"], limit=3, cursor=first.cursor, settled=True)
        assert second.keys == ["d-33", "d-31", "d-29"]
        assert (view.count(where), view.count(where, settled=True)) == (19, 20)
        assert (view.count(), view.count(settled=True)) == (40, 40)
        assert [view.get(key, settled=True) for key in first.keys] == first.rows


async def test_a_cursor_of_another_view_is_refused(log: Log, writer: Writer) -> None:
    """A cursor is bound to its query, projection and store."""
    await writer.append_many([deployment(number) for number in range(4)])
    async with View.open(log, Deployments()) as view:
        cursor = view.find(order_by=["status"], limit=1).cursor
        with pytest.raises(InvalidCursor):
            view.find(order_by=["-status"], limit=1, cursor=cursor)


async def test_verdicts_are_told_when_settled(log: Log, writer: Writer) -> None:
    """A guard's rejection reaches whoever asks with the receipt, once the event has its final place."""
    async with View.open(log, Counters(), follow=True) as view:
        good = await writer.append(add(2))
        bad = await writer.append_many([add(1), add(-9), add(1)])
        assert await view.settled(bad, timeout=10) == {bad.first_seq + 1: Verdict("rejected", "-6 is below zero")}
        assert await view.settled(good, timeout=10) == {}
        assert view.get("c", settled=True) == {"total": 4}
        assert view.watermark >= bad.stamp


async def test_changes_are_told_before_and_after(log: Log, writer: Writer) -> None:
    """``changes`` yields each changed row with what it was and what it is."""
    async with View.open(log, Counters(), follow=True) as view, aclosing(view.changes()) as changes:
        told = asyncio.ensure_future(anext(changes))
        await writer.append(add(2))
        assert await told == Change("c", None, {"total": 2})
        await writer.append(add(3))
        assert await anext(changes) == Change("c", {"total": 2}, {"total": 5})


async def test_changes_count_from_the_call_not_from_the_first_step(log: Log, writer: Writer) -> None:
    """What happens between ``changes()`` and the first ``anext`` is told; who forgets the iterator is forgotten."""
    async with View.open(log, Counters()) as view:
        changes = view.changes()
        await view.wait_for(await writer.append(add(2)))
        assert await anext(changes) == Change("c", None, {"total": 2})
        await changes.aclose()
        del changes
        assert not view._subscriptions


async def test_changes_before_a_subscription_are_not_told_and_harm_no_index(log: Log, writer: Writer) -> None:
    """What rows were while an earlier subscriber listened is nobody's business later, least of all the indexes'."""
    async with View.open(log, Deployments()) as view:
        async with aclosing(view.changes()) as first:
            await view.wait_for(await writer.append(deployment(1)))
            assert (await anext(first)).key == "d-1"
        await view.wait_for(await writer.append(deployment(1, status=9)))
        assert view.find([("piped_id", "==", "a")], ["status"]).keys == ["d-1"]
        await view.wait_for(await writer.append(deployment(2)))
        assert view.find([("piped_id", "==", "a")], ["status"]).keys == ["d-2", "d-1"]
        async with aclosing(view.changes()) as second:
            await view.wait_for(await writer.append(deployment(3)))
            assert (await anext(second)).key == "d-3"


async def test_a_view_interrupted_within_a_run_never_folds_it_twice(log: Log, writer: Writer) -> None:
    """After a MemoryError nothing of the run is shown: the view says so from then on, and does not begin it again."""

    class Greedy(Counters):
        def apply(self, state: Any, event: StoredEvent) -> Any:
            if event.data == {"add": 2}:
                raise MemoryError
            return super().apply(state, event)

    async with View.open(log, Greedy()) as view:
        await writer.append_many([add(1), add(2), add(4)])
        with pytest.raises(MemoryError):
            await view.refresh()
        with pytest.raises(FoldFailed, match="interrupted within a run"):
            await view.refresh()
        assert view.get("c") is None, "all of an append or nothing"


async def test_two_views_at_the_same_place_have_the_same_digest(log: Log, writer: Writer) -> None:
    """P8: equal rows have equal digests, and another row another one."""
    await writer.append_many([deployment(number) for number in range(9)])
    async with View.open(log, Deployments()) as one, View.open(log, Deployments(), follow=True) as other:
        assert one.digest(pending=True) == other.digest(pending=True)
        await other.wait_for(await writer.append(deployment(3, status=9)))
        assert one.digest(pending=True) != other.digest(pending=True)


async def test_a_failing_fold_halts_its_view_and_no_other(log: Log, writer: Writer) -> None:
    """FoldFailed names the event; the view stays where it was, its neighbours go on."""

    class Broken(Counters):
        name = "broken"

        def apply(self, state: Any, event: StoredEvent) -> Any:
            raise ZeroDivisionError

    async with View.open(log, Broken()) as broken, View.open(log, Counters()) as counters:
        receipt = await writer.append(add(1))
        with pytest.raises(FoldFailed, match="seq=0"):
            await broken.wait_for(receipt)
        with pytest.raises(FoldFailed):
            await broken.refresh()
        await counters.wait_for(receipt)
        assert counters.get("c") == {"total": 1}


async def test_statistics_say_how_a_view_fares(log: Log, writer: Writer) -> None:
    """Rows, what is pending, and which session holds the watermark, in words."""
    async with View.open(log, Deployments()) as view:
        await view.wait_for(await writer.append(deployment(1)))
        statistics = view.statistics()
        assert (statistics.rows, statistics.pending_events) == (1, 1)
        assert statistics.memory_bytes > 0
        assert "writer=web-1" in repr(view) or "deployments" in repr(view)


class Things(Projection):
    name, kinds, fold = "things", frozenset({"Thing"}), "put"


@directed
async def test_a_view_with_too_much_pending_posts_a_tick(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """More events above the last entry than it will bear: one tick, and at the next look all of them are settled."""
    monkeypatch.setattr("projections.view.UNTICKED_EVENTS_MAX", 2)
    async with scene.machine("web").open() as web, web.writer("web") as writer:
        await writer.append_many(events("a", "b"))
        async with scene.machine("reader").open() as log, View.open(log, Things()) as view:
            assert scene.bodies() == ["Begin", "Open"]
            await writer.append(event("c"))
            await view.refresh()
            assert scene.bodies() == ["Begin", "Open", "Tick"]
            assert view.statistics().unticked_events == 3
            await view.refresh()
            assert view.statistics().pending_events == 0
            assert scene.bodies() == ["Begin", "Open", "Tick"]


@directed
async def test_a_view_that_may_not_write_says_what_waits_for_a_tick(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened read-only it creates nothing, keeps what is pending, and tells how much of it an entry would settle."""
    monkeypatch.setattr("projections.view.UNTICKED_EVENTS_MAX", 2)
    reader = scene.machine("reader")
    async with scene.machine("web").open() as web, web.writer("web") as writer:
        await writer.append_many(events("a", "b", "c"))
        async with reader.open(read_only=True) as log, View.open(log, Things()) as view:
            assert view.statistics().unticked_events == 3
    assert reader.script.count("create") == 0


@directed
async def test_a_following_view_outlives_a_writer_that_died_silently(scene: Scene) -> None:
    """Nobody waits for settled rows, the writer left no final and no tick: the view sees to it that W moves."""
    await die(scene.machine("web"), "a", "b")
    assert scene.bodies() == ["Begin", "Open"]
    async with scene.machine("reader").open(quick()) as log, View.open(log, Things(), follow=True) as view:
        assert view.statistics().pending_events == 2
        await until(lambda: view.statistics().pending_events == 0)
    assert scene.bodies() == ["Begin", "Open", "Tick"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"name": ""},
        {"version": 0},
        {"kinds": set()},
        {"kinds": "Deployment"},
        {"fold": "sum"},
        {"fold": "apply"},
        {"on_failure": "no"},
    ],
)
async def test_a_projection_that_cannot_be_used_is_refused(log: Log, attributes: dict[str, Any]) -> None:
    """The mistake is named before anything is read."""
    projection = type("Wrong", (Deployments,), attributes)()
    with pytest.raises(InvalidArgument, match="attribute="):
        View.open(log, projection)
