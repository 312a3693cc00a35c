"""Metrics: they say what happened, cost no request, and are those that the pages, the dashboard and the alerts name."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

import logstore
from logstore import Event, InvalidArgument, Log, NotFound, WriterSettings, sync
from logstore.appended import Appended
from logstore.filestore import MemoryStore, MeteredStore
from logstore.filestore.base import Blob
from logstore.histogram import Histogram
from projections import View, keep
from projections.exposition import exposed, place_of
from projections.listening import CannotListen
from projections.metrics import METRICS, LogMetrics
from projections.view import _OfLog
from tests.pages import ROOT, read
from tests.scene import FOREVER, Scene, directed, hang, quick, refuse
from tests.test_keeper import age, live_a_day, opened
from tests.test_snapshots import Things, thing

PAGE: Final = "docs/observability.md"
BY_NAME: Final = {metric.name: metric for metric in METRICS}
SUFFIXES: Final = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
SAMPLES: Final = {f"{metric.name}{suffix}": metric for metric in METRICS for suffix in SUFFIXES[metric.kind]}
ALERTS: Final = yaml.safe_load((ROOT / "docs/assets/alerts.yml").read_text())
RULES: Final = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD: Final = json.loads((ROOT / "docs/assets/grafana-dashboard.json").read_text())


def registered(*logs: Log) -> tuple[LogMetrics, CollectorRegistry]:
    registry = CollectorRegistry()
    metrics = LogMetrics(*logs)
    registry.register(metrics)
    return metrics, registry


def sample(registry: CollectorRegistry, log: Log, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"store": log.identity.id.hex(), **labels})


def samples(registry: CollectorRegistry) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in registry.collect():
        for one in family.samples:
            yield one.name, one.labels, one.value


@directed
async def test_every_metric_is_told_with_its_labels_and_no_other(scene: Scene) -> None:
    """P13: the table is what a process tells that writes, folds, follows and keeps; a scrape makes no request."""
    await live_a_day(scene, 1)
    await age()
    machine = scene.machine("all")
    async with opened(machine) as log, log.writer("web") as writer, View.open(log, Things(), follow=True) as view:
        await writer.append(thing(1))
        await view.refresh()
        metrics, registry = registered(log)
        rounds = keep(log, [Things()], snapshot_ms=1_000)
        metrics.note(log, await anext(rounds))
        await writer.append(thing(2))
        machine.script.on("get", "retired/", refuse, FOREVER)
        metrics.note(log, await anext(rounds))
        machine.script.clear()
        await rounds.aclose()
        before = log.requests()
        told = list(samples(registry))
        assert log.requests() == before
    names = {SAMPLES[name].name if name in SAMPLES else name for name, _, _ in told}
    assert names == set(BY_NAME)
    for name, labels, value in told:
        metric = SAMPLES[name]
        assert set(labels) - {"le"} == {"store", *metric.labels}, name
        assert ("le" in labels) == name.endswith("_bucket")
        assert value >= 0 or metric.kind == "gauge", name


async def test_they_say_what_was_appended_and_asked() -> None:
    """Events, calls, segments with their sizes, and requests by verb and outcome are those that there were."""
    async with logstore.open(MemoryStore()) as log, log.writer("web") as writer:
        _, registry = registered(log)
        for number in range(3):
            await writer.append_many([thing(number), thing(number + 10)])
        stored, asked = writer.statistics(), log.requests()
        created = asked.create.requests - asked.create.refused
        assert sample(registry, log, "logstore_appended_events_total") == 6
        assert sample(registry, log, "logstore_appended_batches_total") == 3
        assert sample(registry, log, "logstore_append_seconds_count") == 3
        assert sample(registry, log, "logstore_segment_bytes_count") == 3
        assert sample(registry, log, "logstore_segment_bytes_sum") == stored.bytes_stored
        assert sample(registry, log, "logstore_segment_bytes_bucket", le="1024.0") == 3
        assert sample(registry, log, "logstore_segment_bytes_bucket", le="+Inf") == 3
        assert sample(registry, log, "logstore_requests_total", verb="create", outcome="ok") == created
        assert sample(registry, log, "logstore_requests_total", verb="get", outcome="refused") == asked.get.refused > 0
        assert sample(registry, log, "logstore_sent_bytes_total") == asked.bytes_in
        assert sample(registry, log, "logstore_received_bytes_total") == asked.bytes_out


async def test_counts_of_writers_that_are_gone_stay() -> None:
    """A counter never falls: what a closed writer had appended is counted when another is opened, and after."""
    async with logstore.open(MemoryStore()) as log:
        _, registry = registered(log)
        for number in range(3):
            async with log.writer(f"web-{number}") as writer:
                await writer.append(thing(number))
            assert sample(registry, log, "logstore_appended_events_total") == number + 1
            assert sample(registry, log, "logstore_sessions_opened_total") == number + 1
            assert sample(registry, log, "logstore_append_seconds_count") == number + 1


@directed
async def test_what_a_leader_appends_is_counted(scene: Scene) -> None:
    """As what writers do; the empty segments by which it says that it lives are not."""
    async with opened(scene.machine("leader")) as log:
        _, registry = registered(log)
        lead = log.lead("leader", {"Account"})
        await lead.acquire()
        await lead.append([Event("Account", "a", "opened"), Event("Account", "b", "opened")])
        await asyncio.sleep(60)
        await lead.aclose()
        assert log.lead("leader", {"Account"}) is not lead
        assert sample(registry, log, "logstore_appended_events_total") == 2
        assert sample(registry, log, "logstore_append_seconds_count") == 1


@directed
async def test_the_wait_for_a_slow_store_is_in_the_histogram(scene: Scene) -> None:
    """Of a segment whose creation was tried again: in the bucket of the seconds that it took, and a retry."""
    machine = scene.machine("web")
    async with machine.open(quick(deadline_ms=10_000)) as log, log.writer("web") as writer:
        _, registry = registered(log)
        await writer.append(thing(1))
        machine.script.on("create", "log/", hang)
        began_s = scene.loop.time()
        await writer.append(thing(2))
        took_s = scene.loop.time() - began_s
        assert took_s >= 0.5
        assert sample(registry, log, "logstore_retries_total", verb="create") == 1
        assert sample(registry, log, "logstore_append_seconds_bucket", le="0.256") == 1
        assert sample(registry, log, "logstore_append_seconds_bucket", le="1.024") == 2
        assert sample(registry, log, "logstore_append_seconds_sum") == pytest.approx(took_s, abs=0.05)


@directed
async def test_the_linger_is_in_the_histogram(scene: Scene) -> None:
    """An append takes as long as its caller waits, in the buffer too."""
    async with scene.machine("web").open() as log, log.writer("web", WriterSettings(linger_ms=3_000)) as writer:
        _, registry = registered(log)
        await asyncio.gather(writer.append(thing(1)), writer.append(thing(2)))
        assert sample(registry, log, "logstore_appended_batches_total") == 2
        assert sample(registry, log, "logstore_append_seconds_count") == 1
        assert (sample(registry, log, "logstore_append_seconds_sum") or 0) >= 3


@directed
async def test_a_view_tells_how_far_it_is(scene: Scene) -> None:
    """Rows, events folded, and since when something is not settled; closed, only of what it has folded."""
    labels = {"projection": "things", "version": "1"}
    machine = scene.machine("web")
    async with machine.open() as log, log.writer("web") as writer:
        _, registry = registered(log)
        async with View.open(log, Things()) as view:
            await writer.append_many([thing(number) for number in range(5)])
            await writer.append(thing(1))
            await asyncio.sleep(7)
            await view.refresh()
            assert sample(registry, log, "logstore_view_rows", **labels) == 5
            assert sample(registry, log, "logstore_view_events_total", **labels) == 6
            assert sample(registry, log, "logstore_view_pending_events", **labels) == 6
            assert sample(registry, log, "logstore_view_unsettled_seconds", **labels) == pytest.approx(7, abs=1)
            await view.settle()
            assert sample(registry, log, "logstore_view_pending_events", **labels) == 0
            assert sample(registry, log, "logstore_view_unsettled_seconds", **labels) == 0
            other = View.open(log, Things())
            async with other:
                assert sample(registry, log, "logstore_view_events_total", **labels) == 12
            await other.__aexit__()
            assert sample(registry, log, "logstore_view_events_total", **labels) == 12
        assert sample(registry, log, "logstore_view_rows", **labels) is None
        assert sample(registry, log, "logstore_view_events_total", **labels) == 12


async def test_a_scrape_may_come_from_any_thread() -> None:
    """While writers append, views open and close, and sessions end: it never fails, and no counter falls."""
    async with logstore.open(MemoryStore()) as log:
        _, registry = registered(log)
        over = threading.Event()

        def scrape() -> int:
            scrapes, last = 0, 0.0
            while not over.is_set():
                now = sample(registry, log, "logstore_appended_events_total") or 0.0
                assert now >= last
                scrapes, last = scrapes + 1, now
            return scrapes

        scraping = asyncio.create_task(asyncio.to_thread(scrape))
        try:
            for turn in range(20):
                async with View.open(log, Things(), follow=True) as view, log.writer("web") as writer:
                    await asyncio.gather(*(writer.append(thing(turn + number)) for number in range(20)))
                    await view.refresh()
        finally:
            over.set()
        assert await scraping > 0
        assert sample(registry, log, "logstore_appended_events_total") == 400


async def test_a_scrape_while_a_view_is_closed_counts_what_it_has_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the scrape knew it as open, and it was gone before its events were asked for."""
    labels = {"projection": "things", "version": "1"}
    async with logstore.open(MemoryStore()) as log, log.writer("web") as writer:
        _, registry = registered(log)
        await writer.append_many([thing(number) for number in range(5)])
        views = [View.open(log, Things())]
        await views[0].__aenter__()
        real = _OfLog.open
        reading, closed = threading.Event(), threading.Event()

        def interrupted(of_log: _OfLog) -> list[View]:
            if not reading.is_set():
                reading.set()
                assert closed.wait(60)
            return real(of_log)

        monkeypatch.setattr(_OfLog, "open", interrupted)
        scraping = asyncio.create_task(asyncio.to_thread(sample, registry, log, "logstore_view_events_total", **labels))
        await asyncio.to_thread(reading.wait, 60)
        await views.pop().__aexit__()
        gc.collect()
        closed.set()
        assert await scraping == 5


