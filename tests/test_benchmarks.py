"""The benchmarks run. What they measure is not looked at here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_workload_runs_at_a_tiny_size() -> None:
    """A change that breaks a benchmark breaks the tests."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "--tiny", "--benchmark-disable", "-q"]
    result = subprocess.run([*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "skipped" not in result.stdout
