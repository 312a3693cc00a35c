"""Deployment traces: written once, when a commit of the application's code comes in."""

from __future__ import annotations

from examples.pipecd.models import DeploymentTrace
from examples.pipecd.store import Store


class DeploymentTraces(Store[DeploymentTrace]):
    kind = "DeploymentTrace"
