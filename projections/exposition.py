"""The metrics of a registry over HTTP, at ``/metrics``; the event loop answers, so that nothing moves meanwhile."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from logstore import InvalidArgument
from projections.listening import listening

__all__ = ["exposed", "place_of"]

LOOPBACK: Final = "127.0.0.1"


def place_of(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, or of ``PORT`` on loopback.

    >>> [place_of(text) for text in ("9464", "0.0.0.0:9464", "[::1]:9464")]
    [('127.0.0.1', 9464), ('0.0.0.0', 9464), ('::1', 9464)]
    """
    match = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]/\s]+)):)?([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise InvalidArgument(f"not a place to listen at place={text!r:.60}; write HOST:PORT, or PORT for loopback")
    return match[1] or match[2] or LOOPBACK, int(match[3])


@asynccontextmanager
async def exposed(registry: CollectorRegistry, host: str, port: int) -> AsyncIterator[str]:
    """Serve the metrics while within; yield their address. Raises CannotListen."""

    async def answer(request: web.Request) -> web.Response:
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    application = web.Application()
    application.add_routes([web.get("/metrics", answer)])
    async with listening(application, host, port, "--metrics HOST:PORT") as bound:
        yield f"http://{f'[{host}]' if ':' in host else host}:{bound}/metrics"
