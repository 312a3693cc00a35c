"""Opaque one-line texts that outlive a process: positions, receipts, unsettled questions. Pure.

A token is a word that says what it is, a version, and its values, with a checksum: a token that was
cut short or mixed up is refused, never misread.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any, Final

import msgpack

from logstore.errors import InvalidArgument
from logstore.frame import unpack

__all__ = ["encode_token", "decode_token"]

_VERSION: Final = 1
_TEXT_BYTES_MAX: Final = 1 << 20


def encode_token(word: str, values: list[Any]) -> str:
    """Return ``values`` as text that begins with ``word``.

    >>> decode_token("receipt", encode_token("receipt", [1, "a"]))
    [1, 'a']
    """
    packed = msgpack.packb([_VERSION, *values])
    checked = zlib.crc32(packed).to_bytes(4, "big") + packed
    return f"{word}-{base64.urlsafe_b64encode(checked).decode().rstrip('=')}"


def decode_token(word: str, text: str) -> list[Any]:
    """Return the values that ``encode_token`` was given; InvalidArgument, naming ``word``, for any other text."""
    refusal = InvalidArgument(f"not a {word} of this library {word}={text!r:.60}; pass it on exactly as it was given")
    prefix = f"{word}-"
    if not isinstance(text, str) or not text.startswith(prefix) or len(text) > _TEXT_BYTES_MAX:
        raise refusal
    try:
        encoded = text[len(prefix) :].encode("ascii")
        checked = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        packed = checked[4:]
        if checked[:4] != zlib.crc32(packed).to_bytes(4, "big"):
            raise refusal
        values = unpack(packed)
        if type(values) is not list or values[:1] != [_VERSION] or encode_token(word, values[1:]) != text:
            raise refusal  # of another version, or spelt otherwise than we do
    except (ValueError, binascii.Error, msgpack.UnpackException) as error:
        raise refusal from error
    return values[1:]
