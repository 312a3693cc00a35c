"""Looks after a log's history: closes chapters, retires them, archives them, and collects what nobody needs.

docs/rfcs/0006-retention.md. Any number of processes may keep one log: each step is a creation that one of them wins, or
a deletion that follows from what is stored. What to do is decided in ``retention.py``.

Invariants:
- A chapter is retired only by who has read all of it, and found it covered by snapshots read back whole.
- What a listing said is acted on within a quarter of the grace after the listing began.
- Nothing of a chapter is deleted before its record is a grace old, by the store's clock.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

from logstore.archive import ArchiveWriter, decode_archive
from logstore.aside import decode_aside
from logstore.chapter import Chapter, NotEnded, Stored
from logstore.clock import MEASUREMENT_ERROR_MS, Clock, stamp_ms
from logstore.entry import FLIGHTS_MAX, Closed, Entry
from logstore.errors import AlreadyExists, Corrupt, InvalidArgument, Missing, Unavailable
from logstore.filestore.base import FileStore, Listed
from logstore.filestore.local import LocalStore
from logstore.frontier import closed_by
from logstore.identity import Identity
from logstore.keys import (
    ARCHIVE,
    CHUNKS,
    NONCE_BYTES,
    RETIRED,
    ArchiveKey,
    ChunkKey,
    EntryKey,
    Fold,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    archive_key,
    chunk_key,
    manifest_key,
    parse_key,
    pin_key,
    registration_key,
    retired_key,
)
from logstore.looks import Looks, StoreTime
from logstore.manifest import Manifest
from logstore.objects import Objects
from logstore.pin import PinRecord
from logstore.pins import Pins
from logstore.retention import (
    SNAPSHOTS_KEPT_MIN,
    Standing,
    condemned_chunks,
    condemned_manifests,
    held_up_by,
    uncovered_by,
)
from logstore.retired import encode_retired
from logstore.roster import Roster
from logstore.snapshots import FoldRecords, Snapshots

__all__ = ["Garbage", "KeepSettings", "Keeper", "Retirement"]

DELETES_AT_ONCE: Final = 16
FETCHES_AT_ONCE: Final = 8
PROBE: Final = "probe/"


@dataclass(frozen=True, slots=True)
class KeepSettings:
    """When chapters end, and how many snapshots of each projection are kept at least.

    ``chapter_age_ms``: from its first entry on. ``chapter_entries_max``: about two for each session.

    >>> KeepSettings(chapter_age_ms=3_600_000).snapshots_kept
    2
    """

    chapter_age_ms: int = 86_400_000
    chapter_entries_max: int = 8_192
    snapshots_kept: int = 2


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


@dataclass(frozen=True, slots=True)
class Garbage:
    """An object that nobody needs any more, and why; deleted, unless by a dry run."""

    key: str
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class _Moment:
    """When something began, by both clocks: see the sleeper's rule."""

    elapsed_ms: int
    store_ms: int


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
        unretried: FileStore,
        objects: Objects,
        roster: Roster,
        looks: Looks,
        snapshots: Snapshots,
        pins: Pins,
        clock: Clock,
        store_time: StoreTime,
        rng: random.Random,
        local: LocalStore | None,
        close_chapter: Callable[[], Awaitable[bool]],
    ) -> None:
        if settings.snapshots_kept < SNAPSHOTS_KEPT_MIN:
            raise InvalidArgument(
                f"one snapshot may be damaged: keep at least {SNAPSHOTS_KEPT_MIN}"
                f" snapshots_kept={settings.snapshots_kept}"
            )
        self._settings = settings
        self._identity = identity
        self._store = store
        self._unretried = unretried
        self._objects = objects
        self._roster = roster
        self._looks = looks
        self._snapshots = snapshots
        self._pins = pins
        self._clock = clock
        self._store_time = store_time
        self._rng = rng
        self._local = local
        self._close_chapter = close_chapter
        self._read_whole: set[ChunkKey] = set()  # chunks that this process has read, and found whole
        self._chunks_of: dict[ManifestKey, frozenset[ChunkKey]] = {}  # what manifests list
        self._cleared: dict[int, _Moment] = {}  # retired chapters, and when nothing was left of them

    def __repr__(self) -> str:
        return f"<Keeper {self._settings} cleared={len(self._cleared)}>"

    # Time

    def _now(self) -> _Moment:
        return _Moment(self._clock.elapsed_ms(), self._store_time.latest_ms)

    def _passed_ms(self, since: _Moment) -> int:
        now = self._now()
        return max(now.elapsed_ms - since.elapsed_ms, now.store_ms - since.store_ms)

    def _may_act(self, since: _Moment) -> bool:
        """Whether what was listed from ``since`` on may still be acted on."""
        return self._passed_ms(since) < self._identity.grace_ms // 4

    def _is_grace_ago(self, since: _Moment) -> bool:
        return self._passed_ms(since) >= self._identity.grace_ms

    async def _store_now_ms(self) -> int:
        """The store's own time now. Cost: a GET."""
        await self._looks.look(await self._roster.first_unretired())
        if not self._store_time.latest_ms:
            raise Unavailable("the store tells no times, so nobody knows how old anything is; nothing is collected")
        return self._store_time.latest_ms

    def _is_old(self, created_ms: int | None) -> bool:
        """Whether something is a grace old, by the store's clock; what it does not tell is not."""
        return created_ms is not None and self._surely_ms - created_ms >= self._identity.grace_ms

    @property
    def _surely_ms(self) -> int:
        """What the store's clock shows at least, counted by its times of objects, which it may tell by the second."""
        return self._store_time.latest_ms - MEASUREMENT_ERROR_MS

    # Closing

    async def close_chapter(self) -> bool:
        """End the newest chapter if it is old or long enough; False: it is not, or holds no session.

        Cost: as finding the roster's tail, and 2 GETs; 8 requests where it ends. Raises ClockSkew, Unavailable.
        """
        tail = await self._roster.find_tail()
        if tail is None or isinstance(tail.body, Closed):
            return False
        begin = await self._objects.entry(tail.chapter, 0)
        now_ms = await self._store_now_ms()
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
        if why := held_up_by(chapter, await self._standing()):
            return Retirement(chapter, False, why)
        reading = Chapter(self._objects, chapter, await self._closed_before(chapter), self._identity.root)
        try:
            archives = await self._read(chapter, reading, archive=self._identity.history == "archive" and not dry_run)
        except NotEnded as why_not:
            is_retired = await self._looks.look(chapter) is not None
            return None if is_retired else Retirement(chapter, False, str(why_not))
        except (Corrupt, Missing):
            if await self._looks.look(chapter) is not None:
                return None  # what lies there proves nothing any more
            raise
        record = reading.record(archives)
        since = self._now()
        standing = await self._standing()
        if why := held_up_by(chapter, standing) or uncovered_by(record, standing):
            return Retirement(chapter, False, why)
        if dry_run:
            return Retirement(chapter, True, "it would be retired: snapshots hold all of it")
        if not self._may_act(since):
            raise Unavailable(f"looking took longer than a quarter of the grace chapter={chapter}; run it again")
        with suppress(AlreadyExists):  # another keeper's, or an earlier attempt of ours
            await self._unretried.create(retired_key(chapter), encode_retired(record))  # now, or not at all
        found = await self._looks.look(chapter)
        if found is None:
            raise Missing(f"an object is gone right after its creation key={retired_key(chapter)}; check the store")
        return Retirement(chapter, True, "snapshots hold all of it", len(found.archives))

    async def _closed_before(self, chapter: int) -> Entry | None:
        record = await self._looks.retired(chapter - 1) if chapter else None
        return None if record is None else closed_by(record)

    async def _read(self, chapter: int, reading: Chapter, *, archive: bool) -> tuple[str, ...]:
        """Read all of a chapter; archive it if asked to, and return the names of the archive's objects."""
        writer = ArchiveWriter(chapter, self._rng.randbytes(NONCE_BYTES)) if archive else None
        names: list[str] = []
        async with aclosing(reading.read()) as stored:
            async for one in stored:
                full = None if writer is None else await asyncio.to_thread(_take, writer, one)
                if full is not None:
                    names.append(await self._create_archive(*full))
        if writer is not None:
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

    # What is needed

    async def _standing(self) -> Standing:
        """List what is needed now. Cost: LISTs of snapshots, chunks and pins; a GET per pin, per manifest looked at."""
        await self._store_now_ms()
        records = await self._snapshots.listed()
        chunks = await self._chunks()
        self._read_whole &= chunks.keys()
        floors: dict[Fold, Manifest | None] = {}
        unreadable: list[Fold] = []
        dropped: dict[Fold, int | None] = {}
        for fold, of_fold in records.items():
            try:
                registration = await self._snapshots.registration(fold, of_fold)
            except (Corrupt, Missing):
                unreadable.append(fold)
                continue
            if registration is None:
                unreadable.append(fold)
            elif registration.registered:
                floors[fold] = await self._floor(of_fold, chunks)
            else:
                dropped[fold] = of_fold.created_ms[RegistrationKey(fold, of_fold.registrations - 1)]
        return Standing(records, floors, unreadable, dropped, await self._live_pins())

    async def _live_pins(self) -> list[PinRecord]:
        """The pins that have not expired; listed again where one was renewed and collected in between."""
        while True:
            newest = [await self._pins.newest(pin) for pin in await self._pins.listed()]
            if None not in newest:
                return [pin for pin in newest if pin is not None and pin.expires_ms > self._store_time.latest_ms]

    async def _chunks(self) -> dict[ChunkKey, Listed]:
        found = {}
        async for listed in self._store.list(CHUNKS):
            if isinstance(key := parse_key(listed.key), ChunkKey):
                found[key] = listed
        return found

    async def _floor(self, records: FoldRecords, chunks: dict[ChunkKey, Listed]) -> Manifest | None:
        """The oldest snapshot that a fold needs: the last of those kept that are whole and a grace old."""
        whole = 0
        for key in reversed(records.manifests):
            if self._is_old(records.created_ms[key]) and (manifest := await self._whole(key, chunks)) is not None:
                whole += 1
                if whole == self._settings.snapshots_kept:
                    return manifest
        return None

    async def _whole(self, key: ManifestKey, chunks: dict[ChunkKey, Listed]) -> Manifest | None:
        """A manifest whose chunks are all listed, and were read whole once by this process; else None."""
        try:
            manifest = await self._snapshots.manifest(key)
            unread = [chunk for chunk in manifest.chunks if chunk.key not in self._read_whole]
            for start in range(0, len(unread), FETCHES_AT_ONCE):
                some = unread[start : start + FETCHES_AT_ONCE]
                for chunk, read in zip(
                    some, await asyncio.gather(*(self._snapshots.chunk(c.key) for c in some)), strict=True
                ):
                    if len(read.keys) != chunk.rows:
                        return None
                    self._read_whole.add(chunk.key)
        except (Corrupt, Missing):
            return None
        return manifest if all(chunk.key in chunks for chunk in manifest.chunks) else None

    # Collecting

    async def collect(self, *, dry_run: bool = False, void: bool = False) -> AsyncGenerator[Garbage, None]:
        """Delete what nobody needs any more, and yield each object once it is deleted; a dry run only yields.

        ``void``: also slots above their sessions' finals, in chapters not retired; a GET per session finds them.
        Cost: LISTs of snapshots, chunks, pins, archives and records; where a chapter has become old enough, of the
        whole log; a DELETE per object. Raises Corrupt, Unavailable: what was deleted is, run it again.
        """
        await self._store_now_ms()
        async for garbage in self._collect_snapshots(dry_run):
            yield garbage
        began, due = self._now(), await self._old_chapters()
        is_cleared = all(chapter in self._cleared and not self._is_grace_ago(self._cleared[chapter]) for chapter in due)
        duties = [
            self._left_in(set() if is_cleared else due),
            self._old_archives(due),
            self._old_pins(),
            self._old_probes(),
        ]
        for duty in [*duties, self._void_slots()] if void else duties:
            async for garbage in self._delete(duty, dry_run):
                yield garbage
        if not dry_run and not is_cleared:
            self._cleared = dict.fromkeys(due, began)

    async def _delete(self, garbage: AsyncIterator[Garbage], dry_run: bool) -> AsyncGenerator[Garbage, None]:
        """Delete some at a time; yield each."""
        some: list[Garbage] = []
        async for one in garbage:
            some.append(one)
            if len(some) == DELETES_AT_ONCE:
                async for deleted in self._delete_some(some, dry_run):
                    yield deleted
                some = []
        async for deleted in self._delete_some(some, dry_run):
            yield deleted

    async def _delete_some(self, some: list[Garbage], dry_run: bool) -> AsyncGenerator[Garbage, None]:
        if not dry_run:
            await asyncio.gather(*(self._store.delete(one.key) for one in some))
        for one in some:
            yield one

    async def _collect_snapshots(self, dry_run: bool) -> AsyncGenerator[Garbage, None]:
        """Manifests below floors, then chunks that no manifest left lists; anew when looking is too long ago."""
        while True:
            since = self._now()
            standing = await self._standing()
            chunks = await self._chunks()
            now_ms, grace_ms = self._surely_ms, self._identity.grace_ms
            manifests = condemned_manifests(standing, now_ms, grace_ms)
            listed = await self._listed_chunks(standing)
            created = {key: one.modified_ms or now_ms for key, one in chunks.items()}
            records = [Garbage(manifest_key(key), 0, "newer snapshots are whole, and a grace old") for key in manifests]
            records += [
                Garbage(registration_key(RegistrationKey(fold, number)), 0, "a newer registration counts")
                for fold, of_fold in standing.records.items()
                if self._is_old(of_fold.created_ms.get(RegistrationKey(fold, of_fold.registrations - 1)))
                for number in range(of_fold.registrations - 1)
                if RegistrationKey(fold, number) in of_fold.created_ms
            ]
            rows = [
                Garbage(chunk_key(key), chunks[key].size, "no snapshot lists it")
                for key in condemned_chunks(created, listed, standing, now_ms, grace_ms)
            ]
            left = [some for group in (records, rows) for some in _batches(group)]  # what lists chunks goes before them
            if left and not dry_run and not self._may_act(since):
                raise Unavailable("looking took longer than a quarter of the grace; run it again where it is quicker")
            while left and (dry_run or self._may_act(since)):
                async for one in self._delete_some(left.pop(0), dry_run):
                    yield one
            if not left:
                return

    async def _listed_chunks(self, standing: Standing) -> set[ChunkKey]:
        """The chunks that a manifest lists which is there: those of one that goes now are for the next round.

        A manifest that cannot be read lists nothing that anybody can use. Read once by this process.
        """
        listed: dict[ManifestKey, frozenset[ChunkKey]] = {}
        for records in standing.records.values():
            for key in records.manifests:
                if (known := self._chunks_of.get(key)) is None:
                    try:
                        known = frozenset(chunk.key for chunk in (await self._snapshots.manifest(key)).chunks)
                    except (Corrupt, Missing):
                        continue
                listed[key] = known
        self._chunks_of = listed
        return set().union(*listed.values())

    async def _old_chapters(self) -> set[int]:
        """The chapters whose retirement records are a grace old."""
        listing = self._store.list(RETIRED)
        keys = [parse_key(listed.key) async for listed in listing if self._is_old(listed.modified_ms)]
        return {key.chapter for key in keys if isinstance(key, RetiredKey)}

    async def _left_in(self, due: set[int]) -> AsyncGenerator[Garbage, None]:
        """What is left of chapters, and what has landed there since."""
        for prefix in ("log/", "roster/") if due else ():
            async for listed in self._store.list(prefix):
                key = parse_key(listed.key)
                if isinstance(key, SegmentKey | EntryKey) and key.chapter in due:
                    yield Garbage(listed.key, listed.size, "its chapter was retired a grace ago")

    async def _old_archives(self, due: set[int]) -> AsyncGenerator[Garbage, None]:
        """Attempts at archives that came to nothing."""
        async for listed in self._store.list(ARCHIVE):
            key = parse_key(listed.key)
            if isinstance(key, ArchiveKey) and key.chapter in due:
                record = await self._looks.retired(key.chapter)
                if record is not None and listed.key not in record.archives:
                    yield Garbage(listed.key, listed.size, "the chapter's record names another archive")

    async def _old_pins(self) -> AsyncGenerator[Garbage, None]:
        """Pins that a newer renewal replaces, and those that expired a grace ago."""
        for pin in await self._pins.listed():
            newest = await self._pins.newest(pin)
            is_over = newest is not None and self._is_old(max(newest.expires_ms, pin.created_ms))
            for key in pin.keys[:-1]:
                yield Garbage(pin_key(key), 0, "a newer renewal counts")
            if is_over and len(pin.keys) == 1:  # were it gone before the others, one of them would count again
                yield Garbage(pin_key(pin.keys[0]), 0, "it has expired")

    async def _old_probes(self) -> AsyncGenerator[Garbage, None]:
        """What a probe left behind that was killed."""
        async for listed in self._store.list(PROBE):
            if self._is_old(listed.modified_ms):
                yield Garbage(listed.key, listed.size, "a probe left it behind")

    async def _void_slots(self) -> AsyncGenerator[Garbage, None]:
        """Slots above the first final of their session: what was under way when it ended. No reader looks there."""
        slots: list[tuple[SegmentKey, Listed]] = []
        async for listed in self._store.list("log/"):
            key = parse_key(listed.key)
            if isinstance(key, SegmentKey) and await self._looks.retired(key.chapter) is None:
                if slots and _session_of(slots[-1][0]) != _session_of(key):
                    for garbage in await self._above_final(slots):
                        yield garbage
                    slots = []
                slots.append((key, listed))
        for garbage in await self._above_final(slots):
            yield garbage

    async def _above_final(self, slots: list[tuple[SegmentKey, Listed]]) -> list[Garbage]:
        """A session's void slots: between the last slot and its final lie fewer than it may have in flight."""
        above: list[Garbage] = []
        for key, listed in slots[: -FLIGHTS_MAX - 2 : -1]:
            try:
                segment = await self._objects.fetch_segment(key, remember=False)
            except Corrupt:
                segment = None  # `check` names it, unless a final lies below
            if segment is not None and segment.final:
                return above
            if self._is_old(listed.modified_ms):
                above.append(Garbage(listed.key, listed.size, "it lies above its session's final"))
        return []

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


def _session_of(key: SegmentKey) -> tuple[str, int, int]:
    return key.writer, key.chapter, key.session


def _batches(garbage: list[Garbage]) -> list[list[Garbage]]:
    return [garbage[start : start + DELETES_AT_ONCE] for start in range(0, len(garbage), DELETES_AT_ONCE)]


def _take(writer: ArchiveWriter, stored: Stored) -> tuple[ArchiveKey, bytes] | None:
    if isinstance(stored.value, Entry):
        return writer.take_entry(stored.value, stored.data)
    return writer.take_segment(stored.value, stored.data)
