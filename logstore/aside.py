"""Work beside the caller's: decoding that would hold up the event loop, and tasks that nobody may ask about again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["decode_aside", "retrieve"]

INLINE_BYTES_MAX: Final = 32 << 10  # below this a hop to a thread costs more than the decoding

P = ParamSpec("P")
T = TypeVar("T")


async def decode_aside(size: int, decode: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``decode(…)``, in a thread if the object, of ``size`` bytes, is large. Raises what that raises."""
    if size <= INLINE_BYTES_MAX:
        return decode(*args, **kwargs)
    return await asyncio.to_thread(decode, *args, **kwargs)


def retrieve(task: asyncio.Future[Any]) -> None:
    """A done callback: perhaps nobody asks for the task's result; its error is not reported as never retrieved then."""
    if not task.cancelled():
        task.exception()
