"""``python -m tests.trouble``: a soak, in the foreground or ``--detach``; Ceph comes up for it unless one is up.

Exit status 0: all promises were kept; 1: one was broken; 2: it could not run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tests.conftest import make_bucket
from tests.trouble.service import ROOT, Service
from tests.trouble.soak import soak
from tests.trouble.troubles import Credentials

CEPH = str(ROOT / "scripts" / "ceph")


def main() -> int:
    arguments = parse()
    directory = Path(arguments.directory or f"soak/{datetime.now(UTC):%Y-%m-%dT%H%M%S}").resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if arguments.detach:
        return detach(directory, arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ceph goes down with us
    with ceph_up() as service:
        return asyncio.run(run(service, directory, arguments.minutes, arguments.seed))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.trouble", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long; 60")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what goes wrong next")
    parser.add_argument("--directory", help="for report.md and log; soak/<now>")
    parser.add_argument("--detach", action="store_true", help="go on when the terminal is gone")
    return parser.parse_args()


def detach(directory: Path, arguments: argparse.Namespace) -> int:
    """Start this again in a session of its own, say where its report will be, and end."""
    command = [sys.executable, "-m", "tests.trouble", "--directory", str(directory)]
    command += ["--minutes", str(arguments.minutes), "--seed", str(arguments.seed)]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    print(f"report: {directory}/report.md\nlog:    {directory}/log\nstop:   kill {process.pid}")
    process.returncode = 0  # nobody here waits for it
    return 0


async def run(service: Service, directory: Path, minutes: float, seed: int) -> int:
    with tempfile.TemporaryDirectory() as place:
        credentials = Credentials(service, Path(place))
        await credentials.replace()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del os.environ[name]
        os.environ.update(credentials.environment())
        kept = await soak(service, credentials, directory, minutes=minutes, seed=seed)
    print("all promises kept" if kept else "a promise was broken", f"report={directory}/report.md")
    return 0 if kept else 1


@contextmanager
def ceph_up() -> Iterator[Service]:
    """The Ceph of the environment, or one of our own, on free ports, taken down at the end."""
    if "LOGSTORE_CEPH_DIR" in os.environ:
        yield sourced(os.environ["LOGSTORE_CEPH_DIR"])
        return
    directory = tempfile.mkdtemp(prefix="ceph-")  # short: there are sockets in it
    ports = dict(zip(("CEPH_MON_PORT", "CEPH_S3_PORT"), map(str, free_ports(2)), strict=True))
    try:
        subprocess.run([CEPH, "up", directory], env=os.environ | ports, check=True, stdout=subprocess.DEVNULL)
        yield sourced(directory)
    finally:
        subprocess.run([CEPH, "down", directory], check=True)


def sourced(directory: str) -> Service:
    """The service there, with its keys in the environment and the bucket made."""
    lines = [line.removeprefix("export ").partition("=") for line in Path(directory, "env").read_text().splitlines()]
    os.environ.update({name: value for name, _, value in lines})
    service = Service.from_environment()
    make_bucket(service.endpoint, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    return service


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, just now."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
