"""The sleeper's rule: how long one may go on believing that a chapter is not retired.

A retired chapter's objects are deleted one grace after its record was created, names and all. From
then on its objects and its 404s prove nothing. So whoever draws a conclusion from either asks here
*afterwards*: a look at ``retired/<chapter>`` that found nothing may be relied on until half the grace
after its *start*; with an older one another look is made. (RFC 0001 §7.)

Invariants:
- An answer "not retired" rests on a look that started less than half the grace ago.
- Time is the larger of what passed on the elapsed clock and on the store's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from logstore.clock import Clock
from logstore.errors import NotFound
from logstore.filestore.base import FileStore
from logstore.keys import retired_key
from logstore.retired import Retired, decode_retired

__all__ = ["Looks", "Moment", "StoreTime"]

_CHAPTERS_REMEMBERED_MAX = 1_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Moment:
    """When something began, by the local elapsed clock and by the store's."""

    elapsed_ms: int
    store_ms: int


class StoreTime:
    """The latest time that the store told in any answer, in Unix milliseconds; 0 before it told any."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.latest_ms = 0

    def tell(self, now_ms: int | None) -> None:
        """Take in what an answer said."""
        if now_ms is not None and now_ms > self.latest_ms:
            self.latest_ms = now_ms

    def now(self) -> Moment:
        """This moment."""
        return Moment(self._clock.elapsed_ms(), self.latest_ms)

    def passed_ms(self, since: Moment) -> int:
        """How long ago a moment was, by that of the two clocks which says more."""
        now = self.now()
        return max(now.elapsed_ms - since.elapsed_ms, now.store_ms - since.store_ms)


class Looks:
    """Knows which chapters are retired, as far as one may rely on it."""

    def __init__(self, store: FileStore, store_time: StoreTime, grace_ms: int) -> None:
        self._store = store
        self._store_time = store_time
        self._reliable_ms = grace_ms // 2
        self._found_absent: dict[int, Moment] = {}
        self._retired: dict[int, Retired] = {}

    def __repr__(self) -> str:
        return f"<Looks chapters={sorted(self._found_absent)} retired={sorted(self._retired)}>"

    def fresh(self, chapter: int) -> bool:
        """Whether ``chapter`` may be taken as not retired now, without asking. Call it after what you conclude from."""
        look = self._found_absent.get(chapter)
        return look is not None and self._store_time.passed_ms(look) < self._reliable_ms

    async def retired(self, chapter: int) -> Retired | None:
        """Return the chapter's retirement record, or None: not retired. Call it after what you conclude from.

        Cost: nothing, or one GET when the last look is too old.
        """
        if chapter in self._retired:
            return self._retired[chapter]
        if self.fresh(chapter):
            return None
        return await self.look(chapter)

    async def look(self, chapter: int) -> Retired | None:
        """Look now, whatever is known. Cost: one GET. Raises Corrupt, Unavailable."""
        started = self._store_time.now()
        try:
            blob = await self._store.get(retired_key(chapter))
        except NotFound as absent:
            self._store_time.tell(absent.now_ms)
            _remember(self._found_absent, chapter, started)
            return None
        self._store_time.tell(blob.now_ms)
        self._found_absent.pop(chapter, None)
        retired = decode_retired(chapter, blob.data)
        _remember(self._retired, chapter, retired)
        return retired


def _remember(known: dict[int, T], chapter: int, value: T) -> None:
    known[chapter] = value
    if len(known) > _CHAPTERS_REMEMBERED_MAX:
        del known[min(known)]
