"""What has been appended and is not yet answered: events waiting to be sent, and room for more.

A batch is the events of one call. It is *waiting* until the writer takes it into a segment, and *held* until
its caller is answered. Callers queue for room when too much is held, and are let in one by one.

Invariants:
- Batches leave in the order they came; those put back return to the front, in order.
- What is held is at most the limits, or a single batch.
- Room is given in the order of the calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from logstore.event import EncodedEvent
from logstore.receipt import Receipt

__all__ = ["Batch", "Buffer"]


@dataclass(slots=True, eq=False)
class Batch:
    """The events of one call, their size in bytes, and who waits for the answer."""

    events: Sequence[EncodedEvent]
    size: int
    waiter: asyncio.Future[Receipt]

    def answer(self, receipt: Receipt) -> None:
        """Tell the caller that the events are stored, if it still waits."""
        if not self.waiter.done():
            self.waiter.set_result(receipt)

    def refuse(self, error: BaseException) -> None:
        """Tell the caller that they are not, or may not be, if it still waits."""
        if not self.waiter.done():
            self.waiter.set_exception(error)


class Buffer:
    """Batches in order. ``*_max``: limits of what is held, and of what one segment takes."""

    def __init__(
        self, *, held_events_max: int, held_bytes_max: int, segment_events_max: int, segment_bytes_max: int
    ) -> None:
        self._held_events_max = held_events_max
        self._held_bytes_max = held_bytes_max
        self._segment_events_max = segment_events_max
        self._segment_bytes_max = segment_bytes_max
        self._waiting: deque[Batch] = deque()
        self._waiting_events = 0
        self._waiting_bytes = 0
        self._entering = 0  # calls that wait for room
        self._entrance = asyncio.Lock()
        self._room = asyncio.Event()
        self.held_events = 0
        self.held_bytes = 0
        self.since_s = 0.0  # loop time at which the first batch waiting came

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __repr__(self) -> str:
        return f"<Buffer waiting={self._waiting_events} held={self.held_events} callers_waiting={self._entering}>"

    @property
    def is_segment_full(self) -> bool:
        """Whether what waits fills a segment."""
        return self._waiting_events >= self._segment_events_max or self._waiting_bytes >= self._segment_bytes_max

    def is_open_to(self, events: int, size: int) -> bool:
        """Whether so much more may be held, and nobody waits who came before."""
        return not self._entering and self._has_room(events, size)

    async def enter(self, events: int, size: int) -> None:
        """Wait until so much more may be held, in the order of the calls: small ones do not overtake a large one."""
        if self.is_open_to(events, size):
            return
        self._entering += 1
        try:
            async with self._entrance:  # fair
                while not self._has_room(events, size):
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._entering -= 1

    def _has_room(self, events: int, size: int) -> bool:
        return not self.held_events or (
            self.held_events + events <= self._held_events_max and self.held_bytes + size <= self._held_bytes_max
        )

    def put(self, events: Sequence[EncodedEvent], size: int) -> Batch:
        """Add the events of a call at the end."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self.since_s = loop.time()
        batch = Batch(events, size, loop.create_future())
        self._waiting.append(batch)
        self._waiting_events += len(events)
        self._waiting_bytes += size
        self.held_events += len(events)
        self.held_bytes += size
        return batch

    def take(self) -> list[Batch]:
        """Take whole batches off the front, as many as one segment takes."""
        taken: list[Batch] = []
        events = size = 0
        while self._waiting:
            batch = self._waiting[0]
            events, size = events + len(batch.events), size + batch.size
            if taken and (events > self._segment_events_max or size > self._segment_bytes_max):
                break
            taken.append(self._waiting.popleft())
            self._waiting_events -= len(batch.events)
            self._waiting_bytes -= batch.size
        self.since_s = asyncio.get_running_loop().time()
        return taken

    def put_back(self, batches: Sequence[Batch]) -> None:
        """Return batches to the front, in their order."""
        self._waiting.extendleft(reversed(batches))
        self._waiting_events += sum(len(batch.events) for batch in batches)
        self._waiting_bytes += sum(batch.size for batch in batches)

    def take_all(self) -> Iterable[Batch]:
        """Take everything that waits."""
        while self._waiting:
            yield from self.take()

    def withdraw(self, batch: Batch) -> None:
        """Drop a batch that waits; one that was taken is not touched."""
        if batch in self._waiting:
            self._waiting.remove(batch)
            self._waiting_events -= len(batch.events)
            self._waiting_bytes -= batch.size
            self.release(batch)

    def release(self, *batches: Batch) -> None:
        """These batches are answered: their room is free."""
        self.held_events -= sum([len(batch.events) for batch in batches])
        self.held_bytes -= sum([batch.size for batch in batches])
        self._room.set()

    def _check(self) -> None:
        """Assert what must hold between any two calls; for tests."""
        # What waits is counted exactly.
        assert self._waiting_events == sum(len(batch.events) for batch in self._waiting)
        assert self._waiting_bytes == sum(batch.size for batch in self._waiting)
        # What waits is held too.
        assert self.held_events >= self._waiting_events
        assert self.held_bytes >= self._waiting_bytes
        # Nothing is held beyond the limits but a single batch.
        assert self.held_events <= self._held_events_max or len(self._waiting) <= 1
