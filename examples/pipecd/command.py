"""Commands: from people to agents. Handled by one agent, or timed out by ops; whichever comes last counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from examples.pipecd.models import Command, CommandStatus
from examples.pipecd.store import Store
from logstore.event import Data
from projections import WriteReceipt


class Commands(Store[Command]):
    kind = "Command"
    defaults: ClassVar[Data] = {"status": int(CommandStatus.NOT_HANDLED_YET)}

    async def update_status(
        self, id: str, status: CommandStatus, metadata: Mapping[str, str], handled_at: int
    ) -> WriteReceipt:
        """Say how it went. Metadata of several reports is merged, where PipeCD keeps the last."""
        return await self.patch(id, "handled", status=int(status), metadata=metadata, handled_at=handled_at)
