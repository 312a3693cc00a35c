"""Stage logs: every block once, whoever writes and whatever becomes of requests; read from anywhere, cheaply.

What retention, a check and copies make of them is in test_stage_retention.py and test_stage_upkeep.py.
"""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import logstore
from logstore import (
    Block,
    Conflict,
    Corrupt,
    FollowSettings,
    InvalidArgument,
    LimitExceeded,
    Log,
    LogSettings,
    Missing,
    NotFound,
    RetrySettings,
    Stage,
    StageId,
    StageLogs,
    Unavailable,
)
from logstore.filestore import MemoryStore
from logstore.indices import Indices
from logstore.keys import StagePageKey, parse_key, stage_page_key
from logstore.stagepage import HEAD_BYTES, PageHead, decode_page, encode_page, require_follows
from logstore.testing import FaultyStore
from logstore.testing.faults import Fault
from tests.scene import Gate, Machine, Scene, directed, hang_after, lose, quick, refuse, until

GRACE_MS: Final = 40_000
ID: Final = StageId("d/1", "apply", 0)
SETTINGS: Final = LogSettings(follow=FollowSettings(poll_ms_min=1, poll_ms_max=1))


def block(index: int, text: str | None = None) -> Block:
    """A block that can be told from all others by its index."""
    return Block(index, f"line {index}" if text is None else text, index % 3, 1_700_000_000_000 + index)


def blocks(*indices: int) -> list[Block]:
    return [block(index) for index in indices]


@asynccontextmanager
async def opened(machine: Machine, **arguments: Any) -> AsyncIterator[Log]:
    async with machine.open(quick(**arguments), grace_ms=GRACE_MS) as log:
        yield log


def stage_of(log: Log, stage: StageId = ID) -> Stage:
    return StageLogs(log).stage(stage.deployment, stage.stage, stage.retry)


@asynccontextmanager
async def a_stage(store: MemoryStore | None = None) -> AsyncIterator[tuple[Log, Stage]]:
    """A stage log in a store of its own."""
    async with logstore.open(store or MemoryStore(), settings=SETTINGS) as log:
        yield log, stage_of(log)


def name_of(number: int, stage: StageId = ID) -> str:
    return stage_page_key(StagePageKey(stage, number))


def chain(contents: dict[str, bytes], stage: StageId = ID) -> list[list[int]]:
    """The indices of each page of a stage log in a bucket, read by a reader that has all of it and checks all of it."""
    before: PageHead | None = None
    pages, stored = list[list[int]](), Indices()
    while (data := contents.get(name_of(len(pages), stage))) is not None:
        page = decode_page(StagePageKey(stage, len(pages)), data)
        require_follows(page, before)
        indices = [each.index for each in page.blocks]
        assert not [index for index in indices if index in stored], "no block is in two pages"
        stored.add(indices)
        stored._check()
        assert (page.head.run, page.head.stop) == stored.last
        before = page.head
        pages.append(indices)
    named = [key.stage for key in map(parse_key, contents) if isinstance(key, StagePageKey)]
    assert named.count(stage) == len(pages), "there is no page behind a gap"
    return pages


async def contents_of(store: MemoryStore) -> dict[str, bytes]:
    return {listed.key: (await store.get(listed.key)).data async for listed in store.list("stagelogs/")}


async def fetched(stage: Stage, offset: int = 0) -> tuple[list[int], bool]:
    found, completed = await stage.fetch(offset)
    return [each.index for each in found], completed


async def followed(stage: Stage, offset: int = 0) -> list[int]:
    return [each.index async for each in stage.follow(offset)]


# What one sees ----------------------------------------------------------------------------------


async def test_what_was_appended_is_fetched() -> None:
    """Blocks come back as they were, by index, whatever the order in which they came; also to another process."""
    store = MemoryStore()
    odd = Block(2, "naïve \U0001f680\x00\r\n", 255, 0)
    async with a_stage(store) as (_, stage):
        await stage.append([block(3), block(1)])
        await stage.append([odd])
        assert await stage.fetch() == ([block(1), odd, block(3)], False)
    async with a_stage(store) as (_, stage):
        assert await stage.fetch() == ([block(1), odd, block(3)], False)
        assert await stage.fetch(2) == ([odd, block(3)], False)
        assert await stage.fetch(4) == ([], False)
        assert await stage.fetch(2**63) == ([], False)


async def test_what_nobody_wrote_is_not_found() -> None:
    """Neither an empty answer nor a complete one: NotFound names the stage log; what is complete and empty is found."""
    async with a_stage() as (log, stage):
        with pytest.raises(NotFound, match="d/1/apply/0"):
            await stage.fetch()
        await stage_of(log, StageId("d/1", "apply", 1)).complete()
        with pytest.raises(NotFound):
            await stage.fetch()
        assert await fetched(stage_of(log, StageId("d/1", "apply", 1))) == ([], True)


