"""Objects signed by who made them, and who may make what. docs/FORMAT.md §17, RFC 0013. Pure.

Invariants:
- A signature is good for one object under one name.
- What a role does not allow is refused by who would sign it, and by everybody who reads it.
"""

from __future__ import annotations

import hashlib
import struct
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from logstore.claim import decode_claim
from logstore.encryption import path_shown, read_hex_lines, require_cryptography
from logstore.entry import Open, decode_entry
from logstore.errors import Corrupt, InvalidArgument, KeyNeeded
from logstore.frame import DIGEST_BYTES, SIGNED, decode_envelope, encode_frame, frame_size, type_of
from logstore.keys import (
    ArchiveKey,
    ChunkKey,
    ClaimKey,
    EntryKey,
    Key,
    ManifestKey,
    RegistrationKey,
    RetiredKey,
    SegmentKey,
    StageGoneKey,
    StoreKey,
    is_name,
    parse_key,
)
from logstore.registration import decode_registration
from logstore.segment import is_seal

__all__ = ["ENVELOPE_BYTES", "SigningKey", "Trust", "Trusted", "sign", "verify"]

KEY_BYTES: Final = 32
ROLES: Final = ("write", "snapshot", "keep")
_BODY: Final = struct.Struct(">16s64s")
ENVELOPE_BYTES: Final = 12 + _BODY.size + DIGEST_BYTES