async def test_a_scrape_while_a_writer_s_counts_moved_missed_them() -> None:
    """A writer that is over is counted with those before it at one moment: no scrape sees it in neither place."""
    async with logstore.open(MemoryStore()) as log:
        async with log.writer("web") as writer:
            await writer.append(thing(1))
        seen: list[int] = []
        asking = threading.Thread(target=lambda: seen.append(log.statistics().appended.events))
        reached, moved = threading.Event(), threading.Event()

        class Before(Appended):
            """What writers before have appended; who asks from that thread stops behind the last of it."""

            def __getattribute__(self, name: str) -> Any:
                value = super().__getattribute__(name)
                if name == "_segment_bytes" and threading.current_thread() is asking:
                    reached.set()
                    moved.wait(timeout=0.2)  # in vain, where the move waits for who asks
                return value

        log._appended_before = Before()
        asking.start()
        reached.wait()
        log.writer("another")
        moved.set()
        asking.join()
        assert seen == [1]


async def test_a_request_that_failed_was_first_counted_as_answered() -> None:
    """While it is under way a request has no outcome yet: a counter that falls looks like a restart."""
    answer = asyncio.Event()

    class Slow(MemoryStore):
        async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
            await answer.wait()
            return await super().get(key, start, stop)

    async with logstore.open(MemoryStore()) as log:
        _, registry = registered(log)
        log._metered = store = MeteredStore(Slow())
        asking = asyncio.create_task(store.get("absent"))
        await asyncio.sleep(0)
        assert store.statistics().get.requests == 1
        assert sample(registry, log, "logstore_requests_total", verb="get", outcome="ok") == 0
        answer.set()
        with pytest.raises(NotFound):
            await asking
        await store.create("a", b"")
        assert sample(registry, log, "logstore_requests_total", verb="get", outcome="ok") == 0
        assert sample(registry, log, "logstore_requests_total", verb="get", outcome="refused") == 1
        assert sample(registry, log, "logstore_requests_total", verb="create", outcome="ok") == 1


