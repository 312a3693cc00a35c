"""Lets old stage logs go: completes those that nobody completed, then records that they are gone.

docs/rfcs/0010-stage-logs.md §5. A grace after its record ``collector.py`` deletes what is left. Any number of processes
may do this: each step is a creation that one of them wins.

Invariants:
- A stage log is recorded as gone only when it is complete, so that nothing that is acknowledged later goes with it.
- What is not complete is completed only behind the page that a listing called the last, and old.
- What cannot be read stays, and is said.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from logstore.errors import AlreadyExists, Corrupt, InvalidArgument, Missing, Trimmed
from logstore.filestore.base import FileStore
from logstore.gone import Gone, encode_gone
from logstore.keys import StageId, StagePageKey, parse_key, stage_gone_key
from logstore.looks import Moment
from logstore.needs import Needs
from logstore.objects import Objects
from logstore.retention import is_stage_log_due
from logstore.stagechain import StageChain
from logstore.stagelisting import ListedStage, listed_stages
from logstore.stagepage import PageHead, encode_page

__all__ = ["DroppedStageLog", "StageRetention"]


@dataclass(frozen=True, slots=True)
class DroppedStageLog:
    """What became of an old stage log: dropped (by a dry run: would be), or why it is not.

    >>> async def drop(log):
    ...     async for one in log.keeper().drop_stage_logs(dry_run=True):
    ...         print(one.stage, one.dropped, one.why)
    """

    stage: StageId
    dropped: bool
    why: str
    pages: int
    bytes: int


class StageRetention:
    """Drops stage logs by age. Made by ``Keeper``."""

    def __init__(
        self,
        age_ms: int | None,
        grace_ms: int,
        needs: Needs,
        *,
        store: FileStore,
        objects: Objects,
        chain_of: Callable[[StageId], StageChain],
    ) -> None:
        if age_ms is not None and age_ms < grace_ms:
            raise InvalidArgument(
                f"stage logs are kept for a grace at least stage_logs_age_ms={age_ms} grace_ms={grace_ms}"
            )
        self._age_ms = age_ms
        self._needs = needs
        self._store = store
        self._objects = objects
        self._chain_of = chain_of
        self._listed: Moment | None = None

    def __repr__(self) -> str:
        return f"<StageRetention age_ms={self._age_ms} listed={self._listed}>"

    async def drop(self, *, dry_run: bool = False) -> AsyncGenerator[DroppedStageLog, None]:
        """See ``Keeper.drop_stage_logs``."""
        if self._age_ms is None or (self._listed is not None and self._needs.may_act(self._listed)):
            return
        since = self._needs.now()
        await self._needs.ask_time()
        async with aclosing(listed_stages(self._store)) as stages:
            async for listed in stages:
                if is_stage_log_due(listed, self._needs.surely_ms, self._age_ms):
                    outcome = await self._drop(listed, dry_run)
                    if outcome is not None:
                        yield outcome
        if not dry_run:
            self._listed = since

    async def _drop(self, listed: ListedStage, dry_run: bool) -> DroppedStageLog | None:
        """Drop one stage log; None: somebody has dropped it, or written to it, meanwhile."""
        pages, size = len(listed.pages), sum(page.size for page in listed.pages)
        if dry_run:
            return DroppedStageLog(listed.id, True, "it would be dropped: nothing was added for long", pages, size)
        try:
            last = await self._completed(listed)
        except Trimmed:
            return None
        except (Corrupt, Missing) as error:
            return DroppedStageLog(listed.id, False, f"{type(error).__name__}: {error}", pages, size)
        if last is None:
            return None
        with suppress(AlreadyExists):  # another keeper's, or an earlier attempt of ours
            record = encode_gone(Gone(listed.id, last.key.number + 1, last.digest))
            await self._objects.create(stage_gone_key(listed.id), record)
        return DroppedStageLog(listed.id, True, "nothing was added for long", pages, size)

    async def _completed(self, listed: ListedStage) -> PageHead | None:
        """Its last page, which completes it; None: it has gone on since it was listed."""
        chain, key = self._chain_of(listed.id), parse_key(listed.pages[-1].key)
        assert isinstance(key, StagePageKey)
        last = await chain.last(key.number)
        await chain.require_kept()
        if last is None or last.key != key:
            return None
        if last.complete:
            return last
        data, head = encode_page(
            StagePageKey(listed.id, key.number + 1),
            (),
            run=last.run,
            stop=last.stop,
            previous=last.digest,
            complete=True,
            abandoned=True,
        )
        found = await chain.create(head, data)  # one that is equal is as good: an earlier attempt, or another keeper's
        return head if found is None or found.head.digest == head.digest else None
