"""Every object name in the bucket, built and parsed here and nowhere else.

Numbers have a fixed width, so that byte order is number order. Names that users choose are
percent-escaped; whatever they contain, they stay one path segment under their own prefix.
See docs/FORMAT.md, "Names".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from logstore.errors import InvalidArgument

__all__ = [
    "ARCHIVE",
    "CHUNKS",
    "CLAIMS",
    "FINGERPRINT_BYTES",
    "NAME_BYTES_MAX",
    "NONCE_BYTES",
    "NUMBER_MAX",
    "PINS",
    "RETIRED",
    "SNAPSHOTS",
    "STAGE_LOGS",
    "STORE",
    "ArchiveKey",
    "ChunkKey",
    "ClaimKey",
    "EntryKey",
    "Fold",
    "Key",
    "ManifestKey",
    "PinKey",
    "RegistrationKey",
    "RetiredKey",
    "SegmentKey",
    "StageGoneKey",
    "StageId",
    "StagePageKey",
    "StoreKey",
    "archive_key",
    "archive_prefix",
    "chunk_key",
    "claim_key",
    "entry_key",
    "escape_name",
    "is_name",
    "manifest_key",
    "manifest_prefix",
    "parse_key",
    "pin_key",
    "pin_prefix",
    "registration_key",
    "retired_key",
    "roster_prefix",
    "segment_key",
    "session_prefix",
    "snapshots_prefix",
    "stage_gone_key",
    "stage_page_key",
    "stage_prefix",
    "stages_prefix",
    "unescape_name",
]

NUMBER_DIGITS = 10  # one creation every millisecond for 115 days fits, and a session lives an hour
NUMBER_MAX = 10**NUMBER_DIGITS - 1
NAME_BYTES_MAX = 200
ESCAPED_BYTES_MAX = 255  # what a file system takes as one file's name
STAGE_LOGS = "stagelogs/"
STORE = "store"
SNAPSHOTS = "snapshots/"
CHUNKS = "chunks/"
ARCHIVE = "archive/"
PINS = "pins/"
CLAIMS = "claims/"
RETIRED = "retired/"
NONCE_BYTES = 8  # of an archive, and of a pin's id
FINGERPRINT_BYTES = 8
HASH_BYTES = 32
_GONE = "gone"


@dataclass(frozen=True, slots=True)
class StoreKey:
    """The one object that says what this store is."""


@dataclass(frozen=True, slots=True)
class EntryKey:
    """A roster entry: ``number`` within ``chapter``."""

    chapter: int
    number: int


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """A segment: ``slot`` of the session whose open entry is ``session`` in ``chapter``."""

    writer: str
    chapter: int
    session: int
    slot: int


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """The record that ``chapter`` may be gone."""

    chapter: int


@dataclass(frozen=True, slots=True)
class StageId:
    """Which stage log: that of try ``retry`` of ``stage`` in ``deployment``."""

    deployment: str
    stage: str
    retry: int = 0

    def __str__(self) -> str:
        return f"{self.deployment}/{self.stage}/{self.retry}"


@dataclass(frozen=True, slots=True)
class StagePageKey:
    """Page ``number`` of a stage log."""

    stage: StageId
    number: int


@dataclass(frozen=True, slots=True)
class StageGoneKey:
    """The record that a stage log may be gone."""

    stage: StageId


@dataclass(frozen=True, slots=True)
class Fold:
    """Which fold made a snapshot: a projection's name and version, and the fingerprint of what it computes."""

    projection: str
    version: int
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class ManifestKey:
    """What the snapshot of ``fold`` at the point ``chapter``, ``number`` consists of."""

    fold: Fold
    chapter: int
    number: int

    @property
    def point(self) -> tuple[int, int]:
        """Where its point lies in the roster."""
        return (self.chapter, self.number)


@dataclass(frozen=True, slots=True)
class RegistrationKey:
    """Record ``number`` of whether ``fold`` is in use."""

    fold: Fold
    number: int


@dataclass(frozen=True, slots=True)
class ChunkKey:
    """Rows first written at the point ``chapter``, ``number``, with the digest of their columns."""

    chapter: int
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class ArchiveKey:
    """Object ``number`` of an archive of ``chapter``; ``nonce`` tells it from other attempts."""

    chapter: int
    nonce: bytes
    number: int


@dataclass(frozen=True, slots=True)
class PinKey:
    """Renewal ``number`` of the pin ``id``."""

    id: bytes
    number: int


@dataclass(frozen=True, slots=True)
class ClaimKey:
    """The claim to creation ``number`` of the document ``key`` of a ``kind``."""

    kind: str
    key: str
    number: int