def test_the_sync_face_has_the_same_metrics() -> None:
    """What it opened is given as it is."""
    with sync.open("memory://metrics-of-the-sync-face") as log, log.writer("web") as writer:
        registry = CollectorRegistry()
        registry.register(LogMetrics(log))
        writer.append(thing(1))
        labels = {"store": log.identity.id.hex()}
        assert registry.get_sample_value("logstore_appended_events_total", labels) == 1


@directed
async def test_a_round_of_the_keeper_is_told(scene: Scene) -> None:
    """What rounds did, in all; and how old the newest snapshot is, whoever wrote it."""
    labels = {"projection": "things", "version": "1"}
    await live_a_day(scene, 1, snapshots=3)
    await age()
    async with opened(scene.machine("keeper")) as log:
        metrics, registry = registered(log)
        assert sample(registry, log, "logstore_keeper_rounds_total", outcome="ok") is None
        done = [one async for one in first(keep(log, [Things()], snapshot_ms=10**8, pause_ms=50_000), 2)]
        for one in done:
            metrics.note(log, one)
        collected = [garbage for one in done for garbage in one.garbage]
        assert sample(registry, log, "logstore_keeper_rounds_total", outcome="ok") == 2
        assert sample(registry, log, "logstore_keeper_retired_chapters_total") == 1
        assert sample(registry, log, "logstore_keeper_collected_objects_total") == len(collected) > 5
        assert sample(registry, log, "logstore_keeper_collected_bytes_total") == sum(one.size for one in collected)
        assert sample(registry, log, "logstore_keeper_last_round_timestamp_seconds") == log.now_ms() / 1_000
        assert sample(registry, log, "logstore_snapshot_age_seconds", **labels) == pytest.approx(95, abs=10)
        assert sample(registry, log, "logstore_keeper_snapshots_total", **labels) is None


