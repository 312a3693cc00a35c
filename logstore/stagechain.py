"""The chain of pages that a stage log is: found, fetched, read on, created.

docs/rfcs/0010-stage-logs.md. Whoever reads or writes a stage log stands on a page, or before the first, and goes on
from there. Where to begin is found by galloping over heads: they say up to which index the chain has come.

Invariants:
- What is concluded from a page or a 404 is concluded while the stage log is known not to be gone (the sleeper's rule).
- Pages are handed out in order, each verified against the one before; where one is absent none must lie behind.
"""

from __future__ import annotations

import asyncio
from typing import Final, Never

from logstore.aside import decode_aside
from logstore.clock import Clock
from logstore.errors import AlreadyExists, Corrupt, Missing, Trimmed
from logstore.gone import Gone
from logstore.keys import NUMBER_MAX, StageId, StagePageKey, stage_page_key
from logstore.looks import Look
from logstore.objects import Objects
from logstore.roster import gallop
from logstore.stagepage import HEAD_BYTES, Page, PageHead, decode_head, decode_page, require_follows

__all__ = ["StageChain", "StageCursor"]

CHECK_MS: Final = 60_000  # between looks behind the end
WINDOW_MAX: Final = 8  # pages fetched at once
WINDOW_BYTES_MAX: Final = 8 << 20


class StageChain:
    """The pages of one stage log. Absent is None; damage is Corrupt; all is Trimmed once the stage log is gone."""

    def __init__(self, stage: StageId, objects: Objects, look: Look[Gone]) -> None:
        self.stage = stage
        self._objects = objects
        self._look = look
        self._seen = -1  # the highest number that was ever there to us

    def __repr__(self) -> str:
        return f"<StageChain {self.stage} seen={self._seen}>"

    # Pages

    async def page(self, number: int) -> Page | None:
        """A page, whole. Cost: one GET; large ones decode in a thread. Raises Corrupt, Trimmed, Unavailable."""
        key = StagePageKey(self.stage, number)
        blob = await self._objects.get(stage_page_key(key))
        if blob is None:
            return None
        try:
            page = await decode_aside(blob.size, decode_page, key, blob.data)
        except Corrupt as error:
            await self.accuse(error)
        self._seen = max(self._seen, number)
        return page

    async def head(self, number: int) -> PageHead | None:
        """The head of a page. Cost: one GET of 176 bytes. Raises Corrupt, Trimmed, Unavailable."""
        key = StagePageKey(self.stage, number)
        blob = await self._objects.get(stage_page_key(key), 0, HEAD_BYTES)
        if blob is None:
            return None
        try:
            head = decode_head(key, blob.data)
        except Corrupt as error:
            await self.accuse(error)
        self._seen = max(self._seen, number)
        return head

    async def create(self, head: PageHead, data: bytes) -> Page | None:
        """Create the page with this head; None: done. Else the page that has its number.

        Cost: one PUT; one GET where it is taken. Raises Unavailable: it may land yet; Missing, Trimmed.
        """
        number = head.key.number
        try:
            await self._objects.create(stage_page_key(head.key), data)
        except AlreadyExists:
            page = await self.page(number)
            if page is None:
                name = stage_page_key(head.key)
                await self.accuse(Missing(f"an object is gone right after its creation key={name}; check the store"))
            return page
        self._seen = max(self._seen, number)
        return None

    # Where to begin

    async def last_below(self, index: int) -> PageHead | None:
        """The last page that comes before all blocks of ``index`` or above; None: the first page may hold one.

        Cost: a GET of 176 bytes for each probe, 2·log2 of the pages before it. Raises Corrupt, Trimmed, Unavailable.
        """

        async def below(number: int) -> PageHead | None:
            head = await self.head(number)
            return head if head is not None and head.stop <= index else None

        found = await gallop(below, 0)
        return None if found is None else found[1]

    async def last(self, first: int = 0) -> PageHead | None:
        """The last page of all, from ``first`` on, which is there if any is; None: there is none.

        Cost: as ``last_below``, and one GET behind the end. Raises Missing, Corrupt, Trimmed, Unavailable.
        """
        while True:
            found = await gallop(self.head, first)
            number = first if found is None else found[1].key.number + 1
            if await self.is_end(number):
                return None if found is None else found[1]
            first = number

    # What may be concluded

    async def is_end(self, number: int) -> bool:
        """Whether the chain ends before ``number``, which was absent just now; False: it is there after all.

        Cost: one GET of 176 bytes; one more where something lies behind. Raises Missing when the page was lost.
        """
        if number == NUMBER_MAX or (self._seen < number and await self.head(number + 1) is None):
            return True
        if await self.head(number) is not None:
            return False
        name = stage_page_key(StagePageKey(self.stage, number))
        return await self.accuse(Missing(f"a page of a stage log is gone key={name}; restore it"))

    async def require_kept(self) -> None:
        """Raise Trimmed when the stage log is gone. To be called after what one concludes from, and before concluding.

        Cost: none, or one GET when the last look is half the grace old. Raises Corrupt, Unavailable.
        """
        if await self._look.record() is not None:
            raise self._trimmed()

    async def accuse(self, error: Corrupt | Missing) -> Never:
        """Raise ``error`` about a page; Trimmed where the stage log is gone, for then it proves nothing.

        Cost: one GET.
        """
        if await self._look.look() is not None:
            raise self._trimmed() from error
        raise error

    def _trimmed(self) -> Trimmed:
        return Trimmed(
            f"retention removed this stage log stage_log={self.stage}; it is gone for ever, write under another retry"
        )


