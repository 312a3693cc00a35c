"""Loops over pages: to the end, and until a page is full of what no index can tell apart.

A cursor goes on behind the row at which the page before ended, and is None exactly when nothing follows: so nobody
asks once more to see an empty page, as PipeCD's clients do. A row that stays where it stands is seen once. One that
is updated between two pages of a list that is newest first moves to the front, where the caller has been already; who
must see every row asks by an order that stays, as queries 5 and 11 do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from examples.pipecd.queries import Question
from logstore.event import Data
from projections import DocumentStore


class Filled(NamedTuple):
    """Documents, and where to go on; None at the end."""

    documents: list[Data]
    cursor: str | None


def everything(question: Question, db: DocumentStore, page_size: int) -> Iterator[Data]:
    """Yield all documents, a page at a time: other work may come in between."""
    cursor = None
    while True:
        page = question.find(db, page_size, cursor)
        yield from page.rows
        if page.cursor is None:
            return
        cursor = page.cursor


def fill(
    question: Question, db: DocumentStore, keep: Callable[[Data], bool], limit: int, cursor: str | None = None
) -> Filled:
    """Return the next ``limit`` documents that are to be kept, looking at as many pages as that takes."""
    kept: list[Data] = []
    while True:
        page = question.find(db, limit, cursor)
        for place, document in enumerate(page.rows, 1):
            if keep(document):
                kept.append(document)
                if len(kept) == limit:  # go on behind this one: the cursor of a page that ends with it
                    return Filled(kept, question.find(db, place, cursor).cursor)
        if page.cursor is None:
            return Filled(kept, None)
        cursor = page.cursor


def has_labels(labels: Mapping[str, str]) -> Callable[[Any], bool]:
    """What PipeCD filters by in its own process.

    >>> has_labels({"env": "prod"})({"labels": {"env": "prod", "team": "a"}})
    True
    """
    return lambda document: labels.items() <= document.get("labels", {}).items()
