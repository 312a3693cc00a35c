"""``logstore console``: a log in a browser, from the command line."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Tool

MODULE = """
from enum import IntEnum
from projections import Collection
DEPLOYMENTS = Collection("Deployment")
ALL = [DEPLOYMENTS, Collection("Piped")]
class Status(IntEnum):
    DONE = 1
LABELS = {"Deployment": {"status": Status}}
NONSENSE = [1]
"""


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the working directory."""
    (tmp_path / "told.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "told", raising=False)


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize(
    "more", [(), ("--collections", "told:DEPLOYMENTS"), ("--collections", "told:ALL", "--labels", "told:LABELS")]
)
def test_once_fetches_the_pages_of_the_menu(tool: Tool, place: str, more: tuple[str, ...]) -> None:
    """And says how that went."""
    result = tool("console", place, "--once", "--port", "0", *more)
    assert result.exit_code == 0, result.output
    told = [line.split()[:2] for line in result.stdout.splitlines()]
    assert told == [["200", path] for path in ("/", "/collections", "/events", "/stages")]
    line = tool("console", place, "--once", "--port", "0", "--json").stdout.splitlines()[0]
    assert json.loads(line)["status"] == 200


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("/nowhere/at/all",), "NotFound: no log in this store"),
        (("gopher://x",), "InvalidArgument"),
        (("PLACE", "--host", "no such host"), "CannotListen: cannot listen on host=no such host"),
        (("PLACE", "--port", "70000"), "70000 is not in the range"),
        (("PLACE", "--collections", "told"), "needs package.module:NAME"),
        (("PLACE", "--collections", "nobody:X"), "cannot be imported"),
        (("PLACE", "--collections", "told:NONSENSE"), "no Collection, and no list or tuple of such"),
        (("PLACE", "--collections", "told:NONSENSE", "--collections", "told:ALL"), "no Collection"),  # each counts
        (("PLACE", "--labels", "told:NONSENSE"), "not {kind: {field: an enum, or a map}}"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(tool: Tool, place: str, arguments: tuple[str, ...], told: str) -> None:
    """Status 2, and what to do."""
    result = tool("console", *(place if each == "PLACE" else each for each in arguments), "--once")
    assert result.exit_code == 2
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_told_in_one_line(tool: Tool, place: str) -> None:
    """With the options to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = tool("console", place, "--port", str(port))
    assert result.exit_code == 2
    told = f"Error: CannotListen: cannot listen on host=127.0.0.1 port={port} cause=Address already in use"
    assert result.stderr == f"{told}; choose with --host, --port\n"


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_being_interrupted_is_how_it_ends(place: str, ending: signal.Signals) -> None:
    """With status 0, nothing on stderr, and at once, also while somebody listens."""
    command = [sys.executable, "-m", "projections.cli", "console", place, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = re.match(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert told is not None
        with urllib.request.urlopen(f"{told.group()}live?of=log", timeout=10) as stream:
            assert stream.readline() == b": here\n"
            process.send_signal(ending)
            began_s = time.monotonic()
            _, complaints = process.communicate(timeout=20)
        assert (process.returncode, complaints) == (0, "")
        assert time.monotonic() - began_s < 10
    finally:
        process.kill()
        process.wait()
