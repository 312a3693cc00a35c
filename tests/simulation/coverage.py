"""Which faults struck where: of each place in the library that asks the store, what befell its requests.

A *site* is a verb of the store and the function that awaited it: the innermost one of the log or of projections, seen
through the wrappers around a store and through the memory of objects. What nobody broke may not withstand it.
"""

from __future__ import annotations

import ast
import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import logstore
from logstore.testing.process import Process, ProcessState
from logstore.testing.simulation import Request

__all__ = ["FAULTS", "Coverage", "Site", "known_places", "never", "origins_known", "reached", "struck", "table"]

FAULTS: Final = ("refused", "lost", "late", "silent", "slow", "crash", "pause")
ROOT: Final = str(Path(logstore.__file__).parents[1]) + "/"
NOBODY: Final = "the world"
SEEN_THROUGH: Final = (
    "logstore/filestore/",
    "logstore/testing/",
    "logstore/objects.py",
    "logstore/encrypted.py",
    "logstore/signed.py",
)
PACKAGES: Final = ("logstore/", "projections/")
ORIGIN_DEPTH: Final = 3  # through a comprehension, and what was made for it
RECEIVERS: Final = {"store", "objects"}
ASKED: Final = {"create", "get", "list", "delete", "entry", "fetch_entry", "segment", "fetch_segment"}
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


@contextmanager
def origins_known() -> Iterator[None]:
    """While entered, coroutines know where they were made: that of a task of its own has no caller on the stack."""
    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(ORIGIN_DEPTH)
    try:
        yield
    finally:
        sys.set_coroutine_origin_tracking_depth(before)


def _place() -> str:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if (file := _file_of_ours(frame.f_code.co_filename)) is not None:
            return f"{file}:{frame.f_code.co_name}"
        frame = frame.f_back
    task = asyncio.current_task()
    for name, _, function in (getattr(task.get_coro(), "cr_origin", None) or ()) if task else ():
        if (file := _file_of_ours(name)) is not None and not function.startswith("<"):
            return f"{file}:{function}"
    return NOBODY


def _file_of_ours(name: str) -> str | None:
    """The file within the project, where it is one that asks a store; None of others, and of what is seen through."""
    file = name.removeprefix(ROOT)
    return file if file.startswith(PACKAGES) and not file.startswith(SEEN_THROUGH) else None


def reached(counts: Counter[tuple[Site, str]]) -> list[tuple[Site, int]]:
    """Each site, and how often it was reached."""
    return [(site, counts[site, ""]) for site in _known(counts)]


def struck(counts: Counter[tuple[Site, str]], site: Site) -> int:
    """How often something went wrong at a site."""
    return sum(counts[site, fault] for fault in FAULTS)


def never(counts: Counter[tuple[Site, str]], *, reached_min: int = 1) -> Iterator[tuple[Site, str]]:
    """Each site that was reached so often, and a fault that it never saw."""
    for site, count in reached(counts):
        if count >= reached_min:
            yield from ((site, fault) for fault in FAULTS if not counts[site, fault])


def known_places() -> set[str]:
    """Each function whose text asks a store, or the memory of its objects, for something: reached by a world or not."""
    places: set[str] = set()
    for package in PACKAGES:
        for path in sorted((Path(ROOT) / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(SEEN_THROUGH):
                places.update(f"{name}:{function}" for function in _asking(ast.parse(path.read_text())))
    return places


def _asking(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
                if any(_asks(each) for statement in child.body for each in ast.walk(statement)):
                    yield name
            case _:
                yield from _asking(child)


def _asks(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=receiver) | ast.Attribute(attr=receiver), attr=asked)):
            return receiver.lstrip("_") in RECEIVERS and asked in ASKED
    return False


def table(counts: Counter[tuple[Site, str]]) -> Iterator[str]:
    """One line for each site, and at last what was never seen."""
    yield f"{'reached':>9} " + " ".join(f"{fault:>8}" for fault in FAULTS)
    for site in _known(counts):
        numbers = " ".join(f"{counts[site, fault] or '-':>8}" for fault in FAULTS)
        yield f"{counts[site, '']:>9} {numbers}  {site}"
    missing = [f"{fault} at {site.verb} {site.place}" for site, fault in never(counts)]
    unreached = sorted(known_places() - {site.place for site in _known(counts)})
    yield from (f"    not reached: {place}" for place in unreached)
    yield f"sites={len(_known(counts))} never_seen={len(missing)} not_reached={len(unreached)}"
    yield from (f"    never: {line}" for line in missing)


def _known(counts: Iterable[tuple[Site, str]]) -> list[Site]:
    return sorted({site for site, _ in counts if site.place != NOBODY}, key=lambda site: (site.place, site.verb))
