"""Check all archives of a store: that they hold what the chapters' records say, and that every chain in them closes.

An archive is all that is left of a chapter: what is wrong with it is lost, unless a copy has it.

Invariants:
- Nothing is written, and every object is fetched at most once.
- Memory: one object of an archive, and the tips of the sessions of one chapter.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from logstore.archive import Contents
from logstore.entry import Entry, Open, decode_entry, require_follows
from logstore.errors import Corrupt
from logstore.filestore.base import FileStore
from logstore.finding import RESTORE, Finding, Progress, damage, note
from logstore.keys import ARCHIVE, RETIRED, ArchiveKey, RetiredKey, parse_key, retired_key
from logstore.named import decode_named
from logstore.retired import Retired
from logstore.segment import decode_archived_segment
from logstore.session import SessionId, Tip
from logstore.walk import Walked, fetch

__all__ = ["check_archives"]


async def check_archives(store: FileStore, progress: Progress) -> AsyncGenerator[Finding, None]:
    """Yield what is wrong with the archives in ``store``, and notes. Damaged records are not this check's to tell.

    Cost: a LIST per 1,000 keys, one GET per retirement record and per object of an archive. Raises Unavailable.
    """
    named: set[str] = set()
    async for listed in store.list(RETIRED):
        if isinstance(parse_key(listed.key), RetiredKey):
            record = (await fetch(store, listed.key, decode_named)).value
            if isinstance(record, Retired) and record.archives:
                named.update(record.archives)
                async with aclosing(_check_archive(store, record, progress)) as findings:
                    async for finding in findings:
                        yield finding
    unnamed = 0
    async for listed in store.list(ARCHIVE):
        unnamed += isinstance(parse_key(listed.key), ArchiveKey) and listed.key not in named
    if unnamed:
        what = f"{unnamed} objects are named by no retirement record"
        yield note(ARCHIVE, what, "nothing to do: a chapter is being archived, or `logstore gc` removes them")


async def _check_archive(store: FileStore, record: Retired, progress: Progress) -> AsyncGenerator[Finding, None]:
    """What is wrong with the archive of one chapter; its chains are looked at as long as nothing is missing."""
    reading, whole = _Chapter(record), True
    for name in record.archives:
        walked: Walked[object] = await fetch(store, name, decode_named)
        progress.objects += 1
        progress.bytes += walked.size
        if walked.is_absent:
            yield damage(name, "it is gone, and holds a retired chapter", RESTORE)
        elif walked.damage is not None:
            yield damage(name, walked.damage, RESTORE)
        whole = whole and isinstance(walked.value, Contents)
        for finding in reading.take(name, walked.value) if whole and isinstance(walked.value, Contents) else ():
            yield finding
    if whole and (what := reading.what_lacks()):
        yield damage(retired_key(record.chapter), what, RESTORE)


@dataclass(slots=True)
class _Chapter:
    """The chapter as it is read back: the last entry, and where each session's next segment attaches."""

    record: Retired
    last: Entry | None = None
    tips: dict[int, tuple[SessionId, Tip]] = field(default_factory=dict)

    def take(self, name: str, blocks: Contents) -> Iterator[Finding]:
        """Take in an object of the archive."""
        for block in blocks:
            try:
                for number, data in sorted(block.entries.items()):
                    self._take_entry(number, data)
                for (session, slot), (framed, columns) in sorted(block.segments.items()):
                    self._take_segment(session, slot, framed, columns)
            except Corrupt as error:
                yield damage(name, error, RESTORE)

    def _take_entry(self, number: int, data: bytes) -> None:
        entry = decode_entry(self.record.chapter, number, data)
        if entry.address != ((self.record.chapter, 0) if self.last is None else self.last.successor):
            raise Corrupt(f"an entry is not in its place in the archive entry={number}; restore it")
        if self.last is not None:
            require_follows(entry, self.last, b"")
        self.last = entry
        if isinstance(entry.body, Open):
            self.tips[number] = (SessionId.of(entry), Tip.of(entry))

    def _take_segment(self, session: int, slot: int, framed: bytes, columns: bytes) -> None:
        if session not in self.tips:
            raise Corrupt(f"a slot is in the archive before its session's open entry session={session}; restore it")
        id_, tip = self.tips[session]
        segment = decode_archived_segment(id_.segment_key(slot), framed, columns)
        if tip.slot != slot:
            raise Corrupt(f"a slot is not in the archive session={session} slot={tip.slot}; restore it")
        self.tips[session] = (id_, tip.after(segment))

    def what_lacks(self) -> str:
        """What the chapter's record says, and the archive does not hold; "" when nothing."""
        if self.last is None or (self.last.number, self.last.digest) != (self.record.closed, self.record.digest):
            return "its archive does not end with the closed entry"
        for number, held in self.record.sessions.items():
            slots = self.tips[number][1].slot if number in self.tips else 0
            if slots != held.slots + 1 and (slots or held.slots):  # an invalid session has none, and no final
                return f"its archive holds {slots} slots of session {number}, which had {held.slots} and a final"
        return ""
