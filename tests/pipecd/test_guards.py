"""What must hold, holds whoever writes, and however late: of two processes, the earlier write lands last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from examples.pipecd import ControlPlane, DeploymentStatus, StageStatus
from examples.pipecd.collections import COLLECTIONS
from examples.pipecd.models import ChainNode, Stage
from logstore import AlreadyExists, Conflict
from projections import WriteReceipt
from tests.pipecd.planes import Roles, application, deployment, held, overtaken, process, roles
from tests.scene import Scene, directed, until

Do = Callable[[ControlPlane], Awaitable[Any]]


# Told at once -----------------------------------------------------------------------------------


async def deleted(plane: Roles) -> None:
    await plane.web.applications.add(application())
    await plane.web.applications.delete("a-1")


EVERY_UPDATE_OF_AN_APPLICATION: dict[str, Callable[[Roles], Awaitable[WriteReceipt]]] = {
    "enable": lambda plane: plane.web.applications.enable("a-1"),
    "disable": lambda plane: plane.web.applications.disable("a-1"),
    "delete": lambda plane: plane.web.applications.delete("a-1"),
    "configuration": lambda plane: plane.web.applications.update_configuration("a-1", "p", "k8s", "c"),
    "config filename": lambda plane: plane.web.applications.update_config_filename("a-1", "c"),
    "deploy targets": lambda plane: plane.web.applications.update_deploy_targets("a-1", {}),
    "sync state": lambda plane: plane.agents.applications.update_sync_state("a-1", {"status": 1}),
    "most recent": lambda plane: plane.agents.applications.update_most_recent_deployment(
        "a-1", DeploymentStatus.SUCCESS, {"deployment_id": "d-1"}
    ),
    "deploying": lambda plane: plane.agents.applications.update_deploying("a-1", deploying=True),
    "basic info": lambda plane: plane.agents.applications.update_basic_info("a-1", "n", "", {}),
    "by hand": lambda plane: plane.ops.applications.documents.update("a-1", {"name": "n"}, blind=True),
    "removed": lambda plane: plane.web.applications.documents.delete("a-1"),
}


@pytest.mark.parametrize("update", EVERY_UPDATE_OF_AN_APPLICATION.values(), ids=EVERY_UPDATE_OF_AN_APPLICATION)
async def test_a_deleted_application_is_never_changed(update: Callable[[Roles], Awaitable[WriteReceipt]]) -> None:
    """By the web, an agent, ops, or somebody who does not use these stores."""
    async with roles() as plane:
        await deleted(plane)
        for each in (plane.agents, plane.ops):
            await each.applications.documents.view.refresh()
        before = plane.web.applications.get("a-1")
        with pytest.raises(Conflict, match="the application is deleted"):
            await update(plane)
        assert plane.web.applications.get("a-1") == before


async def test_an_application_is_not_removed() -> None:
    """It is marked."""
    async with roles() as plane:
        await plane.web.applications.add(application())
        with pytest.raises(Conflict, match="marked"):
            await plane.web.applications.documents.delete("a-1")


async def test_a_trace_is_written_once() -> None:
    """Neither changed nor removed."""
    async with roles() as plane:
        traces = plane.web.deployment_traces
        await traces.add({"id": "t-1", "project_id": "shop", "title": "fix"})
        with pytest.raises(Conflict, match="never changed"):
            await traces.documents.update("t-1", {"title": "fixed"})
        with pytest.raises(Conflict, match="never changed"):
            await traces.documents.delete("t-1")
        assert traces.get("t-1")["title"] == "fix"


async def test_a_key_is_not_used_earlier_than_it_was() -> None:
    """Going back is refused."""
    async with roles() as plane:
        await plane.web.api_keys.add({"id": "k-1", "project_id": "shop"})
        await plane.ops.api_keys.update_last_used_at("k-1", 9)
        with pytest.raises(Conflict, match="last_used_at=9"):
            await plane.ops.api_keys.update_last_used_at("k-1", 8)


async def test_a_completion_by_hand_is_guarded_too() -> None:
    """Who writes past the update function is refused by the fold."""
    async with roles() as plane:
        await plane.agents.deployments.add(deployment())
        with pytest.raises(Conflict, match="not final"):
            await plane.agents.deployments.documents.update("d-1", {"status": 2, "completed_at": 5})


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda collection: collection.kind)
async def test_owned_fields_are_written_by_their_owners_only(collection: Any) -> None:
    """Each of them; and what is owned is left out by others who create."""
    async with roles() as plane:
        stranger = {"client-*": plane.agents, "agent-*": plane.web, "ops-*": plane.web}
        owner = {"client-*": plane.web, "agent-*": plane.agents, "ops-*": plane.ops}
        for field, pattern in collection.owners.items():
            document = {"id": field, "project_id": "shop"}
            await owner[pattern].db.collection(collection.kind).create(field, document)
            with pytest.raises(Conflict, match=f"{field} is written by"):
                await stranger[pattern].db.collection(collection.kind).update(field, {field: {}})


# Judged in the fold only ------------------------------------------------------------------------


class Late(NamedTuple):
    """Two writes of two processes: ``first`` is stamped first and lands last, so ``second`` is to be refused."""

    prepare: Callable[[ControlPlane, ControlPlane, ControlPlane], Awaitable[Any]]
    first_by: str
    first: Do
    second_by: str
    second: Do
    kind: str
    key: str
    reason: str
    error: type[Exception] = Conflict


async def two_stages(_web: ControlPlane, agents: ControlPlane, _ops: ControlPlane) -> None:
    await agents.deployments.add(deployment())
    await plan(agents, "plan", "apply")


async def plan(agents: ControlPlane, *stages: str) -> WriteReceipt:
    return await agents.deployments.update_to_planned(
        "d-1",
        summary="",
        status_reason="",
        running_commit_hash="",
        running_config_filename="",
        versions=[],
        stages=[Stage(id=each, name=each) for each in stages],
    )


LATE = {
    "an agent's report on an application that was deleted": Late(
        lambda web, _agents, _ops: web.applications.add(application()),
        "client-2",
        lambda web: web.applications.delete("a-1"),
        "agent-2",
        lambda agents: agents.applications.update_sync_state("a-1", {"status": 1}),
        "Application",
        "a-1",
        "the application is deleted",
    ),
    "a blind write to an application that was deleted": Late(
        lambda web, _agents, _ops: web.applications.add(application()),
        "client-2",
        lambda web: web.applications.delete("a-1"),
        "agent-2",
        lambda agents: agents.applications.documents.update("a-1", {"deploying": True}, blind=True),
        "Application",
        "a-1",
        "the application is deleted",
    ),
    "a report on a stage that was planned away": Late(
        two_stages,
        "agent-2",
        lambda agents: plan(agents, "plan"),
        "agent-3",
        lambda agents: agents.deployments.update_stage_status("d-1", "apply", StageStatus.RUNNING, ""),
        "Deployment",
        "d-1",
        "no such stage stage=apply",
    ),
    "a time of completion without the status": Late(
        lambda _web, agents, _ops: agents.deployments.add(deployment(status=4)),
        "agent-2",
        lambda agents: agents.deployments.update_status("d-1", DeploymentStatus.RUNNING, "again"),
        "agent-3",
        lambda agents: agents.deployments.documents.update("d-1", {"completed_at": 5}),
        "Deployment",
        "d-1",
        "not final status=2",
    ),
    "a use of a key before its last": Late(
        lambda web, _agents, _ops: web.api_keys.add({"id": "k-1", "project_id": "shop"}),
        "ops-2",
        lambda ops: ops.api_keys.update_last_used_at("k-1", 9),
        "ops-3",
        lambda ops: ops.api_keys.update_last_used_at("k-1", 8),
        "APIKey",
        "k-1",
        "last_used_at=9",
    ),
    "a third key": Late(
        lambda web, _agents, _ops: web.pipeds.add({"id": "p-1", "project_id": "shop", "keys": {"h-1": {}}}),
        "client-2",
        lambda web: web.pipeds.add_key("p-1", "h-2", "ann"),
        "client-3",
        lambda web: web.pipeds.add_key("p-1", "h-3", "bob"),
        "Piped",
        "p-1",
        "at most 2 keys",
    ),
    "a role after the project changed": Late(
        lambda web, _agents, _ops: web.projects.add({"id": "shop"}),
        "client-2",
        lambda web: web.projects.add_rbac_role("shop", "Tester", [{"actions": [1]}]),
        "client-3",
        lambda web: web.projects.add_rbac_role("shop", "Tester", [{"actions": [2]}]),
        "Project",
        "shop",
        "its version is",
    ),
    "a second trace": Late(
        lambda _web, _agents, _ops: _nothing(),
        "client-2",
        lambda web: web.deployment_traces.add({"id": "t-1", "project_id": "shop", "title": "first"}),
        "client-3",
        lambda web: web.deployment_traces.add({"id": "t-1", "project_id": "shop", "title": "second"}),
        "DeploymentTrace",
        "t-1",
        "it exists",
        AlreadyExists,
    ),
}


async def _nothing() -> None:
    return None


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
@directed
async def test_what_only_the_order_can_decide_is_decided_by_it(scene: Scene, late: Late) -> None:
    """Both are let through; when the earlier one turns up, the later changes nothing, and its writer is told why."""
    async with (
        process(scene, "client-1") as web,
        process(scene, "agent-1") as agents,
        process(scene, "ops-1") as ops,
    ):
        await late.prepare(web, agents, ops)
        async with held(scene, late.first_by) as (slow, gate), process(scene, late.second_by) as swift:
            visible = swift.db.collection(late.kind)

            async def second() -> WriteReceipt:
                receipt: WriteReceipt = await late.second(swift)
                return receipt

            first, receipt = await overtaken(gate, late.first(slow), second)
            assert receipt.receipt.stamp > first.receipt.stamp
            with pytest.raises(late.error, match=late.reason):
                await receipt.settled()
            await first.settled()
            found = [plane.db.collection(late.kind) for plane in (web, agents, ops, slow, swift)]
            await until(lambda: len({each.view.digest(pending=True) for each in found}) == 1)
            assert visible.version(late.key) == slow.db.collection(late.kind).version(late.key)


@directed
async def test_of_two_projects_of_one_name_one_is_created(scene: Scene) -> None:
    """Who comes second is told at once: nobody waits for the order."""
    async with process(scene, "client-1") as one, held(scene, "client-2") as (two, gate):

        async def first() -> WriteReceipt:
            return await two.projects.add({"id": "shop", "desc": "two"})

        async def second() -> None:
            with pytest.raises(AlreadyExists):
                await one.projects.add({"id": "shop", "desc": "one"})
            assert one.projects.get("shop")["desc"] == "two"

        await overtaken(gate, first(), second)


@directed
async def test_two_reports_on_one_chain_are_both_counted(scene: Scene) -> None:
    """Two controllers at once, which should not be: the chain still ends."""
    nodes = [
        ChainNode(
            application_ref={"application_id": f"a-{number}"},
            deployment_ref={"deployment_id": f"d-{number}", "status": 2},
        )
        for number in (1, 2)
    ]
    async with process(scene, "agent-1") as agents, process(scene, "ops-1") as ops, process(scene, "ops-2") as other:
        await agents.deployment_chains.add(
            {"id": "c-1", "project_id": "shop", "status": 1, "blocks": [{"nodes": nodes, "status": 1}]}
        )
        await asyncio.gather(
            ops.deployment_chains.update_node_deployment_status("c-1", 0, "d-1", DeploymentStatus.SUCCESS, ""),
            other.deployment_chains.update_node_deployment_status("c-1", 0, "d-2", DeploymentStatus.SUCCESS, ""),
        )
        await agents.deployment_chains.documents.view.refresh()
        chain = agents.deployment_chains.get("c-1")
        assert (chain["status"], chain["blocks"][0]["status"]) == (2, 2)
        assert chain["completed_at"] > 0
