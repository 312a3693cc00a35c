"""How long each shape of query takes: every answer timed, none left out."""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from examples.pipecd.queries import QUERIES, Question
from projections import DocumentStore, Page

__all__ = ["Stopwatch", "percentile_us"]


class Stopwatch:
    """Asks, and notes by the query's number how many nanoseconds the answer took."""

    def __init__(self, db: DocumentStore) -> None:
        self._db = db
        self._took_ns: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))

    def ask(self, number: int, *arguments: Any, limit: int | None = None, **options: Any) -> Page:
        """Ask query ``number`` with its arguments."""
        question: Question = QUERIES[number](*arguments, **options)
        began_ns = time.perf_counter_ns()
        page = question.find(self._db, limit)
        self._took_ns[number].append(time.perf_counter_ns() - began_ns)
        return page

    def report(self) -> Mapping[str, Sequence[int]]:
        """What each took, in nanoseconds, by number."""
        return {str(number): list(took) for number, took in self._took_ns.items()}


def percentile_us(took_ns: Sequence[int], percent: int) -> float:
    """Which time so many percent did not exceed, in microseconds.

    >>> percentile_us([1_000, 2_000, 3_000], 50)
    2.0
    """
    ordered = sorted(took_ns)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1_000
