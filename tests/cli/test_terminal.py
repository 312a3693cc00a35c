"""What the verbs share: bars that show that work goes on, and let go of it when it is interrupted."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys

import pytest

from projections.cli.terminal import watched


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
