"""The thirteen faults for which PipeCD gave up its FileDB: each shown in a re-telling of it, and absent here.

``FileDB`` tells its algorithm again, in our words and as small as honest: an object for each document and *shard* (the
role that may write it), found by listing, merged by laying one over the other, updated by reading, changing and
writing back. Each test plays one scenario on both. What it asserts of ours would fail on the other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

import logstore
from examples.pipecd import COLLECTIONS, CommandStatus, ControlPlane, DeploymentStatus, StageStatus, queries
from examples.pipecd.models import Stage
from examples.pipecd.pages import everything
from logstore import AlreadyExists, Conflict, Log, NotFound, copy_store
from projections import DocumentStore
from projections.cli import main
from tests.pipecd.planes import application, deployment, held, overtaken, process, roles
from tests.scene import Act, Machine, Scene, directed, hang, hang_after, quick

Entity = dict[str, Any]

# FileDB, told again ----------------------------------------------------------------------------


class Unsupported(Exception):
    """Its answer to what it cannot do."""


class Objects:
    """A file store as FileDB knew it: get, put, list; anybody overwrites."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.before: Callable[[str, str], None] = lambda _verb, _path: None

    def list(self, prefix: str) -> list[str]:
        self._note("list", prefix)
        return sorted(path for path in self.data if path.startswith(prefix))

    def get(self, path: str) -> bytes:
        self._note("get", path)
        if path not in self.data:
            raise NotFound(path)
        return self.data[path]

    def put(self, path: str, data: bytes) -> None:
        self._note("put", path)
        self.data[path] = data

    def _note(self, verb: str, path: str) -> None:
        self.requests.append((verb, path))
        self.before(verb, path)


SHARDS: Final = {
    "Application": ("client", "agent"),
    "Piped": ("client", "agent"),
    "Command": ("agent", "ops"),
    "Deployment": ("agent",),
    "Project": ("client",),
    "APIKey": ("client",),
    "Event": ("agent",),
}
WRITABLE: Final = {
    "Application": {"web": "client", "pipectl": "client", "piped": "agent"},
    "Piped": {"web": "client", "piped": "agent"},
    "Command": {"piped": "agent", "ops": "ops"},
    "Deployment": {"piped": "agent"},
    "Project": {"web": "client"},
    "APIKey": {"web": "client"},
}
COMMON: Final = ("id", "project_id", "created_at", "updated_at")
SHARED: Final = ("kind", "name", "piped_id", "platform_provider", "git_path")
FIELDS: Final = {  # listed by hand; what is forgotten is dropped
    ("Application", "client"): (*COMMON, *SHARED, "disabled", "deleted", "deleted_at"),
    ("Application", "agent"): (*COMMON, *SHARED, "description", "labels", "sync_state", "deploying"),
    ("Piped", "client"): (*COMMON, "name", "desc", "keys", "desired_version", "disabled"),
    ("Piped", "agent"): (*COMMON, "config", "platform_providers", "repositories", "started_at", "version"),
}
INT64: Final = frozenset({"created_at", "updated_at", "deleted_at", "completed_at", "last_used_at", "handled_at"})


