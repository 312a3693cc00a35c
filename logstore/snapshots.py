"""The objects of snapshots: found, fetched and created. What they mean is in ``projections``.

Invariants:
- A manifest is created after every chunk that it lists.
- What is there already under a name is what was to be created, or it is Corrupt and nothing is built on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from logstore.aside import decode_aside
from logstore.chunk import Chunk, decode_chunk
from logstore.errors import AlreadyExists, Corrupt, Missing
from logstore.filestore.base import FileStore
from logstore.frame import DIGEST_BYTES
from logstore.keys import (
    SNAPSHOTS,
    ChunkKey,
    Fold,
    ManifestKey,
    RegistrationKey,
    chunk_key,
    manifest_key,
    parse_key,
    registration_key,
    snapshots_prefix,
)
from logstore.manifest import Manifest, decode_manifest, encode_manifest
from logstore.objects import Objects
from logstore.registration import Registration, decode_registration, encode_registration

__all__ = ["FoldRecords", "FoldSurvey", "Snapshots"]


@dataclass(slots=True)
class FoldRecords:
    """What is listed of one fold: its manifests, oldest first, and how many registrations it has had.

    ``created_ms``: when the store got each of these, Unix milliseconds, None where it does not tell.
    """

    manifests: list[ManifestKey] = field(default_factory=list)
    registrations: int = 0
    created_ms: dict[ManifestKey | RegistrationKey, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FoldSurvey:
    """How the snapshots of one fold fare. ``registered`` None: its registration cannot be read, or there is none.

    ``newest``: the newest manifest; ``damage``: what is wrong with it, or with the registration. ``created_ms``: when
    the store got each manifest, oldest first, ``registered_ms`` the registration; None where it does not tell.
    """

    fold: Fold
    registered: bool | None
    newest: Manifest | None
    created_ms: tuple[int | None, ...]
    registered_ms: int | None
    damage: str = ""

    @property
    def count(self) -> int:
        """How many manifests there are."""
        return len(self.created_ms)


class Snapshots:
    """A log's snapshots. Absent is None, or Missing where it must be there; damage is Corrupt."""

    def __init__(self, store: FileStore, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    async def records(self, fold: Fold) -> FoldRecords:
        """What there is of one fold. Cost: a LIST per 1,000 keys."""
        return (await self.listed(snapshots_prefix(fold))).get(fold, FoldRecords())

    async def listed(self, prefix: str = SNAPSHOTS) -> dict[Fold, FoldRecords]:
        """What there is of all folds. Cost: a LIST per 1,000 keys."""
        found: defaultdict[Fold, FoldRecords] = defaultdict(FoldRecords)
        async for listed in self._store.list(prefix):
            match parse_key(listed.key):
                case ManifestKey() as key:
                    found[key.fold].manifests.append(key)
                    found[key.fold].created_ms[key] = listed.modified_ms
                case RegistrationKey(of, number) as key:
                    found[of].registrations = number + 1
                    found[of].created_ms[key] = listed.modified_ms
        return dict(found)

    async def newest(self, *, but: Collection[ManifestKey] = ()) -> tuple[ManifestKey, ...]:
        """The newest manifest of each registered fold that has one, sorted; ``but``: those that are known as damaged.

        A fold whose registration cannot be read has none. Cost: ``listed``, and a GET per fold.
        """
        keys = []
        for fold, records in (await self.listed()).items():
            try:
                registration = await self.registration(fold, records)
            except (Corrupt, Missing):
                continue  # `check` names it
            manifests = [key for key in records.manifests if key not in but]
            if registration is not None and registration.registered and manifests:
                keys.append(manifests[-1])
        return tuple(sorted(keys, key=_place))

    async def survey(self) -> tuple[FoldSurvey, ...]:
        """How the snapshots of each fold fare, by its name. Cost: ``listed``, and two GETs per fold. Damage is told."""
        surveyed = []
        for fold, records in sorted((await self.listed()).items(), key=lambda item: item[0].projection.encode()):
            registered, newest, damage = None, None, ""
            try:
                registration = await self.registration(fold, records)
                registered = registration is not None and registration.registered
                if records.manifests:
                    newest = await self.manifest(records.manifests[-1])
            except (Corrupt, Missing) as error:
                damage = str(error)
            created_ms = tuple(records.created_ms[key] for key in records.manifests)
            registered_ms = records.created_ms.get(RegistrationKey(fold, records.registrations - 1))
            surveyed.append(FoldSurvey(fold, registered, newest, created_ms, registered_ms, damage))
        return tuple(surveyed)

    # Registrations

    async def registration(self, fold: Fold, records: FoldRecords) -> Registration | None:
        """The newest registration listed of a fold. Cost: one GET. Raises Corrupt, Missing."""
        if not records.registrations:
            return None
        key = RegistrationKey(fold, records.registrations - 1)
        blob = await self._objects.get(registration_key(key))
        if blob is None:
            raise Missing(f"listed, and gone when asked for key={registration_key(key)}; restore it")
        return decode_registration(key, blob.data)

    async def register(self, registration: Registration, records: FoldRecords) -> bool:
        """Record that a projection is in use, or that it is not; False: the newest record says so already.

        Cost: one GET; one PUT and a LIST where it changes. Raises Corrupt, Missing, Unavailable.
        """
        fold, number = registration.key, records.registrations
        try:
            current = await self.registration(fold, records)
        except Missing:
            newer = await self.records(fold)  # had we slept, what was listed may be collected: a newer one counts
            if newer.registrations == number:
                raise
            number, current = newer.registrations, await self.registration(fold, newer)
        while current is None or current.registered != registration.registered:
            key = RegistrationKey(fold, number)
            try:
                await self._objects.create(registration_key(key), encode_registration(number, registration))
            except AlreadyExists:
                number += 1
                current = await self.registration(fold, FoldRecords(registrations=number))
            else:
                newest = await self.records(fold)  # had we slept, an old number may be free again
                if newest.registrations == number + 1:
                    return True
                number, current = newest.registrations, await self.registration(fold, newest)
        return False

    # Manifests and chunks

    async def manifest(self, key: ManifestKey) -> Manifest:
        """A manifest. Cost: one GET. Raises Missing when it is gone, Corrupt."""
        blob = await self._objects.get(manifest_key(key))
        if blob is None:
            raise Missing(f"a manifest is gone key={manifest_key(key)}; use another snapshot")
        return decode_manifest(key, blob.data)

    async def chunk(self, key: ChunkKey) -> Chunk:
        """A chunk. Cost: one GET; decoded in a thread unless small. Raises Missing when it is gone, Corrupt."""
        blob = await self._objects.get(chunk_key(key))
        if blob is None:
            raise Missing(f"a chunk of a snapshot is gone key={chunk_key(key)}; use another snapshot")
        return await decode_aside(blob.size, decode_chunk, key, blob.data)

    async def create_chunk(self, key: ChunkKey, data: bytes) -> None:
        """Create a chunk, unless it is there. Cost: one PUT; one GET where it was. Raises Corrupt, Unavailable."""
        try:
            await self._objects.create(chunk_key(key), data)
        except AlreadyExists:
            await self.chunk(key)

    async def create_manifest(self, manifest: Manifest) -> Manifest:
        """Create a manifest, whose chunks are stored, unless it is there; return it with its digest.

        Cost: one PUT; one GET where it was. Raises Unavailable, and Corrupt when another one was made of the point.
        """
        name, data = manifest_key(manifest.key), encode_manifest(manifest)
        try:
            await self._objects.create(name, data)
        except AlreadyExists:
            there = await self.manifest(manifest.key)
            if there.digest != data[-DIGEST_BYTES:]:
                raise Corrupt(
                    f"two snapshots of one point differ key={name}; the fold is not deterministic, or its code changed:"
                    " raise its version, or its tag"
                ) from None
        return replace(manifest, digest=data[-DIGEST_BYTES:])


def _place(key: ManifestKey) -> tuple[bytes, int, bytes, int, int]:
    return (key.fold.projection.encode(), key.fold.version, key.fold.fingerprint, key.chapter, key.number)