async def test_a_block_that_is_stored_is_not_stored_again() -> None:
    """By the same object or another, in the last range of indices, before it, or twice in one call: the first stays."""
    store = MemoryStore()
    async with a_stage(store) as (log, stage):
        await stage.append(blocks(5, 6))
        await stage.append([block(6, "other"), block(7), block(7, "another")])
        await stage.append(blocks(100, 101))
        await stage.append([block(100, "other")])
        await stage_of(log).append([block(101, "other"), block(102)])
        await stage_of(log).append([block(5, "other"), block(50), block(101, "other")])
        await stage.append([block(50, "other"), block(4)])
        assert (await stage.fetch())[0] == blocks(4, 5, 6, 7, 50, 100, 101, 102)
    assert chain(await contents_of(store)) == [[5, 6], [7], [100, 101], [102], [50], [4]]


async def test_what_a_process_forgot_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few ranges of indices are remembered, no block is stored twice."""
    monkeypatch.setattr("logstore.stagewriter.RANGES_MAX", 2)
    store, rng, sent = MemoryStore(), random.Random(1), set[int]()
    async with a_stage(store) as (_, stage):
        for _ in range(60):
            indices = rng.sample(range(40), 3)
            sent.update(indices)
            await stage.append(blocks(*indices))
    assert sorted(index for page in chain(await contents_of(store)) for index in page) == sorted(sent)


async def test_a_complete_stage_log_takes_nothing_new() -> None:
    """A new block is a Conflict of one clear line, from any process; what is stored may be sent and completed again."""
    store = MemoryStore()
    async with a_stage(store) as (log, stage):
        await stage.append(blocks(0, 1))
        other = stage_of(log)
        await other.append(blocks(0))
        await stage.complete(blocks(1, 2))
        for one in (stage, other, stage_of(log)):
            with pytest.raises(
                Conflict, match=r"^this stage log is complete, [^\n]* index=3; write under another retry$"
            ):
                await one.append(blocks(2, 3))
            with pytest.raises(Conflict, match="index=4"):
                await one.complete(blocks(4))
            await one.append(blocks(0, 2))
            await one.complete()
            await one.complete(blocks(1))
            assert await fetched(one, 1) == ([1, 2], True)
    assert chain(await contents_of(store)) == [[0, 1], [2]]


@directed
async def test_only_the_late_call_is_refused(scene: Scene) -> None:
    """Of calls that wait together those fail that bring something new to a stage log that is complete, and no other."""
    async with opened(scene.machine("web")) as log:
        stage = stage_of(log)
        calls = [
            stage.append(blocks(0)),
            stage.complete(blocks(1)),
            stage.append(blocks(1)),
            stage.append(blocks(2)),
            stage.complete(),
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [type(None), type(None), type(None), Conflict, type(None)]
        assert await fetched(stage) == ([0, 1], True)
    assert chain(scene.store.contents()) == [[0], [1]]


async def test_the_last_range_is_right_whoever_extends_it() -> None:
    """A writer that knows the last range alone learns from another's page that it has grown downwards."""
    store = MemoryStore()
    async with a_stage(store) as (log, stage):
        await stage.append(blocks(*range(5, 99)))
        await stage.append(blocks(100, 101))
        late = stage_of(log)
        await late.append(blocks(101, 102))
        await stage.append(blocks(99))
        await late.append(blocks(103))
        await late.append(blocks(104, 50))
    assert chain(await contents_of(store))[2:] == [[102], [99], [103], [104]]


BAD: Final[list[Any]] = [
    [],
    [None],
    [(1, "text", 0, 0)],
    [Block(-1, "")],
    [Block(2**63 - 1 + 1, "")],
    [Block(True, "")],
    [Block(1.0, "")],  # type: ignore[arg-type]
    [Block(1, b"bytes")],  # type: ignore[arg-type]
    [Block(1, "\ud800")],
    [Block(1, "", 256)],
    [Block(1, "", -1)],
    [Block(1, "", 0, -1)],
    [Block(1, "", 0, 1.5)],  # type: ignore[arg-type]
]


@pytest.mark.parametrize("bad", BAD, ids=repr)
async def test_what_cannot_be_stored_is_refused(bad: list[Any]) -> None:
    """InvalidArgument, before anything is sent."""
    async with a_stage() as (log, stage):
        before = log.requests()
        with pytest.raises(InvalidArgument):
            await stage.append(bad)
        with pytest.raises(InvalidArgument):
            await stage.append([block(0), *bad[:1], Block(-5, "")])
        assert (log.requests() - before).requests == 0


