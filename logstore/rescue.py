"""A new store made of what is left of a damaged one. docs/rfcs/0005-copies.md, "Loss".

``remains.py`` says what is left and what stands for the rest. Here the chains of digests are made anew where something
before them changed: entries hold the digest of the one before, segments that of the slot before, manifests those of
their point and of slots.

Invariants:
- Nothing is written to the source, and no object that is left is changed but for digests and what ticks name.
- What has kept all that it attaches to is copied byte for byte.
- The target is empty at first, and has no `store` until everything is there.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Final

from logstore.entry import (
    NONCE_BYTES,
    Address,
    Body,
    Entry,
    Open,
    Tick,
    encode_entry,
    next_entry,
)
from logstore.errors import InvalidArgument, KeyNeeded, Unavailable
from logstore.filestore import require_safe
from logstore.filestore.base import FileStore
from logstore.finding import Finding, Progress
from logstore.frame import DIGEST_BYTES
from logstore.frontier import SessionPosition, closed_by
from logstore.identity import ID_BYTES, Identity, decode_identity, encode_identity
from logstore.keys import (
    CLAIMS,
    NUMBER_MAX,
    SNAPSHOTS,
    STORE,
    ClaimKey,
    Fold,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    chunk_key,
    entry_key,
    manifest_key,
    parse_key,
    registration_key,
    retired_key,
    segment_key,
    snapshots_prefix,
)
from logstore.manifest import Manifest, encode_manifest
from logstore.named import decode_named
from logstore.registration import Registration, encode_registration
from logstore.remains import KeptSession, PlannedEntry, Remains, loss, survey_remains
from logstore.retired import Retired, RetiredSession, encode_retired
from logstore.segment import Segment, SegmentEncoder, attached_to
from logstore.snapshotcheck import check_snapshots
from logstore.stagerescue import rescue_stage_logs
from logstore.transfer import carry, place
from logstore.walk import fetch

__all__ = ["rescue"]

GRACE_MS: Final = 24 * 3_600_000  # of a store whose `store` is lost: what a new one has
_DROPPED: Final = "left out: take another snapshot of the copy"


async def rescue(
    source: FileStore,
    target: FileStore,
    *,
    history: str | None,
    progress: Progress,
    on_loss: Callable[[Finding], None],
    now_ms: int,
    rng: random.Random,
) -> Identity:
    """Make an empty ``target`` a store of all that is left in ``source``; tell ``on_loss`` what is not in it.

    Cost: a LIST per 1,000 keys, twice for segments and snapshots; segments, manifests and chunks are fetched twice.
    Raises InvalidArgument where the target is not empty, NotFound where there is no log, KeyNeeded where the source is
    protected in another way than it is read, Unavailable.
    """
    await _require_empty(target)
    stored = await fetch(source, STORE, lambda _, data: decode_identity(data))
    if isinstance(stored.damage, KeyNeeded):
        raise stored.damage
    root = stored.value.root if stored.value else None
    remains = await survey_remains(source, root)
    if stored.value is None:
        what = "it is gone" if stored.damage is None else "it cannot be read"
        history_now = history or "full"
        remains.losses.append(loss(STORE, what, f"the copy has a grace of 24 h and history={history_now}"))
        root = root or _root_named(remains)
        known = Identity(b"", now_ms, GRACE_MS, history_now, None)
    else:
        known = stored.value
    await require_safe(target, rng.randbytes(8).hex())
    rescuer = _Rescue(source, target, remains, progress, rng)
    await rescuer.copy_log(root or bytes(DIGEST_BYTES))
    await rescuer.copy_snapshots()
    await rescuer.copy_claims()
    await rescuer.copy_stage_logs()
    await rescuer.require_not_retired_meanwhile()
    for finding in remains.losses:
        on_loss(finding)
    made = encode_identity(
        replace(
            known,
            id=rng.randbytes(ID_BYTES),
            created_ms=now_ms,
            history=history or known.history,
            ancestor=None if remains.losses else known.id,
            origin=root or bytes(DIGEST_BYTES),
        )
    )
    await place(target, STORE, made, progress)
    return decode_identity(made)


async def _require_empty(target: FileStore) -> None:
    async for listed in target.list(""):
        if not listed.key.startswith("probe/"):
            raise InvalidArgument(
                f"what is left of a damaged log is copied into an empty place only key={listed.key};"
                " name another target, or remove what an interrupted copy left"
            )


def _root_named(remains: Remains) -> bytes | None:
    """Where the chain begins, as the first entry of all says."""
    was = remains.entries[0].was if remains.entries else None
    return was[0].previous if was is not None and was[0].address == (0, 0) else None


class _Rescue:
    def __init__(
        self, source: FileStore, target: FileStore, remains: Remains, progress: Progress, rng: random.Random
    ) -> None:
        self._source = source
        self._target = target
        self._remains = remains
        self._progress = progress
        self._rng = rng
        self._records: list[Retired] = []
        self._entries: dict[Address, Entry] = {}  # the copy's
        self._tips: dict[Address, bytes] = {}  # of each session the digest of the copy's last slot
        self._replaced = {planned.address for planned in remains.entries if planned.was is None}

    def _lose(self, key: str, what: str, next_step: str) -> None:
        self._remains.losses.append(loss(key, what, next_step))

    async def _place(self, name: str, data: bytes) -> None:
        await place(self._target, name, data, self._progress)

    # The log

    async def copy_log(self, root: bytes) -> None:
        """Records, entries, segments, and finals where sessions end before their time."""
        previous = await self._copy_records()
        for planned in self._remains.entries:
            previous = await self._copy_entry(planned, previous, root)
        await carry(self._kept_slots(), self._source, self._target, self._progress, amend=self._attach)
        encoder = SegmentEncoder()
        for address, session in self._remains.sessions.items():
            if session.needs_final:
                await self._place(*_final_of(session, self._tips.get(address, self._entries[address].digest), encoder))

    async def _copy_records(self) -> Entry | None:
        """The records; what stands before the first entry that is not retired."""
        for chapter, record in enumerate(self._remains.records):
            retired, data = record or self._record_for(chapter)
            if retired.archives and not await self._copy_archive(retired):
                retired = replace(retired, archives=())
                data = encode_retired(retired)
            await self._place(retired_key(chapter), data)
            self._records.append(retired)
        return closed_by(self._records[-1]) if self._records else None

    async def _copy_archive(self, retired: Retired) -> bool:
        """The objects of a chapter's archive; False: one is lost, and the chapter with it."""
        for name in retired.archives:
            walked = await fetch(self._source, name, _decode_whole)
            if walked.value is None:
                what = "it is gone" if walked.damage is None else f"it cannot be read: {walked.damage}"
                self._lose(name, what, f"chapter {retired.chapter} is not in the copy: readers get Trimmed")
                return False
            await self._place(name, walked.value)
        return True

    def _record_for(self, chapter: int) -> tuple[Retired, bytes]:
        """A record in the place of one that is lost: of its `closed` it says what the next begin does.

        It says that the chapter held something: who reads from the beginning is told that this is not the beginning.
        """
        begin = self._remains.entries[0]
        record = Retired(chapter, NUMBER_MAX, bytes(DIGEST_BYTES), 0, (), {NUMBER_MAX - 1: RetiredSession(1, 0)})
        if begin.was is not None and begin.address == (chapter + 1, 0):
            was = begin.was[0]
            record = replace(record, digest=was.previous, stamp=was.stamp - 1, scopes=was.scopes)
        return record, encode_retired(record)

    async def _copy_entry(self, planned: PlannedEntry, previous: Entry | None, root: bytes) -> Entry:
        was = planned.was
        nonce = was[0].nonce if was else self._rng.randbytes(NONCE_BYTES)
        entry = next_entry(previous, root, self._body_of(planned, previous), planned.stamp, nonce)
        if was is not None and replace(was[0], digest=b"") == entry:
            entry, data = was
        else:
            data, entry = encode_entry(entry)
        await self._place(entry_key(*entry.address), data)
        self._entries[entry.address] = entry
        return entry

    def _body_of(self, planned: PlannedEntry, previous: Entry | None) -> Body:
        """A tick names no more than is kept; an exclusive entry that counts goes on from the last of its scope."""
        body, exclusive = planned.body, planned.exclusive
        if isinstance(body, Tick):
            return replace(body, slots=tuple(self._kept_of(row) for row in body.slots if self._kept_of(row)[2]))
        if isinstance(body, Open) and exclusive is not None:
            scopes = previous.scopes if previous else ()
            before = next(((scope.chapter, scope.number) for scope in scopes if scope.kinds == exclusive.kinds), None)
            return replace(body, exclusive=replace(exclusive, predecessor=before))
        return body

    def _kept_of(self, row: tuple[int, int, int]) -> tuple[int, int, int]:
        chapter, number, named = row
        if chapter < self._remains.first:
            return row
        session = self._remains.sessions.get((chapter, number))
        return (chapter, number, min(named, session.held) if session else 0)

    async def _kept_slots(self) -> AsyncIterator[str]:
        for session in self._remains.sessions.values():
            for slot in range(session.tip.slot):
                yield _slot_name(session, slot)

    def _attach(self, name: str, data: bytes) -> bytes:
        """The next slot of a session, attached to what the copy has before it."""
        key = parse_key(name)
        assert isinstance(key, SegmentKey)
        address = (key.chapter, key.session)
        previous = self._tips[address] if key.slot else self._entries[address].digest
        data, self._tips[address] = attached_to(previous, key, data)
        return data

    async def require_not_retired_meanwhile(self) -> None:
        """What a collector removed while we read looks like a loss: then all this is void."""
        async for listed in self._source.list("retired/"):
            key = parse_key(listed.key)
            is_new = isinstance(key, RetiredKey) and key.chapter >= self._remains.first
            if is_new and (await fetch(self._source, listed.key, decode_named)).value is not None:
                raise Unavailable(
                    f"a chapter was retired while its log was copied key={listed.key};"
                    " run it again, into another empty place"
                )

    # Snapshots

    async def copy_snapshots(self) -> None:
        """Registrations, the chunks of manifests that are kept, and these."""
        first = self._remains.first
        found = check_snapshots(self._source, Progress(), lambda chapter: chapter < first)
        bad = {finding.key: finding.what async for finding in found if finding.severity == "damage"}
        names = [listed.key async for listed in self._source.list(SNAPSHOTS)]
        await self._copy_registrations(names, bad)
        manifests = await self._whole_manifests(names, bad)
        kept = [manifest for of_fold in manifests.values() for manifest in self._consistent(of_fold)]
        if first:
            for fold in _folds_of(names) - {manifest.key.fold for manifest in kept if self._leads_on(manifest)}:
                what = "chapters are retired, and no snapshot is left that has their rows"
                self._lose(snapshots_prefix(fold), what, "its views cannot be opened: Trimmed")
        chunks = dict.fromkeys(chunk_key(chunk.key) for manifest in kept for chunk in manifest.chunks)
        await carry(_each(chunks), self._source, self._target, self._progress)
        for manifest in kept:
            await self._place(manifest_key(manifest.key), encode_manifest(await self._as_in_copy(manifest)))

    async def copy_claims(self) -> None:
        """Those that are left."""
        async for listed in self._source.list(CLAIMS):
            if isinstance(parse_key(listed.key), ClaimKey):
                walked = await fetch(self._source, listed.key, decode_named)
                if walked.damage is not None:
                    self._lose(listed.key, str(walked.damage), "the document may be created anew")
                else:
                    await carry(_each([listed.key]), self._source, self._target, self._progress)

    async def copy_stage_logs(self) -> None:
        """Those that are left, each up to what is lost."""
        await rescue_stage_logs(self._source, self._target, self._progress, self._lose)

    async def _copy_registrations(self, names: list[str], bad: dict[str, str]) -> None:
        """Those that are left, numbered anew: the newest counts, as it did."""
        numbers: Counter[Fold] = Counter()
        for name in names:
            if isinstance(key := parse_key(name), RegistrationKey):
                value = (await fetch(self._source, name, decode_named)).value
                if isinstance(value, Registration):
                    number, numbers[key.fold] = numbers[key.fold], numbers[key.fold] + 1
                    await self._place(
                        registration_key(RegistrationKey(key.fold, number)), encode_registration(number, value)
                    )
        for name, what in bad.items():
            if isinstance(parse_key(name), RegistrationKey):
                self._lose(name, what, "the others are numbered anew; opening the projection registers it again")

    async def _whole_manifests(self, names: list[str], bad: dict[str, str]) -> dict[Fold, list[Manifest]]:
        """Those that lack nothing, by fold, oldest first."""
        whole: defaultdict[Fold, list[Manifest]] = defaultdict(list)
        for name in names:
            key = parse_key(name)
            if not isinstance(key, ManifestKey) or key.point > max(self._entries, default=(-1, 0)):
                continue  # taken while we read
            walked = await fetch(self._source, name, decode_named)
            assert walked.value is None or isinstance(walked.value, Manifest)
            why = bad.get(name) or self._why_broken(walked.value, bad)
            if walked.value is not None and why is None:
                whole[key.fold].append(walked.value)
            else:
                self._lose(name, why or "it is gone", _DROPPED)
        return whole

    def _why_broken(self, manifest: Manifest | None, bad: dict[str, str]) -> str | None:
        for chunk in manifest.chunks if manifest else ():
            if (what := bad.get(name := chunk_key(chunk.key))) is not None:
                return f"{name}: {what}"
        if manifest is not None and manifest.point in self._replaced:
            return f"its point is lost: {entry_key(*manifest.point)}"
        return None

    def _consistent(self, manifests: list[Manifest]) -> list[Manifest]:
        """Of one fold's those whose rows hold nothing that the copy's log has not; or else, maybe, the newest."""
        points = {manifest.point for manifest in manifests}
        kept = [manifest for manifest in manifests if not self._may_hold_more(manifest, points)]
        left = [manifest for manifest in manifests if manifest not in kept]
        if left and self._remains.first and self._leads_on(left[-1]) and not any(map(self._leads_on, kept)):
            kept, left = [*kept, left[-1]], left[:-1]
            what = "its rows hold more than is left of the log"
            self._lose(
                manifest_key(kept[-1].key), what, "kept, for retired chapters are in it; all views start from it"
            )
        for manifest in left:
            self._lose(manifest_key(manifest.key), "its rows may hold events that are lost", _DROPPED)
        return kept

    def _leads_on(self, manifest: Manifest) -> bool:
        """Whether a reader that starts from it can go on: it has read all that retired chapters held."""
        slots = {(each.chapter, each.number): each.tip.slot for each in manifest.sessions}
        return all(
            slots.get((record.chapter, number), held.slots if (record.chapter, number) <= manifest.point else 0)
            >= held.slots
            for record in self._records
            for number, held in record.sessions.items()
        )

    def _may_hold_more(self, manifest: Manifest, points: set[Address]) -> bool:
        """Whether something at or below its stamp may be lost.

        Of a session that has not ended that is so even if nothing else says so: the snapshot was written when each
        opened before its point had ended, or gone on to its stamp.
        """
        for address, session in self._remains.sessions.items():
            goes_on = session.lost is not None if session.ended else address < manifest.point
            if goes_on and session.stamp < manifest.stamp:
                return True
        return any(
            each.is_unknown and each.stamp < manifest.stamp and each.address not in points  # a point is no session
            for each in self._remains.entries
        )

    async def _as_in_copy(self, manifest: Manifest) -> Manifest:
        """With the digests that entries and slots have in the copy."""
        point = self._entries.get(manifest.point)
        rows = [row for each in manifest.sessions if (row := await self._position_of(each)) is not None]
        return replace(manifest, entry_digest=point.digest if point else manifest.entry_digest, sessions=tuple(rows))

    async def _position_of(self, position: SessionPosition) -> SessionPosition | None:
        """Where to go on reading a session; None: it ends before, so there is nothing to read."""
        address, tip = (position.chapter, position.number), position.tip
        if position.chapter < self._remains.first:
            return position
        session = self._remains.sessions.get(address)
        if session is None or tip.slot > session.tip.slot:
            return None
        if tip.slot == 0:
            opened = self._entries[address]
            return replace(position, tip=tip._replace(stamp=opened.stamp, digest=opened.digest))
        before = (await fetch(self._target, _slot_name(session, tip.slot - 1), decode_named)).value
        assert isinstance(before, Segment), "it was copied before"
        return replace(position, tip=tip._replace(digest=before.digest))


def _final_of(session: KeptSession, previous: bytes, encoder: SegmentEncoder) -> tuple[str, bytes]:
    """The final that ends a session before its time: the one that a sealer would make."""
    slot, sequence, stamp, _ = session.tip
    data, _ = encoder.encode(
        session.id.segment_key(slot),
        (),
        first_sequence=sequence,
        stamp=stamp + 1,
        acknowledged=slot,
        previous=previous,
        final=True,
        sealed=True,
    )
    return _slot_name(session, slot), data


def _folds_of(names: Iterable[str]) -> set[Fold]:
    """The folds that have anything under these names."""
    keys = map(parse_key, names)
    return {key.fold for key in keys if isinstance(key, ManifestKey | RegistrationKey)}


def _slot_name(session: KeptSession, slot: int) -> str:
    return segment_key(session.id.writer, session.id.chapter, session.id.number, slot)


async def _each(names: Iterable[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


def _decode_whole(name: str, data: bytes) -> bytes:
    decode_named(name, data)
    return data
