"""What the numbers in PipeCD's documents are called, for who looks at them: ``logstore console --labels``."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from examples.pipecd.models import ChainStatus, CommandStatus, DeploymentStatus, EventStatus, StageStatus

LABELS: Final[dict[str, dict[str, type[IntEnum]]]] = {
    "Deployment": {"status": DeploymentStatus, "stages.*.status": StageStatus},
    "DeploymentChain": {"status": ChainStatus, "blocks.*.status": ChainStatus},
    "Command": {"status": CommandStatus},
    "Event": {"status": EventStatus},
}
