"""What the verbs share: bars that show that work goes on, and let go of it when it is interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import logstore
from logstore import Corrupt, Event
from logstore.keys import segment_key
from logstore.registration import Registration
from logstore.snapshots import FoldRecords
from projections.cli import CouldNotRun
from projections.cli.terminal import watched
from tests.cli.conftest import Tool


async def test_watched_work_returns_what_it_returns() -> None:
    """Or raises what it raises."""

    async def work(result: int) -> int:
        if not result:
            raise ValueError("nothing")
        return result

    assert await watched(work(3), "working", lambda: 0) == 3
    with pytest.raises(ValueError, match="nothing"):
        await watched(work(0), "working", lambda: 0)


async def test_interrupted_work_has_ended_when_its_watcher_has() -> None:
    """What it works with may be closed then."""
    started, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    watching = asyncio.create_task(watched(work(), "working", lambda: 0))
    await started.wait()
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert ended


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        (["snapshot", "{place}", "--projection", "tests.cli.test_snapshot_verbs:Deployments"], "reading rows"),
        (["copy", "{place}", "{place}-copy"], "copying"),
        (["export", "{place}", "--out", "{place}.jsonl"], "exporting"),
    ],
)
def test_on_a_terminal_a_bar_shows_that_work_goes_on(place: str, arguments: list[str], title: str) -> None:
    """It is there while the work is, and nowhere but on stderr."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "projections.cli", *(part.format(place=place) for part in arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs) as working:
        os.close(theirs)
        shown = b""
        while chunk := read(ours):
            shown += chunk
        assert working.stdout is not None
        assert title.encode() not in working.stdout.read()
    os.close(ours)
    assert working.returncode == 0
    assert title.encode() in shown


def read(terminal: int) -> bytes:
    """What is shown next; nothing when the program has gone."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


OBEYED = "[/x]\x1b]0;told\x07\x9b31m\n2026-11-27 root\u202e\t"
SHOWN = r"[/x]\u001b]0;told\u0007\u009b31m\n2026-11-27 root\u202e\t"


def test_what_writers_chose_is_shown_and_not_obeyed(tool: Tool, tmp_path: Path) -> None:
    """Escape sequences, line ends, marks of direction and rich's markup in names, keys and texts: one line, as text."""

    async def leave_open() -> None:
        async with logstore.open(tmp_path.as_uri()) as log:
            async with log.writer(OBEYED) as writer:
                receipt = await writer.append(Event(OBEYED, OBEYED, OBEYED, {OBEYED: OBEYED}))
            registration = Registration(OBEYED, 1, (OBEYED,), "put", "", registered=True)
            await log.snapshots.register(registration, FoldRecords())
        (tmp_path / segment_key(receipt.writer, receipt.chapter, receipt.session, receipt.slot + 1)).unlink()

    asyncio.run(leave_open())
    for verb in (["cat"], ["cat", "--json"], ["status"], ["seal", "--dry-run"], ["snapshots"]):
        result = tool(*verb, str(tmp_path))
        said = result.stdout + result.stderr
        assert SHOWN in said or verb == ["status"]  # whose table breaks it
        assert not set("\x1b\x07\x9b\u202e\t") & set(said)
        assert not any(line.startswith("2026-11-27 root") for line in said.splitlines())
    (line,) = tool("cat", "--json", str(tmp_path)).stdout.splitlines()
    assert json.loads(line)["data"] == {OBEYED: OBEYED}


def test_an_error_is_one_line_that_nothing_obeys() -> None:
    """Whatever a message quotes."""
    assert CouldNotRun(Corrupt("it says \x1b[2J\nroot")).message == r"Corrupt: it says \u001b[2J\nroot"
