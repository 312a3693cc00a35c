"""Processes that start in milliseconds: one that has imported everything forks the others.

``python -m tests.zygote`` reads commands, a line of JSON each, and answers each with a line: ``spawn`` forks a process
that runs ``write``, ``lead``, or a job of ``tests.servers``, and says its id; ``wait`` waits for one and says how it
ended. The children are processes like any other: they are killed, stopped and continued by signals.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logstore
from logstore import Event, LogSettings, NotStored, RetrySettings, WriterSettings
from tests.leading import lead
from tests.servers import JOBS

DEADLINE_MS, IDLE_MS = 500, 200
SEAL_MS = IDLE_MS + 4 * DEADLINE_MS
SETTINGS = LogSettings(
    writer=WriterSettings(idle_ms=IDLE_MS, idle_ms_max=IDLE_MS, tick_ms=500),
    retry=RetrySettings(attempt_timeout_ms=DEADLINE_MS, deadline_ms=DEADLINE_MS),
)
_RECORD = struct.Struct(">I")


def acknowledged(path: Path) -> list[int]:
    """What a writer process noted in its file: the numbers of the events that were acknowledged."""
    data = path.read_bytes() if path.exists() else b""
    return [number for (number,) in _RECORD.iter_unpack(data[: len(data) - len(data) % _RECORD.size])]


async def write(*, url: str, writer: str, life: str, callers: int, events: int, file: str) -> None:
    """Append ``events`` numbered events by so many callers at once; note each number when it is acknowledged.

    An event that is refused is appended again under the same number: it must be there once all the same.
    """
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    numbers = iter(range(events))
    async with logstore.open(url, settings=SETTINGS) as log, log.writer(writer) as appending:

        async def call() -> None:
            for number in numbers:
                while True:
                    try:
                        await appending.append(
                            Event("Command", f"{life}-{number}", "issued", {"life": life, "n": number})
                        )
                        break
                    except NotStored:
                        continue
                os.write(handle, _RECORD.pack(number))

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(call())


class Zygote:
    """The process that forks; used as a context manager, which ends it and all it has forked."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # unless there are real ones
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"], stdin=pipe, stdout=pipe, env=credentials | os.environ
        )
        self._alive: set[int] = set()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for pid in list(self._alive):
            os.kill(pid, signal.SIGKILL)
            self.wait(pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def spawn(self, job: str = "write", **arguments: Any) -> int:
        """Start a writer, or a job of ``tests.servers``; return its process id."""
        pid = self._ask({"spawn": job, "arguments": arguments})
        self._alive.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """Wait for its end; return its exit status, negative for a signal."""
        self._alive.discard(pid)
        return self._ask({"wait": pid})

    def kill(self, pid: int) -> None:
        """SIGKILL it and wait for its end."""
        os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def _ask(self, command: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _commands() -> Iterator[dict[str, Any]]:
    """Unbuffered, so that a fork copies nothing half read."""
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(json.loads, lines)


def main() -> None:
    """Answer commands until stdin ends, and kill whoever is alive then: a test that was stopped cannot."""
    alive: set[int] = set()
    jobs = {"write": write, "lead": lead, **JOBS}
    for command in _commands():
        match command:
            case {"spawn": str(job), "arguments": arguments}:
                pid = os.fork()
                if pid == 0:
                    status = 1
                    try:
                        asyncio.run(jobs[job](**arguments))
                        status = 0
                    except BaseException:  # noqa: BLE001 - whatever it was, the parent's loop must not go on in the child
                        traceback.print_exc()
                    finally:
                        os._exit(status)
                alive.add(pid)
                answer = pid
            case {"wait": int(pid)}:
                answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                alive.discard(pid)
            case _:
                raise AssertionError(command)
        os.write(1, b"%d\n" % answer)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
