"""What P11 says of a run in which history was retired and collected, from requests and from what objects said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from logstore.archive import decode_archive
from logstore.entry import Closed
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    EntryKey,
    ManifestKey,
    PinKey,
    RetiredKey,
    SegmentKey,
    chunk_key,
    entry_key,
    manifest_key,
    parse_key,
    pin_key,
    retired_key,
)
from logstore.manifest import Manifest, decode_manifest
from logstore.pin import PinRecord, decode_pin
from logstore.retired import Retired, decode_retired
from logstore.segment import decode_segment, unpack_columns
from logstore.testing.store import Request
from tests.simulation.evidence import Evidence

__all__ = ["p11_retention_is_safe"]

CLOCKS = 0.999  # the store's own clock drifts a little from the world's


@dataclass(frozen=True, slots=True)
class _Lives:
    """When each name was created first, and deleted last, in virtual seconds; never is infinity."""

    created_s: Mapping[str, float]
    deleted_s: Mapping[str, float]

    @classmethod
    def of(cls, requests: list[Request]) -> _Lives:
        created: dict[str, float] = {}
        deleted: dict[str, float] = {}
        for request in sorted((r for r in requests if r.arrived_s is not None), key=lambda r: r.arrived_s or 0):
            assert request.arrived_s is not None
            if request.landed:
                created.setdefault(request.key, request.arrived_s)
            elif request.effect == "deleted":
                deleted.setdefault(request.key, request.arrived_s)
        return cls(created, deleted)

    def is_there(self, name: str, at_s: float) -> bool:
        """Whether an object was there just before a moment."""
        return self.created_s.get(name, math.inf) < at_s <= self.deleted_s.get(name, math.inf)


def p11_retention_is_safe(evidence: Evidence) -> Iterator[str]:
    """Only what is covered is retired, only what was retired a grace ago deleted, and nothing that a snapshot needs."""
    yield from _Retention(evidence).contradictions()


class _Retention:
    """What happened to history in one run."""

    def __init__(self, evidence: Evidence) -> None:
        contents = evidence.contents
        self._evidence = evidence
        self._lives = _Lives.of(list(evidence.requests))
        self._grace_s = evidence.grace_ms / 1000 * CLOCKS
        self._keys = {name: key for name in contents if (key := parse_key(name)) is not None}
        self._records: dict[int, Retired] = {}
        self._manifests: dict[ManifestKey, Manifest] = {}
        self._pins: list[PinRecord] = []
        for name, key in self._keys.items():
            match key:
                case RetiredKey(chapter):
                    self._records[chapter] = decode_retired(chapter, contents[name])
                case ManifestKey():
                    self._manifests[key] = decode_manifest(key, contents[name])
                case PinKey():
                    self._pins.append(decode_pin(key, contents[name]))

    def contradictions(self) -> Iterator[str]:
        """All there are."""
        for record in self._records.values():
            yield from self._records_the_truth(record)
            yield from self._is_covered(record)
            yield from self._is_not_pinned(record)
            if self._evidence.policy == "archive":
                yield from self._is_archived(record)
        for name, deleted_s in self._lives.deleted_s.items():
            yield from self._may_be_deleted(name, deleted_s)
        first_s = min(map(self._retired_s, self._records), default=math.inf)
        for process, told_s in self._evidence.history.trimmed:
            if self._evidence.policy != "drop" or first_s > told_s:
                yield f"P11 {process} was told Trimmed at {told_s:.4f}, and nothing was dropped then"

    def _retired_s(self, chapter: int) -> float:
        return self._lives.created_s.get(retired_key(chapter), math.inf)

    def _may_be_deleted(self, name: str, deleted_s: float) -> Iterator[str]:
        match self._keys.get(name):
            case EntryKey(chapter=chapter) | SegmentKey(chapter=chapter):
                if deleted_s < (retired_s := self._retired_s(chapter)) + self._grace_s:
                    yield f"P11 deleted {deleted_s - retired_s:.1f} s after its chapter was retired: {name}"
            case ChunkKey() as key:
                yield from self._is_unlisted(name, key, deleted_s)
            case RetiredKey():
                yield f"P11 a record was deleted: {name}"
            case ArchiveKey(chapter=chapter) if name in self._records[chapter].archives:
                yield f"P11 an archive was deleted: {name}"

    def _records_the_truth(self, record: Retired) -> Iterator[str]:
        truth = self._evidence.truth
        entries = [entry for entry in truth.entries if entry.chapter == record.chapter]
        if not entries or not isinstance(entries[-1].body, Closed) or entries[-1].number != record.closed:
            yield f"P11 chapter {record.chapter} was retired before it was closed"
            return
        sessions = {id_.number: s for id_, s in truth.sessions.items() if id_.chapter == record.chapter}
        held = {number: session.slots - 1 for number, session in sessions.items()}
        told = {number: session.slots for number, session in record.sessions.items()}
        if held != told or not all(session.final for session in sessions.values()):
            yield f"P11 the record of chapter {record.chapter} says {told}, it held {held}"
        last = max([0, *(event.order[0] for event in truth.events if event.order[1] == record.chapter)])
        if last > max([0, *(session.last_stamp for session in record.sessions.values())]):
            yield f"P11 the record of chapter {record.chapter} lacks the stamp {last}"

    def _is_covered(self, record: Retired) -> Iterator[str]:
        last = max([record.stamp, *(session.last_stamp for session in record.sessions.values())])
        at_s, lives = self._retired_s(record.chapter), self._lives
        covering = [
            key
            for key, manifest in self._manifests.items()
            if key.chapter > record.chapter
            and manifest.stamp >= last
            and lives.created_s[manifest_key(key)] + self._grace_s <= at_s
            and lives.is_there(manifest_key(key), at_s)
            and all(lives.is_there(chunk_key(chunk.key), at_s) for chunk in manifest.chunks)
        ]
        if len(covering) < 2:
            yield f"P11 chapter {record.chapter} was retired at {at_s:.4f}, covered by {len(covering)} snapshots"

    def _is_not_pinned(self, record: Retired) -> Iterator[str]:
        at_s = self._retired_s(record.chapter)
        newest: dict[bytes, PinRecord] = {}
        for pin in sorted(self._pins, key=lambda pin: pin.key.number):
            patience_s = self._grace_s / 4 if pin.expires_ms else 0  # a release counts at once
            if self._lives.created_s[pin_key(pin.key)] + patience_s <= at_s:
                newest[pin.key.id] = pin
        for pin in newest.values():
            if pin.chapter <= record.chapter and pin.expires_ms > self._evidence.store_ms(at_s) + 100:
                yield f"P11 chapter {record.chapter} was retired at {at_s:.4f}, though {pin.owner} needs {pin.chapter}"

    def _is_archived(self, record: Retired) -> Iterator[str]:
        """The archive has every object that counts, as it was."""
        entries: dict[int, bytes] = {}
        segments: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        for name in record.archives:
            archive = parse_key(name)
            assert isinstance(archive, ArchiveKey)
            for block in decode_archive(archive, self._evidence.contents[name]):
                entries |= block.entries
                segments |= block.segments
        for name, key in self._keys.items():
            data = self._evidence.contents[name]
            if isinstance(key, EntryKey) and key.chapter == record.chapter and entries.pop(key.number, None) != data:
                yield f"P11 the archive lacks {name}"
            if isinstance(key, SegmentKey) and key.chapter == record.chapter:
                held = segments.pop((key.session, key.slot), None)
                is_void = key.slot > record.sessions[key.session].slots
                if (held is None) != is_void or (held and held != unpack_columns(decode_segment(key, data), data)):
                    yield f"P11 the archive {'has void' if is_void else 'lacks'} {name}"
        if entries or segments:
            yield f"P11 the archive of {record.chapter} has what was never there: {[*entries, *segments][:3]}"

    def _is_unlisted(self, name: str, key: ChunkKey, deleted_s: float) -> Iterator[str]:
        """A deleted chunk is in no snapshot that is there, or that comes later but for one that took very long."""
        lives = self._lives
        for manifest in self._manifests.values():
            if any(chunk.key == key for chunk in manifest.chunks):
                there, point = manifest_key(manifest.key), entry_key(*manifest.point)
                is_slow = lives.created_s[there] - lives.created_s[point] >= self._grace_s / 2
                if lives.deleted_s.get(there, math.inf) > deleted_s and not is_slow:
                    yield f"P11 a chunk was deleted at {deleted_s:.4f} that {there} lists: {name}"
