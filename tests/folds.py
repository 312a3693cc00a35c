"""Folds for tests of the checker: good ones, and one for each thing that a fold may not do.

They stand in a module of their own because the checker's other processes import it.
"""

from __future__ import annotations

import datetime
import logging
import random
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from logstore import StoredEvent
from projections.projection import Projection, Rejected


class Puts(Projection):
    name, kinds, fold = "puts", frozenset({"Counter", "Tags"}), "put"


class Patches(Projection):
    name, kinds, fold = "patches", frozenset({"Counter"}), "patch"


class Sums(Projection):
    """Adds up: the order does not matter."""

    name, kinds = "sums", frozenset({"Counter"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"total": (state["total"] if state else 0) + added(event)}


class Guarded(Sums):
    """Never goes below zero: the order matters, and the fold is right."""

    name = "guarded"

    def apply(self, state: Any, event: StoredEvent) -> Any:
        after = super().apply(state, event)
        if after["total"] < 0:
            raise Rejected("below zero")
        return None if after["total"] == 0 else after


class Journal(Projection):
    """Keeps all that happened, and who did it when; logs it, and parks what it does not understand."""

    name, kinds, on_failure = "journal", frozenset({"Counter", "Tags"}), "park"

    def apply(self, state: Any, event: StoredEvent) -> Any:
        logging.getLogger(__name__).info("folding %r", event)
        entry = [event.writer, event.session, event.seq, event.stamp, added(event)]
        return {"entries": [*(state["entries"] if state else ()), entry]}


GOOD = (Puts(), Patches(), Sums(), Guarded(), Journal())


class ReadsTheClock(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"on": int(time.time()) // 86_400}


class ReadsTheDate(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"year": datetime.datetime.now(datetime.UTC).year}


class Draws(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"lucky": random.randint(0, 9)}


class DrawsOfItsOwn(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"lucky": random.SystemRandom().random()}


class ListsASet(Projection):
    name, kinds = "lists-a-set", frozenset({"Tags"})

    def apply(self, state: Any, event: StoredEvent) -> Any:
        assert event.data is not None
        return {"tags": list({*(state["tags"] if state else ()), *event.data["tags"]})}


class Hashes(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"shard": hash(event.key) % 1_000}


class WritesToItsState(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        if state is None:
            return {"all": []}
        after = dict(state)
        after["all"].append(added(event))
        return after


class WritesToItsEvent(Sums):
    on_failure = "park"

    def apply(self, state: Any, event: StoredEvent) -> Any:
        event.data["add"] = 0  # type: ignore[index]
        return event.data


class SharesItsDefault(Sums):
    EMPTY: ClassVar[dict[str, list[int]]] = {"all": []}

    def apply(self, state: Any, event: StoredEvent) -> Any:
        after = {"all": list(state["all"])} if state else dict(self.EMPTY)
        after["all"].append(added(event))
        return after


COUNTED = 0


class CountsGlobally(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        global COUNTED  # noqa: PLW0603  # the mistake that is to be found
        COUNTED += 1
        return {"number": COUNTED}


class ReturnsNan(Sums):
    on_failure = "park"

    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"mean": float("nan")}


class ReturnsASet(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"set": {1, 2}}


class ReturnsNoMapping(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        return added(event)


class Fails(Sums):
    def apply(self, state: Any, event: StoredEvent) -> Any:
        if added(event) < 0:
            raise ValueError("negative")
        return super().apply(state, event)


class RemembersTheLast(Sums):
    """What it makes of an event depends on the one it met before, whatever key that had."""

    def __init__(self) -> None:
        self.last: Mapping[str, Any] | None = None

    def apply(self, state: Any, event: StoredEvent) -> Any:
        self.last, last = event.data, self.last
        return {"last": last}


class RemembersTotals(Sums):
    """Keeps its state beside the view's: right as long as every event comes once and in order."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}

    def apply(self, state: Any, event: StoredEvent) -> Any:
        self.totals[event.key] = self.totals.get(event.key, 0) + added(event)
        return {"total": self.totals[event.key]}


class LooksAtSettled(Sums):
    """Whether an event is settled when it is folded depends on who reads, and when."""

    def apply(self, state: Any, event: StoredEvent) -> Any:
        return {"settled": event.settled}


def added(event: StoredEvent) -> int:
    assert event.data is not None
    number: int = event.data["add"]
    return number
