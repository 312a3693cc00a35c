"""Watching: a query that stays open. What matches, then what comes to match, changes, or ceases to.

Invariants:
- Whoever takes in what is told has what matches now; so does who goes on from the token of the last change it took.
- A token stands for a watermark up to which all was told. Of each document that anything stored above it is about, it
  is told again how it is: what had been told of it may have come otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, NamedTuple

from logstore import InvalidArgument, Log
from logstore.clock import STAMP_MAX
from logstore.errors import StaleStore
from logstore.event import Data
from logstore.token import decode_token, encode_token
from projections.past import rows_and_later_keys
from projections.patch import is_same
from projections.query import Query, Where
from projections.table import Table
from projections.view import View

__all__ = ["DocumentChange", "watch"]


class DocumentChange(NamedTuple):
    """A document that came to match, changed, or does not match any more. ``token``: where to go on after it.

    ``document`` is as it is now, None where it is gone; ``before`` as it matched, None where it did not, or where a
    watch that goes on cannot know.
    """

    type: Literal["added", "modified", "removed"]
    key: str
    document: Data | None
    before: Data | None
    token: str


async def watch(log: Log, view: View, where: Where, after: str | None) -> AsyncGenerator[DocumentChange, None]:
    """Yield what matches in a view of documents, and how that changes; from a token on, if there is one."""
    query = Query.parse(where)
    binding = query.binding(f"{view.projection.name} {view.projection.version}")
    told = 0 if after is None else _stamp_of(log, binding, after)
    subscription = view.subscribe()
    before, later = dict[str, Data](), set[str]()
    if after is not None:
        past, later = await rows_and_later_keys(log, view.projection, told)
        before = _matching(past, where)
    now = _matching(view, where)  # from here no step but the caller's is between us and the subscription
    later |= subscription.take_keys() if after is not None else set()
    differing = [key for key in before.keys() | now.keys() if not is_same(before.get(key), now.get(key))]
    first = sorted(later.union(differing), key=str.encode)
    documents = {key: _document(view, key) for key in first}
    watermark = view.watermark
    for place, key in enumerate(first, 1):
        told = watermark if place == len(first) else told
        yield DocumentChange(
            _type(before.get(key), key in now), key, documents[key], before.get(key), _token(log, binding, told)
        )
    while True:
        await subscription.wait()
        while (row := subscription.take()) is not None:
            if subscription.has_told_all:
                told = view.watermark
            old = row.old["doc"] if row.old is not None and query.matches(row.old) else None
            matches = row.new is not None and query.matches(row.new)
            document = None if row.new is None else row.new["doc"]
            if (old is not None or matches) and not (matches and is_same(old, document)):
                yield DocumentChange(_type(old, matches), row.key, document, old, _token(log, binding, told))


def _type(before: Data | None, matches: bool) -> Literal["added", "modified", "removed"]:
    if not matches:
        return "removed"
    return "added" if before is None else "modified"


def _token(log: Log, binding: bytes, told: int) -> str:
    return encode_token("watch", [log.identity.id, binding, told])


def _matching(table: Table, where: Where) -> dict[str, Data]:
    page = table.find(where)
    return {key: row["doc"] for key, row in zip(page.keys, page.rows, strict=True)}


def _document(view: View, key: str) -> Data | None:
    row = view.get(key)
    return None if row is None else row["doc"]


def _stamp_of(log: Log, binding: bytes, token: str) -> int:
    match decode_token("watch", token):
        case [bytes() as store_id, bytes() as bound, int() as stamp] if 0 <= stamp <= STAMP_MAX:
            if store_id != log.identity.id:
                raise StaleStore(f"the token is of another store token={token!r:.60}; watch without it")
            if bound != binding:
                raise InvalidArgument(
                    f"the token is of another question, collection or version token={token!r:.60}; watch without it"
                )
            return stamp
    raise InvalidArgument(f"not a watch's token token={token!r:.60}; use that of a change")
