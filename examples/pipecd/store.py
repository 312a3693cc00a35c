"""What the nine stores have in common: documents of one kind, a clock, and ``updated_at``.

Every update function returns a receipt as soon as the write is stored and visible here. What can be known by then is
raised: NotFound, AlreadyExists, Conflict (a guard, an owner), InvalidArgument. What only the order of all writes can
tell, ``await receipt.settled()`` tells, in seconds: callers that must know wait for it, most need not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, Generic, TypeVar, cast

from examples.pipecd.models import Entity
from logstore.event import Data
from projections import Documents, DocumentStore, WriteReceipt

Clock = Callable[[], int]
D = TypeVar("D", bound=Entity)


def unix_seconds() -> int:
    return int(time.time())


class Store(Generic[D]):
    """Documents of one kind, as the control plane writes them."""

    kind: ClassVar[str]
    defaults: ClassVar[Data] = {}
    """What queries compare with, and protos leave out when it is zero: a field that is absent would read as null."""

    def __init__(self, db: DocumentStore, now: Clock = unix_seconds) -> None:
        self.documents: Documents[D] = db.collection(self.kind)
        self.now = now

    async def add(self, document: D) -> WriteReceipt:
        """Create a document under its id; AlreadyExists."""
        now = self.now()
        complete = {"created_at": now, "updated_at": now, **self.defaults, **cast(Data, document)}
        return await self.documents.create(document["id"], complete)

    def get(self, id: str) -> D:
        """Return a document, read-only; NotFound."""
        return self.documents.get(id)

    async def patch(self, id: str, type: str, **fields: object) -> WriteReceipt:
        """Change these fields, maps by their entries, and say when. All other fields are left to others."""
        return await self.documents.update(id, {**fields, "updated_at": self.now()}, type=type)

    async def change(self, id: str, type: str, function: Callable[[D], None]) -> WriteReceipt:
        """Change whatever the function changes. It sees all that was acknowledged anywhere before this call."""
        return await self.documents.update(id, self._stamped(function), type=type)

    async def modify(self, id: str, type: str, function: Callable[[D], None]) -> WriteReceipt:
        """Change the document as if nobody else did at the time; return when that is settled."""
        return await self.documents.modify(id, self._stamped(function), type=type)

    def _stamped(self, function: Callable[[D], None]) -> Callable[[D], None]:
        def changed(document: D) -> None:
            function(document)
            document["updated_at"] = self.now()

        return changed
