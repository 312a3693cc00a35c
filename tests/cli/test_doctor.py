"""``logstore doctor``: what is well and what is not; it writes only when asked to probe."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Tool, age


def objects(place: str) -> list[str]:
    return sorted(str(path) for path in Path(place).rglob("*") if path.is_file())


def test_a_healthy_log_is_status_0(tool: Tool, place: str) -> None:
    """Everything is ok, and nothing was written."""
    before = objects(place)
    result = tool("doctor", place)
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["ok", check] for check in ("log:", "clock:", "stamps:", "sessions:")
    ]
    assert objects(place) == before


def test_no_log_yet_is_fine(tool: Tool, tmp_path: Path) -> None:
    """Before the first writer there is nothing; looking makes nothing."""
    result = tool("doctor", str(tmp_path / "new"))
    assert (result.exit_code, "the first writer makes it" in result.stdout) == (0, True)
    assert not (tmp_path / "new").exists()


def test_silent_sessions_are_a_finding(tool: Tool, abandoned: str) -> None:
    """They hold the watermark; the way out is named."""
    assert tool("doctor", abandoned).exit_code == 0
    age(abandoned, 60)
    result = tool("doctor", abandoned)
    assert (result.exit_code, "run `logstore seal`" in result.stdout) == (1, True)
    assert "FINDING sessions: session 0/3 of dead, which holds the watermark, is silent beyond" in result.stdout


def test_damage_is_a_finding(tool: Tool, place: str) -> None:
    """Of the store's own object, or of the roster."""
    for name in ("roster/0000000000/0000000001", "store"):
        (Path(place) / name).write_bytes(b"")
        result = tool("doctor", place)
        assert (result.exit_code, "`logstore check` lists all damage" in result.stdout) == (1, True)


def test_probe_writes_and_cleans_up(tool: Tool, place: str) -> None:
    """Every promise of the store is put to the test; nothing is left behind."""
    before = objects(place)
    result = tool("doctor", place, "--probe", "--json")
    diagnoses = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.exit_code, len(diagnoses)) == (0, 11)
    checks = {diagnosis["check"] for diagnosis in diagnoses}
    assert {"store: one winner", "store: visibility", "store: listing", "store: clock"} < checks
    assert objects(place) == before
