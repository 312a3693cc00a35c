"""Each example runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = [
    path for path in sorted(Path(__file__).parent.parent.joinpath("examples").glob("*.py")) if path.stem != "__init__"
]


def test_there_are_examples() -> None:
    """The test below is about something."""
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path) -> None:
    """Without arguments it runs to its end, tells something, and complains of nothing."""
    command = [sys.executable, "-W", "error", str(example)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert "all done, as 9 events tell" in result.stdout
