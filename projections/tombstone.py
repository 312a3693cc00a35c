"""Tombstones: what is left of a deleted row, for the fold to know, until the watermark has passed a stamp. Pure.

Rows are maps; a tombstone is an array of the stamp, in nine bytes, and a map (docs/FORMAT.md §9). So one look
at the first byte tells them apart, and nobody can take one for a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from logstore.clock import STAMP_MAX
from logstore.errors import Corrupt
from logstore.event import Data, EventEncoder, decode_data, shown

__all__ = ["Tombstone", "decode_state", "encode_state", "is_tombstone", "tombstone_until"]

_HEAD: Final = b"\x92\xcf"  # an array of two; a 64-bit number
_DATA_START: Final = len(_HEAD) + 8


class Tombstone(Mapping[str, Any]):
    """Return it from ``apply`` to delete a row and yet be told of it: it is the state of the next event of its key.

    Events stamped above ``until`` are not told of it, nobody else sees it, and it goes, without an event, when the
    watermark reaches that stamp. The projection says ``tombstones = True``.

    >>> Tombstone({"claim": 3}, until=98304001)["claim"]
    3
    """

    def __init__(self, data: Data, until: int) -> None:
        self._data = data
        self.until = until

    def __getitem__(self, name: str) -> Any:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"Tombstone({dict(self)!r}, until={self.until})"


def is_tombstone(row: bytes) -> bool:
    """Whether these bytes are one, not a row."""
    return row.startswith(_HEAD)


def tombstone_until(row: bytes) -> int:
    """The stamp at which a tombstone goes."""
    return int.from_bytes(row[len(_HEAD) : _DATA_START], "big")


def encode_state(state: Data, key: str, encoder: EventEncoder) -> bytes:
    """Return the bytes of what ``apply`` returned: a row, or a tombstone. Raises InvalidArgument: not storable."""
    if not isinstance(state, Tombstone):
        return encoder.encode_data(state, key, "state")
    assert 0 <= state.until <= STAMP_MAX
    return _HEAD + state.until.to_bytes(8, "big") + encoder.encode_data(dict(state), key, "state")


def decode_state(row: bytes, key: str, stamp: int = 0) -> Data | None:
    """Return the row, or the tombstone, that these bytes are to an event of this stamp; None: a tombstone that is over.

    Raises Corrupt naming ``key``.
    """
    where = f"key={shown(key)}"
    if not is_tombstone(row):
        return decode_data(row, where) or {}
    if tombstone_until(row) < stamp:
        return None
    data = decode_data(row[_DATA_START:], where)
    if data is None:
        raise Corrupt(f"a tombstone without data {where}; run `logstore check`")
    return Tombstone(data, tombstone_until(row))
