"""Pins in the store: taken, renewed and released by whoever reads slowly, heeded by whoever retires.

docs/rfcs/0006-retention.md §4.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final

from logstore.clock import MEASUREMENT_ERROR_MS
from logstore.errors import AlreadyExists, Corrupt, InvalidArgument, Trimmed, Unavailable
from logstore.filestore.base import FileStore
from logstore.frontier import Position
from logstore.keys import NONCE_BYTES, PINS, PinKey, parse_key, pin_key
from logstore.looks import Looks, StoreTime
from logstore.objects import Objects
from logstore.pin import PinRecord, decode_pin, encode_pin

__all__ = ["PIN_MS", "PIN_MS_MAX", "ListedPin", "Pin", "Pins"]

PIN_MS: Final = 86_400_000
PIN_MS_MAX: Final = 7 * 86_400_000
_OWNER_CHARACTERS_MAX: Final = 200


@dataclass(slots=True)
class ListedPin:
    """What is listed of one pin: its renewals, and when the store got the newest, Unix milliseconds."""

    keys: list[PinKey] = field(default_factory=list)
    created_ms: int = 0


class Pins:
    """The pins of a log."""

    def __init__(self, store: FileStore, objects: Objects, store_time: StoreTime) -> None:
        self._store = store
        self._objects = objects
        self._store_time = store_time

    async def listed(self) -> list[ListedPin]:
        """Every pin there is. Cost: a LIST per 1,000 keys."""
        found: defaultdict[bytes, ListedPin] = defaultdict(ListedPin)
        async for listed in self._store.list(PINS):
            if isinstance(key := parse_key(listed.key), PinKey):
                found[key.id].keys.append(key)
                found[key.id].created_ms = listed.modified_ms or 0
        return list(found.values())

    async def newest(self, pin: ListedPin) -> PinRecord | None:
        """The newest renewal of a pin; one that cannot be read needs everything, for as long as any pin may.

        None: it is gone. None is believed to last longer than any may. Cost: a GET.
        """
        key, longest_ms = pin.keys[-1], pin.created_ms + PIN_MS_MAX + MEASUREMENT_ERROR_MS
        blob = await self._objects.get(pin_key(key))
        if blob is None:
            return None
        try:
            record = decode_pin(key, blob.data)
        except Corrupt:
            return PinRecord(key, "unreadable", 0, longest_ms)
        return replace(record, expires_ms=min(record.expires_ms, longest_ms))

    async def live(self) -> list[PinRecord]:
        """The pins that have not expired. Cost: a LIST per 1,000 keys, a GET per pin.

        They are listed again where one was renewed and collected in between.
        """
        while True:
            newest = [await self.newest(pin) for pin in await self.listed()]
            if None not in newest:
                return [pin for pin in newest if pin is not None and pin.expires_ms > self._store_time.latest_ms]

    async def create(self, pin: PinRecord) -> None:
        """Create a pin. Cost: a PUT. Raises Unavailable."""
        with suppress(AlreadyExists):  # the id is random: an earlier attempt of ours landed
            await self._objects.create(pin_key(pin.key), encode_pin(pin))

    def expiry_ms(self, for_ms: int) -> int:
        """When a pin ends that lasts ``for_ms`` from now, by the store's clock."""
        if not 1 <= for_ms <= PIN_MS_MAX:
            raise InvalidArgument(f"a pin lasts at least 1 and at most {PIN_MS_MAX} ms for_ms={for_ms!r}; renew it")
        if not self._store_time.latest_ms:
            raise Unavailable("the store tells no times, so no pin can expire; nothing is retired from it either")
        return self._store_time.latest_ms + for_ms


class Pin:
    """A pin to be held by ``async with``. Made by ``log.pin``.

    What it needs stays until it expires: renew it while you read. A release is one more object.

    >>> async def export(log):
    ...     async with log.pin("nightly export") as pin:
    ...         reader = log.read()
    ...         async for event in reader:
    ...             if event.seq % 10_000 == 0:
    ...                 await pin.renew(reader.position)
    """

    def __init__(
        self,
        pins: Pins,
        first_needed: Callable[[Position | None], Awaitable[int]],
        looks: Looks,
        *,
        rng: random.Random,
        owner: str,
        after: Position | None,
        for_ms: int,
    ) -> None:
        if not 1 <= len(owner) <= _OWNER_CHARACTERS_MAX:
            raise InvalidArgument(f"needs 1 to {_OWNER_CHARACTERS_MAX} characters owner={owner!r:.40}")
        self._pins = pins
        self._first_needed = first_needed
        self._looks = looks
        self._id = rng.randbytes(NONCE_BYTES)
        self._owner = owner
        self._after = after
        self._for_ms = for_ms
        self._number = 0
        self._chapter = 0

    def __repr__(self) -> str:
        return f"<Pin {self._id.hex()} owner={self._owner!r} chapter={self._chapter} renewals={self._number}>"

    @property
    def chapter(self) -> int:
        """The first chapter that it keeps. Cost: none."""
        return self._chapter

    async def __aenter__(self) -> Pin:
        await self.renew(self._after)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._create(self._chapter, expires_ms=0)

    async def renew(self, after: Position | None = None) -> None:
        """Keep what lies after a position, and let go of what lies before it; None: as before.

        Cost: a PUT, and two GETs and one per session of the position. Raises Trimmed when retention was faster,
        StaleStore, Unavailable.
        """
        as_before = after is None and self._number > 0
        needed = await (self._still_needed() if as_before else self._first_needed(after))  # which tells the time, too
        while True:
            await self._create(needed, self._pins.expiry_ms(self._for_ms))
            needed = await (self._still_needed() if as_before else self._first_needed(after))  # retired before it came?
            if needed <= self._chapter:
                return

    async def _still_needed(self) -> int:
        record = await self._looks.look(self._chapter)
        if record is not None and not record.archives:
            raise Trimmed(
                f"retention was faster than the pin chapter={self._chapter} pin={self._id.hex()};"
                " start from a snapshot, or `log.oldest()`"
            )
        return self._chapter

    async def _create(self, chapter: int, expires_ms: int) -> None:
        self._chapter = chapter
        number, self._number = self._number, self._number + 1  # one that was ambiguous is not used again
        await self._pins.create(PinRecord(PinKey(self._id, number), self._owner, chapter, expires_ms))
