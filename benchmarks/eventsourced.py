"""The peer ``eventsourcing`` on SQLite: the same small events in its own tables, by its own mapper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from eventsourcing.application import Application
from eventsourcing.domain import DomainEvent
from eventsourcing.utils import get_topic

from logstore import Event

BATCH = 1_000


class StatusChanged(DomainEvent):
    status: int
    commit: str
    updated_at: int
    project_id: str = ""


class Eventsourced:
    """An application whose recorder holds the events."""

    def __init__(self, path: Path) -> None:
        self._application: Application[UUID] = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(path),
            }
        )
        get_topic(StatusChanged)
        self._versions: dict[UUID, int] = {}

    def made(self, events: Iterable[Event]) -> list[StatusChanged]:
        """The same as its own events, to be stored in this order; each once."""
        versions, now, made = self._versions, StatusChanged.create_timestamp(), []
        for event in events:
            originator = uuid5(NAMESPACE_URL, event.key)
            versions[originator] = version = versions.get(originator, 0) + 1
            assert event.data is not None
            made.append(
                StatusChanged(originator_id=originator, originator_version=version, timestamp=now, **event.data)
            )
        return made

    def store(self, events: Sequence[StatusChanged]) -> None:
        encode, insert = self._application.mapper.to_stored_event, self._application.recorder.insert_events
        for start in range(0, len(events), BATCH):
            insert([encode(event) for event in events[start : start + BATCH]])

    def select_and_decode(self) -> int:
        """Go through its notification log, and make each notification the event that was stored."""
        recorder, decode = self._application.recorder, self._application.mapper.to_domain_event
        count, start = 0, 1
        while notifications := recorder.select_notifications(start, BATCH):
            for notification in notifications:
                decode(notification)
            start = notifications[-1].id + 1
            count += len(notifications)
        return count

    def close(self) -> None:
        self._application.close()
