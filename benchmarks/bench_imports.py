"""What it takes to start: processor time, the least of several, for what stands in the way of one is other processes.

logstore  ``import logstore``
help      ``logstore --help``, the tool

Beside them, the limit: an interpreter that imports asyncio, dataclasses, msgpack and zstandard, and ends.

Neither loads botocore, aiohttp or cryptography: those are for s3://, for the console and for protected stores. All is
compiled before, as an installed package is.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.conftest import Once, Record, Sizes
from benchmarks.figure import THE_GOAL, Figure

LIMIT = "import asyncio, dataclasses, msgpack, zstandard"
HEAVY = ("aioboto3", "aiohttp", "botocore", "cryptography", "pyarrow")
HELP = "import sys; from projections.cli import main; sys.argv = ['logstore', '--help']; "
WORKS = {
    "import logstore": ("import logstore", 150),
    "logstore --help": (HELP + "main()", 250),
}


def python(program: str, compiled: Path) -> Callable[[], object]:
    """Return what runs a program in a process of its own, once it has run; ``compiled``: where bytecode is kept."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run() -> None:
        subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL, check=True)

    run()
    return run


def best_ms(runs: int, *works: Callable[[], object]) -> list[float]:
    """The least processor time of several runs of each, in turns."""
    best = [float("inf")] * len(works)
    for _ in range(runs):
        for number, work in enumerate(works):
            before_s = children_s()
            work()
            best[number] = min(best[number], (children_s() - before_s) * 1e3)
    return best


def children_s() -> float:
    """Processor time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("work", WORKS)
def test_starting(once: Once[list[float]], record: Record, sizes: Sizes, tmp_path: Path, work: str) -> None:
    """Napkin: the interpreter 12 ms, asyncio and its kin 40, a hundred modules half a millisecond each."""
    program, goal_ms = WORKS[work]
    ours, limit = python(program, tmp_path), python(LIMIT, tmp_path)
    ours_ms, limit_ms = once(lambda: best_ms(sizes.starts, ours, limit))
    record(Figure(work, ours_ms, goal_ms, "ms of CPU", THE_GOAL, less=True, goal=1, steady=False))
    record(Figure(work, ours_ms, limit_ms, "ms of CPU", "asyncio, msgpack and zstandard alone", less=True))


@pytest.mark.parametrize("work", WORKS)
def test_nothing_heavy_is_loaded(work: str) -> None:
    """What most do not use costs nobody a second."""
    program, _ = WORKS[work]
    loaded = f"print(*sorted({set(HEAVY)} & set(sys.modules)), file=sys.stderr)"
    at_end = f"import atexit, sys; atexit.register(lambda: {loaded}); "
    done = subprocess.run([sys.executable, "-c", at_end + program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
