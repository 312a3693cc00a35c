"""Looks after a log's history: ends chapters, retires and archives them, and lets ``collector.py`` delete.

docs/rfcs/0006-retention.md. Any number of processes may keep one log: each step is a creation that one of them wins, or
a deletion that follows from what is stored. What to do is decided in ``retention.py``, by what ``needs.py`` finds.

Invariants:
- A chapter is retired only by who has read all of it, and found it covered by snapshots read back whole.
- Nothing is archived of a chapter that snapshots do not cover.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from logstore.archive import ArchiveWriter, decode_archive
from logstore.aside import decode_aside
from logstore.chapter import Chapter, NotEnded, Stored
from logstore.clock import StampClock, stamp_ms
from logstore.collector import PROBE, Collector, Garbage
from logstore.entry import Closed, Entry
from logstore.errors import AlreadyExists, Corrupt, InvalidArgument, Missing, Unavailable
from logstore.filestore.base import FileStore
from logstore.filestore.local import LocalStore
from logstore.frontier import closed_by
from logstore.identity import Identity
from logstore.keys import NONCE_BYTES, ArchiveKey, StageId, archive_key, retired_key
from logstore.looks import Looks, StoreTime
from logstore.needs import Needs
from logstore.notices import Notices
from logstore.objects import Objects
from logstore.pins import Pins
from logstore.retention import SNAPSHOTS_KEPT_MIN, held_up_by, uncovered_by
from logstore.retired import Retired, encode_retired
from logstore.roster import Roster
from logstore.snapshots import Snapshots
from logstore.stagechain import StageChain
from logstore.stageretention import DroppedStageLog, StageRetention

__all__ = ["KeepSettings", "Keeper", "Retirement"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """When chapters end, how many snapshots of each projection are kept at least, and how long stage logs are.

    ``chapter_age_ms``: from its first entry on. ``chapter_entries_max``: about two for each session.
    ``stage_logs_age_ms``: a stage log goes when nothing was added for so long, a grace at least; None: never.

    >>> KeepSettings(chapter_age_ms=3_600_000).snapshots_kept
    2
    """

    chapter_age_ms: int = 86_400_000
    chapter_entries_max: int = 8_192
    snapshots_kept: int = 2
    stage_logs_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Retirement:
    """What became of a chapter: retired (by a dry run: would be), or why it is not.

    >>> async def retire(log):
    ...     return [(one.chapter, one.retired, one.why) for one in await log.keeper().retire(dry_run=True)]
    """

    chapter: int
    retired: bool
    why: str
    archives: int = 0


class Keeper:
    """Keeps one log's history in bounds. Made by ``log.keeper``; each call does one round of one duty.

    >>> async def round(log):
    ...     keeper = log.keeper()
    ...     await keeper.close_chapter()
    ...     await keeper.retire()
    ...     return [garbage.key async for garbage in keeper.collect()]
    """

    def __init__(
        self,
        settings: KeepSettings,
        identity: Identity,
        *,
        store: FileStore,
        objects: Objects,
        roster: Roster,
        looks: Looks,
        snapshots: Snapshots,
        pins: Pins,
        stamps: StampClock,
        store_time: StoreTime,
        rng: random.Random,
        local: LocalStore | None,
        close_chapter: Callable[[], Awaitable[bool]],
        stage_chain: Callable[[StageId], StageChain],
    ) -> None:
        if settings.snapshots_kept < SNAPSHOTS_KEPT_MIN:
            raise InvalidArgument(
                f"one snapshot may be damaged: keep at least {SNAPSHOTS_KEPT_MIN}"
                f" snapshots_kept={settings.snapshots_kept}"
            )
        self._settings = settings
        self._identity = identity
        self._say = Notices(_log, store=roster.store)
        self._store = store
        self._objects = objects
        self._roster = roster
        self._looks = looks
        self._rng = rng
        self._local = local
        self._close_chapter = close_chapter
        self._needs = Needs(
            settings.snapshots_kept,
            identity.grace_ms,
            store=store,
            roster=roster,
            looks=looks,
            snapshots=snapshots,
            pins=pins,
            stamps=stamps,
            store_time=store_time,
        )
        self._stage_retention = StageRetention(
            settings.stage_logs_age_ms,
            identity.grace_ms,
            self._needs,
            store=store,
            objects=objects,
            chain_of=stage_chain,
        )
        self._collector = Collector(
            self._needs,
            identity.grace_ms,
            store=store,
            objects=objects,
            looks=looks,
            snapshots=snapshots,
            pins=pins,
        )

    def __repr__(self) -> str:
        return f"<Keeper {self._settings} {self._collector!r}>"

    # Closing

    async def close_chapter(self) -> bool:
        """End the newest chapter if it is old or long enough; False: it is not, or holds no session.

        Cost: as finding the roster's tail, and 2 GETs; 8 requests where it ends. Raises ClockSkew, Unavailable.
        """
        tail = await self._roster.find_tail()
        if tail is None or isinstance(tail.body, Closed):
            return False
        begin = await self._objects.entry(tail.chapter, 0)
        now_ms = await self._needs.ask_time()
        is_old = begin is not None and now_ms - stamp_ms(begin.stamp) >= self._settings.chapter_age_ms
        return (is_old or tail.number >= self._settings.chapter_entries_max) and await self._close_chapter()

    # Retiring

    async def retire(self, *, dry_run: bool = False) -> list[Retirement]:
        """Retire each chapter that may be, in order, and archive it before if the store is to keep history.

        The last one says what keeps the next chapter. Cost: LISTs of snapshots, chunks and pins; per chapter retired a
        GET per object of it, and of each chunk of its covering snapshots once. Raises Corrupt, Missing, Unavailable.
        """
        done: list[Retirement] = []
        while not done or (done[-1].retired and not dry_run):
            chapter = await self._roster.first_unretired()
            if (outcome := await self._retire(chapter, dry_run)) is not None:
                done.append(outcome)
        return done

    async def _retire(self, chapter: int, dry_run: bool) -> Retirement | None:
        """Retire one chapter; None: somebody else has."""
        if self._identity.history == "full":
            return Retirement(chapter, False, "this store keeps all its history (history=full)")
        if await self._looks.look(chapter) is not None:
            return None
        if await self._objects.fetch_entry(chapter + 1, 0) is None:
            return Retirement(chapter, False, "it is the newest: sessions open in it")
        if why := held_up_by(chapter, await self._needs.standing()):
            return Retirement(chapter, False, why)
        try:
            record = await self._read(chapter)
            if why := uncovered_by(record, await self._needs.standing()):
                return Retirement(chapter, False, why)
            if dry_run:
                return Retirement(chapter, True, "it would be retired: snapshots hold all of it")
            if self._identity.history == "archive":
                record = replace(record, archives=await self._archive(chapter))
        except NotEnded as why_not:
            is_retired = await self._looks.look(chapter) is not None
            return None if is_retired else Retirement(chapter, False, str(why_not))
        except (Corrupt, Missing):
            if await self._looks.look(chapter) is not None:
                return None  # what lies there proves nothing any more
            raise
        return await self._create_record(record)

    async def _create_record(self, record: Retired) -> Retirement:
        """Create the record of a chapter, if all that it held is still covered, and nobody needs it."""
        since, chapter = self._needs.now(), record.chapter
        standing = await self._needs.standing()
        if why := held_up_by(chapter, standing) or uncovered_by(record, standing):
            return Retirement(chapter, False, why)
        if not self._needs.may_act(since):
            raise Unavailable(f"looking took longer than a quarter of the grace chapter={chapter}; run it again")
        with suppress(AlreadyExists):  # another keeper's, or an earlier attempt of ours
            await self._objects.create(retired_key(chapter), encode_retired(record))
        found = await self._looks.look(chapter)
        if found is None:
            raise Missing(f"an object is gone right after its creation key={retired_key(chapter)}; check the store")
        self._say("chapter-retired", chapter=chapter, archives=len(found.archives))
        return Retirement(chapter, True, "snapshots hold all of it", len(found.archives))

    async def _closed_before(self, chapter: int) -> Entry | None:
        record = await self._looks.retired(chapter - 1) if chapter else None
        return None if record is None else closed_by(record)

    async def _reading(self, chapter: int) -> Chapter:
        return Chapter(self._objects, chapter, await self._closed_before(chapter), self._identity.root)

    async def _read(self, chapter: int) -> Retired:
        """Read all of a chapter, and return the record of what it held. Raises NotEnded, Missing, Corrupt."""
        reading = await self._reading(chapter)
        async with aclosing(reading.read()) as stored:
            async for _ in stored:
                pass
        return reading.record()

    async def _archive(self, chapter: int) -> tuple[str, ...]:
        """Archive a chapter that is about to be retired; return the names of the archive's objects."""
        reading = await self._reading(chapter)
        writer, names = ArchiveWriter(chapter, self._rng.randbytes(NONCE_BYTES)), []
        async with aclosing(reading.read()) as stored:
            async for one in stored:
                full = await asyncio.to_thread(_take, writer, one)
                if full is not None:
                    names.append(await self._create_archive(*full))
        names.append(await self._create_archive(*await asyncio.to_thread(writer.finish)))
        return tuple(names)

    async def _create_archive(self, key: ArchiveKey, data: bytes) -> str:
        """Create an object of an archive, and read it back whole."""
        name = archive_key(key)
        with suppress(AlreadyExists):  # the nonce is random: an earlier attempt of ours landed
            await self._objects.create(name, data)
        blob = await self._objects.get(name)
        if blob is None:
            raise Missing(f"an object is gone right after its creation key={name}; check the store")
        await decode_aside(blob.size, decode_archive, key, blob.data)
        return name

    # Stage logs

    def drop_stage_logs(self, *, dry_run: bool = False) -> AsyncGenerator[DroppedStageLog, None]:
        """Record that each stage log is gone to which nothing was added for the time set; yield what became of it.

        A grace later ``collect`` deletes its pages; the record stays for ever. One that nobody completed is completed
        before, so that nothing can be added that would go with it. A dry run only says which, by their ages.
        Cost: a LIST per 1,000 keys of all stage logs, once in a quarter of the grace; of each that goes 4 GETs and 1 or
        2 PUTs. Nothing where no age is set. Raises ClockSkew, Unavailable; damage keeps a stage log, and is said.
        """
        return self._stage_retention.drop(dry_run=dry_run)

    # Collecting

    def collect(self, *, dry_run: bool = False, void: bool = False) -> AsyncGenerator[Garbage, None]:
        """Delete what nobody needs any more, and yield each object once it is deleted; a dry run only yields.

        ``void``: also slots above their sessions' finals, in chapters not retired; a GET per session finds them.
        Cost: LISTs of snapshots, chunks, pins, archives and records; of stage logs once in a quarter of the grace; of
        the whole log where a chapter has become old enough; a DELETE per object. Raises ClockSkew, Corrupt,
        Unavailable: what was deleted is, run it again.
        """
        return self._collector.collect(dry_run=dry_run, void=void)

    # Besides

    async def try_out(self) -> None:
        """Create an object and delete it, so that missing permissions show at once. Raises Unavailable."""
        name = f"{PROBE}{self._rng.randbytes(NONCE_BYTES).hex()}/keep"
        await self._objects.create(name, b"may this process create and delete?")
        await self._store.delete(name)

    async def sweep(self) -> int:
        """Remove unfinished files that are a grace old, and empty directories, of a local store; how many there were.

        Cost: a scan of the directory; nothing where the store is remote.
        """
        if self._local is None:
            return 0
        swept = await self._local.sweep(older_than_ms=self._identity.grace_ms)
        return swept.temporaries + swept.directories


def _take(writer: ArchiveWriter, stored: Stored) -> tuple[ArchiveKey, bytes] | None:
    if isinstance(stored.value, Entry):
        return writer.take_entry(stored.value, stored.data)
    return writer.take_segment(stored.value, stored.data)
