"""Keep Python's cyclic garbage collector away from what is large and lives long.

The collector visits every item of every list it knows, again and again while objects are made. An index is lists with
an entry for each row: a million rows with two indexes make each full collection 0.2 seconds longer, and decoding rows
starts one every few thousand. *Frozen* objects are passed over; they are freed as ever when nobody refers to
them, except in a cycle, which stays for good.

Invariants:
- What is garbage when freezing begins is collected, not frozen.
- Whether the collector runs is afterwards as it was before.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["built_to_stay"]


@contextmanager
def built_to_stay() -> Iterator[None]:
    """Within it nothing is collected; afterwards all objects there are, of the whole process, are frozen.

    Nothing that awaits belongs in it. Cost: a full collection at the beginning.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()
