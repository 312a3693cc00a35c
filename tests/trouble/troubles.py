"""What can go wrong with a real S3 service, each as something that begins, is felt, and is over.

A *stage* is what trouble happens to. Every trouble is ``async def (stage, lasts)``: with ``lasts`` it goes on
until those at work have met errors, which is longer than their patience; else it is over at once, and retries may hide
it. When it returns, the service is whole again.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from botocore import compat

from logstore import SystemClock
from tests.trouble.service import Service
from tests.trouble.wire import FAIR, ROUGH, STORM, Wire
from tests.trouble.workload import Workload

__all__ = ["TROUBLES", "Credentials", "Stage", "SteppedClock", "Trouble", "signed_off"]

BLINK_S: Final = 1.0  # shorter than an attempt
FELT: Final = 6  # so many errors: more than one caller, more than one party
ASKED_AFTER_S: Final = 600 + 3  # botocore asks anew ten minutes before they expire
MINUTES_OFF: Final = 20  # S3 takes requests that are signed within fifteen
FULL: Final = "hashpspool,full"  # the flags of a pool that takes no writes
ROOM: Final = {"nearfull": "0.85", "backfillfull": "0.9", "full": "0.95"}  # Ceph's defaults
NO_ROOM: Final = {"nearfull": "0.000001", "backfillfull": "0.000002", "full": "0.000003"}


class SteppedClock(SystemClock):
    """The machine's clocks, the wall clock off by ``off_ms``."""

    def __init__(self, off_ms: int = 0) -> None:
        self.off_ms = off_ms

    def wall_ms(self) -> int:
        return super().wall_ms() + self.off_ms


class Credentials:
    """What botocore finds, by a process that tells it: so they can be replaced, and expire.

    botocore asks anew for what expires in ten minutes or less. What is told here expires a little later than that, so
    whoever works asks every few seconds.
    """

    def __init__(self, service: Service, directory: Path, user: str = "logstore") -> None:
        self._service = service
        self._user = user
        self._teller = directory / "tell"
        self._config = directory / "config"
        self._config.write_text(f"[default]\ncredential_process = sh {self._teller}\n")
        self._key: str | None = None
        self._made = 0

    def environment(self) -> dict[str, str]:
        """The variables that lead botocore here; AWS_ACCESS_KEY_ID must not be set besides."""
        return {"AWS_CONFIG_FILE": str(self._config), "AWS_EC2_METADATA_DISABLED": "true"}

    async def replace(self) -> None:
        """A new key; the one before it is worth nothing any more."""
        before, self._made = self._key, self._made + 1
        self._key, secret = f"rotated-{self._user}-{self._made}", f"secret-{random.SystemRandom().randbytes(16).hex()}"
        of = (f"--uid={self._user}", "--key-type=s3")
        await self._service.admin("key", "create", *of, f"--access-key={self._key}", f"--secret-key={secret}")
        self._tell(self._key, secret, f"+{ASKED_AFTER_S} seconds")
        if before is not None:
            await self._service.admin("key", "rm", *of, f"--access-key={before}")

    async def let_expire(self) -> None:
        """Whoever asks now is told what has expired, and the key is worth nothing any more."""
        assert self._key is not None
        self._tell(self._key, "expired", "-1 second")
        await self._service.admin("key", "rm", f"--uid={self._user}", "--key-type=s3", f"--access-key={self._key}")
        self._key = None

    def _tell(self, key: str, secret: str, expires: str) -> None:
        told = json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret, "Expiration": "EXPIRES"})
        fresh = self._teller.with_suffix(".new")
        fresh.write_text(f"echo '{told}' | sed s/EXPIRES/$(date -u -d '{expires}' +%Y-%m-%dT%H:%M:%SZ)/\n")
        fresh.rename(self._teller)


@contextmanager
def signed_off(minutes: float) -> Iterator[None]:
    """This process signs its requests by a clock that is off."""

    def off(remove_tzinfo: bool = True) -> Any:
        return compat.get_current_datetime(remove_tzinfo) + datetime.timedelta(minutes=minutes)

    with patch("botocore.auth.get_current_datetime", off):
        yield