async def test_too_much_at_once_is_refused() -> None:
    """65,536 blocks or 8 MiB of text are taken; one more is LimitExceeded, which says how much is."""
    store = MemoryStore()
    async with a_stage(store) as (_, stage):
        await stage.append([Block(index, "") for index in range(65_536)])
        await stage.append([Block(70_000, "é" * (4 << 20))])
        with pytest.raises(LimitExceeded, match="limit=65536"):
            await stage.append([Block(index, "") for index in range(65_537)])
        with pytest.raises(LimitExceeded, match="limit=8388608"):
            await stage.append([Block(70_001, "é" * (4 << 20)), Block(70_002, "x")])
        await stage.append([Block(index, "\x00" * 4) for index in range(100_000, 165_536)])
        assert len((await stage.fetch())[0]) == 2 * 65_536 + 1
    assert len(chain(await contents_of(store))) == 3


@pytest.mark.parametrize(
    ("deployment", "stage", "retry"),
    [
        ("", "s", 0),
        ("d", "", 0),
        ("d", "s" * 201, 0),
        ("d", "s", -1),
        ("d", "s", 10**10),
        ("d", "s", True),
        (1, "s", 0),
    ],
)
async def test_names_that_cannot_be_are_refused(deployment: Any, stage: Any, retry: Any) -> None:
    """At once, and not at the first request."""
    async with a_stage() as (log, _):
        with pytest.raises(InvalidArgument):
            StageLogs(log).stage(deployment, stage, retry)
        with pytest.raises(InvalidArgument):
            await stage_of(log).fetch(-1)


async def test_who_may_only_read_writes_nothing() -> None:
    """On a log opened read-only append and complete are refused, and fetch works."""
    store = MemoryStore()
    async with a_stage(store) as (_, stage):
        await stage.append(blocks(1))
    async with logstore.open(store, read_only=True) as log:
        for work in (stage_of(log).append(blocks(2)), stage_of(log).complete()):
            with pytest.raises(InvalidArgument, match="read-only"):
                await work
        assert await fetched(stage_of(log)) == ([1], False)


async def test_stage_logs_are_told_apart_and_listed() -> None:
    """Odd names and retries are stage logs of their own; a deployment's are listed in the order of names."""
    ids = [StageId("a", "b/c", 0), StageId("a", "b/c", 10), StageId("a", "..", 0), StageId("a/b", "c", 0)]
    async with a_stage() as (log, _):
        for number, stage in enumerate(ids):
            await stage_of(log, stage).append(blocks(number))
        for number, stage in enumerate(ids):
            assert await fetched(stage_of(log, stage)) == ([number], False)
        assert await StageLogs(log).stages("a") == [ids[2], ids[0], ids[1]]
        assert await StageLogs(log).stages("a/b") == [ids[3]]
        assert await StageLogs(log).stages("b") == []


async def test_follow_ends_with_the_stage_log() -> None:
    """It waits for a stage log that nobody has begun, yields what comes, once, from an offset on, and ends."""
    async with a_stage() as (log, stage):
        following = [asyncio.create_task(followed(stage_of(log), offset)) for offset in (0, 3)]
        await asyncio.sleep(0.005)
        for number in range(6):
            await stage.append(blocks(number))
            await asyncio.sleep(0)
        await stage.complete(blocks(6))
        assert [await task for task in following] == [[0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6]]
        assert await followed(stage_of(log), 5) == [5, 6]


async def test_fetching_while_it_grows_misses_nothing() -> None:
    """Whoever asks from where the last answer ended gets each block once; an older offset finds what came late."""
    async with a_stage() as (log, stage):
        reader, seen = stage_of(log), list[int]()
        for first in range(0, 100, 4):
            await stage.append(blocks(*range(first, first + 4)))
            seen += (await fetched(reader, len(seen)))[0]
        assert seen == list(range(100))
        assert await fetched(reader, 37) == (list(range(37, 100)), False)
        await stage.append(blocks(200))
        await stage.append(blocks(150))
        assert await fetched(reader, 120) == ([150, 200], False)
        assert await fetched(reader, 180) == ([200], False)


# What it costs ----------------------------------------------------------------------------------


