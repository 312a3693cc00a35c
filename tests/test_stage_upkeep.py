"""Stage logs in an operator's hands: what a check finds wrong with them, and what copies hold of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import pytest

import logstore
from logstore import (
    Corrupt,
    Finding,
    InvalidArgument,
    KeepSettings,
    Missing,
    Progress,
    StageId,
    Trimmed,
    Unavailable,
    copy_store,
)
from logstore.check import check
from logstore.filestore import MemoryStore
from logstore.gone import Gone, decode_gone, encode_gone
from logstore.keys import StagePageKey
from logstore.stagepage import PageHead, decode_page, encode_page
from logstore.testing import ManualClock
from tests.test_stagelogs import ID, block, blocks, contents_of, damaged, fetched, gone_name, name_of, stage_of

OTHER: Final = StageId("d/2", "plan", 0)
GRACE_MS: Final = 40_000


async def fill(store: MemoryStore, *indices: int, stage: StageId = ID, complete: bool = False) -> None:
    """A process that appends a page for each index."""
    async with logstore.open(store, grace_ms=GRACE_MS) as log:
        for index in indices:
            await stage_of(log, stage).append(blocks(index))
        if complete:
            await stage_of(log, stage).complete()


async def filled() -> MemoryStore:
    """A store with two stage logs of several pages."""
    store = MemoryStore(clock=ManualClock())
    await fill(store, 0, 1, 2, 3)
    await fill(store, 5, 3, 9, stage=OTHER, complete=True)
    return store


async def found(store: MemoryStore, progress: Progress | None = None) -> list[Finding]:
    return [finding async for finding in check(store, progress)]


async def head_of(store: MemoryStore, number: int, stage: StageId = ID) -> PageHead:
    return decode_page(StagePageKey(stage, number), (await store.get(name_of(number, stage))).data).head


# Check ------------------------------------------------------------------------------------------


async def test_sound_stage_logs_have_no_findings() -> None:
    """Complete or not, in order or not; every page is fetched and counted."""
    store, progress = await filled(), Progress()
    assert await found(store, progress) == []
    assert progress.objects == 1 + 8
    assert progress.bytes == sum([listed.size async for listed in store.list("")])


@pytest.mark.parametrize("number", range(4))
async def test_a_damaged_page_is_found_and_named(number: int) -> None:
    """Changed, or gone with a later one there: that page and no other."""
    store = await filled()
    data = (await store.get(name_of(number, OTHER))).data
    await damaged(store, name_of(number, OTHER), data[:150] + bytes([data[150] ^ 1]) + data[151:])
    assert [(finding.severity, finding.key) for finding in await found(store)] == [("damage", name_of(number, OTHER))]
    await store.delete(name_of(number, OTHER))
    expected = [("damage", name_of(number, OTHER))] if number < 3 else []  # nobody names the last
    assert [(finding.severity, finding.key) for finding in await found(store)] == expected


async def test_a_gap_is_one_finding() -> None:
    """Of pages that are gone in a row the first is named, and the last; what follows is checked for itself."""
    store = await filled()
    for number in (1, 2):
        await store.delete(name_of(number))
    await damaged(store, name_of(3), b"")
    first, second = await found(store)
    assert first.key == name_of(1)
    assert name_of(2) in first.what
    assert second.key == name_of(3)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda head: ([block(1)], {"run": 0, "stop": 4}), "in an earlier page"),
        (lambda head: ([block(4)], {"run": 4, "stop": 5}), "other indices"),
        (lambda head: ([block(4)], {"run": 0, "stop": 9}), "other indices"),
        (lambda head: ([block(4)], {"run": 0, "stop": 5, "previous": bytes(32)}), "does not continue"),
    ],
)
async def test_a_page_that_does_not_fit_is_found(
    make: Callable[[PageHead], tuple[list[object], dict[str, object]]], what: str
) -> None:
    """A block stored twice, a range that is not the last, a chain that breaks: damage that names the page."""
    store = await filled()
    head = await head_of(store, 3)
    made, fields = make(head)
    data, _ = encode_page(StagePageKey(ID, 4), made, **{"previous": head.digest, **fields})  # type: ignore[arg-type]
    await store.create(name_of(4), data)
    (finding,) = await found(store)
    assert (finding.severity, finding.key) == ("damage", name_of(4))
    assert what in finding.what


async def test_a_page_behind_the_complete_one_is_found() -> None:
    """Nobody creates there: damage."""
    store = await filled()
    head = await head_of(store, 3, OTHER)
    data, _ = encode_page(StagePageKey(OTHER, 4), blocks(10), run=9, stop=11, previous=head.digest)
    await store.create(name_of(4, OTHER), data)
    (finding,) = await found(store)
    assert (finding.severity, finding.key) == ("damage", name_of(4, OTHER))


async def test_what_is_left_of_a_stage_log_that_is_gone_is_a_note() -> None:
    """Whole, damaged, or with gaps: no damage, one note; a record that cannot be read is."""
    store = await filled()
    await store.create(gone_name(), encode_gone(Gone(ID, 4, bytes(32))))
    await store.delete(name_of(1))
    await damaged(store, name_of(2), b"rubbish")
    (finding,) = await found(store)
    assert (finding.severity, finding.key) == ("note", "stagelogs/")
    assert "3 pages are left" in finding.what
    await damaged(store, gone_name(), encode_gone(Gone(OTHER, 4, bytes(32))))
    assert [finding.key for finding in await found(store) if finding.severity == "damage"] == [gone_name()]


async def test_names_of_nobody_are_damage() -> None:
    """Under our prefix no other names are expected."""
    store = await filled()
    foreign = ["stagelogs/x", "stagelogs/d/s/0/0000000000", "stagelogs/d/s/0000000000/gone.bak"]
    for name in foreign:
        await store.create(name, b"x")
    assert sorted(finding.key for finding in await found(store) if finding.severity == "damage") == sorted(foreign)


class Meanwhile(MemoryStore):
    """Something happens when a listing of stage logs has begun, and one name is not in it."""

    def __init__(self, store: MemoryStore, happens: Callable[[], object], lacks: str = "") -> None:
        self.__dict__.update(store.__dict__)
        self.happens = happens
        self.lacks = lacks

    async def list(self, prefix: str, after: str = ""):  # type: ignore[no-untyped-def]
        listed = [one async for one in super().list(prefix, after)]
        if prefix == "stagelogs/":
            await self.happens()  # type: ignore[misc]
        for one in listed:
            if one.key != self.lacks:
                yield one


async def test_stage_logs_in_use_have_no_findings() -> None:
    """Written to, or dropped and collected, while they are looked at: nothing is lost."""
    store = await filled()

    async def goes_on() -> None:
        await fill(store, 4, 5)

    assert await found(Meanwhile(store, goes_on)) == []
    progress = Progress()
    assert await found(Meanwhile(store, goes_on, lacks=name_of(1)), progress) == []
    assert progress.objects == 1 + 10

    async def goes() -> None:
        for number in range(1, 6):
            await store.delete(name_of(number))
        await store.create(gone_name(), encode_gone(Gone(ID, 4, bytes(32))))

    assert await found(Meanwhile(store, goes, lacks=name_of(1))) == []
    await store.delete(gone_name())
    await fill(store, 1, 2)

    async def goes_whole() -> None:
        await goes()
        await store.delete(name_of(0))

    assert await found(Meanwhile(store, goes_whole)) == []


# Copies -----------------------------------------------------------------------------------------


async def copied(source: MemoryStore, target: MemoryStore) -> None:
    await copy_store(source, target, rng=random.Random(0))


async def test_a_copy_holds_stage_logs_and_is_continued() -> None:
    """Byte for byte, what has come since is added, and restored it reads and goes on as the original."""
    source, target, restored = await filled(), MemoryStore(), MemoryStore()
    await copied(source, target)
    assert await contents_of(target) == await contents_of(source)
    await fill(source, 4, 5)
    await fill(source, 0, stage=StageId("new", "stage", 3))
    await copied(source, target)
    assert await contents_of(target) == await contents_of(source)
    await copied(target, restored)
    assert await found(restored) == []
    async with logstore.open(restored) as log:
        assert await fetched(stage_of(log)) == ([0, 1, 2, 3, 4, 5], False)
        assert await fetched(stage_of(log, OTHER)) == ([3, 5, 9], True)
        await stage_of(log).append(blocks(5, 6))
        assert await fetched(stage_of(log), 5) == ([5, 6], False)


async def test_what_is_gone_is_gone_in_a_copy() -> None:
    """The record is carried and the pages are not; a copy that had them tells nobody of them any more."""
    clock = ManualClock()
    source, old, new = MemoryStore(clock=clock), MemoryStore(), MemoryStore()
    await fill(source, 0, 1, complete=True)
    await copied(source, old)
    async with logstore.open(source, clock=clock) as log:
        clock.advance(10 * GRACE_MS)
        keeper = log.keeper(KeepSettings(stage_logs_age_ms=GRACE_MS))
        assert [one.dropped async for one in keeper.drop_stage_logs()] == [True]
        for target in (old, new):
            await copied(source, target)
        clock.advance(2 * GRACE_MS)
        assert len([garbage async for garbage in log.keeper().collect()]) == 3
    for target in (old, new):
        await copied(source, target)
        assert [finding.severity for finding in await found(target)] in ([], ["note"])
        async with logstore.open(target) as log:
            with pytest.raises(Trimmed):
                await stage_of(log).fetch()
            with pytest.raises(Trimmed):
                await stage_of(log).append(blocks(0))
    assert list(await contents_of(new)) == [gone_name()]


async def test_a_copy_may_let_go_sooner() -> None:
    """What a copy's own keeper has dropped is not copied again."""
    clock = ManualClock()
    source, target = MemoryStore(clock=clock), MemoryStore(clock=clock)
    await fill(source, 0, 1, complete=True)
    await copied(source, target)
    async with logstore.open(target, clock=clock) as log:
        clock.advance(10 * GRACE_MS)
        _ = [one async for one in log.keeper(KeepSettings(stage_logs_age_ms=GRACE_MS)).drop_stage_logs()]
        clock.advance(2 * GRACE_MS)
        _ = [garbage async for garbage in log.keeper().collect()]
    await copied(source, target)
    assert list(await contents_of(target)) == [gone_name()]
    assert len(await contents_of(source)) == 3


