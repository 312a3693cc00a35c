"""What may go: decisions of docs/rfcs/0006-retention.md. Pure.

Invariants:
- Everything here follows from *floors*: of each registered fold the oldest snapshot that it needs.
- Unknown counts as needed: a fold without a floor keeps all it has, and all chapters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from logstore.entry import Address
from logstore.keys import ChunkKey, Fold, ManifestKey
from logstore.manifest import Manifest
from logstore.pin import PinRecord
from logstore.retired import Retired
from logstore.snapshots import FoldRecords
from logstore.stagelisting import ListedStage

__all__ = [
    "SNAPSHOTS_KEPT_MIN",
    "Standing",
    "condemned_chunks",
    "condemned_manifests",
    "held_up_by",
    "is_stage_log_due",
    "uncovered_by",
]

SNAPSHOTS_KEPT_MIN: Final = 2


@dataclass(frozen=True, slots=True)
class Standing:
    """What is needed, as it was listed.

    ``floors``: of each registered fold the oldest snapshot that it needs, None: it has none yet. ``unreadable``: folds
    of which nobody knows whether they are registered. ``dropped``: those dropped, and when by the store's clock.
    """

    records: Mapping[Fold, FoldRecords]
    floors: Mapping[Fold, Manifest | None]
    unreadable: Collection[Fold]
    dropped: Mapping[Fold, int | None]
    pins: Collection[PinRecord]


def held_up_by(chapter: int, standing: Standing) -> str:
    """What keeps ``chapter`` from being retired, in words, as far as names tell; "" when nothing does."""
    for fold in standing.unreadable:
        return f"a registration cannot be read projection={fold.projection} version={fold.version}"
    if not standing.floors:
        return "no projection is registered: nobody could tell what the chapter held"
    for fold, floor in standing.floors.items():
        where = f"projection={fold.projection} version={fold.version} fingerprint={fold.fingerprint.hex()}"
        if floor is None:
            return f"a registered projection has too few whole snapshots that are a grace old {where}"
        if floor.key.chapter <= chapter:
            return f"a registered projection needs a snapshot of this chapter {where} point={floor.point}"
    for pin in standing.pins:
        if pin.chapter <= chapter:
            return f"a pin needs it owner={pin.owner!r} pin={pin.key.id.hex()} expires_ms={pin.expires_ms}"
    return ""


def uncovered_by(record: Retired, standing: Standing) -> str:
    """Which fold's floor does not hold all of the chapter that ``record`` tells of, in words; "" when all do."""
    last = max([record.stamp, *(session.last_stamp for session in record.sessions.values())])
    for fold, floor in standing.floors.items():
        if floor is None or floor.key.chapter <= record.chapter or floor.stamp < last:
            return f"a snapshot does not hold all of it projection={fold.projection} version={fold.version}"
    return ""


def condemned_manifests(standing: Standing, now_ms: int, grace_ms: int) -> list[ManifestKey]:
    """The manifests that nobody needs: below their fold's floor, or of a fold that was dropped a grace ago."""
    condemned: list[ManifestKey] = []
    for fold, records in standing.records.items():
        floor = standing.floors.get(fold)
        if floor is not None:
            condemned += (key for key in records.manifests if key.point < floor.point)
        elif (dropped_ms := standing.dropped.get(fold)) is not None and now_ms - dropped_ms >= grace_ms:
            condemned += records.manifests
    return condemned


def condemned_chunks(
    chunks: Mapping[ChunkKey, int], listed: Collection[ChunkKey], standing: Standing, now_ms: int, grace_ms: int
) -> list[ChunkKey]:
    """Of ``chunks``, with the time each was created: those that nobody needs. ``listed``: by the manifests left."""
    first = _oldest_retained(standing)
    return [
        key
        for key, created_ms in chunks.items()
        if key not in listed
        and now_ms - created_ms >= grace_ms
        and (first is None or (key.chapter, key.number) < first)
    ]


def _oldest_retained(standing: Standing) -> Address | None:
    """The point of the oldest retained snapshot of all registered folds."""
    points: Iterable[Address] = (
        point
        for fold, floor in standing.floors.items()
        for point in ([key.point for key in standing.records[fold].manifests[:1]] if floor is None else [floor.point])
    )
    return min(points, default=None)


def is_stage_log_due(listed: ListedStage, now_ms: int, age_ms: int) -> bool:
    """Whether a stage log is to go: nothing was added to it for ``age_ms``, and it is not recorded as gone.

    ``now_ms`` is by the store's clock. Where one of its times is not told it stays.
    """
    return listed.gone is None and listed.newest_ms is not None and now_ms - listed.newest_ms >= age_ms
