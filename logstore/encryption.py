"""Objects encrypted and authenticated, in blocks. docs/FORMAT.md §17, RFC 0013. Pure.

Invariants:
- Nothing is returned that did not authenticate under its key, its name, its size and its place in the object.
- A salt is used for one object; so is the key derived from it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from logstore.errors import Corrupt, InvalidArgument, KeyNeeded
from logstore.frame import ENCRYPTED, decode_envelope, encode_frame, type_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = [
    "HEADER_BYTES",
    "SALT_BYTES",
    "Header",
    "Keyring",
    "Span",
    "decode_header",
    "decrypt",
    "encrypt",
    "path_shown",
    "plain_size",
    "read_hex_lines",
    "require_cryptography",
]

KEY_BYTES: Final = 32
SALT_BYTES: Final = 32
BLOCK_BYTES: Final = 1 << 16
_TAG_BYTES: Final = 16
_STORED_BYTES: Final = BLOCK_BYTES + _TAG_BYTES
_BODY: Final = struct.Struct(">16s32sQ")
_AUTHENTICATED_BYTES: Final = 12 + _BODY.size
HEADER_BYTES: Final = _AUTHENTICATED_BYTES + 32


class Keyring:
    """Keys of 32 bytes: objects are encrypted with the first, and decrypted with the one that they name.

    >>> Keyring([bytes(32)])
    <Keyring 94e8…>
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(type(key) is not bytes or len(key) != KEY_BYTES for key in keys):
            raise InvalidArgument(f"needs keys of {KEY_BYTES} bytes keys={len(keys)}")
        self._keys = {_key_id(key): key for key in keys}
        self._first = _key_id(keys[0])

    def __repr__(self) -> str:
        return f"<Keyring {', '.join(id_.hex()[:4] + '…' for id_ in self._keys)}>"

    @classmethod
    def load(cls, path: str | Path) -> Keyring:
        """Read a file of keys: one a line, 64 hexadecimal digits; empty lines and those that begin with # aside.

        Raises InvalidArgument, naming the file and the line, never what stands there.
        """
        return cls(read_hex_lines(path))

    @property
    def first(self) -> tuple[bytes, bytes]:
        """The id of the key to encrypt with, and the key."""
        return self._first, self._keys[self._first]

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All of them."""
        return tuple(self._keys.values())

    def key(self, id_: bytes) -> bytes | None:
        """The key of that id."""
        return self._keys.get(id_)


def require_cryptography() -> None:
    """Raise InvalidArgument where the package that all of this needs is not installed."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise InvalidArgument("needs the package cryptography; install logstore[protection]") from error


def read_hex_lines(path: str | Path) -> list[bytes]:
    """The 32 bytes that each line of a file of keys says. Raises InvalidArgument, without what stands there."""
    try:
        lines = Path(path).read_text("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidArgument(
            f"file of keys cannot be read path={path_shown(path)} cause={type(error).__name__};"
            " name a file that `logstore key` made"
        ) from None
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) != 2 * KEY_BYTES or not set(text) <= set(string.hexdigits):
            raise InvalidArgument(
                f"not a key of {2 * KEY_BYTES} hexadecimal digits path={path_shown(path)} line={number}"
            )
        keys.append(bytes.fromhex(text))
    if not keys:
        raise InvalidArgument(f"file holds no key path={path_shown(path)}; make one with `logstore key`")
    return keys


def path_shown(path: str | Path) -> str:
    """The path of a file as an error may tell it: on one line, and no key that was given in the file's stead.

    >>> path_shown("/etc/logstore/keys"), path_shown("6b" * 32)
    ('/etc/logstore/keys', '(a key itself)')
    """
    text = str(path)
    if any(map(_is_like_a_key, text.split())):
        return "(a key itself)"
    return text if text.isprintable() else f"{text!r:.80}"


def _is_like_a_key(word: str) -> bool:
    try:
        is_base64 = len(base64.b64decode(word, validate=True)) == KEY_BYTES
    except ValueError:
        is_base64 = False
    return is_base64 or re.fullmatch(r"[0-9a-fA-F]{32,}", word) is not None


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"logstore key 1\0" + key).digest()[:16]