Key = (
    StoreKey
    | EntryKey
    | SegmentKey
    | RetiredKey
    | StagePageKey
    | StageGoneKey
    | ManifestKey
    | RegistrationKey
    | ChunkKey
    | ArchiveKey
    | PinKey
    | ClaimKey
)


@lru_cache(maxsize=4096)
def escape_name(name: str, argument: str) -> str:
    """Return ``name`` as one path segment; InvalidArgument, naming ``argument``, when it cannot be one."""
    try:
        raw = name.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"not encodable as UTF-8 {argument}={name!r}") from error
    if not 1 <= len(raw) <= NAME_BYTES_MAX:
        raise InvalidArgument(f"needs 1 to {NAME_BYTES_MAX} bytes of UTF-8 {argument}={name[:40]!r} bytes={len(raw)}")
    escaped = quote(raw, safe="-_~.")
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    if len(escaped) > ESCAPED_BYTES_MAX:
        raise InvalidArgument(
            f"needs at most {ESCAPED_BYTES_MAX} bytes once escaped {argument}={name[:40]!r} bytes={len(escaped)}"
        )
    return escaped


def is_name(name: str) -> bool:
    """Whether ``escape_name`` takes it."""
    try:
        escape_name(name, "name")
    except InvalidArgument:
        return False
    return True


def unescape_name(segment: str) -> str | None:
    """Return the name that ``escape_name`` turns into ``segment``, or None when there is none."""
    try:
        name = unquote_to_bytes(segment).decode()
        return name if escape_name(name, "name") == segment else None
    except (UnicodeError, InvalidArgument):
        return None


def _number(number: int) -> str:
    assert 0 <= number <= NUMBER_MAX, number
    return f"{number:0{NUMBER_DIGITS}d}"


def _parse_number(text: str) -> int | None:
    return int(text) if len(text) == NUMBER_DIGITS and text.isascii() and text.isdigit() else None


def roster_prefix(chapter: int) -> str:
    """The prefix of a chapter's roster."""
    return f"roster/{_number(chapter)}/"


def entry_key(chapter: int, number: int) -> str:
    """The name of a roster entry."""
    return f"{roster_prefix(chapter)}{_number(number)}"


def session_prefix(writer: str, chapter: int, session: int) -> str:
    """The prefix that is one session's alone."""
    return f"log/{escape_name(writer, 'writer')}/{_number(chapter)}/{_number(session)}/"


def segment_key(writer: str, chapter: int, session: int, slot: int) -> str:
    """The name of a segment."""
    return f"{session_prefix(writer, chapter, session)}{_number(slot)}"


def retired_key(chapter: int) -> str:
    """The name of a chapter's retirement record."""
    return f"{RETIRED}{_number(chapter)}"


def stages_prefix(deployment: str) -> str:
    """The prefix of all stage logs of a deployment."""
    return f"{STAGE_LOGS}{escape_name(deployment, 'deployment')}/"


def stage_prefix(stage: StageId) -> str:
    """The prefix that is one stage log's alone."""
    return f"{stages_prefix(stage.deployment)}{escape_name(stage.stage, 'stage')}/{_number(stage.retry)}/"


def stage_page_key(key: StagePageKey) -> str:
    """The name of a page of a stage log."""
    return f"{stage_prefix(key.stage)}{_number(key.number)}"


def stage_gone_key(stage: StageId) -> str:
    """The name of the record that a stage log may be gone; comes after those of its pages."""
    return f"{stage_prefix(stage)}{_GONE}"


def snapshots_prefix(fold: Fold) -> str:
    """The prefix of one fold's manifests and registrations."""
    return f"{SNAPSHOTS}{escape_name(fold.projection, 'projection')}/{_number(fold.version)}/{fold.fingerprint.hex()}/"


def manifest_prefix(fold: Fold) -> str:
    """The prefix of one fold's manifests."""
    return f"{snapshots_prefix(fold)}manifest/"


def manifest_key(key: ManifestKey) -> str:
    """The name of a manifest."""
    return f"{manifest_prefix(key.fold)}{_point(key.chapter, key.number)}"


def registration_key(key: RegistrationKey) -> str:
    """The name of a registration."""
    return f"{snapshots_prefix(key.fold)}registration/{_number(key.number)}"


def chunk_key(key: ChunkKey) -> str:
    """The name of a chunk."""
    return f"{CHUNKS}{_point(key.chapter, key.number)}-{key.hash.hex()}"


def archive_prefix(chapter: int) -> str:
    """The prefix of all archives of a chapter."""
    return f"{ARCHIVE}{_number(chapter)}/"


