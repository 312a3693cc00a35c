"""What became of each event of one document: the fold, told again. Pure.

A collection's fold judges a write by what the document is where the write stands in the order. So whoever has all of a
document's events, in order, knows of each whether it was applied, and why not.
"""

from __future__ import annotations

from dataclasses import dataclass

from logstore import StoredEvent
from logstore.event import Data, EventEncoder
from projections.document import Collection
from projections.projection import Rejected
from projections.state import Verdict
from projections.tombstone import Tombstone, decode_state, encode_state

__all__ = ["Teller", "Telling"]


@dataclass(frozen=True, slots=True)
class Telling:
    """An event, what became of it (None: it was applied), and the document before it; None where there was none."""

    event: StoredEvent
    verdict: Verdict | None = None
    before: Data | None = None


class Teller:
    """Tells what became of a document's events, given one after the other: all there are, in order. As ``State``."""

    def __init__(self, collection: Collection) -> None:
        self._fold = collection.fold()
        self._encoder = EventEncoder()
        self._row: bytes | None = None

    def tell(self, event: StoredEvent) -> Telling:
        """What became of the next event."""
        before, verdict = None if self._row is None else decode_state(self._row, event.key, event.stamp), None
        try:
            after = self._fold.apply(before, event)
            self._row = None if after is None else encode_state(after, event.key, self._encoder)
        except Rejected as rejection:
            verdict = Verdict("rejected", str(rejection))
        except Exception as error:  # noqa: BLE001 - the collection's own code may raise anything, and the view parks it
            verdict = Verdict("parked", repr(error))
        document = None if before is None or isinstance(before, Tombstone) else before["doc"]
        return Telling(event, verdict, document)
