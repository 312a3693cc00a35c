"""The read side: views that fold the events of a log into rows, with sorted indexes and queries.

>>> import asyncio, logstore
>>> from logstore import Event
>>> from projections import Index, Projection, View
>>> class Deployments(Projection):
...     name, kinds, fold = "deployments", {"Deployment"}, "patch"
...     indexes = (Index("project_id", "-updated_at"),)
>>> async def session():
...     async with logstore.open("memory://projections") as log, log.writer("web-1") as writer:
...         await writer.append(Event("Deployment", "d-1", "planned", {"project_id": "p", "updated_at": 7}))
...         async with View.open(log, Deployments()) as view:
...             return view.find(where=[("project_id", "==", "p")], order_by=["-updated_at"], limit=30).keys
>>> asyncio.run(session())
['d-1']

Imports run one way: ``projections`` imports ``logstore``, never the reverse. Views are in memory, with a budget also in
a local file, one process's, and start from snapshots in the store. Not here: SQL, joins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from logstore.deferred import deferred

if TYPE_CHECKING:
    from projections.document import Collection
    from projections.document_store import DocumentStore, PastDocuments
    from projections.documents import Documents, WriteReceipt
    from projections.index import Index
    from projections.past import PastView, diff
    from projections.projection import FoldFailed, Projection, Rejected
    from projections.query import Page, Plan
    from projections.rounds import KeepRound, keep
    from projections.snapshots import drop
    from projections.state import Rejection, Verdict
    from projections.table import Change
    from projections.tombstone import Tombstone
    from projections.transactions import Transaction
    from projections.view import View, ViewProgress, ViewStatistics
    from projections.watch import DocumentChange

__all__ = [
    # What a user declares
    "Projection",
    "Index",
    "Rejected",
    "Tombstone",
    "FoldFailed",
    # What folds build
    "View",
    "PastView",
    "ViewStatistics",
    "ViewProgress",
    "Change",
    "diff",
    "drop",
    "Verdict",
    "Rejection",
    # Documents, to write and to ask
    "DocumentStore",
    "PastDocuments",
    "Collection",
    "Documents",
    "WriteReceipt",
    "Transaction",
    "DocumentChange",
    # Who looks after them
    "keep",
    "KeepRound",
    # What queries return
    "Page",
    "Plan",
]

_MODULES: Final = {
    "Collection": "document",
    "DocumentStore": "document_store",
    "PastDocuments": "document_store",
    "Documents": "documents",
    "WriteReceipt": "documents",
    "Index": "index",
    "KeepRound": "rounds",
    "keep": "rounds",
    "PastView": "past",
    "diff": "past",
    "FoldFailed": "projection",
    "Projection": "projection",
    "Rejected": "projection",
    "Page": "query",
    "Plan": "query",
    "drop": "snapshots",
    "Rejection": "state",
    "Verdict": "state",
    "Change": "table",
    "Tombstone": "tombstone",
    "Transaction": "transactions",
    "View": "view",
    "ViewProgress": "view",
    "ViewStatistics": "view",
    "DocumentChange": "watch",
}

if not TYPE_CHECKING:  # a type checker shall go on knowing what is here, and what is not
    # ``logstore --help`` and programs of one noun need none or few of them.
    __getattr__, __dir__ = deferred(__name__, _MODULES)
