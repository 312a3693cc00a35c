"""Each update function changes what PipeCD's does, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from examples.pipecd import COLLECTIONS, ChainStatus, CommandStatus, DeploymentStatus, EventStatus, StageStatus
from examples.pipecd.event import event_key
from examples.pipecd.models import ChainBlock, Stage
from examples.pipecd.stages import in_order
from logstore import AlreadyExists, Conflict, InvalidArgument, NotFound
from tests.pipecd.planes import Roles, application, changed, deployment, process, roles
from tests.scene import Scene, directed

LATER = 1_700_000_060


@pytest.fixture
async def plane() -> AsyncIterator[Roles]:
    async with roles() as opened:
        yield opened


async def planned(plane: Roles) -> None:
    """A deployment with two stages."""
    await plane.agents.deployments.add(deployment())
    stages = [Stage(id="plan", name="PLAN", status=0, index=0), Stage(id="apply", name="APPLY", status=0, index=1)]
    await plane.agents.deployments.update_to_planned(
        "d-1",
        summary="Sync",
        status_reason="because",
        running_commit_hash="beef",
        running_config_filename="app.yaml",
        versions=[{"kind": 1, "version": "v1"}],
        stages=stages,
    )


# What all have in common ------------------------------------------------------------------------


def test_there_are_nine_kinds() -> None:
    """Those of WORKLOAD, no more."""
    assert len({collection.kind for collection in COLLECTIONS}) == 9


async def test_a_document_says_when_it_was_created(plane: Roles) -> None:
    """Both times are the clock's, in Unix seconds, unless the caller brings its own."""
    await plane.web.applications.add(application())
    await plane.web.applications.add(application("a-2", created_at=5))
    first, second = plane.web.applications.get("a-1"), plane.web.applications.get("a-2")
    assert (first["created_at"], first["updated_at"]) == (plane.clock.time, plane.clock.time)
    assert (second["created_at"], second["updated_at"]) == (5, plane.clock.time)


async def test_an_id_is_taken_once(plane: Roles) -> None:
    """A second creation is told so, and changes nothing."""
    await plane.web.applications.add(application())
    with pytest.raises(AlreadyExists):
        await plane.web.applications.add(application(name="other"))
    assert plane.web.applications.get("a-1")["name"] == "cart"


async def test_what_is_not_there_is_not_updated(plane: Roles) -> None:
    """Nothing is created by an update."""
    with pytest.raises(NotFound):
        await plane.web.applications.enable("a-9")
    with pytest.raises(NotFound):
        plane.web.applications.get("a-9")


# Applications -----------------------------------------------------------------------------------


async def applied(plane: Roles, update: Any) -> dict[str, Any]:
    """What an update of an application changes, a minute after it was added."""
    before = plane.web.applications.get("a-1")
    plane.clock.time += 60
    await update
    await plane.web.applications.documents.view.refresh()
    difference = changed(before, plane.web.applications.get("a-1"))
    assert difference.pop("updated_at") == plane.clock.time
    return difference


async def test_an_application_is_disabled_and_enabled(plane: Roles) -> None:
    """Only that changes."""
    await plane.web.applications.add(application())
    assert await applied(plane, plane.web.applications.disable("a-1")) == {"disabled": True}
    await plane.web.applications.enable("a-1")
    assert plane.web.applications.get("a-1")["disabled"] is False


async def test_a_deleted_application_is_marked_and_disabled(plane: Roles) -> None:
    """It stays, and says when."""
    await plane.web.applications.add(application())
    difference = await applied(plane, plane.web.applications.delete("a-1"))
    assert difference == {"deleted": True, "disabled": True, "deleted_at": LATER}


async def test_an_application_is_configured(plane: Roles) -> None:
    """Of the Git path only the configuration's name changes."""
    await plane.web.applications.add(application())
    difference = await applied(plane, plane.web.applications.update_configuration("a-1", "p-2", "k8s", "b.yaml"))
    assert difference == {"piped_id": "p-2", "platform_provider": "k8s", "git_path": {"config_filename": "b.yaml"}}
    assert await applied(plane, plane.web.applications.update_config_filename("a-1", "c.yaml")) == {
        "git_path": {"config_filename": "c.yaml"}
    }


