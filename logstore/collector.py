"""Deletes what nobody needs any more. docs/rfcs/0006-retention.md §2, §3, §6. Nothing else in the library deletes.

Invariants:
- Nothing of a chapter or a stage log is deleted before its record is a grace old, by the store's clock.
- What lists chunks goes before them, a round earlier.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from logstore.entry import FLIGHTS_MAX
from logstore.errors import Corrupt, KeyNeeded, Missing, Unavailable
from logstore.filestore.base import FileStore, Listed
from logstore.keys import (
    ARCHIVE,
    RETIRED,
    ArchiveKey,
    ChunkKey,
    EntryKey,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    chunk_key,
    manifest_key,
    parse_key,
    pin_key,
    registration_key,
)
from logstore.looks import Looks, Moment
from logstore.needs import Needs
from logstore.objects import Objects
from logstore.pins import Pins
from logstore.retention import Standing, condemned_chunks, condemned_manifests
from logstore.snapshots import Snapshots
from logstore.stagelisting import listed_stages

__all__ = ["PROBE", "Collector", "Garbage"]

DELETES_AT_ONCE: Final = 16
PROBE: Final = "probe/"


@dataclass(frozen=True, slots=True)
class Garbage:
    """An object that nobody needs any more, and why; deleted, unless by a dry run."""

    key: str
    size: int
    why: str


class Collector:
    """Finds garbage and deletes it. Made by ``Keeper``."""

    def __init__(
        self,
        needs: Needs,
        grace_ms: int,
        *,
        store: FileStore,
        objects: Objects,
        looks: Looks,
        snapshots: Snapshots,
        pins: Pins,
    ) -> None:
        self._needs = needs
        self._grace_ms = grace_ms
        self._store = store
        self._objects = objects
        self._looks = looks
        self._snapshots = snapshots
        self._pins = pins
        self._chunks_of: dict[ManifestKey, frozenset[ChunkKey]] = {}  # what manifests list
        self._archives: dict[int, tuple[str, ...]] = {}  # what the records of retired chapters name
        self._cleared: dict[int, Moment] = {}  # retired chapters, and when nothing was left of them
        self._stage_logs_cleared: Moment | None = None  # when nothing was left of those that are gone

    def __repr__(self) -> str:
        return f"<Collector cleared={len(self._cleared)}>"

    async def collect(self, *, dry_run: bool = False, void: bool = False) -> AsyncGenerator[Garbage, None]:
        """See ``Keeper.collect``."""
        await self._needs.ask_time()
        async for garbage in self._collect_snapshots(dry_run):
            yield garbage
        began, due = self._needs.now(), await self._old_chapters()
        is_cleared = all(
            chapter in self._cleared and not self._needs.is_grace_ago(self._cleared[chapter]) for chapter in due
        )
        duties = [
            self._left_in(set() if is_cleared else due),
            self._old_archives(due),
            self._old_pins(),
            self._old_probes(),
        ]
        stage_logs_due = self._stage_logs_cleared is None or not self._needs.may_act(self._stage_logs_cleared)
        if stage_logs_due:
            duties.append(self._gone_stage_logs())
        for duty in [*duties, self._void_slots()] if void else duties:
            async for garbage in self._delete(duty, dry_run):
                yield garbage
        if not dry_run and not is_cleared:
            self._cleared = dict.fromkeys(due, began)
        if not dry_run and stage_logs_due:
            self._stage_logs_cleared = began

    def _is_cleared(self, chapter: int) -> bool:
        """Whether all of a retired chapter was deleted less than a grace ago."""
        cleared = self._cleared.get(chapter)
        return cleared is not None and not self._needs.is_grace_ago(cleared)

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
            since = self._needs.now()
            standing = await self._needs.standing()
            chunks = await self._needs.chunks()
            now_ms, grace_ms = self._needs.surely_ms, self._grace_ms
            manifests = condemned_manifests(standing, now_ms, grace_ms)
            listed = await self._listed_chunks(standing)
            created = {key: one.modified_ms or now_ms for key, one in chunks.items()}
            records = [Garbage(manifest_key(key), 0, "newer snapshots are whole, and a grace old") for key in manifests]
            records += [
                Garbage(registration_key(RegistrationKey(fold, number)), 0, "a newer registration counts")
                for fold, of_fold in standing.records.items()
                if self._needs.is_old(of_fold.created_ms.get(RegistrationKey(fold, of_fold.registrations - 1)))
                for number in range(of_fold.registrations - 1)
                if RegistrationKey(fold, number) in of_fold.created_ms
            ]
            rows = [
                Garbage(chunk_key(key), chunks[key].size, "no snapshot lists it")
                for key in condemned_chunks(created, listed, standing, now_ms, grace_ms)
            ]
            left = [some for group in (records, rows) for some in _batches(group)]  # what lists chunks goes before them
            if left and not dry_run and not self._needs.may_act(since):
                raise Unavailable("looking took longer than a quarter of the grace; run it again where it is quicker")
            while left and (dry_run or self._needs.may_act(since)):
                async for one in self._delete_some(left.pop(0), dry_run):
                    yield one
            if not left:
                return

    async def _listed_chunks(self, standing: Standing) -> set[ChunkKey]:
        """The chunks that a manifest lists which is there: those of one that goes now are for the next round.

        A manifest that nobody can read lists nothing that anybody can use. Read once by this process. Raises KeyNeeded.
        """
        listed: dict[ManifestKey, frozenset[ChunkKey]] = {}
        for records in standing.records.values():
            for key in records.manifests:
                if (known := self._chunks_of.get(key)) is None:
                    try:
                        known = frozenset(chunk.key for chunk in (await self._snapshots.manifest(key)).chunks)
                    except KeyNeeded:
                        raise  # to others it is whole, and they need what it lists
                    except (Corrupt, Missing):
                        continue
                listed[key] = known
        self._chunks_of = listed
        return set().union(*listed.values())

    async def _old_chapters(self) -> set[int]:
        """The chapters whose retirement records are a grace old."""
        listing = self._store.list(RETIRED)
        keys = [parse_key(listed.key) async for listed in listing if self._needs.is_old(listed.modified_ms)]
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
                if key.chapter not in self._archives and (record := await self._looks.retired(key.chapter)) is not None:
                    self._archives[key.chapter] = record.archives
                if listed.key not in self._archives.get(key.chapter, [listed.key]):
                    yield Garbage(listed.key, listed.size, "the chapter's record names another archive")

    async def _old_pins(self) -> AsyncGenerator[Garbage, None]:
        """Pins that a newer renewal replaces, and those that expired a grace ago."""
        for pin in await self._pins.listed():
            newest = await self._pins.newest(pin)
            is_over = newest is not None and self._needs.is_old(max(newest.expires_ms, pin.created_ms))
            for key in pin.keys[:-1]:
                yield Garbage(pin_key(key), 0, "a newer renewal counts")
            if is_over and len(pin.keys) == 1:  # were it gone before the others, one of them would count again
                yield Garbage(pin_key(pin.keys[0]), 0, "it has expired")

    async def _old_probes(self) -> AsyncGenerator[Garbage, None]:
        """What a probe left behind that was killed."""
        async for listed in self._store.list(PROBE):
            if self._needs.is_old(listed.modified_ms):
                yield Garbage(listed.key, listed.size, "a probe left it behind")

    async def _gone_stage_logs(self) -> AsyncGenerator[Garbage, None]:
        """What is left of stage logs, and what has landed there since."""
        async with aclosing(listed_stages(self._store)) as stages:
            async for stage in stages:
                if stage.gone is not None and self._needs.is_old(stage.gone.modified_ms):
                    for page in stage.pages:
                        yield Garbage(page.key, page.size, "its stage log was dropped a grace ago")

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
            if self._needs.is_old(listed.modified_ms):
                above.append(Garbage(listed.key, listed.size, "it lies above its session's final"))
        return []


def _session_of(key: SegmentKey) -> tuple[str, int, int]:
    return key.writer, key.chapter, key.session


def _batches(garbage: list[Garbage]) -> list[list[Garbage]]:
    return [garbage[start : start + DELETES_AT_ONCE] for start in range(0, len(garbage), DELETES_AT_ONCE)]
