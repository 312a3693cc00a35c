"""Deployments: many reports at once, from the stages that run. Each is a patch of what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from examples.pipecd.models import NOT_COMPLETED, Deployment, DeploymentStatus, Stage, StageStatus
from examples.pipecd.stages import by_id
from examples.pipecd.store import Store
from logstore import InvalidArgument
from logstore.event import Data
from projections import WriteReceipt


class Deployments(Store[Deployment]):
    kind = "Deployment"
    defaults: ClassVar[Data] = {"status": int(DeploymentStatus.PENDING)}

    async def update_to_planned(
        self,
        id: str,
        *,
        summary: str,
        status_reason: str,
        running_commit_hash: str,
        running_config_filename: str,
        versions: Sequence[Mapping[str, Any]],
        stages: Sequence[Stage],
    ) -> WriteReceipt:
        """Replace all stages, so by a function: what was there before is removed."""

        def plan(deployment: Deployment) -> None:
            deployment["status"] = int(DeploymentStatus.PLANNED)
            deployment["status_reason"] = status_reason
            deployment["summary"] = summary
            deployment["running_commit_hash"] = running_commit_hash
            deployment["running_config_filename"] = running_config_filename
            deployment["versions"] = [dict(version) for version in versions]
            deployment["stages"] = by_id(stages)

        return await self.change(id, "planned", plan)

    async def update_status(self, id: str, status: DeploymentStatus, status_reason: str) -> WriteReceipt:
        return await self.patch(id, "status_changed", status=int(status), status_reason=status_reason)

    async def update_to_completed(
        self,
        id: str,
        status: DeploymentStatus,
        stage_statuses: Mapping[str, StageStatus],
        status_reason: str,
        completed_at: int,
    ) -> WriteReceipt:
        """Refuses a status that is not final: here, and in the fold for whoever writes without asking here.

        Stages that the deployment does not have are passed over, as in PipeCD.
        """
        if status in NOT_COMPLETED:
            raise InvalidArgument(f"not a final status deployment={id} status={status.name}")

        def complete(deployment: Deployment) -> None:
            deployment["status"] = int(status)
            deployment["status_reason"] = status_reason
            deployment["completed_at"] = completed_at
            stages = deployment.get("stages", {})
            for stage_id in stages.keys() & stage_statuses.keys():
                stages[stage_id]["status"] = int(stage_statuses[stage_id])

        return await self.change(id, "completed", complete)

    async def update_stage_status(
        self,
        id: str,
        stage_id: str,
        status: StageStatus,
        status_reason: str,
        *,
        requires: Sequence[str] = (),
        visible: bool = True,
        retried_count: int = 0,
        completed_at: int = 0,
    ) -> WriteReceipt:
        """Report on one stage. Conflict for a stage that was not planned: the guard sees to that."""
        stage = Stage(
            status=int(status),
            status_reason=status_reason,
            visible=visible,
            retried_count=retried_count,
            completed_at=completed_at,
        )
        if requires:
            stage["requires"] = list(requires)
        return await self.patch(id, "stage_status_changed", stages={stage_id: stage})

    # Metadata: merged key by key

    async def update_metadata(self, id: str, metadata: Mapping[str, str]) -> WriteReceipt:
        return await self.patch(id, "metadata_changed", metadata=metadata)

    async def update_stage_metadata(self, id: str, stage_id: str, metadata: Mapping[str, str]) -> WriteReceipt:
        return await self.patch(id, "metadata_changed", stages={stage_id: {"metadata": metadata}})

    async def update_shared_metadata(self, id: str, metadata: Mapping[str, str]) -> WriteReceipt:
        return await self.patch(id, "metadata_changed", metadata_v2={"shared": metadata})

    async def update_plugin_metadata(self, id: str, plugin: str, metadata: Mapping[str, str]) -> WriteReceipt:
        return await self.patch(id, "metadata_changed", metadata_v2={"plugins": {plugin: metadata}})
