"""``logstore status``: what a log holds, what holds its watermark, what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Tool, age


def test_a_settled_log(tool: Tool, place: str) -> None:
    """Counts, and that all is settled."""
    result = tool("status", place)
    assert result.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert facts["watermark"].strip() == "everything is settled"
    assert facts["sessions"].strip() == "1, 0 of them open"
    assert facts["events"].startswith("3, the newest ")
    assert facts["history"].strip() == "full, grace 24 h"
    assert facts["health"].strip() == "nothing is wrong"


def test_an_open_session_holds_the_watermark(tool: Tool, abandoned: str) -> None:
    """Who, since when, and what to do."""
    status = json.loads(tool("status", abandoned, "--json").stdout)
    [session] = status["open_sessions"]
    assert (session["writer"], session["slots"], session["events"]) == ("dead", 1, 1)
    text = tool("status", abandoned).stdout
    assert "Open sessions" in text
    assert "held by session 0/3 of dead: it has not ended; may be sealed in" in text
    age(abandoned, 60)
    assert "held by session 0/3 of dead: its writer seems gone; run `logstore seal`" in tool("status", abandoned).stdout


def test_what_is_wrong_is_said_with_status_1(tool: Tool, abandoned: str) -> None:
    """In words, and for programs: what, since when, what to do. Before the seal time nothing is wrong."""
    assert json.loads(tool("status", abandoned, "--json").stdout)["concerns"] == []
    age(abandoned, 60)
    result = tool("status", abandoned)
    assert (result.exit_code, "health     1 of concern, see below" in result.stdout) == (1, True)
    assert result.stdout.splitlines()[-1].startswith("! session 0/3 of dead, which holds the watermark, is silent")
    result = tool("status", abandoned, "--json")
    status = json.loads(result.stdout)
    [concern] = status["concerns"]
    assert (result.exit_code, concern["kind"], "run `logstore seal`" in concern["do"]) == (1, "session-silent", True)
    assert status["now_ms"] - 60_000 <= concern["since_ms"] <= status["now_ms"]
    tool("seal", abandoned)
    assert tool("status", abandoned).exit_code == 0


def test_it_is_told_what_the_keeper_is_told(tool: Tool, place: str) -> None:
    """A chapter that should have ended is of concern only where chapters are to end so soon."""
    age(place, 60)
    late = ("status", place, "--chapter-age", "0", "--snapshot-every", "0")
    assert tool("status", place).exit_code == 0
    result = tool(*late)
    assert (result.exit_code, "no keeper seems to run" in result.stdout) == (1, True)


def test_damage_is_one_line(tool: Tool, place: str) -> None:
    """Status trusts the log; what it trips over is told, with status 2."""
    (Path(place) / "roster/0000000000/0000000001").write_bytes(b"x")
    result = tool("status", place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Corrupt" in result.stderr
