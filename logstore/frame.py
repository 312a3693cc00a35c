"""The frame around every object: what it is, how long it is, and that it is whole.

docs/FORMAT.md §2. Pure: bytes in, bytes out. Whoever decodes passes the object's key, so that
every complaint can name it.

Invariants:
- What ``encode_frame`` returns, ``decode_frame`` accepts, and no other bytes than those.
- ``Frame.digest`` identifies the object wherever another object refers to it.
"""

from __future__ import annotations

import enum
import hashlib
import reprlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from logstore.errors import Corrupt, KeyNeeded
from logstore.keys import STORE

__all__ = [
    "DIGEST_BYTES",
    "ENCRYPTED",
    "SIGNED",
    "UNSEARCHED_BYTES_MAX",
    "Fields",
    "Frame",
    "ObjectType",
    "decode_envelope",
    "decode_fields",
    "decode_frame",
    "encode_fields",
    "encode_frame",
    "fields_of",
    "frame_size",
    "type_of",
    "unpack",
]

MAGIC: Final = b"LGST"
VERSION: Final = 1
DIGEST_BYTES: Final = 32
ENCRYPTED: Final = 0x8000  # either flag makes the frame an envelope: the object follows it
SIGNED: Final = 0x4000
CONTAINERS_MAX: Final = 1 << 20  # arrays and maps in one object; each takes 64 bytes of memory and more
UNSEARCHED_BYTES_MAX: Final = 1 << 10  # so little can announce 8 MB of arrays at most
_UNCOUNTED_BYTES_MAX: Final = 64 << 10  # so little can hold 8 MB of empty arrays and maps at most
_PREFIX: Final = struct.Struct(">4sBBHI")


class ObjectType(enum.IntEnum):
    """What an object is. On disk: never renumber."""

    STORE = 1
    ENTRY = 2
    SEGMENT = 3
    RETIRED = 4
    MANIFEST = 5
    CHUNK = 6
    PIN = 7
    CLAIM = 8
    ARCHIVE = 9
    STAGE_PAGE = 10
    REGISTRATION = 11
    STAGE_GONE = 12


BODY_BYTES_MAX: Final = {
    ObjectType.STORE: 1 << 20,
    ObjectType.ENTRY: 1 << 20,
    ObjectType.SEGMENT: 1 << 10,
    ObjectType.RETIRED: 64 << 20,
    ObjectType.MANIFEST: 64 << 20,
    ObjectType.CHUNK: 1 << 10,
    ObjectType.PIN: 1 << 20,
    ObjectType.CLAIM: 16 << 20,
    ObjectType.ARCHIVE: 64 << 20,
    ObjectType.STAGE_PAGE: 1 << 10,
    ObjectType.REGISTRATION: 1 << 20,
    ObjectType.STAGE_GONE: 1 << 20,
}


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame taken apart: ``rest`` is what follows it in the object."""

    flags: int
    body: bytes
    digest: bytes
    rest: memoryview


def encode_frame(type_: ObjectType, flags: int, body: bytes) -> bytes:
    """Return the framed body; its last 32 bytes are the object's digest."""
    assert len(body) <= BODY_BYTES_MAX[type_], (type_, len(body))
    framed = _PREFIX.pack(MAGIC, VERSION, type_, flags, len(body)) + body
    return framed + hashlib.sha256(framed).digest()


def frame_size(data: bytes) -> int:
    """How many bytes the frame has with which an object begins, by its first twelve; 0 when there are not as many."""
    return 0 if len(data) < _PREFIX.size else _PREFIX.size + _PREFIX.unpack_from(data)[4] + DIGEST_BYTES


def type_of(key: str, data: bytes) -> ObjectType:
    """What kind of object ``data`` says to be. Raises Corrupt, naming ``key``, when it says none; looks no further."""
    try:
        return ObjectType(data[5])
    except (IndexError, ValueError):
        raise Corrupt(f"not an object of ours key={key} begins={data[:6].hex()}; restore it") from None