async def test_a_copy_that_was_written_to_is_not_continued() -> None:
    """A stage log that went on in the copy, with more pages or others, ends the copy; its pages are left alone."""
    source, target = await filled(), MemoryStore()
    await copied(source, target)
    await fill(target, 7)
    before = await contents_of(target)
    with pytest.raises(InvalidArgument, match=name_of(4)):
        await copied(source, target)
    await fill(source, 4)
    await fill(source, 5)
    with pytest.raises(InvalidArgument, match=name_of(4)):
        await copied(source, target)
    assert await contents_of(target) == before


async def test_damage_of_the_source_is_not_copied() -> None:
    """A page that is lost or changed ends the copy with its name, wherever it lies; what was copied before is whole."""
    for number in range(3):
        for data in (None, b"rubbish"):
            source, target = await filled(), MemoryStore()
            await damaged(source, name_of(number), data)
            with pytest.raises((Missing, Corrupt), match=name_of(number)):
                await copied(source, target)
            assert name_of(number) not in await contents_of(target)
            assert name_of(number + 1) not in await contents_of(target)


async def test_a_listing_that_lacks_a_page_makes_no_copy_without_it() -> None:
    """It is there by name, so it is not lost: run it again."""
    source, target = await filled(), MemoryStore()

    async def nothing() -> None:
        pass

    with pytest.raises(Unavailable, match=name_of(1)):
        await copied(Meanwhile(source, nothing, lacks=name_of(1)), target)


