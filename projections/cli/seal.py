"""``logstore seal``: end sessions whose writers are gone, so that the watermark can move."""

from __future__ import annotations

from dataclasses import asdict

import click

from logstore import LogSettings, Sealing
from projections.cli.terminal import as_json, duration, json_option, open_log, run, say, url_argument

__all__ = ["command"]


@click.command()
@url_argument
@click.option("--writer", metavar="NAME", help="Only this writer's, at once: it is gone, or its key was withdrawn.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sealed; write nothing.")
@json_option
def command(url: str, writer: str | None, dry_run: bool, json_: bool) -> None:
    """Seal every session in the log at URL that was silent for its seal time, by the store's own clock.

    WRITES: one empty segment per session sealed, and a roster entry. A writer that was only slow loses nothing: it
    notices, and appends what was not acknowledged again in a new session. Exit status 1 when a session must not be
    sealed because the store has lost an object of it.
    """
    if run(_seal(url, writer, dry_run, json_)):
        click.get_current_context().exit(1)


async def _seal(url: str, writer: str | None, dry_run: bool, json_: bool) -> bool:
    """Print what was done; whether a session is damaged."""
    async with open_log(url, read_only=dry_run, settings=LogSettings()) as log:
        done = await log.seal(dry_run=dry_run, writer=writer)
    for sealing in done:
        say(as_json({**asdict(sealing)}) if json_ else _line(sealing))
    sealed = sum(sealing.sealed for sealing in done)
    click.echo(f"{sealed} of {len(done)} open sessions {'would be ' if dry_run else ''}sealed", err=True)
    return any(sealing.damaged for sealing in done)


def _line(sealing: Sealing) -> str:
    session = sealing.session
    where = f"{session.writer} session={session.chapter}/{session.session} slots={session.slots}"
    return f"{where} silent={duration(session.silent_ms)} seal_time={duration(session.seal_ms)}: {sealing.why}"