def decode_frame(key: str, data: bytes, type_: ObjectType, known_flags: int = 0) -> Frame:
    """Take the frame off ``data``; Corrupt, naming ``key``, when it is not a whole frame of this type."""
    if not data:
        raise Corrupt(f"object is empty key={key}; restore it")
    if len(data) < _PREFIX.size:
        raise Corrupt(f"object is cut short key={key} bytes={len(data)}; restore it")
    magic, version, found_type, flags, body_size = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt(f"not an object of ours key={key} begins={magic.hex()}; restore it, or remove it if foreign")
    if version != VERSION:
        raise Corrupt(
            f"written in another format version key={key} version={version} known={VERSION}; upgrade logstore"
        )
    if found_type != type_:
        raise Corrupt(f"object of another type key={key} type={found_type} want={int(type_)}; restore it")
    if flags & ~known_flags & (ENCRYPTED | SIGNED):
        raise KeyNeeded(
            f"object is encrypted key={key}; give the store's keys (Protection, LOGSTORE_KEYS)"
            if flags & ENCRYPTED
            else f"object is signed key={key}; say whom to trust (Protection, LOGSTORE_TRUST)"
        )
    if flags & ~known_flags:
        raise Corrupt(f"object uses features unknown here key={key} flags={flags:#06x}; upgrade logstore")
    digest_start = _PREFIX.size + body_size
    if body_size > BODY_BYTES_MAX[type_] or len(data) < digest_start + DIGEST_BYTES:
        raise Corrupt(f"object is cut short key={key} bytes={len(data)} body={body_size}; restore it")
    digest = data[digest_start : digest_start + DIGEST_BYTES]
    if hashlib.sha256(memoryview(data)[:digest_start]).digest() != digest:
        raise Corrupt(f"digest differs key={key}; restore the object")
    rest = memoryview(data)[digest_start + DIGEST_BYTES :]
    return Frame(flags, data[_PREFIX.size : digest_start], digest, rest)


def decode_envelope(key: str, data: bytes, flag: int) -> Frame:
    """Take the envelope of that kind off ``data``; Corrupt, naming ``key``, when it is in none."""
    word = "encrypted" if flag == ENCRYPTED else "signed"
    try:
        type_ = ObjectType(data[5])
    except (IndexError, ValueError):
        type_ = ObjectType.STORE  # of what is no frame decode_frame says why
    found = _PREFIX.unpack_from(data)[3] if data.startswith(MAGIC) and len(data) >= _PREFIX.size else flag
    if found != flag and not found & ENCRYPTED:  # in what is encrypted, the signature is within
        next_step = (
            "restore it" if key != STORE else "restore it; a store that was made plain is opened without protection"
        )
        raise Corrupt(f"object is not {word}, as its store should be key={key}; {next_step}")
    return decode_frame(key, data, type_, flag)


def unpack(
    packed: bytes,
    *,
    as_map: Callable[[dict[Any, Any]], Any] | None = None,
    containers_max: int = CONTAINERS_MAX,
    **options: Any,
) -> Any:
    """Return the one MessagePack value in ``packed``; ValueError or msgpack.UnpackException when there is none.

    Arrays are allocated by the length they announce, before their items are seen, and a thousand may lie in one
    another: 5 kB would take half a gigabyte. So all but small values are walked through first: what they announce
    must be there.

    >>> unpack(bytes.fromhex("81a16101"))
    {'a': 1}
    """
    if len(packed) > UNSEARCHED_BYTES_MAX:
        scout = msgpack.Unpacker(max_buffer_size=len(packed))
        scout.feed(packed)
        scout.skip()
        if scout.tell() != len(packed):
            raise ValueError("bytes follow the value")
    if len(packed) <= _UNCOUNTED_BYTES_MAX:
        return msgpack.unpackb(packed, object_hook=as_map, max_ext_len=0, **options)
    containers = 0

    def count(container: Any) -> Any:
        nonlocal containers
        containers += 1
        if containers > containers_max:
            raise ValueError(f"more than {containers_max} arrays and maps")
        return container

    def count_map(fields: dict[Any, Any]) -> Any:
        return count(fields) if as_map is None else as_map(count(fields))

    return msgpack.unpackb(packed, object_hook=count_map, list_hook=count, max_ext_len=0, **options)


