"""Whether the log kept its promises: what the writers were told, held against what the readers read. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from projections.demo.ledger import Name

__all__ = ["Promise", "judge_reading", "judge_settled_order"]


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, whether it was kept, and what was seen."""

    promise: str
    kept: bool
    seen: str


def judge_reading(
    reader: str, acknowledged: set[Name], refused: set[Name], read: Sequence[Name]
) -> tuple[list[Promise], int]:
    """Judge one reading; return also how many events it holds that were never acknowledged.

    >>> a, b, c = Name(0, 0, 0), Name(0, 0, 1), Name(0, 0, 2)
    >>> [promise.kept for promise in judge_reading("r", {a, b}, set(), [a, b, c])[0]]
    [True, True, True]
    >>> [promise.kept for promise in judge_reading("r", {a, b}, {c}, [b, a, a, c])[0]]
    [False, False, False]
    """
    counts = Counter(read)
    missing = acknowledged - counts.keys()
    twice = [name for name, count in counts.items() if count > 1]
    stored_refused = refused & counts.keys()
    unacknowledged = len(counts.keys() - acknowledged)
    promises = [
        Promise(
            f"{reader}: every acknowledged event was read exactly once",
            not missing and not twice,
            f"{len(acknowledged)} acknowledged, {len(missing)} missing, {len(twice)} more than once",
        ),
        Promise(f"{reader}: each writer's events came in its order", *_judge_orders(read)),
        Promise(
            f"{reader}: what was reported as not stored is not there",
            not stored_refused,
            f"{len(refused)} reported as not stored, {len(stored_refused)} read",
        ),
    ]
    return promises, unacknowledged


def _judge_orders(read: Iterable[Name]) -> tuple[bool, str]:
    last: dict[tuple[int, int], int] = {}
    wrong = 0
    for writer, life, number in read:
        wrong += number <= last.get((writer, life), -1)
        last[writer, life] = number
    return wrong == 0, f"{len(last)} lives of writers, {wrong} events before their predecessors"


def judge_settled_order(first: dict[str, object], second: dict[str, object]) -> Promise:
    """Two readers' settled orders are one."""
    same = first["digest"] == second["digest"] and first["count"] == second["count"]
    in_order = not first["out_of_order"] and not second["out_of_order"]
    digests = " and ".join(f"{str(reading['digest'])[:12]}…" for reading in (first, second))
    seen = f"{first['count']} and {second['count']} events, sha256 {digests}"
    return Promise("two independent readers agree on the settled order", same and in_order, seen)