class FileDB:
    """As of the last commit that had it. ``role``: who calls."""

    def __init__(self, objects: Objects, role: str = "web", cache: dict[str, tuple[int, bytes]] | None = None) -> None:
        self.objects = objects
        self.role = role
        self.cache = {} if cache is None else cache
        self.rng = random.Random(1)  # the order in which a map of Go's is gone through
        self.logger = logging.getLogger("filedb")

    def find(
        self,
        kind: str,
        filters: Sequence[tuple[str, str, Any]] = (),
        _orders: Sequence[str] = (),
        _limit: int = 0,
        _cursor: str = "",
    ) -> tuple[list[Entity], str]:
        parts: dict[str, dict[str, bytes]] = {}
        for shard in SHARDS[kind]:
            for path in self.objects.list(f"datastore/{kind}/{shard}/"):
                id = path.rsplit("/", 1)[1]
                parts.setdefault(id, {})[shard] = self._fetch_cached(shard, id, path)
        found = []
        for id in self.rng.sample(sorted(parts), len(parts)):
            entity = self._decode(kind, parts[id])
            self.logger.info("filtering... entity=%s filter=%s", entity, filters)
            passes = all(_passes(entity, *each) for each in filters)
            self.logger.info("check filter result entity=%s filter=%s result=%s", entity, filters, passes)
            if passes:
                found.append(entity)
        return found, ""

    def get(self, kind: str, id: str) -> Entity:
        return self._decode(kind, {shard: self.objects.get(_path(kind, shard, id)) for shard in SHARDS[kind]})

    def create(self, kind: str, entity: Mapping[str, Any]) -> None:
        for shard in SHARDS[kind]:
            kept = FIELDS.get((kind, shard), tuple(entity))
            self.objects.put(_path(kind, shard, entity["id"]), _json({name: entity.get(name) for name in kept}))

    def update(self, kind: str, id: str, updater: Callable[[Entity], None]) -> None:
        if self.role not in WRITABLE[kind]:
            raise Unsupported(f"{self.role} does not write {kind}")
        path = _path(kind, WRITABLE[kind][self.role], id)
        entity: Entity = json.loads(self.objects.get(path))
        updater(entity)
        self.objects.put(path, _json(entity))

    def _fetch_cached(self, shard: str, id: str, path: str) -> bytes:
        key, etag = f"FILEDB:OBJECT:{shard}:{id}", hash(self.objects.data.get(path))
        if (cached := self.cache.get(key)) is not None and cached[0] == etag:
            return cached[1]
        data = self.objects.get(path)
        self.cache[key] = (etag, data)
        return data

    def _decode(self, kind: str, parts: dict[str, bytes]) -> Entity:
        if kind in ("Application", "Command") and len(parts) != len(SHARDS[kind]):
            raise RuntimeError("shards count not matched")
        entity: Entity = {}
        wholes = {shard: json.loads(data) for shard, data in parts.items()}
        for shard in self.rng.sample(sorted(wholes), len(wholes)):
            _lay_over(entity, wholes[shard])
        entity["updated_at"] = max(whole.get("updated_at", 0) for whole in wholes.values())
        if kind == "Command":
            entity["status"] = max(whole.get("status", 0) for whole in wholes.values())
        return entity


def _path(kind: str, shard: str, id: str) -> str:
    return f"datastore/{kind}/{shard}/{id}"


def _json(value: Entity) -> bytes:
    """Zero values are left out, at every depth: ``omitempty``."""
    return json.dumps(_without_zeros(value)).encode()


def _without_zeros(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kept = {name: _without_zeros(item) for name, item in value.items()}
    return {name: item for name, item in kept.items() if item not in (None, "", 0, False, [], {})}


def _lay_over(below: Entity, above: Entity) -> None:
    for name, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(name), dict):
            _lay_over(below[name], value)
        else:
            below[name] = value


def _passes(entity: Entity, field: str, operator: str, operand: Any) -> bool:
    if "." in field:
        raise Unsupported(f"nested {field}")
    if field not in entity:
        return False
    value = str(entity[field]) if field in INT64 else entity[field]  # protojson has 64 bits as text
    match operator:
        case "==":
            return bool(value == operand)
        case "in":
            return value in operand
        case ">=":
            return float(value) >= float(operand)
        case "<=":
            return float(value) <= float(operand)
    raise Unsupported(operator)


# What both are tried on -------------------------------------------------------------------------

_names = count()


def memory() -> str:
    return f"memory://filedb-faults-{next(_names)}"


def event(number: int) -> Any:
    return {
        "id": f"e-{number}",
        "project_id": "shop",
        "name": "image",
        "event_key": "k",
        "created_at": number,
    }


