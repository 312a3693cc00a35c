"""What those in the world saw: each append and its outcome, each stream and its events, in one record.

Nothing here judges. Observers write down what the library told them and when; checkers read it
afterwards, beside the truth in the bucket.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from logstore.event import StoredEvent
from logstore.frontier import Position
from logstore.receipt import Receipt

__all__ = [
    "Append",
    "Attempt",
    "Glimpse",
    "History",
    "Order",
    "Outcome",
    "Seen",
    "Stream",
    "Verdicts",
    "at_place",
    "name_of",
]

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
        return cls(name_of(event), event.order, event.writer, event.settled, at_s)


def name_of(event: StoredEvent) -> str:
    """By what readers tell an event from others: its id; of a document's, which may be stored twice, its place, too."""
    if (meta := event.meta) is not None:
        return at_place(meta["id"], event.order)
    assert event.data is not None
    id_: str = event.data["id"]
    return id_


def at_place(id_: str, order: Order) -> str:
    """An id and where it is."""
    return f"{id_}@{'.'.join(map(str, order))}"


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
    first_chapter: int = 0  # what lies in chapters before it had been dropped when its consumer began
    events: list[Seen] = field(default_factory=list)
    ended_s: float | None = None
    error: str = ""

    @property
    def all(self) -> list[Seen]:
        """Everything the consumer has seen, exactly once if all is well."""
        return [*self.before, *self.events]


class Glimpse(NamedTuple):
    """What one view showed at one moment; rows as ``views.py`` chains them, one number for each thing.

    ``appends``: how many had been called before. ``between_batches``: it was not just taking something in, so
    that ``position`` is that of its rows. It must hold the first ``acknowledged`` of the history's, and ``promised``.
    """

    view: str
    process: str
    at_s: float
    appends: int
    between_batches: bool
    position: Position | None
    watermark: int
    settled: tuple[int, ...]
    visible: tuple[int, ...]
    found: tuple[str, ...]
    digest: str
    acknowledged: int
    promised: tuple[str, ...]


class Verdicts(NamedTuple):
    """What a view said became of the events of an append: why it changed nothing, "" where it did."""

    view: str
    process: str
    at_s: float
    ids: tuple[str, ...]
    told: tuple[str, ...]


@dataclass(eq=False, slots=True)
class Attempt:
    """One attempt to lead if nobody does, neither as a standby nor by force; until it leads or gives up."""

    process: str
    began_s: float
    ended_s: float = math.inf


class History:
    """Everything observed in one run, in order. ``lines`` is for people and for the digest."""

    def __init__(self, time_s: Callable[[], float]) -> None:
        self._time_s = time_s
        self.appends: list[Append] = []
        self.streams: list[Stream] = []
        self.heard: dict[str, list[str]] = {}  # by process: ids read or known stored, in that order
        self.settled: list[tuple[str, float]] = []  # ids that ``log.settled`` said are settled, and when
        self.acknowledged: list[str] = []  # ids, in the order in which somebody was told that they are stored
        self.glimpses: list[Glimpse] = []
        self.verdicts: list[Verdicts] = []
        self.own_waits: list[tuple[str, float, float]] = []  # an id, and when its writer began and ended to wait for it
        self.attempts: list[Attempt] = []
        self.trimmed: list[tuple[str, float]] = []  # who was told that something was retired, and when
        self.problems: list[str] = []  # what observers found wrong on the spot
        self.lines: list[str] = []

    def now_s(self) -> float:
        """The virtual time."""
        return self._time_s()

    def note(self, who: str, what: str) -> None:
        """Write down something that happened now."""
        self.lines.append(f"{self._time_s():.4f} {who:<10} {what}")

    def problem(self, what: str) -> None:
        """Write down something that must not happen."""
        self.note("!", what)
        self.problems.append(what)

    def trim(self, process: str, error: str) -> None:
        """A reader was too slow, or began too late."""
        self.trimmed.append((process, self._time_s()))
        self.note(process, f"is told Trimmed: {error}")

    @contextmanager
    def attempt(self, process: str) -> Iterator[None]:
        """While entered, the process tries to lead if nobody does."""
        attempt = Attempt(process, self._time_s())
        self.attempts.append(attempt)
        try:
            yield
        finally:
            attempt.ended_s = self._time_s()

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
            self.acknowledged += append.ids
        where = append.receipt and f"at {append.receipt.chapter}/{append.receipt.session}/{append.receipt.slot}"
        self.note(append.process, f"{outcome.value} {append.ids[0]} {where or why}")

    def glimpse(self, glimpse: Glimpse) -> None:
        """Somebody has looked at a view."""
        self.glimpses.append(glimpse)
        moment = "" if glimpse.between_batches else " while taking in"
        self.note(
            glimpse.process,
            f"{glimpse.view} at {glimpse.watermark} shows {glimpse.settled} {glimpse.visible}{moment}"
            f"{' holds ' + glimpse.promised[0] if glimpse.promised else ''}",
        )

    def judge(self, verdicts: Verdicts) -> None:
        """A view has said what became of an append."""
        self.verdicts.append(verdicts)
        self.settled.append((verdicts.ids[0], verdicts.at_s))
        self.note(verdicts.process, f"{verdicts.view} judges {dict(zip(verdicts.ids, verdicts.told, strict=True))}")

    def digest(self) -> str:
        """One hash over all that was observed."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
