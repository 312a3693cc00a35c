"""HTML of values: nothing that is text becomes anything else."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.console.markup import Markup, element, joined, link, text, url
from tests.console.conftest import HOSTILE


class Seen(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_never_anything_but_text(words: str) -> None:
    """As a child, and as an attribute's value, whatever it is made of."""
    seen = Seen(element("p", words, title=words))
    assert seen.tags == ["p", *["i"] * (len(seen.tags) - 1)]
    if "i" not in seen.tags and "\r" not in words:
        assert seen.text == words
        assert seen.attributes["title"] == words


@pytest.mark.parametrize("hidden", ["\x00", "\x1b", "\u202e", "\u200b", "\ufeff", "\u2066", "\x7f", "\xad"])
def test_what_cannot_be_seen_is_shown(hidden: str) -> None:
    """Control characters, and those that turn the direction of what follows, as their number."""
    assert text(f"a{hidden}b") == f'a<i class="unseen">U+{ord(hidden):04X}</i>b'


def test_children_are_put_together() -> None:
    """Markup as it is, text escaped, numbers, lists, nothing; attributes that are absent are left out."""
    made = element(
        "td", "<", Markup("<b>"), 7, [None, ["&"]], class_="n", data_key="k", title=None, hidden=True, x=False
    )
    assert made == '<td class="n" data-key="k" hidden>&lt;<b>7&amp;</td>'
    assert element("input", value=0) == '<input value="0">'
    assert joined() == ""


@pytest.mark.parametrize("name", HOSTILE)
def test_an_address_says_any_name(name: str) -> None:
    """Names go into the query part, where nothing of them is taken for a path."""
    address = url("/document", ("v", name), kind=name, at=None)
    assert address.startswith("/document?kind=")
    assert not set(address) & set("<>\"' \n")


def test_links_lead_to_our_own_pages() -> None:
    """Whatever stands in a log, no link is made of it."""
    with pytest.raises(AssertionError):
        link("javascript:alert(1)", "x")
