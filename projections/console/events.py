"""The page of the newest events, as they are stored. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from logstore import StoredEvent
from logstore.clock import stamp_ms
from projections.console.document import says
from projections.console.look import Look, ago, count, notice, table
from projections.console.markup import Child, Markup, element, joined, link, url
from projections.console.page import part
from projections.console.source import EVENTS_MAX, Newest

__all__ = ["Filter", "events"]

SHOWN_MAX: Final = 200
KINDS_MAX: Final = 60


class Filter(NamedTuple):
    """Which events are wanted; empty: any."""

    kind: str = ""
    key: str = ""
    writer: str = ""
    type: str = ""

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Filter:
        """Return what the query part of an address asks for."""
        return cls(*(parameters.get(name, "") for name in cls._fields))

    def lets(self, event: StoredEvent) -> bool:
        """Whether it lets an event through."""
        return all(wanted in ("", getattr(event, name)) for name, wanted in zip(self._fields, self, strict=True))


def events(newest: Newest, wanted: Filter, declared: Mapping[str, Any], look: Callable[[str], Look]) -> Markup:
    """Return the page's content. ``declared``: kinds whose documents have a page; ``look``: how each kind looks."""
    total = sum(newest.kinds.values())
    matching = sorted(filter(wanted.lets, newest.events), key=lambda event: event.order, reverse=True)
    rows = [_event(event, declared, look(event.kind)) for event in islice(matching, SHOWN_MAX)]
    return joined(
        element("h1", "Events"),
        _form(wanted),
        part(
            "events",
            element("p", _kinds(newest, wanted), class_="kinds"),
            _note(newest, wanted, len(matching), total),
            table(("time", "event", "key", "writer", "what it says"), rows, name="Events", class_="stream"),
        ),
    )


def _form(wanted: Filter) -> Markup:
    fields = [
        element("label", f"{name} ", element("input", name=name, value=value, size=14))
        for name, value in zip(wanted._fields, wanted, strict=True)
    ]
    clear = link("/events", "clear") if any(wanted) else None
    return element("form", fields, element("button", "Show"), clear, action="/events", class_="query", role="search")


def _kinds(newest: Newest, wanted: Filter) -> list[Child]:
    return [
        link(
            url("/events", kind=kind),
            kind,
            " ",
            count(number),
            class_="kind",
            aria_current="true" if kind == wanted.kind else None,
        )
        for kind, number in newest.kinds.most_common(KINDS_MAX)
    ]


def _note(newest: Newest, wanted: Filter, matching: int, total: int) -> Markup | None:
    if newest.reading:
        return notice(f"History is being read: {total:,} events so far.", "busy")
    notes = []
    if any(wanted) and total > len(newest.events):
        notes.append(f"{matching} among the newest {len(newest.events):,}.")
        if wanted.kind and wanted.key:
            notes.append(
                joined("All of this key: ", link(url("/key", kind=wanted.kind, key=wanted.key), "its history"), ".")
            )
    if matching > SHOWN_MAX:
        notes.append(f"The newest {SHOWN_MAX} are shown.")
    assert len(newest.events) <= EVENTS_MAX
    return element("p", [joined(note, " ") for note in notes], class_="more") if notes else None


def _event(event: StoredEvent, declared: Mapping[str, Any], look: Look) -> Markup:
    page = "/document" if event.kind in declared else "/key"
    pending = (
        None if event.settled else element("span", "~", title="its place was not final when it came", class_="label")
    )
    return element(
        "tr",
        element("td", ago(stamp_ms(event.stamp), look.now_ms, f" · stamp {event.stamp}"), pending),
        element("td", link(url("/events", kind=event.kind), event.kind), " ", element("b", event.type)),
        element("td", link(url(page, kind=event.kind, key=event.key), element("code", event.key))),
        element("td", link(url("/events", writer=event.writer), element("code", event.writer))),
        element("td", says(event, look)),
        data_key=f"{event.chapter}/{event.session}/{event.seq}",
    )
