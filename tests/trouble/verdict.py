"""Whether a run kept the promises: what was told, held against what is there. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from logstore import RetrySettings
from projections.demo.verdict import Promise, judge_reading
from tests.trouble.ledger import Ledger, Name

__all__ = ["broken", "fold", "judge", "next_row"]

ERRORS = {"NotStored", "Unknown", "Unavailable", "ClockSkew"}  # what the world's trouble may be called
# Another process's session ended, or a pause: what documents tell besides.
DOCUMENT_ERRORS = ERRORS | {"Conflict", "TimeoutError"}
NEXT_STEP = re.compile(
    r"append again|log\.resolve|try again|check |repair |restart|set AWS_|make room|create it|commit again|run `"
    r"|gave up verb=\w+ .*; last: |nothing was stored: |the writer was stopped"
)


def next_row(row: Mapping[str, Any] | None, name: Sequence[int]) -> dict[str, Any]:
    """The row after an event: how many there were, the last, and a sum that depends on all of them and their order."""
    before = row or {"count": 0, "sum": 0}
    return {
        "count": before["count"] + 1,
        "last": name[2],
        "sum": crc32(repr(list(name)).encode(), before["sum"]),
    }


def fold(names: Sequence[Name]) -> dict[str, dict[str, Any]]:
    """What a view of these must be."""
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        key = f"{name.writer}.{name.life}"
        rows[key] = next_row(rows.get(key), name)
    return rows


def judge(
    ledger: Ledger,
    *,
    read: Sequence[Name],
    settled: Sequence[Name],
    views: Mapping[str, Mapping[str, Any]],
    seats: Mapping[str, str],
    counter: int,
    damage: Sequence[str],
    retry: RetrySettings,
    within_s: float,
) -> list[Promise]:
    """Every promise, kept or broken. ``read``: all that is stored, in order; ``settled``: the same by a settled reader.

    ``views``: rows by view. ``seats``: who has each claim. ``counter``: what the shared counter says.
    """
    promises, _ = judge_reading("the log", ledger.acknowledged, ledger.refused, read)
    rows = fold(read)
    said = [message for messages in ledger.messages.values() for message in messages]
    attempts = [int(number) for message in said for number in re.findall(r"attempts=(\d+)", message)]
    spent_ms = [int(number) for message in said for number in re.findall(r"spent_ms=(\d+)", message)]
    twice = [name for name, count in ledger.followed.items() if count > 1]
    unfollowed = set(read) - ledger.followed.keys() if ledger.followed else set()
    strangers = ledger.followed.keys() - set(read)
    winners = {seat: told for seat, told in ledger.seats.items() if told}
    wrong_seats = [seat for seat, told in winners.items() if told != [seats.get(seat)]]
    kinds = {line.split(": ")[1] for line in ledger.errors}
    vague = [message for message in said if "\n" in message or not NEXT_STEP.search(message)]
    promises += [
        Promise("every unknown was settled, one way or the other", not ledger.unknown, _settled(ledger)),
        Promise("the settled order is the order", list(settled) == list(read), f"{len(settled)} settled"),
        *(
            Promise(f"{view}: a fold of the log", dict(held) == rows, f"{len(held)} rows of {len(rows)}")
            for view, held in views.items()
        ),
        Promise(
            "who follows sees each event once, and all",
            not twice and not unfollowed and not strangers,
            f"{len(ledger.followed)} followed, {len(twice)} twice, {len(unfollowed)} not, {len(strangers)} not there",
        ),
        Promise(
            "a claim has one winner, who was told",
            not wrong_seats,
            f"{len(ledger.seats)} claims, {len(winners)} winners told, {len(wrong_seats)} wrong",
        ),
        Promise(
            "a counter counts each acknowledged addition once",
            ledger.counted["yes"] <= counter <= ledger.counted["yes"] + ledger.counted["perhaps"],
            f"{counter}; {ledger.counted['yes']} acknowledged, {ledger.counted['perhaps']} perhaps",
        ),
        Promise("a check finds no damage", not damage, "; ".join(damage[:3]) or "none"),
        Promise(
            "errors are ours, and say the next step",
            kinds <= DOCUMENT_ERRORS and not vague,
            "; ".join(sorted(kinds - DOCUMENT_ERRORS) + vague[:3]) or f"{len(said)} errors",
        ),
        Promise(
            "retries are bounded",
            max(attempts, default=0) <= retry.attempts_max and max(spent_ms, default=0) <= within_s * 1_000,
            f"at most {max(attempts, default=0)} attempts in {max(spent_ms, default=0)} ms",
        ),
        Promise("nothing hangs", ledger.longest_s <= within_s, f"the longest call took {ledger.longest_s:.1f} s"),
    ]
    return promises


def broken(promises: Sequence[Promise]) -> list[str]:
    """Those that were not kept, in words."""
    return [f"{promise.promise}: {promise.seen}" for promise in promises if not promise.kept]


def _settled(ledger: Ledger) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in sorted(ledger.resolved.items()))
    return f"{counts or 'none was unknown'}; {len(ledger.unknown)} still open"
