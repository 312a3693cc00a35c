"""``logstore copy``: what it says, and what an operator does with a log that has lost something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Tool


def keys(stdout: str) -> list[str]:
    return [json.loads(line)["key"] for line in stdout.splitlines()]


def test_a_copy_is_made_and_brought_up_to_date(tool: Tool, place: str, tmp_path: Path) -> None:
    """The second time nothing is new; the id is the same."""
    target = str(tmp_path / "backup")
    first, second = (json.loads(tool("copy", place, target, "--json").stdout) for _ in range(2))
    assert (first["objects"] > 3, second["objects"], first["id"]) == (True, 0, second["id"])
    assert tool("cat", target, "--json").stdout == tool("cat", place, "--json").stdout


def test_damage_ends_a_copy_unless_it_is_accepted(tool: Tool, abandoned: str, tmp_path: Path) -> None:
    """First its name (2), then a copy without it in another place (1), which is whole: check finds nothing (0)."""
    [segment] = Path(abandoned).glob("log/cli/*/*/0000000000")
    segment.write_bytes(b"")
    name = str(segment.relative_to(abandoned))
    strict = tool("copy", abandoned, str(tmp_path / "strict"))
    assert (strict.exit_code, strict.stderr.count("\n"), name in strict.stderr) == (2, 1, True)
    again = tool("copy", abandoned, str(tmp_path / "strict"), "--accept-loss")
    assert (again.exit_code, "copied into an empty place only" in again.stderr) == (2, True)
    lossy = tool("copy", abandoned, str(tmp_path / "lossy"), "--accept-loss")
    assert lossy.exit_code == 1
    assert f"damage {name}: object is empty: lost, with all above it: 2 slots, 3 events" in lossy.stdout
    assert "lost or left out: 1" in lossy.stderr
    assert tool("check", str(tmp_path / "lossy"), "--no-notes").exit_code == 0
    assert keys(tool("cat", str(tmp_path / "lossy"), "--json").stdout) == ["d-9", "d-10"]
    finding, made = map(
        json.loads, tool("copy", abandoned, str(tmp_path / "json"), "--accept-loss", "--json").stdout.splitlines()
    )
    assert (finding["severity"], finding["key"], len(made["id"])) == ("damage", name, 32)


def test_without_damage_there_is_nothing_to_accept(tool: Tool, place: str, tmp_path: Path) -> None:
    """Status 0, no line; and the result is an ordinary copy."""
    result = tool("copy", place, str(tmp_path / "copy"), "--accept-loss")
    assert (result.exit_code, result.stdout, "lost or left out: 0" in result.stderr) == (0, "", True)
    assert tool("copy", place, str(tmp_path / "copy")).exit_code == 0


def test_a_copy_may_have_another_history(tool: Tool, place: str, tmp_path: Path) -> None:
    """The copy's policy, for good: another one is refused, and so is one that nobody knows."""
    target = str(tmp_path / "copy")
    assert tool("copy", place, target, "--history", "drop").exit_code == 0
    assert tool("copy", place, target).exit_code == 0
    other = tool("copy", place, target, "--history", "archive")
    assert (other.exit_code, "history=drop wanted=archive" in other.stderr) == (2, True)
    assert tool("copy", place, target, "--history", "some").exit_code == 2


@pytest.mark.parametrize("accept", [(), ("--accept-loss",)])
def test_bad_addresses_are_one_line(tool: Tool, place: str, tmp_path: Path, accept: tuple[str, ...]) -> None:
    """No log to copy, no such kind of store: status 2, and no target is made."""
    for source, target in ((str(tmp_path / "none"), str(tmp_path / "new")), (place, "ftp://x/y"), ("", place)):
        result = tool("copy", source, target, *accept)
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
        assert not (tmp_path / "new" / "store").exists()
