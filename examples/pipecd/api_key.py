"""API keys: people disable them, ops notes when they were last used."""

from __future__ import annotations

from typing import ClassVar

from examples.pipecd.models import APIKey
from examples.pipecd.store import Store
from logstore.event import Data
from projections import WriteReceipt


class APIKeys(Store[APIKey]):
    kind = "APIKey"
    defaults: ClassVar[Data] = {"disabled": False}

    async def disable(self, id: str, project_id: str) -> WriteReceipt:
        """Disable a key of one's own project; Conflict for another's: a clause travels with the write."""
        patch = {"disabled": True, "updated_at": self.now()}
        return await self.documents.update(id, patch, type="disabled", when=[("project_id", "==", project_id)])

    async def update_last_used_at(self, id: str, last_used_at: int) -> WriteReceipt:
        """Conflict for an earlier time (the guard). ``updated_at`` stays: nobody changed the key."""
        return await self.documents.update(id, {"last_used_at": last_used_at}, type="used")
