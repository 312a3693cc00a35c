"""Spans: what takes time, told to a tracer while it goes on. ``otel.py`` has the one for OpenTelemetry.

``SPANS`` is the whole list, with the attributes of each; docs/observability.md shows it.

Invariants:
- A log without a tracer asks nothing of this module but whether there is one.
- No attribute holds what users stored: names and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

__all__ = ["SPANS", "Attribute", "Span", "Tracer", "span_of"]

Attribute = str | int | float | bool

SPANS: Final[dict[str, tuple[str, ...]]] = {
    "logstore.open": ("read_only", "store"),
    "logstore.append": ("store", "writer", "events", "chapter", "session", "slot"),
    "logstore.request": ("verb", "key", "bytes"),
    "projections.open": ("store", "projection", "version", "rows"),
    "projections.catch_up": ("store", "projection", "version", "events"),
    "projections.snapshot": ("store", "projection", "version", "key", "rows", "chunks"),
    "projections.keep": ("store", "sealed", "snapshots", "retired", "collected", "problems"),
}


class Span(Protocol):
    """Something that goes on."""

    def note(self, **attributes: Attribute) -> None:
        """Add what is known by now. Cost: the tracer's."""
        ...


class Tracer(Protocol):
    """Is told of spans. ``requests``: whether of each request to the store, too, which are many.

    Users implement it, or pass ``logstore.otel.OpenTelemetry()``: ``logstore.open(…, tracer=…)``.

    >>> from contextlib import contextmanager
    >>> class Printed:
    ...     requests = False
    ...     def note(self, **attributes):
    ...         pass
    ...     @contextmanager
    ...     def span(self, name, attributes, *, current=True):
    ...         print("begins:", name)
    ...         yield self
    >>> import asyncio, logstore
    >>> async def example():
    ...     async with logstore.open("memory://doctest-spans", tracer=Printed()):
    ...         pass
    >>> asyncio.run(example())
    begins: logstore.open
    """

    @property
    def requests(self) -> bool:
        """Whether each attempt of a request is to have a span."""
        ...

    def span(
        self, name: str, attributes: Mapping[str, Attribute], *, current: bool = True
    ) -> AbstractContextManager[Span]:
        """Return a span that goes on while within; an error that leaves it is its outcome.

        ``current``: what begins within is part of it. Cost: the tracer's.
        """
        ...


class _NoSpan:
    """The span of who is not traced."""

    def note(self, **attributes: Attribute) -> None:
        """Nobody listens."""


_NOBODY: Final = nullcontext(_NoSpan())


def span_of(tracer: Tracer | None, name: str, **attributes: Attribute) -> AbstractContextManager[Span]:
    """Return a span of ``tracer``; None: one that nobody hears of."""
    return _NOBODY if tracer is None else tracer.span(name, attributes)
