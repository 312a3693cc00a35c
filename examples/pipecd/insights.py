"""Insights: how often a project deploys, and how often that fails.

PipeCD collects completed deployments every hour into files of its own, with a milestone that says how far it got; a
crash between two of its writes counts some twice. Here there is nothing to collect: the documents are there, and an
index on (project, status, time of completion) counts them without looking at one.
"""

from __future__ import annotations

from examples.pipecd.models import DeploymentStatus
from projections import DocumentStore


def completed(db: DocumentStore, project_id: str, status: DeploymentStatus, since: int, before: int) -> int:
    """Return how many deployments of a project ended so from ``since`` until ``before``. Cost: some microseconds."""
    where = [
        ("project_id", "==", project_id),
        ("status", "==", int(status)),
        ("completed_at", ">=", since),
        ("completed_at", "<", before),
    ]
    return db.collection("Deployment").count(where)


def change_failure_rate(db: DocumentStore, project_id: str, since: int, before: int) -> float:
    """Return which part of the deployments that were carried through failed; 0 where there were none."""
    failed = completed(db, project_id, DeploymentStatus.FAILURE, since, before)
    succeeded = completed(db, project_id, DeploymentStatus.SUCCESS, since, before)
    return failed / (failed + succeeded) if failed + succeeded else 0.0