class SigningKey:
    """The secret half of an Ed25519 key, 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        require_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if type(secret) is not bytes or len(secret) != KEY_BYTES:
            raise InvalidArgument(f"needs a signing key of {KEY_BYTES} bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.hex()[:8]}…>"

    @classmethod
    def load(cls, path: str | Path) -> SigningKey:
        """Read a file with one line of 64 hexadecimal digits. Raises InvalidArgument, without what stands there."""
        secret, *others = read_hex_lines(path)
        if others:
            raise InvalidArgument(f"file holds more than one signing key path={path_shown(path)}; name a file with one")
        return cls(secret)

    def sign(self, message: bytes) -> bytes:
        """Return the signature, of 64 bytes."""
        return self._key.sign(message)


@dataclass(frozen=True, slots=True)
class Trusted:
    """A writer whose objects are believed: its name, its public keys, and what it ``may``: write, snapshot or keep."""

    name: str
    keys: tuple[bytes, ...]
    may: str = "write"

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise InvalidArgument(f"not a writer's name name={self.name!r:.60}")
        if self.may not in ROLES:
            raise InvalidArgument(f"no such role name={self.name} may={self.may!r:.40}; use one of {', '.join(ROLES)}")
        if not self.keys or any(type(key) is not bytes or len(key) != KEY_BYTES for key in self.keys):
            raise InvalidArgument(f"needs public keys of {KEY_BYTES} bytes name={self.name}")


@dataclass(frozen=True)
class Trust:
    """Whose signatures are believed. No two writers have the same key."""

    writers: tuple[Trusted, ...]
    _by_id: Mapping[bytes, tuple[Trusted, bytes]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_id: dict[bytes, tuple[Trusted, bytes]] = {}
        for writer in self.writers:
            for key in writer.keys:
                other, _ = by_id.setdefault(_key_id(key), (writer, key))
                if other is not writer:
                    raise InvalidArgument(f"two writers have the same key names={other.name},{writer.name}")
        object.__setattr__(self, "_by_id", by_id)

    @classmethod
    def load(cls, path: str | Path) -> Trust:
        r"""Read a TOML file: a table for each writer, with ``keys`` (64 hexadecimal digits each) and ``may``.

        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        ...     _ = file.write(f'[web-1]\nkeys = ["{"ab" * 32}"]\nmay = "snapshot"\n')
        ...     file.flush()
        ...     Trust.load(file.name).writers[0].may
        'snapshot'
        """
        try:
            tables = tomllib.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            cause = type(error).__name__ if isinstance(error, OSError) else f"{error!s:.80}"  # which quotes the path
            raise InvalidArgument(f"file of trust cannot be read path={path_shown(path)} cause={cause}") from None
        return cls(tuple(_trusted(path, name, table) for name, table in tables.items()))

    def find(self, public: bytes) -> Trusted | None:
        """The writer that has a public key; None: nobody has."""
        found = self._by_id.get(_key_id(public))
        return None if found is None else found[0]

    def whose(self, public: bytes) -> Trusted:
        """The writer that has a public key. Raises InvalidArgument where none has."""
        found = self.find(public)
        if found is None:
            raise InvalidArgument(f"signing key is not among the trusted public={public.hex()}; add it there")
        return found

    def signer(self, id_: bytes) -> tuple[Trusted, bytes] | None:
        """The writer and the public key of that id."""
        return self._by_id.get(id_)


def _trusted(path: str | Path, name: str, table: Any) -> Trusted:
    if not isinstance(table, dict) or not table.keys() <= {"keys", "may"} or not isinstance(table.get("keys"), list):
        raise InvalidArgument(f'not a writer with keys = ["…"] and may = "…" path={path} name={name!r:.60}')
    try:
        keys = tuple(bytes.fromhex(key) for key in table["keys"])
    except (TypeError, ValueError):
        raise InvalidArgument(f"keys are not hexadecimal digits path={path} name={name!r:.60}") from None
    return Trusted(name, keys, table.get("may", "write"))


def _key_id(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:16]


def _message(name: str, data: bytes, frame_bytes: int) -> bytes:
    digest = data[frame_bytes - DIGEST_BYTES : frame_bytes]
    return b"\0".join([b"logstore signature 1", name.encode(), digest])


def sign(name: str, data: bytes, key: SigningKey, trust: Trust) -> bytes:
    """Return the signed form of an object, to be stored under ``name``.

    Raises InvalidArgument where it may not be, Corrupt for what is no object.
    """
    signer = trust.whose(key.public)
    if (why := _why_not(signer, _parsed(name), data)) is not None:
        raise InvalidArgument(f"may not be signed key={name} signer={signer.name} may={signer.may}; {why}")
    body = _BODY.pack(_key_id(key.public), key.sign(_message(name, data, frame_size(data))))
    return encode_frame(type_of(name, data), SIGNED, body) + data


def verify(name: str, data: bytes, trust: Trust) -> bytes:
    """Return what is in the envelope at the beginning of ``data``; verified if the object's frame is there whole.

    Raises Corrupt, naming the object.
    """
    envelope = decode_envelope(name, data[:ENVELOPE_BYTES], SIGNED)
    if len(envelope.body) != _BODY.size:
        raise Corrupt(f"envelope has another size key={name} bytes={len(envelope.body)}; restore the object")
    held = data[ENVELOPE_BYTES:]
    frame_bytes = frame_size(held)
    if not frame_bytes or len(held) < frame_bytes:
        return held
    id_, signature = _BODY.unpack(envelope.body)
    found = trust.signer(id_)
    if found is None:
        raise KeyNeeded(
            f"object is signed with a key that is not trusted key={name} key_id={id_.hex()};"
            " add it if it is one of yours, else restore the object"
        )
    signer, public = found
    if not _is_signed(public, signature, _message(name, held, frame_bytes)):
        raise Corrupt(f"signature is not of this object key={name} signer={signer.name}; restore it")
    if (why := _why_not(signer, _parsed(name), held)) is not None:
        raise Corrupt(f"signed by one who may not key={name} signer={signer.name} may={signer.may}; {why}")
    return held


def _is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _parsed(name: str) -> Key:
    key = parse_key(name)
    assert key is not None, "only what has a name of ours is signed"
    return key


def _why_not(signer: Trusted, key: Key, data: bytes) -> str | None:
    """Why this object may not be of this signer; None: it may."""
    if signer.may == "keep":
        return None
    match key:
        case SegmentKey(writer=writer) if writer != signer.name and not is_seal(data):
            return f"segments of {writer} are its own"
        case EntryKey(chapter, number):
            body = decode_entry(chapter, number, data).body
            if isinstance(body, Open) and body.writer != signer.name:
                return f"it opens a session of {body.writer}"
        case ClaimKey():
            if (claimant := decode_claim(key, data).claimant) != signer.name:
                return f"it is a claim of {claimant}"
        case ManifestKey() | ChunkKey() if signer.may != "snapshot":
            return "snapshots need the role snapshot"
        case RegistrationKey() if signer.may != "snapshot" and not decode_registration(key, data).registered:
            return "dropping a projection needs the role snapshot"
        case RetiredKey() | ArchiveKey() | StageGoneKey():
            return "letting history go needs the role keep"
        case StoreKey():  # it says how much of history is kept: made anew, it could say that none is
            return "making a store needs the role keep"
    return None
