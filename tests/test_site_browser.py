"""The site in a browser, from file://: it follows the system's colours, is searched, and fetches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import browser
from tests.pages import ROOT

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it."""
    directory = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


async def test_pages_are_whole_in_light_and_dark(site: Path) -> None:
    """Nothing is missing, nothing goes wrong, and the background is light or dark as the system is."""
    async with browser() as tab:
        for dark in (False, True):
            await tab.size(1300, 1000, dark=dark)
            for page in ("index", "transactions", "reference/documents"):
                await tab.open((site / f"{page}.html").as_uri())
                background = await tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
                assert (int(background) < 128) is dark
                needed = await tab.evaluate(
                    "[...document.querySelectorAll('script[src], img, link')].map((each) => each.src || each.href)"
                )
                assert needed
                assert [address for address in needed if not address.startswith("file:")] == []
        assert tab.told == []


async def test_it_is_searched_without_a_server(site: Path) -> None:
    """A browser starts no worker from a file; the search works all the same."""
    async with browser() as tab:
        await tab.size(1300, 1000)
        await tab.open((site / "index.html").as_uri())
        await tab.evaluate("document.querySelector('.md-search__input').focus()")
        for character in "takeover":
            await tab.press(character)
        await tab.wait_for("document.querySelector('.md-search-result__link') !== null")
        found = await tab.evaluate("[...document.querySelectorAll('.md-search-result__link')].map((each) => each.href)")
        assert any("transactions.html" in address for address in found)
        assert tab.told == []