async def test_deploy_targets_are_replaced(plane: Roles) -> None:
    """A plugin that is not named has none any more."""
    await plane.web.applications.add(application(deploy_targets_by_plugin={"k8s": ["a"], "terraform": ["b"]}))
    difference = await applied(plane, plane.web.applications.update_deploy_targets("a-1", {"k8s": ["c"]}))
    assert difference == {"deploy_targets_by_plugin": {"k8s": ["c"], "terraform": None}}


async def test_a_sync_state_is_replaced(plane: Roles) -> None:
    """What the new one does not say is empty, not what it was."""
    await plane.web.applications.add(application())
    await plane.agents.applications.update_sync_state("a-1", {"status": 2, "reason": "drift"})
    await plane.agents.applications.update_sync_state("a-1", {"status": 1, "timestamp": 7})
    assert dict(plane.agents.applications.get("a-1")["sync_state"]) == {
        "status": 1,
        "short_reason": "",
        "reason": "",
        "head_deployment_id": "",
        "timestamp": 7,
    }


@pytest.mark.parametrize(
    ("status", "field"),
    [
        (DeploymentStatus.SUCCESS, "most_recently_successful_deployment"),
        (DeploymentStatus.PENDING, "most_recently_triggered_deployment"),
        (DeploymentStatus.RUNNING, None),
    ],
)
async def test_the_most_recent_deployment_goes_by_status(
    plane: Roles, status: DeploymentStatus, field: str | None
) -> None:
    """A successful one, a triggered one, or none: but the application counts as updated."""
    await plane.web.applications.add(application())
    reference = {"deployment_id": "d-1", "trigger": {"timestamp": 1}}
    update = plane.agents.applications.update_most_recent_deployment("a-1", status, reference)
    assert await applied(plane, update) == ({field: reference} if field else {})


async def test_agents_describe_applications(plane: Roles) -> None:
    """Labels are replaced."""
    await plane.web.applications.add(application())
    update = plane.agents.applications.update_basic_info("a-1", "basket", "of goods", {"team": "x"})
    assert await applied(plane, update) == {
        "name": "basket",
        "description": "of goods",
        "labels": {"env": None, "team": "x"},
    }
    assert await applied(plane, plane.agents.applications.update_deploying("a-1", deploying=True)) == {
        "deploying": True
    }


# Deployments ------------------------------------------------------------------------------------


async def test_a_planned_deployment_has_its_stages_in_order(plane: Roles) -> None:
    """The map gives the list back, as it was planned; planning again replaces all of it."""
    await planned(plane)
    found = plane.agents.deployments.get("d-1")
    assert [stage["id"] for stage in in_order(found)] == ["plan", "apply"]
    assert (found["status"], found["summary"], found["status_reason"]) == (1, "Sync", "because")
    assert (found["running_commit_hash"], found["running_config_filename"]) == ("beef", "app.yaml")
    assert [dict(version) for version in found["versions"]] == [{"kind": 1, "version": "v1"}]
    await plane.agents.deployments.update_to_planned(
        "d-1",
        summary="Sync",
        status_reason="",
        running_commit_hash="",
        running_config_filename="",
        versions=[],
        stages=[Stage(id="wait", name="WAIT"), Stage(id="plan", name="PLAN")],
    )
    assert [stage["id"] for stage in in_order(plane.agents.deployments.get("d-1"))] == ["wait", "plan"]


async def test_a_status_is_changed_with_its_reason(plane: Roles) -> None:
    """Nothing else."""
    await planned(plane)
    before = plane.agents.deployments.get("d-1")
    await plane.agents.deployments.update_status("d-1", DeploymentStatus.RUNNING, "it began")
    assert changed(before, plane.agents.deployments.get("d-1")) == {"status": 2, "status_reason": "it began"}


@pytest.mark.parametrize("status", list(DeploymentStatus))
async def test_a_deployment_is_completed_with_a_final_status_only(plane: Roles, status: DeploymentStatus) -> None:
    """SUCCESS, FAILURE and CANCELLED are final; stages that it does not have are passed over."""
    await planned(plane)
    before = plane.agents.deployments.get("d-1")
    completing = plane.agents.deployments.update_to_completed(
        "d-1", status, {"apply": StageStatus.CANCELLED, "other": StageStatus.SUCCESS}, "done", LATER
    )
    if status < DeploymentStatus.SUCCESS:
        with pytest.raises(InvalidArgument, match="not a final status"):
            await completing
        assert plane.agents.deployments.get("d-1") == before
    else:
        await completing
        assert changed(before, plane.agents.deployments.get("d-1")) == {
            "status": int(status),
            "status_reason": "done",
            "completed_at": LATER,
            "stages": {"apply": {"status": 4}},
        }


