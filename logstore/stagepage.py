"""Pages of stage logs: blocks to bytes and back. docs/FORMAT.md, "Stage logs". Pure.

A stage log is a chain of pages, numbered from 0. A page is a framed head of fixed size and one zstd frame of blocks, so
that a head can be read alone: it says up to which index the chain has come with this page, and whether the chain ends.

Invariants:
- A page holds at least one block, or completes its stage log; a page that retention created holds none.
- Blocks of a page ascend by index; an index occurs once in a chain.
- ``run`` and ``stop`` tell the last range of indices in the chain up to and including the page: all from ``run`` to
  ``stop`` - 1 are stored, ``run`` - 1 and all from ``stop`` on are not.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import msgpack
import zstandard

from logstore.errors import Corrupt, InvalidArgument
from logstore.frame import DIGEST_BYTES, ObjectType, decode_frame, encode_frame, unpack
from logstore.keys import StageId, StagePageKey, stage_page_key, stage_prefix

__all__ = [
    "BLOCKS_MAX",
    "HEAD_BYTES",
    "Block",
    "Page",
    "PageHead",
    "check_block",
    "decode_head",
    "decode_page",
    "encode_page",
    "require_follows",
]

BLOCKS_MAX: Final = 65_536
INDEX_STOP_MAX: Final = 1 << 63  # one above the largest: every language has an integer for it
SEVERITY_MAX: Final = 255
STORED_BYTES_MAX: Final = 16 << 20
UNPACKED_BYTES_MAX: Final = 16 << 20
COMPLETE: Final = 0x0001
ABANDONED: Final = 0x0002
_HEADER: Final = struct.Struct(">QQQIII32s32s32s")
HEAD_BYTES: Final = 12 + _HEADER.size + DIGEST_BYTES  # of every page: a prefix, the header, a digest
_FIRST_PREVIOUS: Final = bytes(DIGEST_BYTES)
_LISTS_MAX: Final = 4  # one of columns, three of them lists; more is a bomb
_ZSTD_LEVEL: Final = 3  # text, written once and read seldom


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of a stage's log. ``index`` says where they belong, and tells a block that is sent again.

    ``severity`` is 0 to 255 and means what its writers agree on (PipeCD: 0 information, 1 success, 2 error);
    ``created_ms``: when it was made, Unix milliseconds.

    >>> Block(index=7, text="applying manifests", created_ms=1_700_000_000_000).severity
    0
    """

    index: int
    text: str
    severity: int = 0
    created_ms: int = 0


@dataclass(frozen=True, slots=True)
class PageHead:
    """What a page says of itself and of the chain up to and including it.

    ``abandoned``: retention completed it, because nobody had written for long. ``size``: of the whole object, in bytes;
    ``weight``: of that and of its blocks unpacked.
    """

    key: StagePageKey
    complete: bool
    abandoned: bool
    run: int
    stop: int
    count: int
    size: int
    weight: int
    previous: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its head, and its blocks by index."""

    head: PageHead
    blocks: tuple[Block, ...]


def check_block(block: Block) -> int:
    """Return how many bytes the text of a block has; InvalidArgument, naming the field, when it cannot be stored."""
    if not isinstance(block, Block):
        raise InvalidArgument(f"needs a Block block={block!r:.60}")
    _require_int(block.index, INDEX_STOP_MAX - 1, "index", block)
    _require_int(block.severity, SEVERITY_MAX, "severity", block)
    _require_int(block.created_ms, INDEX_STOP_MAX - 1, "created_ms", block)
    if type(block.text) is not str:
        raise InvalidArgument(f"needs text index={block.index} text={block.text!r:.40}")
    try:
        return len(block.text) if block.text.isascii() else len(block.text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"not encodable as UTF-8 index={block.index} text={block.text!r:.40}") from error


def _require_int(value: int, maximum: int, name: str, block: Block) -> None:
    if type(value) is not int or not 0 <= value <= maximum:
        raise InvalidArgument(
            f"needs a whole number from 0 to {maximum} {name}={value!r:.40} index={block.index!r:.40}"
        )


def encode_page(
    key: StagePageKey,
    blocks: Sequence[Block],
    *,
    run: int,
    stop: int,
    previous: bytes | None,
    complete: bool = False,
    abandoned: bool = False,
) -> tuple[bytes, PageHead]:
    """Return the bytes of a page, and its head. ``previous``: the digest of the page before, None for page 0."""
    assert blocks or complete, "an empty page completes"
    assert complete or not abandoned
    assert not (abandoned and blocks), "retention has nothing to say"
    assert len(blocks) <= BLOCKS_MAX
    assert (previous is None) == (key.number == 0)
    packed = _pack(blocks) if blocks else b""
    stored = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(packed) if packed else b""
    assert len(packed) <= UNPACKED_BYTES_MAX
    assert len(stored) <= STORED_BYTES_MAX
    previous = previous or _FIRST_PREVIOUS
    header = _HEADER.pack(
        key.number,
        run,
        stop,
        len(blocks),
        len(stored),
        len(packed),
        _digest_of(key.stage),
        previous,
        hashlib.sha256(stored).digest(),
    )
    framed = encode_frame(ObjectType.STAGE_PAGE, COMPLETE * complete | ABANDONED * abandoned, header)
    size = len(framed) + len(stored)
    digest = framed[-DIGEST_BYTES:]
    head = PageHead(key, complete, abandoned, run, stop, len(blocks), size, size + len(packed), previous, digest)
    return framed + stored, head


def _digest_of(stage: StageId) -> bytes:
    """What tells the pages of one stage log from all others': the digest of the prefix of their names."""
    return hashlib.sha256(stage_prefix(stage).encode()).digest()


