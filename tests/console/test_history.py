"""A document's history, told again, says what the view says."""

from __future__ import annotations

import random

import pytest

import logstore
from logstore import Event
from projections.console import Source, source
from projections.console.history import Teller
from projections.document import Write
from tests.console.conftest import DEPLOYMENTS, HOSTILE, PIPEDS, Scene


@pytest.mark.parametrize("seed", range(3))
async def test_a_telling_agrees_with_the_fold(scene: Scene, seed: int) -> None:
    """Whatever was written: which events changed nothing, why, and what the document is in the end."""
    rng, deployments = random.Random(seed), scene.db.collection("Deployment")
    for _ in range(30):
        match rng.choice(["create", "update", "delete"]):
            case "create" if "d-1" not in deployments:
                await deployments.create("d-1", {"status": rng.randrange(3)})
            case "update" if "d-1" in deployments:
                status = rng.randrange(deployments.get("d-1")["status"], 4)
                await deployments.update("d-1", {"status": status, "n": None})
            case "delete" if "d-1" in deployments and rng.random() < 0.3:
                await deployments.delete("d-1")
            case _:
                await scene.writer.append(meddling("d-1"))
    teller = Teller(DEPLOYMENTS)
    told = list(map(teller.tell, (await scene.source.history("Deployment", "d-1")).events))
    view = scene.db.collection("Deployment").view
    assert told
    assert [telling.verdict for telling in told] == [
        view._state.verdict((each.event.chapter, each.event.session, each.event.seq)) for each in told
    ]
    assert {telling.verdict.reason for telling in told if telling.verdict} <= {"not written by a document store"}


async def test_a_guard_that_stood_against_a_write_is_told(scene: Scene) -> None:
    """With its own words, and the document before it."""
    deployments = scene.db.collection("Deployment")
    await deployments.create("d-2", {"status": 1})
    event = meddling("d-2", Write("update").meta())
    await scene.writer.append(event)
    teller = Teller(DEPLOYMENTS)
    *_, last = map(teller.tell, (await scene.source.history("Deployment", "d-2")).events)
    assert last.verdict is not None
    assert (last.verdict.kind, last.verdict.reason) == ("rejected", "a status <only> grows")
    assert dict(last.before or {}) == {"status": 1}


async def test_a_collection_that_is_unique_is_told_with_its_tombstones(scene: Scene) -> None:
    """Created, deleted, created again: each was applied."""
    pipeds = scene.db.collection("Piped <b>")
    await pipeds.delete("p-1")
    teller = Teller(PIPEDS)
    told = list(map(teller.tell, (await scene.source.history("Piped <b>", "p-1")).events))
    assert [(each.event.type, each.verdict) for each in told] == [("created", None), ("deleted", None)]


def meddling(key: str, meta: dict[str, object] | None = None) -> Event:
    return Event("Deployment", key, "meddled", {"status": 0}, meta)


async def test_a_history_that_is_asked_again_costs_what_is_new(scene: Scene) -> None:
    """It goes on where it was, in order, and says what is settled meanwhile; it says what a new reading would."""
    deployments = scene.db.collection("Deployment")
    async with logstore.open(scene.store, read_only=True) as log, Source(log) as asked:  # which follows nothing
        await deployments.create("d-1", {"status": 0})
        first = len((await asked.history("Deployment", "d-1")).events)
        before = log.requests().requests
        for status in (1, 2):
            await deployments.update("d-1", {"status": status})
        again = await asked.history("Deployment", "d-1")
        assert log.requests().requests - before < 20
        assert (first, [event.type for event in again.events]) == (1, ["created", "updated", "updated"])
        assert not any(event.settled for event in again.events)
        assert scene.db._writer is not None
        await scene.db._writer.aclose()
        await scene.writer.aclose()
        await deployments.view.settle()
        again = await asked.history("Deployment", "d-1")
        asked._histories.clear()
        fresh = await asked.history("Deployment", "d-1")
    assert [(event.order, event.settled) for event in again.events] == [(event.order, True) for event in fresh.events]


async def test_histories_that_are_kept_are_bounded(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number and by their bytes; those that were asked for longest ago go first."""
    monkeypatch.setattr(source, "HISTORIES_MAX", 2)
    for name in HOSTILE[:3]:
        await scene.source.history("Deployment", name)
    assert [key for _, key in scene.source._histories] == list(HOSTILE[1:3])
    monkeypatch.setattr(source, "HISTORIES_BYTES_MAX", 1)
    assert (await scene.source.history("Deployment", HOSTILE[3])).events
    assert not scene.source._histories
