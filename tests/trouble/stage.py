"""The stage of a run: a service, a log on it, those at work, and the verdict when the curtain falls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import logstore
from logstore import Log
from logstore.filestore.s3 import S3Store
from tests.conftest import BUCKET
from tests.trouble.service import Service
from tests.trouble.troubles import Credentials, Stage, SteppedClock
from tests.trouble.verdict import broken
from tests.trouble.wire import Wire
from tests.trouble.workload import SETTINGS, Workload

__all__ = ["at_work", "staged"]

FIRST_APPENDS = 50
ENDS_WITHIN_S = 240  # a test that hangs is ended before pytest ends them all


def staged(
    service: Service, *, seed: int = 0, wire: Wire | None = None, credentials: Credentials | None = None
) -> Stage:
    """A stage with a log of its own. Those at work reach the service by ``wire``; the verdict does not."""
    place, clocks = uuid4().hex, {f"web-{number}": SteppedClock() for number in range(2)}

    def opened(url: str, party: str) -> Log:
        store = S3Store(BUCKET, prefix=place, endpoint_url=url, region="us-east-1", connect_timeout_ms=2_000)
        return logstore.open(store, settings=SETTINGS, clock=clocks.get(party))

    work = Workload(
        lambda party: opened(wire.url if wire is not None else service.endpoint, party),
        lambda: opened(service.endpoint, ""),
        seed=seed,
    )
    return Stage(service, work, random.Random(seed), wire, credentials, clocks)


@asynccontextmanager
async def at_work(
    service: Service, *, seed: int = 0, wire: Wire | None = None, credentials: Credentials | None = None
) -> AsyncIterator[Stage]:
    """A stage with everybody at work; afterwards every promise must have been kept."""
    stage = staged(service, seed=seed, wire=wire, credentials=credentials)
    async with asyncio.timeout(ENDS_WITHIN_S), asyncio.TaskGroup() as group:
        group.create_task(stage.work.run())
        try:
            await stage.work.acknowledged(FIRST_APPENDS)
            yield stage
        finally:
            stage.work.stop()
    promises = await stage.work.verdict()
    print(*promises, stage.work.ledger.errors, stage.work.ledger.requests, sep="\n")
    assert broken(promises) == []
