"""Control planes to test: three roles over one log, in real time; processes on a scene, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import logstore
from examples.pipecd import ControlPlane
from examples.pipecd.models import Application, Deployment
from projections.patch import patch_between, thawed
from tests.scene import Gate, Scene, quick

_names = count()


class Clock:
    """Unix seconds, moved by hand."""

    def __init__(self) -> None:
        self.time = 1_700_000_000

    def __call__(self) -> int:
        return self.time


@dataclass
class Roles:
    """One log, and who writes to it."""

    web: ControlPlane
    agents: ControlPlane
    ops: ControlPlane
    clock: Clock


@asynccontextmanager
async def roles() -> AsyncIterator[Roles]:
    clock = Clock()
    async with logstore.open(f"memory://pipecd-{next(_names)}") as log, AsyncExitStack() as stack:
        web = await stack.enter_async_context(ControlPlane.open(log, "client-1", clock))
        agents = await stack.enter_async_context(ControlPlane.open(log, "agent-1", clock))
        ops = await stack.enter_async_context(ControlPlane.open(log, "ops-1", clock))
        yield Roles(web, agents, ops, clock)


@asynccontextmanager
async def process(scene: Scene, name: str, now: Callable[[], int] | None = None) -> AsyncIterator[ControlPlane]:
    """A process of its own, with its own log and clock, whose sessions end within seconds."""
    machine = scene.machine(name)
    clock = now or (lambda: machine.clock.wall_ms() // 1_000)
    async with machine.open(quick()) as log, ControlPlane.open(log, name, clock) as plane:
        yield plane


@asynccontextmanager
async def held(scene: Scene, name: str) -> AsyncIterator[tuple[ControlPlane, Gate]]:
    """A process whose next write is stamped, and then waits at a gate on its way to the store."""
    gate = Gate()
    machine = scene.machine(name)
    async with (
        machine.open(quick(deadline_ms=100_000)) as log,
        ControlPlane.open(log, name, lambda: machine.clock.wall_ms() // 1_000) as plane,
    ):
        machine.script.on("create", f"log/{name}/", gate.before, times=1, skip=0)
        yield plane, gate


async def overtaken(gate: Gate, slow: Awaitable[Any], swift: Callable[[], Awaitable[Any]]) -> tuple[Any, Any]:
    """Let ``slow`` be stamped first and land last; return what both return."""
    sending = asyncio.ensure_future(slow)
    await gate.met()
    await asyncio.sleep(0.01)
    done = await swift()
    gate.open()
    return await sending, done


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that differ, as they are now; None for one that is gone."""
    return patch_between(thawed(before), thawed(after))


def application(id: str = "a-1", **fields: Any) -> Application:
    document = {
        "id": id,
        "project_id": "shop",
        "piped_id": "p-1",
        "name": "cart",
        "kind": 0,
        "git_path": {"repo": {"id": "infra"}, "path": "cart", "config_filename": "app.pipecd.yaml", "url": ""},
        "labels": {"env": "prod"},
        **fields,
    }
    return cast(Application, document)


def deployment(id: str = "d-1", **fields: Any) -> Deployment:
    document = {
        "id": id,
        "project_id": "shop",
        "piped_id": "p-1",
        "application_id": "a-1",
        "application_name": "cart",
        "kind": 0,
        "trigger": {"commit": {"hash": "c0ffee"}, "timestamp": 1},
        **fields,
    }
    return cast(Deployment, document)