async def test_bytes_written_grow_with_the_blocks_alone() -> None:
    """An increment every few seconds and everything again now and then: no byte is written for what is stored."""
    store, written = MemoryStore(), list[int]()
    async with a_stage(store) as (log, stage):
        await stage.append(blocks(0))
        before = log.requests()
        for number in range(1, 401):
            await stage.append(blocks(number))
            if number % 20 == 0:
                await stage.append(blocks(*range(number + 1)))
                written.append((log.requests() - before).bytes_in)
        requests = log.requests() - before
    assert requests.create.requests == 400
    assert requests.get.requests == 0
    per_twenty = [after - before for before, after in zip([0, *written], written, strict=False)]
    assert max(per_twenty) < 20 * (HEAD_BYTES + 60)
    assert max(per_twenty) <= 1.05 * min(per_twenty)


@directed
async def test_requests_are_as_said(scene: Scene) -> None:
    """One PUT for an append, one GET for a poll; once a minute one GET more; one each half grace."""
    writer, reader = scene.machine("writer"), scene.machine("reader")
    async with opened(writer) as log, opened(reader) as other:
        stage, reading = stage_of(log), stage_of(other)
        await stage.append(blocks(0))
        await reading.fetch()
        writer.script.asked.clear()
        reader.script.asked.clear()
        for number in range(1, 4):
            await stage.append(blocks(number))
            await reading.fetch(number)
            await reading.fetch(number + 1)
        assert writer.script.asked == [("create", name_of(number)) for number in (1, 2, 3)]
        assert reader.script.count("get", "stagelogs/") == len(reader.script.asked)
        assert len(reader.script.asked) < 3 * 6
        reader.script.asked.clear()
        for _ in range(30):
            assert await reading.fetch(4) == ([], False)
        assert reader.script.asked == [("get", name_of(4))] * 30
        reader.script.asked.clear()
        await asyncio.sleep(60)
        for _ in range(30):
            await reading.fetch(4)
        assert sorted(reader.script.asked) == [*[("get", name_of(4))] * 30, ("get", name_of(5)), ("get", gone_name())]
        await stage.complete()
        await reading.fetch(4)
        reader.script.asked.clear()
        for _ in range(30):
            assert await reading.fetch(4) == ([], True)
        assert reader.script.asked == []


def gone_name(stage: StageId = ID) -> str:
    return name_of(0, stage)[:-10] + "gone"