@pytest.mark.parametrize("how", ["gone", "changed"])
async def test_what_is_left_is_rescued(how: str) -> None:
    """`copy --accept-loss`: each stage log up to its first loss, which is said; all else as it was."""
    source, target, losses = await filled(), MemoryStore(), list[Finding]()
    await fill(source, 0, stage=StageId("d/3", "s", 0))
    await source.create(gone_name(StageId("d/3", "s", 0)), encode_gone(Gone(StageId("d/3", "s", 0), 1, bytes(32))))
    await damaged(source, name_of(2), None if how == "gone" else b"rubbish")
    await copy_store(source, target, accept_loss=True, on_loss=losses.append, rng=random.Random(0))
    assert [loss.key for loss in losses] == [name_of(2)]
    assert await found(target) == []
    left, before = await contents_of(target), await contents_of(source)
    assert left.items() <= before.items()
    assert before.keys() - left.keys() - {name_of(0, StageId("d/3", "s", 0))} == (
        {name_of(3)} if how == "gone" else {name_of(2), name_of(3)}
    )
    async with logstore.open(target) as log:
        assert await fetched(stage_of(log)) == ([0, 1], False)
        assert await fetched(stage_of(log, OTHER)) == ([3, 5, 9], True)
        with pytest.raises(Trimmed):
            await stage_of(log, StageId("d/3", "s", 0)).fetch()


async def test_a_lost_record_is_made_anew() -> None:
    """What is gone stays gone, though nobody can read any more how much it was."""
    source, target, losses = await filled(), MemoryStore(), list[Finding]()
    await source.create(gone_name(), b"rubbish")
    await copy_store(source, target, accept_loss=True, on_loss=losses.append, rng=random.Random(0))
    assert [loss.key for loss in losses] == [gone_name()]
    assert decode_gone(ID, (await contents_of(target))[gone_name()]).pages == 0
    assert await found(target) == []
