"""``logstore snapshot``: write a snapshot of a projection, so that readers start there."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import click

from logstore.manifest import Manifest
from projections import Projection, View
from projections.cli.projection import load_projection, projection_option
from projections.cli.terminal import (
    as_json,
    json_option,
    moment,
    open_log,
    run,
    say,
    size,
    url_argument,
    watched,
)

__all__ = ["command", "manifest_line", "manifest_values"]


@click.command()
@url_argument
@projection_option
@json_option
def command(url: str, projection: str, json_: bool) -> None:
    """Write a snapshot of a projection over the log at URL, and register the projection.

    WRITES: a roster entry, the chunks of rows that changed since the last snapshot, and a manifest. Waits until
    everything is settled that was stored before: up to the seal time of a writer that died.
    """
    manifest = run(_snapshot(url, load_projection(projection)))
    say(as_json(manifest_values(manifest)) if json_ else manifest_line(manifest))


async def _snapshot(url: str, projection: Projection) -> Manifest:
    async with open_log(url, read_only=False) as log, AsyncExitStack() as stack:
        view = View.open(log, projection, snapshots=True)
        await watched(stack.enter_async_context(view), "reading rows", lambda: len(view))
        for error in view.damage:
            say(f"{type(error).__name__}: {error}", err=True)
        return await watched(view.snapshot(), "settling and writing rows", lambda: len(view))


def manifest_values(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says, for JSON."""
    fold = manifest.key.fold
    return {
        "projection": fold.projection,
        "version": fold.version,
        "fingerprint": fold.fingerprint.hex(),
        "point": list(manifest.point),
        "at": moment(manifest.stamp),
        "stamp": manifest.stamp,
        "rows": manifest.rows,
        "chunks": len(manifest.chunks),
        "bytes": sum(chunk.size for chunk in manifest.chunks),
        "digest": f"{manifest.rows_digest:064x}",
    }


def manifest_line(manifest: Manifest) -> str:
    """What a manifest says, for people."""
    values = manifest_values(manifest)
    return (
        f"{values['projection']} version={values['version']} at={values['at']}"
        f" point={manifest.key.chapter}/{manifest.key.number} rows={manifest.rows} chunks={values['chunks']}"
        f" unpacked={size(values['bytes'])} digest={values['digest'][:16]}"
    )
