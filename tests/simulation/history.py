"""What those in the world saw: each append and its outcome, each stream and its events, in one record.

Nothing here judges. Observers write down what the library told them and when; checkers read it
afterwards, beside the truth in the bucket.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from logstore.event import StoredEvent
from logstore.receipt import Receipt

__all__ = ["Append", "History", "Order", "Outcome", "Seen", "Stream"]

Order = tuple[int, int, int, int]


class Outcome(enum.Enum):
    """What the caller of an append knows."""

    PENDING = "pending"  # not answered: the process died, or still waits
    STORED = "stored"
    NOT_STORED = "not stored"
    UNKNOWN = "unknown"
    REFUSED = "refused"  # ClockSkew, Unavailable: raised before anything was sent


class Seen(NamedTuple):
    """One event as one stream yielded it."""

    id: str
    order: Order
    writer: str
    settled: bool
    at_s: float

    @classmethod
    def of(cls, event: StoredEvent, at_s: float) -> Seen:
        """What matters of an event that was just yielded."""
        data = event.data
        assert data is not None
        return cls(data["id"], event.order, event.writer, event.settled, at_s)


@dataclass(eq=False, slots=True)
class Append:
    """One call of append or append_many. ``heard``: how much its process had read or stored before."""

    process: str
    writer: str  # the name of the writer and of its stretch of calls: order is promised within it
    ids: tuple[str, ...]
    called_s: float
    heard: int
    outcome: Outcome = Outcome.PENDING
    told: Outcome = Outcome.PENDING  # by resolve, when the outcome was unknown
    ended_s: float | None = None
    receipt: Receipt | None = None

    @property
    def conclusion(self) -> Outcome:
        """The outcome, or what ``resolve`` made of it."""
        return self.told if self.outcome is Outcome.UNKNOWN else self.outcome


@dataclass(eq=False, slots=True)
class Stream:
    """One reading: ``before`` is what earlier readings of this consumer had seen up to the position it resumed from."""

    consumer: str
    process: str
    settled: bool
    follows: bool
    began_s: float
    before: tuple[Seen, ...] = ()
    events: list[Seen] = field(default_factory=list)
    ended_s: float | None = None
    error: str = ""

    @property
    def all(self) -> list[Seen]:
        """Everything the consumer has seen, exactly once if all is well."""
        return [*self.before, *self.events]


class History:
    """Everything observed in one run, in order. ``lines`` is for people and for the digest."""

    def __init__(self, time_s: Callable[[], float]) -> None:
        self._time_s = time_s
        self.appends: list[Append] = []
        self.streams: list[Stream] = []
        self.heard: dict[str, list[str]] = {}  # by process: ids read or known stored, in that order
        self.settled: list[tuple[str, float]] = []  # ids that ``log.settled`` said are settled, and when
        self.problems: list[str] = []  # what observers found wrong on the spot
        self.lines: list[str] = []

    def note(self, who: str, what: str) -> None:
        """Write down something that happened now."""
        self.lines.append(f"{self._time_s():.4f} {who:<10} {what}")

    def problem(self, what: str) -> None:
        """Write down something that must not happen."""
        self.note("!", what)
        self.problems.append(what)

    def hear(self, process: str, ids: tuple[str, ...]) -> None:
        """The process knows of these events from now on: what it appends later comes after them."""
        self.heard.setdefault(process, []).extend(ids)

    def see(self, stream: Stream, event: StoredEvent) -> None:
        """A stream has yielded an event."""
        seen = Seen.of(event, self._time_s())
        stream.events.append(seen)
        self.hear(stream.process, (seen.id,))
        self.note(stream.process, f"{stream.consumer} sees {seen.id} {seen.order}{' settled' if seen.settled else ''}")

    def call(self, append: Append) -> None:
        """An append begins."""
        self.appends.append(append)
        self.note(append.process, f"appends {append.ids[0]} +{len(append.ids) - 1}")

    def end(self, append: Append, outcome: Outcome, why: str = "") -> None:
        """An append has ended."""
        append.outcome, append.ended_s = outcome, self._time_s()
        if outcome is Outcome.STORED:
            self.hear(append.process, append.ids)
        where = append.receipt and f"at {append.receipt.chapter}/{append.receipt.session}/{append.receipt.slot}"
        self.note(append.process, f"{outcome.value} {append.ids[0]} {where or why}")

    def digest(self) -> str:
        """One hash over all that was observed."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
