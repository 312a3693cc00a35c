"""``logstore copy``: back up a log, go on with a back-up, restore one, or save what is left of a damaged one."""

from __future__ import annotations

from dataclasses import asdict

import click

from logstore import Finding, Progress, Protection, copy_store
from logstore.identity import HISTORIES
from projections.cli.terminal import address_of, as_json, json_option, run, say, size, watched

__all__ = ["command"]


@click.command()
@click.argument("source")
@click.argument("target")
@click.option(
    "--history", type=click.Choice(HISTORIES), help="The copy's history policy, instead of the source's; for good."
)
@click.option(
    "--accept-loss", is_flag=True, help="Leave out what is lost or damaged, say so, and go on without it; status 1."
)
@click.option("--plain", is_flag=True, help="TARGET is neither encrypted nor signed, whatever SOURCE is.")
@json_option
def command(*, source: str, target: str, history: str | None, accept_loss: bool, plain: bool, json_: bool) -> None:
    """Make TARGET a copy of the log at SOURCE, or bring one up to date. Both are addresses or paths.

    WRITES to TARGET, never to SOURCE; either may be in use. Every object is verified on the way. Interrupted, run it
    again: it goes on. A copy is a log of its own: once it was written to, it cannot be continued.

    With --accept-loss TARGET must be empty, and what SOURCE has lost for good is not in it: sessions end where they
    are damaged. Each loss is a line, and the exit status 1. What is still being written to SOURCE may be missing, too.

    TARGET is protected like SOURCE, or as LOGSTORE_TARGET_KEYS, LOGSTORE_TARGET_TRUST, LOGSTORE_TARGET_SIGNING_KEY say:
    where one of them is set, it has what they say and nothing else.
    """
    losses: list[Finding] = []
    of_source = Protection.from_environment()
    of_target = None if plain else Protection.from_environment(prefix="LOGSTORE_TARGET_") or of_source
    id_, progress = run(
        _copy(source, target, of_source, of_target, history=history, accept_loss=accept_loss, losses=losses)
    )
    for finding in losses:
        say(as_json(asdict(finding)) if json_ else str(finding))
    if json_:
        click.echo(as_json({"id": id_.hex(), "objects": progress.objects, "bytes": progress.bytes}))
    lost = f"; lost or left out: {len(losses)}" if accept_loss else ""
    kind = f", {_words(of_target)}" if of_source or of_target else ""
    click.echo(
        f"{progress.objects} objects copied, {size(progress.bytes)}; the copy is {id_.hex()}{kind}{lost}", err=True
    )
    if losses:
        click.get_current_context().exit(1)


async def _copy(
    source: str,
    target: str,
    of_source: Protection | None,
    of_target: Protection | None,
    *,
    history: str | None,
    accept_loss: bool,
    losses: list[Finding],
) -> tuple[bytes, Progress]:
    progress = Progress()
    copying = copy_store(
        address_of(source),
        address_of(target),
        history=history,
        accept_loss=accept_loss,
        on_loss=losses.append,
        progress=progress,
        source_protection=of_source,
        target_protection=of_target,
    )
    return await watched(copying, "copying", lambda: progress.objects), progress


def _words(protection: Protection | None) -> str:
    """How a store is protected."""
    encrypted = protection is not None and protection.keyring is not None
    signed = protection is not None and protection.trust is not None
    return f"{'encrypted' if encrypted else 'not encrypted'}, {'signed' if signed else 'not signed'}"
