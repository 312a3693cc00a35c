"""``logstore policy``: what it allows is enough, and what it does not is refused by a store that enforces it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import get_session

import logstore
from logstore import Event, LogSettings, RetrySettings, Unavailable, Unknown
from logstore.filestore.s3 import S3Store
from logstore.keys import Fold, ManifestKey, RegistrationKey, manifest_key, registration_key
from projections import Collection, DocumentStore
from tests.cli.conftest import Tool

UNAUTHENTICATED = 6  # requests before the server begins to enforce policies: those of the two fixtures
SETTINGS = LogSettings(retry=RetrySettings(attempt_timeout_ms=2_000, deadline_ms=2_000), seal=False)


@pytest.fixture(scope="module")
def enforcing() -> Iterator[str]:
    """A simulated S3 that asks IAM before it does anything, after the first few requests."""
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.moto_server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(UNAUTHENTICATED)},
    )
    assert server.stderr is not None
    found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stderr)
    endpoint = next((match.group() for match in found if match), None)
    assert endpoint is not None, "moto's server did not start"
    reader = threading.Thread(target=server.stderr.read)
    reader.start()
    yield endpoint
    server.kill()
    server.wait()
    reader.join()
    server.stderr.close()


def client(endpoint: str, service: str) -> Any:
    return get_session().create_client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(s3={"addressing_style": "path"}),
    )


async def test_a_confined_writer_writes_under_its_own_name_and_no_other(
    enforcing: str, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the policy's key a writer appends, creates, claims and reads; another's prefix and deletion are refused."""
    url = f"s3://confined/cp?endpoint_url={enforcing}&region=us-east-1"
    policy = json.loads(tool("policy", url, "--writer", "piped/1").stdout)
    policy["Statement"] = [each for each in policy["Statement"] if "Condition" not in each]  # moto knows no conditions
    s3, iam = client(enforcing, "s3"), client(enforcing, "iam")
    s3.create_bucket(Bucket="confined")
    iam.create_user(UserName="operator")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName="operator", PolicyName="all", PolicyDocument=json.dumps(everything))
    operator = iam.create_access_key(UserName="operator")["AccessKey"]
    iam.create_user(UserName="piped")
    key = iam.create_access_key(UserName="piped")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", operator["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", operator["SecretAccessKey"])
    as_operator: Any = get_session().create_client("iam", endpoint_url=enforcing, region_name="us-east-1")
    as_operator.put_user_policy(UserName="piped", PolicyName="confined", PolicyDocument=json.dumps(policy))
    async with logstore.open(url, settings=SETTINGS):
        pass
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    collections = [Collection("Deployment"), Collection("Project", unique=True)]
    async with logstore.open(url, settings=SETTINGS) as log:
        async with DocumentStore.open(log, writer="piped/1", collections=collections) as db:
            await (await db.collection("Deployment").create("d-1", {"status": 0})).settled()
            await db.collection("Project").create("p-1", {"name": "p"})
        async with log.writer("piped/2") as other:
            with pytest.raises(Unknown, match="access denied"):
                await other.append(Event("Deployment", "d-2", "created", {"status": 0}))
    store = S3Store("confined", prefix="cp", endpoint_url=enforcing, region="us-east-1")
    try:
        with pytest.raises(Unavailable):
            await store.create("retired/0000000000", b"")
        with pytest.raises(Unavailable):
            await store.delete("store")
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["file:///srv/cp"], "policies are for buckets"),
        (["s3://b", "--keeper", "--writer", "w"], "leave out --writer"),
        (["s3://b", "--snapshots"], "give --writer"),
    ],
)
def test_what_makes_no_policy_is_said(tool: Tool, arguments: list[str], message: str) -> None:
    """Each refusal is one line that says what to do."""
    result = tool("policy", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_roles_differ_in_what_they_write(tool: Tool) -> None:
    """A reader writes nothing, only who is told so writes snapshots, only a keeper deletes; nobody overwrites."""

    def of(*arguments: str) -> dict[str, Any]:
        return {each["Sid"]: each for each in json.loads(tool("policy", "s3://b/cp", *arguments).stdout)["Statement"]}

    assert set(of()) == {"Read", "List"}
    assert not [name for name in of("--writer", "w")["Create"]["Resource"] if "chunks" in name]
    assert [name for name in of("--writer", "w", "--snapshots")["Create"]["Resource"] if "chunks" in name]
    assert set(of("--keeper")) == {"Read", "List", "Create", "NeverOverwrite", "Delete"}


@pytest.mark.parametrize("role", [["--writer", "w"], ["--keeper"]])
def test_without_the_condition_it_is_said_that_a_key_can_overwrite(tool: Tool, role: list[str]) -> None:
    """Only the condition goes, and what a stolen key can do says so."""
    conditional, unconditional = (
        tool("policy", "s3://b/cp", *role, *more) for more in ([], ["--without-if-none-match"])
    )
    kept, left = (json.loads(each.stdout)["Statement"] for each in (conditional, unconditional))
    assert [each for each in kept if "Condition" not in each] == left
    assert "can overwrite" not in conditional.stderr
    assert "overwrite whatever it may create" in unconditional.stderr or ", and overwrite it" in unconditional.stderr


def test_a_star_needs_to_stand_for_one_level_only(tool: Tool) -> None:
    """Ceph gives a star up at the first of what follows it: of deeper names, writers could register no projection."""
    fold, resources = Fold("p", 1, bytes(8)), set()
    for statement in json.loads(tool("policy", "s3://b", "--writer", "w", "--snapshots").stdout)["Statement"]:
        if statement["Sid"] == "Create":
            resources = {each.removeprefix("arn:aws:s3:::b/").removesuffix("*") for each in statement["Resource"]}
    for name in (registration_key(RegistrationKey(fold, 0)), manifest_key(ManifestKey(fold, 0, 1))):
        patterns = [re.escape(each).replace(r"\*", "[^/]*") for each in resources]
        assert any(re.match(pattern, name) for pattern in patterns), name
