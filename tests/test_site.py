"""The site that ``make docs`` builds has every page, and every public name once. Links and anchors it checks itself."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from types import ModuleType
from typing import Final

import pytest

import logstore.filestore
import logstore.notices
import logstore.otel
import logstore.sync
import logstore.testing
import projections.metrics
import projections.sync
import projections.testing
from tests.pages import PAGES, ROOT, read

WINDOWS: Final = (
    logstore,
    logstore.filestore,
    logstore.notices,
    logstore.otel,
    logstore.sync,
    logstore.testing,
    projections,
    projections.metrics,
    projections.sync,
    projections.testing,
)
CONFIG: Final = (ROOT / "mkdocs.yml").read_text()
SHOWN: Final = [
    name
    for page in PAGES
    if page.startswith("docs/reference/")
    for name in re.findall(r"^::: ([\w.]+)$", read(page), re.MULTILINE)
]


def found(name: str) -> object:
    """What a dotted name means."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def test_the_menu_names_every_page_once() -> None:
    """A page that is in no menu is found by nobody."""
    named = re.findall(r"^ +- (?:[^:\n]+: )?([\w./-]+\.md)$", CONFIG, re.MULTILINE)
    left_out = re.findall(r"^exclude_docs: (\S+)$", CONFIG, re.MULTILINE)
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert Counter(named + left_out) == Counter(pages)


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.__name__)
def test_every_public_name_is_on_one_reference_page(window: ModuleType) -> None:
    """What several windows show alike is in one place."""
    places = Counter(id(found(name)) for name in SHOWN)
    assert {name: places[id(getattr(window, name))] for name in window.__all__} == dict.fromkeys(window.__all__, 1)


def test_a_reference_page_shows_public_names_only() -> None:
    """What no window shows may go without notice, so no page describes it."""
    public = {id(getattr(window, name)) for window in WINDOWS for name in window.__all__}
    assert [name for name in SHOWN if id(found(name)) not in public] == []


def test_every_part_of_a_page_that_is_shown_elsewhere_is_there() -> None:
    """Pages of the site show parts of the README; its readers see the same text once."""
    wanted = {
        part for page in PAGES for part in re.findall(r'^--8<-- "README\.md:([\w-]+)"$', read(page), re.MULTILINE)
    }
    marked = re.findall(r"^<!-- --8<-- \[start:([\w-]+)\] -->$", read("README.md"), re.MULTILINE)
    assert wanted
    assert Counter(marked) == Counter(wanted)
