"""Which faults struck where: of each place in the library that asks the store, what befell its requests.

A *site* is a verb of the store and the function that awaited it: the innermost one of the log or of projections, seen
through the wrappers around a store and through the memory of objects. What nobody broke may not withstand it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import logstore
from logstore.testing.process import Process, ProcessState
from logstore.testing.simulation import Request

__all__ = ["FAULTS", "Coverage", "Site", "never", "table"]

FAULTS: Final = ("refused", "lost", "late", "silent", "slow", "crash", "pause")
ROOT: Final = str(Path(logstore.__file__).parents[1]) + "/"
NOBODY: Final = "the world"
SEEN_THROUGH: Final = ("logstore/filestore/", "logstore/testing/", "logstore/objects.py")
_WEATHER: Final = {"throttled": "refused", "conflict": "refused", "unsent": "refused"}


class Site(NamedTuple):
    """A verb, and the file and the function that awaited it."""

    verb: str
    place: str

    def __str__(self) -> str:
        return f"{self.verb:<6} {self.place}"


class Coverage:
    """What befell the requests of one world, site by site; ``sites`` of each request, in order."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self._processes: list[Process | None] = []

    def note(self, request: Request, process: Process | None) -> Site:
        """A request is being sent, by whoever is on the stack."""
        site = Site(request.verb, _place())
        self.sites.append(site)
        self._processes.append(process)
        return site

    def count(self, requests: Sequence[Request], calm_s: float) -> Counter[tuple[Site, str]]:
        """How often each site was reached (""), and saw each fault, before the calm; while the loop is still open."""
        counts: Counter[tuple[Site, str]] = Counter()
        for site, process, request in zip(self.sites, self._processes, requests, strict=True):
            if request.sent_s > calm_s:
                break
            counts[site, ""] += 1
            if request.fault and not (request.fault == "conflict" and request.verb != "create"):
                counts[site, _WEATHER.get(request.fault, request.fault)] += 1
            if request.answered_s is None and process is not None and process.state is ProcessState.CRASHED:
                counts[site, "crash"] += 1
            if request.slept:
                counts[site, "pause"] += 1
        return counts


def _place() -> str:
    frame: FrameType | None = sys._getframe(2)
    outermost = NOBODY
    while frame is not None:
        name = frame.f_code.co_filename.removeprefix(ROOT)
        if name.startswith(("logstore/", "projections/")) and not name.startswith(SEEN_THROUGH[:2]):
            outermost = f"{name}:{frame.f_code.co_qualname}"
            if not name.startswith(SEEN_THROUGH):
                break
        frame = frame.f_back
    return outermost


def never(counts: Counter[tuple[Site, str]], *, reached_min: int = 1) -> Iterator[tuple[Site, str]]:
    """Each site that was reached so often, and a fault that it never saw."""
    for site in _known(counts):
        if counts[site, ""] >= reached_min:
            yield from ((site, fault) for fault in FAULTS if not counts[site, fault])


def table(counts: Counter[tuple[Site, str]]) -> Iterator[str]:
    """One line for each site, and at last what was never seen."""
    yield f"{'reached':>9} " + " ".join(f"{fault:>8}" for fault in FAULTS)
    for site in _known(counts):
        numbers = " ".join(f"{counts[site, fault] or '-':>8}" for fault in FAULTS)
        yield f"{counts[site, '']:>9} {numbers}  {site}"
    missing = [f"{fault} at {site.verb} {site.place}" for site, fault in never(counts)]
    yield f"sites={len(_known(counts))} never_seen={len(missing)}"
    yield from (f"    never: {line}" for line in missing)


def _known(counts: Iterable[tuple[Site, str]]) -> list[Site]:
    return sorted({site for site, _ in counts if site.place != NOBODY}, key=lambda site: (site.place, site.verb))
