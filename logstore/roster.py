"""The one protocol that appends to the shared list of who writes.

RFC 0001 §2. The roster is a list with predictable names: find its tail, make the entry that may
follow, create it; when beaten, go on from the winner. Decisions about *what* to post are the
caller's: a plain function that sees the tail and returns a body, or None to give up.

Invariants:
- An entry is created only at the number after one that was seen, and holds its digest.
- A tail is believed only when the names after it were absent too, and its chapter is not retired.
- Stamps increase along the list; a clock that is off posts nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from logstore.clock import StampClock
from logstore.entry import NONCE_BYTES, Begin, Body, Closed, Entry, encode_entry, next_entry, require_follows
from logstore.errors import AlreadyExists, Missing, Unavailable
from logstore.identity import Identity
from logstore.keys import entry_key, retired_key
from logstore.looks import Looks
from logstore.objects import Objects

__all__ = ["Roster", "gallop", "is_tail"]

BEATEN_MAX: Final = 200  # each defeat is another's progress; this many in a row is no longer chance
PAUSE_MS_MAX: Final = 1_000

T = TypeVar("T")
Decide = Callable[[Entry], Body | None]


async def gallop(probe: Callable[[int], Awaitable[T | None]], first: int) -> tuple[int, T] | None:
    """Return the last of a dense run that begins at ``first``, with its number; None when ``first`` is absent.

    Cost: about 2·log2 of the run's length in probes. An answer that is out of date, or a hole, yields an earlier one.
    """
    found = await probe(first)
    if found is None:
        return None
    last, step = first, 1
    while (later := await probe(last + step)) is not None:
        last, found, step = last + step, later, step * 2
    absent = last + step
    while absent - last > 1:
        middle = (last + absent) // 2
        if (between := await probe(middle)) is not None:
            last, found = middle, between
        else:
            absent = middle
    return last, found


async def is_tail(objects: Objects, looks: Looks, chapter: int, number: int) -> bool:
    """Whether the list ends before ``number``, which was absent just now; False: it is there after all.

    Cost: two GETs; one more before a chapter's beginning, more when something lies beyond. Raises Missing when the
    number was lost, or the record that its chapter is retired.
    """
    beyond = await asyncio.gather(objects.entry(chapter, number + 1), objects.entry(chapter + 1, 0))
    if not any(beyond):
        if number == 0 and await looks.look(chapter + 1) is not None and await looks.look(chapter) is None:
            raise Missing(_no_begin(chapter))
        return True
    if await objects.entry(chapter, number) is None and await looks.look(chapter) is None:
        if number == 0:
            raise Missing(_no_begin(chapter))
        raise Missing(f"a roster entry is gone key={entry_key(chapter, number)}; restore it")
    return False


def _no_begin(chapter: int) -> str:
    name, record = entry_key(chapter, 0), retired_key(chapter)
    return (
        f"a chapter has no beginning, or the record is gone that it was retired key={name} record={record}; restore it"
    )


@dataclass(frozen=True, slots=True)
class _Void(Exception):
    """The chapter in which we stood is retired: what we concluded is void; start over."""

    chapter: int


class Roster:
    """Finds the tail of the list and appends to it. One per log: posts of one process queue up here."""

    def __init__(
        self, identity: Identity, objects: Objects, looks: Looks, stamps: StampClock, rng: random.Random
    ) -> None:
        self._identity = identity
        self._objects = objects
        self._looks = looks
        self._stamps = stamps
        self._rng = rng
        self._newest: Entry | None = None
        self._first_unretired = 0  # at least
        self._posting = asyncio.Lock()

    @property
    def store(self) -> str:
        """The id of the store whose roster it is, as people write it. Cost: none."""
        return self._identity.id.hex()

    def __repr__(self) -> str:
        return f"<Roster newest={self._newest.address if self._newest else None}>"

    @property
    def newest(self) -> Entry | None:
        """The newest entry that this process knows of; there may be newer ones."""
        return self._newest

    def learn(self, entry: Entry) -> None:
        """Take notice of an entry that somebody in this process read."""
        if self._newest is None or entry.address > self._newest.address:
            self._newest = entry

    async def first_unretired(self) -> int:
        """The first chapter without a retirement record. Cost: 1 GET, 2·log2 of those retired since."""
        if (last := await gallop(self._looks.retired, self._first_unretired)) is not None:
            self._first_unretired = last[0] + 1
        return self._first_unretired

    async def find_tail(self) -> Entry | None:
        """Return the newest entry of the list, None when there is none yet.

        Cost: 2·log2 of the retired chapters, of the others, and of the newest chapter's entries, in GETs; from a
        tail already known only the last of these.
        """
        while True:
            try:
                tail = await self._go_on_to_tail(self._newest or await self._newest_begin())
            except _Void:
                self._newest = None
            else:
                if tail is not None:
                    self.learn(tail)
                return tail

    async def _newest_begin(self) -> Entry | None:
        first = await self.first_unretired()
        begin = await gallop(lambda chapter: self._objects.entry(chapter, 0), first)
        if begin is None and first > 0:
            if await self._looks.look(first) is not None:
                raise _Void(first)
            raise Missing(_no_begin(first))
        return None if begin is None else begin[1]

    async def _go_on_to_tail(self, tail: Entry | None) -> Entry | None:
        """Go on from ``tail`` to an entry whose successor is absent, believably."""
        while True:
            chapter, number = (0, 0) if tail is None else tail.successor
            entry = await self._objects.entry(chapter, number)
            if entry is not None:
                require_follows(entry, tail, self._identity.root)
                ahead = await gallop(partial(self._objects.entry, chapter), number + 1)
                tail = ahead[1] if ahead else entry
                continue
            ended = await is_tail(self._objects, self._looks, chapter, number)
            if await self._looks.retired(chapter) is not None:
                raise _Void(chapter)
            if ended:
                return tail

    async def post(self, decide: Decide) -> Entry | None:
        """Append the entry whose body ``decide`` returns for the tail; None when it returns None.

        ``decide`` is asked again each time another process was faster. Cost: 3 GETs and 1 PUT, more when beaten or at
        the beginning of a chapter. Raises ClockSkew, Missing, Unavailable (the entry may land yet).
        """
        async with self._posting:
            defeats = 0
            while defeats < BEATEN_MAX:
                tail = await self.find_tail()
                begins = tail is None or isinstance(tail.body, Closed)
                body = Begin() if tail is None or begins else decide(tail)
                if body is None:
                    return None
                posted = await self._try_create(tail, body)
                if posted is None:
                    defeats += 1
                    await asyncio.sleep(self._rng.uniform(0, min(PAUSE_MS_MAX, 2**defeats)) / 1000)
                elif not begins:
                    return posted
            raise Unavailable(f"beaten to the roster's tail again and again times={BEATEN_MAX}; try again later")

    async def _try_create(self, tail: Entry | None, body: Body) -> Entry | None:
        """Create the entry after ``tail``; None when another stands there, or the chapter is retired."""
        self._stamps.require_sane()
        if tail is not None:
            self._stamps.merge(tail.stamp)
        nonce = self._rng.randbytes(NONCE_BYTES)
        data, entry = encode_entry(next_entry(tail, self._identity.root, body, self._stamps.next(), nonce))
        try:
            await self._objects.create(entry_key(*entry.address), data)
        except AlreadyExists:
            winner = await self._objects.entry(*entry.address)
            if winner is None or winner.digest != entry.digest:
                return None
        if await self._looks.retired(entry.chapter) is not None:
            self._newest = None
            return None
        self._objects.remember_entry(entry)
        self.learn(entry)
        return entry