@dataclass(slots=True)
class Stage:
    """``clocks``: of the parties that have one of their own."""

    service: Service
    work: Workload
    rng: random.Random
    wire: Wire | None = None
    credentials: Credentials | None = None
    clocks: dict[str, SteppedClock] = field(default_factory=dict)

    async def felt(self, lasts: bool) -> None:
        """Go on until those at work have met errors, or for a blink."""
        await (self.work.failed(FELT) if lasts else asyncio.sleep(self.rng.uniform(0, BLINK_S)))

    def said(self, doing: str) -> list[str]:
        """What errors have said to those who did that."""
        return self.work.ledger.messages.get(doing, [])


Trouble = Callable[[Stage, bool], Awaitable[None]]


async def gateway_killed(stage: Stage, lasts: bool) -> None:
    """Kill -9 of the gateway in the middle of its work; started again at once, or when all have given up."""
    await stage.service.signal("KILL", "radosgw")
    if lasts:
        await stage.felt(lasts)
    await stage.service.start_gateway()


async def object_daemon_stopped(stage: Stage, lasts: bool) -> None:
    """SIGSTOP of the object daemon: requests hang, and are carried out once it goes on, whoever waits by then."""
    await stage.service.signal("STOP", "ceph-osd")
    try:
        await stage.felt(lasts)
    finally:
        await stage.service.signal("CONT", "ceph-osd")


async def store_full(stage: Stage, lasts: bool) -> None:
    """No room: Ceph holds every write back until there is. Reading goes on."""
    async with _full(stage.service):
        await stage.felt(lasts)


@asynccontextmanager
async def _full(service: Service) -> AsyncIterator[None]:
    try:
        await _set_ratios(service, NO_ROOM)
        await _until_flag(service, there=True)
        yield
    finally:
        await _set_ratios(service, ROOM)
        await _until_flag(service, there=False)


async def _set_ratios(service: Service, ratios: dict[str, str]) -> None:
    """At how much of what there is the disk counts as full; Ceph heeds them only while the three are in this order."""
    for name, ratio in ratios.items():
        await service.run("ceph", "osd", f"set-{name}-ratio", ratio)


async def _until_flag(service: Service, *, there: bool) -> None:
    """The daemon looks at its disk every few seconds, and tells the monitor, which tells everybody."""
    while (FULL in await service.run("ceph", "osd", "dump")) != there:  # noqa: ASYNC110 - another process knows
        await asyncio.sleep(BLINK_S)


async def quota_used_up(stage: Stage, lasts: bool) -> None:
    """No room for this user: every write is refused at once."""
    of = ("--quota-scope=user", "--uid=logstore")
    await stage.service.admin("quota", "set", *of, "--max-objects=1")
    await stage.service.admin("quota", "enable", *of)
    try:
        await stage.felt(lasts)
    finally:
        await stage.service.admin("quota", "disable", *of)


async def rough_wire(stage: Stage, lasts: bool) -> None:
    """Bytes are cut off, cut short, delayed and swallowed, both ways; in a storm hardly a request comes through."""
    assert stage.wire is not None
    stage.wire.weather = STORM if lasts else ROUGH
    try:
        await (stage.felt(lasts) if lasts else stage.work.acknowledged(100))
        stage.wire.break_all()
    finally:
        stage.wire.weather = FAIR
        stage.wire.break_all()  # those that fell silent


async def key_replaced(stage: Stage, lasts: bool) -> None:
    """A new key in time; or the old one expires before there is a new one."""
    assert stage.credentials is not None
    if lasts:
        await stage.credentials.let_expire()
        await stage.felt(lasts)
    await stage.credentials.replace()


async def clock_off(stage: Stage, lasts: bool) -> None:
    """A machine's clock steps a little, and its log goes on; or so far that S3 takes nothing it signs."""
    ahead = stage.rng.choice((-1, 1))
    for clock in stage.clocks.values():
        clock.off_ms = ahead * (MINUTES_OFF * 60_000 if lasts else 3_000)
    try:
        if lasts:
            with signed_off(ahead * MINUTES_OFF):
                await stage.felt(lasts)
        else:
            await stage.work.acknowledged(100)
    finally:
        for clock in stage.clocks.values():
            clock.off_ms = 0


TROUBLES: Final[tuple[Trouble, ...]] = (
    gateway_killed,
    object_daemon_stopped,
    store_full,
    quota_used_up,
    rough_wire,
    key_replaced,
    clock_off,
)