async def test_fault_01_find_ignores_orders_limit_and_cursor() -> None:
    """Asked for the newest event, FileDB returns all of them in any order; here it is one, and the newest."""
    old = FileDB(Objects())
    for number in range(9):
        old.create("Event", event(number))
    newest = [("project_id", "==", "shop"), ("event_key", "==", "k")]
    answers = [old.find("Event", newest, ["-created_at", "id"], 1) for _ in range(20)]
    assert all(len(found) == 9 for found, _ in answers)
    assert len({found[0]["id"] for found, _ in answers}) > 1
    assert {cursor for _, cursor in answers} == {""}

    async with roles() as plane:
        for number in range(9):
            await plane.web.events.add(event(number))
        page = queries.latest_event("shop", "image", "k").find(plane.web.db, limit=1)
        assert page.keys == ["e-8"]
        listed = list(everything(queries.events_of_project("shop"), plane.web.db, 2))
        assert [each["id"] for each in listed] == [f"e-{number}" for number in reversed(range(9))]


async def test_fault_02_every_find_reads_the_whole_kind() -> None:
    """A find in one project costs FileDB a request for each object of all others; here it costs none."""
    objects = Objects()
    old = FileDB(objects)
    for number in range(50):
        old.create("Application", application(f"a-{number}", project_id=f"project-{number}"))
    objects.requests.clear()
    found, _ = old.find("Application", [("project_id", "==", "project-7")])
    assert len(found) == 1
    assert len(objects.requests) == 2 * (1 + 50)

    async with logstore.open(memory()) as log, ControlPlane.open(log, "client-1") as web:
        for number in range(50):
            await web.applications.add(application(f"a-{number}", project_id=f"project-{number}"))
        before = log.requests().requests
        page = queries.applications_of_project("project-7").find(web.db)
        assert (page.keys, page.examined) == (["a-7"], 1)
        assert log.requests().requests == before


async def test_fault_03_two_kinds_with_one_id_evict_each_other() -> None:
    """FileDB's cache does not know kinds, so unchanged objects are fetched again; here rows are kept by kind and id."""
    objects = Objects()
    old = FileDB(objects)
    old.create("Application", application("same"))
    old.create("Piped", {"id": "same", "project_id": "shop", "name": "one"})
    for kind in ("Application", "Piped"):
        old.find(kind)
    objects.requests.clear()
    for kind in ("Application", "Piped") * 3:
        old.find(kind)
    assert sum(verb == "get" for verb, _ in objects.requests) == 2 * 6

    async with logstore.open(memory()) as log, ControlPlane.open(log, "client-1") as web:
        await web.applications.add(application("same"))
        await web.pipeds.add({"id": "same", "project_id": "shop", "name": "one"})
        before = log.requests().requests
        for _ in range(3):
            assert (web.applications.get("same")["name"], web.pipeds.get("same")["name"]) == ("cart", "one")
        assert log.requests().requests == before


@directed
async def test_fault_04_create_overwrites(scene: Scene) -> None:
    """A second creation resets what FileDB had; here it is refused, also where neither could see the other."""
    old = FileDB(Objects())
    old.create("Project", {"id": "shop", "desc": "first", "static_admin": {"username": "root"}})
    old.create("Project", {"id": "shop", "desc": "second"})
    assert old.get("Project", "shop") == {"id": "shop", "desc": "second", "updated_at": 0}

    async with process(scene, "client-1") as web, held(scene, "client-2") as (slow, gate):
        await web.projects.add({"id": "shop", "desc": "first"})
        with pytest.raises(AlreadyExists):
            await web.projects.add({"id": "shop", "desc": "second"})
        first = slow.applications.add(application(name="first"))
        applied, refused = await overtaken(gate, first, lambda: web.applications.add(application(name="second")))
        await applied.settled()
        with pytest.raises(AlreadyExists):
            await refused.settled()
        assert web.projects.get("shop")["desc"] == "first"
        assert (web.applications.get("a-1")["name"], slow.applications.get("a-1")["name"]) == ("first", "first")


