"""What passes between the demo's processes: settings, names of events, and ledgers of what was acknowledged.

An event is known by its *name*: writer, life of that writer (a killed process's successor is its next life), and how
many appends that life had begun before it. A life notes in its *ledger*, a file of fixed-size records that a kill
leaves whole, what it was told of each event the moment it was told. So what the ledger says was acknowledged, was;
what it does not say may have been.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from logstore import Event, LogSettings, RetrySettings, StoredEvent, WriterSettings

__all__ = ["ACKNOWLEDGED", "REFUSED", "Ledger", "Name", "Record", "end_event", "is_end", "name_of", "named", "settings"]

ACKNOWLEDGED: Final = 1
REFUSED: Final = 2
_RECORD: Final = struct.Struct(">BIII")


class Name(NamedTuple):
    """Which event: the writer, its life, and the number of the append in that life."""

    writer: int
    life: int
    number: int


class Record(NamedTuple):
    """A line of the ledger: what was said of append ``number``, and which step of which deployment it was."""

    said: int
    number: int
    deployment: int
    step: int


class Ledger:
    """The record of one life, appended to by that life alone."""

    def __init__(self, directory: Path, writer: int, life: int) -> None:
        self.path = directory / f"ledger-{writer}-{life}"
        self._handle: int | None = None

    def note(self, record: Record) -> None:
        """Write one record; once this returns it survives the process."""
        if self._handle is None:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._handle, _RECORD.pack(*record))

    def records(self) -> Iterator[Record]:
        """What was noted so far."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = len(data) - len(data) % _RECORD.size
        yield from map(Record._make, _RECORD.iter_unpack(data[:whole]))

    def count(self) -> int:
        """How many records there are."""
        return self.path.stat().st_size // _RECORD.size if self.path.exists() else 0


def named(step: tuple[str, str, str, dict[str, object]], name: Name) -> Event:
    """The event to append, its name in its meta."""
    kind, key, type_, data = step
    return Event(kind, key, type_, data, {"demo": list(name)})


def name_of(event: StoredEvent) -> Name | None:
    """The name of an event of the demo."""
    match event.meta:
        case {"demo": (int(writer), int(life), int(number))}:
            return Name(writer, life, number)
        case _:
            return None


def end_event() -> Event:
    """The event behind which nothing comes."""
    return Event("Demo", "demo", "ended")


def is_end(event: StoredEvent) -> bool:
    """Whether it is that event."""
    return event.kind == "Demo" and event.type == "ended"


def settings(deadline_ms: int, idle_ms: int) -> LogSettings:
    """Short times, so that the dead are soon noticed: sessions may be sealed after the idle time and four deadlines."""
    return LogSettings(
        writer=WriterSettings(idle_ms=idle_ms, idle_ms_max=4 * idle_ms, tick_ms=2_000),
        retry=RetrySettings(attempt_timeout_ms=deadline_ms, deadline_ms=deadline_ms),
    )
