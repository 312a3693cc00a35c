"""What a run leaves behind for its checkers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from logstore.testing.store import Request
from tests.simulation.history import History
from tests.simulation.truth import Truth

__all__ = ["Evidence"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything a run left behind. ``remembers``: whether each process had the memory to keep all that it wrote.

    ``contents``: what the bucket held in the end.
    """

    history: History
    truth: Truth
    requests: Sequence[Request]
    remembers: bool
    contents: Mapping[str, bytes]
