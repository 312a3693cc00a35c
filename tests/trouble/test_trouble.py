"""Real trouble on a real S3 service, and a log at work on it: nothing lost, nothing doubled, nothing hangs."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trouble.service import Service
from tests.trouble.stage import at_work
from tests.trouble.troubles import (
    Credentials,
    clock_off,
    gateway_killed,
    key_replaced,
    object_daemon_stopped,
    quota_used_up,
    rough_wire,
    store_full,
)
from tests.trouble.wire import opened_wire

pytestmark = pytest.mark.ceph
AGAIN = 50  # so many appends after each trouble: the log is at work again


@pytest.fixture
def service(ceph_endpoint: str) -> Service:
    return Service.from_environment()


async def test_the_gateway_is_killed_in_mid_creation(service: Service) -> None:
    """Killed under load, and started again at once, or when all have given up: everybody is told the truth."""
    async with at_work(service) as stage:
        for lasts in (False, False, True):
            await gateway_killed(stage, lasts)
            await stage.work.acknowledged(AGAIN)
    assert stage.said("append")


async def test_the_object_daemon_stands_still(service: Service) -> None:
    """Requests hang and are carried out late, when their callers may have been answered: nobody was told a lie."""
    async with at_work(service) as stage:
        for lasts in (False, True):
            await object_daemon_stopped(stage, lasts)
            await stage.work.acknowledged(AGAIN)
    assert stage.said("append")


async def test_a_full_store(service: Service) -> None:
    """Writes wait for room longer than anybody waits for them; when there is room again, the log goes on."""
    async with at_work(service) as stage:
        await store_full(stage, True)
        await stage.work.acknowledged(AGAIN)
    assert stage.said("append")


async def test_a_used_up_quota(service: Service) -> None:
    """Writes are refused, with words that say what is wanting; when there is room again, the log goes on."""
    async with at_work(service) as stage:
        await quota_used_up(stage, True)
        await stage.work.acknowledged(AGAIN)
    assert any("raise the quota" in message for message in stage.said("append"))


async def test_a_rough_wire(service: Service) -> None:
    """Connections break, requests and answers are cut short, delayed, or never come."""
    async with opened_wire(service.endpoint, seed=0) as wire, at_work(service, wire=wire) as stage:
        for lasts in (False, True):
            await rough_wire(stage, lasts)
            await stage.work.acknowledged(AGAIN)
    print(wire.fates)
    assert all(wire.fates[fate] for fate in ("cut", "truncate", "silence", "delay"))


async def test_credentials_are_replaced_and_expire(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New ones are found without a restart; without valid ones everything is refused, in words, until there are."""
    credentials = Credentials(service, tmp_path)
    await credentials.replace()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name, value in credentials.environment().items():
        monkeypatch.setenv(name, value)
    async with at_work(service, credentials=credentials) as stage:
        for lasts in (False, True):
            await key_replaced(stage, lasts)
            await stage.work.acknowledged(AGAIN)
    assert any("expired" in message or "access denied" in message for message in stage.said("append"))


async def test_a_clock_that_is_off(service: Service) -> None:
    """Three seconds are no trouble; twenty minutes are called by name, and stamp nothing; repaired, it goes on."""
    async with at_work(service) as stage:
        for lasts in (False, True):
            await clock_off(stage, lasts)
            await stage.work.acknowledged(AGAIN)
    said = stage.work.ledger.messages.values()  # an append may only hear that its slot was sealed meanwhile
    assert any("clock is off" in message for messages in said for message in messages)


def test_a_soak_goes_on_alone_and_leaves_a_report(service: Service, tmp_path: Path) -> None:
    """Detached, for one trouble: it says where its report will be, and in the end that says what was kept."""
    directory = tmp_path / "soak"
    command = [sys.executable, "-m", "tests.trouble", "--detach", "--minutes", "0", "--seed", "3"]
    started = subprocess.run([*command, "--directory", str(directory)], check=True, capture_output=True, text=True)
    assert f"report: {directory}/report.md" in started.stdout
    pid = int(started.stdout.rpartition("kill ")[2])
    wait_for_end(pid, within_s=300)
    report = (directory / "report.md").read_text()
    assert report.startswith("# Soak: all promises kept"), report + (directory / "log").read_text()
    assert "| events acknowledged |" in report
    assert "all promises kept" in (directory / "log").read_text()


def wait_for_end(pid: int, within_s: float) -> None:
    """Return when a process that is not our child has ended."""
    handle = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([handle], [], [], within_s)
        assert ready, f"still running after {within_s} s"
    finally:
        os.close(handle)
