"""The stores that the contract is held against: one ``store`` fixture, a new and empty one for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from logstore.filestore import FileStore, LocalStore, MemoryStore
from logstore.filestore.s3 import S3Store
from logstore.protection import protect
from tests.conftest import BUCKET
from tests.protected import protected


@pytest.fixture(params=["memory", "protected", "local", "s3", pytest.param("ceph", marks=pytest.mark.ceph)])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FileStore]:
    """An empty store of each kind."""
    opened: FileStore
    match request.param:
        case "memory":
            opened = MemoryStore()
        case "protected":
            opened = protect(MemoryStore(), protected())
        case "local":
            opened = LocalStore(tmp_path / "root")
        case "s3":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            endpoint_url = request.getfixturevalue("moto_endpoint")
            opened = S3Store(BUCKET, prefix=f"a/{uuid4().hex}", endpoint_url=endpoint_url, region="us-east-1")
        case _:
            endpoint_url = request.getfixturevalue("ceph_endpoint")
            opened = S3Store(BUCKET, prefix=f"a/{uuid4().hex}", endpoint_url=endpoint_url, region="us-east-1")
    yield opened
    await opened.aclose()
