"""The wire between a client and a service: bytes pass, are delayed, or are cut off, in both directions, under a seed.

It knows no HTTP. Where ``tests/proxy.py`` does to a request what a test says, this does to bytes what happens to bytes:
half a request arrives, half an answer, an answer that comes late, one that never comes.

    async with opened_wire("http://127.0.0.1:7480", seed=1) as wire:
        wire.weather = ROUGH          # from now on; FAIR again when the run is to come to an end

What happens to a chunk follows from the seed, the number of its connection, its direction, and its number in it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["FAIR", "ROUGH", "STORM", "Weather", "Wire", "opened_wire"]

CHUNK_BYTES = 16_384
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: the other side is told at once, by RST


@dataclass(frozen=True, slots=True)
class Weather:
    """How probable each fate of a chunk is; the rest passes. ``delay_s_max``: how long it is kept back at most."""

    cut: float = 0.0  # the connection breaks before it
    truncate: float = 0.0  # half of it passes, then the connection ends as if all had been said
    silence: float = 0.0  # it never arrives, nor does anything after it; the connection stays open
    delay: float = 0.0
    delay_s_max: float = 0.5


FAIR = Weather()
ROUGH = Weather(cut=0.02, truncate=0.02, silence=0.01, delay=0.1)
STORM = Weather(cut=0.25, truncate=0.25, silence=0.2, delay=0.2)  # hardly a request comes through


@dataclass(slots=True)
class Wire:
    """``url``: what stands for the service. ``fates``: how many chunks met what."""

    service: str
    seed: int
    url: str = ""
    weather: Weather = FAIR
    fates: Counter[str] = field(default_factory=Counter)
    _connections: int = 0
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side, or a fate, ends it."""
        number, self._connections = self._connections, self._connections + 1
        parts = urlsplit(self.service)
        try:
            up_reader, up_writer = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            _reset(writer)
            return
        ends = (writer, up_writer)
        self._open.update(ends)
        ways = [
            asyncio.create_task(self._carry(f"{number} up", reader, up_writer)),
            asyncio.create_task(self._carry(f"{number} down", up_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            ended = await asyncio.gather(*ways, return_exceptions=True)
            for end in ends:
                _reset(end) if "cut" in ended else end.close()
            self._open.difference_update(ends)

    async def _carry(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Carry one direction to its end; say what ended it."""
        rng = random.Random(f"{self.seed} {way}")
        with suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                fate = self._fate(rng)
                self.fates[fate] += 1
                match fate:
                    case "cut":
                        return fate
                    case "truncate":
                        writer.write(chunk[: len(chunk) // 2])
                        await writer.drain()
                        return fate
                    case "silence":
                        await asyncio.Event().wait()
                    case "delay":
                        await asyncio.sleep(rng.uniform(0, self.weather.delay_s_max))
                writer.write(chunk)
                await writer.drain()
        return "end"

    def _fate(self, rng: random.Random) -> str:
        drawn, weather = rng.random(), self.weather
        for fate in ("cut", "truncate", "silence", "delay"):
            drawn -= getattr(weather, fate)
            if drawn < 0:
                return fate
        return "pass"

    async def met(self, fate: str) -> None:
        """Return when a chunk has met it."""
        while not self.fates[fate]:  # noqa: ASYNC110 - a chunk is met within the turn of a loop
            await asyncio.sleep(0)

    def break_all(self) -> None:
        """Every connection there is breaks now."""
        for end in self._open:
            _reset(end)


def _reset(writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("socket")
    if peer is not None:
        with suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@asynccontextmanager
async def opened_wire(service: str, seed: int) -> AsyncIterator[Wire]:
    """A wire to ``service``, on a port that the system picks."""
    wire, serving = Wire(service, seed), set[asyncio.Task[None]]()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await wire.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the wire is taken down; asyncio's server would complain of it
        finally:
            serving.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()
        for task in [*serving]:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