@pytest.mark.parametrize("pages", [1, 2, 7, 64, 1_000])
async def test_a_high_offset_is_found_in_few_requests(pages: int) -> None:
    """Where blocks came in order, a fetch from far behind reads a few heads and the pages that it returns."""
    store = MemoryStore()
    async with a_stage(store) as (_, stage):
        for number in range(pages):
            await stage.append([Block(number, "x" * 1_000 + str(number))])
    for offset in sorted({0, pages // 2, pages - 1, pages}):
        async with a_stage(store) as (log, stage):
            before = log.requests()
            found, _ = await stage.fetch(offset)
            requests = log.requests() - before
            assert [each.index for each in found] == list(range(offset, pages))
            probes = 2 * pages.bit_length() + 1
            assert requests.get.requests <= len(found) + probes + 7 + 4, offset
            assert requests.list.requests == 0
            assert requests.bytes_out < probes * HEAD_BYTES + (len(found) + 1) * 400


@pytest.mark.parametrize("pages", [1, 64, 1_000])
async def test_a_writer_that_comes_back_reads_heads_only(pages: int) -> None:
    """It sends everything again and something new: few GETs, one PUT; nothing but heads is fetched."""
    store = MemoryStore()
    async with a_stage(store) as (_, stage):
        for number in range(pages):
            await stage.append([Block(number, "x" * 1_000 + str(number))])
    async with a_stage(store) as (log, stage):
        before = log.requests()
        await stage.append(blocks(*range(pages + 1)))
        requests = log.requests() - before
        assert requests.create.requests == 1
        assert requests.get.requests <= 2 * pages.bit_length() + 4
        assert requests.bytes_out <= requests.get.requests * HEAD_BYTES


async def test_a_writer_far_behind_catches_up_by_reading() -> None:
    """It creates in vain twice at most, however many pages others have stored since."""
    async with a_stage() as (log, stage):
        behind = stage_of(log)
        await behind.append(blocks(0))
        for number in range(1, 101):
            await stage.append(blocks(number))
        before = log.requests()
        await behind.append(blocks(101))
        requests = log.requests() - before
        assert (requests.create.requests, requests.create.refused) == (3, 2)
        assert requests.get.requests < 100 + 16


async def test_thousands_of_small_stage_logs() -> None:
    """3,000 stage logs of two appends and a completion: three PUTs and three GETs each, and they are all there."""
    store = MemoryStore()
    ids = [StageId(f"d-{number // 5}", f"s-{number % 5}", 0) for number in range(3_000)]
    async with a_stage(store) as (log, _):
        before = log.requests()
        for stage in ids:
            one = stage_of(log, stage)
            await one.append(blocks(0, 1))
            await one.append(blocks(1, 2))
            await one.complete()
        requests = log.requests() - before
        assert (requests.create.requests, requests.get.requests, requests.list.requests) == (9_000, 9_000, 0)
        for stage in ids[::100]:
            assert await fetched(stage_of(log, stage)) == ([0, 1, 2], True)
        assert [finding async for finding in log.check()] == []


async def test_a_large_stage_log_is_followed_in_little_memory() -> None:
    """Followed from end to end a log of 48 MB takes a fraction of that, one GET per page and a few."""
    store, rng = MemoryStore(), random.Random(1)
    text = [rng.randbytes(50_000).hex() for _ in range(8)]
    async with a_stage(store) as (log, stage):
        for page in range(60):
            await stage.append([Block(page * 8 + i, text[i] + str(page)) for i in range(8)])
        await stage.complete()
        before, count, size = log.requests(), 0, 0
        tracemalloc.start()
        try:
            async for each in stage_of(log).follow():
                count, size = count + 1, size + len(each.text)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        requests = log.requests() - before
    assert (count, size > 48_000_000) == (480, True)
    assert peak < 24_000_000
    assert requests.get.requests <= 61 + 8 + 1


@directed
async def test_concurrent_calls_share_pages(scene: Scene) -> None:
    """A hundred calls at once need a few creations; who comes while one is under way goes with the next."""
    machine = scene.machine("web")
    async with opened(machine) as log:
        stage = stage_of(log)
        await asyncio.gather(*(stage.append(blocks(number, number + 1)) for number in range(100)))
        assert machine.script.count("create", "stagelogs/") <= 2
    assert sorted(index for page in chain(scene.store.contents()) for index in page) == list(range(101))


@directed
async def test_calls_that_do_not_fit_into_one_page_take_several(scene: Scene) -> None:
    """A page holds what one call may carry; calls that wait together are cut there, none is refused."""
    machine = scene.machine("web")
    async with opened(machine) as log:
        stage = stage_of(log)
        calls = [[Block(10_000 * call + i, "x") for i in range(10_000)] for call in range(20)]
        await asyncio.gather(stage.append(blocks(10**6)), *(stage.append(call) for call in calls))
    pages = chain(scene.store.contents())
    assert [len(page) for page in pages] == [1, 60_000, 60_000, 60_000, 20_000]


# What may go wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [lose, refuse, hang_after])
@directed
async def test_an_answer_that_is_lost_is_no_second_block(scene: Scene, act: Any) -> None:
    """Whatever became of the first attempt, the call returns when the block is stored, and it is stored once."""
    machine = scene.machine("web")
    async with opened(machine) as log:
        stage = stage_of(log)
        await stage.append(blocks(0))
        for number in (1, 2):
            machine.script.on("create", "stagelogs/", act)
            await stage.append(blocks(number))
    assert chain(scene.store.contents()) == [[0], [1], [2]]


@directed
async def test_what_lands_late_is_met(scene: Scene) -> None:
    """An append that was told Unavailable is tried again with more: what lands behind its back is not stored twice."""
    machine, gate = scene.machine("web"), Gate()
    async with opened(machine) as log:
        stage = stage_of(log)
        await stage.append(blocks(0))
        machine.script.on("create", "stagelogs/", gate.late, times=100)
        with pytest.raises(Unavailable):
            await stage.append(blocks(1, 2))
        machine.script.clear()
        machine.script.on("create", "stagelogs/", gate.before)
        again = asyncio.create_task(stage.append(blocks(1, 2, 3)))
        await asyncio.sleep(0.1)
        await gate.landed()
        await again
        await stage.append(blocks(2, 4))
    assert chain(scene.store.contents()) == [[0], [1, 2], [3], [4]]


@directed
async def test_two_writers_of_one_number(scene: Scene) -> None:
    """Each believes that the number is free: one has it; the other drops what that one stored, and goes on."""
    one, other, gate = scene.machine("one"), scene.machine("other"), Gate()
    async with opened(one) as log, opened(other) as other_log:
        stage, rival = stage_of(log), stage_of(other_log)
        await stage.append(blocks(0))
        await rival.append(blocks(0, 1))
        one.script.on("create", "stagelogs/", gate.before)
        late = asyncio.create_task(stage.append(blocks(1, 2, 3)))
        await gate.met()
        await rival.append(blocks(2))
        gate.open()
        await late
    assert chain(scene.store.contents()) == [[0], [1], [2], [3]]


@directed
async def test_completion_and_append_race(scene: Scene) -> None:
    """An append that meets a completion at its number is refused; one that was first is in, and completion follows."""
    one, other, gate = scene.machine("one"), scene.machine("other"), Gate()
    async with opened(one) as log, opened(other) as other_log:
        stage, rival = stage_of(log), stage_of(other_log)
        await stage.append(blocks(0))
        await rival.append(blocks(1))
        other.script.on("create", "stagelogs/", gate.before)
        completing = asyncio.create_task(rival.complete(blocks(3)))
        await gate.met()
        await stage.append(blocks(2))
        gate.open()
        await completing
        with pytest.raises(Conflict):
            await stage.append(blocks(4))
    assert chain(scene.store.contents()) == [[0], [1], [2], [3]]


@directed
async def test_a_call_that_is_interrupted_leaves_the_others_whole(scene: Scene) -> None:
    """The one that writes for all gives up: they are stored all the same, and it may be or not."""
    machine, gate = scene.machine("web"), Gate()
    async with opened(machine) as log:
        stage = stage_of(log)
        await stage.append(blocks(0))
        machine.script.on("create", "stagelogs/", gate.before)
        calls = [asyncio.create_task(stage.append(blocks(number))) for number in (1, 2, 3)]
        await gate.met()
        calls[0].cancel()
        await asyncio.sleep(0.01)
        machine.script.on("create", "stagelogs/", gate.before)
        gate.open()
        calls[2].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        await calls[1]
        found, _ = await fetched(stage)
        assert {0, 2} <= set(found)
        await stage.append(blocks(1, 3))
    assert sorted(index for page in chain(scene.store.contents()) for index in page) == [0, 1, 2, 3]


@pytest.mark.parametrize("lands", [False, True])
def test_a_writer_may_die_at_any_request(lands: bool) -> None:
    """Killed before or after any of its requests: what it was told is stored; who sends all again stores all once."""

    @directed
    async def play(scene: Scene) -> None:
        requests = 0
        for dies_at in range(9):
            stage, told = StageId("d", f"s-{dies_at}", 0), list[int]()
            machine, gate = scene.machine(f"web-{dies_at}"), Gate()

            async def live(machine: Machine = machine, stage: StageId = stage, told: list[int] = told) -> None:
                async with opened(machine) as log:
                    one = stage_of(log, stage)
                    for number in range(4):
                        await one.append(blocks(number, number + 1))
                        told.append(number)
                    await one.complete(blocks(5))
                    told.append(5)

            _on_request(machine, f"s-{dies_at}", dies_at, gate.after if lands else gate.before)
            living = machine.start(live())
            await until(lambda: bool(gate.held) or living.done(), 100)  # noqa: B023  looked at before the next turn
            machine.process.crash()
            requests += gate.held
            async with opened(scene.machine(f"again-{dies_at}")) as log:
                one = stage_of(log, stage)
                if told:
                    assert set(told) <= set((await fetched(one))[0])
                await one.complete(blocks(*range(6)))
                assert await fetched(stage_of(log, stage)) == ([0, 1, 2, 3, 4, 5], True)
            chain(scene.store.contents(), stage)
        assert requests == 8, "it was killed at each of them, and the last time at none"

    play()


def _on_request(machine: Machine, part: str, number: int, act: Any) -> None:
    """Let the request with this number, of those whose key contains ``part``, meet ``act``."""
    passed = 0

    async def meet(carry: Any) -> Any:
        nonlocal passed
        passed += 1
        return await (act(carry) if passed == number + 1 else carry())

    for verb in ("get", "create"):
        machine.script.on(verb, part, meet, times=10**9)


# Damage -----------------------------------------------------------------------------------------


async def damaged(store: MemoryStore, name: str, data: bytes | None) -> None:
    await store.delete(name)
    if data is not None:
        await store.create(name, data)


async def test_a_changed_page_is_named() -> None:
    """Any flipped bit, any truncation, bytes behind: Corrupt, with the name, to who reads and who writes behind it."""
    store = MemoryStore()
    async with a_stage(store) as (_, stage):
        for number in range(3):
            await stage.append(blocks(number))
    whole = (await store.get(name_of(1))).data
    spoiled = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 3)]
    spoiled += [whole[:size] for size in (0, 1, 12, HEAD_BYTES, len(whole) - 1)] + [whole + b"x", bytes(len(whole))]
    for data in spoiled:
        await damaged(store, name_of(1), data)
        async with a_stage(store) as (_, stage):
            with pytest.raises(Corrupt, match=name_of(1)):
                await stage.fetch()
            with pytest.raises(Corrupt, match=name_of(1)):
                await followed(stage)
    await damaged(store, name_of(1), whole)
    last = (await store.get(name_of(2))).data
    await damaged(store, name_of(2), bytes([last[0], last[1] ^ 1]) + last[2:])
    async with a_stage(store) as (_, stage):
        with pytest.raises(Corrupt, match=name_of(2)):
            await stage.append(blocks(3))


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
async def test_a_lost_page_is_named(lost: int) -> None:
    """A page that is gone, and has a later one, is Missing, never the end: to who reads, follows, or would write."""
    store = MemoryStore()
    async with a_stage(store) as (_, stage):
        for number in range(5):
            await stage.append(blocks(number))
    await damaged(store, name_of(lost), None)
    before = await contents_of(store)
    async with a_stage(store) as (log, stage):
        with pytest.raises(Missing, match=name_of(lost)):
            await stage.fetch()
        with pytest.raises(Missing, match=name_of(lost)):
            await followed(stage_of(log))
        with suppress(Missing):  # galloping over heads may pass it by; then what is written comes behind the end
            await stage_of(log).append(blocks(5))
    assert name_of(lost) not in await contents_of(store)
    assert (await contents_of(store)).items() >= before.items()


