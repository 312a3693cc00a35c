"""Events as lines of JSON, and back.

A line is an object with ``kind``, ``key``, ``type``, ``data``, ``meta``; one that was read has also where it stands in
the log. What JSON cannot say is said by an object with one field whose name begins with ``$``:

    {"$bytes": "AP8="}        bytes, in base64
    {"$float": "Infinity"}    an infinite number ("-Infinity" likewise; "NaN", of other writers, is not read back)
    {"$map": {"$bytes": 1}}   a map that would otherwise be taken for one of these

So every event survives being written as a line and read again, bit for bit.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from logstore.errors import InvalidArgument
from logstore.event import LEVELS_MAX, Event, StoredEvent
from projections.cli.terminal import as_json, moment

__all__ = [
    "Place",
    "event_and_place",
    "event_of_line",
    "fields_of_event",
    "from_json",
    "line_of_event",
    "object_of_line",
    "to_json",
]

_WANTED: Final = ("kind", "key", "type")
_EVENT: Final = "kind, key, type, data"
_PLACE: Final = {"stamp", "time", "writer", "chapter", "session", "seq", "settled"}
_SAME: Final = {str, int, bool, type(None)}  # most values: JSON says them as they are


class Place(NamedTuple):
    """Where an event stood in the log that it comes from."""

    stamp: int
    writer: str
    chapter: int
    session: int
    seq: int


def line_of_event(event: StoredEvent) -> str:
    """Return a stored event as one line of JSON."""
    return as_json(fields_of_event(event))


def fields_of_event(event: StoredEvent) -> dict[str, Any]:
    """Return what a line says of a stored event, as what JSON can say."""
    return {
        "kind": event.kind,
        "key": event.key,
        "type": event.type,
        "data": to_json(event.data),
        "meta": to_json(event.meta),
        "time": moment(event.stamp),
        "stamp": event.stamp,
        "writer": event.writer,
        "chapter": event.chapter,
        "session": event.session,
        "seq": event.seq,
        "settled": event.settled,
    }


def to_json(value: Any) -> Any:
    """Return what an event holds as what JSON can say."""
    if type(value) in _SAME:
        return value
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case float() if math.isinf(value):
            return {"$float": "Infinity" if value > 0 else "-Infinity"}
        case float() if math.isnan(value):  # another writer's: ours stores none, and does not take it back
            return {"$float": "NaN"}
        case Mapping():
            plain = {name: to_json(inner) for name, inner in value.items()}
            return {"$map": plain} if len(plain) == 1 and next(iter(plain)).startswith("$") else plain
        case list() | tuple():
            return [to_json(inner) for inner in value]
        case _:
            return value


def event_of_line(line: bytes) -> Event:
    r"""Return the event that a line of JSON says; InvalidArgument when it says none.

    Where it stood in a log, if the line tells, is left out: appending gives it a place of its own.

    >>> event_of_line(b'{"kind": "Deployment", "key": "d-1", "type": "x", "data": {"sum": {"$bytes": "AP8="}}}').data
    {'sum': b'\x00\xff'}
    """
    return _event_of(object_of_line(line, _EVENT))


def event_and_place(line: bytes) -> tuple[Event, Place | None]:
    """Return the event that a line of JSON says, and where it stood in a log if the line says that.

    Raises InvalidArgument, also where it says so in part.
    """
    fields = object_of_line(line, _EVENT)
    given = [fields.get(name) for name in Place._fields]
    if all(value is None for value in given):
        return _event_of(fields), None
    for name, value in zip(Place._fields, given, strict=True):
        if type(value) is not (str if name == "writer" else int) or (type(value) is int and not 0 <= value < 1 << 64):
            raise InvalidArgument(f"not where an event stood field={name} value={value!r:.40}; leave out all or none")
    return _event_of(fields), Place._make(given)


def object_of_line(line: bytes, expected: str) -> dict[str, Any]:
    """Return the object that a line of JSON is; InvalidArgument, which says what was ``expected``, when it is none."""
    try:
        fields = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"not a line of JSON cause={str(error)[:80]}") from error
    if type(fields) is not dict:
        raise InvalidArgument(f"not an object type={type(fields).__name__}; a line is an object with {expected}")
    return fields


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"a name stands twice in one object name={twice!r:.40}")
    return fields


def _event_of(fields: dict[str, Any]) -> Event:
    for name in _WANTED:
        if type(fields.get(name)) is not str:
            raise InvalidArgument(
                f"needs text field={name} value={fields.get(name)!r:.40}; documents are imported --as documents"
            )
    if unknown := sorted(fields.keys() - {*_WANTED, "data", "meta"} - _PLACE):
        raise InvalidArgument(f"no such field of an event field={unknown[0]!r:.40}; what happened goes into data")
    data, meta = (from_json(fields.get(name), name) for name in ("data", "meta"))
    return Event(fields["kind"], fields["key"], fields["type"], data, meta)


def from_json(value: Any, field: str) -> Any:
    """Return what JSON says that an event, or a document, holds. Raises InvalidArgument, which names ``field``."""
    return _of_json(value, field, 0)


def _of_json(value: Any, field: str, depth: int) -> Any:
    if depth > LEVELS_MAX:
        raise InvalidArgument(f"nested too deeply field={field} levels_max={LEVELS_MAX}")
    if type(value) is list:
        return [_of_json(inner, field, depth + 1) for inner in value]
    if type(value) is not dict:
        if type(value) is float and math.isinf(value):
            raise InvalidArgument(
                f'a number is too large for 64 bits field={field}; write {{"$float": "Infinity"}} for what is infinite'
            )
        return value
    if len(value) != 1 or not next(iter(value)).startswith("$"):
        return {name: _of_json(inner, field, depth + 1) for name, inner in value.items()}
    match value:
        case {"$bytes": str(text)}:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise InvalidArgument(f"not base64 field={field} value={text!r:.40}") from error
        case {"$float": "Infinity" | "-Infinity" as text}:
            return float(text)
        case {"$float": "NaN"}:
            raise InvalidArgument(f"NaN cannot be stored field={field}; leave it out or write null")
        case {"$map": dict(plain)}:
            return {name: _of_json(inner, field, depth + 1) for name, inner in plain.items()}
        case _:
            raise InvalidArgument(
                f"a field name that begins with $ stands for what JSON cannot say field={field} value={value!r:.60};"
                ' write {"$map": {…}} for a map that has such a name alone'
            )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