async def _create_and_hang(machine: Machine, name: str, id: str, act: Act) -> None:
    async with machine.open() as log, ControlPlane.open(log, name) as web:
        await web.applications.add(application(f"{id}-before", project_id=id))
        machine.script.on("create", "log/", act)
        await web.applications.add(application(id, project_id=id))


@directed
async def test_fault_05_create_is_not_atomic(scene: Scene) -> None:
    """A crash amid a creation leaves FileDB half an application, and no list for anybody; here all, or nothing."""
    objects = Objects()
    old = FileDB(objects)
    old.create("Application", application("a-0"))

    def crash(verb: str, path: str) -> None:
        if verb == "put" and "/agent/" in path:
            raise KeyboardInterrupt

    objects.before = crash
    with pytest.raises(KeyboardInterrupt):
        old.create("Application", application("a-1"))
    with pytest.raises(NotFound):
        old.get("Application", "a-1")
    with pytest.raises(RuntimeError, match="shards count not matched"):
        old.find("Application", [("id", "==", "a-0")])

    for number, (act, is_there) in enumerate([(hang, False), (hang_after, True)], 1):
        name, id = f"client-{number}", f"a-{number}"
        machine = scene.machine(name)
        dying = machine.start(_create_and_hang(machine, name, id, act))
        await asyncio.sleep(0.4)
        machine.process.crash()
        assert not dying.done()
        async with process(scene, f"client-{number + 2}") as other:
            assert (id in other.applications.documents) is is_there
            found = queries.applications_of_project(id).find(other.db).keys
            assert found == [id, f"{id}-before"][not is_there :]
            if not is_there:
                await other.applications.add(application(id))


@directed
async def test_fault_06_update_loses_updates(scene: Scene) -> None:
    """Of two reports on two stages at once FileDB keeps one; here both are kept, without either waiting."""
    old = FileDB(Objects(), "piped")
    old.create("Deployment", {"id": "d-1", "stages": {"a": {"status": 1}, "b": {"status": 1}}})

    def meanwhile(entity: Entity) -> None:
        old.update("Deployment", "d-1", lambda other: other["stages"].update(b={"status": 2}))
        entity["stages"]["a"] = {"status": 2}

    old.update("Deployment", "d-1", meanwhile)
    assert old.get("Deployment", "d-1")["stages"] == {"a": {"status": 2}, "b": {"status": 1}}

    async with process(scene, "agent-1") as one, process(scene, "agent-2") as two:
        stages = [Stage(id="a", name="A", status=0), Stage(id="b", name="B", status=0)]
        await one.deployments.add(deployment())
        await one.deployments.update_to_planned(
            "d-1",
            summary="",
            status_reason="",
            running_commit_hash="",
            running_config_filename="",
            versions=[],
            stages=stages,
        )
        await asyncio.gather(
            one.deployments.update_stage_status("d-1", "a", StageStatus.SUCCESS, ""),
            two.deployments.update_stage_status("d-1", "b", StageStatus.SUCCESS, ""),
            one.deployments.update_metadata("d-1", {"one": "1"}),
            two.deployments.update_metadata("d-1", {"two": "2"}),
            two.deployments.update_status("d-1", DeploymentStatus.RUNNING, ""),
        )
        for plane in (one, two):
            await plane.deployments.documents.view.refresh()
            found = plane.deployments.get("d-1")
            assert [found["stages"][each]["status"] for each in ("a", "b")] == [2, 2]
            assert (dict(found["metadata"]), found["status"]) == ({"one": "1", "two": "2"}, 2)


