"""Listening for HTTP at an address, for as long as something is within."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from logstore import LogStoreError

__all__ = ["CannotListen", "listening"]


_log = logging.getLogger(__name__)


class CannotListen(LogStoreError):
    """Nothing can listen there. Choose another host or port."""


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether it tells of a fault of ours: a request that is no HTTP is answered with 400, and that is enough."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _cause(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)  # its number is none of the system's
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


_log.addFilter(_is_ours)


@asynccontextmanager
async def listening(application: web.Application, host: str, port: int, choose: str) -> AsyncIterator[int]:
    """Answer requests, while within; yield the port, which is any that is free where 0 was asked for.

    ``choose``: by which options another address is chosen. Raises CannotListen.
    """
    runner = web.AppRunner(application, access_log=None, logger=_log, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except (OSError, OverflowError, UnicodeError) as error:
            raise CannotListen(
                f"cannot listen on host={host} port={port} cause={_cause(error)}; choose with {choose}"
            ) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
