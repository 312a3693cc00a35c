"""``logstore export``: all events in order, lossless; a file that is there is whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from projections import Projection
from tests.cli.conftest import Tool, deployment, lines

ODD = {"a": {"$map": {"$bytes": 1}}, "b": {"$float": "-Infinity"}, "c": {"$bytes": "AP8="}, "d": [1.0, 2**64 - 1, None]}


class Deployments(Projection):
    name, kinds, fold = "deployments", frozenset({"Deployment"}), "put"


HERE = f"--projection={__name__}:Deployments"


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def parquet(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


@pytest.fixture
def full(tool: Tool, place: str) -> str:
    """The log of three events, and one with everything that JSON cannot say."""
    assert tool("append", place, stdin=lines(deployment(7, data=ODD, meta={"actor": {"$bytes": ""}}))).exit_code == 0
    return place


def test_all_events_in_order_as_cat_prints_them(tool: Tool, full: str) -> None:
    """One format: kind, key, type, data, meta, and where it stands. The position goes to stderr."""
    result = tool("export", full)
    assert (result.exit_code, result.stdout) == (0, tool("cat", full, "--json").stdout)
    assert "4 events exported" in result.stderr
    first, *_, odd = records(result.stdout)
    assert (odd["data"], odd["meta"]) == (ODD, {"actor": {"$bytes": ""}})
    assert first.keys() >= {"stamp", "time", "writer", "chapter", "session", "seq", "settled"}


def test_a_part_of_them(tool: Tool, full: str) -> None:
    """By kind, by position, settled."""
    assert [each["key"] for each in records(tool("export", full, "--kind", "Command").stdout)] == ["c-1"]
    whole = tool("export", full)
    position = whole.stderr.split()[1]
    assert tool("export", full, "--after", position).stdout == ""
    assert tool("append", full, stdin=lines(deployment(8))).exit_code == 0
    assert [each["key"] for each in records(tool("export", full, "--after", position).stdout)] == ["d-8"]
    assert all(each["settled"] for each in records(tool("export", full, "--settled").stdout))


def test_a_file_has_its_name_when_it_is_whole(tool: Tool, abandoned: str, tmp_path: Path) -> None:
    """Replaced by the next export; one that fails leaves the old file, and nothing beside it."""
    out = tmp_path / "out" / "events.jsonl"
    out.parent.mkdir()
    assert json.loads(tool("export", abandoned, "--out", str(out), "--json").stdout) == {"file": str(out), "records": 5}
    before = out.read_bytes()
    assert before.decode() == tool("export", abandoned).stdout
    [segment] = Path(abandoned).glob("log/dead/*/*/0000000000")
    segment.write_bytes(b"")
    for options in ((), ("--format", "parquet")):
        failed = tool("export", abandoned, "--out", str(out), *options)
        assert (failed.exit_code, failed.stderr.startswith("Error: Corrupt: object is empty")) == (2, True)
        assert (out.read_bytes(), list(out.parent.iterdir())) == (before, [out])
    skipped = tool("export", abandoned, "--out", str(out), "--skip-damage")
    assert (skipped.exit_code, "left damaged: Corrupt" in skipped.stderr, len(records(out.read_text()))) == (1, True, 4)


def test_parquet_has_a_column_for_each_field(tool: Tool, full: str, tmp_path: Path) -> None:
    """Data and meta as the JSON of a line; the stamp as it is, and as a time."""
    out = tmp_path / "events.parquet"
    assert tool("export", full, "--format", "parquet", "--out", str(out)).exit_code == 0
    expected = records(tool("export", full).stdout)
    rows = parquet(out)
    assert len(rows) == 4
    for row, line in zip(rows, expected, strict=True):
        assert row.pop("time").isoformat(timespec="milliseconds").replace("+00:00", "Z") == line.pop("time")
        for name in ("data", "meta"):
            text = row.pop(name)
            assert (None if text is None else json.loads(text)) == line.pop(name)
        assert row == line


@pytest.mark.parametrize("count", [0, 1, 10_000, 10_001])
def test_parquet_of_any_length(tool: Tool, tmp_path: Path, count: int) -> None:
    """Nothing, one, a whole row group, and one more."""
    place, out = str(tmp_path / "log"), tmp_path / "events.parquet"
    text = "".join(f'{{"kind":"K","key":"k-{n}","type":"t"}}\n' for n in range(count))
    assert tool("import", place, stdin=text).exit_code == 0
    assert tool("export", place, "--format", "parquet", "--out", str(out)).exit_code == 0
    assert [row["key"] for row in parquet(out)] == [f"k-{n}" for n in range(count)]


def test_without_pyarrow_parquet_is_refused(
    tool: Tool, full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line that says what to install; lines of JSON do not need it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = tool("export", full, "--format", "parquet", "--out", str(tmp_path / "x"))
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "pip install 'logstore[parquet]'" in result.stderr
    assert not (tmp_path / "x").exists()
    assert tool("export", full).exit_code == 0


def test_rows_of_a_projection(tool: Tool, full: str, tmp_path: Path) -> None:
    """Sorted by key, as lines or as Parquet; deleted ones are not there; the log is not written to."""
    assert tool("append", full, stdin=lines(deployment(2, data=None))).exit_code == 0
    rows = records(tool("export", full, HERE).stdout)
    assert rows == [{"key": "d-1", "row": {"status": 1}}, {"key": "d-7", "row": ODD}]
    out = tmp_path / "rows.parquet"
    assert tool("export", full, HERE, "--format", "parquet", "--out", str(out)).exit_code == 0
    assert [{**row, "row": json.loads(row["row"])} for row in parquet(out)] == rows
    assert records(tool("export", full, HERE, "--settled").stdout) == rows
    assert not (Path(full) / "snapshots").exists()


def test_many_rows_come_in_pages(tool: Tool, tmp_path: Path) -> None:
    """More than are decoded at a time: each once, in order."""
    place = str(tmp_path / "log")
    assert tool("import", place, stdin=lines(*(deployment(n) for n in range(2_500)))).exit_code == 0
    keys = [row["key"] for row in records(tool("export", place, HERE).stdout)]
    assert keys == sorted(f"d-{n}" for n in range(2_500))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--format", "parquet"), "name it by --out FILE"),
        (("--format", "xml"), "'xml' is not one of"),
        (("--after", "position-x"), "not a position"),
        ((HERE, "--kind", "Deployment"), "leave out --kind"),
        (("--projection", "nonsense"), "needs package.module:Class"),
        (("--out", "/nowhere/at/all"), "cannot be written --out=/nowhere/at/all"),
        (("--format", "parquet", "--out", "/nowhere/at/all"), "cannot be written --out=/nowhere/at/all"),
    ],
)
def test_bad_input_is_one_line(tool: Tool, full: str, options: tuple[str, ...], message: str) -> None:
    """What is wrong and what to do; status 2, nothing on stdout."""
    result = tool("export", full, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr.splitlines()[-1]
