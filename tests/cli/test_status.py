"""``logstore status``: what a log holds and what holds its watermark."""

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


def test_damage_is_one_line(tool: Tool, place: str) -> None:
    """Status trusts the log; what it trips over is told, with status 2."""
    (Path(place) / "roster/0000000000/0000000001").write_bytes(b"x")
    result = tool("status", place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Corrupt" in result.stderr
