"""Who may ask, and how: only to look, only from here, and nothing of it runs elsewhere."""

from __future__ import annotations

import asyncio
import html
import re
import socket
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

import logstore
from logstore import Block, Corrupt, LogSettings, RetrySettings, StageLogs, Unavailable
from logstore.filestore import MemoryStore
from logstore.filestore.base import Blob
from projections import DocumentStore
from projections.console import Console, Source, server, source
from projections.listening import CannotListen
from tests.console.conftest import DEPLOYMENTS, Scene

METHODS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")


@pytest.mark.parametrize("path", ["/", "/document?kind=Deployment&key=..", "/nothing", "/static/style.css"])
async def test_it_only_reads(scene: Scene, path: str) -> None:
    """Whatever else is asked of it is refused, on every path."""
    for method in METHODS:
        answer = await scene.client.request(method, path)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")


@pytest.mark.parametrize(
    "path", ["/", "/document?kind=Deployment&key=..", "/live?of=log", "/live/stage?deployment=a&stage=b"]
)
async def test_head_is_a_get_without_its_page(scene: Scene, path: str) -> None:
    """Also of what never ends."""
    answer = await asyncio.wait_for(scene.client.head(path), 5)
    assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/", "/events", "/nothing", "/static/script.js", "/live?of=log", "/document?kind=Deployment&key=.."]
)
async def test_every_answer_has_the_policy(scene: Scene, path: str) -> None:
    """No script but the console's own, nothing from elsewhere, in nobody's frame, and no address told to others."""
    answer = await scene.client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    answer.close()


async def test_on_loopback_it_answers_to_loopbacks_names_only(scene: Scene) -> None:
    """A name that was made to point here (DNS rebinding) gets nothing."""
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil:1", "", "[::2]"):
        answer = await scene.client.get("/", headers={"Host": host})
        assert answer.status == 403
        assert "Deployment" not in await answer.text()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1:1", "[::1]:8420", "[::1]"])
async def test_loopbacks_names_are_answered_on_any_port(scene: Scene, host: str) -> None:
    """A tunnel has another port at its other end."""
    assert (await scene.client.get("/collections", headers={"Host": host})).status == 200


async def test_elsewhere_any_name_is_answered(scene: Scene) -> None:
    """Who lets it listen elsewhere has given it a name of his own."""
    console = Console(scene.source, "memory://scene", host="0.0.0.0")
    async with TestClient(TestServer(console.application())) as client:
        assert (await client.get("/", headers={"Host": "console.example"})).status == 200


