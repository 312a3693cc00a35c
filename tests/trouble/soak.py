"""A soak: a log at work on a real S3 service for as long as one likes, trouble after trouble, and a report of it.

What comes next is drawn under a seed; when it comes depends on the machine. The report is written anew after each
trouble, so that one that is killed leaves what it has seen; only its verdict is missing then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Final

from projections.demo.verdict import Promise
from tests.trouble.service import Service
from tests.trouble.stage import staged
from tests.trouble.troubles import TROUBLES, Credentials, Stage
from tests.trouble.verdict import broken
from tests.trouble.wire import opened_wire

__all__ = ["soak"]

FIRST_APPENDS: Final = 20
AGAIN_APPENDS: Final = 20  # so many appends after a trouble: the log is at work again
STUCK_S: Final = 900  # who is not at work again by then will never be
CALM_S: Final = (3.0, 15.0)


@dataclass(frozen=True, slots=True)
class Met:
    """A trouble that was met. ``lasted_s`` to its end, ``again_s`` from there until the log was at work again."""

    name: str
    lasts: bool
    lasted_s: float
    again_s: float
    errors: int


@dataclass(slots=True)
class Soak:
    """What a report tells."""

    seed: int
    minutes: float
    began: datetime
    stage: Stage
    met: list[Met] = field(default_factory=list)
    promises: list[Promise] = field(default_factory=list)

    def report(self) -> str:
        """All of it, as Markdown."""
        ledger = self.stage.work.ledger
        ended = datetime.now(UTC)
        resolved = ", ".join(f"{count} {what}" for what, count in sorted(ledger.resolved.items())) or "none"
        counts = [
            ("lives of processes", ledger.lives),
            ("events acknowledged", len(ledger.acknowledged)),
            ("events refused, certainly not stored", len(ledger.refused)),
            ("events of which that was not known at first, and what they were", resolved),
            ("claims", len(ledger.seats)),
            ("additions to one counter", ledger.counted["yes"]),
            ("snapshots", ledger.snapshots),
            ("requests", ledger.requests["requests"]),
            ("requests that failed, most of which were tried again", ledger.requests["failed"]),
        ]
        verdict = "unfinished"
        if self.promises:
            verdict = f"{len(broken(self.promises))} promises broken" if broken(self.promises) else "all promises kept"
        lines = [
            f"# Soak: {verdict}",
            "",
            f"Seed {self.seed}; {self.began:%Y-%m-%d %H:%M} to {ended:%H:%M} UTC; {self.minutes:g} minutes asked for.",
            "",
            *_table(("work", "how much"), counts),
            *_table(
                ("latency", "p50", "p99", "max"),
                [
                    ("append, troubles included", *_quantiles(ledger.appends_s)),
                    ("visible in another process' view", *_quantiles(ledger.visible_s)),
                ],
            ),
            *_table(
                ("trouble", "how often", "median", "at work again after (median)", "errors"),
                [
                    (
                        f"{name.replace('_', ' ')}, {'until it is felt' if lasts else 'briefly'}",
                        len(of),
                        f"{median(each.lasted_s for each in of):.1f} s",
                        f"{median(each.again_s for each in of):.1f} s",
                        sum(each.errors for each in of),
                    )
                    for (name, lasts), of in sorted(self._by_trouble().items())
                ],
            ),
            *_table(("who was told what", "how often"), sorted(ledger.errors.items())),
            *_table(
                ("promise", "kept", "seen"), [(p.promise, "yes" if p.kept else "NO", p.seen) for p in self.promises]
            ),
        ]
        return "\n".join(lines)

    def _by_trouble(self) -> dict[tuple[str, bool], list[Met]]:
        by: dict[tuple[str, bool], list[Met]] = {}
        for met in self.met:
            by.setdefault((met.name, met.lasts), []).append(met)
        return by


async def soak(service: Service, credentials: Credentials, directory: Path, *, minutes: float, seed: int) -> bool:
    """Soak for so many minutes, and at least for one trouble; whether every promise was kept."""
    rng, until_s = random.Random(seed), monotonic() + 60 * minutes
    async with opened_wire(service.endpoint, seed) as wire:
        stage = staged(service, seed=seed, wire=wire, credentials=credentials)
        told = Soak(seed, minutes, datetime.now(UTC), stage)
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.work.run())
            try:
                await stage.work.acknowledged(FIRST_APPENDS)
                while not told.met or monotonic() < until_s:
                    told.met.append(await _meet(stage, rng))
                    (directory / "report.md").write_text(told.report())
                    await asyncio.sleep(rng.uniform(*CALM_S) if monotonic() < until_s else 0)
            finally:
                stage.work.stop()
        told.promises = await stage.work.verdict()
    (directory / "report.md").write_text(told.report())
    return broken(told.promises) == []


async def _meet(stage: Stage, rng: random.Random) -> Met:
    trouble, lasts = rng.choice(TROUBLES), rng.random() < 1 / 2
    errors, began_s = stage.work.ledger.errors.total(), monotonic()
    async with asyncio.timeout(STUCK_S):
        await trouble(stage, lasts)
        over_s = monotonic()
        await stage.work.acknowledged(AGAIN_APPENDS)
    again_s = monotonic() - over_s
    return Met(trouble.__name__, lasts, over_s - began_s, again_s, stage.work.ledger.errors.total() - errors)


def _quantiles(seconds: Sequence[float]) -> tuple[str, str, str]:
    if not seconds:
        return "-", "-", "-"
    ranked = sorted(seconds)
    chosen = (ranked[len(ranked) // 2], ranked[len(ranked) * 99 // 100], ranked[-1])
    return (f"{1_000 * chosen[0]:.0f} ms", f"{1_000 * chosen[1]:.0f} ms", f"{chosen[2]:.1f} s")


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(map(str, line)) + " |" for line in lines), ""]
