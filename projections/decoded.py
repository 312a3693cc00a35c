"""Rows as they were last looked at: decoded once, handed out read-only, within a bound. Pure.

What is remembered of a key is its row, as bytes, and what these decode to. A row is never changed, only replaced: so
what is remembered is right exactly while the row is the same object, and nobody has to say that it changed.

A row is remembered from the second look on. To keep one costs half as much again as to decode it, and more of the
garbage collector; most rows of a long list are looked at once.

Invariants:
- What is handed out equals ``decode_data`` of the row, and nobody can change it.
- What is remembered has at most about ``bytes_max`` bytes of rows; decoded they take some seven times that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

import msgpack

from logstore.errors import Corrupt
from logstore.event import Data, decode_data, may_be_too_deep, shown
from logstore.frame import UNSEARCHED_BYTES_MAX

__all__ = ["DecodedRows", "decode_each"]

DECODED_BYTES_MAX: Final = 16 << 20
_SEEN_MAX: Final = 100_000  # rows looked at once; a number each


class DecodedRows:
    """A bounded memory of decoded rows; the oldest are forgotten first, many at a time.

    Who keeps rows for as long as they are remembered here looks at ``times_forgotten``.
    """

    def __init__(self, bytes_max: int = DECODED_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self.times_forgotten = 0
        self._bytes = 0
        self._known: dict[str, tuple[bytes, Data]] = {}
        self._seen: set[int] = set()  # ids of rows looked at once; one taken over by another row does no harm

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._seen.clear()
        self._bytes = 0
        self.times_forgotten += 1

    def note_forgotten(self) -> None:
        """Rows themselves were forgotten: those of them that are remembered here will not be asked for any more."""
        self.times_forgotten += 1

    def of(self, key: str, row: bytes) -> Data:
        """Return the row decoded. Cost: a lookup; decoding when it was not looked at twice before."""
        known = self._known.get(key)
        return known[1] if known is not None and known[0] is row else self._decode(key, row)

    def all_of(self, keys: Iterable[str], rows: Mapping[str, bytes]) -> list[Data]:
        """Return the rows of these keys, decoded. Cost: as ``of``, without a call for those remembered."""
        get, decode, found = self._known.get, self._decode, []
        for key in keys:
            row, known = rows[key], get(key)
            found.append(known[1] if known is not None and known[0] is row else decode(key, row))
        return found

    def _decode(self, key: str, row: bytes) -> Data:
        data = decode_data(row, lambda: f"key={shown(key)}")
        if data is None:
            raise Corrupt(f"no data is no row key={shown(key)}; run `logstore check`")
        seen, row_id = self._seen, id(row)
        if row_id in seen:
            seen.discard(row_id)
            self._remember(key, row, data)
        else:
            if len(seen) >= _SEEN_MAX:
                seen.clear()
                self.times_forgotten += 1
            seen.add(row_id)
        return data

    def _remember(self, key: str, row: bytes, data: Data) -> None:
        known = self._known
        replaced = known.get(key)
        self._bytes += len(row) - (len(replaced[0]) if replaced else 0)
        known[key] = (row, data)
        if self._bytes > self._bytes_max:
            for old in list(islice(known, (len(known) + 1) // 2)):
                self._bytes -= len(known.pop(old)[0])
            self.times_forgotten += 1

    def _check(self) -> None:
        """Assert every invariant; O(n)."""
        assert self._bytes == sum(len(row) for row, _ in self._known.values()) <= self._bytes_max
        assert all(decode_data(row, key) == data for key, (row, data) in self._known.items())


def decode_each(rows: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Data]]:
    """Yield each row decoded, to be looked at in passing: not read-only, so not to be handed out.

    Raises Corrupt as ``decode_data`` does. Cost: two thirds of that.
    """
    unpack = msgpack.unpackb
    for key, row in rows:
        plain = len(row) <= UNSEARCHED_BYTES_MAX and not (0xC4 in row or 0xC5 in row or 0xC6 in row)  # no binary names
        plain = plain and not may_be_too_deep(row)
        try:
            data = unpack(row, max_ext_len=0) if plain else None
        except (ValueError, msgpack.UnpackException, RecursionError):
            data = None
        yield key, data if type(data) is dict else decode_data(row, f"key={shown(key)}") or {}
