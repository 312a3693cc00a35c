"""``logstore cat``: events to stdout, the position to stderr."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Tool


def keys(stdout: str) -> list[str]:
    return [json.loads(line)["key"] for line in stdout.splitlines()]


def test_events_are_printed_in_order(tool: Tool, place: str) -> None:
    """One line each: time, writer, kind, key, type, data."""
    result = tool("cat", place)
    assert result.exit_code == 0
    words = [line.split(" ", 2) for line in result.stdout.splitlines()]
    assert [rest for _, _, rest in words] == [
        'Deployment d-1 planned {"status":1}',
        'Deployment d-2 planned {"status":2}',
        'Command c-1 issued {"sum":{"$bytes":"AP8="}}',
    ]
    assert {writer for _, writer, _ in words} == {"cli"}
    assert words[0][0].endswith("Z")


def test_json_says_everything(tool: Tool, place: str) -> None:
    """What was appended, and where it stands."""
    first = json.loads(tool("cat", place, "--json").stdout.splitlines()[0])
    assert set(first) == {
        "kind",
        "key",
        "type",
        "data",
        "meta",
        "time",
        "stamp",
        "writer",
        "chapter",
        "session",
        "seq",
        "settled",
    }
    assert (first["kind"], first["data"], first["seq"], first["settled"]) == ("Deployment", {"status": 1}, 0, True)


def test_a_position_goes_on_where_another_cat_stopped(tool: Tool, place: str) -> None:
    """--limit, the position on stderr, and --after fit together."""
    first = tool("cat", place, "--json", "--limit", "2")
    position = first.stderr.removeprefix("position: ").strip()
    second = tool("cat", place, "--json", "--after", position)
    assert keys(first.stdout) + keys(second.stdout) == ["d-1", "d-2", "c-1"]
    last = second.stderr.removeprefix("position: ").strip()
    third = tool("cat", place, "--after", last)
    assert (third.stdout, third.stderr) == ("", f"position: {last}\n")


def test_kinds_are_chosen(tool: Tool, place: str) -> None:
    """By comma or by repetition."""
    assert keys(tool("cat", place, "--json", "--kinds", "Command").stdout) == ["c-1"]
    assert len(keys(tool("cat", place, "--json", "--kinds", "Command,Deployment").stdout)) == 3
    assert len(keys(tool("cat", place, "--json", "--kinds", "Command", "--kinds", "Deployment").stdout)) == 3


def test_settled_leaves_out_what_may_yet_be_preceded(tool: Tool, abandoned: str) -> None:
    """What lies above the last stamp of an open session is not settled; in text it is marked."""
    assert keys(tool("cat", abandoned, "--json", "--settled").stdout) == ["d-1", "d-2", "c-1", "d-9"]
    marked = [" ~ " in line for line in tool("cat", abandoned).stdout.splitlines()]
    assert marked == [False, False, False, False, True]


def test_damage_is_an_error_or_left_aside(tool: Tool, abandoned: str) -> None:
    """Without --skip-damage nothing behind it is read (2); with it the rest is, and damage is a finding (1)."""
    [segment] = Path(abandoned).glob("log/cli/*/*/0000000000")
    segment.write_bytes(b"")
    strict = tool("cat", abandoned)
    assert (strict.exit_code, "Error: Corrupt: object is empty key=log/cli/" in strict.stderr) == (2, True)
    lenient = tool("cat", abandoned, "--json", "--skip-damage")
    assert (lenient.exit_code, keys(lenient.stdout)) == (1, ["d-9", "d-10"])
    assert "left damaged: Corrupt: object is empty" in lenient.stderr


def test_bad_input_is_one_line(tool: Tool, place: str, tmp_path: Path) -> None:
    """No log, no address, no position: a line on stderr and status 2."""
    for arguments, message in (
        ((str(tmp_path / "nowhere"),), "NotFound: no log in this store"),
        (("ftp://x/y",), "InvalidArgument: no such kind of store"),
        (("",), "InvalidArgument: not an address"),
        ((place, "--after", "position-x"), "InvalidArgument: not a position"),
        ((place, "--limit", "-1"), "-1 is not in the range"),
    ):
        result = tool("cat", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        assert not (tmp_path / "nowhere").exists()
