"""Lines from a file, a pipe or a terminal, without holding up the event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from io import UnsupportedOperation
from typing import BinaryIO, Final

import click

from logstore.errors import InvalidArgument, LimitExceeded

__all__ = ["Stopped", "batches_of_lines"]

BATCH_LINES_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 2 << 20  # as JSON; packed it may be more than twice that
LINE_BYTES_MAX: Final = 8 << 20
CHUNK_BYTES: Final = 1 << 16


class Stopped(click.ClickException):
    """What stopped the taking in of an input, and how far it is."""

    exit_code = 2


async def batches_of_lines(stream: BinaryIO, name: str) -> AsyncIterator[list[bytes]]:
    """Yield lines as they come, some at a time: what has arrived is not kept waiting for what has not.

    Raises LimitExceeded for a line without end, InvalidArgument where the stream, by its ``name``, cannot be read.
    """
    rest, whole = b"", 0
    async for chunk in _chunks(stream, name):
        *lines, rest = (rest + chunk).split(b"\n")
        whole += len(lines)
        if len(rest) > LINE_BYTES_MAX:
            raise LimitExceeded(f"a line is too long input={name} line={whole + 1} limit={LINE_BYTES_MAX}")
        batch: list[bytes] = []
        size = 0
        for line in lines:
            if batch and (len(batch) == BATCH_LINES_MAX or size + len(line) > BATCH_BYTES_MAX):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line)
        if batch:
            yield batch
    if rest:
        yield [rest]


async def _chunks(stream: BinaryIO, name: str) -> AsyncIterator[bytes]:
    """Read in a thread that may be left behind: a read of a terminal or a pipe cannot be called off."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(16)

    def read_on() -> None:
        chunk: bytes | OSError = b"-"
        while chunk and isinstance(chunk, bytes):
            room.acquire()
            try:
                chunk = _read(stream)
            except OSError as error:
                chunk = error
            with suppress(RuntimeError):  # nobody listens any more
                loop.call_soon_threadsafe(ready.put_nowait, chunk)

    threading.Thread(target=read_on, daemon=True).start()
    while chunk := await ready.get():
        if isinstance(chunk, OSError):
            raise InvalidArgument(f"{name} cannot be read cause={chunk}") from chunk
        yield chunk
        room.release()


def _read(stream: BinaryIO) -> bytes:
    """What has arrived; nothing at the end. Past Python's own buffer, whose lock a thread left behind would keep."""
    try:
        return os.read(stream.fileno(), CHUNK_BYTES)
    except (UnsupportedOperation, AttributeError):
        return stream.read(CHUNK_BYTES)
