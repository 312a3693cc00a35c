"""Check all stage logs of a store: that every page is there and whole, that chains close, and that no block is in two.

Stage logs may be written, completed and dropped meanwhile: what a listing seems to lack is asked for by name, and a
stage log that is gone by then is not looked at.

Invariants:
- Nothing is written, and every page is fetched at most once (gaps are asked for once more).
- Memory: the names of one stage log, the pages fetched ahead, and the ranges of one stage log's indices.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from logstore.errors import Corrupt
from logstore.filestore.base import FileStore, Listed
from logstore.finding import RESTORE, Finding, Progress, damage, note
from logstore.gone import Gone, decode_gone
from logstore.indices import Indices
from logstore.keys import STAGE_LOGS, StageId, StagePageKey, parse_key, stage_gone_key, stage_page_key
from logstore.stagelisting import listed_stages
from logstore.stagepage import Page, PageHead, decode_page, require_follows
from logstore.walk import Walked, fetch, walk

__all__ = ["check_stage_logs"]


@dataclass(slots=True)
class _Reading:
    """A stage log whose pages are being walked. ``last`` None: before the first page, or the one before is lost.

    ``is_whole``: none was lost up to here. ``gone``: it was dropped meanwhile, so that nothing is wrong with it.
    """

    stage: StageId
    next: int = 0
    last: PageHead | None = None
    stored: Indices = field(default_factory=Indices)
    is_whole: bool = True
    gone: bool = False


async def check_stage_logs(store: FileStore, progress: Progress) -> AsyncGenerator[Finding, None]:
    """Yield what is wrong with the stage logs in ``store``, and a note. Cost: a LIST per 1,000 keys, one GET per page.

    Raises Unavailable.
    """
    check = _StageCheck(store, progress)
    async with aclosing(walk(store, check.pages(), _decode_page)) as pages:
        async for walked in pages:
            for finding in await check.take(walked):
                yield finding
    for finding in check.found:
        yield finding
    if check.left_over:
        what = f"{check.left_over} pages are left of stage logs that are gone"
        yield note(STAGE_LOGS, what, "nothing to do: `logstore gc` removes them when the grace is over")


class _StageCheck:
    def __init__(self, store: FileStore, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._reading: _Reading | None = None
        self.found: list[Finding] = []  # about records
        self.left_over = 0

    async def pages(self) -> AsyncGenerator[Listed, None]:
        """The pages of the stage logs that are not gone."""
        async with aclosing(listed_stages(self._store)) as stages:
            async for stage in stages:
                if stage.gone is None:
                    for page in stage.pages:
                        yield page
                else:
                    self.left_over += len(stage.pages)
                    record = await self._record(stage.id)
                    self._count(record)
                    if record.damage is not None:
                        self.found.append(damage(record.key, record.damage, RESTORE))

    async def _record(self, stage: StageId) -> Walked[Gone]:
        return await fetch(self._store, stage_gone_key(stage), lambda _, data: decode_gone(stage, data))

    def _count(self, walked: Walked[Gone] | Walked[Page]) -> None:
        self._progress.objects += not walked.is_absent
        self._progress.bytes += walked.size

    async def take(self, walked: Walked[Page]) -> list[Finding]:
        """Take in the next page; what is wrong with it, and with those before it."""
        key = parse_key(walked.key)
        assert isinstance(key, StagePageKey)
        reading = self._reading
        if reading is None or reading.stage != key.stage:
            reading = self._reading = _Reading(key.stage)
        findings: list[Finding] = []
        while reading.next < key.number and not reading.gone:
            findings += await self._fill_gap(reading, key.number)
        if walked.is_absent and not reading.gone:
            reading.gone = not (await self._record(key.stage)).is_absent
        if not reading.gone:
            findings += self._take(reading, walked)
        return findings

    async def _fill_gap(self, reading: _Reading, behind: int) -> list[Finding]:
        """The next page was not listed, a later one was: ask for it by name; if it is lost, go on behind the gap."""
        name = stage_page_key(StagePageKey(reading.stage, reading.next))
        walked = await fetch(self._store, name, _decode_page)
        if not walked.is_absent:
            return self._take(reading, walked)
        if not (await self._record(reading.stage)).is_absent:
            reading.gone = True
            return []
        what = "a later page is there, and this one is gone"
        if behind - reading.next > 1:
            what += f", like all up to {stage_page_key(StagePageKey(reading.stage, behind - 1))}"
        reading.next, reading.last, reading.is_whole = behind, None, False
        return [damage(name, what, RESTORE)]

    def _take(self, reading: _Reading, walked: Walked[Page]) -> list[Finding]:
        """Take in the page that comes next."""
        self._count(walked)
        page, first, reading.next = walked.value, reading.next == 0, reading.next + 1
        if page is None:
            reading.last, reading.is_whole = None, False
            return [damage(walked.key, walked.damage or "listed, and gone when asked for", RESTORE)]
        findings: list[Finding] = []
        indices = [block.index for block in page.blocks]
        twice = [index for index in indices if index in reading.stored]
        if twice:
            findings.append(damage(walked.key, f"a block is in an earlier page, too index={twice[0]}", RESTORE))
        reading.stored.add(indices)
        try:
            if first or reading.last is not None:
                require_follows(page, reading.last)
            if reading.is_whole and (page.head.run, page.head.stop) != reading.stored.last:
                raise Corrupt("it says that other indices are stored than are")
        except Corrupt as error:
            findings.append(damage(walked.key, error, RESTORE))
        reading.last = page.head
        return findings


def _decode_page(name: str, data: bytes) -> Page:
    key = parse_key(name)
    assert isinstance(key, StagePageKey)
    return decode_page(key, data)
