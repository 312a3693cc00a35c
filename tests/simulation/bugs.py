"""Bugs to plant, by name: each breaks production code in one place, as somebody might who did not know why it is so.

Production code has no switches for this; a bug is a replacement of one of its functions, for as
long as ``planted`` is entered. Each must be found by some checker within a thousand seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["BUGS", "KNOWN_SEEDS", "planted"]

Plant = Callable[[ExitStack], None]
BUGS: dict[str, Plant] = {}
KNOWN_SEEDS: dict[str, int] = {}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant the bug of that name (None: none) while entered."""
    with ExitStack() as stack:
        if name is not None:
            BUGS[name](stack)
        yield


def _bug(name: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        BUGS[name] = plant
        return plant

    return register
