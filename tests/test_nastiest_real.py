"""The ten nastiest failures where they really happen: on a directory, and on Ceph. Real time, real objects.

``tests/test_nastiest.py`` plays each as a whole schedule on a simulated store; here is what of each can be made on a
real one. docs/testing.md, "The ten nastiest", says which and where, and why not the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from botocore.config import Config
from botocore.session import get_session

import logstore
from logstore import (
    ClockSkew,
    Event,
    Log,
    LogSettings,
    Missing,
    NotStored,
    Position,
    RetrySettings,
    StaleStore,
    StoredEvent,
    Trimmed,
    Unknown,
    UnsafeStore,
    WriterSettings,
    copy_store,
)
from logstore.errors import AlreadyExists
from logstore.filestore import FileStore, probe
from logstore.filestore.local import LocalStore
from logstore.filestore.s3 import S3Store
from logstore.keys import manifest_key, segment_key
from projections import Projection, View
from tests.conftest import BUCKET
from tests.contract.test_log import Shared
from tests.scene import Gate, Script, lose
from tests.test_nastiest import Book, Once, line, lines, lines_of, told
from tests.trouble.troubles import SteppedClock
from tests.zygote import Zygote

WITHIN_S: Final = 180  # far more than anything here takes
IDLE_MS: Final = 200
DEADLINE_MS: Final = 1_000
GRACE_MS: Final = 4 * (2 * IDLE_MS + 4 * DEADLINE_MS)  # the least that these allow
QUICK: Final = LogSettings(
    writer=WriterSettings(idle_ms=IDLE_MS, idle_ms_max=IDLE_MS),
    retry=RetrySettings(attempt_timeout_ms=DEADLINE_MS, deadline_ms=DEADLINE_MS),
)
TWICE: Final = LogSettings(retry=RetrySettings(attempts_max=2, pause_first_ms=1, deadline_ms=60_000))
PATIENT: Final = LogSettings(writer=WriterSettings(flights=8), retry=RetrySettings(deadline_ms=60_000))


@dataclass
class Place:
    """Where a log lies, for any number of processes. ``damage`` and ``remove`` do what no verb of a store does."""

    url: str
    store: Callable[[], FileStore]
    damage: Callable[[str], None]
    remove: Callable[[str], None]


def local_place(root: Path) -> Place:
    def damage(key: str) -> None:
        path = root / key
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(data)

    return Place(root.as_uri(), lambda: LocalStore(root), damage, lambda key: (root / key).unlink())


def ceph_place(endpoint: str) -> Place:
    prefix = f"nasty/{uuid4().hex}"
    config = Config(s3={"addressing_style": "path"})
    s3: Any = get_session().create_client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)

    def damage(key: str) -> None:
        data = bytearray(s3.get_object(Bucket=BUCKET, Key=f"{prefix}/{key}")["Body"].read())
        data[len(data) // 2] ^= 1
        s3.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=bytes(data))

    return Place(
        f"s3://{BUCKET}/{prefix}?endpoint_url={endpoint}&region=us-east-1",
        lambda: S3Store(BUCKET, prefix=prefix, endpoint_url=endpoint, region="us-east-1"),
        damage,
        lambda key: s3.delete_object(Bucket=BUCKET, Key=f"{prefix}/{key}"),
    )


CEPH: Final = pytest.param("ceph", marks=pytest.mark.ceph)


@pytest.fixture(params=["local", CEPH])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Place]:
    """A new and empty place, of each kind."""
    if request.param == "ceph":
        endpoint = request.getfixturevalue("ceph_endpoint")
        return lambda: ceph_place(endpoint)
    return lambda: local_place(tmp_path / uuid4().hex)


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as made:
        yield made


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not await condition():
        assert time.monotonic() < deadline_s, f"not within {WITHIN_S} s: {what}"
        await asyncio.sleep(0.05)


async def write(log: Log, writer: str, *ids: str) -> None:
    """Append lines; what a busy machine lets time out is appended again."""
    async with log.writer(writer) as appending:
        for id_ in ids:
            while await told(appending.append(line(id_)), log) is None:
                pass


async def damage_of(log: Log) -> list[str]:
    return [str(finding) async for finding in log.check() if finding.severity == "damage"]


# 1 and 6 --------------------------------------------------------------------------------------


class Times(Projection):
    """How often each line was written."""

    name, kinds = "times", frozenset({"Line"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"n": (state["n"] if state else 0) + 1}


def _times(view: View) -> dict[str, int]:
    return {key: row["n"] for key, row in ((key, view.get(key)) for key in view.find(limit=10_000).keys) if row}


@pytest.mark.parametrize("new_place", [pytest.param("local", marks=pytest.mark.slow), CEPH], indirect=True)
async def test_nasty_01_and_06_zombie_slow_reader_and_collection(zygote: Zygote, place: Place, tmp_path: Path) -> None:
    """SIGSTOP, sealed, retired, collected, SIGCONT: what it was told is so; a reader that slept is told Trimmed."""
    file = tmp_path / "told"

    def said() -> list[str]:
        return file.read_text().splitlines() if file.exists() else []

    async with logstore.open(place.url, settings=PATIENT, history="drop", grace_ms=GRACE_MS) as log:
        pid = zygote.spawn(
            "tell", url=place.url, writer="web", events=10_000, file=str(file), idle_ms=IDLE_MS, deadline_ms=DEADLINE_MS
        )
        await until(_so(lambda: len(said()) >= 5), "five lines are told")
        slow = log.read()
        async for _ in slow:
            break
        position = str(slow.position)
        async with (
            logstore.open(place.url, settings=PATIENT) as other,
            logstore.open(place.url, settings=QUICK) as quick,
        ):
            os.kill(pid, signal.SIGSTOP)
            before = len(said())
            async with View.open(other, Times(), follow=True) as witness:
                await until(_sealed(other), "the zombie is sealed")
                await other.close_chapter()
                await write(quick, "next", "next 0")
                for _ in range(2):
                    await witness.snapshot()
                await until(_collected(other, place), "the chapter is collected")
                os.kill(pid, signal.SIGCONT)
                await until(_so(lambda: len(said()) >= before + 3), "the zombie was told what became of it")
                zygote.kill(pid)
                await until(_sealed(other), "it is sealed again")
                await witness.refresh()
                answers = [each if each in ("yes", "no") else await _resolved(other, each) for each in said()]
                rows = _times(witness)
                async with View.open(other, Times()) as fresh:
                    assert _times(fresh) == rows
            assert {number: rows.get(str(number), 0) for number in range(len(answers))} == {
                number: int(each == "yes") for number, each in enumerate(answers)
            }
            assert max(rows.values()) == 1
            with pytest.raises(Trimmed):
                await lines_of(log, after=Position.parse(position))


def _so(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def so() -> bool:
        return condition()

    return so


def _sealed(log: Log) -> Callable[[], Awaitable[bool]]:
    async def sealed() -> bool:
        return all(sealing.sealed for sealing in await log.seal())

    return sealed


def _collected(log: Log, place: Place) -> Callable[[], Awaitable[bool]]:
    async def collected() -> bool:
        keeper, store = log.keeper(), place.store()
        try:
            await keeper.retire()
            _ = [garbage async for garbage in keeper.collect()]
            return not [listed async for listed in store.list("log/web/0000000000/")]
        finally:
            await store.aclose()

    return collected


async def _resolved(log: Log, token: str) -> str:
    try:
        await log.resolve(token)
    except NotStored:
        return "no"
    return "yes"


# 2 --------------------------------------------------------------------------------------------


async def test_nasty_02_lost_ack(place: Place) -> None:
    """A creation whose answer is lost, tried again, meets its own object: stored, there once."""
    script = Script(place.store())
    async with logstore.open(script, settings=PATIENT) as log, log.writer("web") as writer:
        await writer.append(line("a"))
        script.on("create", "log/web/", lose)
        receipt = await writer.append(line("b"))
        assert (await writer.append(line("c"))).slot == receipt.slot + 1
        assert script.count("create", segment_key("web", 0, receipt.session, receipt.slot)) == 2
    async with logstore.open(place.store(), read_only=True) as log:
        assert await lines_of(log) == ["a", "b", "c"]


async def test_nasty_02_lost_ack_and_nobody_can_look(place: Place) -> None:
    """Neither answered nor to be looked at: Unknown; its next life finds it there, and sends it again to no effect."""
    script = Script(place.store())
    async with logstore.open(script, settings=TWICE) as log, log.writer("web") as writer:
        await writer.append(line("a"))
        script.on("create", "log/web/", lose, times=1_000)
        script.on("get", "log/web/", lose, times=1_000)
        with pytest.raises(Unknown) as raised:
            await writer.append(line("b"))
        script.clear()
    async with logstore.open(place.store(), settings=PATIENT) as log:
        await log.resolve(raised.value.token)
        await write(log, "web", "b")
        async with View.open(log, Once()) as view:
            assert lines(view) == ["a", "b"]
        assert await lines_of(log) == ["a", "b", "b"]


# 4 and 5 --------------------------------------------------------------------------------------


async def test_nasty_04_visibility_gap(place: Place) -> None:
    """Segments beyond one that is late are not shown before it is there, and then in order, once."""
    script, gate = Script(place.store()), Gate()
    async with (
        logstore.open(script, settings=PATIENT) as log,
        log.writer("web") as writer,
        logstore.open(place.store(), settings=PATIENT) as other,
        View.open(other, Book(), follow=True) as book,
    ):
        first = await writer.append(line("0"))
        script.on("create", segment_key("web", 0, first.session, 1), gate.before)
        late = [asyncio.create_task(writer.append(line("1")))]
        await gate.met()
        for number in (2, 3):
            late.append(asyncio.create_task(writer.append(line(str(number)))))
            key = segment_key("web", 0, first.session, number)
            await until(_exists(place, key), f"{key} is there")
        await write(other, "other", "elsewhere")
        await book.refresh()
        assert lines(book) == ["0", "elsewhere"]
        assert await lines_of(other) == ["0", "elsewhere"]
        gate.open()
        await asyncio.gather(*late)
        await book.refresh()
        assert [id_ for id_ in lines(book) if id_ != "elsewhere"] == ["0", "1", "2", "3"]
        assert lines(book) == await lines_of(other)


def _exists(place: Place, key: str) -> Callable[[], Awaitable[bool]]:
    async def exists() -> bool:
        store = place.store()
        try:
            return [listed.key async for listed in store.list(key)] == [key]
        finally:
            await store.aclose()

    return exists


async def test_nasty_05_clock_chaos(place: Place) -> None:
    """Ten minutes off opens no session; a clock that steps under a session pushes no stamp, and the order holds."""
    async with logstore.open(place.store(), settings=PATIENT) as log:
        await write(log, "sane", "sane")
    for off_ms in (600_000, -600_000):
        async with logstore.open(place.store(), settings=PATIENT, clock=SteppedClock(off_ms)) as log:
            with pytest.raises(ClockSkew):
                await write(log, "off", "never")
    clock = SteppedClock(2_500)
    async with logstore.open(place.store(), settings=PATIENT, clock=clock) as log, log.writer("steps") as writer:
        for number, off_ms in enumerate((600_000, -600_000, 2_500, -2_500)):
            await writer.append(line(f"steps {number}"))
            clock.off_ms = off_ms
    async with logstore.open(place.store(), settings=PATIENT) as log:
        events = [event async for event in log.read()]
        assert [event.data["id"] for event in events if event.data] == ["sane", *(f"steps {n}" for n in range(4))]
        assert max(event.stamp >> 16 for event in events) < time.time() * 1_000 + 10_000


# 7 --------------------------------------------------------------------------------------------


class BookTwo(Book):
    """The next version of the same reducer."""

    version = 2


@pytest.mark.parametrize("what", ["manifest", "chunk"])
async def test_nasty_07_two_versions_and_damage(place: Place, what: str) -> None:
    """Two versions snapshot at once, one dies in it, the other's is damaged: an older one and replay are equal."""
    script, gate = Script(place.store()), Gate()
    async with (
        logstore.open(place.store(), settings=PATIENT) as log,
        logstore.open(script, settings=PATIENT) as doomed_log,
        View.open(log, Book(), follow=True) as view,
        View.open(doomed_log, BookTwo(), follow=True) as doomed,
    ):
        await write(log, "web", "a", "b")
        await view.snapshot()
        await write(log, "web", "c")
        script.on("create", "manifest/", gate.before, times=1_000)
        dying = asyncio.create_task(doomed.snapshot())
        await gate.met()
        newest = await view.snapshot()
        dying.cancel()
        with suppress(asyncio.CancelledError):
            await dying
        await view.refresh()
        digest = view.digest(pending=True)
    async with logstore.open(place.store(), read_only=True) as log, View.open(log, BookTwo()) as two:
        assert lines(two) == ["a", "b", "c"]
    store = place.store()
    chunks = [listed.key async for listed in store.list("chunks/")]
    await store.aclose()
    here = f"{newest.point[0]:010d}"
    name = manifest_key(newest.key) if what == "manifest" else _newest_chunk(chunks, newest)
    assert here in name
    place.damage(name)
    async with logstore.open(place.store(), read_only=True) as log, View.open(log, Book()) as one:
        assert one.digest(pending=True) == digest
        assert [name in str(error) for error in one.damage] == [True]


