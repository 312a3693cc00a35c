"""An agent: carries out commands as deployments, stage by stage. Killed at any moment, it goes on where it was.

What it has done is in the documents. A deployment is named after its command, so whoever carries a command out again
meets the deployment that there is, and does what is left of it.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from examples.pipecd.control_plane import ControlPlane
from examples.pipecd.demo.station import PIPEDS, PROJECT, Config, main
from examples.pipecd.demo.stopwatch import Stopwatch
from examples.pipecd.models import (
    Command,
    CommandStatus,
    Deployment,
    DeploymentStatus,
    EventStatus,
    Stage,
    StageStatus,
)
from examples.pipecd.stages import in_order
from logstore import AlreadyExists, Block, Log, StageLogs
from logstore.errors import Conflict, NotStored, Unavailable, Unknown

POLL_S: Final = 0.05
AT_ONCE: Final = 8
SLOW_POLLS: Final = 20  # of so many polls one asks also what is asked once a minute
STAGES: Final = ("K8S_CANARY_ROLLOUT", "WAIT_APPROVAL", "K8S_PRIMARY_ROLLOUT")
FAILS_ONE_IN: Final = 13
LINES: Final = 20


class Agent:
    """One piped's agent."""

    def __init__(self, piped: str, log: Log, plane: ControlPlane) -> None:
        self._piped = piped
        self._plane = plane
        self._logs = StageLogs(log)
        self._questions = Stopwatch(plane.db)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._resumed = 0

    async def serve(self) -> Mapping[str, Any]:
        """Poll until people disable this piped."""
        while self._piped not in self._plane.db.collection("Piped"):  # noqa: ASYNC110 - people have yet to register it
            await asyncio.sleep(POLL_S)
        await self._plane.pipeds.update_metadata(
            self._piped, version="demo", config="", started_at=int(time.time()), secret_encryption={}
        )
        polls = 0
        while not self._plane.pipeds.get(self._piped)["disabled"]:
            await self._poll()
            if polls % SLOW_POLLS == 0:
                await self._poll_slowly()
            polls += 1
            await asyncio.sleep(POLL_S)
        return {"queries": self._questions.report(), "resumed": self._resumed}

    async def _poll(self) -> None:
        """What every agent asks every few seconds, and here much more often."""
        for id_, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[id_]
                with suppress(Unavailable, NotStored, Unknown):  # the command is unhandled still, and asked for below
                    await task
        commands = self._questions.ask(16, self._piped)
        self._questions.ask(6, self._piped)
        for id_ in commands.keys:
            if len(self._tasks) < AT_ONCE and id_ not in self._tasks:
                self._tasks[id_] = asyncio.create_task(self._carry_out(self._plane.commands.get(id_)))

    async def _poll_slowly(self) -> None:
        """Applications, and events; one of the agents says that these are handled."""
        self._questions.ask(1, PROJECT, self._piped)
        events = self._questions.ask(19, PROJECT, created_since=0, status=int(EventStatus.NOT_HANDLED))
        if self._piped == PIPEDS[0]:
            for event in events.rows:
                await self._plane.events.update_status(event["id"], EventStatus.SUCCESS, "commands were issued")

    async def _carry_out(self, command: Command) -> None:
        id_ = f"deployment of {command['id']}"
        name = command["application_id"]
        commit = {"hash": command["metadata"]["commit"]}
        deployment: Deployment = {
            "id": id_,
            "application_id": name,
            "application_name": name,
            "project_id": PROJECT,
            "piped_id": self._piped,
            "kind": 0,
            "trigger": {"commit": commit, "commander": command["commander"]},
        }
        try:
            await self._plane.deployments.add(deployment)
        except AlreadyExists:  # a life of ours before this one began it
            self._resumed += 1
        applications = self._plane.applications
        await applications.update_most_recent_deployment(name, DeploymentStatus.PENDING, {"deployment_id": id_})
        await self._deploy(id_)
        status = DeploymentStatus(self._plane.deployments.get(id_)["status"])
        await applications.update_most_recent_deployment(name, status, {"deployment_id": id_})
        await applications.update_sync_state(name, {"status": 1, "head_deployment_id": id_})
        await self._plane.commands.update_status(
            command["id"], CommandStatus.SUCCEEDED, {"deployment": id_}, int(time.time())
        )

    async def _deploy(self, id_: str) -> None:
        """Do what is left to do of a deployment."""
        deployments = self._plane.deployments
        if deployments.get(id_)["status"] == DeploymentStatus.PENDING:
            chosen = 1 + zlib.crc32(id_.encode()) % len(STAGES)
            stages = [Stage(id=f"stage-{n}", name=name, status=0) for n, name in enumerate(STAGES[:chosen])]
            await deployments.update_to_planned(
                id_,
                summary="Sync progressively",
                status_reason="planned",
                running_commit_hash="",
                running_config_filename="app.pipecd.yaml",
                versions=[],
                stages=stages,
            )
        if deployments.get(id_)["status"] == DeploymentStatus.PLANNED:
            await deployments.update_status(id_, DeploymentStatus.RUNNING, "it is running")
        if deployments.get(id_)["status"] != DeploymentStatus.RUNNING:
            return
        for stage in in_order(deployments.get(id_)):
            if stage["status"] < StageStatus.SUCCESS:
                await self._run_stage(id_, stage)
        failed = zlib.crc32(id_.encode()) % FAILS_ONE_IN == 0
        status = DeploymentStatus.FAILURE if failed else DeploymentStatus.SUCCESS
        await deployments.update_to_completed(id_, status, {}, "", int(time.time()))

    async def _run_stage(self, id_: str, stage: Stage) -> None:
        """Report that it runs, what it prints, and that it is done. Blocks that a life before sent are dropped."""
        deployments, log = self._plane.deployments, self._logs.stage(id_, stage["id"])
        await deployments.update_stage_status(id_, stage["id"], StageStatus.RUNNING, "")
        lines = [f"{stage['name']}: step {n} of {LINES}" for n in range(LINES)]
        with suppress(Conflict):  # it was complete: only the report was left
            await log.append([Block(n, line) for n, line in enumerate(lines)])
            await log.complete()
        await deployments.update_stage_status(id_, stage["id"], StageStatus.SUCCESS, "")


async def _work(config: Config, log: Log, plane: ControlPlane) -> Mapping[str, Any]:
    return await Agent(config["piped"], log, plane).serve()


if __name__ == "__main__":
    main("agent-{piped}", _work)
