"""What a user declares: a named, versioned fold over some kinds of events, with its indexes. Pure.

A fold says what an event does to the state of its key. It must be *deterministic*: the same states and events give
the same results, in every process and for ever, for views re-fold from the log. So it reads no clock,
no randomness and nothing outside its two arguments.
"""

from __future__ import annotations

from typing import Final, Literal

from logstore import StoredEvent
from logstore.errors import InvalidArgument, LogStoreError
from logstore.event import Data
from logstore.keys import NUMBER_MAX, is_name
from logstore.registration import Registration
from projections.index import Index

__all__ = ["FoldFailed", "Projection", "Rejected"]

FOLDS: Final = ("put", "patch", "apply")


class Rejected(Exception):
    """Raise it in ``apply`` when a guard does not hold: the event is a no-op at its place; its writer can learn why."""


class FoldFailed(LogStoreError):
    """The projection's ``apply`` failed on the event that the message names. Mend it, raise its version, open again."""


class Projection:
    """Subclass it, set the class attributes, and for ``fold = "apply"`` define ``apply``.

    ``fold``: "put", an event's data replaces the state; "patch", it is merged into it (JSON Merge Patch); "apply",
    your function. In all of them no data, or no state returned, deletes the row. ``on_failure``: what an ``apply``
    that raises does: "halt" the view, or "park" the event as a no-op. ``tag``: change it when the code changes what
    it computes. ``tombstones``: whether ``apply`` may return a ``Tombstone``, and so be told of what it deleted.

    >>> class Deployments(Projection):
    ...     name, version, kinds = "deployments", 1, {"Deployment"}
    ...     indexes = (Index("project_id", "-updated_at"),)
    ...     def apply(self, state, event):
    ...         return {**(state or {}), **event.data}
    """

    name: str = ""
    version: int = 1
    kinds: set[str] | frozenset[str] = frozenset()
    fold: Literal["put", "patch", "apply"] = "apply"
    indexes: tuple[Index, ...] = ()
    on_failure: Literal["halt", "park"] = "halt"
    tag: str = ""
    tombstones: bool = False

    def apply(self, state: Data | None, event: StoredEvent) -> Data | None:
        """Return the state of ``event.key`` after ``event``; None deletes it. Both arguments are read-only.

        Raise ``Rejected`` to make the event a no-op that is reported to its writer.
        """
        raise NotImplementedError

    def registration(self) -> Registration:
        """What is recorded of it in the store, and names its snapshots."""
        kinds = tuple(sorted(self.kinds, key=str.encode))
        fold = "apply-park" if (self.fold, self.on_failure) == ("apply", "park") else self.fold
        return Registration(self.name, self.version, kinds, fold, self.tag)

    def check(self) -> None:
        """Raise InvalidArgument, naming the attribute, when the declaration cannot be used."""
        where = f"projection={type(self).__name__}"
        if type(self.name) is not str or not is_name(self.name):
            raise InvalidArgument(f"a projection needs a name {where} attribute=name value={self.name!r:.40}")
        if type(self.version) is not int or not 1 <= self.version <= NUMBER_MAX:
            raise InvalidArgument(f"a version is a number from 1 {where} attribute=version value={self.version!r:.40}")
        if type(self.kinds) not in (set, frozenset) or not self.kinds:
            raise InvalidArgument(f"name the kinds of events to fold {where} attribute=kinds value={self.kinds!r:.40}")
        if not all(type(kind) is str and is_name(kind) for kind in self.kinds):
            raise InvalidArgument(f"kinds are names, as text {where} attribute=kinds value={self.kinds!r:.40}")
        if type(self.tag) is not str:
            raise InvalidArgument(f"a tag is text {where} attribute=tag value={self.tag!r:.40}")
        if self.fold not in FOLDS:
            raise InvalidArgument(f"no such fold {where} attribute=fold value={self.fold!r:.40} known={FOLDS}")
        if self.fold == "apply" and type(self).apply is Projection.apply:
            raise InvalidArgument(f"define apply, or choose another fold {where} attribute=apply")
        if self.on_failure not in ("halt", "park"):
            raise InvalidArgument(f"no such policy {where} attribute=on_failure value={self.on_failure!r:.40}")
