"""How far an input is imported: marks in the log itself, so that an import goes on where it was broken off.

Every imported event says in its meta, under ``imported``, where it stood in the log that it comes from. The last event
of each batch says there as well how far the input is imported: what the input is called (``source``), how many
``events`` of it are stored, and the ``digest`` of all of them. A batch is stored whole or not at all; so is its mark.

Invariants:
- The digest of n events is the same whatever batches they came in, and whether they were settled when exported.
- A mark is believed only in a session that has ended: what is not there then never will be.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final, NamedTuple

import msgpack

from logstore import Event, Log
from logstore.errors import InvalidArgument
from logstore.event import EncodedEvent, decode_data
from logstore.filestore.base import FileStore, Listed
from logstore.keys import SegmentKey, escape_name, parse_key
from logstore.named import decode_named
from logstore.segment import Segment
from logstore.walk import walk
from projections.cli.jsonlines import Place

__all__ = ["META", "Mark", "RunningDigest", "end_sessions", "find_mark", "with_mark", "with_origin"]

META: Final = "imported"
SEALS_MAX: Final = 3
SOURCE_BYTES: Final = 8
DIGEST_BYTES: Final = 16


class Mark(NamedTuple):
    """How far an input is imported."""

    events: int
    digest: bytes


class RunningDigest:
    """The digest of an input's events so far. The first of them names the input, unless its user does."""

    def __init__(self, source: str | None) -> None:
        self._sum = hashlib.sha256()
        self.source = source
        self.events = 0

    def add(self, event: EncodedEvent, place: Place | None) -> None:
        """Take in the next event, as the input has it."""
        packed = msgpack.packb([event, place])
        self._sum.update(packed)
        self.events += 1
        if self.source is None:
            self.source = hashlib.sha256(packed).digest()[:SOURCE_BYTES].hex()

    @property
    def mark(self) -> Mark:
        """Where the input stands."""
        return Mark(self.events, self._sum.digest()[:DIGEST_BYTES])


def with_origin(event: Event, place: Place | None) -> Event:
    """The event as it is imported: its meta says where it stood first, if anything does. Raises InvalidArgument."""
    meta = dict(event.meta or {})
    earlier = meta.pop(META, None)
    if earlier is not None:
        if type(earlier) is not dict or not earlier.keys() <= {*Place._fields, *_MARK_FIELDS}:
            raise InvalidArgument(f"meta has a field of that name already field={META}; rename it")
        origin = {name: earlier[name] for name in Place._fields if name in earlier}
    else:
        origin = {} if place is None else place._asdict()
    if origin:
        meta[META] = origin
    return event._replace(meta=meta or (None if event.meta is None or earlier is not None else {}))


def with_mark(event: Event, source: str, mark: Mark) -> Event:
    """The last event of a batch, which says how far the input is imported with it."""
    meta = dict(event.meta or {})
    meta[META] = {**meta.get(META, {}), "source": source, **mark._asdict()}
    return event._replace(meta=meta)


_MARK_FIELDS: Final = ("source", *Mark._fields)


async def end_sessions(log: Log, writer: str) -> None:
    """End what sessions a writer left open, so that nothing of them can come any more. Raises InvalidArgument.

    Cost: a survey; some requests for each session that is open.
    """
    for _ in range(SEALS_MAX):
        left = [sealing for sealing in await log.seal(writer=writer) if not sealing.sealed]
        if damaged := [sealing for sealing in left if sealing.damaged]:
            raise InvalidArgument(f"an earlier import's session is damaged writer={writer}: {damaged[0].why}")
        if not left:
            return
    raise InvalidArgument(f"somebody else writes under this name writer={writer}; give another one with --writer")


async def find_mark(store: FileStore, writer: str, source: str) -> Mark | None:
    """The last mark of ``source`` by a writer whose sessions have all ended; None: there is none.

    Cost: a LIST per 1,000 segments of the writer; a GET for each of them, from its last session back to the mark.
    """
    sessions: defaultdict[tuple[int, int], list[Listed]] = defaultdict(list)
    async for listed in store.list(f"log/{escape_name(writer, 'writer')}/"):
        key = parse_key(listed.key)
        if isinstance(key, SegmentKey):
            sessions[key.chapter, key.session].append(listed)
    for _, slots in sorted(sessions.items(), reverse=True):
        found = None
        async with aclosing(walk(store, _each(slots), decode_named)) as segments:
            async for walked in segments:
                if walked.damage is not None:
                    raise walked.damage
                segment = walked.value
                if not isinstance(segment, Segment) or segment.final:
                    break
                found = _mark_of(segment, walked.key, source) or found
        if found is not None:
            return found
    return None


def _mark_of(segment: Segment, name: str, source: str) -> Mark | None:
    """The mark in a segment's last event."""
    packed = segment.columns.metas.get(segment.count - 1) if segment.columns is not None else None
    meta = None if packed is None else decode_data(packed, f"key={name}")
    match meta and meta.get(META):
        case {"source": found, "events": int(events), "digest": bytes(digest)} if found == source:
            return Mark(events, digest)
        case _:
            return None


async def _each(listing: list[Listed]) -> AsyncIterator[Listed]:
    for listed in listing:
        yield listed
