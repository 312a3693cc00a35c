"""Spans: what takes time, told to a tracer while it goes on. ``otel.py`` has the one for OpenTelemetry.

``SPANS`` is the whole list, with the attributes of each; docs/observability.md shows it.

Invariants:
- A log without a tracer asks nothing of this module but whether there is one.
- No attribute holds what users stored: names and numbers.
- A tracer that fails disturbs nobody: what it is told of returns, or raises, what it would without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Final, Protocol

from logstore.notices import Notices

__all__ = ["SPANS", "Attribute", "SafeTracer", "Span", "Tracer", "span_of"]

_log = logging.getLogger(__name__)

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

    Users implement it, or pass ``logstore.otel.OpenTelemetry()``: ``logstore.open(…, tracer=…)``. What it raises
    disturbs nobody; the first time it is told as the notice ``tracer-failed``.

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


class SafeTracer:
    """A tracer around one that may fail. Cost: a microsecond or two a span."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._say = Notices(_log)
        self._has_failed = False

    def __repr__(self) -> str:
        return f"<SafeTracer {self._tracer!r}>"

    @property
    def requests(self) -> bool:
        """See Tracer."""
        return self._tracer.requests

    def span(
        self, name: str, attributes: Mapping[str, Attribute], *, current: bool = True
    ) -> AbstractContextManager[Span]:
        """See Tracer."""
        return _SafeSpan(lambda: self._tracer.span(name, attributes, current=current), self._hear)

    def _hear(self, error: Exception) -> None:
        """Tell of the first failure: what fails may do so at every request."""
        if not self._has_failed:
            self._has_failed = True
            self._say("tracer-failed", error=error)


class _SafeSpan:
    """A span of a tracer that may fail. What leaves it is what was raised within, never less and nothing else."""

    def __init__(self, make: Callable[[], AbstractContextManager[Span]], hear: Callable[[Exception], None]) -> None:
        self._make = make
        self._hear = hear
        self._within: AbstractContextManager[Span] | None = None
        self._span: Span | None = None

    def __enter__(self) -> Span:
        try:
            within = self._make()
            self._span = within.__enter__()
            self._within = within
        except Exception as error:  # noqa: BLE001  # a tracer is the caller's: it may raise anything
            self._hear(error)
        return self

    def note(self, **attributes: Attribute) -> None:
        """See Span."""
        try:
            if self._span is not None:
                self._span.note(**attributes)
        except Exception as error:  # noqa: BLE001  # a tracer is the caller's: it may raise anything
            self._hear(error)

    def __exit__(
        self, kind: type[BaseException] | None, outcome: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._within is not None:
                self._within.__exit__(kind, outcome, trace)
        except Exception as error:  # noqa: BLE001  # a tracer is the caller's: it may raise anything
            if error is not outcome:
                self._hear(error)


class _NoSpan:
    """The span of who is not traced."""

    def note(self, **attributes: Attribute) -> None:
        """Nobody listens."""


_NOBODY: Final = nullcontext(_NoSpan())


def span_of(tracer: Tracer | None, name: str, **attributes: Attribute) -> AbstractContextManager[Span]:
    """Return a span of ``tracer``; None: one that nobody hears of."""
    return _NOBODY if tracer is None else tracer.span(name, attributes)