async def first(rounds: Any, count: int) -> Any:
    for _ in range(count):
        yield await anext(rounds)
    await rounds.aclose()


async def test_logs_are_told_apart_by_their_stores() -> None:
    """One collector for several logs; two of one store, and one that is not open, are refused."""
    store = MemoryStore()
    async with logstore.open(store) as one, logstore.open(MemoryStore()) as other, logstore.open(store) as again:
        _, registry = registered(one, other)
        async with other.writer("web") as writer:
            await writer.append(thing(1))
        assert sample(registry, one, "logstore_appended_events_total") == 0
        assert sample(registry, other, "logstore_appended_events_total") == 1
        with pytest.raises(InvalidArgument, match="needs logs of different stores"):
            LogMetrics(one, again)
    with pytest.raises(InvalidArgument, match="not open"):
        LogMetrics(logstore.open(MemoryStore()))


def test_a_histogram_counts_below_its_bounds() -> None:
    """Each value in the bucket whose bound is the first above it; what is larger than all has one of its own."""
    histogram = Histogram(unit=0.25, bounds=3)
    for value in (0, 0.24, 0.25, 0.49, 0.5, 0.99, 1.0, 1e9):
        histogram.observe(value)
    seen = histogram.snapshot()
    assert (seen.bounds, seen.counts, seen.count) == ((0.25, 0.5, 1.0), (2, 2, 2, 2), 8)
    other = Histogram(unit=0.25, bounds=3)
    other.add(histogram)
    other.observe(0.3)
    assert (other.snapshot().counts, histogram.snapshot().counts) == ((2, 3, 2, 2), (2, 2, 2, 2))


def test_who_does_not_ask_pays_nothing() -> None:
    """The client is not loaded by the library, nor by the daemon without --metrics."""
    script = "import sys, logstore, projections, projections.cli.keep; print('prometheus_client' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout == "False\n"
    )


# Over HTTP


async def test_they_are_served_to_a_scraper() -> None:
    """In the text that Prometheus reads, at /metrics and nowhere else."""
    async with logstore.open(MemoryStore()) as log:
        _, registry = registered(log)
        async with exposed(registry, "127.0.0.1", 0) as address, aiohttp.ClientSession() as session:
            async with session.get(address) as answer:
                assert answer.content_type == "text/plain"
                text = await answer.text()
            async with session.get(address.removesuffix("metrics")) as answer:
                assert answer.status == 404
            port = int(address.split(":")[2].split("/")[0])
            with pytest.raises(CannotListen, match="choose with --metrics"):
                async with exposed(registry, "127.0.0.1", port):
                    pass
    assert f'logstore_appended_events_total{{store="{log.identity.id.hex()}"}} 0.0' in text
    assert "# TYPE logstore_append_seconds histogram" in text