def _pack(blocks: Sequence[Block]) -> bytes:
    packed: bytes = msgpack.packb(
        [
            [block.index for block in blocks],
            [block.text for block in blocks],
            bytes([block.severity for block in blocks]),
            [block.created_ms for block in blocks],
        ]
    )
    return packed


def decode_head(key: StagePageKey, data: bytes) -> PageHead:
    """Decode the first ``HEAD_BYTES`` of the object found under ``key``; Corrupt, naming it, when they are not its."""
    return _decode_header(key, data)[0]


def decode_page(key: StagePageKey, data: bytes) -> Page:
    """Decode the object found under ``key``; Corrupt, naming it, when it is anything but a whole page of that name.

    Cost: two SHA-256, one unpacking, one object per block.
    """
    head, unpacked_size, stored_digest, stored = _decode_header(key, data)
    name = stage_page_key(key)
    if len(data) != head.size or hashlib.sha256(stored).digest() != stored_digest:
        raise Corrupt(f"page body differs from its digest key={name} bytes={len(data)} want={head.size}; restore it")
    if not head.count:
        return Page(head, ())
    try:
        blocks = _unpack(stored, unpacked_size, head.count)
    except (ValueError, TypeError, msgpack.UnpackException, zstandard.ZstdError, RecursionError) as error:
        raise Corrupt(f"page cannot be read key={name} cause={error!r:.80}; restore the object") from error
    if blocks[-1].index >= head.stop:
        raise _contradicts(name)
    return Page(head, blocks)


def _decode_header(key: StagePageKey, data: bytes) -> tuple[PageHead, int, bytes, memoryview]:
    """The head; the size of the blocks unpacked; the digest of the stored bytes, and as many of these as are there."""
    name = stage_page_key(key)
    frame = decode_frame(name, data, ObjectType.STAGE_PAGE, COMPLETE | ABANDONED)
    if len(frame.body) != _HEADER.size:
        raise Corrupt(f"page header has another size key={name} bytes={len(frame.body)}; restore the object")
    number, run, stop, count, stored_size, unpacked_size, stage, previous, stored_digest = _HEADER.unpack(frame.body)
    if (number, stage) != (key.number, _digest_of(key.stage)):
        raise Corrupt(f"page lies under another's name key={name} number={number}; restore the object")
    complete, abandoned = bool(frame.flags & COMPLETE), bool(frame.flags & ABANDONED)
    limits_held = count <= BLOCKS_MAX and stored_size <= STORED_BYTES_MAX and unpacked_size <= UNPACKED_BYTES_MAX
    empty_alike = (count == 0) == (stored_size == 0) == (unpacked_size == 0)
    range_is_one = run < stop <= INDEX_STOP_MAX or (run == stop == 0 and not count)
    flags_agree = (complete or count) and (complete or not abandoned) and not (abandoned and count)
    first_alike = number > 0 or previous == _FIRST_PREVIOUS
    if not (limits_held and empty_alike and range_is_one and flags_agree and first_alike):
        raise _contradicts(name)
    size = HEAD_BYTES + stored_size
    head = PageHead(key, complete, abandoned, run, stop, count, size, size + unpacked_size, previous, frame.digest)
    return head, unpacked_size, stored_digest, frame.rest


def _contradicts(name: str) -> Corrupt:
    return Corrupt(f"page contradicts itself key={name}; restore the object")


def _unpack(stored: memoryview, size: int, count: int) -> tuple[Block, ...]:
    if zstandard.frame_content_size(stored) != size:
        raise ValueError("size announced twice, differently")
    packed = zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    columns = unpack(packed, containers_max=_LISTS_MAX, max_array_len=BLOCKS_MAX, max_map_len=0)
    indices, texts, severities, times = columns
    for column, type_ in ((indices, int), (texts, str), (times, int)):
        _require_all(column, type_, count)
    if type(severities) is not bytes or len(severities) != count:
        raise ValueError("severities")
    if indices[0] < 0 or any(before >= after for before, after in pairwise(indices)):
        raise ValueError("indices do not ascend")
    if min(times) < 0:
        raise ValueError("times")
    return tuple(map(Block, indices, texts, severities, times))


def _require_all(column: Any, type_: type, count: int) -> None:
    if type(column) is not list or len(column) != count or set(map(type, column)) != {type_}:
        raise ValueError(f"column of {count} {type_.__name__}")


def require_follows(page: Page, before: PageHead | None) -> None:
    """Raise Corrupt, naming the page, unless it continues the chain behind ``before`` (None: begins it).

    A chain goes on at the next number, with the digest of the page before; not behind one that completes it.
    """
    head = page.head
    name = stage_page_key(head.key)
    assert head.key.number == (0 if before is None else before.key.number + 1)
    if before is not None and before.complete:
        raise Corrupt(f"page lies behind the one that completed its stage log key={name}; find out who made it")
    if before is not None and head.previous != before.digest:
        raise Corrupt(f"page does not continue the one before it key={name}; restore the objects of its stage log")
    stop, run = (0, 0) if before is None else (before.stop, before.run)
    last = page.blocks[-1].index + 1 if page.blocks else 0
    if head.stop != max(stop, last) or (not page.blocks and head.run != run):
        raise Corrupt(f"page says that other indices are stored than are key={name}; restore the object")
