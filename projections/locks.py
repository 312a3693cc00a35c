"""Locks on documents: whoever comes first has it first. In one process's memory; a leader's transactions queue here.

Invariants:
- A lock is had by one holder at a time, in the order of asking.
- Nobody waits longer than its time, nor behind more than so many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Final

from logstore.errors import Conflict

__all__ = ["Locks"]

WAITING_MAX: Final = 100
WAIT_S: Final = 5.0


class Locks:
    """Who has which document, and who waits for it."""

    def __init__(self, *, waiting_max: int = WAITING_MAX, wait_s: float = WAIT_S) -> None:
        self._waiting_max = waiting_max
        self._wait_s = wait_s
        self._waiters: dict[Hashable, deque[asyncio.Future[None]]] = {}  # of each one that is had

    def __repr__(self) -> str:
        return f"<Locks had={len(self._waiters)} waiting={sum(map(len, self._waiters.values()))}>"

    async def take(self, name: Hashable) -> None:
        """Have a lock, once all who asked before have had it. Conflict: too many wait, or it took too long."""
        waiters = self._waiters.get(name)
        if waiters is None:
            self._waiters[name] = deque()
            return
        if len(waiters) >= self._waiting_max:
            raise Conflict(
                f"too many transactions wait for a document document={name} waiting={len(waiters)}; try later"
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        try:
            async with asyncio.timeout(self._wait_s):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():
                self.release(name)  # it came, too late for us
            elif waiter in waiters:  # else it was passed over as we left
                waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                raise Conflict(
                    f"another transaction has a document too long document={name} waited_s={self._wait_s}; try again"
                ) from error
            raise

    def release(self, name: Hashable) -> None:
        """Let the next one have it."""
        waiters = self._waiters[name]
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._waiters[name]

    def _check(self) -> None:
        """Assert what must hold between any two calls; for tests."""
        # Nobody who waits has been let in; who has gone but was not told yet may stand there still.
        assert not any(w.done() and not w.cancelled() for waiters in self._waiters.values() for w in waiters)
