"""Where exported records go: lines of JSON on stdout or in a file, or a Parquet file.

Invariants:
- A file has its name only when it is whole: until then it lies beside it as ``.<name>.<random>.part``.
- Memory: a few thousand records.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from logstore.errors import InvalidArgument
from projections.cli.terminal import as_json

__all__ = [
    "DOCUMENT_COLUMNS",
    "EVENT_COLUMNS",
    "ROW_COLUMNS",
    "Output",
    "lines_on_stdout",
    "lines_to",
    "parquet_to",
    "require_parquet",
]

Columns = dict[str, str]

# What Parquet calls a column, and of which type. "json" is text: what stands in the field of a line.
EVENT_COLUMNS: Final[Columns] = {
    "kind": "text",
    "key": "text",
    "type": "text",
    "data": "json",
    "meta": "json",
    "stamp": "stamp",
    "time": "time",
    "writer": "text",
    "chapter": "number",
    "session": "number",
    "seq": "number",
    "settled": "bool",
}
ROW_COLUMNS: Final[Columns] = {"key": "text", "row": "json"}
DOCUMENT_COLUMNS: Final[Columns] = {"key": "text", "document": "json"}
GROUP_RECORDS: Final = 10_000  # of a row group: some MB, and few enough that readers may skip most of a file


class Output(Protocol):
    """Takes records, as a line of JSON has them."""

    def add(self, record: dict[str, Any]) -> None:
        """Write one record, now or soon."""
        ...


class _Lines:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def add(self, record: dict[str, Any]) -> None:
        self._stream.write(as_json(record).encode() + b"\n")


@contextmanager
def lines_on_stdout() -> Iterator[Output]:
    """Lines of JSON on stdout."""
    stream = sys.stdout.buffer
    try:
        yield _Lines(stream)
    finally:
        stream.flush()


@contextmanager
def lines_to(path: Path) -> Iterator[Output]:
    """Lines of JSON in a file, which is there when the block has ended well. Raises InvalidArgument."""
    with _appearing(path) as part, part.open("xb") as stream:
        yield _Lines(stream)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def parquet_to(path: Path, columns: Columns) -> Iterator[Output]:
    """A Parquet file of these columns, which is there when the block has ended well. Raises InvalidArgument."""
    require_parquet()
    with _appearing(path) as part:
        rows = _Rows(part, columns)
        try:
            yield rows
        finally:
            rows.close()
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())


def require_parquet() -> None:
    """Raise InvalidArgument unless pyarrow is there."""
    try:
        import pyarrow.parquet  # noqa: F401 - whether it can be imported is the question
    except ImportError as error:
        raise InvalidArgument(
            f"needs pyarrow --format=parquet cause={error}; pip install 'logstore[parquet]', or leave --format out"
        ) from error


class _Rows:
    """Records gathered into row groups."""

    def __init__(self, path: Path, columns: Columns) -> None:
        import pyarrow
        import pyarrow.parquet

        types = {
            "text": pyarrow.string(),
            "json": pyarrow.string(),
            "stamp": pyarrow.uint64(),
            "time": pyarrow.timestamp("ms", tz="UTC"),
            "number": pyarrow.int64(),
            "bool": pyarrow.bool_(),
        }
        self._columns = columns
        self._schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self._batch_of = pyarrow.RecordBatch.from_pydict
        self._records: list[dict[str, Any]] = []
        self._writer = pyarrow.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def add(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        if len(self._records) == GROUP_RECORDS:
            self._write()

    def _write(self) -> None:
        values = {name: [_cell(each, name, kind) for each in self._records] for name, kind in self._columns.items()}
        self._writer.write_batch(self._batch_of(values, schema=self._schema))
        self._records.clear()

    def close(self) -> None:
        if self._records:
            self._write()
        self._writer.close()


def _cell(record: dict[str, Any], name: str, kind: str) -> Any:
    if kind == "time":
        return record["stamp"] >> 16
    value = record[name]
    return value if kind != "json" or value is None else as_json(value)


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """The name of a file that is to become ``path``, and does if the block ends well; else nothing is left of it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            yield part
            part.replace(path)
        finally:
            with suppress(OSError):
                part.unlink()
    except OSError as error:
        raise InvalidArgument(f"cannot be written --out={path} cause={error}; name another file") from error
