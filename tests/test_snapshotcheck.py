"""What ``check`` says of snapshots: nothing of sound ones, and of others each thing that is wrong, by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import logstore
from logstore import Event
from logstore.check import check
from logstore.chunk import encode_chunk
from logstore.filestore import MemoryStore
from logstore.keys import (
    CHUNKS,
    ChunkKey,
    RegistrationKey,
    chunk_key,
    manifest_key,
    parse_key,
    registration_key,
    snapshots_prefix,
)
from logstore.manifest import Manifest, encode_manifest
from logstore.registration import decode_registration, encode_registration
from projections import Projection, View


class Things(Projection):
    name, kinds, fold = "things", frozenset({"Thing"}), "put"


@pytest.fixture
async def store() -> tuple[MemoryStore, list[Manifest]]:
    """A store with three snapshots, the later ones with dead rows in the first one's chunk."""
    store, manifests = MemoryStore(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projections.layout.SMALL_BYTES", 10)
        async with logstore.open(store) as log, log.writer("web") as writer, View.open(log, Things()) as view:
            for turn in range(3):
                numbers = range(20) if turn == 0 else range(turn)
                await writer.append_many([Event("Thing", f"t-{number}", "done", {"turn": turn}) for number in numbers])
                manifests.append(await view.snapshot())
    assert len({chunk.key for manifest in manifests for chunk in manifest.chunks}) == 3
    return store, manifests


Stored = tuple[MemoryStore, list[Manifest]]


async def findings(store: MemoryStore, severity: str = "damage") -> dict[str, str]:
    return {finding.key: finding.what async for finding in check(store) if finding.severity == severity}


async def test_sound_snapshots_have_no_findings(store: Stored) -> None:
    """Dead rows, chunks listed by several snapshots, registrations: nothing to say of any of it."""
    assert await findings(store[0]) == {}
    assert await findings(store[0], "note") == {}


async def test_what_is_damaged_or_gone_is_named(store: Stored) -> None:
    """Each object of a snapshot, flipped or removed: a finding about it."""
    memory, manifests = store
    registration = registration_key(RegistrationKey(manifests[0].key.fold, 0))
    names = [manifest_key(manifest.key) for manifest in manifests]
    names += [chunk_key(chunk.key) for chunk in manifests[-1].chunks]
    for name in (*names, registration):
        data = (await memory.get(name)).data
        await memory.delete(name)
        if parse_key(name) in {chunk.key for chunk in manifests[-1].chunks}:
            assert "it is gone, and a snapshot lists it" in (await findings(memory))[name]
        await memory.create(name, data[:-1] + bytes([data[-1] ^ 1]))
        assert name in await findings(memory)
        await memory.delete(name)
        await memory.create(name, data)
    assert await findings(memory) == {}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda manifest: replace(manifest, rows_digest=7), "another digest"),
        (lambda manifest: replace(manifest, entry_digest=bytes(32)), "not of the point"),
        (lambda manifest: replace(manifest, stamp=manifest.stamp + 1), "not of the point"),
        (lambda manifest: replace(manifest, key=replace(manifest.key, number=1)), "not of the point"),
        (lambda manifest: replace(manifest, key=replace(manifest.key, number=1_000)), "cannot be read"),
    ],
)
async def test_a_manifest_that_does_not_add_up(
    store: Stored, change: Callable[[Manifest], Manifest], what: str
) -> None:
    """Whole as an object, and wrong about its rows or its point."""
    memory, manifests = store
    wrong = change(manifests[0])
    await memory.delete(manifest_key(manifests[0].key))
    await memory.create(manifest_key(wrong.key), encode_manifest(wrong))
    found = await findings(memory)
    assert list(found) == [manifest_key(wrong.key)]
    assert what in found[manifest_key(wrong.key)]


async def test_a_chunk_of_other_rows_than_listed(store: Stored) -> None:
    """The manifest counts rows that the chunk has not: told of the manifest."""
    memory, manifests = store
    manifest = manifests[0]
    (chunk,) = manifest.chunks
    wrong = replace(manifest, chunks=(replace(chunk, rows=chunk.rows + 1),), rows=manifest.rows + 1)
    await memory.delete(manifest_key(manifest.key))
    await memory.create(manifest_key(manifest.key), encode_manifest(wrong))
    found = await findings(memory)
    assert "rows" in found[manifest_key(manifest.key)]


async def test_chunks_that_nobody_lists_are_a_note(store: Stored) -> None:
    """A snapshot may be under way, or was given up."""
    memory, _ = store
    data, hash_, _ = encode_chunk(["a"], [bytes([0x80])])
    await memory.create(chunk_key(ChunkKey(0, 1, hash_)), data)
    assert await findings(memory) == {}
    assert (await findings(memory, "note"))[CHUNKS] == "1 chunks are listed by no snapshot"


async def test_the_newest_registration_counts(store: Stored) -> None:
    """Older ones may have been collected; without any the projection's snapshots say so."""
    memory, manifests = store
    fold = manifests[0].key.fold
    first = registration_key(RegistrationKey(fold, 0))
    registration = decode_registration(RegistrationKey(fold, 0), (await memory.get(first)).data)
    await memory.delete(first)
    assert list(await findings(memory, "note")) == [snapshots_prefix(fold)]
    await memory.create(registration_key(RegistrationKey(fold, 1)), encode_registration(1, registration))
    assert await findings(memory) == {}