async def test_a_wish_that_nobody_understands_is_answered_as_none() -> None:
    """A version of a format that is no number was an error of ours, status 500, with a trace on stderr."""
    async with exposed(CollectorRegistry(), "127.0.0.1", 0) as address, aiohttp.ClientSession() as session:
        for accept in ("application/openmetrics-text;version=banana", "text/plain;version=1.x", "\u00ff;;=,"):
            async with session.get(address, headers={"Accept": accept}) as answer:
                assert (answer.status, answer.content_type) == (200, "text/plain"), accept


async def test_a_host_that_there_is_not_is_told_in_words() -> None:
    """It was an "Unknown error -2"."""
    with pytest.raises(CannotListen, match="host=fe80::1%nowhere port=0 cause=") as raised:
        async with exposed(CollectorRegistry(), "fe80::1%nowhere", 0):
            pass
    assert "Unknown error" not in str(raised.value)


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"]
)
async def test_what_is_no_http_is_refused_and_not_logged(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Who scans ports filled the daemon's stderr with traces."""
    async with exposed(CollectorRegistry(), "127.0.0.1", 0) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.split(":")[2].split("/")[0]))
        writer.write(request_)
        assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
    assert caplog.records == []


async def test_what_goes_wrong_while_answering_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With where it was raised: it is a mistake, the scraper's owner sees status 500 only."""

    class Broken(CollectorRegistry):
        def collect(self) -> Iterator[Any]:
            raise RuntimeError("broken")

    async with (
        exposed(Broken(), "127.0.0.1", 0) as address,
        aiohttp.ClientSession() as session,
        session.get(address) as answer,
    ):
        assert answer.status == 500
    assert "RuntimeError: broken" in caplog.text


@pytest.mark.parametrize("text", ["", "x", "127.0.0.1", ":9464", "65536", "a b:1", "::1:9464", "http://127.0.0.1:9464"])
def test_what_is_no_place_is_refused(text: str) -> None:
    """With the way to write one."""
    with pytest.raises(InvalidArgument, match="write HOST:PORT, or PORT for loopback"):
        place_of(text)


# The table, the dashboard, the alerts


def test_the_table_is_that_of_the_code() -> None:
    """docs/observability.md has every metric with its type and labels, and none that there is not."""
    rows = re.findall(r"^\| `(logstore_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", read(PAGE), re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), meaning) for name, kind, labels, meaning in rows]
    assert told == [*map(tuple, METRICS)]


EXPRESSIONS: Final = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_an_expression_asks_for_what_there_is(expression: str) -> None:
    """Alerts and panels parse as PromQL; their metrics, and the labels that they select or group by, exist."""
    known = {"store", "le", "instance"}
    selectors: list[promql_parser.VectorSelector] = []
    grouped: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)
        return True

    promql_parser.walk(promql_parser.parse(expression.replace("$__rate_interval", "5m")), visit)
    assert selectors
    for selector in selectors:
        metric = SAMPLES[selector.name or ""]
        known |= set(metric.labels)
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= {"store", *metric.labels}, f"{selector.name} has no such label"
    assert grouped <= known


def test_an_alert_says_what_to_do() -> None:
    """Each has a severity, how long it waits, a summary, and a place in the page."""
    page = read(PAGE)
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f"| `{rule['alert']}` |" in page
    told = re.findall(r"^\| `(Logstore\w+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(rule["alert"] for rule in RULES)


def test_a_snapshot_is_not_late_where_nothing_came() -> None:
    """A keeper writes none while no event comes: the alert fired after a quiet weekend, and `status` saw nothing."""
    [rule] = [rule for rule in RULES if rule["alert"] == "LogstoreSnapshotLate"]
    late, came = rule["expr"].split(" and on (store, projection) ")
    assert "logstore_snapshot_age_seconds" in late
    assert "increase(logstore_view_events_total" in came


def test_the_dashboard_can_be_imported() -> None:
    """Panels have numbers of their own and do not overlap; each asks the data source that the reader chooses."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert taken.isdisjoint(cells)
        taken |= cells
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "store"}
