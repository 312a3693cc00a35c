"""``logstore keep``: the daemon that looks after a log."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict
from functools import partial
from typing import Protocol

import click

from logstore import InvalidArgument, KeepSettings, Log, LogStoreError
from logstore.notices import Notices
from projections.cli.gc import dropped_line, garbage_line, retirement_line
from projections.cli.projection import load_projection
from projections.cli.snapshot import manifest_line, manifest_values
from projections.cli.terminal import (
    SECONDS,
    as_json,
    chapter_age_option,
    json_option,
    log_format_option,
    notices_as,
    open_log,
    run,
    say,
    snapshot_every_option,
    snapshots_kept_option,
    stage_logs_age_option,
    url_argument,
)
from projections.projection import Projection
from projections.rounds import KeepRound, keep

__all__ = ["command"]

_say = Notices(logging.getLogger(__name__))


class Complain(Protocol):
    """Says a notice on stderr."""

    def __call__(self, name: str, *, error: LogStoreError | None = None, **fields: str) -> None: ...


@click.command()
@url_argument
@click.option("--projection", "projections", multiple=True, metavar="MODULE:CLASS", help="Snapshot this one; repeat.")
@snapshots_kept_option
@stage_logs_age_option
@snapshot_every_option
@chapter_age_option
@click.option("--pause", type=SECONDS, default=60.0, show_default=True, help="Seconds between rounds.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve Prometheus metrics at /metrics; PORT alone: on loopback.")
@click.option("--rounds", type=click.IntRange(1), help="End after so many; default: never.")
@log_format_option
@json_option
def command(
    *,
    url: str,
    projections: tuple[str, ...],
    snapshots_kept: int,
    stage_logs_age_ms: int | None,
    snapshot_every: float,
    chapter_age: float,
    pause: float,
    metrics: str | None,
    rounds: int | None,
    log_format: str,
    json_: bool,
) -> None:
    """Look after the log at URL until told to stop: seal, tick, end chapters, snapshot, retire, collect.

    WRITES and DELETES, see `logstore gc`. Any number may run. Projections that are registered and that nobody snapshots
    keep all history. Ends on SIGTERM and ^C. Exit status 1 when the last round met problems.
    """
    settings = KeepSettings(
        chapter_age_ms=round(chapter_age * 1_000), snapshots_kept=snapshots_kept, stage_logs_age_ms=stage_logs_age_ms
    )
    with notices_as(log_format):
        work = _keep(
            url,
            [load_projection(text) for text in projections],
            settings,
            snapshot_ms=round(snapshot_every * 1_000),
            pause_ms=round(pause * 1_000),
            metrics=metrics,
            rounds=rounds,
            complain=_say if log_format == "json" else _echo,
            json_=json_,
        )
        troubled = run(work)
    if troubled:
        click.get_current_context().exit(1)


async def _keep(
    url: str,
    projections: list[Projection],
    settings: KeepSettings,
    *,
    snapshot_ms: int,
    pause_ms: int,
    metrics: str | None,
    rounds: int | None,
    complain: Complain,
    json_: bool,
) -> bool:
    """Keep; whether the last round had problems."""
    keeping, troubled, ended = asyncio.current_task(), False, 0
    assert keeping is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, keeping.cancel)
    async with open_log(url, read_only=False) as log, _measured(log, metrics, complain) as note:
        with suppress(asyncio.CancelledError):
            kept = keep(log, projections, settings=settings, snapshot_ms=snapshot_ms, pause_ms=pause_ms)
            async with aclosing(kept) as done:
                async for one in done:
                    note(one)
                    for problem in one.problems:
                        complain("round-problem", error=problem)
                    _print(one, json_)
                    troubled, ended = bool(one.problems), ended + 1
                    if ended == rounds:
                        break
    return troubled


@asynccontextmanager
async def _measured(log: Log, place: str | None, complain: Complain) -> AsyncIterator[Callable[[KeepRound], None]]:
    """Serve the metrics of ``log`` at a place, if one is given; yield what is to be told of each round."""
    if place is None:
        yield lambda _: None
        return
    try:
        from prometheus_client import CollectorRegistry

        from projections.exposition import exposed, place_of
        from projections.metrics import LogMetrics
    except ImportError as error:
        raise InvalidArgument(
            f"needs prometheus-client --metrics={place} cause={error}; pip install 'logstore[metrics]'"
        ) from error
    host, port = place_of(place)
    measured, registry = LogMetrics(log), CollectorRegistry()
    registry.register(measured)
    async with exposed(registry, host, port) as address:
        complain("metrics-served", metrics=address)
        yield partial(measured.note, log)


def _echo(name: str, *, error: LogStoreError | None = None, **fields: str) -> None:
    """Say a notice as people read it, who need no name."""
    del name
    told = [f"{field}: {value}" for field, value in fields.items()]
    say(", ".join([f"{type(error).__name__}: {error}"] * (error is not None) + told), err=True)


def _print(done: KeepRound, json_: bool) -> None:
    """Print what a round did, if it did anything."""
    if json_:
        say(
            as_json(
                {
                    "sealed": done.sealed,
                    "closed_chapter": done.closed_chapter,
                    "snapshots": [manifest_values(manifest) for manifest in done.snapshots],
                    "retirements": [asdict(retirement) for retirement in done.retirements],
                    "stage_logs": [asdict(dropped) for dropped in done.stage_logs],
                    "garbage": [garbage.key for garbage in done.garbage],
                    "problems": [str(problem) for problem in done.problems],
                }
            )
        )
        return
    lines = [f"sealed {done.sealed} sessions"] * bool(done.sealed) + ["ended a chapter"] * done.closed_chapter
    lines += [f"snapshot {manifest_line(manifest)}" for manifest in done.snapshots]
    lines += [retirement_line(retirement) for retirement in done.retirements if retirement.retired]
    lines += [dropped_line(dropped) for dropped in done.stage_logs]
    lines += [f"deleted {garbage_line(garbage)}" for garbage in done.garbage]
    for line in lines:
        say(line)
