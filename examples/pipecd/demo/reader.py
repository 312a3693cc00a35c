"""A reader: what the documents come to, from the newest snapshots on, or from the beginning of the log."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict

from examples.pipecd.collections import COLLECTIONS
from examples.pipecd.demo.station import Config, open_demo_log
from projections import View
from projections.demo.leash import hold_leash


async def _run(config: Config) -> None:
    hold_leash()
    async with open_demo_log(config, read_only=True) as log:
        print("ready", flush=True)
        began_s, digests, documents = time.perf_counter(), {}, 0
        for collection in COLLECTIONS:
            fold = collection.fold()
            if config["from"] == "beginning":
                fold.tag = "for the demo's reader"  # so it has no snapshot
            async with View.open(log, fold) as view:
                digests[collection.kind] = view.digest(pending=True)
                documents += len(view)
        took_s = time.perf_counter() - began_s
        report = {"digests": digests, "documents": documents, "took_s": took_s, "requests": asdict(log.requests())}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(json.loads(sys.argv[1])))
