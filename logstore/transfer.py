"""Objects carried from one store into another: verified, in order, some at a time.

Invariants:
- Nothing is created in the target but what was decoded and found whole.
- Each object is created after those before it: wherever a transfer ends, the target has a beginning of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from logstore.aside import decode_aside
from logstore.errors import AlreadyExists, InvalidArgument, Missing, NotFound
from logstore.filestore.base import FileStore
from logstore.finding import Progress
from logstore.named import decode_named

__all__ = ["carry", "fetch_whole", "place"]

AT_ONCE: Final = 16
Amend = Callable[[str, bytes], bytes]


async def carry(
    names: AsyncIterator[str],
    source: FileStore,
    target: FileStore,
    progress: Progress,
    *,
    amend: Amend | None = None,
    may_be_gone: Callable[[str], bool] = lambda _: False,
) -> None:
    """Create each of ``names`` in the target, as it is in the source or as ``amend`` makes it of that.

    ``amend`` is called in order. What ``may_be_gone`` is left out where it is: somebody collects in the source.
    Cost: a GET and a PUT each. Raises Corrupt and Missing, naming what is wrong in the source; InvalidArgument where
    the target has something else under a name; Unavailable.
    """
    ahead: deque[tuple[str, asyncio.Task[bytes]]] = deque()

    async def create_next() -> None:
        name, task = ahead[0]
        try:
            data = await task
        except Missing:
            if not may_be_gone(name):
                raise
            ahead.popleft()
            return
        ahead.popleft()
        await place(target, name, amend(name, data) if amend else data, progress)

    try:
        async for name in names:
            ahead.append((name, asyncio.create_task(_read_whole(source, name))))
            if len(ahead) > AT_ONCE:
                await create_next()
        while ahead:
            await create_next()
    finally:
        for _, task in ahead:
            task.cancel()
        await asyncio.gather(*(task for _, task in ahead), return_exceptions=True)


async def place(target: FileStore, name: str, data: bytes, progress: Progress) -> None:
    """Create one object, unless it is there. Raises InvalidArgument where another one is, Unavailable."""
    try:
        await target.create(name, data)
    except AlreadyExists:
        if await fetch_whole(target, name) != data:
            raise InvalidArgument(f"the target holds another object key={name}; copy into an empty place") from None
    progress.objects += 1
    progress.bytes += len(data)


async def fetch_whole(store: FileStore, name: str) -> bytes:
    """The bytes of an object. Raises Missing where it is gone, Unavailable."""
    try:
        return (await store.get(name)).data
    except NotFound as error:
        raise Missing(f"an object of the source is gone key={name}; run `logstore check` on it") from error


async def _read_whole(source: FileStore, name: str) -> bytes:
    """An object of the source that decodes. Raises Corrupt, Missing."""
    data = await fetch_whole(source, name)
    await decode_aside(len(data), decode_named, name, data)
    return data
