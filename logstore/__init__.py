"""An event-sourced, append-only log in a plain file or object store: no database, no server, no locks.

Every process that writes appends immutable segments of events under a prefix that is its alone;
every process that reads gets one order out of them. The store is the only thing they share.

>>> import asyncio
>>> import logstore
>>> from logstore import Event
>>> async def session():
...     async with logstore.open("memory://readme") as log:
...         async with log.writer("web-1") as writer:
...             await writer.append(Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}))
...         return [(event.key, event.data["status"]) async for event in log.read()]
>>> asyncio.run(session())
[('d-1', 1)]

It knows nothing of views; those are in ``projections``, which is built on it. It is no message queue and no
SQL database, and nothing is faster than the store below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from logstore.appended import AppendedStatistics
from logstore.clock import Clock, SystemClock
from logstore.deferred import deferred
from logstore.encryption import Keyring
from logstore.errors import (
    AlreadyExists,
    ClockSkew,
    Conflict,
    Corrupt,
    Fenced,
    InvalidArgument,
    InvalidCursor,
    KeyNeeded,
    LimitExceeded,
    LogStoreError,
    Missing,
    NotFound,
    NotStored,
    StaleStore,
    Trimmed,
    Unavailable,
    Unknown,
    UnsafeStore,
)
from logstore.event import Event, StoredEvent
from logstore.filestore import RetrySettings, StoreStatistics
from logstore.filestore.base import FileStore
from logstore.finding import Finding, Progress
from logstore.follower import FollowerStatistics, FollowSettings
from logstore.frontier import Position
from logstore.histogram import HistogramCounts
from logstore.keys import StageId
from logstore.log import Log, LogSettings, LogStatistics
from logstore.log import open_log as open
from logstore.pins import Pin
from logstore.protection import Protection
from logstore.reader import Reader
from logstore.receipt import Receipt
from logstore.signature import SigningKey, Trust, Trusted
from logstore.spans import Span, Tracer
from logstore.stagelogs import Stage, StageLogs
from logstore.stagepage import Block
from logstore.writer import Writer, WriterSettings, WriterStatistics

if TYPE_CHECKING:
    from logstore.backup import copy_store
    from logstore.collector import Garbage
    from logstore.keeper import Keeper, KeepSettings, Retirement
    from logstore.stageretention import DroppedStageLog
    from logstore.survey import OpenSessionSurvey, Sealing, Survey, WriterSurvey

__all__ = [
    # The log
    "open",
    "Log",
    "LogSettings",
    # Writing
    "Event",
    "Writer",
    "WriterSettings",
    "WriterStatistics",
    "Receipt",
    # Reading
    "Reader",
    "StoredEvent",
    "Position",
    "FollowSettings",
    # Stage logs
    "StageLogs",
    "Stage",
    "StageId",
    "Block",
    # Looking after it
    "Finding",
    "Progress",
    "copy_store",
    "Survey",
    "OpenSessionSurvey",
    "WriterSurvey",
    "Sealing",
    "Keeper",
    "KeepSettings",
    "Retirement",
    "Garbage",
    "DroppedStageLog",
    "Pin",
    # Watching a process
    "LogStatistics",
    "AppendedStatistics",
    "FollowerStatistics",
    "HistogramCounts",
    "Tracer",
    "Span",
    # Protecting it
    "Protection",
    "Keyring",
    "Trust",
    "Trusted",
    "SigningKey",
    # The store below, and time
    "FileStore",
    "RetrySettings",
    "StoreStatistics",
    "Clock",
    "SystemClock",
    # Errors
    "LogStoreError",
    "Unavailable",
    "AlreadyExists",
    "NotFound",
    "UnsafeStore",
    "NotStored",
    "Unknown",
    "ClockSkew",
    "Conflict",
    "Fenced",
    "LimitExceeded",
    "Corrupt",
    "KeyNeeded",
    "Missing",
    "Trimmed",
    "StaleStore",
    "InvalidArgument",
    "InvalidCursor",
]

_LOOKING_AFTER: Final = {
    "copy_store": "backup",
    "Garbage": "collector",
    "Keeper": "keeper",
    "KeepSettings": "keeper",
    "Retirement": "keeper",
    "DroppedStageLog": "stageretention",
    "OpenSessionSurvey": "survey",
    "Sealing": "survey",
    "Survey": "survey",
    "WriterSurvey": "survey",
}

if not TYPE_CHECKING:  # a type checker shall go on knowing what is here, and what is not
    # What looks after a log takes a quarter of the time of all imports.
    __getattr__, __dir__ = deferred(__name__, _LOOKING_AFTER)
