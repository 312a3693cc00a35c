"""``logstore snapshots``: list the snapshots that a log has."""

from __future__ import annotations

import click

from logstore.errors import Corrupt, Missing
from logstore.keys import ManifestKey, manifest_key
from logstore.snapshots import Snapshots
from projections.cli.snapshot import manifest_line, manifest_values
from projections.cli.terminal import as_json, json_option, open_log, run, say, url_argument

__all__ = ["command"]


@click.command()
@url_argument
@json_option
def command(url: str, json_: bool) -> None:
    """List the snapshots in the log at URL, oldest first, and the projections that are registered.

    Exit status 1 when a manifest or a registration cannot be read; `logstore check` verifies chunks as well.
    """
    if run(_list(url, json_)):
        click.get_current_context().exit(1)


async def _list(url: str, json_: bool) -> bool:
    """Print them; whether anything was damaged."""
    damaged = False
    async with open_log(url) as log:
        snapshots = log.snapshots
        for fold, records in sorted((await snapshots.listed()).items(), key=lambda item: item[0].projection.encode()):
            try:
                registration = await snapshots.registration(fold, records)
            except (Corrupt, Missing) as error:
                say(f"{type(error).__name__}: {error}", err=True)
                damaged = True
            else:
                state = "registered" if registration is not None and registration.registered else "not registered"
                say(f"{fold.projection} version={fold.version} {state}", err=True)
            for key in records.manifests:
                damaged |= await _show(snapshots, key, json_)
    return damaged


async def _show(snapshots: Snapshots, key: ManifestKey, json_: bool) -> bool:
    try:
        manifest = await snapshots.manifest(key)
    except (Corrupt, Missing) as error:
        say(as_json({"key": manifest_key(key), "damage": str(error)}) if json_ else f"{error}")
        return True
    say(as_json(manifest_values(manifest)) if json_ else manifest_line(manifest))
    return False
