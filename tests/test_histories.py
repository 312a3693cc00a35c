"""P10 and P11 over random histories: from the beginning, from snapshots and from archives come the same rows.

And every object of a small store, damaged one after the other, is found out or done without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import logstore
from logstore import Log, LogStoreError
from logstore.filestore.memory import MemoryStore
from logstore.keys import EntryKey, RetiredKey, SegmentKey, StoreKey, parse_key
from projections import View
from tests.scene import Scene, directed, quick
from tests.test_keeper import age, keep, live_a_day, named_thing, opened
from tests.test_snapshots import Diary, DiaryAgain, Things, named

FLIGHTS: Final = 8 + 1  # what a writer may have under way, and the final above it
STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "snapshot", "close", "keep", "age", "day"]), st.integers(0, 6)
    ),
    min_size=4,
    max_size=25,
)


async def rows_from_the_beginning(scene: Scene) -> tuple[str, int]:
    """Digest and size of the view of a log that never lost anything: its objects, without what looked after them."""
    kept = MemoryStore()
    for name, data in scene.store.ever().items():
        if isinstance(parse_key(name), StoreKey | EntryKey | SegmentKey):
            await kept.create(name, data)
    async with logstore.open(kept, read_only=True) as log, View.open(log, Diary()) as view:
        return view.digest(pending=True), len(view)


async def play(scene: Scene, history: str, steps: list[tuple[str, int]]) -> None:
    """Live through the steps; whoever opens a view at the end has the rows that everybody has."""
    async with opened(scene.machine("web"), history) as log, View.open(log, Diary()) as view:
        async with log.writer("web") as writer, log.writer("piped") as other:
            for number, (step, which) in enumerate(steps):
                match step:
                    case "write":
                        events = [named_thing(which, number), named_thing(which + 1, -number)]
                        await (writer if which % 2 else other).append_many(events)
                    case "snapshot":
                        await view.snapshot()
                    case "close":
                        await log.close_chapter()
                    case "keep":
                        keeper = log.keeper()
                        await keeper.retire()
                        _ = [garbage async for garbage in keeper.collect()]
                    case "age":
                        await age(0.5)
                    case "day":  # all that makes a chapter's history dispensable
                        await log.close_chapter()
                        await view.snapshot()
                        await view.snapshot()
                        await age()
        await view.refresh()
        expected = await rows_from_the_beginning(scene)
        assert (view.digest(pending=True), len(view)) == expected
    async with opened(scene.machine("reader"), history) as log:
        async with View.open(log, Diary()) as view:  # from a snapshot, if there is one
            assert (view.digest(pending=True), len(view), view.damage) == (*expected, [])
        if history == "archive":
            async with View.open(log, DiaryAgain()) as view:  # from the beginning, through archives
                assert (view.digest(pending=True), len(view)) == expected


@pytest.mark.parametrize("history", ["full", "drop", "archive"])
def test_snapshot_and_rest_archive_and_rest_are_the_whole(history: str) -> None:
    """Whatever was snapshotted, closed, retired and collected in between, whoever opens a view has the same rows."""
    retired = 0

    async def count(scene: Scene, steps: list[tuple[str, int]]) -> None:
        nonlocal retired
        await play(scene, history, steps)
        retired += len(named(scene, RetiredKey))

    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(STEPS)
    @example([("write", 1), ("day", 0), ("keep", 0), ("write", 2)])  # a chapter is retired
    def any_history(steps: list[tuple[str, int]]) -> None:
        directed(count)(steps)

    any_history()
    assert (retired > 0) == (history != "full")


# A small store, damaged -------------------------------------------------------------------------

DAMAGES: Final[dict[str, Callable[[bytes], bytes | None]]] = {
    "gone": lambda _: None,
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "zeros": lambda data: bytes(len(data)),
    "flipped": lambda data: data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 4]) + data[len(data) // 3 + 1 :],
}


def may_vanish(contents: dict[str, bytes]) -> set[str]:
    """P12's exception: the last few slots of each session that nothing names later, and the last roster entry."""
    slots: dict[str, list[str]] = {}
    for name in contents:
        if isinstance(parse_key(name), SegmentKey):
            slots.setdefault(name.rsplit("/", 1)[0], []).append(name)
    lasts = {name for names in slots.values() for name in sorted(names)[-FLIGHTS:]}
    return lasts | {max(name for name in contents if isinstance(parse_key(name), EntryKey))}


async def read_all(log: Log) -> list[Any]:
    """The rows of a view, and every event that is kept."""
    async with View.open(log, Things()) as view:
        rows = (view.digest(pending=True), len(view))
    return [rows, *[event.order async for event in log.read(await log.oldest())]]


@pytest.mark.parametrize("history", ["drop", "archive"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_each_object_of_a_small_store_is_found_out_or_done_without(history: str, damage: str) -> None:
    """P12: with any one object gone or damaged, a view and a reading are right, or raise an error that names it."""

    @directed
    async def play(scene: Scene) -> None:
        for number in range(1, 4):
            await live_a_day(scene, number, history=history, snapshots=2)
            await age()
            await keep(scene, history=history)
        await age()
        await keep(scene, history=history)
        assert len(named(scene, RetiredKey)) >= 2
        contents = scene.store.contents()
        async with scene.machine("before").open(quick(), read_only=True) as log:
            true = await read_all(log)
        wrong: list[str] = []
        for number, (name, data) in enumerate(contents.items()):
            scene.store.lose(name)
            if (damaged := DAMAGES[damage](data)) is not None:
                scene.store.restore(name, damaged)
            try:
                async with scene.machine(f"victim{number}").open(quick(), read_only=True) as log:
                    if await read_all(log) != true:
                        wrong.append(name)
            except LogStoreError as error:
                if name not in str(error):
                    wrong.append(f"{name}: {error}")
            scene.store.restore(name, data)
        assert set(wrong) <= (may_vanish(contents) if damage == "gone" else set()), wrong

    play()
