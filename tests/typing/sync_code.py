"""User code that mypy --strict must accept: the sync face of the log and of its read side. Checked, not run."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import logstore.sync as logstore
from logstore.sync import Block, Event, Log, Position, Reader, Receipt, StageLogs, StoredEvent, Writer
from projections.sync import (
    Change,
    Collection,
    DocumentChange,
    Documents,
    DocumentStore,
    Index,
    Page,
    PastView,
    Projection,
    View,
    WriteReceipt,
    diff,
    keep,
)


class Deployments(Projection):
    name, kinds, fold = "deployments", frozenset({"Deployment"}), "patch"
    indexes = (Index("status"),)


@dataclass
class Deployment:
    status: int = 0


def append() -> None:
    with logstore.open("file:///srv/cp") as log:
        assert_type(log, Log)
        with log.writer("web-1") as writer:
            assert_type(writer, Writer)
            receipt = writer.append(Event(kind="Deployment", key="d-1", type="planned", data={"status": 1}))
            assert_type(receipt, Receipt)
            assert_type(writer.append_many([Event("Deployment", "d-1", "stage")]), Receipt)
            assert_type(writer.name, str)
        assert_type(log.settled(receipt, timeout=5), None)
        assert_type(log.watermark, int)


def read(log: Log, position: str) -> str:
    reader = log.read(kinds={"Deployment"}, on_damage="skip")
    assert_type(reader, Reader)
    for event in reader:
        assert_type(event, StoredEvent)
        assert_type(event.kind, str)
    assert_type(iter(reader), Generator[StoredEvent, None, None])
    assert_type(reader.damage, list[logstore.LogStoreError])
    for event in log.follow(after=Position.parse(position), settled=True):
        assert_type(event.data, Mapping[str, Any] | None)
    assert_type(reader.position, Position | None)
    return str(reader.position)


def stage_logs(log: Log) -> list[Block]:
    stage = StageLogs(log).stage("deployment-1", "stage-2", retry=0)
    stage.append([Block(0, "pulling")])
    for block in stage.follow(offset=1):
        assert_type(block.text, str)
    blocks, completed = stage.fetch()
    assert_type(completed, bool)
    return blocks


def views(log: Log, receipt: Receipt) -> Iterator[Change]:
    with View.open(log, Deployments(), follow=True) as view:
        assert_type(view, View)
        view.wait_for(receipt, timeout=5)
        assert_type(view.get("d-1"), Mapping[str, Any] | None)
        assert_type(view.find([("status", "==", 1)], limit=30), Page)
        assert_type(len(view) + view.count(), int)
        yield from view.changes()
    with View.open(log, Deployments(), at=7) as past:
        assert_type(past, PastView)
    assert_type(diff(log, Deployments(), 1, 2), list[Change])
    for done in keep(log, [Deployments()]):
        assert_type(done.sealed, int)


def documents(log: Log) -> None:
    with DocumentStore.open(log, writer="web-1", collections=[Collection("Deployment")]) as db:
        deployments = db.collection("Deployment", Deployment)
        assert_type(deployments, Documents[Deployment])
        assert_type(deployments.create("d-1", Deployment()), WriteReceipt)
        assert_type(deployments.get("d-1"), Deployment)
        deployments.update("d-1", lambda deployment: Deployment(deployment.status + 1)).settled(timeout=5)
        changes = deployments.watch([("status", "==", 1)])
        for change in changes:
            assert_type(change, DocumentChange)
        changes.close()
        assert_type(db.collection("Deployment").view, View)
