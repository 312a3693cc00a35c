"""``logstore snapshot``, ``snapshots`` and ``diff``: written, listed, compared, and refused in one line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import logstore
from projections import Collection, DocumentStore, Projection
from tests.cli.conftest import Tool, deployment, lines


class Deployments(Projection):
    name, kinds, fold = "deployments", frozenset({"Deployment"}), "put"


class Nameless(Projection):
    kinds, fold = frozenset({"Deployment"}), "put"


HERE = f"--projection={__name__}:Deployments"
COMMANDS = Collection("Command")


def test_a_snapshot_is_written_and_listed(tool: Tool, place: str) -> None:
    """Two of them, the second with nothing new; listed oldest first, with their rows, and the projection registered."""
    first = json.loads(tool("snapshot", place, HERE, "--json").stdout)
    assert (first["projection"], first["version"], first["rows"], first["chunks"]) == ("deployments", 1, 2, 1)
    second = json.loads(tool("snapshot", place, HERE, "--json").stdout)
    assert second["digest"] == first["digest"]
    assert second["point"] > first["point"]
    listed = tool("snapshots", place, "--json")
    assert [json.loads(line) for line in listed.stdout.splitlines()] == [first, second]
    assert listed.stderr == "deployments version=1 registered\n"
    assert tool("check", place).exit_code == 0
    assert "rows=2" in tool("snapshots", place).stdout


def test_a_collection_is_named_like_a_projection(tool: Tool, tmp_path: Path) -> None:
    """Snapshots and rows of a document store's collection, without a class for each; other names are refused."""
    place = str(tmp_path / "documents")

    async def create() -> None:
        async with (
            logstore.open(Path(place).as_uri()) as log,
            DocumentStore.open(log, writer="web-1", collections=[COMMANDS]) as db,
        ):
            await db.collection("Command").create("c-1", {"status": 0})

    asyncio.run(create())
    named = f"--projection={__name__}:COMMANDS"
    snapshot = json.loads(tool("snapshot", place, named, "--json").stdout)
    assert (snapshot["projection"], snapshot["rows"]) == ("Command", 1)
    (row,) = map(json.loads, tool("export", place, named).stdout.splitlines())
    assert (row["key"], row["row"]["doc"]) == ("c-1", {"status": 0})
    assert "and no Collection" in tool("snapshot", place, f"--projection={__name__}:HERE").stderr


def test_without_snapshots_nothing_is_listed(tool: Tool, place: str) -> None:
    """No line, no complaint."""
    result = tool("snapshots", place)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_a_damaged_manifest_is_a_finding(tool: Tool, place: str) -> None:
    """Status 1 and its name; the next snapshot, and whoever reads, goes on without it."""
    assert tool("snapshot", place, HERE).exit_code == 0
    (manifest,) = (path for path in Path(place).rglob("manifest/*") if path.is_file())
    manifest.write_bytes(b"nonsense")
    listed = tool("snapshots", place)
    assert listed.exit_code == 1
    assert manifest.name in listed.stdout
    assert tool("check", place).exit_code == 1


@pytest.mark.parametrize(
    ("projection", "why"),
    [
        ("nonsense", "needs package.module:Class"),
        ("no.such.module:Class", "cannot be imported"),
        (f"{__name__}:Missing", "no subclass"),
        (f"{__name__}:HERE", "no subclass"),
        (f"{__name__}:Nameless", "attribute=name"),
    ],
)
def test_a_projection_that_cannot_be_used_is_one_line(tool: Tool, place: str, projection: str, why: str) -> None:
    """Status 2, and nothing is written."""
    result = tool("snapshot", place, "--projection", projection)
    assert result.exit_code == 2
    assert why in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (Path(place) / "snapshots").exists()


def test_a_module_that_cannot_be_read_is_one_line(
    tool: Tool, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2, whatever it raises as it is imported."""
    (tmp_path / "half_written.py").write_text("def project(\n")
    monkeypatch.chdir(tmp_path)
    result = tool("snapshot", place, "--projection", "half_written:Class")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "cause=SyntaxError: " in result.stderr


def test_a_diff_shows_what_changed(tool: Tool, place: str) -> None:
    """From nothing to the snapshot's moment; a row that went, and one that changed, after it."""
    first = json.loads(tool("snapshot", place, HERE, "--json").stdout)
    changes = lines(deployment(1, data={"status": 7}), deployment(2, data=None), deployment(3))
    assert tool("append", place, stdin=changes).exit_code == 0
    second = json.loads(tool("snapshot", place, HERE, "--json").stdout)
    whole = tool("diff", place, HERE, "--from", "0", "--to", str(first["stamp"]), "--json")
    assert [json.loads(line)["new"] for line in whole.stdout.splitlines()] == [{"status": 1}, {"status": 2}]
    later = tool("diff", place, HERE, "--from", first["at"], "--to", str(second["stamp"]))
    assert later.stdout.splitlines() == [
        '~ d-1 {"status":1} -> {"status":7}',
        '- d-2 {"status":2}',
        '+ d-3 {"status":3}',
    ]
    assert later.stderr == "3 rows differ\n"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("yesterday", "0", "not a time --from=yesterday"),
        ("0", "2026-13-01", "not a time --to=2026-13-01"),
        ("1", "0", "swap them"),
        ("0", "2100-01-01", "not settled yet"),
        ("0", str(1 << 64), "not a moment"),
    ],
)
def test_moments_that_cannot_be_compared_are_one_line(
    tool: Tool, place: str, before: str, after: str, why: str
) -> None:
    """Status 2, and what to write instead."""
    result = tool("diff", place, HERE, "--from", before, "--to", after)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert why in result.stderr
