"""``logstore gc``: retire history that snapshots hold, and delete what nobody needs any more."""

from __future__ import annotations

from dataclasses import asdict

import click

from logstore import DroppedStageLog, Garbage, KeepSettings, Retirement
from projections.cli.terminal import (
    as_json,
    json_option,
    open_log,
    run,
    say,
    size,
    snapshots_kept_option,
    stage_logs_age_option,
    url_argument,
)

__all__ = ["command", "dropped_line", "garbage_line", "retirement_line"]


@click.command()
@url_argument
@snapshots_kept_option
@stage_logs_age_option
@click.option("--dry-run", is_flag=True, help="Only say what would be retired and deleted; write nothing.")
@json_option
def command(url: str, snapshots_kept: int, stage_logs_age_ms: int | None, dry_run: bool, json_: bool) -> None:
    """Retire each chapter of the log at URL that its history policy gives up, then delete all garbage.

    WRITES a record for each chapter retired, and its archive where the policy is to archive; a record for each stage
    log dropped. DELETES chapters and stage logs that went a grace ago, snapshots and chunks that newer ones replace,
    expired pins, void slots and left-overs. On stderr it says what keeps the next chapter, and which stage logs go.
    """
    settings = KeepSettings(snapshots_kept=snapshots_kept, stage_logs_age_ms=stage_logs_age_ms)
    run(_gc(url, settings, dry_run, json_))


async def _gc(url: str, settings: KeepSettings, dry_run: bool, json_: bool) -> None:
    count = total = 0
    async with open_log(url, read_only=False) as log:
        keeper = log.keeper(settings)
        for retirement in await keeper.retire(dry_run=dry_run):
            say(retirement_line(retirement), err=True)
        async for dropped in keeper.drop_stage_logs(dry_run=dry_run):
            say(dropped_line(dropped), err=True)
        async for garbage in keeper.collect(dry_run=dry_run, void=True):
            say(as_json(asdict(garbage)) if json_ else garbage_line(garbage))
            count, total = count + 1, total + garbage.size
        swept = 0 if dry_run else await keeper.sweep()
    said = f"{count} objects {'would be ' if dry_run else ''}deleted, {size(total)} known of"
    click.echo(f"{said}; {swept} unfinished files and empty directories removed" if swept else said, err=True)


def garbage_line(garbage: Garbage) -> str:
    """What was deleted, for people."""
    return f"{garbage.key}: {garbage.why}"


def retirement_line(retirement: Retirement) -> str:
    """What became of a chapter, for people."""
    what = "retired" if retirement.retired else "kept"
    return f"chapter {retirement.chapter} {what}: {retirement.why}"


def dropped_line(dropped: DroppedStageLog) -> str:
    """What became of an old stage log, for people."""
    what = "dropped" if dropped.dropped else "kept"
    return f"stage log {dropped.stage} {what}: {dropped.why} ({dropped.pages} pages, {size(dropped.bytes)})"
