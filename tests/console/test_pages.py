"""The pages, as a browser gets them: everything on them, every link, and nobody's script."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from logstore import Block, Event, StageLogs
from projections.console.collections import PAGE_ROWS
from projections.document import Write
from projections.query import OPERATORS
from tests.console.conftest import HOSTILE, Scene

OURS = {"a", "aside", "b", "body", "button", "code", "datalist", "dd", "div", "dl", "dt", "footer", "form", "h1", "h2"}
OURS |= {"head", "header", "html", "i", "input", "kbd", "label", "link", "main", "meta", "nav", "option", "p", "pre"}
OURS |= {"script", "section", "select", "small", "span", "table", "tbody", "td", "th", "thead", "time", "title", "tr"}
LOADED = ["/static/icon.svg", "/static/style.css", "/static/script.js"]


class Page(HTMLParser):
    """What a browser would do with a page: where it leads, and what would run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.strange: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in OURS:
            self.strange.append(tag)
        if tag not in {"input", "link", "meta"}:
            self.open.append(tag)
        for name, value in attrs:
            if name.startswith("on") or name in {"style", "srcdoc"}:
                self.strange.append(f"{tag} {name}")
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in {"href", "src"}:
                self.loaded.append(value or "")
            if name in {"href", "src", "action", "data-live"} and not (value or "").startswith(("/", "#")):
                self.strange.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"script", "style"} and data.strip():
            self.strange.append(data)


async def test_every_link_on_every_page_leads_to_a_page(scene: Scene) -> None:
    """And nothing that stands in the log becomes an element, an attribute, an address or a script of its own."""
    assert await crawl(scene, [f"/stages?deployment={quote(name[:99], safe='')}" for name in HOSTILE]) > 60


async def test_so_it_is_where_nobody_declared_collections(bare: Scene) -> None:
    """Events are shown as they are stored, and of each key all there are."""
    assert await crawl(bare) > 30
    assert "No collection was declared" in await bare.page("/collections")
    assert await bare.page(f"/key?kind={quote('Raw & <kind>')}&key={quote(HOSTILE[0], safe='')}")


async def crawl(scene: Scene, more: Sequence[str] = ()) -> int:
    """Follow every link of every page; how many there were."""
    seen: set[str] = set()
    to_see = deque(["/", *more])
    while to_see:
        path = to_see.popleft()
        if path in seen or path.startswith("#"):
            continue
        seen.add(path)
        page = Page(await scene.page(path))
        assert not page.strange, path
        assert not page.open, path
        assert page.loaded == LOADED, path
        to_see.extend(page.links)
    for path in LOADED:
        assert (await scene.client.get(path)).status == 200
    return len(seen)


async def test_the_overview_says_how_the_log_stands(scene: Scene) -> None:
    """Who wrote and who writes, what the watermark waits for, what looking costs."""
    page = await scene.page("/")
    for words in (
        "raw &lt;i&gt;writer&lt;/i&gt;",
        "web-1",
        "holds the watermark",
        "Requests of this process",
        "list price",
    ):
        assert words in page
    assert "memory://&lt;scene&gt;" in page


async def test_snapshots_and_registered_projections_are_there(scene: Scene) -> None:
    """With the rows of the newest; a manifest that cannot be read is told, and the page is there all the same."""
    manifest = await scene.db.collection("Deployment").view.snapshot()
    page = await scene.page("/")
    assert "registered" in page
    assert f">{manifest.rows}<" in page
    *_, key = [listed.key async for listed in scene.store.list("snapshots/Deployment")]
    await scene.store.delete(key)
    scene.source._overview = None
    assert (await scene.page("/")).count("<h2>") == page.count("<h2>")