async def test_another_sites_page_makes_no_requests(scene: Scene) -> None:
    """They would cost; a link from there may be followed."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert (await scene.client.get("/", headers=headers)).status == 403
    headers["Sec-Fetch-Mode"] = "navigate"
    assert (await scene.client.get("/", headers=headers)).status == 200


async def test_nothing_is_written(scene: Scene) -> None:
    """Whatever was looked at, no object came and none went."""
    before = sorted([listed.key async for listed in scene.store.list("")])
    for path in ("/", "/collections", "/collection?kind=Deployment", "/document?kind=Deployment&key=..", "/events"):
        await scene.page(path)
    assert sorted([listed.key async for listed in scene.store.list("")]) == before
    assert scene.source.log.requests().create.requests == 0


# Where it listens -------------------------------------------------------------------------------


async def test_a_port_in_use_is_told_in_one_line(scene: Scene) -> None:
    """With what to do."""
    async with Console(scene.source, "x").serving() as first:
        port = int(first.url.rstrip("/").rsplit(":", 1)[1])
        with pytest.raises(CannotListen, match=f"host=127.0.0.1 port={port} cause=Address already in use"):
            async with Console(scene.source, "x", port=port).serving():
                pass


@pytest.mark.parametrize("host", ["300.1.2.3", "no such host", "x" * 300, "203.0.113.1"])
async def test_a_host_that_is_not_ours_is_told_in_one_line(scene: Scene, host: str) -> None:
    """Whatever the system says about it."""
    with pytest.raises(CannotListen, match="cannot listen on host=") as told:
        async with Console(scene.source, "x", host).serving():
            pass
    assert "\n" not in str(told.value)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_it_listens_on_the_other_loopback(scene: Scene) -> None:
    """And says so as one types it."""
    async with Console(scene.source, "x", "::1").serving() as console, aiohttp.ClientSession() as session:
        assert console.url.startswith("http://[::1]:")
        assert (await session.get(console.url)).status == 200


# What happens while somebody looks --------------------------------------------------------------


async def said(answer: aiohttp.ClientResponse) -> str:
    """The next event of a stream."""
    lines = []
    async with asyncio.timeout(10):
        while True:
            line = (await answer.content.readline()).decode().rstrip("\n")
            if line.startswith(":"):
                await answer.content.readline()
            elif line:
                lines.append(line)
            elif lines:
                return "\n".join(lines)


LIVE = [
    ("/", "/live?of=log&since="),
    ("/events", "/live?of=events&since="),
    ("/collection?kind=Deployment", "/live?of=Deployment&since="),
    ("/document?kind=Deployment&key=d-1", "/live?of=Deployment&key=d-1&since="),
]


async def live_of(scene: Scene, path: str) -> str:
    """Who tells of changes to a page that is loaded now."""
    [told] = re.findall(r'data-live="([^"]+)"', await scene.page(path))
    return html.unescape(told)


@pytest.mark.parametrize(("path", "live"), LIVE)
async def test_who_looks_is_told_that_something_moved(
    scene: Scene, path: str, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes while one listens, and what changed between the page and the beginning of that: it is told once."""
    monkeypatch.setattr(source, "SURVEY_S_MIN", 0)
    monkeypatch.setattr(server, "LIVE_S_MIN", 0)
    deployments = scene.db.collection("Deployment")
    await deployments.create("d-1", {"status": 0})
    await scene.source.documents("Deployment")  # so the log is followed, and all that was before is seen
    page = await live_of(scene, path)
    assert page.startswith(live)
    answer = await scene.client.get(page)
    telling = asyncio.ensure_future(said(answer))
    await asyncio.sleep(0.1)
    assert not telling.done(), "nothing has changed"
    await deployments.update("d-1", {"status": 1})
    assert (await telling).startswith("event: moved")
    answer.close()
    page = await live_of(scene, path)
    await deployments.update("d-1", {"status": 2})
    answer = await scene.client.get(page)
    assert (await said(answer)).startswith("event: moved")
    answer.close()


async def test_a_document_is_told_of_when_it_changes_or_settles(scene: Scene) -> None:
    """And not of others."""
    deployments = scene.db.collection("Deployment")
    await deployments.create("d-1", {"status": 0})
    answer = await scene.client.get(await live_of(scene, "/document?kind=Deployment&key=d-1"))
    telling = asyncio.ensure_future(said(answer))
    await deployments.create("d-2", {"status": 0})
    await asyncio.sleep(0.3)
    assert not telling.done()
    assert scene.db._writer is not None
    await scene.db._writer.aclose()
    await scene.writer.aclose()
    assert (await telling).startswith("event: moved")
    answer.close()
    assert "settled" in await scene.page("/document?kind=Deployment&key=d-1")


async def test_blocks_of_a_stage_log_come_as_they_are_stored(scene: Scene) -> None:
    """Escaped, numbered, from where one was; and that it is complete."""
    stage = StageLogs(scene.log).stage("d", "s")
    await stage.append([Block(0, "one"), Block(1, "two <b>\nlines")])
    answer = await scene.client.get("/live/stage?deployment=d&stage=s&after=1")
    told = await said(answer)
    assert told.startswith("id: 2\nevent: block\ndata: <div")
    assert "two &lt;b&gt;\ndata: lines</pre>" in told
    await stage.complete([Block(2, "three")])
    assert "three" in await said(answer)
    assert "event: complete" in await said(answer)
    assert await answer.content.read() == b""
    again = await scene.client.get("/live/stage?deployment=d&stage=s", headers={"Last-Event-ID": "2"})
    assert (await said(again)).startswith("id: 3")
    again.close()


