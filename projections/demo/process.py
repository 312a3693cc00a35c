"""A process of a demo, as its conductor has it: started, told to go, killed, asked for its report."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from logstore.errors import LogStoreError

__all__ = ["DemoFailed", "DemoProcess"]

PROCESS_S_MAX: Final = 120


class DemoFailed(LogStoreError):
    """A process of the demo ended badly. Look at what it printed."""


class DemoProcess:
    """A process of a demo: a module, given ``config`` as JSON. It says ready, waits for go, prints a report."""

    def __init__(self, module: str, name: str, config: dict[str, Any]) -> None:
        self._command = (sys.executable, "-m", module, json.dumps(config))
        self.name = name
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> DemoProcess:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        await self._line()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(PROCESS_S_MAX):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise DemoFailed(f"a process of the demo hangs process={self.name!r} after_s={PROCESS_S_MAX}") from None
        if not line:
            raise DemoFailed(f"a process of the demo ended process={self.name!r} status={await self._process.wait()}")
        return line

    def go(self) -> None:
        """Let it work."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    def require_alive(self) -> None:
        """Raise DemoFailed when it has ended."""
        assert self._process is not None
        if self._process.returncode is not None:
            raise DemoFailed(f"a process of the demo ended process={self.name!r} status={self._process.returncode}")

    def require_not_failed(self) -> None:
        """Raise DemoFailed when it has ended badly."""
        assert self._process is not None
        if self._process.returncode:
            raise DemoFailed(f"a process of the demo failed process={self.name!r} status={self._process.returncode}")

    async def kill(self) -> None:
        """SIGKILL it."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def report(self) -> dict[str, Any]:
        """What it printed in the end."""
        assert self._process is not None
        line = await self._line()
        if await self._process.wait() != 0:
            raise DemoFailed(f"a process of the demo failed process={self.name!r} status={self._process.returncode}")
        report: dict[str, Any] = json.loads(line)
        return report
