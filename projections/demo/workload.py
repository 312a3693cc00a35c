"""What a control plane writes when commits arrive: applications, deployments, stages.

Each application belongs to one writer (its *piped*), so that a writer's share can be replayed on its own. Events are
those of PipeCD's control plane: an application is registered; a deployment is planned, its stages report, it completes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from projections.demo.history import Commit

__all__ = ["Deployment", "Step", "shares"]

Step = tuple[str, str, str, dict[str, Any]]
"""An event to append: kind, key, type, data."""
Deployment = list[Step]
"""Events that follow one another: each is appended when the one before it is acknowledged."""

PLANNED, RUNNING, SUCCESS, FAILURE = 1, 2, 4, 5
_STAGES = ("K8S_CANARY_ROLLOUT", "K8S_PRIMARY_ROLLOUT")


def shares(commits: Sequence[Commit], writers: int) -> list[list[Deployment]]:
    """Return each writer's deployments, in the order of the commits.

    >>> from projections.demo.history import Commit
    >>> [[(kind, type_) for kind, _, type_, _ in d] for d in shares([Commit("abc", 1, "me", "Go", ("web",))], 1)[0]]
    ... # doctest: +NORMALIZE_WHITESPACE
    [[('Application', 'registered'), ('Deployment', 'planned'), ('Deployment', 'stage-status'),
      ('Deployment', 'stage-status'), ('Deployment', 'completed')]]
    """
    work: list[list[Deployment]] = [[] for _ in range(writers)]
    known: set[str] = set()
    for commit in commits:
        for application in commit.applications:
            number = zlib.crc32(application.encode())
            deployment = [] if application in known else [_registered(application, number, commit)]
            known.add(application)
            work[number % writers].append([*deployment, *_deployed(application, number, commit)])
    return work


def _registered(application: str, number: int, commit: Commit) -> Step:
    git_path = {"repo": "monorepo", "path": application, "config_filename": "app.pipecd.yaml"}
    data = {"name": application, "project_id": "demo", "piped_id": f"piped-{number % 4}", "git_path": git_path}
    return "Application", f"app-{number:08x}", "registered", {**data, "created_at": commit.time}


def _deployed(application: str, number: int, commit: Commit) -> list[Step]:
    key = f"deployment-{commit.hash[:12]}-{number:08x}"
    trigger = {"hash": commit.hash, "message": commit.subject, "author": commit.author, "created_at": commit.time}
    stages = [{"id": f"stage-{index}", "name": name, "status": 0} for index, name in enumerate(_STAGES)]
    failed = number % 7 == commit.time % 7 and commit.time % 5 == 0
    planned = {
        "application_id": f"app-{number:08x}",
        "application_name": application,
        "project_id": "demo",
        "trigger": {"commit": trigger},
        "stages": stages,
        "status": PLANNED,
        "created_at": commit.time,
    }
    done = {"status": FAILURE if failed else SUCCESS, "completed_at": commit.time + 90}
    return [
        ("Deployment", key, "planned", planned),
        ("Deployment", key, "stage-status", {"status": RUNNING, "stage_id": "stage-0", "stage_status": SUCCESS}),
        ("Deployment", key, "stage-status", {"stage_id": "stage-1", "stage_status": done["status"]}),
        ("Deployment", key, "completed", done),
    ]
