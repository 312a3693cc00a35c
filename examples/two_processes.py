"""Two processes, one log, no server: one appends, the other follows a view of it.

    python examples/two_processes.py            # both, over a new directory
    python examples/two_processes.py s3://...   # over a bucket, or any address that logstore.open takes

The writer registers deployments and reports how they go on. The watcher keeps a view, prints each change as it comes,
and ends when every deployment is done. They share the address of the store, and nothing else.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

import logstore
from logstore import Event, Log
from projections import Index, Projection, View

DEPLOYMENTS = 3
STATUSES = ("planned", "running", "done")


class Deployments(Projection):
    name, kinds, fold = "deployments", frozenset({"Deployment"}), "patch"
    indexes = (Index("status"),)


async def write(address: str, name: str) -> None:
    async with logstore.open(address) as log, log.writer(name) as writer:
        for status in STATUSES:
            for number in range(DEPLOYMENTS):
                await writer.append(Event("Deployment", f"d-{number}", "changed", {"status": status}))


async def watch(address: str) -> None:
    async with logstore.open(address) as log, View.open(log, Deployments(), follow=True) as view:
        changes = view.changes()
        while view.count([("status", "==", "done")]) < DEPLOYMENTS:
            change = await anext(changes)
            print(change.key, "is", change.new["status"] if change.new else "gone")
        await changes.aclose()
        print("all done, as", await count_events(log), "events tell")


async def count_events(log: Log) -> int:
    return sum([1 async for _ in log.read()])


async def main(address: str) -> None:
    command = [sys.executable, __file__, address, "write"]
    writing = await asyncio.create_subprocess_exec(*command)
    await watch(address)
    if await writing.wait() != 0:
        sys.exit("the writer failed")


if __name__ == "__main__":
    match sys.argv[1:]:
        case [address, "write"]:
            asyncio.run(write(address, "agent-1"))
        case [address]:
            asyncio.run(main(address))
        case _:
            with tempfile.TemporaryDirectory() as directory:
                asyncio.run(main(Path(directory, "log").as_uri()))