async def test_a_stage_is_reported_on(plane: Roles) -> None:
    """One stage changes; what it requires, only where that is said."""
    await planned(plane)
    before = plane.agents.deployments.get("d-1")
    await plane.agents.deployments.update_stage_status("d-1", "apply", StageStatus.RUNNING, "on it", requires=["plan"])
    await plane.agents.deployments.update_stage_status(
        "d-1", "apply", StageStatus.SUCCESS, "done", visible=False, retried_count=1, completed_at=LATER
    )
    assert changed(before, plane.agents.deployments.get("d-1")) == {
        "stages": {
            "apply": {
                "status": 2,
                "status_reason": "done",
                "visible": False,
                "retried_count": 1,
                "completed_at": LATER,
                "requires": ["plan"],
            }
        }
    }


async def test_a_stage_that_was_not_planned_is_refused(plane: Roles) -> None:
    """Neither its status nor its metadata."""
    await planned(plane)
    with pytest.raises(Conflict, match="no such stage stage=destroy"):
        await plane.agents.deployments.update_stage_status("d-1", "destroy", StageStatus.RUNNING, "")
    with pytest.raises(Conflict, match="no such stage"):
        await plane.agents.deployments.update_stage_metadata("d-1", "destroy", {"a": "b"})


async def test_metadata_is_merged_key_by_key(plane: Roles) -> None:
    """The deployment's, a stage's, what is shared, and each plugin's."""
    await planned(plane)
    before = plane.agents.deployments.get("d-1")
    store = plane.agents.deployments
    for metadata in ({"a": "1", "b": "1"}, {"b": "2"}):
        await store.update_metadata("d-1", metadata)
        await store.update_stage_metadata("d-1", "plan", metadata)
        await store.update_shared_metadata("d-1", metadata)
        await store.update_plugin_metadata("d-1", "k8s", metadata)
    merged = {"a": "1", "b": "2"}
    assert changed(before, store.get("d-1")) == {
        "metadata": merged,
        "stages": {"plan": {"metadata": merged}},
        "metadata_v2": {"shared": merged, "plugins": {"k8s": merged}},
    }


async def test_a_completed_deployment_may_be_reported_on_as_in_pipecd(plane: Roles) -> None:
    """PipeCD has no guard there: a late report changes the status, and the time of completion stays."""
    await planned(plane)
    await plane.agents.deployments.update_to_completed("d-1", DeploymentStatus.FAILURE, {}, "", LATER)
    await plane.agents.deployments.update_status("d-1", DeploymentStatus.RUNNING, "late")
    found = plane.agents.deployments.get("d-1")
    assert (found["status"], found["completed_at"]) == (DeploymentStatus.RUNNING, LATER)


# Chains -----------------------------------------------------------------------------------------


def block(*applications: str) -> ChainBlock:
    return ChainBlock(nodes=[{"application_ref": {"application_id": each}} for each in applications], status=0)


@directed
async def test_a_chain_goes_through_its_blocks(scene: Scene) -> None:
    """Each block is what its nodes make it, the chain what its blocks make it; what is over stays as it ended."""
    async with process(scene, "ops-1") as ops, process(scene, "agent-1") as agents:
        chains = ops.deployment_chains
        await agents.deployment_chains.add(
            {"id": "c-1", "project_id": "shop", "blocks": [block("a-1", "a-2"), block("a-3")]}
        )
        numbers = {"a-1": 0, "a-2": 0, "a-3": 1}
        for name, number in numbers.items():
            run = deployment(f"d-{name}", application_id=name, deployment_chain_block_index=number)
            await agents.deployments.add(run)
            await agents.deployments.documents.view.refresh()
            await chains.add_node_deployment("c-1", agents.deployments.get(f"d-{name}"))

        async def note(name: str, status: DeploymentStatus) -> tuple[int, list[int]]:
            await chains.update_node_deployment_status("c-1", numbers[name], f"d-{name}", status, "so")
            chain = chains.get("c-1")
            return chain["status"], [each["status"] for each in chain["blocks"]]

        pending, running, success, failure = (
            ChainStatus.PENDING,
            ChainStatus.RUNNING,
            ChainStatus.SUCCESS,
            ChainStatus.FAILURE,
        )
        assert await note("a-1", DeploymentStatus.PLANNED) == (pending, [pending, pending])
        assert await note("a-1", DeploymentStatus.RUNNING) == (running, [running, pending])
        assert await note("a-1", DeploymentStatus.SUCCESS) == (running, [running, pending])
        assert await note("a-2", DeploymentStatus.SUCCESS) == (running, [success, pending])
        assert chains.get("c-1")["blocks"][0]["completed_at"] > 0
        assert "completed_at" not in chains.get("c-1")
        assert await note("a-3", DeploymentStatus.FAILURE) == (failure, [success, failure])
        assert chains.get("c-1")["completed_at"] > 0
        assert await note("a-2", DeploymentStatus.FAILURE) == (failure, [success, failure])
        for nonsense in (
            chains.update_node_deployment_status("c-1", 2, "d-a-1", DeploymentStatus.RUNNING, ""),
            chains.update_node_deployment_status("c-1", 1, "d-a-1", DeploymentStatus.RUNNING, ""),
            chains.add_node_deployment("c-1", {**agents.deployments.get("d-a-1"), "deployment_chain_block_index": 1}),
        ):
            with pytest.raises(InvalidArgument):
                await nonsense


