"""The ops process: looks after the log, and asks what operations ask now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from examples.pipecd.collections import COLLECTIONS
from examples.pipecd.control_plane import ControlPlane
from examples.pipecd.demo.station import PROJECT, Config, main
from examples.pipecd.demo.stopwatch import Stopwatch
from examples.pipecd.models import CommandStatus
from examples.pipecd.pages import everything
from examples.pipecd.queries import all_applications
from logstore import Log
from projections import keep

SNAPSHOT_MS: Final = 3_000
PAUSE_MS: Final = 500
DAY_S: Final = 86_400


async def _work(_config: Config, log: Log, plane: ControlPlane) -> Mapping[str, Any]:
    questions, snapshots = Stopwatch(plane.db), 0
    folds = [collection.fold() for collection in COLLECTIONS]
    async with aclosing(keep(log, folds, snapshot_ms=SNAPSHOT_MS, pause_ms=PAUSE_MS)) as rounds:
        async for done in rounds:
            snapshots += len(done.snapshots)
            await _look_around(questions, plane)
            pipeds = questions.ask(15, PROJECT)
            if pipeds.rows and all(piped["disabled"] for piped in pipeds.rows):
                break
    return {"queries": questions.report(), "snapshots": snapshots}


async def _look_around(questions: Stopwatch, plane: ControlPlane) -> None:
    """The jobs of PipeCD's ops: time out orphans, collect insights, see all applications."""
    now = int(time.time())
    for command in questions.ask(17, now - DAY_S).rows:
        await plane.commands.update_status(command["id"], CommandStatus.TIMEOUT, {}, now)
    questions.ask(11, now - DAY_S, now, limit=50)
    questions.ask(13)
    questions.ask(22)
    for _ in everything(all_applications(), plane.db, 100):
        await asyncio.sleep(0)


if __name__ == "__main__":
    main("ops-1", _work)
