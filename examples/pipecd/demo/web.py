"""The web process: takes in commits, issues commands, answers the console's questions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from examples.pipecd.control_plane import ControlPlane
from examples.pipecd.demo.station import PIPEDS, PROJECT, Config, main
from examples.pipecd.demo.stopwatch import Stopwatch
from examples.pipecd.event import event_key
from examples.pipecd.models import NOT_COMPLETED, CommandStatus, DeploymentStatus
from logstore import Log

COMMITS_AT_ONCE: Final = 8
LOOK_S: Final = 0.02
SYNC: Final = 0  # the type of command by which people ask for a deployment
PAGE: Final = 20


async def _work(config: Config, _log: Log, plane: ControlPlane) -> Mapping[str, Any]:
    commits: list[dict[str, Any]] = config["commits"]
    began_s = time.time()
    await _register(plane, sorted({name for commit in commits for name in commit["applications"]}))
    console = Stopwatch(plane.db)
    looking = asyncio.create_task(_look(console, plane))
    for start in range(0, len(commits), COMMITS_AT_ONCE):
        await asyncio.gather(*(_take_in(plane, commit) for commit in commits[start : start + COMMITS_AT_ONCE]))
    issued_s = time.time()
    # Polled, as people do: what is waited for is the work of others.
    while not _all_done(plane):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    done_s = time.time()
    looking.cancel()
    await asyncio.wait([looking])
    for piped in PIPEDS:
        await plane.pipeds.disable(piped)
    deployments = plane.db.collection("Deployment")
    return {
        "applications": len(plane.db.collection("Application")),
        "commands": len(plane.db.collection("Command")),
        "deployments": {status.name: deployments.count([("status", "==", int(status))]) for status in DeploymentStatus},
        "issuing_s": issued_s - began_s,
        "took_s": done_s - began_s,
        "queries": console.report(),
    }


async def _register(plane: ControlPlane, applications: list[str]) -> None:
    await plane.projects.add({"id": PROJECT, "desc": "what the demo deploys"})
    for piped in PIPEDS:
        await plane.pipeds.add({"id": piped, "name": piped, "project_id": PROJECT})
    await asyncio.gather(
        *(
            plane.applications.add(
                {
                    "id": name,
                    "name": name,
                    "project_id": PROJECT,
                    "piped_id": PIPEDS[place % len(PIPEDS)],
                    "kind": 0,
                    "git_path": {"path": name},
                    "labels": {"team": name.split("/", 1)[0]},
                }
            )
            for place, name in enumerate(applications)
        )
    )


async def _take_in(plane: ControlPlane, commit: dict[str, Any]) -> None:
    """A commit is an event, and a command for each application that it touches."""
    hash_ = commit["hash"]
    labels = {"author": commit["author"]}
    await plane.events.add(
        {
            "id": hash_,
            "project_id": PROJECT,
            "name": "commit",
            "data": hash_,
            "labels": labels,
            "event_key": event_key("commit", labels),
        }
    )
    for name in commit["applications"]:
        application = plane.applications.get(name)
        await plane.commands.add(
            {
                "id": f"{hash_[:12]} {name}",
                "project_id": PROJECT,
                "piped_id": application["piped_id"],
                "application_id": name,
                "commander": commit["author"],
                "type": SYNC,
                "metadata": {"commit": hash_},
            }
        )


def _all_done(plane: ControlPlane) -> bool:
    commands, deployments = plane.db.collection("Command"), plane.db.collection("Deployment")
    unhandled = commands.count([("status", "==", int(CommandStatus.NOT_HANDLED_YET))])
    return not unhandled and not deployments.count([("status", "in", NOT_COMPLETED)])


async def _look(console: Stopwatch, plane: ControlPlane) -> None:
    """Ask what the console's pages ask, again and again."""
    while True:
        await asyncio.sleep(LOOK_S)
        console.ask(2, PROJECT, disabled=False)
        page = console.ask(7, PROJECT, limit=PAGE)
        console.ask(7, PROJECT, status=int(DeploymentStatus.RUNNING), limit=PAGE)
        console.ask(8, PROJECT, limit=PAGE)
        if page.rows:
            console.ask(8, PROJECT, application_id=page.rows[0]["application_id"], limit=PAGE)
        console.ask(12, PROJECT, 0, limit=PAGE)
        console.ask(15, PROJECT)
        console.ask(20, PROJECT, 0, limit=PAGE)
        console.ask(21, PROJECT)


if __name__ == "__main__":
    main("client-web", _work)
