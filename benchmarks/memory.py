"""What a view takes: ``python -m benchmarks.memory URL LOG_BYTES`` opens one, asks each index a question, prints JSON.

``LOG_BYTES``: how much of what it read the log remembers. ``URL LOG_BYTES BYTES``: with a memory budget of so many.

It runs in a process of its own. ``resident_bytes``: what the process grew by, as the kernel counts it (VmRSS), from
before the log is opened until all indexes are built: so the allocator's waste, and the segments that the log
remembers, count. ``peak_bytes``: the same at its highest (VmHWM).
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import logstore
from benchmarks.documents import Deployments, project, uuid
from logstore import LogSettings
from projections import View

LOG_BYTES_PER_DOCUMENT = 64
PROJECT = ("project_id", "==", project(0))
QUESTIONS = (
    [PROJECT],
    [PROJECT, ("status", "==", 1)],
    [("piped_id", "==", uuid("piped", 0)), ("status", "in", [0, 1, 2, 3])],
)


async def measure(url: str, log_bytes_max: int, memory_bytes_max: int | None = None) -> dict[str, int]:
    before = status_bytes("VmRSS")
    async with (
        logstore.open(url, settings=LogSettings(memory_bytes_max=log_bytes_max), read_only=True) as log,
        View.open(log, Deployments(), memory_bytes_max=memory_bytes_max) as view,
    ):
        for where in QUESTIONS:
            assert view.explain(where).index is not None
        taken = {
            "rows": len(view),
            "resident_bytes": status_bytes("VmRSS") - before,
            "peak_bytes": status_bytes("VmHWM") - before,
            "file_bytes": view.statistics().cache_file_bytes,
        }
        return {**taken, "msgpack_bytes": sum(len(row) for _, row in view._state.rows.items())}


def measure_apart(url: str, documents: int, memory_bytes_max: int | None = None) -> dict[str, int]:
    """Measure in a process of its own. The log remembers as much for each document as it does of a million."""
    budget = [] if memory_bytes_max is None else [memory_bytes_max]
    numbers = map(str, (LOG_BYTES_PER_DOCUMENT * documents, *budget))
    command = [sys.executable, "-m", "benchmarks.memory", url, *numbers]
    figures: dict[str, int] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return figures


def status_bytes(field: str) -> int:
    """What the kernel says of this process: VmRSS, VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], *map(int, sys.argv[2:])))))
