"""``logstore seal``: ends what is silent, leaves alone what may live, refuses what is damaged."""

from __future__ import annotations

import json

from tests.cli.conftest import Tool, age, tick_naming


def test_a_session_that_may_live_is_left_alone(tool: Tool, abandoned: str) -> None:
    """It was not silent for its seal time."""
    result = tool("seal", abandoned)
    assert (result.exit_code, result.stderr) == (0, "0 of 1 open sessions sealed\n")
    assert "its writer may live" in result.stdout


def test_a_silent_session_is_sealed(tool: Tool, abandoned: str) -> None:
    """A dry run says so and writes nothing; then it is done, everything settles, and there is nothing left to do."""
    age(abandoned, 60)
    dry = tool("seal", abandoned, "--dry-run")
    assert (dry.exit_code, dry.stderr) == (0, "1 of 1 open sessions would be sealed\n")
    assert len(tool("cat", abandoned, "--settled").stdout.splitlines()) == 4
    done = tool("seal", abandoned, "--json")
    assert json.loads(done.stdout)["why"] == "sealed at slot 1"
    assert len(tool("cat", abandoned, "--settled").stdout.splitlines()) == 5
    assert tool("seal", abandoned).stderr == "0 of 0 open sessions sealed\n"


def test_a_damaged_session_is_a_finding(tool: Tool, abandoned: str) -> None:
    """The store lost a slot that a tick names: status 1, and nothing sealed."""
    tick_naming(abandoned, slots=2)
    age(abandoned, 60)
    result = tool("seal", abandoned)
    assert result.exit_code == 1
    assert "Missing: a stored segment is gone, its session is not sealed" in result.stdout
    assert result.stderr == "0 of 1 open sessions sealed\n"


def test_a_writer_that_is_known_to_be_gone_is_sealed_at_once(tool: Tool, abandoned: str) -> None:
    """Only its sessions, and without waiting for their seal time, which a stolen key may have made endless."""
    assert tool("seal", abandoned, "--writer", "alive").stderr == "0 of 0 open sessions sealed\n"
    dry = tool("seal", abandoned, "--writer", "dead", "--dry-run")
    assert dry.stderr == "1 of 1 open sessions would be sealed\n"
    assert tool("seal", abandoned, "--writer", "dead").stderr == "1 of 1 open sessions sealed\n"
    assert len(tool("cat", abandoned, "--settled").stdout.splitlines()) == 5
