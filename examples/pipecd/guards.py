"""Invariants that hold whoever writes, and however late a write turns up: judged in the fold. Pure.

A guard sees one document before and after a change, and nothing else: no clock, no other document. What it refuses
changes nothing, in every process alike, and ``await receipt.settled()`` tells its writer. Whoever changes a guard
raises the collection's ``version``: what was applied under the old one is judged anew.
"""

from __future__ import annotations

from typing import Final

from examples.pipecd.models import NOT_COMPLETED
from logstore.event import Data
from projections import Rejected

KEYS_MAX: Final = 2  # of a piped: the one in use, and the one that comes next


def application(before: Data | None, after: Data | None) -> None:
    """A deleted application is never changed again. It is deleted by a mark, and stays."""
    if before is not None and before.get("deleted"):
        raise Rejected("the application is deleted")
    if after is None:
        raise Rejected("applications are marked as deleted, and stay")


def deployment(before: Data | None, after: Data | None) -> None:
    """Who completes a deployment gives it a final status; nobody reports on a stage that was never planned."""
    if after is None:
        return
    completed_at = after.get("completed_at")
    if completed_at and completed_at != (before or {}).get("completed_at") and after.get("status") in NOT_COMPLETED:
        raise Rejected(f"completed, with a status that is not final status={after.get('status')}")
    for stage_id, stage in after.get("stages", {}).items():
        if stage.get("id") != stage_id:  # a patch of a stage that is not there leaves one without an id
            raise Rejected(f"no such stage stage={stage_id}")


def trace(before: Data | None, _after: Data | None) -> None:
    """A trace is written once."""
    if before is not None:
        raise Rejected("traces are never changed")


def piped(_before: Data | None, after: Data | None) -> None:
    """However many add keys at a time, a piped has at most two."""
    if after is not None and len(after.get("keys", {})) > KEYS_MAX:
        raise Rejected(f"a piped has at most {KEYS_MAX} keys; delete the old ones")


def api_key(before: Data | None, after: Data | None) -> None:
    """When a key was last used does not go back."""
    if before is not None and after is not None and after.get("last_used_at", 0) < before.get("last_used_at", 0):
        raise Rejected(f"it was used later than that last_used_at={before.get('last_used_at')}")