@directed
async def test_fault_07_guards_see_their_own_shard_only(scene: Scene) -> None:
    """An agent updates what the web has deleted in FileDB; here it is refused, even if the deletion came too late."""
    objects = Objects()
    FileDB(objects).create("Application", application())
    FileDB(objects, "web").update("Application", "a-1", lambda entity: entity.update(deleted=True))

    def unless_deleted(entity: Entity) -> None:
        if entity.get("deleted"):
            raise Conflict("the application is deleted")
        entity["sync_state"] = {"status": 1}

    FileDB(objects, "piped").update("Application", "a-1", unless_deleted)
    found = FileDB(objects).get("Application", "a-1")
    assert (found["deleted"], found["sync_state"]) == (True, {"status": 1})

    async with (
        held(scene, "client-1") as (web, gate),
        process(scene, "client-2") as other,
        process(scene, "agent-1") as agents,
    ):
        await other.applications.add(application())

        async def report() -> Any:
            return await agents.applications.update_sync_state("a-1", {"status": 1})

        _, receipt = await overtaken(gate, web.applications.delete("a-1"), report)
        with pytest.raises(Conflict, match="the application is deleted"):
            await receipt.settled()
        with pytest.raises(Conflict, match="the application is deleted"):
            await report()
        assert "sync_state" not in agents.applications.get("a-1")


async def test_fault_08_roles_that_must_write_may_not_and_fields_are_forgotten() -> None:
    """pipectl, and ops, are refused by FileDB, and fields that no list names are dropped; here neither happens."""
    objects = Objects()
    old = FileDB(objects)
    plugins = [{"name": "kubernetes"}]
    old.create("Piped", {"id": "p-1", "project_id": "shop", "name": "one", "plugins": plugins})
    old.create("Application", application(deploy_targets_by_plugin={"kubernetes": ["prod"]}))
    old.create("Project", {"id": "shop"})
    old.create("APIKey", {"id": "k-1", "project_id": "shop"})
    for role, kind, id in (("pipectl", "Piped", "p-1"), ("ops", "Project", "shop"), ("ops", "APIKey", "k-1")):
        with pytest.raises(Unsupported):
            FileDB(objects, role).update(kind, id, lambda _entity: None)
    assert "plugins" not in old.get("Piped", "p-1")
    assert "deploy_targets_by_plugin" not in old.get("Application", "a-1")

    async with roles() as plane:
        await plane.web.pipeds.add({"id": "p-1", "project_id": "shop", "name": "one"})
        await plane.web.applications.add(application(deploy_targets_by_plugin={"kubernetes": ["prod"]}, new_field=1))
        await plane.web.projects.add({"id": "shop"})
        await plane.web.api_keys.add({"id": "k-1", "project_id": "shop"})
        await plane.agents.pipeds.update_metadata("p-1", version="v1", config="", started_at=1, plugins=plugins)
        await plane.web.pipeds.disable("p-1")  # pipectl's calls come to the same server
        await plane.ops.projects.update_static_admin("shop", password_hash="new")
        await plane.ops.api_keys.update_last_used_at("k-1", 5)
        await plane.web.pipeds.documents.view.refresh()
        piped, found = plane.web.pipeds.get("p-1"), plane.web.applications.get("a-1")
        assert ([dict(each) for each in piped["plugins"]], piped["disabled"]) == (plugins, True)
        assert list(found["deploy_targets_by_plugin"]["kubernetes"]) == ["prod"]
        assert found["new_field"] == 1  # type: ignore[typeddict-item]  # known to none of our lists, either
        assert plane.ops.projects.get("shop")["static_admin"]["password_hash"] == "new"
        assert plane.ops.api_keys.get("k-1")["last_used_at"] == 5


