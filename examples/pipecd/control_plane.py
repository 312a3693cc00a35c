"""The control plane: one document store, and a store of PipeCD's for each of its kinds.

The servers of the web, of the agents and of operations each open one, under a name of their own. They share the address
of the log, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from examples.pipecd.api_key import APIKeys
from examples.pipecd.application import Applications
from examples.pipecd.chain import DeploymentChains
from examples.pipecd.collections import COLLECTIONS
from examples.pipecd.command import Commands
from examples.pipecd.deployment import Deployments
from examples.pipecd.event import Events
from examples.pipecd.piped import Pipeds
from examples.pipecd.project import Projects
from examples.pipecd.store import Clock, unix_seconds
from examples.pipecd.trace import DeploymentTraces
from logstore import Log
from projections import DocumentStore


class ControlPlane:
    """The nine stores. ``db`` is what queries are asked of."""

    def __init__(self, db: DocumentStore, now: Clock = unix_seconds) -> None:
        self.db = db
        self.applications = Applications(db, now)
        self.deployments = Deployments(db, now)
        self.deployment_chains = DeploymentChains(db, now)
        self.deployment_traces = DeploymentTraces(db, now)
        self.pipeds = Pipeds(db, now)
        self.projects = Projects(db, now)
        self.commands = Commands(db, now)
        self.events = Events(db, now)
        self.api_keys = APIKeys(db, now)

    @classmethod
    @asynccontextmanager
    async def open(cls, log: Log, writer: str, now: Clock = unix_seconds) -> AsyncIterator[ControlPlane]:
        """Serve under a name: ``client-1``, ``agent-1``, ``ops-1``; owners of fields go by how it begins."""
        async with DocumentStore.open(log, writer=writer, collections=COLLECTIONS) as db:
            yield cls(db, now)
