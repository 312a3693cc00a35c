"""What a snapshot writes: all that changed, little else, and the same whoever writes it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logstore.keys import ChunkKey
from logstore.manifest import ManifestChunk
from projections.layout import Layout, Rewriting

Rows = dict[str, bytes]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of some tens of rows, so that a few hundred rows have many."""
    monkeypatch.setattr("projections.layout.CHUNK_BYTES_MAX", 400)
    monkeypatch.setattr("projections.layout.SMALL_BYTES", 200)
    monkeypatch.setattr("projections.layout.FREE_ROWS", 20)


class Snapshots:
    """Snapshot after snapshot, with the chunks in a dict; a layout read back each time, as a stranger would."""

    def __init__(self) -> None:
        self.rows: Rows = {}
        self.listed: list[ManifestChunk] = []
        self.chunks: dict[ChunkKey, tuple[list[str], list[bytes]]] = {}
        self.points = 0

    def layout(self) -> Layout:
        layout = Layout()
        for chunk in self.listed:
            layout.add(chunk, self.chunks[chunk.key][0])
        return layout

    def take(self, changed: dict[str, bytes | None]) -> Rewriting:
        for key, state in changed.items():
            if state is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = state
        layout = self.layout()
        layout._check()
        rewriting = layout.next(changed, self.rows)
        self.points += 1
        self.listed = [chunk.as_listed() for chunk in rewriting.kept]
        for number, keys in enumerate(rewriting.written):
            states = [self.rows[key] for key in keys]
            chunk_key = ChunkKey(self.points, number, bytes(32))
            size = sum(len(each) + len(state) for each, state in zip(keys, states, strict=True))
            self.chunks[chunk_key] = (keys, states)
            self.listed.append(ManifestChunk(chunk_key, len(keys), size))
        return rewriting

    def loaded(self) -> Rows:
        """What a reader of the chunks has."""
        rows: Rows = {}
        for listed in self.listed:
            keys, states = self.chunks[listed.key]
            for row, (key, state) in enumerate(zip(keys, states, strict=True)):
                if listed.dead is None or not listed.dead[row // 8] >> row % 8 & 1:
                    assert key not in rows, "alive twice"
                    rows[key] = state
        return rows


keys = st.text("abcé", min_size=1, max_size=3)
changes = st.dictionaries(keys, st.none() | st.binary(max_size=30), max_size=40)


@given(st.lists(changes, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_chunks_hold_the_rows(history: list[dict[str, bytes | None]]) -> None:
    """After any changes, deletions of what is not there included, the rows alive are the rows, each once."""
    snapshots = Snapshots()
    for changed in history:
        snapshots.take(changed)
        assert snapshots.loaded() == snapshots.rows
        assert all(keys == sorted(keys, key=str.encode) for keys, _ in snapshots.chunks.values())


def test_nothing_changed_means_nothing_written() -> None:
    """A snapshot of the same rows keeps every chunk of fair size."""
    snapshots = Snapshots()
    snapshots.take({f"{number:04d}": bytes(16) for number in range(200)})
    before = snapshots.listed
    assert len(before) == 10
    assert snapshots.take({}).written == []
    assert snapshots.listed == before


@pytest.mark.parametrize("pattern", ["anywhere", "the newest", "the same few", "in order", "deletions"])
def test_work_is_in_proportion_to_change(pattern: str) -> None:
    """At most two rows written for each one changed, and one small chunk and the free rows more, in every snapshot.

    And garbage does not pile up: in the end the chunks hold at most some two and a half times the rows.
    """
    rng, snapshots = random.Random(pattern), Snapshots()
    snapshots.take({f"{number:04d}": rng.randbytes(16) for number in range(1_000)})
    for step in range(100):
        match pattern:
            case "anywhere":
                changing = rng.sample(sorted(snapshots.rows), 10)
            case "the newest":
                changing = [f"{1_000 + step * 5 + each:04d}" for each in range(-10, 5)]
            case "the same few":
                changing = ["0001", "0500", "0999"]
            case "in order":
                changing = [f"{step * 10 + each:04d}" for each in range(10)]
            case _:
                changing = rng.sample(sorted(snapshots.rows), 5)
        changed = {key: None if pattern == "deletions" else rng.randbytes(16) for key in changing}
        written = sum(map(len, snapshots.take(changed).written))
        assert written <= 2 * len(changed) + 20 + 10
        assert snapshots.loaded() == snapshots.rows
    stored = sum(listed.rows for listed in snapshots.listed)
    assert stored <= 2.5 * len(snapshots.rows) + 40


def test_rows_that_change_no_more_lie_together() -> None:
    """When the same few rows change again and again, chunks of the others are left alone."""
    snapshots = Snapshots()
    snapshots.take({f"{number:04d}": bytes(16) for number in range(1_000)})
    for step in range(50):
        snapshots.take({f"{number:04d}": bytes([step]) * 16 for number in range(0, 1_000, 100)})
    assert sum(listed.key.chapter == 1 for listed in snapshots.listed) == 50
    assert len(snapshots.listed) == 51
