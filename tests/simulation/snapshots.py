"""What P10 says of the snapshots that a run left in its bucket, held against the true order and against one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import compress

import msgpack

from logstore import Corrupt
from logstore.chunk import decode_chunk, encode_chunk
from logstore.digest import rows_digest
from logstore.entry import Tick
from logstore.keys import ManifestKey, chunk_key, manifest_key, parse_key
from logstore.manifest import alive_mask, decode_manifest
from projections.layout import Layout
from tests.simulation.evidence import Evidence
from tests.simulation.glimpses import TrueFold
from tests.simulation.truth import Truth
from tests.simulation.views import NO_LINK, THINGS, Chain

__all__ = ["p10_snapshots_are_the_fold"]


def p10_snapshots_are_the_fold(evidence: Evidence) -> Iterator[str]:
    """Every snapshot holds the fold of what is at or below its point, each row once, with their digest and verdicts.

    And its chunks follow from those rows and from the manifest that its point names, whoever wrote it.
    """
    fold, contents = TrueFold(evidence.truth), evidence.contents
    points = {entry.address: entry.body for entry in evidence.truth.entries if isinstance(entry.body, Tick)}
    try:
        snapshots = {key: Snapshot(key, contents) for key in map(parse_key, contents) if isinstance(key, ManifestKey)}
    except (Corrupt, KeyError) as error:
        yield f"P10 a snapshot cannot be read: {error!r}"
        return
    for key, snapshot in snapshots.items():
        manifest, rows, story = snapshot.manifest, snapshot.rows, f"P10 the snapshot at {key.chapter}/{key.number}"
        if len(rows) != manifest.rows:
            yield f"{story} holds a row twice"
        if rows_digest(rows.items()) != manifest.rows_digest:
            yield f"{story} has another digest than its rows"
        if key.fold.projection == Chain.name:
            yield from (f"{story} {what}" for what in _differs(snapshot, fold, evidence.truth))
        base = [built_on for built_on in points[manifest.point].point or () if built_on.fold == key.fold]
        if [chunk.key.hash for chunk in manifest.chunks] != snapshot.chunks_after(snapshots[base[0]] if base else None):
            yield f"{story} has other chunks than those that follow from {base}"


def _differs(snapshot: Snapshot, fold: TrueFold, truth: Truth) -> Iterator[str]:
    """What its rows and verdicts are, where the true order says otherwise."""
    stamp = snapshot.manifest.stamp
    links = {thing: msgpack.unpackb(state)["link"] for thing, state in snapshot.rows.items()}
    if (shown := tuple(links.get(thing, NO_LINK) for thing in THINGS)) != (true := fold.settled(stamp)):
        yield f"holds {shown}, not {true}"
    rejected = [e.order for e in truth.events if e.order[0] <= stamp and fold.objections.get(e.id)]
    if [verdict.order for verdict in snapshot.manifest.verdicts] != rejected:
        yield f"has {len(snapshot.manifest.verdicts)} verdicts, not {len(rejected)}"


class Snapshot:
    """A manifest and its chunks, and the rows that they hold."""

    def __init__(self, key: ManifestKey, contents: Mapping[str, bytes]) -> None:
        self.manifest = decode_manifest(key, contents[manifest_key(key)])
        self.chunks = [decode_chunk(listed.key, contents[chunk_key(listed.key)]) for listed in self.manifest.chunks]
        self.rows: dict[str, bytes] = {}
        for listed, chunk in zip(self.manifest.chunks, self.chunks, strict=True):
            alive = [True] * listed.rows if listed.dead is None else alive_mask(listed.dead, listed.rows)
            self.rows.update(compress(zip(chunk.keys, chunk.states, strict=True), alive))

    def chunks_after(self, base: Snapshot | None) -> list[bytes]:
        """The hashes of the chunks that hold these rows when built on ``base``."""
        layout, before = Layout(), {} if base is None else base.rows
        if base is not None:
            for listed, chunk in zip(base.manifest.chunks, base.chunks, strict=True):
                layout.add(listed, chunk.keys)
        changed = {key: self.rows.get(key) for key in {*before, *self.rows} if self.rows.get(key) != before.get(key)}
        rewriting = layout.next(changed, self.rows)
        return [
            *(chunk.listed.key.hash for chunk in rewriting.kept),
            *(encode_chunk(keys, [self.rows[key] for key in keys])[1] for keys in rewriting.written),
        ]
