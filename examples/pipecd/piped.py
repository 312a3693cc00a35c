"""Pipeds, the agents: people say what they may do, they themselves say what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from examples.pipecd.models import Piped, PipedKey
from examples.pipecd.store import Store
from logstore.event import Data
from projections import WriteReceipt


class Pipeds(Store[Piped]):
    kind = "Piped"
    defaults: ClassVar[Data] = {"disabled": False}

    # The web and pipectl

    async def update_info(self, id: str, name: str, desc: str) -> WriteReceipt:
        return await self.patch(id, "described", name=name, desc=desc)

    async def enable(self, id: str) -> WriteReceipt:
        return await self.patch(id, "enabled", disabled=False)

    async def disable(self, id: str) -> WriteReceipt:
        return await self.patch(id, "disabled", disabled=True)

    async def update_desired_version(self, id: str, version: str) -> WriteReceipt:
        return await self.patch(id, "version_desired", desired_version=version)

    async def add_key(self, id: str, key_hash: str, creator: str) -> WriteReceipt:
        """Conflict for a third key; of two that come at once, ``settled`` tells one (the guard counts them)."""
        key = PipedKey(creator=creator, created_at=self.now())
        return await self.patch(id, "key_added", keys={key_hash: key})

    async def delete_old_keys(self, id: str) -> WriteReceipt:
        """Leave the newest."""

        def leave_newest(piped: Piped) -> None:
            keys = piped.get("keys", {})
            piped["keys"] = dict(sorted(keys.items(), key=lambda item: (item[1]["created_at"], item[0]))[-1:])

        return await self.change(id, "keys_deleted", leave_newest)

    # The agent, when it starts

    async def update_metadata(
        self,
        id: str,
        *,
        version: str,
        config: str,
        started_at: int,
        repositories: Sequence[Mapping[str, Any]] = (),
        platform_providers: Sequence[Mapping[str, Any]] = (),
        plugins: Sequence[Mapping[str, Any]] = (),
        secret_encryption: Mapping[str, str] | None = None,
    ) -> WriteReceipt:
        return await self.patch(
            id,
            "started",
            version=version,
            config=config,
            started_at=started_at,
            repositories=[dict(repository) for repository in repositories],
            platform_providers=[dict(provider) for provider in platform_providers],
            plugins=[dict(plugin) for plugin in plugins],
            secret_encryption=secret_encryption,
        )
