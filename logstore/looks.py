"""The sleeper's rule: how long one may go on believing that a chapter is not retired, or a stage log not gone.

A retired chapter's objects are deleted one grace after its record was created, names and all. From
then on its objects and its 404s prove nothing. So whoever draws a conclusion from either asks here
*afterwards*: a look at ``retired/<chapter>`` that found nothing may be relied on until half the grace
after its *start*; with an older one another look is made. (RFC 0001 §7.) Likewise a stage log and its ``gone``.

Invariants:
- An answer "there is no record" rests on a look that started less than half the grace ago.
- Time is the larger of what passed on the elapsed clock and on the store's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from logstore.clock import Clock
from logstore.errors import NotFound
from logstore.filestore.base import FileStore
from logstore.keys import retired_key
from logstore.retired import Retired, decode_retired

__all__ = ["Look", "Looks", "Moment", "StoreTime"]

_CHAPTERS_REMEMBERED_MAX = 1_000

R = TypeVar("R")


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


class Look(Generic[R]):
    """Knows whether one record is there, as far as one may rely on it."""

    def __init__(
        self, store: FileStore, store_time: StoreTime, grace_ms: int, name: str, decode: Callable[[bytes], R]
    ) -> None:
        self._store = store
        self._store_time = store_time
        self._reliable_ms = grace_ms // 2
        self._name = name
        self._decode = decode
        self._found_absent: Moment | None = None
        self._record: R | None = None

    def __repr__(self) -> str:
        state = "there" if self._record is not None else "absent" if self.fresh else "not known"
        return f"<Look {self._name} {state}>"

    @property
    def fresh(self) -> bool:
        """Whether it may be taken as absent now, without asking. Call it after what you conclude from."""
        since = self._found_absent
        return self._record is None and since is not None and self._store_time.passed_ms(since) < self._reliable_ms

    async def record(self) -> R | None:
        """Return the record, or None: it is not there. Call it after what you conclude from.

        Cost: nothing, or one GET when the last look is too old.
        """
        if self._record is not None:
            return self._record
        return None if self.fresh else await self.look()

    async def look(self) -> R | None:
        """Look now, whatever is known. Cost: one GET. Raises Corrupt, Unavailable."""
        started = self._store_time.now()
        try:
            blob = await self._store.get(self._name)
        except NotFound as absent:
            self._store_time.tell(absent.now_ms)
            self._found_absent = started
            return None
        self._store_time.tell(blob.now_ms)
        self._found_absent = None
        self._record = self._decode(blob.data)
        return self._record


class Looks:
    """Knows which chapters are retired, as far as one may rely on it."""

    def __init__(self, store: FileStore, store_time: StoreTime, grace_ms: int) -> None:
        self._store = store
        self._store_time = store_time
        self._grace_ms = grace_ms
        self._looks: dict[int, Look[Retired]] = {}

    def __repr__(self) -> str:
        return f"<Looks chapters={sorted(self._looks)}>"

    def fresh(self, chapter: int) -> bool:
        """Whether ``chapter`` may be taken as not retired now, without asking. Call it after what you conclude from."""
        return chapter in self._looks and self._looks[chapter].fresh

    async def retired(self, chapter: int) -> Retired | None:
        """Return the chapter's retirement record, or None: not retired. Call it after what you conclude from.

        Cost: nothing, or one GET when the last look is too old.
        """
        return await self._look_at(chapter).record()

    async def look(self, chapter: int) -> Retired | None:
        """Look now, whatever is known. Cost: one GET. Raises Corrupt, Unavailable."""
        return await self._look_at(chapter).look()

    def _look_at(self, chapter: int) -> Look[Retired]:
        if (known := self._looks.get(chapter)) is not None:
            return known

        def decode(data: bytes) -> Retired:
            return decode_retired(chapter, data)

        made = Look(self._store, self._store_time, self._grace_ms, retired_key(chapter), decode)
        self._looks[chapter] = made
        if len(self._looks) > _CHAPTERS_REMEMBERED_MAX:
            del self._looks[min(self._looks)]
        return made
