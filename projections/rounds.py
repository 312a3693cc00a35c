"""Looks after a log, round after round: what a daemon does beside the processes that write and read.

docs/rfcs/0006-retention.md §6. Views that follow let silent sessions be sealed and owed ticks be posted; a keeper ends
chapters, retires and collects. Any number of processes may keep one log.

Invariants:
- A round that fails in part says so and goes on; the next one tries again.
- A snapshot is written when rows have changed and the newest is old, or when retention waits for one.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final, TypeVar

from logstore import DroppedStageLog, Garbage, Keeper, KeepSettings, Log, LogStoreError, Retirement
from logstore.errors import Corrupt, Missing
from logstore.keys import ManifestKey
from logstore.manifest import Manifest
from logstore.spans import span_of
from projections.projection import Projection
from projections.view import View

__all__ = ["KeepRound", "keep"]

SNAPSHOT_MS: Final = 3_600_000
PAUSE_MS: Final = 60_000
JITTER: Final = 0.1  # of the time between snapshots: whoever is first spares the others theirs
SNAPSHOTS_PER_CHAPTER: Final = 2  # a chapter is retired when so many cover it

T = TypeVar("T")


@dataclass(slots=True)
class KeepRound:
    """What one round did; ``problems``: what went wrong, each to be tried again.

    ``newest_snapshots``: of each projection that is snapshotted, by name and version, when the store got the newest,
    in Unix milliseconds. ``seconds``: how long it took.
    """

    sealed: int = 0
    closed_chapter: bool = False
    snapshots: list[Manifest] = field(default_factory=list)
    retirements: list[Retirement] = field(default_factory=list)
    stage_logs: list[DroppedStageLog] = field(default_factory=list)
    garbage: list[Garbage] = field(default_factory=list)
    problems: list[LogStoreError] = field(default_factory=list)
    newest_snapshots: dict[tuple[str, int], int] = field(default_factory=dict)
    seconds: float = 0.0


async def keep(
    log: Log,
    projections: Sequence[Projection] = (),
    *,
    settings: KeepSettings | None = None,
    snapshot_ms: int = SNAPSHOT_MS,
    pause_ms: int = PAUSE_MS,
    rng: random.Random | None = None,
) -> AsyncGenerator[KeepRound, None]:
    """Keep ``log`` until the caller stops iterating; yield what each round did.

    Snapshots of ``projections`` are written about every ``snapshot_ms`` while rows change; of others somebody else must
    write them, or nothing is retired. Between rounds it waits about ``pause_ms``. ``rng`` is for tests.

    Cost of a round with nothing to do: see RFC 0006; a LIST per projection; without projections as ``log.survey``.
    Raises InvalidArgument on a log opened read-only, and Unavailable at once where it may not write.

    >>> async def keep_for_ever(log, projections):
    ...     async for done in keep(log, projections):
    ...         print(len(done.garbage), "objects collected", *done.problems)
    """
    rng = rng or random.Random(secrets.randbits(128))
    keeper = log.keeper(settings)
    await keeper.try_out()
    async with AsyncExitStack() as stack:
        watches = [_Watch(log, projection, snapshot_ms, rng) for projection in projections]
        for watch in watches:
            stack.push_async_callback(watch.close)
        while True:
            with span_of(log.tracer, "projections.keep", store=log.identity.id.hex()) as span:
                done = await _round(log, keeper, watches)
                span.note(
                    sealed=done.sealed,
                    snapshots=len(done.snapshots),
                    retired=sum(retirement.retired for retirement in done.retirements),
                    collected=len(done.garbage),
                    problems=len(done.problems),
                )
            yield done
            await asyncio.sleep(pause_ms * rng.uniform(1 - JITTER, 1 + JITTER) / 1_000)


async def _round(log: Log, keeper: Keeper, watches: Sequence[_Watch]) -> KeepRound:
    done = KeepRound()
    began_s = asyncio.get_running_loop().time()

    async def attempt(work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except LogStoreError as error:
            done.problems.append(error)
            return otherwise

    if not watches:
        done.sealed = await attempt(_end_silent(log), 0)
    done.closed_chapter = await attempt(keeper.close_chapter(), False)
    for watch in watches:
        if (manifest := await attempt(watch.snapshot_if_due(), None)) is not None:
            done.snapshots.append(manifest)
        if watch.newest_ms is not None:
            done.newest_snapshots[watch.projection.name, watch.projection.version] = watch.newest_ms
    done.retirements = await attempt(keeper.retire(), [])
    await attempt(_drop_stage_logs(keeper, done), None)
    await attempt(_collect(keeper, done), None)
    done.seconds = asyncio.get_running_loop().time() - began_s
    return done


async def _end_silent(log: Log) -> int:
    """What views that follow do by the way: seal silent sessions, post a tick above events that have none."""
    sealed = sum(sealing.sealed for sealing in await log.seal())
    survey = await log.survey()
    if survey.newest_stamp > survey.newest_entry_stamp:
        await log.tick(survey.newest_stamp)
    return sealed


async def _drop_stage_logs(keeper: Keeper, done: KeepRound) -> None:
    async for dropped in keeper.drop_stage_logs():
        done.stage_logs.append(dropped)


async def _collect(keeper: Keeper, done: KeepRound) -> None:
    async for garbage in keeper.collect():
        done.garbage.append(garbage)
    await keeper.sweep()


class _Watch:
    """One projection's view, opened again when it has failed, and when its next snapshot is due."""

    def __init__(self, log: Log, projection: Projection, snapshot_ms: int, rng: random.Random) -> None:
        self.projection = projection
        self.newest_ms: int | None = None  # when the store got its newest snapshot, as far as this has seen
        self._log = log
        self._after_ms = snapshot_ms * rng.uniform(1, 1 + JITTER)
        self._view: View | None = None
        self._stack = AsyncExitStack()

    async def close(self) -> None:
        """Let the view go."""
        self._view = None
        await self._stack.aclose()

    async def snapshot_if_due(self) -> Manifest | None:
        """Write a snapshot where one is due. What the view raises ends it: the next call opens another."""
        try:
            if self._view is None:
                view = View.open(self._log, self.projection, follow=True, snapshots=True)
                self._view = await self._stack.enter_async_context(view)
            await self._view.refresh()
            if not await self._is_due(self._view):
                return None
            manifest = await self._view.snapshot()
            self.newest_ms = self._log.now_ms()
            return manifest
        except LogStoreError:
            await self.close()
            raise

    async def _is_due(self, view: View) -> bool:
        records = await self._log.snapshots.records(self.projection.registration().key)
        if records.manifests:
            self.newest_ms = records.created_ms[records.manifests[-1]]
        if len(records.manifests) < SNAPSHOTS_PER_CHAPTER:
            return True
        newest, position = records.manifests[-1], view.position
        age_ms = self._log.now_ms() - (records.created_ms[newest] or 0)
        last_chapter = 0 if position is None or position.last is None else position.last[0]
        retention_waits = records.manifests[-SNAPSHOTS_PER_CHAPTER].chapter < last_chapter
        return age_ms >= self._after_ms and (retention_waits or await self._has_changed(view, newest))

    async def _has_changed(self, view: View, newest: ManifestKey) -> bool:
        """Whether its rows are others than in the newest snapshot; where that is not its own, by their digests."""
        if (changed := view._changed_since(newest)) is not None:
            return changed > 0
        try:
            manifest = await self._log.snapshots.manifest(newest)
        except (Corrupt, Missing):
            return True
        return view.digest() != f"{manifest.rows_digest:064x}"
