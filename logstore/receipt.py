"""Receipts: what ``append`` returns, the address of what was stored."""

from __future__ import annotations

from typing import Any, NamedTuple

from logstore.errors import InvalidArgument
from logstore.keys import NUMBER_MAX, is_name
from logstore.token import decode_token, encode_token

__all__ = ["Receipt"]


class Receipt(NamedTuple):
    """The events of one append are stored, here. As text it can go to another process.

    ``first_seq`` counts the session's events from 0; ``stamp`` is their place in the order.

    >>> receipt = Receipt("web-1", 0, 1, 0, 0, 2, 98304001)
    >>> Receipt.parse(str(receipt)) == receipt
    True
    """

    writer: str
    chapter: int
    session: int
    slot: int
    first_seq: int
    count: int  # type: ignore[assignment]  # the natural word; nobody counts values in a receipt
    stamp: int

    def __str__(self) -> str:
        return encode_token("receipt", list(self))

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """Return the receipt that ``str()`` turned into ``text``; InvalidArgument for any other text."""
        return cls.from_values(decode_token("receipt", text), text)

    @classmethod
    def from_values(cls, values: Any, text: str) -> Receipt:
        """Return the receipt that a token holds as ``values``; InvalidArgument, showing ``text``, for anything else."""
        match values:
            case [str() as writer, *numbers] if len(numbers) == 6 and all(type(n) is int and n >= 0 for n in numbers):
                chapter, session, slot, *_ = numbers
                if is_name(writer) and max(chapter, session, slot) <= NUMBER_MAX:
                    return cls(*values)
        raise InvalidArgument(f"not a receipt of this library receipt={text!r:.60}")
