"""Events as a document store writes them, without a log: for tests of folds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from logstore import Event, StoredEvent
from logstore.event import Data, EventEncoder
from projections import Collection, Rejected
from projections.document import Claimed, Write
from projections.tombstone import Tombstone, decode_state, encode_state

__all__ = ["History", "claimed", "stored", "written"]

_ENCODER = EventEncoder()


def stored(
    event: Event, stamp: int, *, writer: str = "web", chapter: int = 0, session: int = 1, seq: int = 0
) -> StoredEvent:
    """An event as it is read back from a place in the log."""
    *_, payload, meta = _ENCODER.encode(event)
    return StoredEvent(
        event.kind,
        event.key,
        event.type,
        payload,
        meta,
        stamp,
        writer,
        chapter,
        session,
        seq,
        settled=True,
    )


def written(write: Write, data: Data | None = None, key: str = "d", kind: str = "Doc") -> Event:
    """The event of a write."""
    return Event(kind, key, f"{write.do}d", data, write.meta())


def claimed(number: int, last_stamp: int, data: Data, claimant: str = "web") -> Event:
    """The event of a creation that was claimed."""
    return written(Write("create", claim=Claimed(number, last_stamp, claimant)), data)


class History:
    """One key's events folded one by one, as bytes in between: ``row`` is what is left, ``refused`` why each was."""

    def __init__(self, collection: Collection) -> None:
        self._fold = collection.fold()
        self._state: bytes | None = None
        self.refused: list[str | None] = []
        self._stamp = 0

    @property
    def row(self) -> Any:
        """The row, or the tombstone, or None."""
        return None if self._state is None else decode_state(self._state, "d")

    @property
    def doc(self) -> Any:
        """The document, or None."""
        row = self.row
        return None if row is None or isinstance(row, Tombstone) else row["doc"]

    def take(self, event: Event, stamp: int | None = None, *, writer: str = "web") -> History:
        """One more event."""
        self._stamp = self._stamp + 1 if stamp is None else stamp
        refusal = None
        state = None if self._state is None else decode_state(self._state, "d", self._stamp)
        try:
            after = self._fold.apply(state, stored(event, self._stamp, writer=writer))
        except Rejected as rejected:
            refusal = str(rejected)
        else:
            self._state = None if after is None else encode_state(after, "d", _ENCODER)
        self.refused.append(refusal)
        return self

    def take_all(self, events: Iterable[Event]) -> History:
        """More events."""
        for event in events:
            self.take(event)
        return self
