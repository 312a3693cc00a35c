"""Any object of a store, decoded as its name says: for those who look after one. Pure."""

from __future__ import annotations

from logstore.archive import Contents, decode_archive
from logstore.chunk import Chunk, decode_chunk
from logstore.claim import Claim, decode_claim
from logstore.entry import Entry, decode_entry
from logstore.errors import Corrupt
from logstore.gone import Gone, decode_gone
from logstore.identity import Identity, decode_identity
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    EntryKey,
    ManifestKey,
    PinKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StageGoneKey,
    StagePageKey,
    StoreKey,
    parse_key,
)
from logstore.manifest import Manifest, decode_manifest
from logstore.pin import PinRecord, decode_pin
from logstore.registration import Registration, decode_registration
from logstore.retired import Retired, decode_retired
from logstore.segment import Segment, decode_segment
from logstore.stagepage import Page, decode_page

__all__ = ["Named", "decode_named"]

Named = (
    Identity | Entry | Segment | Retired | Page | Gone | Manifest | Registration | Chunk | PinRecord | Claim | Contents
)


def decode_named(name: str, data: bytes) -> Named:
    """Decode an object by its name, which is one of ours. Raises Corrupt, naming it, when it is damaged."""
    if data and not any(data):  # what a file system leaves of a file whose bytes it lost
        raise Corrupt(f"object holds nothing but zeros key={name} bytes={len(data)}")
    match parse_key(name):
        case StoreKey():
            return decode_identity(data)
        case EntryKey(chapter, number):
            return decode_entry(chapter, number, data)
        case SegmentKey() as key:
            return decode_segment(key, data)
        case StagePageKey() as key:
            return decode_page(key, data)
        case StageGoneKey(stage):
            return decode_gone(stage, data)
        case RetiredKey(chapter):
            return decode_retired(chapter, data)
        case ManifestKey() as key:
            return decode_manifest(key, data)
        case RegistrationKey() as key:
            return decode_registration(key, data)
        case ChunkKey() as key:
            return decode_chunk(key, data)
        case ArchiveKey() as key:
            return decode_archive(key, data)
        case PinKey() as key:
            return decode_pin(key, data)
        case ClaimKey() as key:
            return decode_claim(key, data)
        case None:
            raise AssertionError(f"not a name of ours key={name}")