async def test_collections_are_asked_by_field_operator_and_value(scene: Scene) -> None:
    """Several clauses, an order, and the plan by which it is answered."""
    page = await scene.page(
        "/collection?kind=Deployment&f=status&o=%3D%3D&v=1&f=updated_at&o=%3C&v=1700000003&order=-updated_at"
    )
    assert page.count("<tr data-key") == 3
    assert "3</span> match" in page
    assert "where status == 1 and updated_at &lt; 1700000003" in page
    one_of = await scene.page("/collection?kind=Deployment&f=note&o=in&v=..,javascript:alert(1)")
    assert one_of.count("<tr data-key") == 2
    as_json = await scene.page('/collection?kind=Deployment&f=note&o=in&v=["..","x,y"]')
    assert as_json.count("<tr data-key") == 1
    as_text = await scene.page("/collection?kind=Deployment&f=note&o===&v=..")
    assert as_text.count("<tr data-key") == 1


@pytest.mark.parametrize(
    "asked",
    [
        "f=a..b&o=%3D%3D&v=1",
        "f=status&o=like&v=1",
        "order=--status",
        "cursor=nonsense",
        "f=status&o=%3C&v=" + "[" * 2_000,
        "&".join(["f=a&o=%3D%3D&v=1"] * 5),
    ],
)
async def test_what_cannot_be_asked_is_told_beside_the_question(scene: Scene, asked: str) -> None:
    """The form stays as it was typed, to be mended."""
    page = await scene.page(f"/collection?kind=Deployment&{asked}")
    assert 'class="query"' in page
    assert Page(page).strange == []


async def test_too_many_clauses_are_refused(scene: Scene) -> None:
    """A page has an end."""
    await scene.page("/collection?kind=Deployment&" + "&".join(["f=a&v=1"] * 100), status=400)


async def test_pages_go_on_from_one_another(scene: Scene) -> None:
    """By cursor, to the last document, none twice."""
    deployments = scene.db.collection("Deployment")
    for number in range(PAGE_ROWS + 20):
        await deployments.create(f"d-{number:03}", {"status": 2, "updated_at": number})
    path, keys = "/collection?kind=Deployment&f=status&o===&v=2&order=updated_at", []
    for _ in range(5):
        page = await scene.page(path)
        keys += [line.split('"')[0] for line in page.split('<tr data-key="')[1:]]
        following = [each for each in Page(page).links if "cursor=" in each]
        if not following:
            break
        path = following[0]
    assert keys == [f"d-{number:03}" for number in range(PAGE_ROWS + 20)]


async def test_a_document_its_history_and_its_past(scene: Scene) -> None:
    """Each event with its verdict; as it was at any of them, what is otherwise now marked; and before there was one."""
    deployments = scene.db.collection("Deployment")
    await deployments.create("d-1", {"status": 0, "name": "n"})
    await scene.writer.append(Event("Deployment", "d-1", "meddled", {"status": 7}))
    await deployments.update("d-1", {"status": 2}, type="failed")
    await scene.writer.append(Event("Deployment", "d-1", "turned back", {"status": 1}, Write("update").meta()))
    page = await scene.page("/document?kind=Deployment&key=d-1")
    assert page.count("applied, pending") == 2
    assert "not written by a document store" in page
    assert "a status &lt;only&gt; grows" in page
    await settle(scene)
    page = await scene.page("/document?kind=Deployment&key=d-1")
    assert page.count(">applied<") == 2
    moments = [each for each in Page(page).links if "at=" in each]
    assert len(moments) == 4
    first = await scene.page(moments[-1])
    assert 'class="differs" title="now: 2"' in first
    assert "What is otherwise now is marked" in first
    assert "There was no such document then." in await scene.page("/document?kind=Deployment&key=d-1&at=2001-01-01")
    gone = await scene.page("/document?kind=Deployment&key=never")
    assert "There is no such document now" in gone
    assert "The log holds no event of this key." in gone