class StageCursor:
    """Where a reading of a stage log stands: behind ``last``, or before the first page. Hands out what follows."""

    def __init__(self, chain: StageChain, last: PageHead | None, clock: Clock) -> None:
        self.last = last
        self._chain = chain
        self._clock = clock
        self._window = 1
        self._ended_at: int | None = None  # the page that was found not to be there, and not lost
        self._checked_ms = 0

    def __repr__(self) -> str:
        return f"<StageCursor {self._chain.stage} next={self.next} window={self._window}>"

    @property
    def next(self) -> int:
        """The number of the page that follows."""
        return 0 if self.last is None else self.last.key.number + 1

    def copy(self) -> StageCursor:
        """Another that stands here."""
        copied = StageCursor(self._chain, self.last, self._clock)
        copied._ended_at, copied._checked_ms = self._ended_at, self._checked_ms
        return copied

    async def read(self) -> list[Page]:
        """The pages that follow, some at a time; none: that was all there is by now.

        Cost: a GET per page; up to 7 more where it ends; one at the end, and once a minute one behind it. After the
        page that completes the stage log nothing. Raises Missing, Corrupt, Trimmed, Unavailable.
        """
        pages: list[Page] = []
        while not pages and not (self.last is not None and self.last.complete):
            numbers = range(self.next, self.next + self._window)
            found = await asyncio.gather(*map(self._chain.page, numbers))
            for page in found:
                if page is None or (self.last is not None and self.last.complete):
                    break
                await self._take(page)
                pages.append(page)
            if not pages and await self._has_ended():
                break
        await self._chain.require_kept()
        self._window = self._next_window(pages)
        return pages

    async def _take(self, page: Page) -> None:
        try:
            require_follows(page, self.last)
        except Corrupt as error:
            await self._chain.accuse(error)
        self.last = page.head

    async def _has_ended(self) -> bool:
        """Whether the next page, absent just now, is not there yet; looks behind it when it has not for a minute."""
        now_ms = self._clock.elapsed_ms()
        if self._ended_at == self.next and now_ms - self._checked_ms < CHECK_MS:
            return True
        ended = await self._chain.is_end(self.next)
        self._ended_at, self._checked_ms = self.next, now_ms
        return ended

    def _next_window(self, pages: list[Page]) -> int:
        """How many to ask for at once: more after a hit, as long as pages are small; one where the end is near."""
        if len(pages) < self._window:
            return 1
        largest = max(page.head.weight for page in pages)
        return max(1, min(2 * self._window, WINDOW_MAX, WINDOW_BYTES_MAX // largest))
