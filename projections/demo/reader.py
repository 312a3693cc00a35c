"""A reader process: follow the log from its beginning to the demo's last event, twice at once, or read it cold.

Following, it takes events as they come (*live*) and again as they settle; one follower serves both. What it read is
left in files as names, in the order read; of the settled order a digest too. ``python -m projections.demo.reader`` with
a JSON object of settings; says ``ready`` and prints what it read as JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import logstore
from logstore import Log, StoredEvent
from logstore.clock import stamp_ms
from projections.demo.leash import hold_leash
from projections.demo.ledger import Name, is_end, name_of, settings

__all__ = ["main", "read_names"]

LIVE_BEHIND_S: Final = 30
_ORDER: Final = struct.Struct(">QQQQ")


class Reading:
    """What one reading has seen."""

    def __init__(self) -> None:
        self.count = 0
        self.names = array("I")
        self.delays_ms = array("q")
        self.out_of_order = 0
        self._digest = hashlib.sha256()
        self._last = (0, 0, 0, 0)

    def take(self, event: StoredEvent) -> None:
        """Note an event and its place."""
        self.count += 1
        if (name := name_of(event)) is not None:
            self.names.extend(name)
        self.out_of_order += event.order <= self._last
        self._last = event.order
        self._digest.update(_ORDER.pack(*event.order))
        self._digest.update(f"{event.kind}\0{event.key}\0{event.type}\0".encode() + event.payload)

    def report(self) -> dict[str, Any]:
        """What was seen, in short."""
        delays = sorted(self.delays_ms)
        percentiles = {f"p{p}": delays[len(delays) * p // 100] for p in (50, 99)} if delays else {}
        digest = self._digest.hexdigest()
        return {"count": self.count, "digest": digest, "out_of_order": self.out_of_order, "delays_ms": percentiles}


def read_names(path: Path) -> Iterator[Name]:
    """The names that a reading left in a file."""
    values = array("I")
    values.frombytes(path.read_bytes())
    triple = iter(values)
    yield from map(Name, triple, triple, triple)


async def _read_settled(log: Log, reading: Reading, follow: bool) -> None:
    events = log.follow(settled=True) if follow else log.read(settled=True)
    async for event in events:
        reading.take(event)
        if is_end(event):
            return
    raise SystemExit("the demo's last event is not settled")


async def _read_live(log: Log, reading: Reading) -> None:
    """Read until cancelled."""
    async for event in log.follow():
        reading.take(event)
        reading.delays_ms.append(round(time.time() * 1000) - stamp_ms(event.stamp))


async def _run(config: dict[str, Any]) -> None:
    hold_leash()
    directory, kind = Path(config["directory"]), config["reader"]
    opened = logstore.open(config["url"], settings=settings(config["deadline_ms"], config["idle_ms"]), create=False)
    settled, live = Reading(), Reading()
    async with opened as log:
        print("ready", flush=True)  # noqa: T201 - the conductor listens
        if kind == "cold":
            await _read_settled(log, settled, follow=False)
        else:
            following = asyncio.create_task(_read_live(log, live))
            await _read_settled(log, settled, follow=True)
            deadline_s = time.monotonic() + LIVE_BEHIND_S
            # Polled: the other task is in the middle of its loop over events.
            while live.count < settled.count and time.monotonic() < deadline_s and not following.done():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            following.cancel()
            await asyncio.wait([following])
            (directory / "names-live").write_bytes(live.names.tobytes())
        (directory / f"names-{kind}").write_bytes(settled.names.tobytes())
        report = {"settled": settled.report(), "live": live.report(), "requests": asdict(log.requests())}
    print(json.dumps(report), flush=True)  # noqa: T201 - the conductor listens


def main() -> None:
    """Run as told by the first argument."""
    asyncio.run(_run(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