async def test_fault_09_merging_brings_back_what_was_cleared() -> None:
    """A cleared field comes back from FileDB's other shard, and the highest status wins; here the last write does."""
    objects = Objects()
    old = FileDB(objects)
    old.create("Application", application(git_path={"path": "cart", "url": "https://old"}))
    old.update("Application", "a-1", lambda entity: entity["git_path"].update(url=""))
    assert old.get("Application", "a-1")["git_path"]["url"] == "https://old"
    old.create("Command", {"id": "m-1", "status": 0})
    FileDB(objects, "ops").update("Command", "m-1", lambda entity: entity.update(status=3))
    FileDB(objects, "piped").update("Command", "m-1", lambda entity: entity.update(status=1))
    assert old.get("Command", "m-1")["status"] == 3

    async with roles() as plane:
        await plane.web.applications.add(application(git_path={"path": "cart", "url": "https://old"}))
        await plane.web.applications.documents.update("a-1", {"git_path": {"url": ""}})
        await plane.web.commands.add({"id": "m-1", "piped_id": "p-1"})
        await plane.ops.commands.update_status("m-1", CommandStatus.TIMEOUT, {}, 1)
        await plane.agents.commands.update_status("m-1", CommandStatus.SUCCEEDED, {}, 2)
        for each in (plane.web, plane.agents, plane.ops):
            await each.applications.documents.view.refresh()
            await each.commands.documents.view.refresh()
            assert dict(each.applications.get("a-1")["git_path"]) == {"path": "cart", "url": ""}
            assert each.commands.get("m-1")["status"] == CommandStatus.SUCCEEDED


async def test_fault_10_filters_do_not_hold() -> None:
    """Nested fields, 64-bit numbers, ``in`` over times, one odd value: FileDB errs on each; here they are answered."""
    large = 2**53
    old = FileDB(Objects(), "piped")
    for number in (0, 1):
        old.create("Deployment", {"id": f"d-{number}", "completed_at": large + number, "sync_state": {"status": 1}})
    with pytest.raises(Unsupported, match="nested"):
        old.find("Deployment", [("sync_state.status", "==", 1)])
    assert len(old.find("Deployment", [("completed_at", ">=", large + 1)])[0]) == 2  # one is less
    assert old.find("Deployment", [("completed_at", "in", [large])])[0] == []
    old.create("Deployment", {"id": "d-2", "completed_at": "soon"})
    with pytest.raises(ValueError, match="soon"):
        old.find("Deployment", [("completed_at", ">=", 1)])

    async with roles() as plane:
        await plane.web.applications.add(application())
        await plane.agents.applications.update_sync_state("a-1", {"status": 2})
        assert queries.applications_of_project("shop", sync_status=2).find(plane.agents.db).keys == ["a-1"]
        assert queries.applications_of_project("shop", sync_status=1).find(plane.agents.db).keys == []
        for number in (0, 1):
            await plane.agents.deployments.add(deployment(f"d-{number}", completed_at=large + number, status=4))
        await plane.agents.deployments.add(deployment("d-2", completed_at="soon", status=4))
        find = plane.agents.deployments.documents.find
        assert queries.completed_deployments(large + 1, large + 9).find(plane.agents.db).keys == ["d-1"]
        assert find([("completed_at", "in", [large])]).keys == ["d-0"]
        assert find([("completed_at", ">=", 1)]).keys == ["d-0", "d-1"]


async def test_fault_11_secrets_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """FileDB logs each document twice for each find, key hashes and all; here nothing is logged."""
    caplog.set_level(logging.DEBUG)
    old = FileDB(Objects())
    old.create("APIKey", {"id": "k-1", "project_id": "shop", "key_hash": "s3cr3t"})
    old.find("APIKey")
    assert caplog.text.count("s3cr3t") == 2
    caplog.clear()

    async with roles() as plane:
        await plane.web.api_keys.add({"id": "k-1", "project_id": "shop", "key_hash": "s3cr3t"})
        assert queries.api_keys_of_project("shop").find(plane.web.db).rows[0]["key_hash"] == "s3cr3t"
        assert "s3cr3t" not in caplog.text


