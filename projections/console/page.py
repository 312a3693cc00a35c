"""The frame around every page: head, menu, foot. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from logstore import StoreStatistics
from projections.console.look import count, price
from projections.console.markup import Child, Markup, element, joined, link, url

__all__ = ["MENU", "Frame", "part"]

MENU: Final = {"/": "Overview", "/collections": "Collections", "/events": "Events", "/stages": "Stage logs"}


def part(name: str, *children: Child, class_: str | None = None) -> Markup:
    """A part of a page that is brought up to date while somebody looks."""
    return element("section", *children, id=name, data_part=True, class_=class_)


@dataclass(frozen=True, slots=True)
class Frame:
    """What all pages have. ``menu``: the one of the menu that a page belongs to; ``now_ms``: the store's time."""

    address: str
    menu: str
    now_ms: int

    def open(self, title: str, *, live: str | None = None, crumbs: Child = None) -> Markup:
        """What stands before the page's own: all up to the beginning of ``main``. ``live``: who tells of changes."""
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{title} · logstore"),
            element("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
            element("link", rel="stylesheet", href="/static/style.css"),
            element("script", src="/static/script.js", defer=True),
        )
        header = element(
            "header",
            link("/", "logstore", class_="brand"),
            element("nav", [self._entry(path, name) for path, name in MENU.items()], aria_label="pages"),
            element("span", self.address, class_="address", title=self.address),
            element("span", class_="live", data_live=live, title="live updates") if live else None,
        )
        begin = joined(
            link("#main", "To the content", class_="skip"),
            header,
            element("div", crumbs, class_="crumbs") if crumbs else None,
        )
        return Markup(
            f'<!doctype html>\n<html lang="en">{head}<body data-now="{self.now_ms:d}">{begin}<main id="main">'
        )

    def close(self, requests: StoreStatistics) -> Markup:
        """What stands after it. ``requests``: those that were made while the page was."""
        made = (
            "no requests"
            if not requests.requests
            else joined(count(requests.requests), " request" if requests.requests == 1 else " requests")
        )
        foot = element(
            "footer",
            element("span", "This page only reads; it made ", made, f", {price(requests.price_usd)} at list price."),
            element("span", element("kbd", "/"), " to the first field"),
        )
        return Markup(f"</main>{foot}</body></html>\n")

    def whole(
        self, title: str, *body: Child, live: str | None = None, requests: StoreStatistics | None = None
    ) -> Markup:
        """A page at once."""
        return joined(self.open(title, live=live), *body, self.close(requests or StoreStatistics()))

    def _entry(self, path: str, name: str) -> Markup:
        return link(url(path), name, aria_current="page" if path == self.menu else None)
