"""``logstore gc``, ``archive`` and ``keep``: what they retire, delete, print and refuse."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import logstore
from logstore import Block, Event, StageLogs
from projections import Projection, View
from tests.cli.conftest import SETTINGS, Tool, age

DAY_S = 86_400
TOOL = [sys.executable, "-m", "projections.cli"]


class Deployments(Projection):
    name, kinds, fold = "deployments", frozenset({"Deployment"}), "put"


HERE = f"--projection={__name__}:Deployments"


def make(path: Path, history: str, *, days: int = 1) -> str:
    """A log with a chapter for each day, each closed and held by two snapshots that are two days old."""

    async def live() -> None:
        for day in range(days):
            async with (
                logstore.open(path.as_uri(), history=history, settings=SETTINGS) as log,
                View.open(log, Deployments()) as view,
            ):
                async with log.writer("web") as writer:
                    for number in range(3):
                        await writer.append(Event("Deployment", f"d-{day}-{number}", "planned", {"status": number}))
                await log.close_chapter()
                async with log.writer("web") as writer:
                    await writer.append(Event("Deployment", f"d-{day}-9", "planned", {"status": 9}))
                await view.snapshot()
                await view.snapshot()

    asyncio.run(live())
    age(str(path), 2 * DAY_S)
    return str(path)


def test_gc_retires_and_a_grace_later_deletes(tool: Tool, tmp_path: Path) -> None:
    """The first run retires; after a grace the second deletes the chapter; the third finds nothing to do."""
    place = make(tmp_path / "cp", "drop")
    planned = tool("gc", place, "--dry-run")
    assert "chapter 0 retired: it would be retired" in planned.stderr
    first = tool("gc", place)
    assert "chapter 0 retired: snapshots hold all of it" in first.stderr
    assert "chapter 1 kept: it is the newest" in first.stderr
    assert "log/web/0000000000" not in first.stdout
    age(place, 2 * DAY_S)
    second = [json.loads(line) for line in tool("gc", place, "--json").stdout.splitlines()]
    assert {garbage["why"] for garbage in second} == {"its chapter was retired a grace ago"}
    assert [path for path in (tmp_path / "cp" / "log" / "web" / "0000000000").rglob("*") if path.is_file()] == []
    third = tool("gc", place)
    assert (third.exit_code, third.stdout) == (0, "")
    assert tool("check", place).exit_code == 0
    assert [json.loads(line)["key"] for line in tool("cat", place, "--json").stdout.splitlines()] == ["d-0-9"]


def test_archive_packs_what_cat_still_prints(tool: Tool, tmp_path: Path) -> None:
    """history=archive: archived, collected, checked, and printed from the first event on as before."""
    place = make(tmp_path / "cp", "archive", days=3)
    before = tool("cat", place, "--json").stdout
    archived = [json.loads(line) for line in tool("archive", place, "--json").stdout.splitlines()]
    assert [(one["chapter"], one["retired"], one["archives"]) for one in archived] == [
        (0, True, 1),
        (1, True, 1),
        (2, True, 1),
        (3, False, 0),
    ]
    age(place, 2 * DAY_S)
    assert "log/web/0000000002" in tool("gc", place).stdout
    assert tool("cat", place, "--json").stdout == before
    assert tool("check", place).exit_code == 0
    archive = next(path for path in (tmp_path / "cp" / "archive").rglob("*") if path.is_file())
    data = bytearray(archive.read_bytes())
    data[-40] ^= 1
    archive.write_bytes(data)
    found = tool("check", place, "--json")
    assert found.exit_code == 1
    findings = [json.loads(line) for line in found.stdout.splitlines()]
    assert [one["key"] for one in findings if one["severity"] == "damage"] == [str(archive.relative_to(place))]
    assert tool("cat", place).exit_code == 2
    assert str(archive.relative_to(place)) in tool("cat", place).stderr


@pytest.mark.parametrize("history", ["full", "drop"])
def test_archive_refuses_a_store_with_another_policy(tool: Tool, tmp_path: Path, history: str) -> None:
    """One line that names the policy and the way out."""
    result = tool("archive", make(tmp_path / "cp", history))
    assert result.exit_code == 2
    assert f"history={history}" in result.stderr
    assert "copy --history archive" in result.stderr


def test_a_full_store_keeps_its_history(tool: Tool, tmp_path: Path) -> None:
    """Gc says so, and collects snapshots that newer ones replace."""
    place = make(tmp_path / "cp", "full", days=2)
    result = tool("gc", place)
    assert "history=full" in result.stderr
    assert [line.split("/")[0] for line in result.stdout.splitlines()][:2] == ["snapshots", "snapshots"]
    assert len(tool("cat", place, "--json").stdout.splitlines()) == 8


def test_keep_does_all_of_it_round_after_round(tool: Tool, tmp_path: Path) -> None:
    """Ends the chapter, snapshots, retires, and says what it did; nothing is left to do in the second round."""
    path = tmp_path / "cp"
    place = make(path, "drop")
    kept = tool("keep", place, HERE, "--chapter-age=0", "--pause=0.01", "--rounds=2", "--json")
    assert kept.exit_code == 0, kept.stderr
    first, second = [json.loads(line) for line in kept.stdout.splitlines()]
    assert first["closed_chapter"] is True
    assert [(one["chapter"], one["retired"]) for one in first["retirements"]] == [(0, True), (1, False)]
    assert (second["closed_chapter"], second["garbage"], second["problems"]) == (False, [], [])


def test_keep_without_projections_seals_and_says_what_holds_history(tool: Tool, abandoned: str) -> None:
    """A dead writer's session is ended; a problem-free round has exit status 0."""
    age(abandoned, DAY_S)
    kept = tool("keep", abandoned, "--rounds=1")
    assert kept.exit_code == 0
    assert "sealed 1 sessions" in kept.stdout


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_keep_ends_when_told_to(tmp_path: Path, stop: signal.Signals) -> None:
    """SIGTERM and ^C end the daemon cleanly and soon, without a traceback."""
    place = make(tmp_path / "cp", "drop")
    daemon = subprocess.Popen(
        [*TOOL, "keep", place, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert daemon.stdout is not None
    assert daemon.stdout.readline()
    began = time.monotonic()
    daemon.send_signal(stop)
    _, said = daemon.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert daemon.returncode == 0
    assert "Traceback" not in said


def make_stage_logs(path: Path) -> str:
    """A log with two stage logs, one of them two days old."""

    async def live(*stages: str) -> None:
        async with logstore.open(path.as_uri(), settings=SETTINGS) as log:
            for name in stages:
                stage = StageLogs(log).stage("d/1", name)
                await stage.append([Block(0, "pulling"), Block(1, "pulled")])

    asyncio.run(live("plan"))
    age(str(path), 2 * DAY_S)
    asyncio.run(live("apply"))
    return str(path)


def test_gc_drops_old_stage_logs_when_told_to(tool: Tool, tmp_path: Path) -> None:
    """Only with an age; a dry run names them; the first run records, a grace later the second deletes."""
    place = make_stage_logs(tmp_path / "cp")
    assert "stage log" not in tool("gc", place).stderr
    planned = tool("gc", place, "--stage-logs-older-than", "36h", "--dry-run")
    assert "stage log d/1/plan/0 dropped: it would be dropped: nothing was added for long (1 pages, " in planned.stderr
    assert "apply" not in planned.stderr
    assert not list(tmp_path.rglob("gone"))
    first = tool("gc", place, "--stage-logs-older-than", "36h")
    assert "stage log d/1/plan/0 dropped: nothing was added for long (1 pages, " in first.stderr
    (record,) = tmp_path.rglob("gone")
    assert first.stdout == ""
    os.utime(record, (record.stat().st_atime, record.stat().st_mtime - 2 * DAY_S))
    second = [json.loads(line) for line in tool("gc", place, "--json").stdout.splitlines()]
    assert [(garbage["key"], garbage["why"]) for garbage in second] == [
        (f"stagelogs/d%2F1/plan/0000000000/000000000{number}", "its stage log was dropped a grace ago")
        for number in range(2)
    ]
    assert tool("check", place).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "cp" / "stagelogs").rglob("*") if path.is_file()) == [
        "0000000000",
        "gone",
    ]


