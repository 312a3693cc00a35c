"""A Ceph that ``scripts/ceph up`` has brought up, and what can be done to its daemons."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["Service"]

ROOT = Path(__file__).parent.parent.parent
ATTEMPTS = 5
COMMAND_S = 120  # Ceph's own commands wait for ever where a daemon does not answer


class Service:
    """The daemons of one Ceph: ``radosgw``, ``ceph-osd``, ``ceph-mon``."""

    def __init__(self, directory: str, endpoint: str) -> None:
        self.directory = directory
        self.endpoint = endpoint

    @classmethod
    def from_environment(cls) -> Service:
        """The one that DIR/env names."""
        return cls(os.environ["LOGSTORE_CEPH_DIR"], os.environ["LOGSTORE_CEPH_ENDPOINT"])

    async def signal(self, name: str, daemon: str) -> None:
        """KILL, STOP or CONT."""
        await self._script("signal", name, daemon)

    async def start_gateway(self) -> None:
        """Return when it answers."""
        await self._script("gateway")

    async def run(self, *command: str) -> str:
        """What a command of Ceph's prints. A busy monitor refuses some, so all that is run here may be said twice."""
        for _ in range(ATTEMPTS - 1):
            with suppress(AssertionError):
                return await self._script("run", *command)
            await asyncio.sleep(1)
        return await self._script("run", *command)

    async def admin(self, *arguments: str) -> Any:
        """What ``radosgw-admin`` answers."""
        printed = await self.run("radosgw-admin", *arguments)
        return json.loads(printed) if printed.strip().startswith(("{", "[")) else printed

    async def _script(self, verb: str, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(ROOT / "scripts" / "ceph"),
            verb,
            self.directory,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(COMMAND_S):
            printed, complained = await process.communicate()
        assert process.returncode == 0, f"scripts/ceph {verb} {' '.join(arguments)}: {complained.decode()}"
        return printed.decode()
