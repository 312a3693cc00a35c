"""Stage logs: what a stage of a deployment printed, block by block; read from an offset, followed live, completed.

Each try of a stage has a log of its own, and none of them is part of the log: they are neither ordered with events nor
folded into views, and read only when somebody asks. ``stagewriter.py`` appends, ``stagechain.py`` reads.

Invariants:
- No object is written twice, and no block: the bytes written are those of the blocks, and 176 for each append.
- A stage log that retention removed is gone for ever: Trimmed, whoever asks, and however long he slept.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from logstore.clock import Clock
from logstore.errors import InvalidArgument, NotFound
from logstore.follower import PAUSE_GROWTH, FollowSettings
from logstore.keys import NUMBER_MAX, StageId, stage_prefix
from logstore.stagechain import StageChain, StageCursor
from logstore.stagepage import INDEX_STOP_MAX, Block
from logstore.stagewriter import StageWriter

if TYPE_CHECKING:
    from logstore.log import Log

__all__ = ["Stage", "StageLogs", "check_stage"]


class StageLogs:
    """The stage logs of a log.

    >>> import asyncio, logstore
    >>> from logstore import Block, StageLogs
    >>> async def example():
    ...     async with logstore.open("memory://doctest-stage-logs") as log:
    ...         stage = StageLogs(log).stage("deployment-1", "stage-2", retry=0)
    ...         await stage.append([Block(0, "pulling"), Block(1, "pulled")])
    ...         await stage.append([Block(1, "pulled"), Block(2, "applied")])
    ...         await stage.complete()
    ...         blocks, completed = await stage.fetch(offset=1)
    ...         return [block.text for block in blocks], completed
    >>> asyncio.run(example())
    (['pulled', 'applied'], True)
    """

    def __init__(self, log: Log) -> None:
        self._log = log

    def __repr__(self) -> str:
        return f"<StageLogs of {self._log!r}>"

    def stage(self, deployment: str, stage: str, retry: int = 0) -> Stage:
        """Return one stage log, to be written or read; it need not exist. Keep it: it remembers where it is.

        Any number of processes may write and read one. Cost: none. Raises InvalidArgument for names that are empty or
        longer than 200 bytes, and for a retry that is no number from 0 to 9,999,999,999.
        """
        return self._log.stage_log(check_stage(deployment, stage, retry))

    async def stages(self, deployment: str) -> list[StageId]:
        """The stage logs of a deployment that are there, by name and retry. Cost: a LIST per 1,000 pages they have."""
        return await self._log.stage_logs_of(deployment)


def check_stage(deployment: str, stage: str, retry: int) -> StageId:
    """Return the id of a stage log; InvalidArgument when there can be none."""
    if type(retry) is not int or not 0 <= retry <= NUMBER_MAX:
        raise InvalidArgument(f"needs a whole number from 0 to {NUMBER_MAX} retry={retry!r:.40}")
    for name, argument in ((deployment, "deployment"), (stage, "stage")):
        if type(name) is not str:
            raise InvalidArgument(f"needs text {argument}={name!r:.40}")
    made = StageId(deployment, stage, retry)
    stage_prefix(made)
    return made


class Stage:
    """One stage log. Made by ``StageLogs.stage``.

    >>> async def tail(stage):
    ...     async for block in stage.follow():
    ...         print(block.index, block.text)
    """

    def __init__(
        self,
        chain: StageChain,
        *,
        clock: Clock,
        rng: random.Random,
        follow: FollowSettings,
        read_only: bool,
    ) -> None:
        self._chain = chain
        self._clock = clock
        self._rng = rng
        self._follow = follow
        self._read_only = read_only
        self._writer = StageWriter(chain, clock)
        self._reading = StageCursor(chain, None, clock)

    def __repr__(self) -> str:
        return f"<Stage {self.id} writer={self._writer!r} reading={self._reading!r}>"

    @property
    def id(self) -> StageId:
        """Which one it is. Cost: none."""
        return self._chain.stage

    # Writing

    async def append(self, blocks: Sequence[Block]) -> None:
        """Store the blocks whose indices are not stored yet; return when all are durable.

        Blocks may come in any order, from any process, again and again: of those with one index the first that is
        stored stays. Once the stage log is complete a new block is refused; one that is stored already is fine.
        Concurrent calls share an object. Interrupted, or Unavailable, it may be stored or not: append it again.

        Cost: one PUT; none where nothing is new. The first time also 2·log2 of the pages that are there in GETs of 176
        bytes, and two; a GET each half grace; where another process writes too, a GET and a PUT more for each time that
        it was faster. A block whose index lies below the last unbroken range of indices, for the first such: a GET per
        page. Raises Conflict (complete), LimitExceeded (65,536 blocks, 8 MiB of text), InvalidArgument, Trimmed,
        Corrupt, Missing, Unavailable.
        """
        self._require_writable()
        await self._writer.append(blocks, completes=False)

    async def complete(self, blocks: Sequence[Block] = ()) -> None:
        """Say that nothing will follow, after storing these last blocks. Again and again is fine.

        Cost: as ``append``, always with a PUT unless it is known to be complete. Raises what ``append`` raises.
        """
        self._require_writable()
        await self._writer.append(blocks, completes=True)

    def _require_writable(self) -> None:
        if self._read_only:
            raise InvalidArgument("this log was opened read-only; open it without read_only=True")

    # Reading

    async def fetch(self, offset: int = 0) -> tuple[list[Block], bool]:
        """Return what is stored from index ``offset`` on, by index, and whether that is all for ever.

        What was acknowledged before the call, by anyone, is in it. All of it is in memory at once; ``follow`` is not.

        Cost: a GET per page from the first on that may hold such a block, up to 7 more at the end, and one. Where it
        begins is found by 2·log2 of the pages before, GETs of 176 bytes; at once where the last ``fetch`` of this
        object ended: then one GET if nothing is new, once a minute two. Two more the first time, one each half grace.
        Raises NotFound when nothing was ever written, Trimmed, Corrupt, Missing, Unavailable.
        """
        cursor = await self._cursor_at(_checked_offset(offset))
        blocks: list[Block] = []
        while pages := await cursor.read():
            blocks += [block for page in pages for block in page.blocks if block.index >= offset]
        if cursor.last is None:
            raise NotFound(f"nothing was written to this stage log stage_log={self.id}; check the names, or follow it")
        if cursor.next >= self._reading.next:
            self._reading = cursor
        blocks.sort(key=attrgetter("index"))
        return blocks, cursor.last.complete

    async def follow(self, offset: int = 0) -> AsyncGenerator[Block, None]:
        """Yield what is stored from index ``offset`` on, then what comes, until the stage log is complete.

        In the order in which it is stored, which is that of indices where they were written so; waits for a stage log
        that nobody has begun. Holds 8 pages at a time at most, and fewer where they are large.

        Cost: as ``fetch``; then a GET per poll, and one more each minute. Raises Trimmed, Corrupt, Missing;
        Unavailable: go on from the last index.
        """
        cursor, pause_ms = await self._cursor_at(_checked_offset(offset)), float(self._follow.poll_ms_min)
        while True:
            pages = await cursor.read()
            for page in pages:
                for block in page.blocks:
                    if block.index >= offset:
                        yield block
            if cursor.last is not None and cursor.last.complete:
                return
            if pages:
                pause_ms = self._follow.poll_ms_min
                continue
            await asyncio.sleep(pause_ms * self._rng.uniform(0.8, 1.0) / 1000)
            pause_ms = min(pause_ms * PAUSE_GROWTH, self._follow.poll_ms_max)

    async def _cursor_at(self, offset: int) -> StageCursor:
        """Where to read on so as to meet all blocks from ``offset`` on."""
        reading = self._reading
        if reading.last is not None and reading.last.stop <= offset:
            return reading.copy()
        return StageCursor(self._chain, await self._chain.last_below(offset) if offset else None, self._clock)


def _checked_offset(offset: int) -> int:
    if type(offset) is not int or not 0 <= offset <= INDEX_STOP_MAX:
        raise InvalidArgument(f"needs a whole number of at least 0 offset={offset!r:.40}")
    return offset
