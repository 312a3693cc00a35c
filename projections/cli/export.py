"""``logstore export``: events, or the rows or documents that are made of them, for other programs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from logstore.errors import InvalidArgument
from logstore.event import Data
from projections import Projection, View
from projections.cli.cat import kinds_of, say_position
from projections.cli.documentlines import document_digest, fields_of_document, shown_digest
from projections.cli.jsonlines import fields_of_event, to_json
from projections.cli.outputs import (
    DOCUMENT_COLUMNS,
    EVENT_COLUMNS,
    ROW_COLUMNS,
    Output,
    lines_on_stdout,
    lines_to,
    parquet_to,
    require_parquet,
)
from projections.cli.projection import load_collection, load_projection
from projections.cli.terminal import (
    as_json,
    json_option,
    open_log,
    progress_bar,
    run,
    say,
    url_argument,
    where_to_begin,
)
from projections.document import CollectionFold

__all__ = ["command"]

PAGE_ROWS = 1_000  # decoded at a time
BAR_EVERY = 1_000


@click.command()
@url_argument
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write into FILE, which is replaced.")
@click.option("--format", "format_", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True)
@click.option("--kind", "--kinds", "kinds", metavar="KIND,…", multiple=True, help="Only events of these kinds.")
@click.option("--settled", is_flag=True, help="Only what has its final place in the order; rows as they are there.")
@click.option("--after", metavar="POSITION", help="Begin behind this position, as printed by export, cat or tail.")
@click.option("--projection", metavar="MODULE:CLASS", help="Rows of this projection instead of events.")
@click.option("--collection", metavar="MODULE:NAME", help="Documents of this collection instead of events.")
@click.option("--key", "key_field", metavar="FIELD", help="Documents alone, which have their key in this field.")
@click.option("--skip-damage", is_flag=True, help="Leave damaged sessions, say so, and go on; exit status 1.")
@json_option
def command(
    *,
    url: str,
    out: Path | None,
    format_: str,
    kinds: tuple[str, ...],
    settled: bool,
    after: str | None,
    projection: str | None,
    collection: str | None,
    key_field: str | None,
    skip_damage: bool,
    json_: bool,
) -> None:
    """Write every event in the log at URL as a line of JSON, in order: to stdout, or into FILE.

    The lines are those of cat --json, and what import takes. On stderr comes the position behind the last one: a later
    export goes on --after it. FILE has its name only when it is whole. Parquet needs FILE, and pyarrow: its columns are
    a line's fields, data and meta as JSON. With --projection a line is {"key": …, "row": …}, sorted by key. With
    --collection it is {"key": …, "document": …}, or with --key the document alone: import --as documents takes both,
    and prints the same digest. Only reads.
    """
    if projection is not None and collection is not None:
        raise InvalidArgument("--projection and --collection at once; give one")
    if key_field is not None and (collection is None or format_ == "parquet"):
        raise InvalidArgument("--key is for lines of documents; leave it out, or name a --collection and no Parquet")
    if format_ == "parquet":
        require_parquet()
        if out is None:
            raise InvalidArgument("a Parquet file cannot go to a terminal or a pipe; name it by --out FILE")
    documents = None if collection is None else _Documents(key_field)
    if collection is not None:
        folded: Projection | None = load_collection(collection).fold()
    else:
        folded = None if projection is None else load_projection(projection)
    if folded is not None and (kinds or after or skip_damage):
        raise InvalidArgument("rows are made of all events; leave out --kind, --after and --skip-damage")
    columns = EVENT_COLUMNS if folded is None else ROW_COLUMNS if documents is None else DOCUMENT_COLUMNS
    output: AbstractContextManager[Output]
    if out is None:
        output = lines_on_stdout()
    else:
        output = parquet_to(out, columns) if format_ == "parquet" else lines_to(out)
    if folded is None:
        work = _export_events(url, output, after=after, kinds=kinds_of(kinds), settled=settled, skip=skip_damage)
    else:
        record = _row if documents is None else documents.record
        work = _export_rows(url, output, folded, record, settled=settled)
    count, damaged = run(work)
    what = "events" if folded is None else "rows" if documents is None else "documents"
    said = f"{count} {what} exported" + (f" to {out}" if out is not None else "")
    digest = {} if documents is None else {"digest": documents.digest}
    if json_ and out is not None:
        click.echo(as_json({"file": str(out), "records": count, **digest}))
    click.echo(" ".join([said, *(f"{name}={value}" for name, value in digest.items())]), err=True)
    if damaged:
        click.get_current_context().exit(1)


async def _export_events(
    url: str,
    output: AbstractContextManager[Output],
    *,
    after: str | None,
    kinds: frozenset[str] | None,
    settled: bool,
    skip: bool,
) -> tuple[int, bool]:
    """Write them; how many they are, and whether damage was met and left."""
    count = 0
    async with open_log(url) as log:
        reader = log.read(
            await where_to_begin(log, after), kinds, settled=settled, on_damage="skip" if skip else "raise"
        )
        with output as sink, progress_bar("exporting") as bar:
            task = bar.add_task("", total=None)
            async for event in reader:
                sink.add(fields_of_event(event))
                count += 1
                if count % BAR_EVERY == 0:
                    bar.update(task, completed=count)
        for damage in reader.damage:
            say(f"left damaged: {type(damage).__name__}: {damage}", err=True)
        say_position(reader, after)
        return count, bool(reader.damage)


async def _export_rows(
    url: str,
    output: AbstractContextManager[Output],
    projection: Projection,
    record: Callable[[str, Data], dict[str, Any]],
    *,
    settled: bool,
) -> tuple[int, bool]:
    count = 0
    async with open_log(url) as log, View.open(log, projection) as view:
        if isinstance(projection, CollectionFold):
            projection.collection.require_mode(view.led_kinds)
        for error in view.damage:
            say(f"{type(error).__name__}: {error}", err=True)
        with output as sink, progress_bar("exporting") as bar:
            task, cursor = bar.add_task("", total=len(view)), None
            while True:
                page = view.find(limit=PAGE_ROWS, cursor=cursor, settled=settled)
                for key, row in zip(page.keys, page.rows, strict=True):
                    sink.add(record(key, row))
                count += len(page.keys)
                bar.update(task, completed=count)
                if (cursor := page.cursor) is None:
                    break
        if parked := view.statistics().parked_events:
            click.echo(
                f"left out: what {parked} events did, for the fold failed on them projection={projection.name};"
                " mend it (of a collection: its upcast, or its guard), raise its version, and export again",
                err=True,
            )
    return count, parked > 0


def _row(key: str, row: Data) -> dict[str, Any]:
    return {"key": key, "row": to_json(row)}


class _Documents:
    """What is written of documents, and the digest of those that were."""

    def __init__(self, key_field: str | None) -> None:
        self._key_field = key_field
        self._total = 0

    def record(self, key: str, row: Data) -> dict[str, Any]:
        self._total += document_digest(key, row["doc"])
        return fields_of_document(key, row["doc"], self._key_field)

    @property
    def digest(self) -> str:
        return shown_digest(self._total)
