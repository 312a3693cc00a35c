"""What a process does with its logs, for Prometheus: read when it is asked for, from what is counted anyway.

``LogMetrics`` is a collector, to be registered with the caller's registry. It makes no request and keeps no time
series: log, views and writers know how they stand, and a scrape asks them. Needs ``pip install 'logstore[metrics]'``;
nobody else imports this. ``METRICS`` is the whole table; docs/observability.md shows it.

Invariants:
- A scrape waits for nothing, and costs the store no request.
- Counters only rise while the log is open, whatever writers and views come and go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from logstore import InvalidArgument, Log, LogStatistics, StoreStatistics
from logstore.background import inner
from logstore.clock import stamp_ms
from logstore.histogram import HistogramCounts
from projections.rounds import KeepRound
from projections.view import ViewProgress, events_folded, open_views

if TYPE_CHECKING:
    from logstore.sync import Log as SyncLog

__all__ = ["METRICS", "LogMetrics", "Metric"]

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class Metric(NamedTuple):
    """One line of the table. ``labels`` come after ``store``, the store's id, which all have."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


VIEW: Final = ("projection", "version")

METRICS: Final = (
    # Requests
    Metric("logstore_requests_total", "counter", ("verb", "outcome"), "requests; failed ones are tried again"),
    Metric("logstore_retries_total", "counter", ("verb",), "requests that were not the first attempt"),
    Metric("logstore_sent_bytes_total", "counter", (), "bytes sent to the store, failed attempts included"),
    Metric("logstore_received_bytes_total", "counter", (), "bytes that came out of the store"),
    Metric("logstore_clock_skew_seconds", "gauge", (), "how far the store's clock is ahead of this machine's"),
    # Appending
    Metric("logstore_appended_events_total", "counter", (), "events acknowledged"),
    Metric("logstore_appended_batches_total", "counter", (), "calls of append acknowledged"),
    Metric("logstore_append_seconds", "histogram", (), "of each segment, from its first event to acknowledgement"),
    Metric("logstore_segment_bytes", "histogram", (), "size of each segment as stored"),
    Metric("logstore_sessions_opened_total", "counter", (), "sessions opened"),
    Metric("logstore_resent_events_total", "counter", (), "events sent again after somebody sealed their session"),
    Metric("logstore_not_stored_events_total", "counter", (), "events refused with NotStored"),
    Metric("logstore_unknown_events_total", "counter", (), "events of which nobody knows, raised as Unknown"),
    Metric("logstore_buffered_events", "gauge", (), "events that wait to be acknowledged"),
    Metric("logstore_buffered_bytes", "gauge", (), "bytes that wait to be acknowledged"),
    Metric("logstore_flights", "gauge", (), "segments whose creation is under way"),
    # Following
    Metric("logstore_polls_total", "counter", (), "rounds of the follower"),
    Metric("logstore_open_sessions", "gauge", (), "sessions that have not ended, as far as the follower has read"),
    Metric("logstore_chapter", "gauge", (), "the newest chapter that it has read of"),
    Metric("logstore_roster_entry", "gauge", (), "the last entry of that chapter's roster that it has read"),
    Metric("logstore_watermark_age_seconds", "gauge", (), "how far its watermark is behind the clock"),
    # Views
    Metric("logstore_view_rows", "gauge", VIEW, "rows"),
    Metric("logstore_view_events_total", "counter", VIEW, "events folded"),
    Metric("logstore_view_pending_events", "gauge", VIEW, "events above the watermark"),
    Metric("logstore_view_unticked_events", "gauge", VIEW, "those of them that wait for a roster entry"),
    Metric("logstore_view_unsettled_seconds", "gauge", VIEW, "age of the oldest pending event; 0: all is settled"),
    Metric("logstore_view_watermark_age_seconds", "gauge", VIEW, "how far its watermark is behind the clock"),
    Metric("logstore_view_parked_events", "gauge", VIEW, "events that the fold failed on, of those remembered"),
    Metric("logstore_view_cold_rows", "gauge", VIEW, "rows in the cache file"),
    Metric("logstore_view_cache_file_bytes", "gauge", VIEW, "size of the cache file"),
    # Keeping
    Metric("logstore_keeper_rounds_total", "counter", ("outcome",), "rounds; with problems: some of it failed"),
    Metric("logstore_keeper_round_seconds_total", "counter", (), "time spent in rounds"),
    Metric("logstore_keeper_last_round_timestamp_seconds", "gauge", (), "when the last round ended, store's clock"),
    Metric("logstore_keeper_problems_total", "counter", ("error",), "what went wrong in rounds"),
    Metric("logstore_keeper_sealed_sessions_total", "counter", (), "sessions of dead writers ended by rounds"),
    Metric("logstore_keeper_ended_chapters_total", "counter", (), "chapters ended"),
    Metric("logstore_keeper_retired_chapters_total", "counter", (), "chapters retired"),
    Metric("logstore_keeper_dropped_stage_logs_total", "counter", (), "stage logs recorded as gone"),
    Metric("logstore_keeper_snapshots_total", "counter", VIEW, "snapshots written"),
    Metric("logstore_keeper_collected_objects_total", "counter", (), "objects deleted as garbage"),
    Metric("logstore_keeper_collected_bytes_total", "counter", (), "their bytes, where known"),
    Metric("logstore_snapshot_age_seconds", "gauge", VIEW, "age of the newest snapshot that the keeper knows of"),
)
"""All metrics, in the order of the page."""


