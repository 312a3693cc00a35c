"""What the demo's processes have in common: a leash, a log with short times, a control plane, a report."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import logstore
from examples.pipecd.control_plane import ControlPlane
from logstore import Log
from projections.demo.leash import hold_leash
from projections.demo.ledger import settings

__all__ = ["PIPEDS", "PROJECT", "Config", "Work", "main", "open_demo_log"]

PROJECT: Final = "demo"
PIPEDS: Final = ("piped-0", "piped-1", "piped-2")
Config = Mapping[str, Any]
Work = Callable[[Config, Log, ControlPlane], Awaitable[Mapping[str, Any]]]


def open_demo_log(config: Config, *, read_only: bool = False) -> Log:
    """The demo's log; silent sessions end soon, so that the dead hold nobody up."""
    return logstore.open(
        config["url"], settings=settings(config["deadline_ms"], config["idle_ms"]), read_only=read_only
    )


async def _run(config: Config, writer: str, work: Work) -> None:
    go = hold_leash()
    async with open_demo_log(config) as log, ControlPlane.open(log, writer) as plane:
        print("ready", flush=True)
        await go.wait()
        report = {**await work(config, log, plane)}
    report["requests"] = asdict(log.requests())
    print(json.dumps(report), flush=True)


def main(writer: str, work: Work) -> None:
    """Do ``work`` under a writer's name, as told by the first argument."""
    config = json.loads(sys.argv[1])
    asyncio.run(_run(config, writer.format(**config), work))
