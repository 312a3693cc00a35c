"""What those who work on the log were told, and how long that took."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from logstore import Event, Receipt, StoredEvent
from projections.demo.ledger import Name

__all__ = ["Ledger", "Name", "line", "name_of"]

MESSAGES_MAX = 2_000  # from each kind of work; a soak of hours must not grow without end


def line(name: Name) -> Event:
    """The event of that name. A row is one caller's: its order matters, and what is there twice shows."""
    return Event("Line", f"{name.writer}.{name.life}", "written", {"name": list(name)})


def name_of(event: StoredEvent) -> Name:
    """The name of such an event: which party, which of its callers, the how many-eth append of that."""
    assert event.data is not None
    return Name(*event.data["name"])


@dataclass(slots=True)
class Ledger:
    """``unknown``: the tokens of what nobody could say. ``seats``: who was told that a claim is theirs."""

    acknowledged: set[Name] = field(default_factory=set)
    refused: set[Name] = field(default_factory=set)
    unknown: dict[Name, str] = field(default_factory=dict)
    resolved: Counter[str] = field(default_factory=Counter)
    appends_s: list[float] = field(default_factory=list)
    visible_s: list[float] = field(default_factory=list)
    longest_s: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, list[str]] = field(default_factory=dict)
    seats: dict[str, list[str]] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    followed: Counter[Name] = field(default_factory=Counter)
    lives: int = 0
    snapshots: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    def note_error(self, doing: str, error: Exception) -> None:
        """Count it, and keep what it says."""
        kind = type(error).__name__
        self.errors[f"{doing}: {kind}"] += 1
        if isinstance(error, TimeoutError):
            return  # the caller's own patience ended
        kept = self.messages.setdefault(doing, [])
        if len(kept) < MESSAGES_MAX:
            kept.append(str(error))

    def note_append(self, name: Name, receipt: Receipt, took_s: float) -> None:
        """It was acknowledged."""
        assert receipt.count == 1
        self.acknowledged.add(name)
        self.appends_s.append(took_s)