def _newest_chunk(names: list[str], manifest: Any) -> str:
    """The chunk that the newest manifest alone has."""
    (name,) = [name for name in names if any(chunk.key.hash.hex() in name for chunk in manifest.chunks)][-1:]
    return name


# 9 --------------------------------------------------------------------------------------------


async def test_nasty_09_restored_from_a_copy(new_place: Callable[[], Place]) -> None:
    """In a restored copy what was known of the first store is refused, and numbers are nobody's yet."""
    place, copy = new_place(), new_place()
    async with logstore.open(place.store(), settings=PATIENT) as log:
        await write(log, "web", "saved")
        reader = log.read()
        async for _ in reader:
            pass
        position = str(reader.position)
        await copy_store(place.store(), copy.store())
        await write(log, "web", "lost")
    async with logstore.open(copy.store(), settings=PATIENT) as log:
        with pytest.raises(StaleStore):
            await lines_of(log, after=Position.parse(position))
        await write(log, "web", "new")
        assert await lines_of(log) == ["saved", "new"]
        assert await damage_of(log) == []


async def test_nasty_09_newest_segments_deleted(place: Place) -> None:
    """Its writer lives and names what is gone: Missing, for who begins anew; no number is used again."""
    async with logstore.open(place.store(), settings=PATIENT) as log, log.writer("web") as writer:
        receipts = [await writer.append(line(str(number))) for number in range(4)]
        for receipt in receipts[2:]:
            place.remove(segment_key("web", receipt.chapter, receipt.session, receipt.slot))
        assert (await writer.append(line("4"))).slot == 4
    async with logstore.open(place.store(), settings=PATIENT) as log:
        await write(log, "web", "next life")
        gone = segment_key("web", receipts[2].chapter, receipts[2].session, 2)
        with pytest.raises(Missing, match=gone):
            await lines_of(log)
        assert any(gone in finding for finding in await damage_of(log))


