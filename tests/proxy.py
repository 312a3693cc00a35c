"""What stands between an S3Store and a service, and does to requests what a test says. The service is as it is.

proxy.on("PUT", "/log/web/", lose)              the next creation there is carried out, and the connection breaks
proxy.on("GET", "/roster/", refuse(503), 5)     the next five are not carried out
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

__all__ = ["Answer", "Proxy", "cut", "lose", "opened_proxy", "refuse", "shorten"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered, or what its client is told: the body may be shorter than ``length`` announces."""

    status: int
    headers: tuple[str, ...]
    body: bytes
    length: int

    def text(self) -> bytes:
        lines = [f"HTTP/1.1 {self.status} Whatever", *self.headers, f"Content-Length: {self.length}"]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Carry = Callable[[], Awaitable[Answer]]
Act = Callable[[Carry], Awaitable[Answer | None]]


async def lose(carry: Carry) -> None:
    """It is done, and the connection breaks before the answer."""
    await carry()


async def cut(carry: Carry) -> Answer:
    """The answer's status is right, and the connection breaks in the middle of its body."""
    whole = await carry()
    return Answer(whole.status, whole.headers, whole.body[: whole.length // 2], whole.length)


async def shorten(carry: Carry) -> Answer:
    """Half a body, and headers that say that this is all: what a broken cache serves."""
    whole = await carry()
    half = whole.body[: whole.length // 2]
    return Answer(whole.status, whole.headers, half, len(half))


def refuse(status: int, code: str = "SlowDown") -> Act:
    """Nothing is done, and the client is told so."""

    async def act(_carry: Carry) -> Answer:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        return Answer(status, (), body, len(body))

    return act


@dataclass(slots=True)
class Rule:
    """The next ``times`` requests of ``verb`` ("": any) whose target contains ``part`` meet ``act``."""

    verb: str
    part: str
    act: Act
    times: int


@dataclass(slots=True)
class Proxy:
    """An HTTP server on loopback. ``asked``: (verb, target, what the service answered, 0: it was not asked)."""

    service: str
    url: str = ""
    rules: list[Rule] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)

    def on(self, verb: str, part: str, act: Act, times: int = 1) -> None:
        """From now on; the first rule that applies counts."""
        self.rules.append(Rule(verb, part, act, times))

    def statuses(self, verb: str, part: str) -> list[int]:
        """What the service answered to such requests, in order."""
        return [status for asked, target, status in self.asked if asked == verb and part in target]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(int(_header(head, "content-length") or 0))
                told = await self._answer(head, body)
                if told is not None:
                    writer.write(told.text())
                    await writer.drain()
                if told is None or len(told.body) < told.length:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer(self, head: bytes, body: bytes) -> Answer | None:
        verb, target, _ = head.decode().split(" ", 2)
        status = 0

        async def carry() -> Answer:
            nonlocal status
            answer = await self._forward(head, body)
            status = answer.status
            return answer

        rule = next((r for r in self.rules if r.times and r.verb in ("", verb) and r.part in target), None)
        if rule is not None:
            rule.times -= 1
        try:
            return await (rule.act(carry) if rule is not None else carry())
        finally:
            self.asked.append((verb, target, status))

    async def _forward(self, head: bytes, body: bytes) -> Answer:
        parts = urlsplit(self.service)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            lines = [line for line in head.decode().split("\r\n")[:-2] if not line.lower().startswith("connection:")]
            writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
            answered, _, content = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        status, *headers = answered.decode().split("\r\n")
        told = [h for h in headers if not h.lower().startswith(("content-length:", "connection:"))]
        return Answer(int(status.split(" ")[1]), tuple(told), content, len(content))


def _header(head: bytes, name: str) -> str:
    lines = head.decode().lower().split("\r\n")
    return next((value for n, _, value in (line.partition(": ") for line in lines) if n == name), "")


@asynccontextmanager
async def opened_proxy(service: str) -> AsyncIterator[Proxy]:
    """A proxy to a service, on a port that the system picks."""
    proxy = Proxy(service)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