def encode_fields(type_: ObjectType, fields: dict[str, Any]) -> bytes:
    """Frame one map of named fields: the form of every small object."""
    return encode_frame(type_, 0, msgpack.packb(fields))


class Fields:
    """The named fields of a small object, taken out with their types checked."""

    def __init__(self, key: str, digest: bytes, fields: dict[str, Any]) -> None:
        self.key = key
        self.digest = digest
        self._fields = fields

    def damaged(self, name: str) -> Corrupt:
        """The error for a field that is absent or of another kind than FORMAT says."""
        shown = reprlib.repr(self._fields.get(name))[:60]
        return Corrupt(f"field cannot be read key={self.key} field={name} value={shown}; restore it")

    def number(self, name: str, maximum: int = (1 << 64) - 1) -> int:
        """An integer from 0 to ``maximum``."""
        value = self._fields.get(name)
        if type(value) is not int or not 0 <= value <= maximum:
            raise self.damaged(name)
        return value

    def text(self, name: str) -> str:
        """A string."""
        value = self._fields.get(name)
        if type(value) is not str:
            raise self.damaged(name)
        return value

    def binary(self, name: str, size: int | None = None) -> bytes:
        """Bytes; exactly ``size`` of them, where that is given."""
        value = self._fields.get(name)
        if type(value) is not bytes or size not in (None, len(value)):
            raise self.damaged(name)
        return value

    def given(self, name: str) -> bool:
        """Whether a field that may be nil is not; it must be there."""
        if name not in self._fields:
            raise self.damaged(name)
        return self._fields[name] is not None

    def has(self, name: str) -> bool:
        """Whether a field that may be absent or nil is neither."""
        return self._fields.get(name) is not None

    def nested(self, name: str) -> Fields:
        """A map of fields within."""
        value = self._fields.get(name)
        if type(value) is not dict:
            raise self.damaged(name)
        return Fields(self.key, self.digest, value)

    def numbers(self, name: str, count: int) -> tuple[int, ...]:
        """An array of exactly ``count`` integers, each at least 0."""
        value = self._fields.get(name)
        if type(value) is not list or len(value) != count or not all(type(item) is int and item >= 0 for item in value):
            raise self.damaged(name)
        return tuple(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """An array of strings."""
        value = self._fields.get(name)
        if type(value) is not list or not set(map(type, value)) <= {str}:
            raise self.damaged(name)
        return tuple(value)

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._fields.get(name)
        if type(value) is not bool:
            raise self.damaged(name)
        return value

    def rows(self, name: str, *types: type | tuple[type, ...]) -> tuple[tuple[Any, ...], ...]:
        """An array of arrays, each with one value of each of ``types``, or of one of several; integers at least 0."""
        value = self._fields.get(name)
        if type(value) is not list:
            raise self.damaged(name)
        for row in value:
            if type(row) is not list or len(row) != len(types):
                raise self.damaged(name)
            if not all(
                type(item) is want or (type(want) is tuple and type(item) in want)
                for item, want in zip(row, types, strict=True)
            ):
                raise self.damaged(name)
            if any(type(item) is int and item < 0 for item in row):
                raise self.damaged(name)
        return tuple(map(tuple, value))


def decode_fields(key: str, data: bytes, type_: ObjectType) -> Fields:
    """Take a small object apart into its named fields; Corrupt, naming ``key``, when it is damaged.

    Memory is bounded by the body's size and ``CONTAINERS_MAX``, whatever the body announces.
    """
    frame = decode_frame(key, data, type_)
    if frame.rest:
        raise Corrupt(f"bytes follow the object key={key} bytes={len(frame.rest)}; restore it")
    return fields_of(key, frame)


def fields_of(key: str, frame: Frame) -> Fields:
    """The named fields in the body of ``frame``; Corrupt, naming ``key``, when it holds anything else."""
    try:
        fields = unpack(frame.body)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Corrupt(f"body cannot be read key={key} cause={error!r:.80}; restore it") from error
    if type(fields) is not dict or not set(map(type, fields)) <= {str}:
        raise Corrupt(f"body is not a map of named fields key={key}; restore it")
    return Fields(key, frame.digest, fields)
