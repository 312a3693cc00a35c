"""The demo of a control plane, small: real processes, two real kills, and readers who agree."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from examples.pipecd import ControlPlane
from examples.pipecd.demo.agent import Agent
from examples.pipecd.demo.conductor import conduct
from examples.pipecd.demo.stopwatch import percentile_us
from examples.pipecd.models import CommandStatus
from projections.demo.history import Commit
from projections.demo.process import DemoFailed
from tests.pipecd.planes import application, process
from tests.scene import Scene, directed, quick, refuse, until


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


def child_whose_command_has(*words: str) -> int:
    """The process id of a child of this process."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            if all(word in Path(f"/proc/{pid}/cmdline").read_text() for word in words):
                return int(pid)
    raise AssertionError(f"no child of this process has {words} in its command")


async def test_the_death_of_any_process_that_was_not_killed_on_purpose_ends_the_demo(tmp_path: Path) -> None:
    """Only the web process was watched: when an agent died of itself, the others waited for its work for ever."""
    victims = [("demo.agent", "piped-0")]

    def kill_it(_handled: int) -> None:
        if victims:
            os.kill(child_whose_command_has(*victims.pop()), signal.SIGKILL)

    commit = Commit(hash="0" * 40, time=0, author="a", subject="s", applications=("team/app/prod",))
    async with asyncio.timeout(60):
        with pytest.raises(DemoFailed, match=r"process='agent piped-0' status=-9"):
            await conduct((tmp_path / "log").as_uri(), [commit], kill_it)


@directed
async def test_an_agent_carries_a_command_out_again_when_the_store_was_away(scene: Scene) -> None:
    """A stage log's creation that failed ended the agent; now the command is still unhandled, and met again."""
    machine = scene.machine("agent-piped-0")
    async with (
        process(scene, "client-web") as web,
        machine.open(quick()) as log,
        ControlPlane.open(log, "agent-piped-0") as plane,
    ):
        await web.pipeds.add({"id": "piped-0", "name": "piped-0", "project_id": "demo"})
        await web.applications.add(application(piped_id="piped-0", project_id="demo"))
        refused = machine.script.on("create", "stagelogs/", refuse, times=1_000)
        serving = asyncio.create_task(Agent("piped-0", log, plane).serve())
        await web.commands.add(
            {
                "id": "sync",
                "project_id": "demo",
                "piped_id": "piped-0",
                "application_id": "a-1",
                "commander": "somebody",
                "type": 0,
                "metadata": {"commit": "c0ffee"},
            }
        )
        await until(lambda: refused.met > 20)
        machine.script.clear()
        await until(lambda: web.commands.get("sync")["status"] == CommandStatus.SUCCEEDED)
        await web.pipeds.disable("piped-0")
        assert (await serving)["resumed"] > 0


def test_percentiles_are_of_all_that_was_measured() -> None:
    """The 99th percentile of a hundred values is one that at most one exceeds."""
    assert percentile_us([n * 1_000 for n in range(100)], 99) == 99
    assert percentile_us([1_000], 50) == 1
