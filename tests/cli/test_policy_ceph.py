"""The policies that ``logstore policy`` prints, tried by Ceph: each role does its work, and nothing that it may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import get_session

import logstore
from logstore import Block, Event, LogSettings, RetrySettings, StageLogs, Unavailable, WriterSettings
from logstore.filestore.s3 import S3Store
from projections import Collection, DocumentStore, Projection, View
from tests.cli.conftest import Tool
from tests.conftest import BUCKET
from tests.trouble.service import Service

pytestmark = pytest.mark.ceph

RETRY = RetrySettings(attempt_timeout_ms=30_000, deadline_ms=30_000, attempts_max=2, pause_first_ms=1)
WRITER = WriterSettings(idle_ms=1_000, idle_ms_max=1_000)
CONFINED = LogSettings(writer=WRITER, retry=RETRY, seal=False)
ROLES = {
    "reader": [],
    "writer": ["--writer", "web"],
    "snapshots": ["--writer", "web", "--snapshots"],
    "keeper": ["--keeper"],
}
FOLD = "snapshots/p/0000000001/f"
BY_WRITERS = {"log/web/", "roster/", "claims/Doc/k/", "stagelogs/d/", "pins/p/", f"{FOLD}/registration/"}
CREATES = {
    "reader": set[str](),
    "writer": BY_WRITERS,
    "snapshots": BY_WRITERS | {f"{FOLD}/manifest/", "chunks/"},
    "keeper": BY_WRITERS | {"log/other/", f"{FOLD}/manifest/", "chunks/", "retired/", "archive/", ""},
}


class Rows(Projection):
    name, kinds, fold = "rows", frozenset({"Row"}), "put"


@dataclass
class Confined:
    """Somebody with a key and a policy. ``url``: of a log in a bucket that is not his."""

    url: str
    place: str
    role: str

    def store(self) -> S3Store:
        endpoint_url = self.url.partition("endpoint_url=")[2].partition("&")[0]
        return S3Store(BUCKET, prefix=self.place, endpoint_url=endpoint_url, region="us-east-1")


Confine = Callable[..., Any]


@pytest.fixture
async def confine(ceph_endpoint: str, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> Confine:
    """Makes a log, a user, his policy, and this process that user."""
    service = Service.from_environment()

    async def make(role: str, *more: str) -> Confined:
        place, user = f"confined/{uuid4().hex}", uuid4().hex
        url = f"s3://{BUCKET}/{place}?endpoint_url={ceph_endpoint}&region=us-east-1"
        async with logstore.open(url, history="drop") as log, log.writer("first") as writer:
            await writer.append(Event("Row", "r", "written", {"n": 1}))
        await service.admin("caps", "add", "--uid=logstore", "--caps=user-policy=*")
        key = ("--access-key=" + user, "--secret-key=" + user[::-1])
        await service.admin("user", "create", f"--uid={user}", f"--display-name={user}", *key)
        policy = tool("policy", url, *ROLES[role], *more).stdout
        iam = client("iam", ceph_endpoint)
        iam.put_user_policy(UserName=user, PolicyName=role, PolicyDocument=policy)
        iam.close()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", user)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", user[::-1])
        return Confined(url, place, role)

    return make


def client(service: str, endpoint: str) -> Any:
    config = Config(s3={"addressing_style": "path"})
    return get_session().create_client(service, endpoint_url=endpoint, region_name="us-east-1", config=config)


UNCONDITIONAL = "--without-if-none-match"


async def may_create(store: S3Store) -> set[str]:
    """Below which names it creates."""
    may, refusals = set(), []
    for prefix in set[str]().union(*CREATES.values()):
        try:
            await store.create(prefix + uuid4().hex, b"")
        except Unavailable as error:
            refusals.append(str(error))
        else:
            may.add(prefix)
    assert all("access denied" in refusal for refusal in refusals)
    return may


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_creates_what_its_line_of_the_table_says(confine: Confine, role: str) -> None:
    """All roles read; each creates below its own names only; only a keeper deletes."""
    confined = await confine(role, UNCONDITIONAL)
    store = confined.store()
    try:
        assert (await store.get("store")).size > 0
        assert [listed.key async for listed in store.list("roster/")] != []
        assert await may_create(store) == CREATES[role]
        if role == "keeper":
            await store.delete("log/first/none")
        else:
            with pytest.raises(Unavailable, match="access denied"):
                await store.delete("store")
    finally:
        await store.aclose()


async def test_a_reader_reads(confine: Confine) -> None:
    """A read-only log and a view of it need no more than the reader's policy."""
    confined = await confine("reader")
    async with logstore.open(confined.url, settings=CONFINED, read_only=True) as log, View.open(log, Rows()) as view:
        assert [event.key async for event in log.read()] == ["r"]
        assert view.get("r") == {"n": 1}


