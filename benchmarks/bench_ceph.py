"""On S3, by a real Ceph on the same machine: ``make bench-ceph`` brings one up. Its objects lie in memory.

appends     small events by 64 callers, each awaiting one before its next, or each with a hundred under way
visibility  one process appends now and then, another follows and polls twice a second

Beside the first: a bare loop of PUTs by aioboto3, as many at once as a writer has in flight, each of as many bytes as
our segments had. Beside the second: one PUT and one GET, measured in the run, and half of the time between polls.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from uuid import uuid4

import pytest

import logstore
from benchmarks.conftest import Once, Record, Sizes
from benchmarks.events import small_events
from benchmarks.figure import Figure
from benchmarks.visibility import quantile, seen_ms
from logstore import Event, FollowSettings, WriterSettings
from logstore.filestore.s3 import S3Store

pytestmark = pytest.mark.ceph

BUCKET = "logstore-bench"
CALLERS = 64
POLL_MS = 500
FLIGHTS = WriterSettings().flights


@pytest.fixture(scope="module")
def endpoint() -> str:
    url = os.environ.get("LOGSTORE_CEPH_ENDPOINT")
    assert url, "LOGSTORE_CEPH_ENDPOINT says where Ceph is: make bench-ceph"
    asyncio.run(make_bucket(url))
    return url


async def make_bucket(endpoint: str) -> None:
    async with bare(endpoint) as (_, client):
        found = await client.list_buckets()
        if BUCKET not in {bucket["Name"] for bucket in found["Buckets"]}:
            await client.create_bucket(Bucket=BUCKET)


def new_url(endpoint: str) -> str:
    return f"s3://{BUCKET}/{uuid4().hex}?endpoint_url={endpoint}&region=us-east-1"


@asynccontextmanager
async def bare(endpoint: str) -> AsyncIterator[tuple[str, Any]]:
    """A prefix of its own, and aioboto3's client as our store has it, with nothing of ours around it."""
    store = S3Store(BUCKET, endpoint_url=endpoint, region="us-east-1")
    try:
        yield uuid4().hex, await store._open()
    finally:
        await store.aclose()


@dataclass(frozen=True)
class Rate:
    """What went into the store in some seconds: units (events, or PUTs), and bytes."""

    units_per_s: float
    bytes_per_s: float
    bytes_per_put: float


async def append(endpoint: str, count: int, under_way: int) -> Rate:
    """Append ``count`` events by all callers, each keeping so many under way."""
    events = small_events(count)
    async with logstore.open(new_url(endpoint)) as log, log.writer("web") as writer:
        await writer.append(events[0])
        before, started = log.requests(), time.perf_counter()

        async def call_in_turn(mine: list[Event]) -> None:
            for event in mine:
                await writer.append(event)

        workers = CALLERS * under_way
        await asyncio.gather(*(call_in_turn(events[first::workers]) for first in range(workers)))
        seconds, counted = time.perf_counter() - started, (log.requests() - before).create
        return Rate(count / seconds, counted.bytes_in / seconds, counted.bytes_in / counted.requests)


async def put(endpoint: str, count: int, size: int) -> Rate:
    """Put ``count`` objects of so many bytes, by as many loops as a writer has flights."""
    async with bare(endpoint) as (prefix, client):
        body = os.urandom(size)
        await client.put_object(Bucket=BUCKET, Key=f"{prefix}/first", Body=body)
        started = time.perf_counter()

        async def put_in_turn(first: int) -> None:
            for number in range(first, count, FLIGHTS):
                await client.put_object(Bucket=BUCKET, Key=f"{prefix}/{number}", Body=body, IfNoneMatch="*")

        await asyncio.gather(*map(put_in_turn, range(FLIGHTS)))
        seconds = time.perf_counter() - started
        return Rate(count / seconds, count * size / seconds, size)


@pytest.mark.parametrize("under_way", [1, 100])
def test_appends(once: Once[None], record: Record, sizes: Sizes, endpoint: str, under_way: int) -> None:
    """Napkin: a PUT 5 ms; 64 events, or thousands, share it, and 10 ms of waiting for company."""
    ours, theirs = list[Rate](), list[Rate]()
    count = sizes.remote_events * under_way

    def measure() -> None:
        for _ in range(sizes.view_rounds):
            ours.append(asyncio.run(append(endpoint, count, under_way)))
            theirs.append(asyncio.run(put(endpoint, sizes.remote_puts, round(ours[-1].bytes_per_put))))

    once(measure)
    events_per_s, puts_per_s = (median(rate.units_per_s for rate in rates) for rates in (ours, theirs))
    bytes_per_s, bare_bytes_per_s = (median(rate.bytes_per_s for rate in rates) for rates in (ours, theirs))
    work = f"append, {CALLERS} callers, {under_way} under way each"
    beside = f"a bare loop of PUTs, {FLIGHTS} at once"
    record(Figure(work, events_per_s, puts_per_s, "events/s", f"{beside}: PUTs/s, of a segment each", goal=100))
    record(Figure(f"{work}: segments", bytes_per_s, bare_bytes_per_s, "bytes/s", beside, goal=0.8))


async def round_trip_ms(endpoint: str, count: int) -> float:
    """One PUT and one GET after it: milliseconds, the median."""
    took = []
    async with bare(endpoint) as (prefix, client):
        for number in range(count):
            key = f"{prefix}/{number}"
            started = time.perf_counter()
            await client.put_object(Bucket=BUCKET, Key=key, Body=bytes(400), IfNoneMatch="*")
            answer = await client.get_object(Bucket=BUCKET, Key=key)
            await answer["Body"].read()
            took.append((time.perf_counter() - started) * 1e3)
    return median(took)


def test_visibility(once: Once[list[float]], record: Record, sizes: Sizes, endpoint: str) -> None:
    """Napkin: 10 ms of waiting for company, a PUT, half of 500 ms, a GET."""
    follow = FollowSettings(poll_ms_min=POLL_MS, poll_ms_max=POLL_MS)
    count = max(1, sizes.visible // 4)
    seen = once(lambda: asyncio.run(seen_ms(new_url(endpoint), count, follow, pause_s=2 * sizes.idle_s / 3)))
    expected = asyncio.run(round_trip_ms(endpoint, sizes.visible)) + POLL_MS / 2
    work, beside = "visible in another process, p50", "a PUT, a GET, half of the time between polls"
    record(Figure(work, quantile(seen, 0.5), expected, "ms", beside, less=True, goal=1, steady=False))
    record(
        Figure("visible in another process, p99", quantile(seen, 0.99), expected, "ms", beside, less=True, steady=False)
    )
