"""Manifests and registrations: values in, values out, and what contradicts itself is Corrupt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.errors import Corrupt
from logstore.frame import DIGEST_BYTES
from logstore.frontier import SessionPosition
from logstore.keys import ChunkKey, Fold, ManifestKey, RegistrationKey
from logstore.manifest import Manifest, ManifestChunk, ManifestVerdict, alive_mask, decode_manifest, encode_manifest
from logstore.registration import Registration, decode_registration, encode_registration
from logstore.session import Tip

FOLD = Fold("deployments", 1, bytes(8))
SHA = bytes(range(32))
TIP = Tip(3, 10, 1_000, SHA)
MANIFEST = Manifest(
    key=ManifestKey(FOLD, 1, 7),
    stamp=5_000,
    entry_digest=SHA,
    sessions=(SessionPosition(0, 9, TIP, 0), SessionPosition(1, 2, TIP, 0)),
    rows=12,
    rows_digest=1 << 255,
    chunks=(
        ManifestChunk(ChunkKey(0, 5, SHA), 10, 700, bytes([0b1000_0001, 0b10])),
        ManifestChunk(ChunkKey(1, 7, SHA), 5, 100),
    ),
    verdicts=(ManifestVerdict(1, 2, 0, 4_000, "rejected"), ManifestVerdict(0, 9, 4, 4_500, "parked")),
)


def test_a_manifest_comes_back() -> None:
    """What was encoded is what is decoded, with the object's digest, and it is the same bytes each time."""
    data = encode_manifest(MANIFEST)
    assert decode_manifest(MANIFEST.key, data) == replace(MANIFEST, digest=data[-DIGEST_BYTES:])
    assert encode_manifest(decode_manifest(MANIFEST.key, data)) == data


@given(st.lists(st.booleans(), min_size=1, max_size=40))
@settings(deadline=None)
def test_the_dead_are_bits(alive: list[bool]) -> None:
    """A mask and its bits say the same, in number and one by one."""
    dead = sum(1 << row for row, each in enumerate(alive) if not each).to_bytes((len(alive) + 7) // 8, "little")
    assert alive_mask(dead, len(alive)) == alive
    assert ManifestChunk(ChunkKey(0, 0, SHA), len(alive), 0, dead).alive == sum(alive)


CHUNK = MANIFEST.chunks[1]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("chunks", {"chunks": (CHUNK, CHUNK), "rows": 10}),
        ("chunks", {"chunks": (replace(CHUNK, dead=bytes([0b11111])),), "rows": 0}),
        ("chunks", {"chunks": (replace(CHUNK, dead=bytes([0])),), "rows": 5}),
        ("chunks", {"chunks": (replace(CHUNK, dead=bytes([0b100001])),), "rows": 3}),
        ("chunks", {"chunks": (replace(CHUNK, dead=bytes([1, 0])),), "rows": 4}),
        ("chunks", {"chunks": (replace(CHUNK, rows=0),), "rows": 0}),
        ("chunks", {"chunks": (replace(CHUNK, key=ChunkKey(0, 0, b"short")),), "rows": 5}),
        ("sessions", {"sessions": MANIFEST.sessions[::-1]}),
        ("sessions", {"sessions": (SessionPosition(0, 9, TIP._replace(digest=b""), 0),)}),
        ("verdicts", {"verdicts": MANIFEST.verdicts[::-1]}),
        ("verdicts", {"stamp": 4_400}),
        ("digest", {"rows_digest": None}),
    ],
)
def test_a_manifest_that_contradicts_itself_is_corrupt(
    field: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole in its frame and wrong within: Corrupt, naming key and field."""
    if change == {"rows_digest": None}:
        change = {"rows_digest": 1}
        monkeypatch.setattr("logstore.manifest.DIGEST_BYTES", 31)
        data = encode_manifest(replace(MANIFEST, **change))
        monkeypatch.setattr("logstore.manifest.DIGEST_BYTES", 32)
    else:
        data = encode_manifest(replace(MANIFEST, **change))
    with pytest.raises(Corrupt, match=f"key=snapshots/deployments/.* field={field}"):
        decode_manifest(MANIFEST.key, data)


@pytest.mark.parametrize(
    "key",
    [
        ManifestKey(FOLD, 1, 8),
        ManifestKey(FOLD, 0, 7),
        ManifestKey(Fold("deployments", 2, bytes(8)), 1, 7),
        ManifestKey(Fold("deployments", 1, bytes(7) + b"\x01"), 1, 7),
        ManifestKey(Fold("applications", 1, bytes(8)), 1, 7),
    ],
)
def test_a_manifest_under_another_name_is_corrupt(key: ManifestKey) -> None:
    """Of another point, version, fingerprint or projection: it is not taken for this one."""
    with pytest.raises(Corrupt, match="another's name"):
        decode_manifest(key, encode_manifest(MANIFEST))


def test_every_flipped_bit_of_a_manifest_is_found() -> None:
    """Whichever bit changes, decoding says Corrupt."""
    data = encode_manifest(MANIFEST)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode_manifest(MANIFEST.key, bytes(flipped))


REGISTRATION = Registration("deployments", 1, ("Application", "Deployment"), "put", "")


def test_a_registration_comes_back() -> None:
    """What was encoded is what is decoded, dropped or not, under the name that its own fold gives it."""
    for registration in (REGISTRATION, replace(REGISTRATION, registered=False)):
        key, data = RegistrationKey(registration.key, 3), encode_registration(3, registration)
        assert decode_registration(key, data) == registration
        for other in (RegistrationKey(FOLD, 3), RegistrationKey(registration.key, 4)):
            with pytest.raises(Corrupt, match="another's name"):
                decode_registration(other, data)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"kinds": ("Deployment",)}, {"fold": "patch"}, {"tag": "2"}, {"projection": "d"}]
)
def test_another_fold_has_another_name(change: dict[str, Any]) -> None:
    """Whatever decides what a projection computes is in its fingerprint; the order of kinds is not."""
    assert replace(REGISTRATION, **change).key != REGISTRATION.key
    assert replace(REGISTRATION, kinds=REGISTRATION.kinds[::-1]).key == REGISTRATION.key
