"""The page of one document: as it is or was, and every event that made it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from logstore import StoredEvent
from logstore.clock import stamp_ms
from logstore.event import Data
from logstore.keys import NAME_BYTES_MAX
from projections.console.history import Telling
from projections.console.look import Look, ago, as_text, clock_time, count, notice, table, tag
from projections.console.markup import Child, Markup, element, joined, link, url
from projections.console.page import part
from projections.document import META, version_of
from projections.patch import is_same
from projections.words import moment

__all__ = ["EVENTS_SHOWN", "crumbs", "document", "history", "says"]

EVENTS_SHOWN: Final = 200
PAIRS_MAX: Final = 24  # fields of an event that are shown
LEAVES_MAX: Final = 500  # and of how many at most is known whether they are new
DEPTH_MAX: Final = 4  # names that lead to one
TITLE_MAX: Final = 2_000


def crumbs(kind: str, key: str, *, declared: bool = True) -> Markup:
    """The way back: to the collection, or to the events of that kind."""
    ways = ("Collections", "/collections", "/collection") if declared else ("Events", "/events", "/events")
    all_, one = link(ways[1], ways[0]), link(url(ways[2], kind=kind), kind)
    return joined(all_, " / ", one, " / ", element("code", key))


def document(
    kind: str, key: str, row: Data | None, look: Look, *, settled: bool, at: str, was: tuple[int, Data | None] | None
) -> Markup:
    """The document as it is, or as it ``was`` at a stamp: what is otherwise now is marked. ``at``: as typed."""
    doc = None if row is None else row["doc"]
    head = joined(element("h1", element("code", key), element("small", kind)), _moment(kind, key, at))
    if was is not None:
        return joined(head, _then(kind, key, doc, look, was))
    if row is None:
        told, shown = notice("There is no such document now. What was, its history tells."), None
    else:
        state = tag("settled", "good") if settled else tag("pending", "busy", "an event about it is not settled yet")
        facts: list[Child] = [state, " · version ", element("code", version_of(row))]
        if "stages" in row["doc"] and len(key.encode()) <= NAME_BYTES_MAX:
            facts += [" · ", link(url("/stages", deployment=key), "stage logs")]
        told, shown = element("p", facts, class_="more"), look.tree(row["doc"])
    return joined(head, part("state", told), part("document", shown, class_="document"))


def _then(kind: str, key: str, doc: Data | None, look: Look, was: tuple[int, Data | None]) -> Markup:
    stamp, then = was
    told = joined(
        "As it was ",
        ago(stamp_ms(stamp), look.now_ms, f" · stamp {stamp}"),
        f", at {moment(stamp)}. What is otherwise now is marked. ",
        link(url("/document", kind=kind, key=key), "As it is now"),
        ".",
    )
    if then is None:
        shown: Child = element("p", "There was no such document then.", class_="empty")
    else:
        shown = look.tree(then, now={} if doc is None else doc)
    return joined(notice(told), element("section", shown, class_="document"))


def _moment(kind: str, key: str, at: str) -> Markup:
    """Where one says a moment."""
    typed = element("input", name="at", value=at, placeholder="2026-11-26T10:00:00Z, or a stamp", size=32)
    return element(
        "form",
        element("input", type="hidden", name="kind", value=kind),
        element("input", type="hidden", name="key", value=key),
        element("label", "as it was at ", typed),
        element("button", "Show"),
        action="/document",
        class_="query",
    )


def history(
    kind: str,
    key: str,
    told: Iterable[Telling],
    read: int,
    look: Look,
    *,
    declared: bool = True,
    whole: bool = True,
    at: int | None = None,
) -> Markup:
    """The events of a document, the newest first. ``told``: the last of the ``read`` ones.

    What became of them can be told where the collection is ``declared``, and the ``whole`` history can be read.
    """
    rows = [_telling(kind, key, each, look, declared=declared, whole=whole, at=at) for each in told]
    heads = ["time", "event", *([""] if declared else []), "what it says"]
    notes: list[Child] = []
    if not whole:
        notes.append("Older history is gone, so what became of these events cannot be told.")
    if read > len(rows):
        notes.append(f"The last {len(rows)} of {read:,} events are shown.")
    return part(
        "history",
        element("h2", "History", element("small", count(read), " events" if read != 1 else " event")),
        [element("p", note, class_="more") for note in notes],
        table(heads, rows[::-1], empty="The log holds no event of this key.", name="History", class_="stream"),
    )


def _telling(
    kind: str, key: str, telling: Telling, look: Look, *, declared: bool, whole: bool, at: int | None
) -> Markup:
    event = telling.event
    when: Child = clock_time(stamp_ms(event.stamp), look.now_ms, f" · stamp {event.stamp}")
    if event.settled and declared:
        when = link(url("/document", kind=kind, key=key, at=event.stamp), when)
    place = f"chapter {event.chapter}, session {event.session}, seq {event.seq}"
    return element(
        "tr",
        element("td", when),
        element(
            "td", element("b", event.type), element("small", _what_it_does(event), " by ", event.writer, title=place)
        ),
        element("td", _verdict(telling, whole)) if declared else None,
        element("td", says(event, look, telling.before if whole else None)),
        data_key=f"{event.chapter}/{event.session}/{event.seq}",
        class_="rejected" if declared and whole and telling.verdict else None,
        aria_current="true" if at == event.stamp else None,
    )


def _what_it_does(event: StoredEvent) -> str | None:
    asked = (event.meta or {}).get(META)
    does = asked.get("do") if isinstance(asked, Mapping) else None
    return does if isinstance(does, str) and f"{does}d" != event.type else None


def _verdict(telling: Telling, whole: bool) -> Markup:
    settled = telling.event.settled
    final = "" if settled else "; not final yet: another event may still come before it"
    if not whole:
        return tag("unknown", title="history before it is gone")
    if telling.verdict is None:
        words, tone = ("applied", "good") if settled else ("applied, pending", "busy")
        return tag(words, tone, f"it took effect{final}")
    shown = tag(telling.verdict.kind, "bad", f"it changed nothing: {telling.verdict.reason}{final}")
    return joined(shown, element("small", telling.verdict.reason, class_="reason"))


def says(event: StoredEvent, look: Look, before: Data | None = None) -> Markup:
    """What an event says: each field of its data that was otherwise ``before``; all else stands in titles."""
    leaves = list(islice(_leaves(event.data or {}, ()), LEAVES_MAX))
    new = [(path, value) for path, value in leaves if not _is_there(before, path, value)]
    shown: list[Child] = [
        element("span", element("span", ".".join(path), class_="label"), " ", look.brief(value, path), class_="pair")
        for path, value in new[:PAIRS_MAX]
    ]
    for words, is_shown, told in (
        ("…", len(new) > PAIRS_MAX or len(leaves) == LEAVES_MAX, event.data),
        (f"{len(leaves) - len(new)} as before", len(leaves) > len(new), event.data),
        ("meta", (event.meta or {}).keys() - {META}, event.meta),
    ):
        if is_shown:
            shown.append(element("span", words, class_="label", title=as_text(told)[:TITLE_MAX]))
    return element("div", shown, class_="says")


def _is_there(before: Data | None, path: tuple[str, ...], value: Any) -> bool:
    there: Any = before
    for name in path:
        if not isinstance(there, Mapping) or name not in there:
            return False
        there = there[name]
    return is_same(there, value)


def _leaves(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The fields that hold no further ones, each with the names that lead to it."""
    for name, value in data.items():
        if isinstance(value, Mapping) and value and len(path) < DEPTH_MAX:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
