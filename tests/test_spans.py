"""Spans: what goes on is told to a tracer, with attributes that are in the table; without one nothing is loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import logstore
from logstore import InvalidArgument, NotFound, NotStored
from logstore.filestore import MemoryStore
from logstore.otel import OpenTelemetry
from logstore.spans import SPANS, Attribute
from projections import View, keep
from tests.pages import read
from tests.scene import Scene, directed, quick, refuse
from tests.test_snapshots import Things, thing


class Traced:
    """A provider whose spans can be looked at."""

    def __init__(self, *, requests: bool = False) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OpenTelemetry(self.provider, requests=requests)

    def spans(self, name: str = "") -> list[ReadableSpan]:
        """Those that have ended, in that order; of one name."""
        return [span for span in self._exporter.get_finished_spans() if name in ("", span.name)]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("logstore."): value for name, value in (span.attributes or {}).items()}


@directed
async def test_all_that_the_table_has_is_told(scene: Scene) -> None:
    """Each span with just the attributes that the page names."""
    traced = Traced(requests=True)
    async with scene.machine("web").open(quick(), tracer=traced.tracer) as log, log.writer("web") as writer:
        await writer.append(thing(1))
        async with View.open(log, Things()) as view:
            await view.snapshot()
        rounds = keep(log)
        await anext(rounds)
        await rounds.aclose()
    told: dict[str, set[str]] = {}
    for span in traced.spans():
        told.setdefault(span.name, set()).update(attributes(span))
    assert told == {name: set(names) for name, names in SPANS.items()}


def test_the_table_is_that_of_the_code() -> None:
    """docs/observability.md has every span with its attributes, and none that there is not."""
    page = read("docs/observability.md")
    rows = re.findall(r"^\| `((?:logstore|projections)\.\w+)` \| ([^|]*) \|", page, re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", given)) for name, given in rows} == SPANS


async def test_an_append_is_part_of_what_its_caller_does() -> None:
    """Calls that share a segment have a span each, under their own callers' spans; with where they are stored."""
    traced = Traced()
    caller = trace.get_tracer("caller", tracer_provider=traced.provider)
    async with logstore.open(MemoryStore(), tracer=traced.tracer) as log, log.writer("web") as writer:
        for number in range(2):
            with caller.start_as_current_span(f"call {number}"):
                await writer.append_many([thing(number), thing(number + 10)])
    appends = traced.spans("logstore.append")
    assert [(attributes(span)["slot"], attributes(span)["events"]) for span in appends] == [(0, 2), (1, 2)]
    for number, span in enumerate(appends):
        [called] = traced.spans(f"call {number}")
        assert span.parent is not None
        assert called.context is not None
        assert span.parent.span_id == called.context.span_id
    assert {span.name for span in traced.spans()} == {"logstore.open", "logstore.append", "call 0", "call 1"}


@directed
async def test_a_leaders_commit_is_an_append(scene: Scene) -> None:
    """With the leader's name."""
    traced = Traced()
    async with scene.machine("web").open(quick(), tracer=traced.tracer) as log:
        lead = log.lead("leader", {"Thing"})
        await lead.acquire()
        await lead.append([thing(1)])
        await lead.aclose()
    [span] = traced.spans("logstore.append")
    assert (attributes(span)["writer"], attributes(span)["events"]) == ("leader", 1)


@directed
async def test_an_error_is_the_outcome_of_its_span(scene: Scene) -> None:
    """Recorded with its name, and the span is an error; one of a request that was answered NotFound, too."""
    traced = Traced(requests=True)
    machine = scene.machine("web")
    async with machine.open(quick(deadline_ms=10_000), tracer=traced.tracer) as log, log.writer("web") as writer:
        await writer.append(thing(1))
        machine.script.on("create", "log/web", refuse, 8)
        with pytest.raises(NotStored):
            await writer.append(thing(2))
        machine.script.clear()
    good, bad = traced.spans("logstore.append")
    assert good.status.is_ok
    assert (bad.status.status_code, bad.events[0].name) == (trace.StatusCode.ERROR, "exception")
    assert (bad.events[0].attributes or {})["exception.type"] == "logstore.errors.NotStored"
    failed = [span for span in traced.spans("logstore.request") if not span.status.is_ok]
    assert [attributes(span)["verb"] for span in failed].count("create") >= 8


async def test_a_listing_is_a_span_of_its_own() -> None:
    """However it ends, and whatever its caller does meanwhile: that is no part of it."""
    traced = Traced(requests=True)
    async with logstore.open(MemoryStore(), tracer=traced.tracer) as log, log.writer("web") as writer:
        await writer.append(thing(1))
        await log.survey()
    listings = [span for span in traced.spans("logstore.request") if attributes(span)["verb"] == "list"]
    assert {"roster/", "log/", "retired/"} <= {attributes(span)["key"] for span in listings}
    inside = {span.context.span_id for span in listings if span.context is not None}
    assert not [span for span in traced.spans() if span.parent is not None and span.parent.span_id in inside]


async def test_a_log_that_cannot_be_opened_tells_why() -> None:
    """The span ends, too."""
    traced = Traced()
    with pytest.raises(NotFound):
        async with logstore.open(MemoryStore(), read_only=True, tracer=traced.tracer):
            pass
    [span] = traced.spans()
    assert (span.name, span.status.status_code) == ("logstore.open", trace.StatusCode.ERROR)
    with pytest.raises(InvalidArgument):
        View.open(logstore.open(MemoryStore()), Things())


class Failing:
    """A tracer that fails at one place, or swallows the errors of what it is told of."""

    requests = True

    def __init__(self, at: Literal["span", "enter", "note", "exit", "nowhere"]) -> None:
        self._at = at

    def _fail(self, place: str) -> None:
        if place == self._at:
            raise ConnectionError(f"no collector at {place}")

    def span(self, name: str, attributes: Mapping[str, Attribute], *, current: bool = True) -> Failing:
        self._fail("span")
        return self

    def __enter__(self) -> Failing:
        self._fail("enter")
        return self

    def note(self, **attributes: Attribute) -> None:
        self._fail("note")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        self._fail("exit")
        return True


@pytest.mark.parametrize("at", ["span", "enter", "note", "exit"])
async def test_a_tracer_that_fails_disturbs_nobody(
    at: Literal["span", "enter", "note", "exit"], caplog: pytest.LogCaptureFixture
) -> None:
    """It ended writers and followers, and an append that was stored was told failed. It is told of once."""
    async with (
        logstore.open(MemoryStore(), tracer=Failing(at)) as log,
        log.writer("web") as writer,
        View.open(log, Things(), follow=True) as view,
    ):
        await view.wait_for(await writer.append(thing(1)))
        await view.snapshot()
        assert len(view) == 1
    [failed] = [record for record in caplog.records if getattr(record, "notice", "") == "tracer-failed"]
    assert failed.getMessage().endswith(f": ConnectionError: no collector at {at}")


async def test_a_tracer_swallows_no_error() -> None:
    """A failed creation would look as if it had been stored."""
    with pytest.raises(NotFound):
        async with logstore.open(MemoryStore(), read_only=True, tracer=Failing("nowhere")):
            pass


def test_who_does_not_ask_loads_nothing() -> None:
    """OpenTelemetry is imported by who imports ``logstore.otel``, and only its API."""
    loaded = "[n for n in ('opentelemetry', 'opentelemetry.sdk') if n in sys.modules]"
    script = f"import sys, logstore, projections.cli.keep; print({loaded}); import logstore.otel; print({loaded})"
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output.splitlines() == ["[]", "['opentelemetry']"]