async def test_a_stream_ends_with_what_ended_it(scene: Scene) -> None:
    """In one line; the page then says that it is not live."""
    stage = StageLogs(scene.log).stage("d", "s")
    await stage.append([Block(0, "one")])
    answer = await scene.client.get("/live/stage?deployment=d&stage=s&after=99999999999999999999")
    told = await said(answer)
    assert told.startswith("event: ended\ndata: InvalidArgument")
    assert await answer.content.read() == b""


async def test_who_goes_away_leaves_nothing_behind(scene: Scene) -> None:
    """Streams end with who looked, and with the console."""
    answers = [await scene.client.get("/live?of=Deployment") for _ in range(3)]
    view = (await scene.source.documents("Deployment")).view
    await asyncio.sleep(0.05)
    assert len(view._subscriptions) == 3
    for answer in answers[:2]:
        answer.close()
    async with asyncio.timeout(5):
        while len(view._subscriptions) > 1:  # noqa: ASYNC110  # nobody tells that one went
            await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await scene.client.close()
    assert len(view._subscriptions) == 0


# What goes wrong below --------------------------------------------------------------------------


async def test_a_collection_that_cannot_be_read_is_told_and_tried_again(scene: Scene) -> None:
    """Damage is on the page, with what to do; mended, the next look shows it."""
    async with AsyncExitStack() as stack:
        segment, *_ = [listed.key async for listed in scene.store.list("log/")]
        blob = await scene.store.get(segment)
        await scene.store.delete(segment)
        await scene.store.create(segment, b"rubbish")
        log = await stack.enter_async_context(logstore.open(scene.store, read_only=True))
        source = await stack.enter_async_context(Source(log, [DEPLOYMENTS]))
        client = await stack.enter_async_context(TestClient(TestServer(Console(source, "x").application())))
        answer = await client.get("/collection?kind=Deployment")
        assert (answer.status, "Corrupt" in await answer.text()) == (500, True)
        assert "not readable" in await (await client.get("/collections")).text()
        answer = await client.get("/events")
        assert (answer.status, "Corrupt" in await answer.text()) == (500, True)
        await scene.store.delete(segment)
        await scene.store.create(segment, blob.data)
        assert (await client.get("/collection?kind=Deployment")).status == 200


class Outage(MemoryStore):
    """A store that may not answer."""

    out = False

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> Blob:
        if self.out:
            raise Unavailable("nobody there")
        return await super().get(key, start, stop)


async def test_a_store_that_does_not_answer_is_told_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page says so while it lasts, and is right again afterwards."""
    monkeypatch.setattr(source, "SURVEY_S_MIN", 0)
    settings = LogSettings(retry=RetrySettings(attempt_timeout_ms=20, deadline_ms=20))
    store = Outage()
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(logstore.open(store))
        db = await stack.enter_async_context(DocumentStore.open(log, writer="web-1", collections=[DEPLOYMENTS]))
        await db.collection("Deployment").create("d-1", {"status": 0})
        looking = await stack.enter_async_context(logstore.open(store, read_only=True, settings=settings))
        asked = await stack.enter_async_context(Source(looking, [DEPLOYMENTS]))
        client = await stack.enter_async_context(TestClient(TestServer(Console(asked, "x").application())))
        paths = ["/", "/collection?kind=Deployment", "/document?kind=Deployment&key=d-1"]
        assert [(await client.get(path)).status for path in paths] == [200, 200, 200]
        store.out = True
        asked._overview = None
        for path in paths:
            answer = await client.get(path)
            assert (answer.status, "nobody there" in await answer.text()) == (503, True)
        store.out = False
        await db.collection("Deployment").create("d-2", {"status": 0})
        assert [(await client.get(path)).status for path in paths] == [200, 200, 200]
        assert "d-2" in await (await client.get(paths[1])).text()


async def test_a_history_that_cannot_be_read_is_told_in_its_place(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document is there all the same."""

    async def history(kind: str, key: str) -> None:
        raise Corrupt("<an object> is not what was written")

    monkeypatch.setattr(scene.source, "history", history)
    page = await scene.page("/document?kind=Deployment&key=..")
    assert "Corrupt: &lt;an object&gt; is not what was written" in page
    assert 'class="document"' in page
    assert page.endswith("</html>\n")
