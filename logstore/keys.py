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
    "NAME_BYTES_MAX",
    "NUMBER_MAX",
    "STORE",
    "EntryKey",
    "RetiredKey",
    "SegmentKey",
    "StoreKey",
    "entry_key",
    "escape_name",
    "is_name",
    "parse_key",
    "retired_key",
    "roster_prefix",
    "segment_key",
    "session_prefix",
    "unescape_name",
]

NUMBER_DIGITS = 10  # one creation every millisecond for 115 days fits, and a session lives an hour
NUMBER_MAX = 10**NUMBER_DIGITS - 1
NAME_BYTES_MAX = 200
ESCAPED_BYTES_MAX = 255  # what a file system takes as one file's name
STORE = "store"


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
    return f"retired/{_number(chapter)}"


def parse_key(key: str) -> StoreKey | EntryKey | SegmentKey | RetiredKey | None:
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
        case _:
            return None
