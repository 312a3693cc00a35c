"""The demo of a control plane, small: real processes, two real kills, and readers who agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from examples.pipecd.demo.stopwatch import percentile_us


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.pipecd.demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_small_demo_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """An agent and ops are killed and started again; each command is one deployment, both readers have the same."""
    file = tmp_path / "commits.jsonl"
    commits = (
        {"hash": f"{n:08x}" * 5, "time": n, "author": "a", "subject": "s", "paths": [f"team/app-{n % 9}/prod"]}
        for n in range(24)
    )
    file.write_text("".join(json.dumps(commit) + "\n" for commit in commits))
    done = demo((tmp_path / "log").as_uri(), "--input", str(file), "--commits", "24", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    outcome = json.loads(done.stdout)
    assert outcome["kept"]
    assert sum(outcome["web"]["deployments"].values()) == outcome["web"]["commands"] == 24
    assert outcome["web"]["deployments"]["SUCCESS"] + outcome["web"]["deployments"]["FAILURE"] == 24
    assert len({json.dumps(reader["digests"]) for reader in outcome["readers"].values()}) == 1
    assert outcome["findings"] == []
    assert outcome["queries"]["16"]["asked"] > 0
    again = demo((tmp_path / "log").as_uri())
    assert (again.returncode, "there is a log already" in again.stderr) == (2, True)


def test_percentiles_are_of_all_that_was_measured() -> None:
    """The 99th percentile of a hundred values is one that at most one exceeds."""
    assert percentile_us([n * 1_000 for n in range(100)], 99) == 99
    assert percentile_us([1_000], 50) == 1
