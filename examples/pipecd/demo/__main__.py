"""``python -m examples.pipecd.demo``: run it, and show what came of it."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
from rich.table import Table

from examples.pipecd.collections import COLLECTIONS
from examples.pipecd.demo.conductor import Outcome, conduct
from examples.pipecd.demo.stopwatch import percentile_us
from examples.pipecd.labels import LABELS
from examples.pipecd.queries import QUERIES
from logstore.errors import LogStoreError
from projections.cli import CouldNotRun
from projections.cli.console import console_beside, serve_option
from projections.cli.demo import requests_table
from projections.cli.terminal import address_of, as_json, json_option, progress_bar, run, wide_console
from projections.demo.history import load_history

COMMITS: Final = 60


@click.command()
@click.argument("url", required=False)
@click.option("--repo", metavar="PATH", help="Replay the history of this git repository.")
@click.option("--input", "file", metavar="FILE", help="Replay commits from JSON lines, plain or .zst.")
@click.option("--commits", type=click.IntRange(min=1), default=COMMITS, show_default=True, help="So many commits.")
@serve_option
@json_option
def command(*, url: str | None, repo: str | None, file: str | None, commits: int, serve: bool, json_: bool) -> None:
    """Run a control plane of PipeCD's shape, in an empty directory or prefix at URL; else in a temporary directory.

    Exit status 1 when a deployment was lost or doubled, when the readers differ, or when anything is damaged.
    """
    history = load_history(repo, file, commits)
    with tempfile.TemporaryDirectory(prefix="logstore-pipecd-") as directory:
        address = address_of(url) if url is not None else (Path(directory) / "log").as_uri()
        total = sum(len(commit.applications) for commit in history.commits)
        click.echo(f"{history.told}: {total} commands to 3 agents; one of them, and ops, will be killed", err=json_)
        place = url if url is not None else "a temporary directory"

        async def conducted() -> Outcome:
            async with console_beside(address, place, COLLECTIONS, LABELS) if serve else nullcontext():
                with progress_bar("commands handled") as bar:
                    task = bar.add_task("", total=total)
                    outcome = await conduct(address, history.commits, lambda done: bar.update(task, completed=done))
                _show(outcome, json_)
                return outcome

        try:
            outcome = run(conducted())
        except LogStoreError as error:
            raise CouldNotRun(error) from error
    if not outcome.kept:
        click.get_current_context().exit(1)


def _show(outcome: Outcome, json_: bool) -> None:
    if json_:
        requests = {who: {**asdict(used), "price_usd": used.price_usd} for who, used in outcome.requests.items()}
        click.echo(
            as_json({**asdict(outcome), "queries": _percentiles(outcome), "requests": requests, "kept": outcome.kept})
        )
    else:
        for table in (_summary(outcome), _queries(outcome), requests_table(outcome.requests)):
            wide_console().print(table)


def _summary(outcome: Outcome) -> Table:
    table = Table(title="What happened", show_header=False, title_justify="left")
    web = outcome.web
    by_status = ", ".join(f"{count} {name}" for name, count in web["deployments"].items() if count)
    rate = outcome.events / web["took_s"]
    agree = len({str(reader["digests"]) for reader in outcome.readers.values()}) == 1
    for what, seen in (
        ("applications", str(web["applications"])),
        ("deployments", f"{by_status}, for {web['commands']} commands"),
        ("written", f"{outcome.events} events in {web['took_s']:.1f} s: {rate:,.0f} appends/s"),
        ("killed", f"one agent, and ops; {outcome.resumed} deployments were met again and finished"),
        ("snapshots", f"{outcome.snapshots} by the second life of ops"),
        *(
            (f"read from the {start}", f"{reader['documents']} documents in {reader['took_s']:.2f} s")
            for start, reader in outcome.readers.items()
        ),
        ("digests", "equal, of all nine collections" if agree else "[red]THE READERS DIFFER[/]"),
        ("check", "clean" if not outcome.findings else f"[red]{'; '.join(outcome.findings)}[/]"),
    ):
        table.add_row(what, seen)
    return table


def _percentiles(outcome: Outcome) -> dict[int, dict[str, float]]:
    return {
        number: {"asked": len(took), "p50_us": percentile_us(took, 50), "p99_us": percentile_us(took, 99)}
        for number, took in sorted(outcome.queries.items())
    }


def _queries(outcome: Outcome) -> Table:
    table = Table(title="Queries, each answered from memory", title_justify="left")
    table.add_column("query")
    for name in ("asked", "p50 us", "p99 us"):
        table.add_column(name, justify="right")
    for number, seen in _percentiles(outcome).items():
        name = QUERIES[number].__name__.replace("_", " ")
        table.add_row(f"{number}. {name}", str(seen["asked"]), f"{seen['p50_us']:,.0f}", f"{seen['p99_us']:,.0f}")
    return table


if __name__ == "__main__":
    command()
