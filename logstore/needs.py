"""What of a log's history is needed: by the snapshots of its projections, and by pins. Listed, fetched, verified.

docs/rfcs/0006-retention.md §1. ``retention.py`` decides by it what may go.

Invariants:
- A snapshot counts as whole only if its chunks are listed now, and were read whole once by this process.
- What a listing said is acted on within a quarter of the grace after the listing began.
"""

from __future__ import annotations

import asyncio
from typing import Final

from logstore.clock import MEASUREMENT_ERROR_MS, SKEW_MS_MAX, StampClock
from logstore.errors import ClockSkew, Corrupt, Missing, Unavailable
from logstore.filestore.base import FileStore, Listed
from logstore.keys import CHUNKS, ChunkKey, Fold, ManifestKey, RegistrationKey, chunk_key, parse_key
from logstore.looks import Looks, Moment, StoreTime
from logstore.manifest import Manifest, ManifestChunk
from logstore.pins import Pins
from logstore.retention import Standing
from logstore.roster import Roster
from logstore.snapshots import FoldRecords, Snapshots

__all__ = ["Needs"]

FETCHES_AT_ONCE: Final = 8


class Needs:
    """Finds out what is needed, and how old things are by the store's clock."""

    def __init__(
        self,
        snapshots_kept: int,
        grace_ms: int,
        *,
        store: FileStore,
        roster: Roster,
        looks: Looks,
        snapshots: Snapshots,
        pins: Pins,
        stamps: StampClock,
        store_time: StoreTime,
    ) -> None:
        self._snapshots_kept = snapshots_kept
        self._grace_ms = grace_ms
        self._store = store
        self._roster = roster
        self._looks = looks
        self._snapshots = snapshots
        self._pins = pins
        self._stamps = stamps
        self._store_time = store_time
        self._read_whole: set[ChunkKey] = set()  # chunks that this process has read, and found whole

    def __repr__(self) -> str:
        return f"<Needs snapshots_kept={self._snapshots_kept} chunks_read={len(self._read_whole)}>"

    # Time

    def now(self) -> Moment:
        """This moment, to be asked about later. Cost: none."""
        return self._store_time.now()

    def may_act(self, since: Moment) -> bool:
        """Whether what was listed from ``since`` on may still be acted on. Cost: none."""
        return self._store_time.passed_ms(since) < self._grace_ms // 4

    def is_grace_ago(self, since: Moment) -> bool:
        """Whether a moment is a grace ago. Cost: none."""
        return self._store_time.passed_ms(since) >= self._grace_ms

    async def ask_time(self) -> int:
        """The store's own time now, in Unix milliseconds. Cost: a GET.

        Raises ClockSkew when it is far from this machine's, in this answer or an earlier one: one that is ahead makes
        everything look old. Unavailable when it tells none.
        """
        await self._looks.look(await self._roster.first_unretired())
        latest_ms = self._store_time.latest_ms
        if not latest_ms:
            raise Unavailable("the store tells no times, so nobody knows how old anything is; nothing is collected")
        self._stamps.require_sane()
        if (ahead_ms := latest_ms - self._stamps.physical_ms()) > SKEW_MS_MAX:
            raise ClockSkew(f"the store once told a time that is yet to come ahead_ms={ahead_ms}; open the log again")
        return latest_ms

    def is_old(self, created_ms: int | None) -> bool:
        """Whether something is a grace old, by the store's clock; what it does not tell is not. Cost: none."""
        return created_ms is not None and self.surely_ms - created_ms >= self._grace_ms

    @property
    def surely_ms(self) -> int:
        """What the store's clock shows at least, counted by its times of objects, which it may tell by the second."""
        return self._store_time.latest_ms - MEASUREMENT_ERROR_MS

    # What is needed

    async def standing(self) -> Standing:
        """List what is needed now. Cost: LISTs of snapshots, chunks and pins; a GET per pin, per manifest looked at."""
        await self.ask_time()
        records = await self._snapshots.listed()
        chunks = await self.chunks()
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
        return Standing(records, floors, unreadable, dropped, await self._pins.live())

    async def chunks(self) -> dict[ChunkKey, Listed]:
        """Every chunk there is. Cost: a LIST per 1,000 keys."""
        found = {}
        async for listed in self._store.list(CHUNKS):
            if isinstance(key := parse_key(listed.key), ChunkKey):
                found[key] = listed
        return found

    async def _floor(self, records: FoldRecords, chunks: dict[ChunkKey, Listed]) -> Manifest | None:
        """The oldest snapshot that a fold needs: the last of those kept that are whole and a grace old."""
        whole = 0
        for key in reversed(records.manifests):
            if self.is_old(records.created_ms[key]) and (manifest := await self._whole(key, chunks)) is not None:
                whole += 1
                if whole == self._snapshots_kept:
                    return manifest
        return None

    async def _whole(self, key: ManifestKey, chunks: dict[ChunkKey, Listed]) -> Manifest | None:
        """A manifest whose chunks are all listed, and were read whole once by this process; else None."""
        try:
            manifest = await self._snapshots.manifest(key)
            unread = [chunk for chunk in manifest.chunks if chunk.key not in self._read_whole]
            for start in range(0, len(unread), FETCHES_AT_ONCE):
                await asyncio.gather(*map(self._read, unread[start : start + FETCHES_AT_ONCE]))
        except (Corrupt, Missing):
            return None
        return manifest if all(chunk.key in chunks for chunk in manifest.chunks) else None

    async def _read(self, listed: ManifestChunk) -> None:
        chunk = await self._snapshots.chunk(listed.key)
        if len(chunk.keys) != listed.rows:
            raise Corrupt(f"a manifest does not add up chunk={chunk_key(listed.key)} rows={listed.rows}")
        self._read_whole.add(listed.key)
