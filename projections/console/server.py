"""The console's server: addresses to pages, and who may ask. ``pages`` are pure; ``source`` asks the log.

Whoever reaches the port sees the log, so it listens on loopback unless told otherwise, and there it answers only to
loopback's own names: a page elsewhere whose name was made to point here (DNS rebinding) gets nothing.

Invariants:
- Only GET and HEAD are answered, and nothing is written.
- Pages load nothing from elsewhere, and run no script but the console's own: the policy is on every answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from importlib import resources
from typing import Final, NamedTuple, TypeAlias

from aiohttp import hdrs, web

from logstore import Block, InvalidArgument, InvalidCursor, LogStoreError, NotFound, StoredEvent, Unavailable
from projections.console import collections, document, events, overview, stages
from projections.console.history import Teller, Telling
from projections.console.look import notice
from projections.console.markup import Markup, element, joined, link, url
from projections.console.page import Frame
from projections.console.source import Source
from projections.listening import listening
from projections.past import parse_moment, stamp_of

__all__ = ["Console", "is_loopback"]

LOOPBACK_NAMES: Final = {"localhost", "127.0.0.1", "[::1]"}
LIVE_S_MIN: Final = 1.0  # between two tellings; what changes faster is told once
ALIVE_S: Final = 15.0  # a stream that is silent for longer is taken for dead by what lies between
ALIVE: Final = b": here\n\n"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # addresses have keys in them
    "Server": "logstore",
    "X-Content-Type-Options": "nosniff",
}
FILES: Final = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Later: TypeAlias = Callable[[], Awaitable[Markup]]


class Answer(NamedTuple):
    """A page, without its frame. ``live``: who tells of changes to it; ``more``: what comes later."""

    title: str
    body: Markup
    live: str | None
    crumbs: Markup | None = None
    more: Later | None = None


class Console:
    """Pages of a log. ``address``: how the log is called on them; ``host``, ``port``: where it listens, 0: anywhere."""

    def __init__(self, source: Source, address: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self._source = source
        self._address = address
        self._host = host
        self._port = port

    def __repr__(self) -> str:
        return f"<Console {self._address} at {self._host}:{self._port}>"

    @property
    def url(self) -> str:
        """Where it listens, as one types it."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    @property
    def reachable(self) -> str:
        """Where this machine reaches it."""
        return f"http://127.0.0.1:{self._port}/" if self._host in ("", "0.0.0.0") else self.url

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Console]:
        """Listen, while within. Raises CannotListen."""
        async with listening(self.application(), self._host, self._port, "--host, --port") as self._port:
            yield self

    def application(self) -> web.Application:
        """What answers requests, for a server or a test."""
        application = web.Application(middlewares=[self._guard, self._explain])
        application.add_routes(
            [
                web.get("/", self._page(self._overview)),
                web.get("/collections", self._page(self._collections)),
                web.get("/collection", self._page(self._collection)),
                web.get("/document", self._page(self._document)),
                web.get("/events", self._page(self._events)),
                web.get("/key", self._page(self._key)),
                web.get("/stages", self._page(self._stages)),
                web.get("/stage", self._page(self._stage)),
                web.get("/live", self._live),
                web.get("/live/stage", self._live_stage),
                web.get("/static/{name}", _static),
            ]
        )

        async def finish(_: web.Request, response: web.StreamResponse) -> None:
            response.headers.update(HEADERS)

        application.on_response_prepare.append(finish)
        return application

    # Who may ask

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in (hdrs.METH_GET, hdrs.METH_HEAD):
            raise web.HTTPMethodNotAllowed(
                request.method, (hdrs.METH_GET, hdrs.METH_HEAD), text="The console only reads.\n"
            )
        if is_loopback(self._host) and _name_of(request.headers.get(hdrs.HOST, "")) not in LOOPBACK_NAMES | {
            self._host
        }:
            raise web.HTTPForbidden(text="This console answers to localhost only; --host makes it listen elsewhere.\n")
        headers = request.headers
        if headers.get("Sec-Fetch-Site") == "cross-site" and headers.get("Sec-Fetch-Mode") != "navigate":
            raise web.HTTPForbidden(text="Another site's page has no business here.\n")
        return await handler(request)

    @web.middleware
    async def _explain(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What goes wrong is told on a page."""
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return self._failed(request, 404, "There is no such page", "")
        except LogStoreError as error:
            return self._failed(request, _status_of(error), type(error).__name__, str(error))

    def _failed(self, request: web.Request, status: int, title: str, told: str) -> web.Response:
        body = joined(element("h1", title), notice(told, "bad") if told else None)
        return _html(self._frame(request).whole(title, body), status)

    # Pages

    def _frame(self, request: web.Request) -> Frame:
        menu = {"/collection": "/collections", "/document": "/collections", "/key": "/events", "/stage": "/stages"}
        return Frame(self._address, menu.get(request.path, request.path), self._source.log.now_ms())

    def _page(self, make: Callable[[web.Request], Awaitable[Answer]]) -> Handler:
        """Return what answers with the page that ``make`` makes; what takes long comes when it is there."""

        async def respond(request: web.Request) -> web.StreamResponse:
            before = self._source.log.requests()
            answer = await make(request)
            frame = self._frame(request)
            begin = joined(frame.open(answer.title, live=answer.live, crumbs=answer.crumbs), answer.body)
            if answer.more is None:
                return _html(joined(begin, frame.close(self._source.log.requests() - before)))
            response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/html; charset=utf-8"})
            await response.prepare(request)
            with suppress(ConnectionResetError):  # who asked has gone
                if request.method == hdrs.METH_GET:
                    await response.write(_encoded(begin))
                    await response.write(_encoded(await _more(answer.more)))
                    await response.write(_encoded(frame.close(self._source.log.requests() - before)))
                await response.write_eof()
            return response

        return respond

    async def _overview(self, _: web.Request) -> Answer:
        seen = await self._source.overview()
        return Answer("Overview", overview.overview(seen), url("/live", of="log", since=seen.mark))

    async def _collections(self, _: web.Request) -> Answer:
        source = self._source
        if not source.collections:
            found = collections.collections([], (await source.newest()).kinds)
            return Answer("Collections", found, self._live_of("events"))
        held = [(declared, source.held(kind)) for kind, declared in source.collections.items()]
        return Answer("Collections", collections.collections(held, {}), self._live_of("log"))

    async def _collection(self, request: web.Request) -> Answer:
        kind = request.query.get("kind", "")
        asked = collections.Asked.parse(kind, request.query.items())
        documents = await self._source.documents(kind)
        settled: list[bool] = []
        found: collections.Found | LogStoreError
        try:
            page = documents.find(asked.where, asked.order_by, collections.PAGE_ROWS, asked.cursor)
            plan = documents.explain(asked.where, asked.order_by, collections.PAGE_ROWS)
            found = collections.Found(page, documents.count(asked.where), plan)
            settled = [documents.view.is_settled(key) for key in page.keys]
        except (InvalidArgument, InvalidCursor) as error:
            found = error
        declared, look = self._source.collections[kind], self._source.look(kind)
        body = collections.collection(declared, asked, found, look, total=len(documents), settled=settled)
        return Answer(kind, body, self._live_of(kind), link("/collections", "Collections"))

    async def _document(self, request: web.Request) -> Answer:
        kind, key, at = (request.query.get(name, "") for name in ("kind", "key", "at"))
        source = self._source
        documents = await source.documents(kind)
        row, settled, was = documents.view.get(key), documents.view.is_settled(key), None
        if at:
            stamp = stamp_of(parse_moment(at, "at"))
            was = (stamp, await source.past_document(kind, key, stamp))
        body = document.document(kind, key, row, source.look(kind), settled=settled, at=at, was=was)
        teller = Teller(source.collections[kind])
        more = partial(self._history, kind, key, teller.tell, declared=True, at=None if was is None else was[0])
        live = None if was else self._live_of(kind, key)
        return Answer(key, body, live, document.crumbs(kind, key), more)

    async def _key(self, request: web.Request) -> Answer:
        kind, key = (request.query.get(name, "") for name in ("kind", "key"))
        heading = element("h1", element("code", key), element("small", kind))
        more = partial(self._history, kind, key, Telling, declared=False)
        return Answer(key, heading, self._live_of("events"), document.crumbs(kind, key, declared=False), more)

    async def _history(
        self, kind: str, key: str, tell: Callable[[StoredEvent], Telling], *, declared: bool, at: int | None = None
    ) -> Markup:
        history = await self._source.history(kind, key)
        told = deque(map(tell, history.events), maxlen=document.EVENTS_SHOWN)
        read, look = len(history.events), self._source.look(kind)
        return document.history(kind, key, told, read, look, declared=declared, whole=history.whole, at=at)

    async def _events(self, request: web.Request) -> Answer:
        newest, wanted = await self._source.newest(), events.Filter.parse(request.query)
        body = events.events(newest, wanted, self._source.collections, self._source.look)
        return Answer("Events", body, self._live_of("events"))

    async def _stages(self, request: web.Request) -> Answer:
        deployment = request.query.get("deployment", "")
        found = await self._source.stages.stages(deployment) if deployment else None
        return Answer("Stage logs", stages.stages(deployment, found), None)

    async def _stage(self, request: web.Request) -> Answer:
        stage = self._source.stages.stage(*_stage_of(request))
        try:
            blocks, complete = await stage.fetch()
        except NotFound:
            blocks, complete = [], False
        body = stages.stage(stage.id, blocks, complete, self._source.log.now_ms())
        after, id_ = blocks[-1].index + 1 if blocks else 0, stage.id
        live = url("/live/stage", deployment=id_.deployment, stage=id_.stage, retry=id_.retry, after=after)
        return Answer(stage.id.stage, body, None if complete else live, stages.crumbs(stage.id))

    # What happens while somebody looks

    def _live_of(self, of: str, key: str | None = None) -> str:
        """Who tells a page that is made now of what changes from now on."""
        return url("/live", of=of, key=key, since=self._source.mark(of))

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """Tell, as server-sent events, each time that what a page shows may be otherwise."""
        of, key, since = request.query.get("of", ""), request.query.get("key"), request.query.get("since", "")
        if of == "log":
            changes = self._source.moves(since)
        elif of == "events":
            changes = self._source.arrivals(since)
        else:
            await self._source.documents(of)  # or there is nothing to tell
            changes = self._source.changes(of, key, since)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        await response.prepare(request)
        if request.method == hdrs.METH_GET:
            await _tell(response, _moved(changes), LIVE_S_MIN)
        return response

    async def _live_stage(self, request: web.Request) -> web.StreamResponse:
        """Tell the blocks that come, as server-sent events of HTML, until the stage log is complete."""
        stage = self._source.stages.stage(*_stage_of(request))
        after = _number(request.headers.get("Last-Event-ID", request.query.get("after", "")))
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        await response.prepare(request)
        if request.method == hdrs.METH_GET:
            await _tell(response, _blocks(stage.follow(after)), 0)
        return response


_STAGE: Final = ("deployment", "stage", "retry")


def _stage_of(request: web.Request) -> tuple[str, str, int]:
    deployment, stage, retry = (request.query.get(name, "") for name in _STAGE)
    return deployment, stage, _number(retry)


def _number(text: str) -> int:
    """A number in an address; 0 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


async def _moved(changes: AsyncGenerator[None, None]) -> AsyncGenerator[bytes, None]:
    """That something has changed."""
    async with aclosing(changes):
        async for _ in changes:
            yield _event("moved")


async def _blocks(blocks: AsyncGenerator[Block, None]) -> AsyncGenerator[bytes, None]:
    """Blocks of a stage log, as the page has them. Who comes back says which was the last."""
    async with aclosing(blocks):
        async for block in blocks:
            yield _event("block", stages.block(block), block.index + 1)
    yield _event("complete")


def _event(name: str, data: str = "", id_: int | None = None) -> bytes:
    """A server-sent event."""
    number = "" if id_ is None else f"id: {id_}\n"
    lines = "\ndata: ".join(re.split("\r\n|\r|\n", data))
    return f"{number}event: {name}\ndata: {lines}\n\n".encode(errors="replace")


async def _tell(response: web.StreamResponse, told: AsyncGenerator[bytes, None], pause_s: float) -> None:
    """Send what is told, not too often, and now and then that we live, until all is told or nobody listens."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
    filling = asyncio.create_task(_fill(pieces, told))
    try:
        await response.write(ALIVE)
        while True:
            try:
                async with asyncio.timeout(ALIVE_S):
                    piece = await pieces.get()
            except TimeoutError:
                piece = ALIVE
            if piece is None:
                return
            await response.write(piece)
            await asyncio.sleep(pause_s)
    except ConnectionResetError:
        pass  # nobody listens any more
    finally:
        filling.cancel()


async def _fill(pieces: asyncio.Queue[bytes | None], told: AsyncGenerator[bytes, None]) -> None:
    """Put in what is told, then what ended that, then nothing."""
    try:
        async with aclosing(told):
            async for piece in told:
                await pieces.put(piece)
    except Exception as error:  # noqa: BLE001 - whoever looks must know that it is not live any more
        await pieces.put(_event("ended", f"{type(error).__name__}: {error}"))
    await pieces.put(None)


async def _static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in FILES:
        raise web.HTTPNotFound
    content = resources.files("projections.console").joinpath("static", name).read_bytes()
    return web.Response(body=content, content_type=FILES[name], charset="utf-8")


async def _more(make: Later) -> Markup:
    """What comes later; what went wrong with it, said in its place."""
    try:
        return await make()
    except LogStoreError as error:
        return notice(f"{type(error).__name__}: {error}", "bad")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches it.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "console.example")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _status_of(error: LogStoreError) -> int:
    match error:
        case NotFound():
            return 404
        case InvalidArgument() | InvalidCursor():
            return 400
        case Unavailable():
            return 503
        case _:
            return 500


def _html(page: Markup, status: int = 200) -> web.Response:
    return web.Response(body=_encoded(page), status=status, content_type="text/html", charset="utf-8")


def _encoded(page: Markup) -> bytes:
    return page.encode(errors="replace")  # an address may hold what is no character
