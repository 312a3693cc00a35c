"""PipeCD's control plane on a log: nine kinds of documents, no database, no cache, no lock.

>>> import asyncio, logstore
>>> from examples.pipecd import ControlPlane, DeploymentStatus, queries
>>> async def session():
...     async with (
...         logstore.open("memory://pipecd") as log,
...         ControlPlane.open(log, "client-1") as web,
...         ControlPlane.open(log, "agent-1") as agents,
...     ):
...         await web.applications.add({"id": "a-1", "project_id": "shop", "piped_id": "p-1", "name": "cart"})
...         deployment = {"id": "d-1", "project_id": "shop", "piped_id": "p-1", "application_id": "a-1"}
...         await agents.deployments.add(deployment)
...         await agents.deployments.update_status("d-1", DeploymentStatus.RUNNING, "it began")
...         return queries.not_completed_deployments("p-1").find(agents.db).keys
>>> asyncio.run(session())
['d-1']

Read ``models.py`` (what there is), ``collections.py`` and ``guards.py`` (how it is asked, and what must hold),
``store.py`` and then one of the nine stores, ``deployment.py`` say; at last ``queries.py`` and ``pages.py``.
"""

from __future__ import annotations

from examples.pipecd.collections import COLLECTIONS
from examples.pipecd.control_plane import ControlPlane
from examples.pipecd.models import (
    ChainStatus,
    CommandStatus,
    DeploymentStatus,
    EventStatus,
    StageStatus,
)

__all__ = [
    "COLLECTIONS",
    "ChainStatus",
    "CommandStatus",
    "ControlPlane",
    "DeploymentStatus",
    "EventStatus",
    "StageStatus",
]
