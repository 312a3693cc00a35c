"""What protects a store: keys, and whom to trust. RFC 0013."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from logstore.encrypted import EncryptedStore
from logstore.encryption import Keyring, require_cryptography
from logstore.errors import InvalidArgument
from logstore.filestore.base import FileStore
from logstore.signature import SigningKey, Trust
from logstore.signed import SignedStore

__all__ = ["Protection", "protect"]


@dataclass(frozen=True)
class Protection:
    """How a store's objects are encrypted (``keyring``) and signed (``trust``); ``signing_key``: this process's own.

    A store is protected from its birth, or never: whoever opens it says the same. Without ``signing_key`` nothing can
    be written where there is ``trust``. ``entropy``: that many random bytes, for tests.

    Raises InvalidArgument where it protects nothing, where the signing key is not among the trusted, where the keyring
    holds the signing key of somebody trusted, or where the package cryptography is not installed. Needs
    ``logstore[protection]``.

    >>> import asyncio, logstore
    >>> async def example():
    ...     protection = Protection(keyring=Keyring([bytes(32)]))
    ...     async with logstore.open("memory://doctest-protection", protection=protection) as log:
    ...         pass
    ...     async with logstore.open("memory://doctest-protection") as log:
    ...         pass
    >>> asyncio.run(example())
    Traceback (most recent call last):
        ...
    logstore.errors.KeyNeeded: object is encrypted key=store; give the store's keys (Protection, LOGSTORE_KEYS)
    """

    keyring: Keyring | None = None
    trust: Trust | None = None
    signing_key: SigningKey | None = None
    entropy: Callable[[int], bytes] = secrets.token_bytes

    def __post_init__(self) -> None:
        require_cryptography()
        if self.keyring is None and self.trust is None:
            raise InvalidArgument("protects nothing; give it a keyring, or trust")
        if self.signing_key is not None:
            if self.trust is None:
                raise InvalidArgument("a signing key needs trust: readers verify what it signs; give both")
            self.trust.whose(self.signing_key.public)
        if self.keyring is not None and self.trust is not None:
            _require_apart(self.keyring, self.trust)

    @classmethod
    def from_environment(
        cls, variables: Mapping[str, str] = os.environ, *, prefix: str = "LOGSTORE_"
    ) -> Protection | None:
        """Return what the files say that LOGSTORE_KEYS, LOGSTORE_TRUST, LOGSTORE_SIGNING_KEY name; None: none is set.

        >>> Protection.from_environment({}) is None
        True
        """
        keys, trust, signing_key = (variables.get(prefix + name) or None for name in ("KEYS", "TRUST", "SIGNING_KEY"))
        if keys is None and trust is None and signing_key is None:
            return None
        return cls(
            None if keys is None else Keyring.load(keys),
            None if trust is None else Trust.load(trust),
            None if signing_key is None else SigningKey.load(signing_key),
        )


def _require_apart(keyring: Keyring, trust: Trust) -> None:
    """Raise InvalidArgument where a key of the keyring is one that somebody trusted signs with."""
    for key in keyring.keys:
        if (signer := trust.find(SigningKey(key).public)) is not None:
            raise InvalidArgument(
                f"a signing key is in the keyring, so that all who read could sign name={signer.name};"
                " encrypt with a key of its own"
            )


def protect(store: FileStore, protection: Protection | None) -> FileStore:
    """Return the store as it is to be used: retries and meters are within. Cost: none."""
    if protection is None:
        return store
    if protection.keyring is not None:
        store = EncryptedStore(store, protection.keyring, protection.entropy)
    return store if protection.trust is None else SignedStore(store, protection.trust, protection.signing_key)
