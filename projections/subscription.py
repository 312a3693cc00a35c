"""Who follows what happens in a view, and what they have not been told yet.

Changes of one row become one while they wait, so they are bounded by the number of rows. Rejections are not: whoever
leaves too many untaken is told so, instead of the ones that found no room.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

from logstore.errors import LimitExceeded
from projections.state import Rejection
from projections.table import Change, decode_or_none

__all__ = ["ChangeSubscription", "RejectionSubscription"]

REJECTIONS_UNTAKEN_MAX: Final = 100_000


class ChangeSubscription:
    """The rows that changed since they were last told, each with what it was then."""

    def __init__(self, row: Callable[[str], bytes | None], require_alive: Callable[[], None]) -> None:
        self._row = row
        self._require_alive = require_alive
        self._before: dict[str, bytes | None] = {}
        self.wake = asyncio.Event()

    def note(self, changes: Mapping[str, bytes | None], _: Sequence[Rejection]) -> None:
        """These keys have changed, each from the row given here."""
        for key, before in changes.items():
            self._before.setdefault(key, before)
        self.wake.set()

    @property
    def has_told_all(self) -> bool:
        """Whether everything that the view shows has been told."""
        return not self._before

    def take_keys(self) -> set[str]:
        """The keys of all rows that have changed: from now on they count as told."""
        keys, self._before = self._before.keys(), {}
        return set(keys)

    def take(self) -> Change | None:
        """The next row that differs from what it was; None: there is none now."""
        while self._before:
            key = next(iter(self._before))
            old, new = self._before.pop(key), self._row(key)
            if old != new and (change := Change(key, decode_or_none(key, old), decode_or_none(key, new))).differs:
                return change
        return None

    async def wait(self) -> None:
        """Return when the view has moved since the last call; raises what ended it."""
        await self.wake.wait()
        self.wake.clear()
        self._require_alive()

    async def all(self) -> AsyncGenerator[Change, None]:
        """All of them, for ever."""
        while True:
            await self.wait()
            while (change := self.take()) is not None:
                yield change


class RejectionSubscription:
    """The events that changed nothing, finally, and that were not taken yet."""

    def __init__(self, require_alive: Callable[[], None]) -> None:
        self._require_alive = require_alive
        self._untaken: deque[Rejection] = deque()
        self._missed_some = False
        self.wake = asyncio.Event()

    def note(self, _: Mapping[str, bytes | None], rejections: Sequence[Rejection]) -> None:
        """These became final."""
        room = REJECTIONS_UNTAKEN_MAX - len(self._untaken)
        self._missed_some = self._missed_some or room < len(rejections)
        if not self._missed_some:
            self._untaken += rejections
        if rejections:
            self.wake.set()

    async def all(self) -> AsyncGenerator[Rejection, None]:
        """All of them, for ever."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self._untaken:
                yield self._untaken.popleft()
            if self._missed_some:
                raise LimitExceeded(f"rejections were not taken in time max={REJECTIONS_UNTAKEN_MAX}; take them faster")
            self._require_alive()
