"""The history of a real repository, told as what a control plane would have stored of it.

Where ``shared/data/pipecd-history.jsonl.zst`` lies beside the project, that of PipeCD's own repository: 2,997 commits
to 495 directories in two years. Elsewhere a made-up one, as long and about as uneven, under another name in each
figure.

A commit deploys each directory that it touches, as if that were an application: a document is created, and three small
events say how it fares.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from benchmarks.documents import deployment, uuid
from logstore import Event

__all__ = ["Commit", "events_of", "history"]

REAL = Path(__file__).parents[2] / "shared" / "data" / "pipecd-history.jsonl.zst"
COMMITS, DIRECTORIES = 2_997, 495
STATUSES = (1, 2, 4)  # planned, running, done


class Commit(NamedTuple):
    """What of a commit is told: ``directories`` are those it touched."""

    hash: str
    time: int
    author: str
    subject: str
    directories: tuple[str, ...]


def history() -> tuple[str, list[Commit]]:
    """Return what it is to be called, and the commits, oldest first."""
    if REAL.exists():
        with zstandard.open(REAL, "rt", encoding="utf-8") as lines:
            return "PipeCD's history", [_told(json.loads(line)) for line in lines]
    return "a made-up history", list(_made_up(random.Random(1)))


def _told(line: dict[str, Any]) -> Commit:
    return Commit(line["hash"], line["time"], line["author"], line["subject"], tuple(line["paths"]))


def _made_up(rng: random.Random) -> Iterator[Commit]:
    """Six commits of ten touch one directory; ten directories have nearly half of all touches: as the real one."""
    time = 1_583_756_163
    for number in range(COMMITS):
        time += int(rng.expovariate(1 / 23_000))
        width = min(40, 1 + int(rng.paretovariate(1.3) - 1))
        touched = {int(DIRECTORIES * rng.random() ** 7) for _ in range(width)}
        directories = tuple(f"pkg/part{directory:03d}" for directory in sorted(touched))
        yield Commit(f"{rng.getrandbits(160):040x}", time, f"a{number % 45}", f"Change {number} of a part", directories)


def events_of(commits: list[Commit]) -> list[list[Event]]:
    """The events of each commit."""
    told, number = [], 0
    for commit in commits:
        events = []
        for directory in commit.directories:
            id_ = uuid("deployment of history", number)
            events.append(Event("Deployment", id_, "changed", _document(id_, commit, directory)))
            events += [
                Event("Deployment", id_, "status_changed", {"status": status, "updated_at": commit.time + 60 * status})
                for status in STATUSES
            ]
            number += 1
        told.append(events)
    return told


def _document(id_: str, commit: Commit, directory: str) -> dict[str, Any]:
    trigger = {"hash": commit.hash, "author": commit.author, "message": commit.subject, "created_at": commit.time}
    return {
        **deployment(0),
        "id": id_,
        "application_id": directory,
        "application_name": directory.rpartition("/")[2],
        "git_path": {"repo": {"id": "pipecd", "branch": "master"}, "path": directory},
        "trigger": {"commit": trigger, "timestamp": commit.time},
        "status": 0,
        "created_at": commit.time,
        "updated_at": commit.time,
    }
