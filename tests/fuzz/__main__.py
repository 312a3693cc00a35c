"""Look for longer.

    python -m tests.fuzz                                  every target, 20 seconds each
    python -m tests.fuzz --target segment --seconds 600   one
    python -m tests.fuzz --engine hypothesis              without coverage, also where atheris is installed

Where atheris is installed (``pip install atheris``), it chooses inputs by what they reach in our code. What it found is
kept by Hypothesis, which then finds a smaller one and prints it. Exit status 0: nothing was found.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.database import DirectoryBasedExampleDatabase

BATCH: Final = 1_000
KEPT: Final = Path(".hypothesis/fuzz")


def main() -> int:
    """Do what the arguments say."""
    arguments = _parse()
    if arguments.within:
        return _run_atheris(arguments.within, arguments.seconds)
    from tests.fuzz.targets import TARGETS

    names = arguments.target or list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        print(f"no such target: {', '.join(unknown)}; there are: {', '.join(TARGETS)}")
        return 2
    found = [name for name in names if not _has_the_property(name, arguments)]
    print(f"targets={len(names)} found={len(found)}", *found)
    return int(bool(found))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz decoders.")
    engines = ["atheris", "hypothesis"]
    parser.add_argument("--target", action="append", help="one of them, by name; may be given again")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (default: 20)")
    parser.add_argument("--engine", choices=engines, default=engines[find_spec("atheris") is None])
    parser.add_argument("--first", type=int, default=0, help="Hypothesis's first seed (default: 0)")
    parser.add_argument("--within", help=argparse.SUPPRESS)  # the process of one target, which atheris ends
    return parser.parse_args()


def _has_the_property(name: str, arguments: argparse.Namespace) -> bool:
    if arguments.engine == "hypothesis":
        return _run_hypothesis(name, arguments.seconds, arguments.first)
    command = [sys.executable, "-m", "tests.fuzz", "--within", name, "--seconds", str(arguments.seconds)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = re.findall(r"^#\d+.*cov: .*$", done.stderr, re.MULTILINE)
    print(f"{name}: {lines[-1] if lines else 'did not run'}", flush=True)
    if done.returncode == 0:
        return True
    if _run_hypothesis(name, 1, 0):  # replays what was kept
        print(done.stdout[-3_000:] + done.stderr[-3_000:])
    return False


def _property(name: str) -> Any:
    from tests.fuzz.targets import TARGETS
    from tests.fuzz.verdict import judge

    target = TARGETS[name]

    def has_the_property(given_: Any) -> None:
        judge(target, given_)

    bent = given(target.any)(has_the_property)
    return settings(
        max_examples=BATCH,
        deadline=None,
        database=DirectoryBasedExampleDatabase(KEPT / name.replace(" ", "-")),  # its key is that of the function
        report_multiple_bugs=False,
        phases=[Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(bent)


def _run_hypothesis(name: str, seconds: int, first: int) -> bool:
    ends_s, number = time.monotonic() + seconds, first
    while True:
        try:
            seed(number)(_property(name))()
        except Exception as error:  # noqa: BLE001 - whatever it is, it was found
            print(f"{name}: seed={number}: {error}\n" + "\n".join(getattr(error, "__notes__", [])))
            return False
        number += 1
        if time.monotonic() >= ends_s:
            print(f"{name}: seeds {first} to {number - 1}, {BATCH:,} examples each", flush=True)
            return True


def _run_atheris(name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["logstore", "projections"], enable_loader_override=False):
        checked = _property(name)
    fuzz = checked.hypothesis.fuzz_one_input
    with tempfile.TemporaryDirectory() as corpus:
        options = [f"-max_total_time={seconds}", "-max_len=4096", "-len_control=0", "-rss_limit_mb=4096", "-timeout=60"]
        atheris.Setup([sys.argv[0], corpus, f"-artifact_prefix={corpus}/", *options], fuzz)
        atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
