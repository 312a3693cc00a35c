"""Worlds that have everything at once: each process does several jobs on one log, each in its own way.

Appends, readers and views of things, documents and stage logs of servers, leaders and standbys, those who end chapters,
keepers where history is lost: what each kind of world has by itself, in one. Each part's checkers judge their part.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from logstore.testing.simulation import CALM, Request, StoreFace, Weather
from projections import Projection
from tests.simulation import documents, leaders
from tests.simulation.actors import Actor, Closer, Consumer, Job, Reading, Viewing, Writing
from tests.simulation.coverage import Site
from tests.simulation.documents import Auditing, DocumentWorld
from tests.simulation.leaders import LeaderWorld
from tests.simulation.world import SEAL_S, World

WHIM: Final = 0.3  # how likely something befalls the first request of a site
WHIM_LASTS: Final = 5  # and half as likely after so many
WHIMS: Final = ("throttled", "unsent", "lost", "late", "silent", "slow", "crash", "pause")

__all__ = ["EverythingWorld"]


class EverythingWorld(DocumentWorld, LeaderWorld):
    """Things, documents and leaders, on one log."""

    projections: Sequence[Callable[[], Projection]] = (
        *World.projections,
        *DocumentWorld.projections,
        *LeaderWorld.projections,
    )
    covered = True  # the seldomer a place has sent, the likelier something befalls it
    mark = "L"
    most = 2

    def populate(self, rng: random.Random) -> list[Actor]:
        """Who lives in it: fewer of each than in worlds of their own."""
        self._whims = self.dice("whims")
        self._sent: Counter[Site] = Counter()
        self._turns: dict[Site, int] = {}  # the number of each site's next whim: all come in turn
        slower, serving, leading = self.slower, self.servers(rng), self.leaders(rng, "leader")
        jobs: dict[str, list[Job]] = {
            "reader": [
                Reading(Consumer("reader", settled=False), reads=True),
                Viewing("follows", follow=True, pause_s=0.5 * slower),
                Auditing(self.looks, documents.COLLECTIONS, pause_s=1.0 * slower),
            ],
            "settled": [
                Reading(Consumer("settled", settled=True)),
                Auditing(self.audits, leaders.COLLECTIONS, pause_s=1.0 * slower),
            ],
            "barrier": [
                Viewing("stands", follow=False, pause_s=1.0 * slower),
                Closer(pause_s=rng.choice([2.0, 8.0, 1e6])),
            ],
        }
        viewing = Viewing("own-", follow=rng.random() < 0.7, pause_s=0.5 * slower)
        jobs["writer"] = [Writing("web", pause_s=rng.choice([0.2, 0.5]) * slower, viewing=viewing), viewing]
        return self.cast({**jobs, **serving, **leading}, rng)

    def on_send(self, face: StoreFace, request: Request) -> Weather | None:
        """Something may befall a request, the likelier the seldomer others were sent where it is: at every await."""
        site = self.coverage.note(request, face.process)
        self._sent[site] += 1
        actor = next((actor for actor in self.actors if actor.face is face), None)
        if actor is None or self.calm_s < math.inf or self._whims.random() > WHIM / (1 + self._sent[site] / WHIM_LASTS):
            return None
        number = self._turns[site] = self._turns.get(site, self._whims.randrange(len(WHIMS))) + 1
        match fault := WHIMS[number % len(WHIMS)]:
            case "crash" | "pause":
                self._later(0.0, self.stage.weather.latency_ms / 1_000, lambda: self._befalls(actor, face, fault))
                return None
        strike: dict[str, Any] = {fault: 1.0}
        return replace(CALM, latency_ms=face.weather.latency_ms, late_ms=self.stage.weather.late_ms, **strike)

    def _befalls(self, actor: Actor, face: StoreFace, fault: str) -> None:
        """The process that sent is killed or stopped, while its request is under way most likely."""
        process = face.process
        if (
            process is None
            or actor.face is not face
            or not actor.running
            or actor.stopping.is_set()
            or self.calm_s < math.inf
        ):
            return
        if fault == "crash":
            actor.crash()
            self._later(0.0, SEAL_S, actor.revive)
        else:
            self.history.note(process.name, "pauses as it sends")
            process.pause()
            self._later(0.0, SEAL_S / 3, process.resume)

    def _later(self, least_s: float, most_s: float, do: Callable[[], None]) -> None:
        self.loop.call_later(self._whims.uniform(least_s, most_s), do, context=self.loop.nowhere)

    async def damage(self) -> None:
        """Its objects are lost and flipped as those of worlds of things are."""
        await World.damage(self)

    async def look_back(self) -> None:
        """All that is asked of each part."""
        await World.look_back(self)
        await DocumentWorld.look_back(self)
        await LeaderWorld.look_back(self)

    def judge(self) -> list[str]:
        """What the checkers of each part find."""
        DocumentWorld.judge(self)
        LeaderWorld.judge(self)
        return World.judge(self)
