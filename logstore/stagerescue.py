"""What is left of the stage logs of a damaged store, in a new one. docs/rfcs/0005-copies.md, "Loss".

Invariants:
- A stage log is copied up to the first page that is lost or does not continue the one before it.
- One that is gone stays gone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from logstore.errors import Corrupt
from logstore.filestore.base import FileStore, Listed
from logstore.finding import Progress
from logstore.frame import DIGEST_BYTES
from logstore.gone import Gone, decode_gone, encode_gone
from logstore.keys import StageId, StagePageKey, parse_key, stage_gone_key, stage_page_key
from logstore.stagelisting import ListedStage, listed_stages
from logstore.stagepage import Page, PageHead, decode_page, require_follows
from logstore.transfer import place
from logstore.walk import Walked, fetch, walk

__all__ = ["rescue_stage_logs"]

Lose = Callable[[str, str, str], None]
GONE: Final = "it is gone"


@dataclass(slots=True)
class _Kept:
    """How much of a stage log is kept: up to and including ``last``. ``is_over``: what follows is lost."""

    stage: StageId
    last: PageHead | None = None
    is_over: bool = False


async def rescue_stage_logs(source: FileStore, target: FileStore, progress: Progress, lose: Lose) -> None:
    """Copy what is left of all stage logs; tell ``lose`` what is not.

    Cost: a LIST per 1,000 keys; a GET and a PUT per object. Raises Unavailable.
    """
    gone: list[ListedStage] = []
    kept: _Kept | None = None
    async with aclosing(walk(source, _pages(source, gone), _decode)) as pages:
        async for walked in pages:
            key = parse_key(walked.key)
            assert isinstance(key, StagePageKey)
            if kept is None or kept.stage != key.stage:
                kept = _Kept(key.stage)
            if not kept.is_over and (data := _next(kept, key, walked, lose)) is not None:
                await place(target, walked.key, data, progress)
    for stage in gone:
        await place(target, stage_gone_key(stage.id), await _record(source, stage.id, lose), progress)


async def _pages(source: FileStore, gone: list[ListedStage]) -> AsyncGenerator[Listed, None]:
    """The pages of the stage logs that are not gone; the others are added to ``gone``."""
    async with aclosing(listed_stages(source)) as stages:
        async for stage in stages:
            if stage.gone is None:
                for page in stage.pages:
                    yield page
            else:
                gone.append(ListedStage(stage.id))


def _next(kept: _Kept, key: StagePageKey, walked: Walked[tuple[Page, bytes]], lose: Lose) -> bytes | None:
    """The bytes of a page that follows what is kept; None: it does not, and the stage log is over."""
    number = 0 if kept.last is None else kept.last.key.number + 1
    what = GONE
    if key.number == number and walked.damage is not None:
        what = _only_what(walked.damage, walked.key)
    elif key.number == number and walked.value is not None:
        page, data = walked.value
        try:
            require_follows(page, kept.last)
        except Corrupt as error:
            what = _only_what(error, walked.key)
        else:
            kept.last = page.head
            return data
    kept.is_over = True
    lose(stage_page_key(StagePageKey(kept.stage, number)), what, "the stage log ends before it in the copy")
    return None


async def _record(source: FileStore, stage: StageId, lose: Lose) -> bytes:
    """The bytes of the record that a stage log is gone, or of one that says no more than that."""
    name = stage_gone_key(stage)
    walked = await fetch(source, name, lambda _, data: (decode_gone(stage, data), data))
    if walked.value is not None:
        return walked.value[1]
    what = GONE if walked.damage is None else _only_what(walked.damage, name)
    lose(name, what, "the copy has one that says that the stage log is gone")
    return encode_gone(Gone(stage, 0, bytes(DIGEST_BYTES)))


def _only_what(error: Corrupt, key: str) -> str:
    return str(error).split("; ", maxsplit=1)[0].replace(f" key={key}", "")


def _decode(name: str, data: bytes) -> tuple[Page, bytes]:
    key = parse_key(name)
    assert isinstance(key, StagePageKey)
    return decode_page(key, data), data
