"""What several directories of tests share: one simulated S3 for the whole run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import get_session

BUCKET = "contract"

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in `make test &`; the tools that tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """One simulated S3 for the whole run, in a process of its own, on a port that the system picks."""
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.moto_server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    reader: threading.Thread | None = None
    try:
        found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in server.stderr)
        endpoint = next((match.group() for match in found if match), None)
        assert endpoint is not None, "moto's server did not start"
        reader = threading.Thread(target=server.stderr.read)  # its access log would fill the pipe and stop it
        reader.start()
        make_bucket(endpoint, access_key="test", secret_key="test")
        yield endpoint
    finally:
        server.kill()
        server.wait()
        if reader is not None:
            reader.join()
        server.stderr.close()


@pytest.fixture(scope="session")
def ceph_endpoint() -> str:
    """The Ceph that `scripts/ceph up` started. Without it the tests fail: a test that skips proves nothing."""
    endpoint = os.environ.get("LOGSTORE_CEPH_ENDPOINT")
    assert endpoint, "no Ceph: run scripts/ceph up DIR, then source DIR/env"
    make_bucket(endpoint, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    return endpoint


def make_bucket(endpoint: str, access_key: str, secret_key: str) -> None:
    client: Any = get_session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