async def settle(scene: Scene) -> None:
    """End what holds the watermark."""
    await scene.writer.aclose()
    assert scene.db._writer is not None
    await scene.db._writer.aclose()
    for documents in ("Deployment", "Piped <b>"):
        await scene.db.collection(documents).view.settle()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/static/server.py", 404),
        ("/static/..%2fserver.py", 404),
        ("/collection?kind=Nobody", 404),
        ("/document?kind=Nobody&key=d-1", 404),
        ("/document?kind=Deployment&key=d-1&at=yesterday", 400),
        ("/document?kind=Deployment&key=d-1&at=99999999999999999999999", 400),
        ("/document?kind=Deployment&key=d-1&at=9999-01-01", 400),
        ("/stage?deployment=&stage=", 400),
        ("/stage?deployment=a&stage=" + "x" * 300, 400),
        ("/live?of=Nobody", 404),
    ],
)
async def test_what_is_not_there_is_told_on_a_page(scene: Scene, path: str, status: int) -> None:
    """With the status of its kind, and never a traceback."""
    page = await scene.page(path, status)
    assert "<main" in page
    assert "Traceback" not in page


async def test_an_address_of_nonsense_is_answered(scene: Scene) -> None:
    """Bytes that are no characters, numbers that are none."""
    for path in (
        "/document?kind=Deployment&key=%ff%fe%00",
        "/stage?deployment=a&stage=b&retry=x",
        "/events?kind=%ed%a0%80",
    ):
        assert Page(await scene.page(path)).strange == []


async def test_events_are_filtered_and_the_newest_stand_first(scene: Scene) -> None:
    """By kind, key, writer, type."""
    page = await scene.page("/events?kind=Deployment&type=meddled")
    assert page.count("<tr data-key") == len(HOSTILE)
    page = await scene.page("/events?" + f"key={quote('..')}&writer=web-1")
    assert page.count("<tr data-key") == 2
    assert page.index(">..<") < page.index(">created<")


async def test_a_document_of_many_events_shows_the_last(scene: Scene) -> None:
    """All are read, so verdicts are right; a page has an end."""
    deployments = scene.db.collection("Deployment")
    await deployments.create("d-1", {"status": 0, "n": 0})
    await asyncio.gather(*(deployments.update("d-1", {"n": n}, blind=True) for n in range(250)))
    page = await scene.page("/document?kind=Deployment&key=d-1")
    assert "The last 200 of 251 events are shown." in page


async def test_a_stage_log_says_what_was_printed(scene: Scene) -> None:
    """By index, without a terminal's colours; whether it is complete; and that nothing was written yet."""
    name = quote(HOSTILE[0], safe="")
    page = await scene.page(f"/stage?deployment={name}&stage={name}&retry=1")
    assert "second line</pre>" in page
    assert "complete" in page
    assert "data-live" not in page
    page = await scene.page("/stage?deployment=none&stage=none")
    assert "being written" in page
    await StageLogs(scene.log).stage("d", "s").append([Block(0, "x")])
    assert "data-live" in await scene.page("/stage?deployment=d&stage=s")


async def test_whatever_is_typed_is_answered(scene: Scene) -> None:
    """A field, an operator and a value of any kind, an order, a moment, a number: a page, never a mistake of ours."""
    rng = random.Random(5)
    typed = [
        *HOSTILE[:11],
        *OPERATORS,
        "status",
        "stages.plan.status",
        "-status",
        "null",
        "true",
        "-1.5",
        "1e999",
        "NaN",
    ]
    typed += [
        "9" * 40,
        "9" * 5_000,
        '"x"',
        "[1,[2,{}]]",
        '{"a": null}',
        "[",
        "1,2",
        ",",
        "status,",
        '{"$bytes": "AP8="}',
        "٣",
    ]
    for _ in range(150):
        f, o, v, order, cursor, at = (quote(rng.choice(typed), safe="") for _ in range(6))
        sign = rng.choice([quote(each) for each in OPERATORS] + [o])
        for path in (
            f"/collection?kind=Deployment&f={f}&o={sign}&v={v}&order={order}",
            f"/collection?kind=Deployment&f={f}&o={sign}&v={v}&cursor={cursor}",
            f"/stage?deployment={f}&stage={v}&retry={at}",
        ):
            answer = await scene.client.get(path)
            assert answer.status in (200, 400), path
    for moment in typed:
        answer = await scene.client.get(f"/document?kind=Deployment&key=..&at={quote(moment, safe='')}")
        assert answer.status in (200, 400), moment
