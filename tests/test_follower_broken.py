"""A mistake of ours in the follower reaches whoever waits for it; once a reader process hung for ever."""

from __future__ import annotations

import asyncio

import pytest

import logstore
from logstore import Event, Reader


async def note(reader: Reader, seen: list[str]) -> None:
    async for event in reader:
        seen.append(event.key)  # noqa: PERF401  one by one: it never ends


async def test_a_bug_in_the_follower_reaches_everybody_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers and barriers get an error that names it, those that wait and those that come later."""
    async with logstore.open("memory://follower-broken") as log, log.writer("w") as writer:
        await writer.append(Event("K", "k", "t"))
        events = log.follow()
        seen: list[str] = []
        waiting = asyncio.create_task(note(events, seen))
        async with asyncio.timeout(10):
            while not seen or log._follower is None:  # noqa: ASYNC110  nobody sets an event for it
                await asyncio.sleep(0)
        follower = log._follower

        async def break_down() -> bool:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(follower, "_round", break_down)
        barrier = asyncio.create_task(follower.refresh())
        async with asyncio.timeout(10):
            for waiter in (waiting, barrier):
                with pytest.raises(RuntimeError, match=r"ZeroDivisionError\('a bug'\)"):
                    await waiter
        with pytest.raises(RuntimeError):
            await follower.refresh()
