"""Stage logs as they are listed, one after the other: for who looks after a store. Nobody lists to read or write one.

The record that a stage log is gone comes behind its pages, so that a stage log is known when all of it was listed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from logstore.filestore.base import FileStore, Listed
from logstore.keys import STAGE_LOGS, StageGoneKey, StageId, StagePageKey, parse_key

__all__ = ["ListedStage", "listed_stages"]


@dataclass(slots=True)
class ListedStage:
    """What is listed of one stage log: its pages by number, and the record that it is gone, if there is one."""

    id: StageId
    pages: list[Listed] = field(default_factory=list)
    gone: Listed | None = None

    @property
    def newest_ms(self) -> int | None:
        """When the store got its newest page, Unix milliseconds; None where it has none, or a time is not told."""
        times = [page.modified_ms for page in self.pages]
        known = [time for time in times if time is not None]
        return max(known) if known and len(known) == len(times) else None


async def listed_stages(store: FileStore, prefix: str = STAGE_LOGS) -> AsyncGenerator[ListedStage, None]:
    """Yield every stage log that is there, in the order of names. Cost: a LIST per 1,000 keys.

    Memory: one stage log's names.
    """
    stage: ListedStage | None = None
    async for listed, key in _of_stages(store.list(prefix)):
        if stage is None or stage.id != key.stage:
            if stage is not None:
                yield stage
            stage = ListedStage(key.stage)
        if isinstance(key, StageGoneKey):
            stage.gone = listed
        else:
            stage.pages.append(listed)
    if stage is not None:
        yield stage


async def _of_stages(
    listing: AsyncIterator[Listed],
) -> AsyncGenerator[tuple[Listed, StageGoneKey | StagePageKey], None]:
    async for listed in listing:
        if isinstance(key := parse_key(listed.key), StageGoneKey | StagePageKey):
            yield listed, key
