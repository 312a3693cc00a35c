"""User code that mypy --strict must accept: the whole surface of the log. Checked, not run.

``assert_type`` says what a user's editor shows; a type that gets vaguer fails here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, assert_type

import logstore
from logstore import (
    Block,
    Clock,
    Event,
    FileStore,
    FollowSettings,
    Log,
    LogSettings,
    Position,
    Reader,
    Receipt,
    RetrySettings,
    StoredEvent,
    StoreStatistics,
    SystemClock,
    Writer,
    WriterSettings,
    WriterStatistics,
)


async def append() -> None:
    async with logstore.open("file:///srv/cp") as log:
        assert_type(log, Log)
        async with log.writer("web-1") as writer:
            assert_type(writer, Writer)
            receipt = await writer.append(Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}))
            assert_type(receipt, Receipt)
            events = [Event("Deployment", "d-1", "stage", {"status": n}, meta={"actor": "ci"}) for n in range(3)]
            receipt = await writer.append_many(events)
            receipt = await writer.append_many(tuple(events))
            assert_type(receipt.writer, str)
            assert_type(receipt.first_seq + receipt.stamp, int)
            assert_type(Receipt.parse(str(receipt)), Receipt)
            assert_type(writer.statistics(), WriterStatistics)
        await log.settled(receipt)
        await log.settled(receipt, timeout=5)
        assert_type(log.watermark, int)
        assert_type(log.requests(), StoreStatistics)
        assert_type(log.requests().create.requests, int)


async def read(log: Log) -> str:
    reader = log.read(after=None, kinds=None, settled=False)
    assert_type(reader, Reader)
    async for event in reader:
        assert_type(event, StoredEvent)
        show(event)
    reader = log.read(kinds={"Deployment"}, settled=True, on_damage="skip")
    assert_type(reader.damage, list[logstore.LogStoreError])
    position = reader.position
    assert_type(position, Position | None)
    return str(position)


def show(event: StoredEvent) -> None:
    assert_type(event.kind, str)
    assert_type(event.key, str)
    assert_type(event.type, str)
    assert_type(event.data, Mapping[str, Any] | None)
    assert_type(event.meta, Mapping[str, Any] | None)
    assert_type(event.stamp, int)
    assert_type(event.writer, str)
    assert_type(event.session, int)
    assert_type(event.seq, int)
    assert_type(event.settled, bool)


async def follow(log: Log, position: str) -> AsyncIterator[StoredEvent]:
    async for event in log.follow(after=Position.parse(position)):
        yield event
    async for event in log.follow(after=position, kinds=["Deployment"], settled=True):
        yield event


async def columns(log: Log) -> dict[str, bytes]:
    state: dict[str, bytes] = {}
    async for run in log.read().runs():
        if (columns := run.segment.columns) is not None:
            state.update(zip(columns.keys[run.start :], columns.payloads[run.start :], strict=True))
    return state


async def errors(log: Log, writer: Writer, event: Event) -> Receipt | None:
    try:
        return await writer.append(event)
    except logstore.NotStored:
        return await writer.append(event)
    except logstore.Unknown as unknown:
        assert_type(unknown.token, str)
        assert_type(await log.resolve(unknown.token), Receipt)
        return await log.resolve(unknown)
    except (logstore.ClockSkew, logstore.LimitExceeded, logstore.InvalidArgument):
        return None
    except logstore.LogStoreError:
        raise


async def stage_logs(log: Log) -> list[Block]:
    stage = logstore.StageLogs(log).stage("deployment-1", "stage-2", retry=0)
    assert_type(await stage.append([Block(0, "pulling", severity=1, created_ms=1_700_000_000_000)]), None)
    await stage.complete(blocks=[Block(index=1, text="done")])
    blocks, completed = await stage.fetch(offset=0)
    assert_type(completed, bool)
    async for block in stage.follow(offset=1):
        assert_type(block.text, str)
    for other in await logstore.StageLogs(log).stages("deployment-1"):
        assert_type(other.retry, int)
    return blocks


class MyClock:
    def wall_ms(self) -> int:
        return 0

    def elapsed_ms(self) -> int:
        return 0


async def settings(store: FileStore) -> None:
    clock: Clock = MyClock()
    clock = SystemClock()
    chosen = LogSettings(
        writer=WriterSettings(linger_ms=5, flights=8),
        follow=FollowSettings(poll_ms_min=10, poll_ms_max=250),
        retry=RetrySettings(attempt_timeout_ms=5_000, deadline_ms=10_000),
        memory_bytes_max=64 << 20,
    )
    log = logstore.open(store, settings=chosen, clock=clock, history="full", grace_ms=86_400_000)
    async with log, log.writer("w", WriterSettings(idle_ms=1_000)):
        pass
    async with logstore.open("s3://bucket/prefix", read_only=True, create=False):
        pass
