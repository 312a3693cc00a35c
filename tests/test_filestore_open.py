"""Addresses of stores: what each kind looks like, what is refused, and what never shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from logstore.errors import InvalidArgument
from logstore.filestore import LocalStore, MemoryStore, open_filestore


async def test_one_name_is_one_store_in_memory() -> None:
    """Within a process memory://name is the same store for everyone, after closing too."""
    first, again, other = (open_filestore(f"memory://{name}") for name in ("one", "one", "other"))
    assert isinstance(first, MemoryStore)
    assert first is again
    assert first is not other
    await first.create("a", b"x")
    await first.aclose()
    assert (await open_filestore("memory://one").get("a")).data == b"x"


async def test_a_directory_is_a_store(tmp_path: Path) -> None:
    """file:/// takes an absolute path, percent-decoded, and makes nothing before the first creation."""
    store = open_filestore(f"file://{tmp_path}/with%20space")
    assert isinstance(store, LocalStore)
    assert list(tmp_path.iterdir()) == []
    await store.create("a/b", b"x")
    assert (tmp_path / "with space/a/b").read_bytes() == b"x"
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket", "<S3Store bucket=bucket prefix= not used yet>"),
        ("s3://bucket/", "<S3Store bucket=bucket prefix= not used yet>"),
        ("s3://bucket/a/b/", "<S3Store bucket=bucket prefix=a/b/ not used yet>"),
        ("s3://bucket/a?endpoint_url=http://h:1&region=r", "<S3Store bucket=bucket prefix=a/ not used yet>"),
        ("s3://bucket?endpoint_url=https%3A%2F%2Fh%2Fpath", "<S3Store bucket=bucket prefix= not used yet>"),
    ],
)
async def test_a_bucket_is_a_store(url: str, shown: str) -> None:
    """s3:// takes a bucket, a prefix and two options, and asks nothing before it is used."""
    store = open_filestore(url)
    assert repr(store) == shown
    assert store.remote
    await store.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory://",
        "memory://a/b",
        "memory://a?b=secret",
        "file://",
        "file:///",
        "file://host/path/secret",
        "file:///a?b=secret",
        "file:///a#secret",
        "file:///a%00b",
        "/just/a/path",
        "relative",
        "s3://",
        "s3:///prefix",
        "s3://bucket:80/prefix",
        "s3://user:secret@bucket/prefix",
        "s3://bucket/a/../b",
        "s3://bucket/a b",
        "s3://bucket?aws_secret_access_key=secret",
        "s3://bucket?endpoint_url=secret",
        "s3://bucket?endpoint_url=ftp://host",
        "s3://bucket?endpoint_url=http://user:secret@host",
        "s3://bucket?endpoint_url=http://[secret",
        "s3://[secret",
        "gs://bucket/secret",
        "https://user:secret@host/",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """Whatever is no address of a store is InvalidArgument, and what might be a secret is not repeated."""
    with pytest.raises(InvalidArgument) as caught:
        open_filestore(url)
    assert "secret" not in str(caught.value).replace("aws_secret_access_key", "")


def test_amazon_is_imported_only_for_s3() -> None:
    """Importing the stores stays fast: botocore and its like come with the first s3:// address."""
    code = (
        "import sys; from logstore.filestore import open_filestore; open_filestore('memory://a');"
        " print([name for name in ('botocore', 'aioboto3', 'aiohttp') if name in sys.modules]);"
        " open_filestore('s3://bucket'); print('botocore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