@directed
async def test_a_page_lost_before_an_open_reader_is_noticed_within_a_minute(scene: Scene) -> None:
    """It waits for a page that was stored and lost while others wrote on: Missing, not silence."""
    async with opened(scene.machine("web")) as log, opened(scene.machine("reader")) as other:
        stage, reader = stage_of(log), stage_of(other)
        await stage.append(blocks(0))
        await reader.fetch()
        following = asyncio.create_task(followed(stage_of(other)))
        await asyncio.sleep(5)
        scene.store.lose(name_of(0))
        await stage.append(blocks(1))
        scene.store.lose(name_of(1))
        await stage.append(blocks(2))
        await asyncio.sleep(61)
        with pytest.raises(Missing, match=name_of(1)):
            await reader.fetch(1)
        with pytest.raises(Missing, match=name_of(1)):
            await following


async def test_a_page_of_another_stage_log_is_damage() -> None:
    """Moved or copied, a page is not taken for one of this stage log, nor one of another chain with the same name."""
    store = MemoryStore()
    other = StageId("d/1", "apply", 1)
    async with a_stage(store) as (log, stage):
        await stage.append(blocks(0))
        await stage_of(log, other).append(blocks(0))
        await stage_of(log, other).append(blocks(1))
        await damaged(store, name_of(1), (await store.get(name_of(1, other))).data)
        with pytest.raises(Corrupt, match="another's name"):
            await stage_of(log).fetch()
        data, _ = encode_page(StagePageKey(ID, 1), blocks(1), run=0, stop=2, previous=b"\x01" * 32)
        await damaged(store, name_of(1), data)
        for work in (stage_of(log).fetch(), followed(stage_of(log)), stage.append(blocks(1))):
            with pytest.raises(Corrupt, match="does not continue"):
                await work


