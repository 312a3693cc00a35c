"""Fill a log with many events, outside what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice

import logstore
from logstore import Event

CALLS = 4


async def store_events(url: str, events: Iterable[Event], batch: int, *, writer: str = "bench") -> None:
    """Append them in order, ``batch`` to a segment."""
    remaining = iter(events)
    async with logstore.open(url) as log, log.writer(writer) as appending:
        while batches := [several for _ in range(CALLS) if (several := list(islice(remaining, batch)))]:
            await asyncio.gather(*map(appending.append_many, batches))
