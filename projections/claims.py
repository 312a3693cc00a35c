"""One winner among all who create a document: collections declared ``unique``. docs/rfcs/0009-documents.md §5.

To create is to claim: to create an object that holds the event, under the first number that is free, once the claim
before it is over. Whoever wins appends the event; whoever meets a claim that may still count appends it, too.

Invariants:
- A number is claimed only when no event of the one before it can have an effect any more, and its document is gone.
- A claim's event has one effect at most, however many copies are appended (``CollectionFold``), and none above its
  last stamp. So nobody who died, slept, or was told nothing, leaves anything to clean.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from logstore import Event, Log, Receipt, Writer
from logstore.claim import Claim
from logstore.errors import AlreadyExists, Conflict, LogStoreError, NotStored, Unavailable
from logstore.keys import ClaimKey
from projections.document import OVERDUE, Claimed, Write, claim_of
from projections.view import View

__all__ = ["Claimant"]

APPENDS_MAX: Final = 3  # of a claim's event, when the store says that it did not take it


class Claimant:
    """A process that creates documents of one kind, beside others."""

    def __init__(self, log: Log, view: View, writer: Writer, kind: str) -> None:
        self._log = log
        self._view = view
        self._writer = writer
        self._kind = kind

    async def create(self, event: Event, schema: int) -> Receipt:
        """Create the document that ``event`` is about; AlreadyExists where somebody else has, or is about to.

        Cost: a barrier, a GET, a PUT and an append; a GET for each doubling of the times that this key was created.
        """
        while True:
            await self._view.refresh()
            self._require_absent(event.key)
            first = claim_of(self._view.state(event.key)) + 1
            met = await self._log.claims.newest(self._kind, event.key, first)
            self._require_absent(event.key)
            if not self._view.is_settled(event.key):
                await self._view.settle()
            elif met is not None and self._view.watermark < met.last_stamp:
                await self._finish(met)
            else:
                number = first if met is None else met.key.number + 1
                receipt = await self._claim(ClaimKey(self._kind, event.key, number), event, schema)
                if receipt is not None:
                    return receipt

    def _require_absent(self, key: str) -> None:
        if self._view.get(key) is not None:
            raise AlreadyExists(f"there is such a document collection={self._kind} key={key}; update it")

    async def _finish(self, met: Claim) -> None:
        """Append the event of a claim that may still count; wait until one is over that may not."""
        if not self._log.claims.may_count(met):
            await self._log.reach(met.last_stamp)
            return
        receipt = await self._append(met.event())
        await self._view.wait_for(receipt)
        if self._view.get(met.key.key) is None:
            for verdict in (await self._view.settled(receipt)).values():
                if verdict.reason != OVERDUE:
                    raise Conflict(
                        f"the document is claimed by {met.claimant}, and may not be as it was to be: {verdict.reason}"
                        f" collection={self._kind} key={met.key.key}; the claim lasts half the store's grace"
                    )

    async def _claim(self, key: ClaimKey, event: Event, schema: int) -> Receipt | None:
        """Claim a number and append the event; None: somebody was faster."""
        last_stamp = self._log.claims.last_stamp()
        write = Write("create", schema, claim=Claimed(key.number, last_stamp, self._writer.name))
        event = event._replace(meta={**(event.meta or {}), **write.meta()})
        self._writer.require_storable(event)  # or the key would be claimed for what nobody can append
        claim = await self._log.claims.take(key, self._writer.name, event, last_stamp)
        if claim is None:
            return None
        receipt = await self._append(event)
        if receipt.stamp > last_stamp:  # we slept; somebody may have appended it in time, in our stead
            raise Unavailable(
                f"claimed, and appended too late collection={self._kind} key={event.key};"
                " create it again: AlreadyExists says that somebody appended it in time"
            )
        with suppress(LogStoreError):  # it is stored, whatever the view meets
            await self._view.wait_for(receipt)
        return receipt

    async def _append(self, event: Event) -> Receipt:
        """Append a claim's event. That it was not stored now does not mean that it never will be: others append it."""
        for attempt in range(1, APPENDS_MAX + 1):
            try:
                return await self._writer.append(event)
            except NotStored as error:
                if attempt == APPENDS_MAX:
                    raise Unavailable(
                        f"claimed, but not appended collection={self._kind} key={event.key};"
                        " create it again: AlreadyExists says that it was, after all"
                    ) from error
        raise AssertionError("the last attempt returns or raises")
