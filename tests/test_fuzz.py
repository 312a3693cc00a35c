"""Whatever bytes a decoder is given, it returns what they mean or raises one of its errors, and builds little.

docs/testing.md, "Fuzzing". ``tests/fuzz/`` has the targets and the property; ``python -m tests.fuzz`` looks for longer.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.bugs import BUGS, planted
from tests.fuzz.objects import Stored
from tests.fuzz.targets import TARGETS
from tests.fuzz.verdict import Found, judge

CORPUS: Final = Path(__file__).parent / "fuzz" / "corpus"
KEPT: Final = sorted(CORPUS.glob("*/*.txt"))
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of what is found
LENIENT: Final = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def search(name: str, examples: int, *, good: bool = False, **more: Any) -> None:
    """Judge so many inputs of a target, or only good ones, which must be read."""
    target = TARGETS[name]

    @given(target.good if good else target.any)
    @settings(max_examples=examples, deadline=None, suppress_health_check=LENIENT, report_multiple_bugs=False, **more)
    def look(given_: Any) -> None:
        assert judge(target, given_) or not good

    look()


@pytest.mark.parametrize("name", TARGETS)
def test_only_typed_errors_and_little_memory(name: str) -> None:
    """Good input, bent input and nonsense are read as what they mean, or refused in one line that names them."""
    search(name, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_only_typed_errors_and_little_memory_of_many(name: str) -> None:
    """Likewise, of more of them."""
    search(name, 3_000)


@pytest.mark.parametrize("name", TARGETS)
def test_good_input_is_read(name: str) -> None:
    """What is bent was good before: the strategies make what the decoders take."""
    search(name, 10, good=True)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_was_found_stays_mended(path: Path) -> None:
    """Each input that once showed a fault has the property now."""
    value = ast.literal_eval(path.read_text())
    target = TARGETS[path.parent.name.replace("-", " ")]
    is_object = isinstance(value, tuple) and list(map(type, value)) == [str, bytes]
    judge(target, Stored(*value) if is_object else value)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_mistake_is_found(name: str) -> None:
    """A check left out, an error that leaks, a size without bounds: fuzzing finds each of them, by few inputs."""
    bug = BUGS[name]
    with planted(bug), pytest.raises(Found):
        search(bug.target, 5_000, derandomize=True, database=None, phases=[Phase.generate])


def test_the_long_run_says_what_it_did() -> None:
    """``python -m tests.fuzz`` names each target and what was found; without atheris Hypothesis looks alone."""
    command = [sys.executable, "-m", "tests.fuzz", "--target", "age", "--seconds", "0", "--engine", "hypothesis"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["age: seeds 0 to 0, 1,000 examples each", "targets=1 found=0"]
    done = subprocess.run([*command, "--target", "no such"], capture_output=True, text=True, check=False)
    assert (done.returncode, "no such target: no such; there are: " in done.stdout) == (2, True)