# 10 -------------------------------------------------------------------------------------------


class Overwriting:
    """A way to a real store on which the condition of a creation is lost."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self.remote = store.remote
        self.get, self.list, self.delete, self.aclose = store.get, store.list, store.delete, store.aclose

    async def create(self, key: str, data: bytes) -> int | None:
        while True:
            with suppress(AlreadyExists):
                return await self._store.create(key, data)
            await self._store.delete(key)


async def test_nasty_10_a_store_that_overwrites(place: Place) -> None:
    """No log is made there, and nothing is left; the store itself keeps all that the doctor asks."""
    with pytest.raises(UnsafeStore):
        async with logstore.open(Overwriting(place.store())):
            pass
    store = place.store()
    try:
        assert [listed.key async for listed in store.list("")] == []
        assert [finding.check for finding in await probe(store, nonce="doctor") if not finding.ok] == []
    finally:
        await store.aclose()


async def test_nasty_10_two_instances_of_one_name(zygote: Zygote, place: Place, tmp_path: Path) -> None:
    """Two real processes of one name: each has its session, and keeps all it stored."""
    async with logstore.open(place.url, settings=PATIENT) as log:
        files = [tmp_path / f"told {number}" for number in range(2)]
        how = {"url": place.url, "writer": "web", "events": 50, "idle_ms": 5_000, "deadline_ms": 30_000}
        pids = [zygote.spawn("tell", file=str(file), **how) for file in files]
        assert [zygote.wait(pid) for pid in pids] == [0, 0]
        assert [file.read_text().split() for file in files] == [["yes"] * 50] * 2
        events = [event async for event in log.read()]
        assert Counter(event.key for event in events) == {str(number): 2 for number in range(50)}
        assert len({event.session for event in events}) == 2


async def test_nasty_10_cold_start_over_many_small_segments(place: Place) -> None:
    """A GET for each object and a few for each session, never a LIST."""
    store = Shared(place.store())
    async with logstore.open(store, settings=LogSettings(writer=WriterSettings(flights=64, linger_ms=0))) as log:
        async with log.writer("web") as writer:
            for _ in range(10):
                await asyncio.gather(*(_apart(writer, number) for number in range(30)))
        objects = writer.statistics().segments_stored
    async with logstore.open(store, read_only=True) as log:
        assert len([event async for event in log.read()]) == 300
        cost = log.requests()
        assert cost.list.requests == 0
        assert cost.get.requests <= objects + 30
    await store._store.aclose()


async def _apart(writer: Any, number: int) -> None:
    """Appends that do not share a segment where the loop lets them."""
    for _ in range(number):
        await asyncio.sleep(0)
    await writer.append(Event("Line", json.dumps(number), "written", {"id": str(number)}))
