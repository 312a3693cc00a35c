"""The small events that the workloads append: about 65 bytes of key and payload each, over 10,000 keys."""

from __future__ import annotations

import hashlib

from logstore import Event

KEYS = 10_000


def small_events(count: int, first: int = 0) -> list[Event]:
    """What a control plane says most often: something's status changed."""
    return [
        Event(
            kind="Deployment",
            key=f"deployment-{number % KEYS:06d}",
            type="status_changed",
            data={"status": number % 7, "commit": _commit(number), "updated_at": 1_700_000_000 + number},
        )
        for number in range(first, first + count)
    ]


def _commit(number: int) -> str:
    """Digits that do not compress, as real ones do not."""
    return hashlib.sha256(number.to_bytes(8)).hexdigest()[:12]
