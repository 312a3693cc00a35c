"""Write the golden files that do not exist yet: ``python -m tests.golden.make``. What exists is never overwritten.

A small log of two chapters, every kind of object in it once, a snapshot at a point of it, whose rows are made up, its
first chapter's archive, a pin, stage logs and a claim. Each object's values go beside it as JSON. Segments, chunks and
pages are written by the library, small objects and archives by ``independent.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from logstore.keys import SegmentKey, StagePageKey, parse_key
from tests.golden.independent import (
    CLAIM,
    ENTRY,
    MANIFEST,
    PIN,
    REGISTRATION,
    RETIRED,
    STAGE_GONE,
    STORE,
    Row,
    Values,
    alive,
    dead_bits,
    digest_of,
    digest_of_stage,
    escape,
    fingerprint,
    hash_of_rows,
    pack_rows,
    place,
    read_archive,
    sum_of_rows,
    write_archive,
    write_small,
)
from tests.golden.library import encode_rows, encode_segment, encode_stage_page

V1 = Path(__file__).parent / "v1"
FIRST_MS = 1_700_000_000_000
PROJECTION: Values = {
    "projection": "deployments",
    "version": 3,
    "kinds": ["Application", "Deployment", "Zusammenhängend"],
    "fold": "apply",
    "tag": "é",
}
FINGERPRINT = fingerprint(*PROJECTION.values())
FOLDER = f"snapshots/deployments/0000000003/{FINGERPRINT.hex()}"
PIN_ID, ARCHIVE_NONCE = "0123456789abcdef", "fedcba9876543210"
OTHER_FINGERPRINT = fingerprint("übersicht/leer", 1, ["Deployment"], "put", "")
OTHER_FOLDER = f"snapshots/%C3%BCbersicht%2Fleer/0000000001/{OTHER_FINGERPRINT.hex()}"
Made = tuple[str, str, bytes, Values]  # name, key, bytes, values


def stamp(ms: int, counter: int = 0) -> int:
    return (FIRST_MS + ms) << 16 | counter


def event(kind: str, key: str, type_: str, data: Any = None, meta: Any = None) -> Values:
    packed_meta = None if meta is None else msgpack.packb(meta).hex()
    packed = msgpack.packb(data).hex()
    return {"kind": kind, "key": key, "type": type_, "payload": packed, "meta": packed_meta}


def make_store() -> Made:
    values = {
        "id": {"hex": "00112233445566778899aabbccddeeff"},
        "created_ms": FIRST_MS,
        "grace_ms": 86_400_000,
        "history": "drop",
        "ancestor": None,
    }
    return "store", "store", write_small(STORE, values), values


def make_copied_store() -> Made:
    values = {
        "id": {"hex": "ff" * 16},
        "created_ms": FIRST_MS + 1,
        "grace_ms": 1,
        "history": "full",
        "ancestor": {"hex": "00112233445566778899aabbccddeeff"},
    }
    return "store-copied", "store", write_small(STORE, values), values


def make_copy_with_root(root: bytes) -> Made:
    values = {
        "id": {"hex": "ee" * 16},
        "created_ms": FIRST_MS + 2,
        "grace_ms": 86_400_000,
        "history": "drop",
        "ancestor": {"hex": "00112233445566778899aabbccddeeff"},
        "root": {"hex": root.hex()},
    }
    return "store-copy-with-root", "store", write_small(STORE, values), values


def make_entries(store_digest: bytes) -> Iterator[Made]:
    opened = {"kind": 1, "idle_ms": 30_000, "seal_ms": 150_000, "flights": 4}
    bodies: list[tuple[str, Values]] = [
        ("begin", {"kind": 0, "scopes": []}),
        ("open", {**opened, "writer": "web/1", "exclusive": None, "scopes": []}),
        (
            "open-exclusive",
            {
                **opened,
                "writer": "leader-a",
                "flights": 64,
                "exclusive": {"kinds": ["Deployment", "Stage"], "predecessor": None},
                "scopes": [[["Deployment", "Stage"], 0, 2]],
            },
        ),
        (
            "open-exclusive-invalid-overlap",
            {
                **opened,
                "writer": "leader-b",
                "exclusive": {"kinds": ["Stage"], "predecessor": None},
                "scopes": [[["Deployment", "Stage"], 0, 2]],
            },
        ),
        (
            "open-exclusive-second-scope",
            {
                **opened,
                "writer": "leader-é",
                "flights": 1,
                "exclusive": {"kinds": ["Application"], "predecessor": None},
                "scopes": [[["Application"], 0, 4], [["Deployment", "Stage"], 0, 2]],
            },
        ),
        (
            "open-exclusive-successor",
            {
                **opened,
                "writer": "leader-c",
                "exclusive": {"kinds": ["Deployment", "Stage"], "predecessor": [0, 2]},
                "scopes": [[["Application"], 0, 4], [["Deployment", "Stage"], 0, 5]],
            },
        ),
        (
            "open-exclusive-invalid-predecessor",
            {
                **opened,
                "writer": "leader-d",
                "exclusive": {"kinds": ["Deployment", "Stage"], "predecessor": [0, 2]},
                "scopes": [[["Application"], 0, 4], [["Deployment", "Stage"], 0, 5]],
            },
        ),
        ("tick", {"kind": 2, "slots": [[0, 1, 6], [0, 5, 0]], "scopes": "same"}),
        ("tick-empty", {"kind": 2, "slots": [], "scopes": "same"}),
        ("closed", {"kind": 3, "scopes": "same"}),
        ("begin-of-chapter-1", {"kind": 0, "scopes": "same"}),
    ]
    previous = store_digest
    scopes: list[Any] = []
    for index, (name, body) in enumerate(bodies):
        chapter, number = (1, 0) if name == "begin-of-chapter-1" else (0, index)
        scopes = scopes if body["scopes"] == "same" else body["scopes"]
        values = {
            **body,
            "chapter": chapter,
            "number": number,
            "stamp": stamp(index),
            "previous": {"hex": previous.hex()},
            "nonce": {"hex": f"{index:032x}"},
            "scopes": scopes,
        }
        data = write_small(ENTRY, values)
        previous = digest_of(data)
        yield f"entry-{name}", f"roster/{chapter:010d}/{number:010d}", data, values


def make_entries_of_chapter_1(begin: Made) -> Iterator[Made]:
    """What follows ``entry-begin-of-chapter-1``: a session, and two snapshot points."""
    built_on = [
        ["deployments", 3, {"hex": FINGERPRINT.hex()}, 1, 2],
        ["übersicht/leer", 1, {"hex": OTHER_FINGERPRINT.hex()}, 1, 2],
    ]
    opened = {"kind": 1, "idle_ms": 30_000, "seal_ms": 150_000, "flights": 4, "writer": "web/2", "exclusive": None}
    bodies: list[tuple[str, int, Values]] = [
        ("open-of-chapter-1", 110, opened),
        ("tick-point-first", 150, {"kind": 2, "slots": [[0, 1, 1], [1, 1, 0]], "point": []}),
        ("tick-point", 250, {"kind": 2, "slots": [[0, 1, 2], [1, 1, 0]], "point": built_on}),
    ]
    _, _, data, before = begin
    for number, (name, ms, body) in enumerate(bodies, 1):
        values = {
            **body,
            "chapter": 1,
            "number": number,
            "stamp": stamp(ms),
            "previous": {"hex": digest_of(data).hex()},
            "nonce": {"hex": f"{10 + number:032x}"},
            "scopes": before["scopes"],
        }
        data = write_small(ENTRY, values)
        yield f"entry-{name}", f"roster/0000000001/{number:010d}", data, values


def make_segments(session: int, previous: bytes) -> Iterator[Made]:
    """The session of ``entry-open``: each segment attaches to the one before."""
    odd_key, long_key = "d/1 \U0001f680\x00\n", "k" * 1_024
    many: list[tuple[str, int, int, list[Values]]] = [
        ("one-event", 0, stamp(100), [event("Deployment", "d-1", "planned", {"status": 1})]),
        (
            "many-names-and-metas",
            1,
            stamp(200),
            [
                event("Deployment", "d-1", "planned", {"n": -1, "x": 0.5, "b": b"\x00\xff"}),
                event("Application", odd_key, "registered", None, {"actor": "me"}),
                event("Deployment", "d-1", "completed", {"nested": {"a": [1, [2, {}], None]}}),
                event("Zusammenhängend", long_key, "t" * 200, {}, {}),
                event("Deployment", "d-2", "planned", {"max": 2**64 - 1, "min": -(2**63)}, {"t": [1]}),
            ],
        ),
        (
            "300-kinds",
            1,
            stamp(300, 7),
            [event(f"kind-{i % 300:03d}", f"k{i}", f"type-{i % 257:03d}") for i in range(310)],
        ),
        ("heartbeat", 3, stamp(603), []),
        ("final", 4, stamp(604), []),
    ]
    sequence = 0
    for slot, (name, acknowledged, at, events) in enumerate(many):
        values = {
            "chapter": 0,
            "session": session,
            "slot": slot,
            "final": name == "final",
            "sealed": False,
            "first_sequence": sequence,
            "stamp": at,
            "acknowledged": acknowledged,
            "previous": previous.hex(),
            "events": events,
        }
        sequence += len(events)
        key = f"log/web%2F1/0000000000/{session:010d}/{slot:010d}"
        data = write_by_library(key, values)
        previous = digest_of(data)
        yield f"segment-{name}", key, data, values


def write_by_library(key: str, values: Values) -> bytes:
    segment_key = parse_key(key)
    assert isinstance(segment_key, SegmentKey)
    return encode_segment(segment_key, values)[0]


def make_only_final(name: str, opened: Made, at: int) -> Made:
    """The final of a session that holds nothing else."""
    values = {
        "chapter": 0,
        "session": opened[3]["number"],
        "slot": 0,
        "final": True,
        "sealed": name.startswith("sealed"),
        "first_sequence": 0,
        "stamp": at,
        "acknowledged": 0,
        "previous": digest_of(opened[2]).hex(),
        "events": [],
    }
    key = f"log/{escape(opened[3]['writer'])}/0000000000/{values['session']:010d}/0000000000"
    return f"segment-{name}", key, write_by_library(key, values), values


def make_retired(closed: Values, digest: bytes, last_stamp: int) -> Made:
    opened = {number: closed["stamp"] - closed["number"] * 65_536 + number * 65_536 for number in range(1, 7)}
    values = {
        "chapter": 0,
        "closed": closed["number"],
        "digest": {"hex": digest.hex()},
        "stamp": closed["stamp"],
        "scopes": closed["scopes"],
        "sessions": [[1, 4, last_stamp], *([number, 0, opened[number]] for number in range(2, 7))],
        "archives": ["archive/0000000000/0011/0000000000"],  # no such name (§1): older than names of archives are
    }
    return "retired", "retired/0000000000", write_small(RETIRED, values), values


def make_archive(objects: list[bytes]) -> Made:
    """All of chapter 0 in one object of three blocks: entries, entries and segments, segments."""
    objects = sorted(objects, key=place)
    data = write_archive(0, 0, [objects[:3], objects[3:14], objects[14:]])
    return "archive", f"archive/0000000000/{ARCHIVE_NONCE}/0000000000", data, read_archive(data)[0]


def make_retired_archived(retired: Made, archive: Made) -> Made:
    """The record of a chapter that was archived, as ``retired`` is but for the name."""
    _, key, _, values = retired
    values = {**values, "archives": [archive[1]]}
    return "retired-archived", key, write_small(RETIRED, values), values


def make_claim() -> Made:
    """A claim."""
    values: Values = {
        "kind": "Deployment",
        "document": "d/1",
        "number": 2,
        "id": {"hex": PIN_ID},
        "claimant": "web-1",
        "last_stamp": stamp(43_200_000),
        "type": "created",
        "data": {"hex": msgpack.packb({"status": 0}).hex()},
        "meta": {"hex": msgpack.packb({"document": {"do": "create", "schema": 1}}).hex()},
    }
    return "claim", "claims/Deployment/d%2F1/0000000002", write_small(CLAIM, values), values


def make_pins() -> Iterator[Made]:
    """A pin and its release."""
    for number, name in enumerate(("pin", "pin-released")):
        values = {
            "id": {"hex": PIN_ID},
            "number": number,
            "owner": "backup on hôst-1",
            "chapter": 0,
            "expires_ms": 0 if name == "pin-released" else FIRST_MS + 3_600_000,
        }
        yield name, f"pins/{PIN_ID}/{number:010d}", write_small(PIN, values), values


def row(key: str, state: Values) -> Row:
    return {"key": key, "state": msgpack.packb(state).hex()}


def make_chunk(name: str, number: int, rows: list[Row]) -> Made:
    values: Values = {"rows": sorted(rows, key=lambda each: each["key"].encode())}
    key = f"chunks/0000000001-{number:010d}-{hash_of_rows(values).hex()}"
    return name, key, encode_rows(values)[0], values


def make_chunks() -> tuple[Made, Made]:
    """The chunk of ``entry-tick-point-first``, and that of ``entry-tick-point``, in which a key has another state."""
    many = [
        *(row(key, {}) for key in ("D-1", "d-10", "d/1", "zz")),
        row("d-1", {"status": 1}),
        row("d-2", {"nested": {"a": [1, [2, {}], None]}, "b": b"\x00\xff"}),
        row("é", {"max": 2**64 - 1, "min": -(2**63), "x": 0.5}),
        row("e\u0301", {"é": "é"}),
        row("\uff5a", {"before": "what has two code units in UTF-16"}),
        row("\U0001f680", {"status": 4}),
        row("\U0001f680\x00\n", {"long": "k" * 300}),
    ]
    return make_chunk("chunk-rows", 2, many), make_chunk("chunk-one-row", 3, [row("d-1", {"status": 2})])


def make_manifest(point: Made, opened: Made, segment: Made, chunks: tuple[Made, Made]) -> Made:
    """The snapshot at ``entry-tick-point``, which lies between slot 1 of session 1 and slot 2."""
    listed, rows = [], []
    for number, dead_keys, (_, _, _, held) in zip((2, 3), ({"d-1", "\U0001f680\x00\n"}, set()), chunks, strict=True):
        dead = dead_bits(len(held["rows"]), {i for i, each in enumerate(held["rows"]) if each["key"] in dead_keys})
        shown, size = dead and {"hex": dead.hex()}, len(pack_rows(held))
        listed.append([1, number, {"hex": hash_of_rows(held).hex()}, len(held["rows"]), size, shown])
        rows += alive(held["rows"], dead)
    values = {
        "projection": "deployments",
        "version": 3,
        "fingerprint": {"hex": FINGERPRINT.hex()},
        "chapter": 1,
        "number": 3,
        "stamp": point[3]["stamp"],
        "entry": {"hex": digest_of(point[2]).hex()},
        "sessions": [
            [0, 1, 2, 6, segment[3]["stamp"], {"hex": digest_of(segment[2]).hex()}],
            [1, 1, 0, 0, opened[3]["stamp"], {"hex": digest_of(opened[2]).hex()}],
        ],
        "rows": len(rows),
        "digest": {"hex": sum_of_rows(rows).hex()},
        "chunks": listed,
        "verdicts": [[0, 1, 0, stamp(100), 0], [0, 1, 3, stamp(200), 1], [0, 1, 5, stamp(200), 0]],
    }
    return "manifest", f"{FOLDER}/manifest/0000000001-0000000003", write_small(MANIFEST, values), values


def make_empty_manifest() -> Made:
    """The snapshot of another store, in which nothing but a begin came before the point."""
    values = {
        "projection": "übersicht/leer",
        "version": 1,
        "fingerprint": {"hex": OTHER_FINGERPRINT.hex()},
        "chapter": 0,
        "number": 1,
        "stamp": stamp(1),
        "entry": {"hex": "ee" * 32},
        "sessions": [],
        "rows": 0,
        "digest": {"hex": sum_of_rows([]).hex()},
        "chunks": [],
        "verdicts": [],
    }
    return "manifest-empty", f"{OTHER_FOLDER}/manifest/0000000000-0000000001", write_small(MANIFEST, values), values


def make_registrations() -> Iterator[Made]:
    for number, name in enumerate(("registration", "registration-dropped")):
        values = {"registered": number == 0, "number": number, **PROJECTION}
        yield name, f"{FOLDER}/registration/{number:010d}", write_small(REGISTRATION, values), values


def block(index: int, text: str, severity: int = 0, ms: int = 0) -> Values:
    return {"index": index, "text": text, "severity": severity, "created_ms": FIRST_MS + ms}


def make_stage_pages() -> Iterator[Made]:
    """A stage log of three pages, one that retention completed, and one that holds nothing."""
    odd = "naïve \U0001f680\x00\r\n" + "long " * 60
    many: list[tuple[str, str, list[Values], tuple[int, int]]] = [
        ("two-blocks", "d-1/apply/0000000000", [block(0, "pulling"), block(1, "pulled", 1, 250)], (0, 2)),
        (
            "gaps",
            "d-1/apply/0000000000",
            [block(7, "", 255), block(8, odd, 2, 9), block(2**63 - 1, "last")],
            (2**63 - 1, 2**63),
        ),
        ("complete", "d-1/apply/0000000000", [block(2, "late"), block(9, "done", 1, 500)], (2**63 - 1, 2**63)),
        ("left", "d%2F2/%C3%A9/0000000003", [block(1_700_000_000, "applying")], (1_700_000_000, 1_700_000_001)),
        ("abandoned", "d%2F2/%C3%A9/0000000003", [], (1_700_000_000, 1_700_000_001)),
        ("complete-empty", "d-1/apply/0000000001", [], (0, 0)),
    ]
    before = ("", bytes(32), -1)
    for name, stage, blocks, (run, stop) in many:
        if before[0] != stage:
            before = (stage, bytes(32), -1)
        number = before[2] + 1
        key = f"stagelogs/{stage}/{number:010d}"
        values = {
            "stage": digest_of_stage(key),
            "number": number,
            "complete": name in {"complete", "abandoned", "complete-empty"},
            "abandoned": name == "abandoned",
            "run": run,
            "stop": stop,
            "previous": before[1].hex(),
            "blocks": blocks,
        }
        page_key = parse_key(key)
        assert isinstance(page_key, StagePageKey)
        data = encode_stage_page(page_key, values)
        before = (stage, digest_of(data), number)
        yield f"stagepage-{name}", key, data, values


def make_gone(abandoned: Made) -> Made:
    """The record that the stage log is gone which retention completed."""
    values = {
        "deployment": "d/2",
        "stage": "é",
        "retry": 3,
        "pages": 2,
        "digest": {"hex": digest_of(abandoned[2]).hex()},
    }
    return "gone", "stagelogs/d%2F2/%C3%A9/0000000003/gone", write_small(STAGE_GONE, values), values


def make_all() -> Iterator[Made]:
    """Yield every golden object of version 1."""
    store = make_store()
    yield store
    yield make_copied_store()
    yield make_copy_with_root(digest_of(store[2]))
    entries = {made[0]: made for made in make_entries(digest_of(store[2]))}
    yield from entries.values()
    segments = list(make_segments(1, digest_of(entries["entry-open"][2])))
    yield from segments
    finals = [
        make_only_final("sealed-final", entries["entry-open-exclusive-successor"], stamp(700)),
        make_only_final("sealed-final-between-entries", entries["entry-open-exclusive"], stamp(2, 1)),
        make_only_final("final-stamped-as-an-entry", entries["entry-open-exclusive-second-scope"], stamp(5)),
    ]
    yield from finals
    _, _, closed_data, closed = entries["entry-closed"]
    retired = make_retired(closed, digest_of(closed_data), segments[-2][3]["stamp"])
    yield retired
    of_chapter = [made[2] for made in (*entries.values(), *segments, *finals) if made[3]["chapter"] == 0]
    archive = make_archive(of_chapter)
    yield archive
    yield make_retired_archived(retired, archive)
    yield from make_pins()
    yield make_claim()
    opened, *points = make_entries_of_chapter_1(entries["entry-begin-of-chapter-1"])
    yield from (opened, *points)
    chunks = make_chunks()
    yield from chunks
    yield make_manifest(points[-1], opened, segments[1], chunks)
    yield make_empty_manifest()
    yield from make_registrations()
    pages = {made[0]: made for made in make_stage_pages()}
    yield from pages.values()
    yield make_gone(pages["stagepage-abandoned"])


def write_values(key: str, data: bytes, values: Values) -> str:
    """The JSON beside a golden file, an event, a row or a block a line."""
    text = {"key": key, "object_digest": digest_of(data).hex()}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in text.items()]
    for name, value in values.items():
        shown = json.dumps(value)
        if isinstance(value, list) and name in {"events", "rows", "blocks", "objects"} and value:
            shown = "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
        lines.append(f"  {json.dumps(name)}: {shown}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write_new(folder: Path) -> list[str]:
    """Write what is missing in ``folder``; return its names. A file that exists stays as it is."""
    folder.mkdir(exist_ok=True)
    names = []
    for name, key, data, values in make_all():
        path = folder / f"{name}.bin"
        if path.exists():
            continue
        with path.open("xb") as file:
            file.write(data)
        with path.with_suffix(".json").open("x") as text:
            text.write(write_values(key, data, values))
        names.append(name)
    return names


if __name__ == "__main__":
    print("written:", ", ".join(write_new(V1)) or "nothing, all are there")
