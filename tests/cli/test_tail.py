"""``logstore tail``: what is stored, then what comes, until interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import Tool, deployment, lines


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_follows_and_ends_cleanly(tool: Tool, place: str, ending: signal.Signals) -> None:
    """An interrupt is how it ends: status 0, and the position, from which cat goes on."""
    command = [sys.executable, "-m", "projections.cli", "tail", place, "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as tailing:
        assert tailing.stdout is not None
        assert tailing.stderr is not None
        stored = [json.loads(tailing.stdout.readline())["key"] for _ in range(3)]
        tool("append", place, stdin=lines(deployment(4)))
        came = json.loads(tailing.stdout.readline())["key"]
        tailing.send_signal(ending)
        assert (tailing.wait(timeout=30), tailing.stdout.read()) == (0, "")
        complaint = tailing.stderr.read()
    assert [*stored, came] == ["d-1", "d-2", "c-1", "d-4"]
    position = complaint.removeprefix("position: ").strip()
    tool("append", place, stdin=lines(deployment(5)))
    assert "d-5" in tool("cat", place, "--after", position).stdout
    assert len(tool("cat", place, "--after", position).stdout.splitlines()) == 1


def test_limit_ends_it(tool: Tool, place: str) -> None:
    """So that scripts can use it; kinds, text and settled as for cat."""
    result = tool("tail", place, "--limit", "1", "--kinds", "Command", "--settled")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert "Command c-1 issued" in result.stdout
    assert result.stderr.startswith("position: ")


def test_no_log_is_one_line(tool: Tool) -> None:
    """A wrong address does not wait for ever."""
    result = tool("tail", "memory://nothing-here")
    assert (result.exit_code, "NotFound" in result.stderr) == (2, True)