# Pipeds and projects ----------------------------------------------------------------------------


async def test_a_piped_is_described_by_people_and_by_itself(plane: Roles) -> None:
    """Its fields have owners, and each writes its own."""
    await plane.web.pipeds.add({"id": "p-1", "project_id": "shop", "name": "one"})
    await plane.web.pipeds.update_info("p-1", "two", "of two")
    await plane.web.pipeds.disable("p-1")
    await plane.web.pipeds.update_desired_version("p-1", "v1.1")
    await plane.agents.pipeds.update_metadata(
        "p-1", version="v1.0", config="spec: {}", started_at=7, plugins=[{"n": 1}]
    )
    found = plane.agents.pipeds.get("p-1")
    assert (found["name"], found["desc"], found["disabled"], found["desired_version"]) == (
        "two",
        "of two",
        True,
        "v1.1",
    )
    assert (found["version"], found["config"], found["started_at"]) == ("v1.0", "spec: {}", 7)
    await plane.web.pipeds.enable("p-1")
    assert plane.web.pipeds.get("p-1")["disabled"] is False
    with pytest.raises(Conflict, match="is written by agent-"):
        await plane.web.pipeds.update_metadata("p-1", version="v9", config="", started_at=8)


async def test_a_piped_has_two_keys_at_most(plane: Roles) -> None:
    """A third is refused until the old ones are deleted; the newest stays."""
    await plane.web.pipeds.add({"id": "p-1", "project_id": "shop", "name": "one"})
    for key_hash in ("h-1", "h-2"):
        plane.clock.time += 1
        await plane.web.pipeds.add_key("p-1", key_hash, "ann")
    with pytest.raises(Conflict, match="at most 2 keys"):
        await plane.web.pipeds.add_key("p-1", "h-3", "ann")
    await plane.web.pipeds.delete_old_keys("p-1")
    assert list(plane.web.pipeds.get("p-1")["keys"]) == ["h-2"]
    await plane.web.pipeds.add_key("p-1", "h-3", "ann")
    assert dict(plane.web.pipeds.get("p-1")["keys"]["h-3"]) == {"creator": "ann", "created_at": plane.clock.time}


async def test_a_project_changes_as_people_wish(plane: Roles) -> None:
    """Static admin, single sign-on, roles and groups; ops resets a password."""
    projects = plane.web.projects
    await projects.add({"id": "shop", "desc": "a shop", "static_admin": {"username": "root", "password_hash": "x"}})
    await plane.ops.projects.update_static_admin("shop", password_hash="y")
    await projects.disable_static_admin("shop")
    await projects.update_sso_config("shop", {"provider": 2, "github": {"client_id": "i", "client_secret": "s"}})
    await projects.update_sso_config("shop", {"github": {"client_id": "j"}})
    await projects.update_rbac_config("shop", {"admin": "org/ops"})
    found = projects.get("shop")
    assert dict(found["static_admin"]) == {"username": "root", "password_hash": "y"}
    assert found["static_admin_disabled"] is True
    assert dict(found["sso"]["github"]) == {"client_id": "j", "client_secret": "s"}
    assert dict(found["rbac"]) == {"admin": "org/ops", "editor": "", "viewer": ""}
    await projects.enable_static_admin("shop")
    assert projects.get("shop")["static_admin_disabled"] is False


