"""PipeCD's events: "there is a new image", for agents to act on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import ClassVar

from examples.pipecd.models import Event, EventStatus
from examples.pipecd.store import Store
from logstore.event import Data
from projections import WriteReceipt


class Events(Store[Event]):
    kind = "Event"
    defaults: ClassVar[Data] = {"status": int(EventStatus.NOT_HANDLED)}

    async def update_status(self, id: str, status: EventStatus, status_description: str) -> WriteReceipt:
        """Say what came of it. It was updated only when it was handled."""
        said = {"status": int(status), "status_description": status_description}
        if status == EventStatus.NOT_HANDLED:
            return await self.documents.update(id, said, type="status_changed")
        return await self.patch(id, "handled", **said, handled_at=self.now())


def event_key(name: str, labels: Mapping[str, str]) -> str:
    """What events of the same name and labels share.

    >>> event_key("image", {"app": "a", "env": "b"}) == event_key("image", {"env": "b", "app": "a"})
    True
    """
    parts = [name, *(f"{label}={value}" for label, value in sorted(labels.items()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
