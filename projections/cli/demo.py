"""``logstore demo``: writers, a kill -9 and readers on one store, and whether every promise was kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from logstore import StoreStatistics
from projections.cli.console import console_beside, serve_option
from projections.cli.terminal import address_of, as_json, json_option, progress_bar, run, wide_console
from projections.demo.conductor import WRITERS, Outcome, conduct
from projections.demo.history import History, load_history
from projections.demo.workload import shares

__all__ = ["command", "requests_table"]


@click.command()
@click.argument("url", required=False)
@click.option("--repo", metavar="PATH", help="Replay the history of this git repository.")
@click.option("--input", "file", metavar="FILE", help="Replay commits from JSON lines, plain or .zst.")
@click.option("--commits", type=click.IntRange(min=1), help="Replay the first so many commits.")
@serve_option
@json_option
def command(
    *, url: str | None, repo: str | None, file: str | None, commits: int | None, serve: bool, json_: bool
) -> None:
    """Replay a history of commits as a GitOps control plane would, in an empty directory or prefix at URL.

    WRITES; without URL, in a temporary directory. Four writer processes append at the same time, one is killed with
    SIGKILL in the middle and restarted, a reader process follows, another reads everything afterwards. Then what the
    writers were told is held against what the readers read. Exit status 1 when a promise was broken.
    """
    history = load_history(repo, file, commits)
    with tempfile.TemporaryDirectory(prefix="logstore-demo-") as directory:
        place = Path(directory)
        (place / "between").mkdir()
        address = address_of(url) if url is not None else (place / "log").as_uri()
        shown = "a temporary directory" if url is None else url

        def show(outcome: Outcome) -> None:
            if json_:
                click.echo(as_json(_as_json(outcome, history)))
            else:
                _show(outcome)

        outcome = _conduct(address, history, place / "between", shown, show, serve=serve, json_=json_)
    if not outcome.kept:
        click.get_current_context().exit(1)


def _conduct(
    address: str,
    history: History,
    between: Path,
    place: str,
    show: Callable[[Outcome], None],
    *,
    serve: bool,
    json_: bool,
) -> Outcome:
    work = shares(history.commits, WRITERS)
    events = sum(len(deployment) for share in work for deployment in share)
    click.echo(f"{history.told}: {events} events by {WRITERS} writer processes into {place}", err=json_)

    async def conducted() -> Outcome:
        async with console_beside(address, place) if serve else nullcontext():
            with progress_bar("writing") as bar:
                task = bar.add_task("", total=events)
                outcome = await conduct(address, work, between, lambda done: bar.update(task, completed=done))
            show(outcome)
            return outcome

    return run(conducted())


def _as_json(outcome: Outcome, history: History) -> dict[str, object]:
    requests = {who: {**asdict(used), "price_usd": used.price_usd} for who, used in outcome.requests.items()}
    return {**asdict(outcome), "requests": requests, "input": history.told, "kept": outcome.kept}


def _show(outcome: Outcome) -> None:
    console = wide_console()
    for table in (_events(outcome), requests_table(outcome.requests), _promises(outcome)):
        console.print(table)


def _events(outcome: Outcome) -> Table:
    table = Table(title="What happened", show_header=False, title_justify="left")
    lives, delays = outcome.lives, outcome.live["delays_ms"]
    segments, sessions = (sum(life[what] for life in lives) for what in ("segments", "sessions"))
    rate = outcome.acknowledged / outcome.writing_s
    half, most = delays.get("p50", 0), delays.get("p99", 0)
    for what, seen in (
        ("written", f"{outcome.acknowledged} events acknowledged in {outcome.writing_s:.1f} s: {rate:,.0f} events/s"),
        ("", f"{segments} segments in {sessions} sessions by the {len(lives)} processes that ended well"),
        ("killed", f"one writer, after {outcome.killed_after} acknowledged events; restarted"),
        (
            "",
            f"{outcome.stored_unacknowledged} of its events were stored, though it died before it noted that they were",
        ),
        (
            "read live",
            f"{outcome.live['count']} events (one ended the demo), half within {half} ms, 99 % within {most} ms",
        ),
        (
            "read settled",
            f"{outcome.settled['count']} events, the last {outcome.settling_s:.1f} s after the writers ended",
        ),
        ("read cold", f"{outcome.cold['count']} events; one of them, by nobody of these, ended the demo"),
    ):
        table.add_row(what, seen)
    return table


def requests_table(requests: Mapping[str, StoreStatistics]) -> Table:
    """What each asked of the store, and what that costs."""
    table = Table(
        title="Requests, and their list price on S3 (without those of killed processes)", title_justify="left"
    )
    table.add_column("by")
    for name in ("PUT", "GET", "of them absent", "LIST", "DELETE", "MiB in", "MiB out", "US$"):
        table.add_column(name, justify="right")
    for who, used in requests.items():
        table.add_row(
            who,
            str(used.create.requests),
            str(used.get.requests),
            str(used.get.refused),
            str(used.list.requests),
            str(used.delete.requests),
            f"{used.bytes_in / (1 << 20):.1f}",
            f"{used.bytes_out / (1 << 20):.1f}",
            f"{used.price_usd:.4f}",
        )
    return table


def _promises(outcome: Outcome) -> Table:
    table = Table("promise", "kept", "seen", title="Promises", title_justify="left")
    for promise in outcome.promises:
        table.add_row(promise.promise, "[green]yes[/]" if promise.kept else "[red]NO[/]", promise.seen)
    return table
