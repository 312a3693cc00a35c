"""``logstore append``: what is stored is a beginning of the input, and the tool says which."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Tool, deployment, lines


def keys(tool: Tool, place: str) -> list[str]:
    return [json.loads(line)["key"] for line in tool("cat", place, "--json").stdout.splitlines()]


def test_lines_are_stored_in_order(tool: Tool, tmp_path: Path) -> None:
    """Blank lines are none, the last line needs no end, and the directory is made."""
    place = str(tmp_path / "new")
    result = tool(
        "append", place, "--writer", "web-1", stdin=lines(deployment(1)) + "\n  \n" + lines(deployment(2))[:-1]
    )
    assert (result.exit_code, result.stdout) == (0, "stored: lines 1 to 4, 2 events in 2 segments\n")
    assert keys(tool, place) == ["d-1", "d-2"]


def test_many_lines_are_stored_in_batches(tool: Tool, tmp_path: Path) -> None:
    """More than one segment, one order."""
    place = str(tmp_path / "new")
    result = tool("append", place, "--json", stdin=lines(*(deployment(n) for n in range(3_500))))
    report = json.loads(result.stdout)
    assert (report["lines"], report["events"]) == (3_500, 3_500)
    assert report["last_receipt"].startswith("receipt-")
    assert keys(tool, place) == [f"d-{n}" for n in range(3_500)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a line of JSON"),
        ("[]", "not an object"),
        ('{"kind": "D", "key": "k"}', "needs text field=type value=None"),
        ('{"kind": 1, "key": "k", "type": "t"}', "needs text field=kind value=1"),
        ('{"kind": "D", "key": "", "type": "t"}', "needs 1 to 1024 bytes"),
        ('{"kind": "D", "key": "k", "type": "t", "dta": {}}', "no such field of an event field='dta'"),
        ('{"kind": "D", "key": "k", "type": "t", "data": [1]}', "needs a mapping or None"),
        ('{"kind": "D", "key": "k", "type": "t", "data": {"a": NaN}}', "NaN is no JSON"),
        ('{"kind": "D", "key": "k", "type": "t", "data": {"a": 99999999999999999999}}', "cannot be stored"),
        ('{"kind": "D", "key": "k", "type": "t", "data": {"a": {"$bytes": "?"}}}', "not base64"),
        ('{"kind": "D", "key": "k", "type": "t", "data": {"a": {"$byte": ""}}}', "begins with $"),
        ('{"kind": "D", "key": "\\ud800", "type": "t"}', "not encodable as UTF-8"),
        ("\xff", "not a line of JSON"),
        (
            '{"kind": "D", "key": "k", "type": "t", "data": ' + '{"a":' * 100_000 + "1" + "}" * 100_001,
            "InvalidArgument",
        ),
    ],
)
def test_a_bad_line_stops_the_input_there(tool: Tool, tmp_path: Path, line: str, message: str) -> None:
    """Everything before it is stored, nothing from it on; its number and the mistake are said in one line each."""
    place = str(tmp_path / "new")
    stdin = (lines(deployment(1), deployment(2)) + line + "\n" + lines(deployment(4))).encode("latin-1")
    result = tool("append", place, stdin=stdin)
    assert result.exit_code == 2
    complaint, stored = result.stderr.splitlines()
    assert complaint.startswith("Error: line 3: InvalidArgument: ")
    assert message in complaint
    assert stored == "stored: lines 1 to 2, 2 events in 1 segments; nothing from line 3 on"
    assert keys(tool, place) == ["d-1", "d-2"]


def test_nothing_is_stored_of_an_input_that_begins_badly(tool: Tool, tmp_path: Path) -> None:
    """The first line is bad: the log is made, and empty."""
    result = tool("append", str(tmp_path / "new"), stdin="?")
    assert result.stderr.endswith("stored: nothing, 0 events in 0 segments; nothing from line 1 on\n")


def test_what_cat_prints_can_be_appended(tool: Tool, place: str, tmp_path: Path) -> None:
    """Bytes, infinities and maps that look like them survive, bit for bit; the place in the log does not."""
    odd = {"a": {"$map": {"$bytes": 1}}, "b": {"$float": "-Infinity"}, "c": {"$bytes": ""}, "d": [{"$bytes": "AA=="}]}
    assert tool("append", place, stdin=lines(deployment(7, data=odd, meta={"actor": "me"}))).exit_code == 0
    printed = tool("cat", place, "--json").stdout
    assert tool("append", str(tmp_path / "copy"), stdin=printed).exit_code == 0
    first, second = (
        [
            {name: json.loads(line)[name] for name in ("kind", "key", "type", "data", "meta")}
            for line in text.splitlines()
        ]
        for text in (printed, tool("cat", str(tmp_path / "copy"), "--json").stdout)
    )
    assert first == second
    assert first[-1]["data"] == odd


def test_lines_are_stored_while_the_input_goes_on(tmp_path: Path, tool: Tool) -> None:
    """A pipe that pauses is not waited for; Ctrl-C then ends the session and says what is stored."""
    place = str(tmp_path / "new")
    command = [sys.executable, "-m", "projections.cli"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "append", place], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as appending:
        assert appending.stdin is not None
        assert appending.stderr is not None
        appending.stdin.write(lines(deployment(1)))
        appending.stdin.flush()
        tail = subprocess.run([*command, "tail", place, "--limit", "1"], capture_output=True, text=True, check=False)
        while tail.returncode == 2:  # the log is not made yet
            tail = subprocess.run(
                [*command, "tail", place, "--limit", "1"], capture_output=True, text=True, check=False
            )
        assert "Deployment d-1 planned" in tail.stdout
        appending.send_signal(signal.SIGINT)
        assert appending.wait(timeout=30) == 130
        assert "stored: lines 1 to 1, 1 events" in appending.stderr.read()
    assert json.loads(tool("status", place, "--json").stdout)["open_sessions"] == []
