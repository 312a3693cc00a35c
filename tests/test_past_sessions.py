"""A store with thousands of past sessions: collected, it is as small and as quick to open as a new one."""

from __future__ import annotations

from typing import Final

import logstore
from logstore import Event, KeepSettings, Log, LogSettings, RetrySettings, WriterSettings
from logstore.filestore.memory import MemoryStore
from logstore.testing import ManualClock
from projections import View
from tests.test_snapshots import Things

SESSIONS: Final = 5_000
CHAPTERS: Final = 5
GRACE_MS: Final = 60_000
SETTINGS: Final = LogSettings(
    writer=WriterSettings(idle_ms=1_000, idle_ms_max=1_000),
    retry=RetrySettings(attempt_timeout_ms=2_000, deadline_ms=2_000),
)


async def test_five_thousand_past_sessions_cost_nothing() -> None:
    """P13: collected, they leave a record per chapter; who opens it asks for as little as in a store of ten."""
    clock = ManualClock(wall_ms=1_700_000_000_000)
    store = MemoryStore(clock=clock)

    def opened(*, read_only: bool = False) -> Log:
        return logstore.open(
            store, clock=clock, settings=SETTINGS, history="drop", grace_ms=GRACE_MS, read_only=read_only
        )

    async def live(sessions: int) -> None:
        async with opened() as log, View.open(log, Things()) as view:
            for number in range(sessions):
                async with log.writer(f"web-{number % 40}") as writer:
                    await writer.append(Event("Thing", f"t-{number % 100}", "changed", {"n": number}))
            await log.close_chapter()
            async with log.writer("web-1") as writer:
                await writer.append(Event("Thing", "t-0", "changed", {"n": 0}))
            await view.snapshot()
            await view.snapshot()

    async def keep() -> int:
        clock.advance(2 * GRACE_MS)
        async with opened() as log:
            keeper = log.keeper(KeepSettings())
            await keeper.retire()
            return len([garbage async for garbage in keeper.collect()])

    async def requests_to_open() -> tuple[int, int]:
        async with opened(read_only=True) as log, View.open(log, Things()) as view:
            done = log.requests()
            return done.get.requests + done.list.requests, len(view)

    await live(10)
    few, rows = await requests_to_open()
    assert rows == 10
    for _ in range(CHAPTERS):
        await live(SESSIONS // CHAPTERS)
    assert len([listed async for listed in store.list("")]) > 2 * SESSIONS
    deleted = [await keep(), await keep(), await keep()]
    assert sum(deleted) > 2 * SESSIONS
    names = [listed.key async for listed in store.list("")]
    assert len([name for name in names if name.startswith("retired/")]) == CHAPTERS + 1
    assert len(names) < 40, names
    many, rows = await requests_to_open()
    assert rows == 100
    assert many <= few + 12, (few, many)  # the last record of six is found by doubling and halving
