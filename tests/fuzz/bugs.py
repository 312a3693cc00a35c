"""Planted mistakes: fuzzing that does not find them proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from urllib.parse import unquote

import msgpack

import logstore.archive
import logstore.chunk
import logstore.event
import logstore.frame
import logstore.frontier
import logstore.keys
import logstore.named
import logstore.segment
import logstore.stagepage
import projections.cli.jsonlines
from logstore.errors import Corrupt
from logstore.frame import Fields

__all__ = ["BUGS", "Bug", "planted"]


class Bug(NamedTuple):
    """Where ``target`` finds it, and what is put in place of what."""

    target: str
    owner: Any
    name: str
    instead: Any


def unpack_unseen(packed: bytes, **options: Any) -> Any:
    options.pop("as_map", None), options.pop("containers_max", None)
    return msgpack.unpackb(packed, **options)


def damaged_somewhere(_: Fields, name: str) -> Corrupt:
    return Corrupt(f"field cannot be read field={name}")


def damaged_at_length(self: Fields, name: str) -> Corrupt:
    return Corrupt(f"field cannot be read key={self.key} field={name}\nvalue={self._fields.get(name)!r}")


def all_blocks(key: Any, data: bytes) -> list[Any]:
    return list(logstore.archive.decode_archive(key, data))


def any_name(segment: str) -> str:
    return unquote(segment)


def any_values(values: object, _: int) -> bool:
    return values is not None


def number_as_it_is(self: Fields, name: str, maximum: int = 0) -> Any:
    return self._fields[name]


def nothing(*_: object) -> None:
    """The check that is not made."""


BUGS: Final[dict[str, Bug]] = {
    "a column may have any length": Bug("segment", logstore.segment, "_require_all", nothing),
    "a field is taken as it is": Bug("pin", Fields, "number", number_as_it_is),
    "what arrays announce is allocated": Bug("manifest", logstore.frame, "unpack", unpack_unseen),
    "so is it within columns": Bug("stage page", logstore.stagepage, "unpack", unpack_unseen),
    "a chunk unpacks to any size": Bug("chunk", logstore.chunk, "COLUMNS_BYTES_MAX", 1 << 40),
    "an archive is unpacked at once": Bug("archive", logstore.named, "decode_archive", all_blocks),
    "an error names no object": Bug("retired", Fields, "damaged", damaged_somewhere),
    "an error has two lines": Bug("registration", Fields, "damaged", damaged_at_length),
    "a name has several spellings": Bug("key", logstore.keys, "unescape_name", any_name),
    "a token may hold anything": Bug("position token", logstore.frontier, "_are_numbers", any_values),
    "JSON may be nested as it likes": Bug("event line", projections.cli.jsonlines, "LEVELS_MAX", 1 << 20),
    "so may data": Bug("event printed", logstore.event, "may_be_too_deep", lambda _: False),
}


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """Make the mistake, while within."""
    with patch.object(bug.owner, bug.name, bug.instead):
        yield
