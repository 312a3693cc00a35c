"""A writer process: replay one share of the deployments, and note what was acknowledged.

Some deployments run at a time; those of one application after one another. ``python -m projections.demo.writer`` with a
JSON object of settings; says ``ready``, waits for a line, works, prints what it did as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import logstore
from logstore import NotStored, Writer
from projections.demo.leash import hold_leash
from projections.demo.ledger import ACKNOWLEDGED, REFUSED, Ledger, Name, Record, named, settings
from projections.demo.workload import Deployment

__all__ = ["main"]

DEPLOYMENTS_AT_ONCE: Final = 200  # many wait for an earlier one of their application


class Replay:
    """One life of a writer at its share."""

    def __init__(self, writer: Writer, index: int, life: int, share: list[Deployment], directory: Path) -> None:
        self._writer = writer
        self._index = index
        self._life = life
        self._share = share
        self._ledger = Ledger(directory, index, life)
        self._done = {
            (record.deployment, record.step)
            for earlier in range(life)
            for record in Ledger(directory, index, earlier).records()
            if record.said == ACKNOWLEDGED
        }
        self._number = 0
        self._left = iter(range(len(share)))
        self._applications: dict[Any, asyncio.Lock] = {}

    async def run(self, stop_after: int | None) -> int:
        """Replay what no earlier life was told is stored, stand still after ``stop_after`` appends; return how many."""
        self._stop_after = stop_after
        async with asyncio.TaskGroup() as group:
            for _ in range(DEPLOYMENTS_AT_ONCE):
                group.create_task(self._work())
        return self._number

    async def _work(self) -> None:
        for number in self._left:
            steps = self._share[number]
            application = next(data.get("application_id", key) for _, key, type_, data in steps if type_ == "planned")
            async with self._applications.setdefault(application, asyncio.Lock()):
                for step in range(len(steps)):
                    if (number, step) not in self._done:
                        await self._append(number, step)

    async def _append(self, deployment: int, step: int) -> None:
        while True:
            number, self._number = self._number, self._number + 1
            if self._stop_after is not None and number >= self._stop_after:
                await asyncio.Event().wait()  # whoever is to be killed in the middle must not be done before
            event = named(self._share[deployment][step], Name(self._index, self._life, number))
            try:
                await self._writer.append(event)
            except NotStored:
                self._ledger.note(Record(REFUSED, number, deployment, step))
                continue
            self._ledger.note(Record(ACKNOWLEDGED, number, deployment, step))
            return


async def _run(config: dict[str, Any]) -> None:
    go, directory = hold_leash(), Path(config["directory"])
    share = json.loads((directory / f"share-{config['writer']}.json").read_bytes())
    opened = logstore.open(config["url"], settings=settings(config["deadline_ms"], config["idle_ms"]), create=False)
    async with opened as log:
        async with log.writer(f"piped-{config['writer']}") as writer:
            replay = Replay(writer, config["writer"], config["life"], share, directory)
            print("ready", flush=True)  # noqa: T201 - the conductor listens
            await go.wait()
            started_s = time.time()
            appended = await replay.run(config["stop_after"])
            ended_s = time.time()
            statistics = writer.statistics()
        report = {
            "appends": appended,
            "segments": statistics.segments_stored,
            "sessions": statistics.sessions_opened,
            "started_s": started_s,
            "ended_s": ended_s,
            "requests": asdict(log.requests()),
        }
    print(json.dumps(report), flush=True)  # noqa: T201 - the conductor listens


def main() -> None:
    """Run as told by the first argument."""
    asyncio.run(_run(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
