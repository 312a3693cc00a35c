"""The worked examples of docs/FORMAT.md, made from golden files: ``python -m tests.golden.example`` prints them."""

from __future__ import annotations

from pathlib import Path

import zstandard

GOLDEN = Path(__file__).parent / "v1" / "segment-one-event.bin"
FRAME = [
    (4, 'magic "LGST"'),
    (1, "version 1"),
    (1, "type 3, a segment"),
    (2, "no flags"),
    (4, "body size, 124"),
    (8, "chapter 0"),
    (8, "session 1"),
    (8, "slot 0"),
    (8, "first sequence 0"),
    (8, "stamp: 1700000000100 ms, counter 0"),
    (8, "acknowledged 0"),
    (4, "one event"),
    (4, "stored size of the columns, 57"),
    (4, "their size unpacked, 44"),
    (32, "digest of entry-open.bin, this session's open entry"),
    (32, "digest of the 57 bytes at 168"),
    (32, "digest of bytes 0 to 135: the object's"),
    (57, "one Zstandard frame of the columns"),
]
COLUMNS = [
    (1, "array of 5 columns"),
    (2, "kinds: array of 2; array of 1 name"),
    (11, '"Deployment"'),
    (1, "codes: nil"),
    (2, "types: array of 2; array of 1 name"),
    (8, '"planned"'),
    (1, "codes: nil"),
    (1, "keys: array of 1"),
    (4, '"d-1"'),
    (1, "payloads: array of 1"),
    (2, "bin of 9 bytes"),
    (9, '{"status": 1}'),
    (1, "metas: nil"),
]
STAGE_PAGE = GOLDEN.with_name("stagepage-two-blocks.bin")
HEAD = [
    (4, 'magic "LGST"'),
    (1, "version 1"),
    (1, "type 10, a page of a stage log"),
    (2, "no flags"),
    (4, "body size, 132"),
    (8, "page 0"),
    (8, "the last range of indices begins with 0"),
    (8, "and ends before 2"),
    (4, "two blocks"),
    (4, "their stored size, 52"),
    (4, "their size unpacked, 43"),
    (32, 'digest of "stagelogs/d-1/apply/0000000000/"'),
    (32, "there is no page before page 0"),
    (32, "digest of the 52 bytes at 176"),
    (32, "digest of bytes 0 to 143: the object's"),
    (52, "one Zstandard frame of the blocks"),
]
BLOCKS = [
    (1, "array of 4 columns"),
    (3, "indices: 0, 1"),
    (1, "texts: array of 2"),
    (8, '"pulling"'),
    (7, '"pulled"'),
    (4, "severities: bin of 2 bytes, 0 and 1"),
    (1, "times: array of 2"),
    (9, "1700000000000 ms"),
    (9, "1700000000250 ms"),
]
WIDTH = 16


def annotate(data: bytes, fields: list[tuple[int, str]]) -> list[str]:
    """Return lines of offset, bytes and meaning; the fields cover ``data`` exactly."""
    lines, offset = [], 0
    for size, meaning in fields:
        for at in range(offset, offset + size, WIDTH):
            chunk = data[at : min(at + WIDTH, offset + size)].hex(" ")
            lines.append(f"    {at:<4} {chunk:<{WIDTH * 3}} {meaning if at == offset else ''}".rstrip())
        offset += size
    assert offset == len(data), (offset, len(data))
    return lines


def worked_example() -> str:
    """Return the block as it stands in FORMAT.md."""
    data = GOLDEN.read_bytes()
    columns = zstandard.ZstdDecompressor().decompress(data[168:])
    return "\n".join([*annotate(data, FRAME), "", "Unpacked, the columns are:", "", *annotate(columns, COLUMNS)]) + "\n"


def stage_page_example() -> str:
    """Return the block of a page of a stage log as it stands in FORMAT.md."""
    data = STAGE_PAGE.read_bytes()
    blocks = zstandard.ZstdDecompressor().decompress(data[176:])
    return "\n".join([*annotate(data, HEAD), "", "Unpacked, the blocks are:", "", *annotate(blocks, BLOCKS)]) + "\n"


if __name__ == "__main__":
    print(worked_example())
    print(stage_page_example(), end="")