async def test_fault_12_what_goes_between_list_and_get_fails_the_find() -> None:
    """An object removed amid FileDB's find fails it, and one changed shows a moment that never was; here none does."""
    objects = Objects()
    old = FileDB(objects)
    for number in range(3):
        old.create("APIKey", {"id": f"k-{number}", "project_id": "shop"})

    def remove(verb: str, path: str) -> None:
        if verb == "get" and path.endswith("k-1"):
            objects.data.pop(path, None)

    objects.before = remove
    with pytest.raises(NotFound):
        old.find("APIKey", [("project_id", "==", "shop")])
    objects.before = lambda _verb, _path: None
    old.create("Application", application())

    def disable_and_describe(verb: str, path: str) -> None:
        if (verb, path) == ("list", "datastore/Application/agent/"):  # the client's shard was read already
            objects.before = lambda _verb, _path: None
            FileDB(objects, "web").update("Application", "a-1", lambda entity: entity.update(disabled=True))
            FileDB(objects, "piped").update("Application", "a-1", lambda entity: entity.update(description="disabled"))

    objects.before = disable_and_describe
    (torn,) = old.find("Application")[0]
    assert (torn.get("disabled"), torn["description"]) == (None, "disabled")

    async with roles() as plane:
        for number in range(5):
            await plane.web.api_keys.add({"id": f"k-{number}", "project_id": "shop"})
        seen = []
        for each in everything(queries.api_keys_of_project("shop"), plane.web.db, 2):
            seen.append(each["id"])
            if each["id"] == "k-1":
                await plane.web.api_keys.documents.delete("k-2")
        assert seen == ["k-0", "k-1", "k-3", "k-4"]
        await plane.web.applications.add(application())
        await plane.web.applications.disable("a-1")
        await plane.agents.applications.update_basic_info("a-1", "cart", "disabled", {})
        await plane.ops.applications.documents.view.refresh()
        (whole,) = queries.all_applications().find(plane.ops.db).rows
        assert (whole["disabled"], whole["description"]) == (True, "disabled")


def _reading(log: Log) -> DocumentStore:
    return DocumentStore.open(log, collections=COLLECTIONS)


async def test_fault_13_no_pages_no_cold_storage_no_way_out(tmp_path: Path) -> None:
    """FileDB has one page, keeps all objects hot, and no tool moves it; here are pages, snapshots and a way out."""
    objects = Objects()
    old = FileDB(objects, "piped")
    for number in range(30):
        old.create("Deployment", deployment(f"d-{number:02}", status=4, completed_at=1 + number))
    first_page, cursor = old.find("Deployment", [], ["completed_at"], 10)
    assert (len(first_page), cursor) == (30, "")
    objects.requests.clear()
    FileDB(objects, "piped").find("Deployment")  # a new process reads every object there ever was
    assert len(objects.requests) == 31
    assert not {"export_", "import_", "archive", "snapshot"} & set(dir(FileDB))

    first, second = (tmp_path / "first").as_uri(), (tmp_path / "second").as_uri()
    settings = quick()
    async with logstore.open(first, settings=settings) as log, ControlPlane.open(log, "agent-1") as agents:
        for number in range(30):
            await agents.deployments.add(deployment(f"d-{number:02}", status=4, completed_at=1 + number))
        page = queries.completed_deployments(1, 99).find(agents.db, limit=10)
        assert (page.keys[0], page.keys[-1], len(page.keys)) == ("d-00", "d-09", 10)
        assert page.cursor is not None
        manifest = await agents.deployments.documents.view.snapshot()
        assert manifest.rows == 30
        documents = everything(queries.completed_deployments(1, 99), agents.db, 100)
        expected = [dict(each) for each in documents]

    await copy_store(first, second)  # the whole, verified, versions and all
    async with logstore.open(second, read_only=True) as log, _reading(log) as db:
        assert db.collection("Deployment").view.damage == []
        assert [dict(each) for each in everything(queries.completed_deployments(1, 99), db, 7)] == expected

    rows = tmp_path / "rows.jsonl"  # or the documents alone, for a control plane that has others
    arguments = ["export", first, "--projection", "examples.pipecd.collections:DEPLOYMENT", "--out", str(rows)]
    exported = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert exported.exit_code == 0, exported.output
    async with roles() as plane:
        for line in rows.read_text().splitlines():
            await plane.agents.deployments.add(json.loads(line)["row"]["doc"])
        documents = everything(queries.completed_deployments(1, 99), plane.agents.db, 7)
        assert [dict(each) for each in documents] == expected