def archive_key(key: ArchiveKey) -> str:
    """The name of an object of an archive."""
    return f"{archive_prefix(key.chapter)}{key.nonce.hex()}/{_number(key.number)}"


def pin_prefix(id_: bytes) -> str:
    """The prefix of a pin's renewals."""
    return f"{PINS}{id_.hex()}/"


def pin_key(key: PinKey) -> str:
    """The name of a pin."""
    return f"{pin_prefix(key.id)}{_number(key.number)}"


def claim_key(key: ClaimKey) -> str:
    """The name of a claim. Raises InvalidArgument: a key of more than 200 bytes."""
    return f"{CLAIMS}{escape_name(key.kind, 'kind')}/{escape_name(key.key, 'key')}/{_number(key.number)}"


def _point(chapter: int, number: int) -> str:
    return f"{_number(chapter)}-{_number(number)}"


def parse_key(key: str) -> Key | None:
    """Return what ``key`` names, or None when no function of this module builds it."""
    match key.split("/"):
        case ["store"]:
            return StoreKey()
        case ["roster", chapter_text, number_text]:
            chapter, number = _parse_number(chapter_text), _parse_number(number_text)
            return None if chapter is None or number is None else EntryKey(chapter, number)
        case ["retired", chapter_text]:
            chapter = _parse_number(chapter_text)
            return None if chapter is None else RetiredKey(chapter)
        case ["log", writer_text, chapter_text, session_text, slot_text]:
            writer, chapter = unescape_name(writer_text), _parse_number(chapter_text)
            session, slot = _parse_number(session_text), _parse_number(slot_text)
            if writer is None or chapter is None or session is None or slot is None:
                return None
            return SegmentKey(writer, chapter, session, slot)
        case ["stagelogs", deployment_text, stage_text, retry_text, number_text]:
            stage, number = _parse_stage(deployment_text, stage_text, retry_text), _parse_number(number_text)
            if stage is None or (number is None and number_text != _GONE):
                return None
            return StageGoneKey(stage) if number is None else StagePageKey(stage, number)
        case ["snapshots", projection_text, version_text, fingerprint_text, "manifest", point_text]:
            fold, point = _parse_fold(projection_text, version_text, fingerprint_text), _parse_point(point_text)
            return None if fold is None or point is None else ManifestKey(fold, *point)
        case ["snapshots", projection_text, version_text, fingerprint_text, "registration", number_text]:
            fold, number = _parse_fold(projection_text, version_text, fingerprint_text), _parse_number(number_text)
            return None if fold is None or number is None else RegistrationKey(fold, number)
        case ["chunks", chunk_text]:
            point_text, _, hash_text = chunk_text.rpartition("-")
            point, hash_ = _parse_point(point_text), _parse_hex(hash_text, HASH_BYTES)
            return None if point is None or hash_ is None else ChunkKey(*point, hash_)
        case ["archive", chapter_text, nonce_text, number_text]:
            chapter, nonce = _parse_number(chapter_text), _parse_hex(nonce_text, NONCE_BYTES)
            number = _parse_number(number_text)
            return None if chapter is None or nonce is None or number is None else ArchiveKey(chapter, nonce, number)
        case ["pins", id_text, number_text]:
            id_, number = _parse_hex(id_text, NONCE_BYTES), _parse_number(number_text)
            return None if id_ is None or number is None else PinKey(id_, number)
        case ["claims", kind_text, key_text, number_text]:
            kind, name = unescape_name(kind_text), unescape_name(key_text)
            number = _parse_number(number_text)
            return None if kind is None or name is None or number is None else ClaimKey(kind, name, number)
        case _:
            return None


def _parse_stage(deployment_text: str, stage_text: str, retry_text: str) -> StageId | None:
    deployment, stage, retry = unescape_name(deployment_text), unescape_name(stage_text), _parse_number(retry_text)
    return None if deployment is None or stage is None or retry is None else StageId(deployment, stage, retry)


def _parse_fold(projection_text: str, version_text: str, fingerprint_text: str) -> Fold | None:
    projection, version = unescape_name(projection_text), _parse_number(version_text)
    fingerprint = _parse_hex(fingerprint_text, FINGERPRINT_BYTES)
    return None if projection is None or not version or fingerprint is None else Fold(projection, version, fingerprint)


def _parse_point(text: str) -> tuple[int, int] | None:
    chapter_text, _, number_text = text.partition("-")
    chapter, number = _parse_number(chapter_text), _parse_number(number_text)
    return None if chapter is None or number is None else (chapter, number)


def _parse_hex(text: str, size: int) -> bytes | None:
    return bytes.fromhex(text) if len(text) == 2 * size and set(text) <= set("0123456789abcdef") else None