async def test_a_page_that_says_more_than_is_stored_is_damage() -> None:
    """What a head tells of the chain is held against what was read; a page behind the complete one is nobody's."""
    store = MemoryStore()
    async with a_stage(store) as (log, stage):
        await stage.append(blocks(0))
        head = decode_page(StagePageKey(ID, 0), (await store.get(name_of(0))).data).head
        data, _ = encode_page(StagePageKey(ID, 1), blocks(1), run=0, stop=9, previous=head.digest)
        await store.create(name_of(1), data)
        with pytest.raises(Corrupt, match="other indices"):
            await stage_of(log).fetch()


# Any order --------------------------------------------------------------------------------------

Appends = list[tuple[int, list[int]]]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 12), min_size=1, max_size=4)), max_size=14),
    st.integers(0, 13),
    st.randoms(use_true_random=False),
)
@settings(max_examples=150, deadline=None)
async def test_any_interleaving_of_writers_stores_the_union(appends: Appends, offset: int, rng: random.Random) -> None:
    """Three processes append whatever they like, at once and again: a fetch is the union by index, from any offset."""
    store = MemoryStore()
    async with a_stage(Yielding(store, rng)) as (log, _):
        writers = [stage_of(log) for _ in range(3)]
        await asyncio.gather(*(writers[who].append(blocks(*indices)) for who, indices in appends))
        union = sorted({index for _, indices in appends for index in indices})
        if union:
            assert await stage_of(log).fetch(offset) == (blocks(*[i for i in union if i >= offset]), False)
            assert sorted(await followed_to_the_end(log, offset)) == [index for index in union if index >= offset]
    assert sorted(index for page in chain(await contents_of(store)) for index in page) == union


