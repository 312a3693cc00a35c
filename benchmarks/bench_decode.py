"""Reading small events back, segments of 1,000: a million by ``make bench-full``, 300,000 by ``make bench``.

decode          bytes in memory to columns, segment by segment
replay columns  ``log.read().runs()`` from a local directory, newly opened; folded into a dict, key to payload
replay events   ``async for event in log.read()``, newly opened; data not looked at

Beside them:

the bare limit  zstd and msgpack of the same columns; nothing checked, nothing kept
rows            zstd and msgpack of the same events as one list of maps: an object for each event
decode, fold    the first workload, folded likewise: what replay adds is files, requests, the roster and the merge
columns         the second workload

No ``Event`` and no ``StoredEvent`` is made on the way to columns: making one fails those workloads.
The files come out of the page cache; what a disk or a network adds is theirs.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import msgpack
import pytest
import zstandard

import logstore
from benchmarks.conftest import Race, Sizes
from benchmarks.events import small_events
from logstore import Event, StoredEvent
from logstore.event import EventEncoder
from logstore.keys import SegmentKey
from logstore.segment import SegmentEncoder, decode_segment

Encoded = list[tuple[SegmentKey, bytes]]


@pytest.fixture(scope="module")
def encoded(sizes: Sizes) -> Encoded:
    """The segments as bytes."""
    encoder, segments, result = EventEncoder(), SegmentEncoder(), []
    for slot in range(sizes.segments):
        first, key = slot * sizes.segment_events, SegmentKey("bench", 0, 1, slot)
        events = [encoder.encode(event) for event in small_events(sizes.segment_events, first)]
        data, _ = segments.encode(
            key, events, first_sequence=first, stamp=1 + first, acknowledged=slot, previous=bytes(32)
        )
        result.append((key, data))
    return result


@pytest.fixture(scope="module")
def url(sizes: Sizes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A log in a directory that holds the same events."""
    address = (tmp_path_factory.mktemp("replay") / "log").as_uri()

    async def write() -> None:
        async with logstore.open(address) as log, log.writer("bench") as writer:
            for slot in range(sizes.segments):
                await writer.append_many(small_events(sizes.segment_events, slot * sizes.segment_events))

    asyncio.run(write())
    return address


@pytest.fixture
def no_event_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, making an object for an event fails."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("an object was made for an event")

    monkeypatch.setattr(StoredEvent, "__init__", refuse)
    monkeypatch.setattr(Event, "__new__", refuse)
    with pytest.raises(AssertionError):
        Event("kind", "key", "type")


def decode(encoded: Encoded) -> int:
    return sum(decode_segment(key, data).count for key, data in encoded)


def decode_and_fold(encoded: Encoded) -> None:
    state: dict[str, bytes] = {}
    for key, data in encoded:
        columns = decode_segment(key, data).columns
        assert columns is not None
        state.update(zip(columns.keys, columns.payloads, strict=True))


def replay_columns(url: str) -> int:
    state: dict[str, bytes] = {}

    async def replay() -> int:
        count = 0
        async with logstore.open(url, read_only=True) as log:
            async for run in log.read().runs():
                columns = run.segment.columns
                assert columns is not None
                keys, payloads = columns.keys, columns.payloads
                state.update(zip(keys[run.start :], payloads[run.start :], strict=True))
                count += len(run.indices)
        return count

    return asyncio.run(replay())


def replay_events(url: str) -> int:
    async def replay() -> int:
        async with logstore.open(url, read_only=True) as log:
            return sum([1 async for _ in log.read()])

    return asyncio.run(replay())


def test_decode(race: Race, sizes: Sizes, encoded: Encoded, no_event_objects: None) -> None:
    """Napkin, per segment of 1,000: a key and a payload each, 60 ns; SHA-256 of 11 KB and zstd to 65 KB, 50 us."""
    unpacked = [zstandard.ZstdDecompressor().decompress(_columns(data)) for _, data in encoded]
    compressor = zstandard.ZstdCompressor(level=1)
    rows = [compressor.compress(msgpack.packb(_rows(columns))) for columns in unpacked]
    stored = [_columns(data) for _, data in encoded]

    def unpack(bodies: list[bytes]) -> None:
        for body in bodies:
            msgpack.unpackb(zstandard.ZstdDecompressor().decompress(body))

    count = sizes.segments * sizes.segment_events
    assert decode(encoded) == count
    race(
        "decode to columns",
        lambda: decode(encoded),
        count=count,
        beside={"the bare limit": lambda: unpack(stored), "rows": lambda: unpack(rows)},
        goal_per_s=2_000_000,
    )


def _columns(data: bytes) -> bytes:
    """What follows a segment's frame: docs/FORMAT.md §2, §5."""
    return data[12 + int.from_bytes(data[8:12], "big") + 32 :]


def _rows(columns: bytes) -> list[dict[str, object]]:
    (kinds, _), (types, _), keys, payloads, _ = msgpack.unpackb(columns)
    return [
        {"stamp": stamp, "kind": kinds[0], "type": types[0], "key": key, "payload": payload}
        for stamp, (key, payload) in enumerate(zip(keys, payloads, strict=True))
    ]


def test_replay_columns(race: Race, sizes: Sizes, url: str, encoded: Encoded, no_event_objects: None) -> None:
    """Napkin, per segment: decode 0.2 ms, fold 0.2 ms; a file opened and read, a task, two time-outs, 0.1 ms."""
    count = sizes.segments * sizes.segment_events
    assert replay_columns(url) == count
    race(
        "replay columns into a dict",
        lambda: replay_columns(url),
        count=count,
        beside={"decode, fold": lambda: decode_and_fold(encoded)},
    )


def test_replay_events(race: Race, sizes: Sizes, url: str) -> None:
    """Napkin, per event: one object of twelve fields, two generator steps: 1 to 2 us."""
    count = sizes.segments * sizes.segment_events
    assert replay_events(url) == count
    race(
        "replay event by event",
        lambda: replay_events(url),
        count=count,
        beside={"columns": lambda: replay_columns(url)},
    )
