"""Applications: written by the web and by agents at the same time, each its own fields.

That a deleted one stays as it is, is the guard's business (``guards.py``), not that of each function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from examples.pipecd.models import Application, DeploymentStatus, SyncState
from examples.pipecd.store import Store
from logstore.event import Data
from projections import WriteReceipt


class Applications(Store[Application]):
    kind = "Application"
    defaults: ClassVar[Data] = {"disabled": False, "deleted": False}

    # The web and pipectl

    async def enable(self, id: str) -> WriteReceipt:
        return await self.patch(id, "enabled", disabled=False)

    async def disable(self, id: str) -> WriteReceipt:
        return await self.patch(id, "disabled", disabled=True)

    async def delete(self, id: str) -> WriteReceipt:
        return await self.patch(id, "deleted", deleted=True, disabled=True, deleted_at=self.now())

    async def update_configuration(
        self, id: str, piped_id: str, platform_provider: str, config_filename: str
    ) -> WriteReceipt:
        return await self.patch(
            id,
            "configured",
            piped_id=piped_id,
            platform_provider=platform_provider,
            git_path={"config_filename": config_filename},
        )

    async def update_config_filename(self, id: str, config_filename: str) -> WriteReceipt:
        return await self.patch(id, "configured", git_path={"config_filename": config_filename})

    async def update_deploy_targets(self, id: str, by_plugin: Mapping[str, Sequence[str]]) -> WriteReceipt:
        """Replace the whole map: by a function, for a patch would leave the plugins that it does not name."""

        def retarget(application: Application) -> None:
            application["deploy_targets_by_plugin"] = {plugin: list(targets) for plugin, targets in by_plugin.items()}

        return await self.change(id, "retargeted", retarget)

    # Agents

    async def update_sync_state(self, id: str, state: SyncState) -> WriteReceipt:
        nothing = SyncState(status=0, short_reason="", reason="", head_deployment_id="", timestamp=0)
        return await self.patch(id, "sync_state_changed", sync_state={**nothing, **state})

    async def update_most_recent_deployment(
        self, id: str, status: DeploymentStatus, reference: Mapping[str, Any]
    ) -> WriteReceipt:
        """Refer to a deployment that succeeded, or was triggered. Of other statuses only ``updated_at`` tells."""

        def refer(application: Application) -> None:
            match status:
                case DeploymentStatus.SUCCESS:
                    application["most_recently_successful_deployment"] = dict(reference)
                case DeploymentStatus.PENDING:
                    application["most_recently_triggered_deployment"] = dict(reference)
                case _:
                    pass

        return await self.change(id, "referred", refer)

    async def update_deploying(self, id: str, deploying: bool) -> WriteReceipt:
        return await self.patch(id, "deploying_changed", deploying=deploying)

    async def update_basic_info(self, id: str, name: str, description: str, labels: Mapping[str, str]) -> WriteReceipt:
        def describe(application: Application) -> None:
            application.update(Application(name=name, description=description, labels=dict(labels)))

        return await self.change(id, "described", describe)
