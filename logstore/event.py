"""Events: what callers append (``Event``) and what readers get (``StoredEvent``).

An event's data is one MessagePack value, a map with text field names or nothing. It is encoded when it is
appended, so that a mistake shows at the call and later changes to the caller's objects do not matter, and
decoded only when somebody looks at it, read-only all through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgpack

from logstore.errors import Corrupt, InvalidArgument
from logstore.frame import UNSEARCHED_BYTES_MAX, unpack

__all__ = ["Data", "EncodedEvent", "Event", "EventEncoder", "StoredEvent", "decode_data", "may_be_too_deep", "shown"]

Data = Mapping[str, Any]

EncodedEvent = tuple[str, str, str, bytes, bytes | None]
"""An event as it goes into the columns of a segment: kind, key, type, payload, meta."""

NAME_BYTES_MAX: Final = 200
KEY_BYTES_MAX: Final = 1_024
LEVELS_MAX: Final = 100  # maps and arrays in one another, the data itself included; recursion must bear it
_PLAIN: Final = frozenset({str, int, bool, bytes, type(None)})
_MAPS: Final = frozenset({dict, MappingProxyType})
_ARRAYS: Final = frozenset({list, tuple})
_NO_DATA: Final = b"\xc0"
_TEXT: Final = frozenset({str})
_DICT: Final = frozenset({dict})
_NAMES_REMEMBERED_MAX: Final = 10_000
_CONTAINERS: Final = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])  # by which MessagePack begins a map or an array


class Event(NamedTuple):
    """A fact to append: something of some ``type`` happened to the thing ``key`` of a ``kind``.

    ``data`` is what happened, ``meta`` what is known about how (correlation, causation, actor, trace). Both hold
    what MessagePack holds: text, bytes, numbers (integers to 64 bits, no NaN), booleans, None, lists, and maps
    with text names.

    >>> Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}).key
    'd-1'
    """

    kind: str
    key: str
    type: str
    data: Data | None = None
    meta: Data | None = None


def _refuse_unstorable(value: object, key: str, field: str, levels: int = LEVELS_MAX) -> None:
    """Raise InvalidArgument for what MessagePack would store but a reader could not use."""
    exactly = type(value)  # to ask whether something is a Mapping takes ten times as long
    if exactly in _MAPS or (exactly not in _ARRAYS and exactly is not float and isinstance(value, Mapping)):
        if levels == 0:
            raise _nested_too_deep(key, field)
        for name, inner in value.items():  # type: ignore[attr-defined]
            if not isinstance(name, str):
                raise InvalidArgument(f"field names are text key={shown(key)} in={field} name={name!r:.40}")
            if type(inner) not in _PLAIN:
                _refuse_unstorable(inner, key, field, levels - 1)
    elif isinstance(value, float):
        if math.isnan(value):
            raise InvalidArgument(
                f"NaN cannot be stored key={shown(key)} in={field}; leave the field out or store None"
            )
    elif isinstance(value, (msgpack.ExtType, msgpack.Timestamp)):
        raise InvalidArgument(
            f"extension types cannot be stored key={shown(key)} in={field} type={type(value).__name__}"
        )
    elif isinstance(value, (list, tuple)):
        if levels == 0:
            raise _nested_too_deep(key, field)
        for inner in value:
            if type(inner) not in _PLAIN:
                _refuse_unstorable(inner, key, field, levels - 1)


def _nested_too_deep(key: str, field: str) -> InvalidArgument:
    return InvalidArgument(f"nested too deep key={shown(key)} in={field} levels={LEVELS_MAX}; flatten it")


def _as_dict(value: object) -> object:
    """Let read-only mappings, such as those this library hands out, be stored again."""
    if type(value) is MappingProxyType or isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, int):  # msgpack asks for it as for a type that it does not know
        raise TypeError("an integer needs more than 64 bits")
    raise TypeError(f"type cannot be stored: {type(value).__name__}")


class EventEncoder:
    """Checks events and encodes their data. One per writer; not thread-safe.

    Cost: 0.7 us for an event of three fields.
    """

    def __init__(self) -> None:
        self._packer = msgpack.Packer(default=_as_dict)
        self._names: set[str] = set()  # kinds and types already checked: there are few

    def encode(self, event: Event) -> EncodedEvent:
        """Return the event encoded; InvalidArgument, naming the field, when it cannot be stored."""
        kind, key, type_, data, meta = event
        names = self._names
        if kind not in names:
            self._check_name(kind, "kind")
        if type_ not in names:
            self._check_name(type_, "type")
        _check_text(key, "key", KEY_BYTES_MAX)
        payload = _NO_DATA if data is None else self.encode_data(data, key, "data")
        return kind, key, type_, payload, None if meta is None else self.encode_data(meta, key, "meta")

    def encode_all(self, events: Sequence[Event]) -> list[EncodedEvent]:
        """Return the events encoded, as ``encode`` does. Cost: half a microsecond an event where all are plain."""
        try:
            kinds, keys, types, data, metas = zip(*events, strict=True)
            if self._are_plain(kinds, keys, types, data, metas):
                payloads = map(self._packer.pack, data)
                return list(zip(kinds, keys, types, payloads, metas, strict=True))
        except (TypeError, ValueError, OverflowError):
            self._packer.reset()
        return [self.encode(event) for event in events]  # some are not plain, or wrong: it says which

    def _are_plain(
        self, kinds: Sequence[str], keys: Sequence[str], types: Sequence[str], data: Sequence[Any], metas: Sequence[Any]
    ) -> bool:
        """Whether nothing needs a closer look: known names, keys in ASCII, flat dicts of what is always storable.

        The columns are checked without a step of Python for each event.
        """
        names = self._names
        return (
            names.issuperset(kinds)
            and names.issuperset(types)
            and _TEXT.issuperset(map(type, keys))
            and all(map(str.isascii, keys))
            and all(keys)
            and max(map(len, keys)) <= KEY_BYTES_MAX
            and _DICT.issuperset(map(type, data))
            and _TEXT.issuperset(map(type, chain.from_iterable(data)))
            and _PLAIN.issuperset(map(type, chain.from_iterable(map(dict.values, data))))
            and metas.count(None) == len(metas)
        )

    def encode_data(self, data: Data, key: str, field: str) -> bytes:
        """Return a map as MessagePack; InvalidArgument, naming ``key`` and ``field``, when it cannot be stored."""
        if type(data) is not dict and not isinstance(data, Mapping):
            raise InvalidArgument(f"needs a mapping or None {field}={data!r:.40} key={shown(key)}")
        try:
            for name, value in data.items():
                if type(name) is not str or type(value) not in _PLAIN:
                    _refuse_unstorable(data, key, field)
                    break
            encoded: bytes = self._packer.pack(data)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self._packer.reset()
            raise InvalidArgument(f"cannot be stored key={shown(key)} in={field} cause={str(error)[:80]}") from error
        return encoded

    def _check_name(self, name: str, argument: str) -> None:
        _check_text(name, argument, NAME_BYTES_MAX)
        if len(self._names) < _NAMES_REMEMBERED_MAX:
            self._names.add(name)


def _check_text(text: str, argument: str, bytes_max: int) -> None:
    if type(text) is not str:
        raise InvalidArgument(f"needs text {argument}={text!r:.40}")
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"not encodable as UTF-8 {argument}={text!r:.40}") from error
    if not 1 <= size <= bytes_max:
        raise InvalidArgument(f"needs 1 to {bytes_max} bytes of UTF-8 {argument}={text[:40]!r} bytes={size}")


def decode_data(payload: bytes, where: str | Callable[[], str]) -> Data | None:
    """Decode stored data, read-only all through: mapping proxies and tuples. Raises Corrupt naming ``where``.

    Where it lies is asked for, if it is a function, only then. Cost: a microsecond and 6 ns a byte.
    """
    try:
        if len(payload) <= UNSEARCHED_BYTES_MAX and not _may_hold_binary(payload):  # what ``unpack`` would do
            data = msgpack.unpackb(payload, object_hook=MappingProxyType, use_list=False, max_ext_len=0)
        else:
            as_map = _with_text_names if _may_hold_binary(payload) else MappingProxyType
            data = unpack(payload, as_map=as_map, use_list=False)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Corrupt(f"data cannot be read {_named(where)} cause={error!r:.80}; run `logstore check`") from error
    if data is not None and type(data) is not MappingProxyType:
        raise Corrupt(f"data is not a map {_named(where)} type={type(data).__name__}; run `logstore check`")
    if data is not None and may_be_too_deep(payload) and _is_too_deep(data):
        raise Corrupt(f"data is nested too deep {_named(where)} levels={LEVELS_MAX}; run `logstore check`")
    return data


def may_be_too_deep(payload: bytes) -> bool:
    """Whether so many bytes may begin a map or an array as would be too many in one another. Cost: 1 ns a byte."""
    if len(payload) <= LEVELS_MAX:
        return False
    return len(payload) - len(payload.translate(None, _CONTAINERS)) > LEVELS_MAX


def _is_too_deep(data: Data) -> bool:
    """Whether what was decoded has more than ``LEVELS_MAX`` maps and arrays in one another. No recursion."""
    level: list[Any] = [data]
    for _ in range(LEVELS_MAX):
        held = [each.values() if type(each) is MappingProxyType else each for each in level]
        level = [inner for each in held for inner in each if type(inner) is MappingProxyType or type(inner) is tuple]
        if not level:
            return False
    return True


def _named(where: str | Callable[[], str]) -> str:
    return where if isinstance(where, str) else where()


def _may_hold_binary(payload: bytes) -> bool:
    """Whether a byte occurs by which MessagePack announces bin. Cost: 0.1 us; a regular expression takes 3 us."""
    return 0xC4 in payload or 0xC5 in payload or 0xC6 in payload


def _with_text_names(fields: dict[Any, Any]) -> Data:
    if bytes in set(map(type, fields)):
        raise ValueError("field names are text")
    return MappingProxyType(fields)


class StoredEvent:
    """An event as read back: what was appended, and where it stands in the log.

    ``settled`` says whether its place in the total order was final when it was yielded; ``exclusive``, whether it was
    written by the leader of its kind.

    >>> async def example(log):
    ...     return [(event.key, event.order) async for event in log.read() if event.data and event.data["status"] == 1]
    """

    __slots__ = (
        "_data",
        "_meta",
        "_payload",
        "chapter",
        "exclusive",
        "key",
        "kind",
        "seq",
        "session",
        "settled",
        "stamp",
        "type",
        "writer",
    )

    def __init__(  # noqa: PLR0917 - given by position it takes half the time
        self,
        kind: str,
        key: str,
        type: str,
        payload: bytes,
        meta: bytes | None,
        stamp: int,
        writer: str,
        chapter: int,
        session: int,
        seq: int,
        settled: bool,
        exclusive: bool = False,
    ) -> None:
        self.kind = kind
        self.key = key
        self.type = type
        self._payload = payload
        self._meta = meta
        self._data: Data | None = None
        self.stamp = stamp
        self.writer = writer
        self.chapter = chapter
        self.session = session
        self.seq = seq
        self.settled = settled
        self.exclusive = exclusive

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Its place in the total order: (stamp, chapter, session, seq)."""
        return (self.stamp, self.chapter, self.session, self.seq)

    @property
    def data(self) -> Data | None:
        """What happened; decoded at the first look, read-only. Raises Corrupt when the writer stored nonsense."""
        if self._data is None:
            self._data = decode_data(self._payload, self._where)
        return self._data

    @property
    def meta(self) -> Data | None:
        """What is known about how it happened, or None. Decoded at each look."""
        return None if self._meta is None else decode_data(self._meta, self._where)

    @property
    def payload(self) -> bytes:
        """The stored bytes of ``data``."""
        return self._payload

    def _where(self) -> str:
        return (
            f"key={shown(self.key)} writer={self.writer} chapter={self.chapter} session={self.session} seq={self.seq}"
        )

    def __repr__(self) -> str:
        return f"<StoredEvent {self.kind} {self.key} {self.type} {self._where()} stamp={self.stamp}>"


def payload_bytes(events: Sequence[EncodedEvent]) -> int:
    """What the events weigh against size limits: keys, payloads and metas, in bytes."""
    size = 0
    for _, key, _, payload, meta in events:
        size += len(key) + len(payload) + (0 if meta is None else len(meta))
    return size


def shown(key: str) -> str:
    """A key as it may stand in a message of one line."""
    return key if key.isprintable() else repr(key)
