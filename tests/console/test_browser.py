"""The console as somebody sees it: pages that come alive, questions that are typed, and nothing that fails."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest

from logstore import Block, StageLogs
from projections.console import Console
from tests.browser import Tab, browser
from tests.console.conftest import HOSTILE, Scene, stage

pytestmark = pytest.mark.browser


@pytest.fixture
async def shown() -> AsyncIterator[tuple[Scene, Tab, str]]:
    """A scene, a browser, and where the console is."""
    async with AsyncExitStack() as stack:
        scene = await stage(stack)
        console = await stack.enter_async_context(Console(scene.source, "memory://scene").serving())
        tab = await stack.enter_async_context(browser())
        yield scene, tab, console.url.rstrip("/")
        assert tab.told == [], "something was refused, or failed, in the browser"


async def test_pages_come_alive(shown: tuple[Scene, Tab, str]) -> None:
    """What is written while somebody looks is there without a step of his, and so are its history and its state."""
    scene, tab, base = shown
    deployments = scene.db.collection("Deployment")
    await deployments.create("d-1", {"status": 0, "name": "quiet"})
    await tab.open(f"{base}/document?kind=Deployment&key=d-1")
    await tab.wait_for("document.querySelector('.live').dataset.state === 'on'")
    assert await tab.evaluate("document.querySelector('#document .tag').textContent") == "pending"
    await tab.evaluate(
        "new MutationObserver(() => { window.wasFresh ||= document.querySelector('tr.fresh b')?.textContent })"
        ".observe(document.body, { childList: true, subtree: true })"
    )
    await deployments.update("d-1", {"status": 2}, type="failed")
    await tab.wait_for("document.querySelector('#document .tag').textContent === 'failure'")
    await tab.wait_for("document.querySelector('#history tbody b').textContent === 'failed'")
    await tab.wait_for("window.wasFresh === 'failed'")
    await tab.open(f"{base}/collection?kind=Deployment&f=name&o=%3D%3D&v=quiet")
    await tab.wait_for("document.querySelector('.live').dataset.state === 'on'")
    await deployments.create("d-2", {"status": 1, "name": "quiet"})
    await tab.wait_for("document.querySelectorAll('#rows tbody tr').length === 2")


async def test_a_question_is_typed_and_sent_by_keys_alone(shown: tuple[Scene, Tab, str]) -> None:
    """A slash leads to the first field, Tab on, Enter asks; the answer's address says what was asked."""
    _, tab, base = shown
    await tab.open(f"{base}/collection?kind=Deployment")
    for key in ("/", *"note", "Tab", "Tab", *"..", "Enter"):
        await tab.press(key)
    await tab.wait_for("document.querySelectorAll('#rows tbody tr').length === 1")
    assert "f=note" in await tab.evaluate("location.search")
    await tab.evaluate("document.querySelector('#rows tbody a').click()")
    await tab.wait_for("document.querySelector('h1 code')?.textContent === '..'")
    await tab.wait_for("document.querySelectorAll('#history tbody tr').length === 3")


async def test_a_page_that_goes_away_under_a_question_is_asked_again(shown: tuple[Scene, Tab, str]) -> None:
    """What waits for a page outlives that a form's answer takes its place (it failed when Enter came in between)."""
    _, tab, base = shown
    await tab.open(f"{base}/collection?kind=Deployment")
    await tab.wait_for(
        "location.search.includes('f=note') || (location.search += '&f=note&o=%3D%3D&v=..', new Promise(() => {}))"
    )
    await tab.wait_for("document.querySelectorAll('#rows tbody tr').length === 1")


async def test_names_of_those_who_mean_no_good_are_only_shown(shown: tuple[Scene, Tab, str]) -> None:
    """Each on the page of its document and of its events: as text, and no script of theirs runs."""
    _, tab, base = shown
    await tab.command("Page.addScriptToEvaluateOnNewDocument", source="window.alert = () => { throw Error('it ran') }")
    for name in HOSTILE:
        await tab.open(f"{base}/document?kind=Deployment&key={quote(name, safe='')}")
        await tab.wait_for("document.querySelectorAll('#history tbody tr').length === 3")
        heading = await tab.evaluate("document.querySelector('h1 code').textContent")
        assert heading == re.sub("[\x00-\x1f\u202e]", lambda at: f"U+{ord(at.group()):04X}", name).replace(
            "U+000A", "\n"
        )
    await tab.open(f"{base}/events")
    assert await tab.evaluate("document.images.length + document.scripts.length") == 1


async def test_a_stage_log_grows_while_it_is_read(shown: tuple[Scene, Tab, str]) -> None:
    """Block by block, until it is complete."""
    scene, tab, base = shown
    log = StageLogs(scene.log).stage("d", "s")
    await log.append([Block(0, "pulling")])
    await tab.open(f"{base}/stage?deployment=d&stage=s")
    await tab.wait_for("document.querySelector('.live').dataset.state === 'on'")
    await log.append([Block(1, "<b>pulled</b>\nand checked", 1)])
    await tab.wait_for("document.querySelectorAll('#blocks .block').length === 2")
    assert await tab.evaluate("document.querySelector('#blocks .good pre').textContent") == "<b>pulled</b>\nand checked"
    await log.complete([Block(2, "failed", 2)])
    await tab.wait_for("document.querySelector('#state .tag').textContent === 'complete'")
    assert await tab.evaluate("document.querySelectorAll('#blocks .block').length") == 3


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_a_phone(shown: tuple[Scene, Tab, str], dark: bool) -> None:
    """No page is wider than the screen, whatever is on it: what is wide scrolls by itself."""
    scene, tab, base = shown
    await scene.db.collection("Deployment").view.snapshot()
    await tab.size(360, 740, dark=dark)
    name = quote(HOSTILE[-1], safe="")
    for path in (
        "/",
        "/collections",
        "/collection?kind=Deployment",
        f"/document?kind=Deployment&key={name}",
        "/events",
        "/stages",
    ):
        await tab.open(f"{base}{path}")
        assert await tab.evaluate("document.documentElement.scrollWidth") <= 360, path
    ground = await tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 26)") is dark


async def test_a_console_that_ended_is_seen_to_have(shown: tuple[Scene, Tab, str]) -> None:
    """The page says that it is not live any more."""
    scene, tab, _ = shown
    async with Console(scene.source, "memory://scene").serving() as console:
        await tab.open(f"{console.url}events")
        await tab.wait_for("document.querySelector('.live').dataset.state === 'on'")
    await tab.wait_for("document.querySelector('.live').dataset.state === 'lost'")
    tab.told.clear()  # that the stream broke
