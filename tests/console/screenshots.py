"""Take the pictures of docs/console.md: ``make screenshots``. Of an evening of a control plane, told by a seed.

Debian's ``chromium`` takes them, and ``fonts-inter`` has the typeface that the console prefers.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import logstore
from examples.pipecd import COLLECTIONS, ControlPlane, DeploymentStatus, StageStatus
from examples.pipecd.labels import LABELS
from examples.pipecd.models import Stage
from logstore import Block, Event, Log, StageLogs
from logstore.filestore import MemoryStore
from logstore.testing import ManualClock
from projections.console import Console, Source
from projections.document import Write
from tests.browser import Tab, browser

IMAGES: Final = Path(__file__).parent.parent.parent / "docs/images"
PLACE: Final = "s3://acme-deployments/control-plane"
BEGAN_MS: Final = 1_796_000_000_000
APPLICATIONS: Final = ("cart", "checkout", "search", "payments", "catalogue", "mail", "images", "accounts")
STAGES: Final = ("K8S_CANARY_ROLLOUT", "ANALYSIS", "K8S_PRIMARY_ROLLOUT", "K8S_CANARY_CLEAN")
PEOPLE: Final = ("ada", "grace", "barbara", "radia")
FAILED: Final = "checkout-0038"


class World:
    """A web server, three agents, and what they write; its clock goes on by steps."""

    def __init__(self, log: Log, clock: ManualClock, web: ControlPlane, agents: list[ControlPlane]) -> None:
        self.log = log
        self.clock = clock
        self.web = web
        self.agents = agents
        self.rng = random.Random(7)

    def pass_s(self, least: int, most: int) -> None:
        """Let time pass."""
        self.clock.advance(self.rng.randrange(least * 1_000, most * 1_000))

    async def wait_for(self, work: Coroutine[Any, Any, object]) -> None:
        """Let time pass until it is done: quiet sessions end, and all settles."""
        working = asyncio.create_task(work)
        while not (await asyncio.wait([working], timeout=0.05))[0]:
            self.pass_s(4, 9)
        await working

    async def begin(self) -> None:
        """Agents, and what they look after."""
        await self.web.projects.add({"id": "shop", "desc": "The shop"})
        for number in range(len(self.agents)):
            await self.web.pipeds.add({"id": f"piped-{number}", "project_id": "shop", "name": f"cluster-{number}"})
        for number, name in enumerate(APPLICATIONS):
            piped = f"piped-{number % len(self.agents)}"
            labels = {"team": self.rng.choice(["front", "back"]), "env": "production"}
            await self.web.applications.add(
                {"id": name, "project_id": "shop", "piped_id": piped, "name": name, "labels": labels}
            )
            self.pass_s(1, 9)

    async def deploy(self, number: int) -> None:
        """One deployment, from its trigger to its end."""
        place = self.rng.randrange(len(APPLICATIONS)) if number != 38 else APPLICATIONS.index("checkout")
        name, agent = APPLICATIONS[place], self.agents[place % len(self.agents)]
        key, commit = f"{name}-{number:04}", f"{self.rng.getrandbits(160):040x}"
        await agent.deployments.add(
            {
                "id": key,
                "project_id": "shop",
                "piped_id": f"piped-{place % len(self.agents)}",
                "application_id": name,
                "trigger": {"commit": {"hash": commit}, "commander": self.rng.choice(PEOPLE)},
            }
        )
        self.pass_s(1, 4)
        stages = [Stage(id=f"stage-{n}", name=stage, status=0) for n, stage in enumerate(STAGES)]
        await agent.deployments.update_to_planned(
            key,
            summary="Sync progressively",
            status_reason="The pipeline is planned",
            running_commit_hash=commit[:12],
            running_config_filename="app.pipecd.yaml",
            versions=[],
            stages=stages,
        )
        self.pass_s(1, 4)
        await agent.deployments.update_status(key, DeploymentStatus.RUNNING, "The piped started it")
        fails = self.rng.random() < 0.2 or key == FAILED
        for n, stage in enumerate(STAGES):
            if number >= 40 and n == 2:
                return  # it runs yet
            bad = fails and n == 1
            await agent.deployments.update_stage_status(key, f"stage-{n}", StageStatus.RUNNING, "")
            await self.print(agent, key, n, stage, bad)
            status = StageStatus.FAILURE if bad else StageStatus.SUCCESS
            reason = "The error rate rose above 2 %" if bad else ""
            await agent.deployments.update_stage_status(
                key, f"stage-{n}", status, reason, completed_at=self.clock.wall_ms() // 1_000
            )
            if bad:
                break
        if key == FAILED:  # somebody who has the store's key, and not the right to say so
            meta = Write("update").meta()
            async with self.log.writer("client-web") as writer:
                await writer.append(Event("Deployment", key, "completed", {"status": 4}, meta))
        self.pass_s(1, 3)
        end = DeploymentStatus.FAILURE if fails else DeploymentStatus.SUCCESS
        told = "Stage ANALYSIS failed" if fails else ""
        await agent.deployments.update_to_completed(key, end, {}, told, self.clock.wall_ms() // 1_000)
        await agent.applications.update_sync_state(name, {"status": 2 if fails else 1, "head_deployment_id": key})

    async def print(self, agent: ControlPlane, key: str, number: int, stage: str, bad: bool) -> None:
        """What a stage says."""
        log = StageLogs(self.log).stage(key, f"stage-{number}")
        said = [f"{stage}: prepares", "Loads manifests from the repository", f"Applies {4 + number} manifests"]
        said += [f"deployment/{key.partition('-')[0]}: {n + 1} of 3 pods are ready" for n in range(3)]
        blocks = []
        for index, line in enumerate(said):
            self.pass_s(1, 6)
            blocks.append(Block(index, line, 0, self.clock.wall_ms()))
        end = "error rate 4.1 % is above the threshold of 2 %\nrolls back" if bad else f"{stage} is done"
        blocks.append(Block(len(said), end, 2 if bad else 1, self.clock.wall_ms()))
        await log.complete(blocks)


async def main() -> None:
    """Make the world, look, and write what is seen."""
    IMAGES.mkdir(exist_ok=True)
    clock = ManualClock(wall_ms=BEGAN_MS)
    store = MemoryStore(clock=clock)
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(logstore.open(store, clock=clock, rng=random.Random(1)))

        def now() -> int:
            return clock.wall_ms() // 1_000

        web = await stack.enter_async_context(ControlPlane.open(log, "client-web", now))
        agents = [
            await stack.enter_async_context(ControlPlane.open(log, f"agent-piped-{number}", now)) for number in range(3)
        ]
        world = World(log, clock, web, agents)
        await world.begin()
        for number in range(42):
            if number == 36:
                for kind in ("Application", "Deployment"):
                    await world.wait_for(web.db.collection(kind).view.snapshot())
            await world.deploy(number)
        looking = await stack.enter_async_context(logstore.open(store, clock=clock, read_only=True))
        source = await stack.enter_async_context(Source(looking, COLLECTIONS, LABELS))
        console = await stack.enter_async_context(Console(source, PLACE).serving())
        await look(await stack.enter_async_context(browser()), console.url.rstrip("/"))


async def look(tab: Tab, base: str) -> None:
    """Take all pictures."""
    document = f"{base}/document?kind=Deployment&key={FAILED}"
    asked = f"f=status&o=in&v={quote('[4, 5]')}&order=-updated_at"
    await take(tab, f"{base}/", "overview", (1280, 800))
    await take(tab, f"{base}/collection?kind=Deployment&{asked}", "collection", (1280, 620))
    await take(tab, document, "document", (1280, 820))
    await tab.wait_for("document.querySelectorAll('#history a[href*=\"at=\"]').length > 5")
    then = await tab.evaluate("document.querySelectorAll('#history a[href*=\"at=\"]')[6].href")
    await take(tab, then, "then", (1280, 620), dark=True)
    await take(tab, f"{base}/events", "events", (1280, 620), dark=True)
    await take(tab, f"{base}/stage?deployment={FAILED}&stage=stage-1&retry=0", "stage", (1280, 420))
    await take(tab, f"{base}/", "phone", (390, 760), dark=True)


async def take(tab: Tab, address: str, name: str, size: tuple[int, int], *, dark: bool = False) -> None:
    """Write one picture."""
    await tab.size(*size, dark=dark)
    await tab.open(address)
    await tab.wait_for(
        "!document.querySelector('[data-live]') || document.querySelector('.live').dataset.state === 'on'"
    )
    await asyncio.sleep(1)  # until what was fresh has faded
    await tab.screenshot(IMAGES / f"console-{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
