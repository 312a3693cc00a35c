"""Work that would hold up the event loop, done beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

__all__ = ["decode_aside"]

INLINE_BYTES_MAX: Final = 32 << 10  # below this a hop to a thread costs more than the decoding

P = ParamSpec("P")
T = TypeVar("T")


async def decode_aside(size: int, decode: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return ``decode(…)``, in a thread if the object, of ``size`` bytes, is large. Raises what that raises."""
    if size <= INLINE_BYTES_MAX:
        return decode(*args, **kwargs)
    return await asyncio.to_thread(decode, *args, **kwargs)
