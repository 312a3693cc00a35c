"""Protected objects once more, written from docs/FORMAT.md §17 alone: what the library is held against."""

from __future__ import annotations

import hashlib
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.golden.independent import frame, unframe

SIGNED, ENCRYPTED = 0x4000, 0x8000
BLOCK = 65_536


def write_signed(name: str, data: bytes, secret: bytes) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    type_, _, _, digest, _ = unframe(data)
    signature = key.sign(b"logstore signature 1\0" + name.encode() + b"\0" + digest)
    return frame(type_, SIGNED, hashlib.sha256(key.public_key().public_bytes_raw()).digest()[:16] + signature) + data


def read_signed(name: str, stored: bytes, public: bytes) -> bytes:
    type_, flags, body, _, data = unframe(stored)
    inner_type, _, _, digest, _ = unframe(data)
    assert (flags, body[:16], inner_type) == (SIGNED, hashlib.sha256(public).digest()[:16], type_)
    message = b"logstore signature 1\0" + name.encode() + b"\0" + digest
    Ed25519PublicKey.from_public_bytes(public).verify(body[16:], message)
    return data


def write_encrypted(name: str, data: bytes, key: bytes, salt: bytes) -> bytes:
    type_ = unframe(data)[0]
    id_ = hashlib.sha256(b"logstore key 1\0" + key).digest()[:16]
    header = frame(type_, ENCRYPTED, id_ + salt + struct.pack(">Q", len(data)))
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    cipher = _cipher(name, key, salt)
    return header + b"".join(
        cipher.encrypt(i.to_bytes(12, "big"), block, header[:68]) for i, block in enumerate(blocks)
    )


def read_encrypted(name: str, stored: bytes, key: bytes) -> bytes:
    type_, flags, body, _, rest = unframe(stored)
    id_, salt, size = struct.unpack(">16s32sQ", body)
    assert (flags, id_) == (ENCRYPTED, hashlib.sha256(b"logstore key 1\0" + key).digest()[:16])
    blocks = [rest[at : at + BLOCK + 16] for at in range(0, len(rest), BLOCK + 16)]
    cipher = _cipher(name, key, salt)
    data = b"".join(cipher.decrypt(i.to_bytes(12, "big"), block, stored[:68]) for i, block in enumerate(blocks))
    assert len(data) == size
    assert unframe(data)[0] == type_
    return data


def _cipher(name: str, key: bytes, salt: bytes) -> AESGCM:
    info = b"logstore object 1\0" + name.encode()
    return AESGCM(HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key))