@dataclass(frozen=True, slots=True)
class Header:
    """What an encrypted object says of itself: ``size`` is that of the object within."""

    key_id: bytes
    salt: bytes
    size: int
    authenticated: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``stop`` of an object, and which of the stored ones have them: whole blocks from ``first``.

    >>> span = Span(65_530, 65_540)
    >>> span.first, span.stored_start, span.stored_stop
    (0, 100, 131204)
    """

    start: int
    stop: int | None

    @property
    def first(self) -> int:
        """The block in which it begins."""
        return self.start // BLOCK_BYTES

    @property
    def stored_start(self) -> int:
        """Where that block lies."""
        return HEADER_BYTES + self.first * _STORED_BYTES

    @property
    def beyond(self) -> int | None:
        """The block behind the last one that is fetched; at least one is."""
        return None if self.stop is None else max(-(-self.stop // BLOCK_BYTES), self.first + 1)

    @property
    def stored_stop(self) -> int | None:
        """Where the last one ends."""
        return None if self.beyond is None else HEADER_BYTES + self.beyond * _STORED_BYTES


def encrypt(name: str, data: bytes, keyring: Keyring, salt: bytes) -> bytes:
    """Return the encrypted form of an object, to be stored under ``name``. ``salt``: random, used once.

    Raises Corrupt, naming it, for what is no object.
    """
    id_, key = keyring.first
    header = encode_frame(type_of(name, data), ENCRYPTED, _BODY.pack(id_, salt, len(data)))
    cipher, authenticated = _cipher(key, salt, name), header[:_AUTHENTICATED_BYTES]
    view = memoryview(data)
    blocks = (view[start : start + BLOCK_BYTES] for start in range(0, max(len(data), 1), BLOCK_BYTES))
    return b"".join([header, *(cipher.encrypt(_nonce(i), block, authenticated) for i, block in enumerate(blocks))])


def decode_header(name: str, data: bytes) -> Header:
    """Decode the beginning of an encrypted object. Raises Corrupt, naming it, when it is anything else."""
    body = decode_envelope(name, data, ENCRYPTED).body
    if len(body) != _BODY.size:
        raise Corrupt(f"envelope has another size key={name} bytes={len(body)}; restore the object")
    id_, salt, size = _BODY.unpack(body)
    return Header(id_, salt, size, data[:_AUTHENTICATED_BYTES])


def decrypt(name: str, header: Header, span: Span, stored: bytes | memoryview, keyring: Keyring) -> bytes:
    """Return a span of an object, of the stored bytes that have it. Raises Corrupt, KeyNeeded, naming the object."""
    key = keyring.key(header.key_id)
    if key is None:
        raise KeyNeeded(
            f"object is encrypted with a key that is not in the keyring key={name} key_id={header.key_id.hex()}; add it"
        )
    from cryptography.exceptions import InvalidTag

    begins = span.first * BLOCK_BYTES
    ends = header.size if span.beyond is None else min(header.size, span.beyond * BLOCK_BYTES)
    blocks = max(-(-(ends - begins) // BLOCK_BYTES), int(begins == 0))
    want = max(ends - begins, 0) + blocks * _TAG_BYTES
    if len(stored) != want:
        raise Corrupt(f"encrypted object has another size key={name} bytes={len(stored)} want={want}; restore it")
    cipher, view = _cipher(key, header.salt, name), memoryview(stored)
    stored_blocks = (view[at : at + _STORED_BYTES] for at in range(0, want, _STORED_BYTES))
    try:
        plain = b"".join(
            [
                cipher.decrypt(_nonce(i), block, header.authenticated)
                for i, block in enumerate(stored_blocks, span.first)
            ]
        )
    except InvalidTag:
        raise Corrupt(f"encrypted object is not what was written under this name key={name}; restore it") from None
    return plain[span.start - begins : None if span.stop is None else span.stop - begins]


def plain_size(stored: int) -> int:
    """How large the object is within an encrypted one of ``stored`` bytes; 0 where that is none.

    >>> plain_size(100 + 65_536 + 16 + 1 + 16)
    65537
    """
    held = stored - HEADER_BYTES
    return max(held - max(-(-held // _STORED_BYTES), 1) * _TAG_BYTES, 0)


def _cipher(key: bytes, salt: bytes, name: str) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, b"logstore object 1\0" + name.encode()).derive(key))


def _nonce(block: int) -> bytes:
    return block.to_bytes(12, "big")