@dataclass(slots=True)
class _Kept:
    """What a keeper's rounds have done, in all."""

    counts: defaultdict[tuple[str, tuple[str, ...]], float] = field(default_factory=lambda: defaultdict(float))
    last_round_ms: int = 0
    newest_snapshots: dict[tuple[str, int], int] = field(default_factory=dict)


class LogMetrics(Collector):
    """Collects the metrics of open logs. A scrape may come from any thread.

    They may be those of ``logstore.sync``. Every view that is open on them is shown, those of document stores too.
    Cost: nothing between scrapes; for one, some hundred microseconds, and more with thousands of open sessions. Raises
    InvalidArgument for a log not open, and for two logs of one store.

    >>> import asyncio, logstore, prometheus_client
    >>> from logstore import Event
    >>> from projections.metrics import LogMetrics
    >>> async def example():
    ...     async with logstore.open("memory://metrics") as log, log.writer("web-1") as writer:
    ...         registry = prometheus_client.CollectorRegistry()
    ...         registry.register(LogMetrics(log))
    ...         await writer.append(Event(kind="Greeting", key="g", type="said"))
    ...         return registry.get_sample_value("logstore_appended_events_total", {"store": log.identity.id.hex()})
    >>> asyncio.run(example())
    1.0
    """

    def __init__(self, *logs: Log | SyncLog) -> None:
        opened = [log if isinstance(log, Log) else inner(log) for log in logs]
        self._logs = {log.identity.id.hex(): log for log in opened}
        if not logs or len(self._logs) < len(logs):
            raise InvalidArgument(f"needs logs of different stores logs={list(logs)!r:.200}")
        self._kept = {store: _Kept() for store in self._logs}

    def note(self, log: Log | SyncLog, done: KeepRound) -> None:
        """Count what a round of ``projections.keep`` on ``log`` has done. Cost: none."""
        kept = self._kept[log.identity.id.hex()]
        kept.last_round_ms = log.now_ms()
        kept.newest_snapshots.update(done.newest_snapshots)
        count = kept.counts
        count["rounds", ("problems" if done.problems else "ok",)] += 1
        for problem in done.problems:
            count["problems", (type(problem).__name__,)] += 1
        for manifest in done.snapshots:
            count["snapshots", (manifest.key.fold.projection, str(manifest.key.fold.version))] += 1
        count["round_seconds", ()] += done.seconds
        count["sealed_sessions", ()] += done.sealed
        count["ended_chapters", ()] += done.closed_chapter
        count["retired_chapters", ()] += sum(retirement.retired for retirement in done.retirements)
        count["dropped_stage_logs", ()] += sum(dropped.dropped for dropped in done.stage_logs)
        count["collected_objects", ()] += len(done.garbage)
        count["collected_bytes", ()] += sum(garbage.size or 0 for garbage in done.garbage)

    def describe(self) -> Iterator[Family]:
        """The table, without values. Cost: none."""
        yield from _families().values()

    def collect(self) -> Iterator[Family]:
        """The table with the values of now. Cost: no request."""
        families = _families()
        for store, log in self._logs.items():
            _Sheet(families, store).fill(log, self._kept[store])
        yield from families.values()


def _families() -> dict[str, Family]:
    made: dict[str, Family] = {}
    for name, kind, labels, meaning in METRICS:
        of = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}[kind]
        made[name] = of(name, meaning, labels=("store", *labels))
    return made


