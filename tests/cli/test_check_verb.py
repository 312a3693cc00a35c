"""``logstore check``: all damage, one line each; status 1 when there is any."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Tool


def test_a_clean_log_is_status_0(tool: Tool, place: str) -> None:
    """Nothing on stdout; what was looked at on stderr."""
    result = tool("check", place)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "3 entries, 2 segments, 3 events" in result.stderr
    assert "damage in 0 places" in result.stderr


def test_all_damage_is_listed(tool: Tool, abandoned: str) -> None:
    """Also where the log cannot be opened: its own name is damaged."""
    (Path(abandoned) / "store").write_bytes(b"")
    [segment] = Path(abandoned).glob("log/dead/*/*/0000000000")
    segment.write_bytes(bytes(100))
    (Path(abandoned) / "notes.txt").write_text("not ours")
    result = tool("check", abandoned)
    assert result.exit_code == 1
    damage, other, note = result.stdout.splitlines()
    assert damage.startswith("damage store: object is empty")
    assert other.startswith("damage log/dead/0000000000/")
    assert "nothing but zeros" in other
    assert note.startswith("note notes.txt: ")
    assert "damage in 2 places" in result.stderr
    assert len(tool("check", abandoned, "--no-notes").stdout.splitlines()) == 2


def test_json_is_a_finding_a_line(tool: Tool, place: str) -> None:
    """Severity, key, what, next step."""
    (Path(place) / "roster/readme").write_text("?")
    [finding] = map(json.loads, tool("check", place, "--json").stdout.splitlines())
    assert set(finding) == {"severity", "key", "what", "next_step"}
    assert (finding["severity"], finding["key"]) == ("damage", "roster/readme")


def test_stale_temporaries_are_ignored(tool: Tool, place: str) -> None:
    """What a crash left in tmp/ is nobody's business but gc's."""
    (Path(place) / "tmp/1-abc").write_bytes(b"half")
    assert tool("check", place).exit_code == 0


def test_no_log_is_status_2(tool: Tool, tmp_path: Path) -> None:
    """There is nothing to check, which is no finding."""
    result = tool("check", str(tmp_path))
    assert (result.exit_code, "NotFound: no log" in result.stderr) == (2, True)