async def test_a_writer_does_all_that_writers_do(confine: Confine) -> None:
    """Appends, documents, claims, stage logs, pins; under another's name nothing, not even the first time."""
    confined = await confine("writer", UNCONDITIONAL)
    collections = [Collection("Deployment"), Collection("Project", unique=True)]
    async with logstore.open(confined.url, settings=CONFINED) as log:
        async with DocumentStore.open(log, writer="web", collections=collections) as db:
            await (await db.collection("Deployment").create("d-1", {"status": 0})).settled()
            await db.collection("Project").create("p-1", {"name": "p"})
        stage = StageLogs(log).stage("d-1", "build")
        await stage.append([Block(0, "line")])
        await stage.complete()
        async with log.pin("export"):
            pass
        async with log.writer("other") as other:
            with pytest.raises(logstore.Unknown, match="access denied"):
                await other.append(Event("Row", "r", "written", {"n": 2}))


async def test_a_writer_with_snapshots_publishes_them(confine: Confine) -> None:
    """And a reader opens from one."""
    confined = await confine("snapshots", UNCONDITIONAL)
    async with logstore.open(confined.url, settings=CONFINED) as log, View.open(log, Rows()) as view:
        await view.snapshot()
    async with logstore.open(confined.url, settings=CONFINED, read_only=True) as log, View.open(log, Rows()) as view:
        assert view.get("r") == {"n": 1}


async def test_a_keeper_ends_chapters_and_collects(confine: Confine) -> None:
    """A whole round of keeping: seal, close, snapshot twice, retire, collect."""
    confined = await confine("keeper", UNCONDITIONAL)
    async with logstore.open(confined.url, settings=LogSettings(writer=WRITER, retry=RETRY)) as log:
        keeper = log.keeper()
        await keeper.try_out()
        assert await log.close_chapter()
        async with log.writer("keeper") as writer:
            await writer.append(Event("Row", "s", "written", {"n": 2}))
        async with View.open(log, Rows()) as view:
            for _ in range(2):
                await view.snapshot()
        assert [one.chapter for one in await keeper.retire()] != []
        _ = [garbage async for garbage in keeper.collect()]


async def test_leaders_of_one_name_follow_one_another(confine: Confine) -> None:
    """Who takes over ends its predecessor's session, which lies under its own name."""
    confined = await confine("writer", UNCONDITIONAL)
    collections = [Collection("Seat", exclusive=True)]
    for number in range(2):
        async with (
            logstore.open(confined.url, settings=CONFINED) as log,
            DocumentStore.open(log, writer="web", collections=collections, mode="exclusive") as db,
        ):
            await db.collection("Seat").create(f"s-{number}", {"n": number})


@pytest.mark.parametrize("role", ["writer", "snapshots", "keeper"])
async def test_ceph_16_refuses_every_creation_under_a_condition_that_it_does_not_know(
    confine: Confine, role: str
) -> None:
    """It takes the header of the condition for absent, always: nothing is lost, but nobody writes."""
    confined = await confine(role)
    store = confined.store()
    try:
        assert await may_create(store) == set()
    finally:
        await store.aclose()


async def test_without_the_condition_a_key_overwrites_what_it_may_create(confine: Confine, ceph_endpoint: str) -> None:
    """The library never does; somebody with its key can, there and only there."""
    confined = await confine("writer", UNCONDITIONAL)
    s3 = client("s3", ceph_endpoint)
    own, others = (f"{confined.place}/log/{writer}/{uuid4().hex}" for writer in ("web", "first"))
    for body in (b"one", b"two"):
        s3.put_object(Bucket=BUCKET, Key=own, Body=body)
    assert s3.get_object(Bucket=BUCKET, Key=own)["Body"].read() == b"two"
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_object(Bucket=BUCKET, Key=others, Body=b"two")
    s3.close()