def test_keep_drops_old_stage_logs_when_told_to(tool: Tool, tmp_path: Path) -> None:
    """It says which, as text and as JSON."""
    for number, options in enumerate(([], ["--json"])):
        place = make_stage_logs(tmp_path / str(number))
        kept = tool("keep", place, "--stage-logs-older-than=36h", "--rounds=1", *options)
        assert kept.exit_code == 0
        if options:
            (dropped,) = json.loads(kept.stdout)["stage_logs"]
            assert dropped["stage"] == {"deployment": "d/1", "stage": "plan", "retry": 0}
            assert (dropped["dropped"], dropped["pages"]) == (True, 1)
        else:
            assert "stage log d/1/plan/0 dropped" in kept.stdout


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "30 d", "30w", "1e3s", "٣d", "0s", "1h"])
def test_an_age_that_is_none_is_refused(tool: Tool, tmp_path: Path, text: str) -> None:
    """One line that says how to write one, or that a stage log is kept for a grace at least."""
    place = make_stage_logs(tmp_path / "cp")
    for verb in ("gc", "keep"):
        refused = tool(verb, place, "--stage-logs-older-than", text, *(["--rounds=1"] if verb == "keep" else []))
        assert refused.exit_code == 2, refused.output
        assert "30d" in refused.stderr or "grace" in refused.stderr
    assert not list(tmp_path.rglob("gone"))


def test_a_keeper_serves_its_metrics(tool: Tool, place: str) -> None:
    """Where it is told to, on loopback; it says where."""
    result = tool("keep", place, "--rounds", "1", "--metrics", "0")
    assert (result.exit_code, result.stdout) == (0, "")
    assert re.fullmatch(r"metrics: http://127\.0\.0\.1:[0-9]+/metrics\n", result.stderr)


def test_metrics_that_cannot_be_served_are_status_2(tool: Tool, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is kept: a place that is none, and a client that is not installed."""
    result = tool("keep", place, "--rounds", "1", "--metrics", "http://x")
    assert (result.exit_code, "write HOST:PORT, or PORT for loopback" in result.stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    result = tool("keep", place, "--rounds", "1", "--metrics", "0")
    assert (result.exit_code, "pip install 'logstore[metrics]'" in result.stderr) == (2, True)