async def test_roles_and_groups_are_what_they_say(plane: Roles) -> None:
    """A role is added once, changed and deleted where it is; a group has one role; built-in ones are not touched."""
    projects = plane.web.projects
    await projects.add({"id": "shop"})
    await projects.add_rbac_role("shop", "Tester", [{"actions": [1]}])
    await projects.update_rbac_role("shop", "Tester", [{"actions": [2]}])
    await projects.add_user_group("shop", "org/test", "Tester")
    await projects.add_user_group("shop", "org/view", "Viewer")
    for nonsense in (
        projects.add_rbac_role("shop", "Tester", []),
        projects.add_rbac_role("shop", "Admin", []),
        projects.update_rbac_role("shop", "Admin", []),
        projects.update_rbac_role("shop", "Nobody", []),
        projects.delete_rbac_role("shop", "Nobody"),
        projects.add_user_group("shop", "org/test", "Viewer"),
        projects.add_user_group("shop", "org/x", "Nobody"),
        projects.delete_user_group("shop", "org/x"),
    ):
        with pytest.raises(InvalidArgument):
            await nonsense
    found = projects.get("shop")
    assert dict(found["user_groups"]) == {"org/test": "Tester", "org/view": "Viewer"}
    assert list(found["rbac_roles"]["Tester"][0]["actions"]) == [2]
    await projects.delete_user_group("shop", "org/view")
    await projects.delete_rbac_role("shop", "Tester")
    assert "Tester" not in projects.get("shop")["rbac_roles"]


# Commands, events, keys, traces -----------------------------------------------------------------


async def test_of_two_reports_on_a_command_the_last_counts(plane: Roles) -> None:
    """A time-out overwrites a report, and a report a time-out."""
    await plane.web.commands.add({"id": "m-1", "piped_id": "p-1", "project_id": "shop", "type": 0})
    await plane.ops.commands.update_status("m-1", CommandStatus.TIMEOUT, {}, 5)
    await plane.agents.commands.update_status("m-1", CommandStatus.SUCCEEDED, {"url": "x"}, 6)
    found = plane.agents.commands.get("m-1")
    assert (found["status"], dict(found["metadata"]), found["handled_at"]) == (1, {"url": "x"}, 6)
    await plane.ops.commands.update_status("m-1", CommandStatus.TIMEOUT, {}, 7)
    assert plane.ops.commands.get("m-1")["status"] == CommandStatus.TIMEOUT


async def test_an_event_is_updated_when_it_is_handled(plane: Roles) -> None:
    """A word about one that is not handled moves no time."""
    await plane.web.events.add(
        {"id": "e-1", "project_id": "shop", "name": "image", "event_key": event_key("image", {})}
    )
    added = plane.clock.time
    plane.clock.time = LATER
    await plane.agents.events.update_status("e-1", EventStatus.NOT_HANDLED, "queued")
    found = plane.agents.events.get("e-1")
    assert (found["status_description"], found["updated_at"], found.get("handled_at")) == ("queued", added, None)
    await plane.agents.events.update_status("e-1", EventStatus.OUTDATED, "a newer one came")
    found = plane.agents.events.get("e-1")
    assert (found["status"], found["updated_at"], found["handled_at"]) == (3, LATER, LATER)


async def test_using_a_key_is_no_update_of_it(plane: Roles) -> None:
    """When it was used last moves on, ``updated_at`` stays; only a key of one's own project is disabled."""
    await plane.web.api_keys.add({"id": "k-1", "project_id": "shop", "name": "ci", "key_hash": "h"})
    before = plane.web.api_keys.get("k-1")
    plane.clock.time = LATER
    await plane.ops.api_keys.update_last_used_at("k-1", 9)
    await plane.ops.api_keys.update_last_used_at("k-1", 9)
    assert changed(before, plane.ops.api_keys.get("k-1")) == {"last_used_at": 9}
    with pytest.raises(Conflict, match="project_id == other"):
        await plane.web.api_keys.disable("k-1", "other")
    await plane.web.api_keys.disable("k-1", "shop")
    assert changed(before, plane.web.api_keys.get("k-1")) == {"last_used_at": 9, "disabled": True, "updated_at": LATER}
