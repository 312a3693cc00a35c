"""Documents written by real processes at full speed, on a directory and in S3: nothing lost, one winner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import logstore
from logstore import Log
from projections import DocumentStore
from tests.conftest import BUCKET
from tests.servers import COLLECTIONS, SETTINGS, until_there
from tests.zygote import Zygote

PROCESSES = 4


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as made:
        yield made


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "log").as_uri()


@pytest.fixture(params=["local", "s3", pytest.param("ceph", marks=pytest.mark.ceph)])
def any_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    """Of a new and empty store that several processes can reach, of each kind."""
    match request.param:
        case "local":
            return url
        case "s3":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            endpoint_url = request.getfixturevalue("moto_endpoint")
        case _:
            endpoint_url = request.getfixturevalue("ceph_endpoint")
    return f"s3://{BUCKET}/processes/{uuid4().hex}?endpoint_url={endpoint_url}&region=us-east-1"


def log_at(url: str) -> Log:
    return logstore.open(url, settings=SETTINGS)


async def run(zygote: Zygote, tmp_path: Path, job: str, url: str, each: list[dict[str, Any]]) -> None:
    """Start the processes, let all go at once, wait for their ends."""
    go, pids = tmp_path / "go", []
    for number, arguments in enumerate(each):
        ready = tmp_path / f"ready{number}"
        pids.append(zygote.spawn(job, url=url, writer=f"w{number}", ready=str(ready), go=str(go), **arguments))
    for number in range(len(each)):
        await until_there(tmp_path / f"ready{number}")
    go.touch()
    assert [zygote.wait(pid) for pid in pids] == [0] * len(each)


async def create(url: str, document: dict[str, Any]) -> None:
    async with log_at(url) as log, DocumentStore.open(log, writer="first", collections=COLLECTIONS) as db:
        await db.collection("Doc").create("d", document)


async def document(url: str, kind: str, key: str) -> Any:
    async with log_at(url) as log, DocumentStore.open(log, collections=COLLECTIONS) as db:
        return db.collection(kind).get(key)


async def test_patches_to_different_fields_never_undo_each_other(zygote: Zygote, url: str, tmp_path: Path) -> None:
    """Four processes, eight callers each, every one with a field of its own in one document, nested by process."""
    callers, times = 8, 40
    await create(url, {})
    await run(zygote, tmp_path, "patch", url, [{"callers": callers, "times": times}] * PROCESSES)
    assert await document(url, "Doc", "d") == {
        f"w{number}": {str(caller): times for caller in range(callers)} for number in range(PROCESSES)
    }


async def test_modify_is_serializable(zygote: Zygote, url: str, tmp_path: Path) -> None:
    """Four processes add to one number at once: the sum is exact."""
    await create(url, {"n": 0})
    await run(zygote, tmp_path, "add", url, [{"times": 10}] * PROCESSES)
    assert await document(url, "Doc", "d") == {"n": 10 * PROCESSES}


async def test_fifty_callers_in_four_processes_have_one_winner(zygote: Zygote, any_url: str, tmp_path: Path) -> None:
    """Of each of several documents: one is told that it created it, and it is its own; 49 AlreadyExists."""
    seats = 3
    files = [tmp_path / f"told{number}" for number in range(PROCESSES)]
    each = [
        {"callers": callers, "seats": seats, "file": str(file)}
        for callers, file in zip([13, 13, 12, 12], files, strict=True)
    ]
    await run(zygote, tmp_path, "take_seats", any_url, each)
    told = [json.loads(file.read_text()) for file in files]
    async with log_at(any_url) as log, DocumentStore.open(log, collections=COLLECTIONS) as db:
        for number in range(seats):
            seat = f"s{number}"
            answers = [answer for process in told for answer in process[seat]]
            assert len(answers) == 50
            (winner,) = [answer for answer in answers if answer != "exists"]
            assert db.collection("Seat").get(seat) == {"by": winner}
        assert [finding async for finding in log.check()] == []
