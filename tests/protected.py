"""Keys for tests, and protections made of them: everybody's the same unless told otherwise."""

from __future__ import annotations

import random

from logstore import Keyring, Protection, SigningKey, Trust, Trusted

__all__ = ["KEY", "KEYRING", "OTHER_KEY", "SIGNING_KEYS", "TRUST", "protected"]

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
KEYRING = Keyring([KEY])
SIGNING_KEYS = {name: SigningKey(name.encode().ljust(32)) for name in ("web", "snapper", "keeper", "stranger")}
TRUST = Trust(
    tuple(
        Trusted(name, (SIGNING_KEYS[name].public,), may)
        for name, may in (("web", "write"), ("snapper", "snapshot"), ("keeper", "keep"))
    )
)


def protected(name: str = "keeper", *, seed: int = 0) -> Protection:
    """Encrypted, and signed as one of those who are trusted; who keeps may write under any name."""
    return Protection(KEYRING, TRUST, SIGNING_KEYS[name], random.Random(f"{seed} {name}").randbytes)
