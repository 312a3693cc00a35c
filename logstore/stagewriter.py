"""Appends blocks to a stage log: each index once, however many processes write, and however often it is tried.

Calls put their blocks into a queue and wait for their turn; who has it writes for all that wait, as one page. A page is
created at the number behind the last one known. Where another has that number, its page is read, what it stored is
dropped, and the rest goes to the next number. So whatever became of a creation, appending again is right: what landed
is met there, and is not stored twice.

Invariants:
- Only blocks are written whose indices are not in the chain up to the page before.
- A call returns, or is refused, when the page that decides it is stored, and the stage log known not to be gone.
- Behind the page that completes the chain nothing is created.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from logstore.aside import decode_aside
from logstore.clock import Clock
from logstore.errors import Conflict, Corrupt, InvalidArgument, LimitExceeded, LogStoreError
from logstore.indices import Indices
from logstore.keys import NUMBER_MAX, StagePageKey
from logstore.stagechain import StageChain, StageCursor
from logstore.stagepage import BLOCKS_MAX, Block, Page, PageHead, check_block, encode_page, require_follows

__all__ = ["StageWriter"]

APPEND_BYTES_MAX: Final = 8 << 20
RANGES_MAX: Final = 10_000  # of indices, remembered: a stage log usually has one for each process that wrote it


@dataclass(slots=True, eq=False)
class _Call:
    """What one caller wants stored, by index; ``error``: why not all of it is."""

    blocks: tuple[Block, ...]
    size: int
    completes: bool
    done: bool = False
    error: LogStoreError | None = None

    def settle(self, error: LogStoreError | None) -> None:
        self.done, self.error = True, error


class StageWriter:
    """Writes one stage log. Made by ``Stage``."""

    def __init__(self, chain: StageChain, clock: Clock) -> None:
        self._chain = chain
        self._clock = clock
        self._calls: deque[_Call] = deque()
        self._turn = asyncio.Lock()
        self._last: PageHead | None = None
        self._stored: Indices | None = None  # up to and including ``_last``; None: the end was not looked for yet

    def __repr__(self) -> str:
        last = None if self._last is None else self._last.key.number
        return f"<StageWriter {self._chain.stage} last={last} stored={self._stored!r} waiting={len(self._calls)}>"

    async def append(self, blocks: Sequence[Block], *, completes: bool) -> None:
        """See ``Stage.append`` and ``Stage.complete``."""
        call = _checked(blocks, completes)
        self._calls.append(call)
        try:
            while not call.done:
                async with self._turn:
                    if not call.done:
                        await self._serve()
        finally:
            if not call.done:  # interrupted
                self._calls.remove(call)
        if call.error is not None:
            raise type(call.error)(str(call.error)) from call.error

    # A turn

    async def _serve(self) -> None:
        """Store what the first calls in the queue want, as one page, and let them go. An interruption leaves all."""
        calls = self._first_calls()
        try:
            errors = await self._store(calls)
        except LogStoreError as error:
            errors = [error] * len(calls)
        for call, outcome in zip(calls, errors, strict=True):
            if call in self._calls:
                self._calls.remove(call)
                call.settle(outcome)

    def _first_calls(self) -> list[_Call]:
        """Those that fit into one page; none behind one that completes."""
        calls: list[_Call] = []
        count = size = 0
        for call in self._calls:
            count, size = count + len(call.blocks), size + call.size
            if calls and (count > BLOCKS_MAX or size > APPEND_BYTES_MAX):
                break
            calls.append(call)
            if call.completes:
                break
        return calls

    async def _store(self, calls: Sequence[_Call]) -> Sequence[LogStoreError | None]:
        """Store what is not stored yet of what they want; return what became of each."""
        wanted = {block.index: block for call in reversed(calls) for block in reversed(call.blocks)}  # the first counts
        completes = calls[-1].completes
        await self._chain.require_kept()
        if self._stored is None:
            await self._find_end()
        defeats = 0
        while True:
            held = await self._held_among(wanted)
            last, new = self._last, sorted((wanted[index] for index in wanted.keys() - held), key=attrgetter("index"))
            if last is not None and last.complete:
                break
            if not (new or completes) or await self._create(new, completes):
                new = []
                break
            defeats += 1
            if defeats > 1:  # others are ahead by more than one: a GET for each, and no PUT in vain
                await self._read_on()
        await self._chain.require_kept()
        refused = {block.index for block in new}
        return [self._verdict(call, refused) for call in calls]

    def _verdict(self, call: _Call, refused: Collection[int]) -> Conflict | None:
        """The error of a call that came too late."""
        index = next((block.index for block in call.blocks if block.index in refused), None)
        if index is None:
            return None
        by = (
            "retention completed this stage log"
            if self._last and self._last.abandoned
            else "this stage log is complete"
        )
        return Conflict(
            f"{by}, no block can be added stage_log={self._chain.stage} index={index}; write under another retry"
        )

    async def _create(self, blocks: Sequence[Block], completes: bool) -> bool:
        """Create the next page; False: another has its number, and is taken in."""
        assert self._stored is not None
        number = 0 if self._last is None else self._last.key.number + 1
        if number > NUMBER_MAX:
            raise LimitExceeded(
                f"a stage log has no more pages stage_log={self._chain.stage}; write under another retry"
            )
        stored = self._stored.copy()
        stored.add(block.index for block in blocks)
        run, stop = stored.last
        data, head = await decode_aside(
            sum(len(block.text) for block in blocks),
            encode_page,
            StagePageKey(self._chain.stage, number),
            blocks,
            run=run,
            stop=stop,
            previous=None if self._last is None else self._last.digest,
            complete=completes,
        )
        page = await self._chain.create(head, data)
        if page is not None:
            try:
                require_follows(page, self._last)
            except Corrupt as error:
                await self._chain.accuse(error)
            self._take(page)
            return False
        self._last, self._stored = head, stored
        stored.forget(RANGES_MAX)
        return True

    # What is stored

    async def _find_end(self) -> None:
        last = self._last = await self._chain.last()
        self._stored = Indices(0 if last is None else last.run)
        if last is not None:
            self._stored.add_last(last.run, last.stop)

    async def _read_on(self) -> None:
        """Take in all that others have stored behind the last page. Cost: as ``StageCursor.read``, to the end."""
        cursor = StageCursor(self._chain, self._last, self._clock)
        while pages := await cursor.read():
            for page in pages:
                self._take(page)

    def _take(self, page: Page) -> None:
        """Take in another's page, which follows the last one."""
        assert self._stored is not None
        self._stored.add(block.index for block in page.blocks)
        self._stored.add_last(page.head.run, page.head.stop)
        self._stored.forget(RANGES_MAX)
        self._last = page.head

    async def _held_among(self, wanted: Collection[int]) -> set[int]:
        """Those of ``wanted`` that are stored. Cost: none; a GET per page where one lies below all that is known."""
        assert self._stored is not None
        if not wanted or min(wanted) >= self._stored.known_from:
            return {index for index in wanted if index in self._stored}
        return await self._read_back(wanted)

    async def _read_back(self, wanted: Collection[int]) -> set[int]:
        """As ``_held_among``, by reading the chain from its beginning; takes in all that is there."""
        cursor, stored, held = StageCursor(self._chain, None, self._clock), Indices(), set[int]()
        while pages := await cursor.read():
            for page in pages:
                indices = [block.index for block in page.blocks]
                held.update(index for index in indices if index in wanted)
                stored.add(indices)
        stored.forget(RANGES_MAX)
        self._last, self._stored = cursor.last, stored
        return held


def _checked(blocks: Sequence[Block], completes: bool) -> _Call:
    """The call for these blocks. Raises InvalidArgument, LimitExceeded."""
    if len(blocks) > BLOCKS_MAX:
        raise LimitExceeded(f"too many blocks at once blocks={len(blocks)} limit={BLOCKS_MAX}; append fewer at a time")
    if not blocks and not completes:
        raise InvalidArgument("needs at least one block blocks=[]")
    size = sum(map(check_block, blocks))
    if size > APPEND_BYTES_MAX:
        raise LimitExceeded(f"too much text at once bytes={size} limit={APPEND_BYTES_MAX}; append less at a time")
    return _Call(tuple(blocks), size, completes)