class _Sheet:
    """The lines of one store in all families."""

    def __init__(self, families: Mapping[str, Family], store: str) -> None:
        self._families = families
        self._store = store

    def fill(self, log: Log, kept: _Kept) -> None:
        now_ms, seen = log.now_ms(), log.statistics()
        self._requests(seen.requests)
        for verb in fields(StoreStatistics):
            self._set("retries_total", seen.retries.get(verb.name, 0), verb.name)
        self._set("clock_skew_seconds", seen.skew_ms / 1_000)
        self._appending(seen)
        if (following := seen.following) is not None:
            self._set("polls_total", following.rounds)
            self._set("open_sessions", following.open_sessions)
            self._set("chapter", following.chapter)
            self._set("roster_entry", following.entry)
            if following.watermark:
                self._set("watermark_age_seconds", _age_s(now_ms, following.watermark))
        self._views(log, now_ms)
        if kept.last_round_ms:
            self._keeping(kept, now_ms)

    def _set(self, name: str, value: float, *labels: str) -> None:
        family = self._families[f"logstore_{name}"]
        assert not isinstance(family, HistogramMetricFamily)
        family.add_metric((self._store, *labels), float(value))

    def _observed(self, name: str, seen: HistogramCounts) -> None:
        family = self._families[f"logstore_{name}"]
        assert isinstance(family, HistogramMetricFamily)
        below, buckets = 0, []
        for bound, count in zip((*map(str, map(float, seen.bounds)), "+Inf"), seen.counts, strict=True):
            below += count
            buckets.append((bound, float(below)))
        family.add_metric((self._store,), buckets, seen.total)

    def _requests(self, seen: StoreStatistics) -> None:
        for verb in fields(seen):
            used = getattr(seen, verb.name)
            for outcome, count in (("ok", used.answered), ("refused", used.refused), ("failed", used.failed)):
                self._set("requests_total", count, verb.name, outcome)
        self._set("sent_bytes_total", seen.bytes_in)
        self._set("received_bytes_total", seen.bytes_out)

    def _appending(self, seen: LogStatistics) -> None:
        appended = seen.appended
        self._set("appended_events_total", appended.events)
        self._set("appended_batches_total", appended.batches)
        self._observed("append_seconds", appended.seconds)
        self._observed("segment_bytes", appended.segment_bytes)
        self._set("sessions_opened_total", appended.sessions_opened)
        self._set("resent_events_total", appended.events_sent_again)
        self._set("not_stored_events_total", appended.events_not_stored)
        self._set("unknown_events_total", appended.events_unknown)
        self._set("buffered_events", seen.buffered_events)
        self._set("buffered_bytes", seen.buffered_bytes)
        self._set("flights", seen.flights)

    def _views(self, log: Log, now_ms: int) -> None:
        """One line for each projection; where several views of it are open, the one that is furthest behind."""
        for (name, version), count in events_folded(log).items():
            self._set("view_events_total", count, name, str(version))
        shown: dict[tuple[str, str], ViewProgress] = {}
        for view in open_views(log):
            of, progress = (view.projection.name, str(view.projection.version)), view.progress()
            if of not in shown or progress.watermark < shown[of].watermark:
                shown[of] = progress
        for labels, progress in shown.items():
            oldest = progress.oldest_pending
            self._set("view_rows", progress.rows, *labels)
            self._set("view_pending_events", progress.pending_events, *labels)
            self._set("view_unticked_events", progress.unticked_events, *labels)
            self._set("view_unsettled_seconds", _age_s(now_ms, oldest) if oldest else 0, *labels)
            if progress.watermark:
                self._set("view_watermark_age_seconds", _age_s(now_ms, progress.watermark), *labels)
            self._set("view_parked_events", progress.parked_events, *labels)
            self._set("view_cold_rows", progress.cold_rows, *labels)
            self._set("view_cache_file_bytes", progress.cache_file_bytes, *labels)

    def _keeping(self, kept: _Kept, now_ms: int) -> None:
        for (name, labels), count in kept.counts.items():
            self._set(f"keeper_{name}_total", count, *labels)
        self._set("keeper_last_round_timestamp_seconds", kept.last_round_ms / 1_000)
        for (projection, version), made_ms in kept.newest_snapshots.items():
            self._set("snapshot_age_seconds", max(0, now_ms - made_ms) / 1_000, projection, str(version))


def _age_s(now_ms: int, stamp: int) -> float:
    return max(0, now_ms - stamp_ms(stamp)) / 1_000
