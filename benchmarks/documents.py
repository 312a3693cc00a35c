"""What the view workloads store: deployments as PipeCD has them, and the small events that say how one fares.

Both are over UUIDs, 200 projects and times that repeat now and then. Fields that real ones leave alike are alike here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from logstore import Event
from projections import Index, Projection

PROJECTS = 200
FIRST_TIME = 1_700_000_000


class Statuses(Projection):
    """The latest status of each deployment."""

    name, kinds, fold = "statuses", frozenset({"Deployment"}), "put"
    indexes = (Index("project_id", "-updated_at"), Index("status", "-updated_at"))


class AppliedStatuses(Projection):
    """The same by a function, as most users will write it."""

    name, kinds, fold = "applied-statuses", frozenset({"Deployment"}), "apply"
    indexes = Statuses.indexes

    def apply(self, state: Any, event: Any) -> Any:
        return {**(state or {}), **event.data}


class Deployments(Projection):
    """Whole deployments, with the orders that PipeCD's user interface and agents ask for."""

    name, kinds, fold = "deployments", frozenset({"Deployment"}), "put"
    indexes = (
        Index("project_id", "-updated_at"),
        Index("project_id", "status", "-updated_at"),
        Index("piped_id", "status"),
    )


def status_events(count: int, keys: int) -> Iterator[Event]:
    """Events of about 130 bytes, keys included. The same key comes again only after all others have come."""
    for number in range(count):
        which = number % keys
        yield Event("Deployment", uuid("deployment", which), "status_changed", status(which, number))


def status(which: int, number: int) -> dict[str, Any]:
    """What event ``number`` says about deployment ``which``."""
    return {
        "project_id": project(which),
        "status": number // 3 % 7,
        "commit": _hex("commit", number)[:12],
        "updated_at": FIRST_TIME + number // 4,
    }


def deployments(count: int) -> Iterator[Event]:
    """Documents of 525 bytes as MessagePack, more or less five (docs: WORKLOAD §1)."""
    for number in range(count):
        yield Event("Deployment", uuid("deployment", number), "changed", deployment(number))


def deployment(number: int) -> dict[str, Any]:
    """One of them. Newer ones have higher numbers, by and large."""
    created = FIRST_TIME + number // 4
    return {
        "id": uuid("deployment", number),
        "project_id": project(number),
        "application_id": uuid("application", number % 5_000),
        "application_name": f"service-{number % 5_000}",
        "piped_id": uuid("piped", number % 500),
        "kind": number % 6,
        "git_path": {"repo": {"id": "infrastructure", "branch": "main"}, "path": f"services/{number % 5_000}"},
        "trigger": {
            "commit": {"hash": _hex("commit", number), "author": "somebody", "branch": "main", "created_at": created},
            "timestamp": created,
        },
        "summary": "Quick sync by deploying a version",
        "status": number // 7 % 7,
        "status_reason": "",
        "created_at": created,
        "updated_at": created + number * 7_919 % 600,
        "completed_at": 0,
    }


def project(number: int) -> str:
    return uuid("project", number % PROJECTS)


def uuid(what: str, number: int) -> str:
    """Digits that do not compress, as real ones do not."""
    digits = _hex(what, number)
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"


def _hex(what: str, number: int) -> str:
    return hashlib.blake2b(f"{what} {number}".encode(), digest_size=20).hexdigest()
