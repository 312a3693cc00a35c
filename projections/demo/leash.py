"""What ties the demo's processes to their conductor: a pipe, on which it says go, and whose end ends them."""

from __future__ import annotations

import asyncio
import os
import sys

__all__ = ["hold_leash"]


def hold_leash() -> asyncio.Event:
    """Return an event that is set when the conductor says go; end this process when the conductor is gone."""
    go = asyncio.Event()

    def hear() -> None:
        if os.read(sys.stdin.fileno(), 1_024):
            go.set()
        else:
            os._exit(1)

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), hear)
    return go
