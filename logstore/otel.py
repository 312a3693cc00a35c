"""Spans for OpenTelemetry. Needs ``pip install 'logstore[otel]'``; nobody else imports this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import trace

from logstore.spans import Attribute

__all__ = ["OpenTelemetry"]


class _OpenTelemetrySpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def note(self, **attributes: Attribute) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"logstore.{name}", value)


class OpenTelemetry:
    """A tracer for ``logstore.open(…, tracer=…)``: spans of the provider given, else of the process's own.

    ``requests``: a span for each attempt of each request, too. Attributes are named ``logstore.…``. An error that
    leaves a span is recorded in it. Cost: that of the provider; some microseconds a span where nobody samples.

    >>> import asyncio, logstore
    >>> from logstore.otel import OpenTelemetry
    >>> async def example():
    ...     async with logstore.open("memory://doctest-otel", tracer=OpenTelemetry()) as log:
    ...         return log.read_only
    >>> asyncio.run(example())
    False
    """

    def __init__(self, tracer_provider: trace.TracerProvider | None = None, *, requests: bool = False) -> None:
        self._tracer = trace.get_tracer("logstore", version("logstore"), tracer_provider)
        self._requests = requests

    def __repr__(self) -> str:
        return f"<OpenTelemetry requests={self._requests}>"

    @property
    def requests(self) -> bool:
        """Whether each attempt of a request is to have a span. Cost: none."""
        return self._requests

    @contextmanager
    def span(
        self, name: str, attributes: Mapping[str, Attribute], *, current: bool = True
    ) -> Iterator[_OpenTelemetrySpan]:
        """See Tracer."""
        span = self._tracer.start_span(name)
        noted = _OpenTelemetrySpan(span)
        noted.note(**attributes)
        if current:
            with trace.use_span(span, end_on_exit=True):
                yield noted
            return
        try:
            yield noted
        except Exception as error:
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}")
            raise
        finally:
            span.end()
