"""The tool in this process, on a log in a temporary directory."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Protocol

import pytest
from click.testing import CliRunner, Result

import logstore
from logstore import Event, LogSettings, RetrySettings, WriterSettings
from logstore.entry import Tick
from logstore.keys import segment_key
from projections import cli

SETTINGS = LogSettings(
    writer=WriterSettings(idle_ms=1, idle_ms_max=1), retry=RetrySettings(attempt_timeout_ms=2_000, deadline_ms=2_000)
)


class Tool(Protocol):
    """Runs a verb."""

    def __call__(self, *arguments: str, stdin: str | bytes = "") -> Result: ...


@pytest.fixture
def tool() -> Tool:
    def run(*arguments: str, stdin: str | bytes = "") -> Result:
        result = CliRunner().invoke(cli.main, arguments, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception  # a traceback on somebody's terminal
        return result

    return run


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def deployment(n: int, **more: Any) -> dict[str, Any]:
    return {"kind": "Deployment", "key": f"d-{n}", "type": "planned", "data": {"status": n}, **more}


@pytest.fixture
def place(tmp_path: Path, tool: Tool) -> str:
    """A directory with a log of three events, as a plain path."""
    path = str(tmp_path / "control plane")
    command = {"kind": "Command", "key": "c-1", "type": "issued", "data": {"sum": {"$bytes": "AP8="}}}
    assert tool("append", path, stdin=lines(deployment(1), deployment(2), command)).exit_code == 0
    return path


@pytest.fixture
def abandoned(place: str) -> str:
    """The same log, with a session that a writer named "dead" left open, and a later one of "alive"."""

    async def abandon() -> None:
        async with logstore.open(Path(place).as_uri(), settings=SETTINGS) as log:
            async with log.writer("dead") as writer:
                receipt = await writer.append(Event("Deployment", "d-9", "planned", {"status": 9}))
            async with log.writer("alive") as writer:
                await writer.append(Event("Deployment", "d-10", "planned", {"status": 10}))
        final = segment_key(receipt.writer, receipt.chapter, receipt.session, receipt.slot + 1)
        (Path(place) / final).unlink()

    asyncio.run(abandon())
    return place


def age(place: str, seconds: int) -> None:
    """Make every object of the store older, by the store's own times."""
    for path in Path(place).rglob("*"):
        if path.is_file():
            status = path.stat()
            os.utime(path, (status.st_atime - seconds, status.st_mtime - seconds))


def tick_naming(place: str, slots: int) -> None:
    """Post a tick that says so many slots of the newest session were read."""

    async def post() -> None:
        async with logstore.open(Path(place).as_uri()) as log:
            [session] = (await log.survey()).open_sessions
            await log._roster.post(lambda _: Tick(((session.chapter, session.session, slots),)))

    asyncio.run(post())
