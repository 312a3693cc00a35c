"""What a check finds. Pure.

Two severities. *Damage*: something stored is gone, changed, or not ours; somebody must restore it. *Note*: what an
operator may wonder about and may leave alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from logstore.errors import KeyNeeded, LogStoreError

__all__ = ["RESTORE", "Finding", "Progress", "damage", "note"]

RESTORE: Final = "restore it from a copy, or `logstore copy --accept-loss` into a new store"
GIVE_KEY: Final = "it may well be whole: give this process the key, and check again"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (``damage``) or worth knowing (``note``): about what, what it is, what to do next.

    >>> async def is_sound(log):
    ...     return not [finding async for finding in log.check() if finding.severity == "damage"]
    """

    severity: Literal["damage", "note"]
    key: str
    what: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.severity} {self.key}: {self.what}; {self.next_step}"


@dataclass(slots=True)
class Progress:
    """How far a check has come; it counts up while the check runs.

    >>> async def count(log):
    ...     progress = Progress()
    ...     async for finding in log.check(progress):
    ...         print(finding)
    ...     return progress.events
    """

    objects: int = 0
    bytes: int = 0
    entries: int = 0
    segments: int = 0
    events: int = 0


def damage(key: str, what: str | LogStoreError, next_step: str) -> Finding:
    """Something that somebody must restore; what this process has no key for is not to be restored or given up."""
    return Finding("damage", key, _only_what(str(what), key), GIVE_KEY if isinstance(what, KeyNeeded) else next_step)


def note(key: str, what: str, next_step: str) -> Finding:
    """Something to know."""
    return Finding("note", key, what, next_step)


def _only_what(message: str, key: str) -> str:
    """The first part of an error's message: the key and the next step have fields of their own."""
    what = message.split("; ", maxsplit=1)[0] if f"key={key}" in message else message
    return what.replace(f" key={key}", "")