async def followed_to_the_end(log: Log, offset: int) -> list[int]:
    stage = stage_of(log)
    await stage_of(log).complete()
    return await followed(stage, offset)


class Yielding(MemoryStore):
    """Lets others run before and after each request, as a network does."""

    def __init__(self, store: MemoryStore, rng: random.Random) -> None:
        self.__dict__.update(store.__dict__)
        self._rng = rng

    async def create(self, key: str, data: bytes) -> int | None:
        await self._pause()
        try:
            return await super().create(key, data)
        finally:
            await self._pause()

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Any:
        await self._pause()
        try:
            return await super().get(key, start, stop)
        finally:
            await self._pause()

    async def _pause(self) -> None:
        for _ in range(self._rng.randrange(3)):
            await asyncio.sleep(0)


class Faults(RuleBasedStateMachine):
    """Processes come and go on a store that refuses, loses answers and lets creations land late."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = MemoryStore()
        self.loop.run_until_complete(self._make())
        chances = {("create", fault): 0.15 for fault in (Fault.REFUSE, Fault.LOSE_ANSWER, Fault.LAND_LATE)}
        self.faulty = FaultyStore(self.store, rng=random.Random(7), chances=chances | {("get", Fault.REFUSE): 0.05})
        self.stages: list[Stage] = []
        self.told: set[int] = set()
        self.tried: set[int] = set()
        self.completed = self.may_be_complete = False
        self.restart(0)

    async def _make(self) -> None:
        async with logstore.open(self.store):
            pass

    def teardown(self) -> None:
        self.loop.close()

    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        """A process dies, and another takes its place."""
        retry = RetrySettings(attempts_max=2, pause_first_ms=1, pause_max_ms=1)
        del self.stages[who : who + (len(self.stages) > 1)]
        while len(self.stages) < 2:
            log = logstore.open(self.faulty, settings=LogSettings(retry=retry), rng=random.Random(1))
            with suppress(Unavailable):
                self.loop.run_until_complete(log.__aenter__())
                self.stages.append(stage_of(log))

    @rule(who=st.integers(0, 1), indices=st.lists(st.integers(0, 20), min_size=1, max_size=4), completes=st.booleans())
    def append(self, who: int, indices: list[int], completes: bool) -> None:
        """What returned is stored; what is refused because of completion comes after one that was asked for."""
        stage, completes = self.stages[who], completes and indices[0] < 4
        self.tried.update(indices)
        self.may_be_complete |= completes
        work = stage.complete(blocks(*indices)) if completes else stage.append(blocks(*indices))
        try:
            self.loop.run_until_complete(work)
        except Unavailable:
            return
        except Conflict:
            assert self.may_be_complete
            return
        self.told.update(indices)
        self.completed |= completes

    @rule()
    def land(self) -> None:
        """What was under way lands."""
        self.loop.run_until_complete(self.faulty.land())

    @precondition(lambda self: bool(self.told))
    @rule(offset=st.integers(0, 20))
    def fetch(self, offset: int) -> None:
        """Everything that a call was told is stored is there, nothing twice, nothing that nobody sent."""
        for stage in self.stages:
            try:
                found, completed = self.loop.run_until_complete(fetched(stage, offset))
            except Unavailable:
                continue
            assert found == sorted(set(found))
            assert {index for index in self.told if index >= offset} <= set(found) <= self.tried
            assert completed or not self.completed

    @invariant()
    def is_a_chain(self) -> None:
        """Whatever happened, the pages are one, and no block is in two."""
        indices = {index for page in chain(self.loop.run_until_complete(contents_of(self.store))) for index in page}
        assert self.told <= indices <= self.tried


TestFaults = Faults.TestCase
TestFaults.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# Indices ----------------------------------------------------------------------------------------


@given(st.lists(st.sets(st.integers(0, 40), max_size=8).map(sorted)))
def test_indices_are_a_set(added: list[Sequence[int]]) -> None:
    """Whatever is added, in whatever order, is in it and nothing else; ranges are as few as can be."""
    stored, plain = Indices(), set[int]()
    for indices in added:
        before = stored.copy()
        stored.add(indices)
        assert set(members(before)) == plain
        plain |= set(indices)
        stored._check()
        assert set(members(stored)) == plain
    stop = max(plain, default=-1) + 1
    run = next((index for index in range(stop, 0, -1) if index - 1 not in plain), 0)
    assert stored.last == ((run, stop) if plain else (0, 0))
    stored.forget(1)
    assert all(index in stored for index in plain if index >= stored.known_from)
    assert len(stored) <= 1


def members(stored: Indices) -> Iterable[int]:
    return (index for index in range(50) if index in stored)
