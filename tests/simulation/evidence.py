"""What a run leaves behind for its checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from logstore.testing.store import Request
from tests.simulation.history import History
from tests.simulation.truth import Truth

__all__ = ["Evidence"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a run left behind. ``remembers``: whether each process had the memory to keep all that it wrote.

    ``contents``: what each name held that was ever used. ``grace_ms`` and ``policy`` are the
    store's, ``store_ms`` its clock at a virtual second.
    """

    history: History
    truth: Truth
    requests: Sequence[Request]
    remembers: bool
    contents: Mapping[str, bytes]
    grace_ms: int
    policy: str
    store_ms: Callable[[float], float]
