"""How values look: times, numbers, statuses, documents. Pure.

What is short and readable stands on the page; what is exact stands in the title, shown when the pointer rests on it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

from logstore.clock import COUNTER_BITS
from projections.console.markup import Child, Markup, element
from projections.words import duration, moment, size

__all__ = [
    "Labels",
    "Look",
    "ago",
    "as_text",
    "clock_time",
    "count",
    "dot",
    "fact",
    "notice",
    "price",
    "row",
    "stored_size",
    "table",
    "tag",
]

Labels: TypeAlias = Mapping[str, Mapping[str, "type[IntEnum] | Mapping[Any, str]"]]
"""What the values of a field are called, by kind and field; ``*`` in a field stands for any name."""

_BRIEF_MAX: Final = 96
_TITLE_MAX: Final = 2_000
_TIME_FIELD: Final = re.compile(r"(^|_)(at|time|timestamp|since|until)$")
_SECONDS: Final = range(1_000_000_000, 4_102_444_800)  # 2001 to 2100: nobody counts so far, but for times
_TONES: Final = {
    "good": {"success", "succeeded", "synced", "ok", "done", "completed", "healthy", "applied", "yes"},
    "bad": {"failure", "failed", "error", "timeout", "rejected", "parked", "unhealthy", "deploy error"},
    "busy": {"running", "deploying", "rolling back", "pending", "planned", "open", "in progress"},
}


# Small things -----------------------------------------------------------------------------------


def count(number: int) -> Markup:
    r"""A number, its thousands parted.

    >>> count(1_234_567)
    '<span class="number">1\u2009234\u2009567</span>'
    """
    return element("span", f"{number:,}".replace(",", "\u2009"), class_="number")


def stored_size(number: int) -> Markup:
    """A number of bytes."""
    return element("span", size(number), class_="number", title=f"{number:,} bytes")


def price(usd: float) -> str:
    """A price, as precise as it needs to be.

    >>> price(0.00012), price(3.14159)
    ('$0.00012', '$3.14')
    """
    return f"${usd:.2f}" if usd >= 1 or not usd else f"${usd:.2g}" if usd >= 0.0001 else f"${usd:.6f}".rstrip("0")


def ago(ms: int, now_ms: int, exact: str = "") -> Markup:
    """A moment, as how long ago it was."""
    away = now_ms - ms
    shown = f"{duration(away)} ago" if away >= 1_000 else "now" if away > -1_000 else f"in {duration(-away)}"
    at = moment(ms << COUNTER_BITS)
    return element("time", shown, datetime=at, title=f"{at}{exact}", data_ms=ms)


def clock_time(ms: int, now_ms: int, exact: str = "") -> Markup:
    """A moment, as a time of its day; with the day, where that is another."""
    at, now = moment(ms << COUNTER_BITS), moment(now_ms << COUNTER_BITS)
    day, parted, time = at.partition("T")
    shown = f"{time[:8]}Z" if parted and now.startswith(day) else f"{day} {time[:8]}Z".strip()
    away = now_ms - ms
    said = f"{duration(abs(away))} {'ago' if away >= 0 else 'from now'}"
    return element("time", shown, datetime=at, title=f"{said} · {at}{exact}")


def tag(words: str, tone: str | None = None, title: str | None = None) -> Markup:
    """A status: a dot, and what it is called."""
    return element("span", words, class_=f"tag {tone or _tone(words)}".rstrip(), title=title)


def _tone(words: str) -> str:
    return next((tone for tone, known in _TONES.items() if words.lower() in known), "")


def dot(tone: str, title: str) -> Markup:
    """A status, as a dot alone."""
    return element("span", class_=f"dot {tone}", title=title, role="img", aria_label=title)


def notice(words: Child, tone: str = "") -> Markup:
    """A sentence that stands out."""
    return element("p", words, class_=f"notice {tone}".rstrip(), role="status")


def fact(name: str, value: Child, more: Child = None) -> Markup:
    """One figure, and what it is of."""
    return element(
        "div", element("dt", name), element("dd", value), element("dd", more, class_="more") if more else None
    )


def table(
    heads: Sequence[Child],
    rows: Sequence[Child],
    *,
    name: str,
    numeric: Sequence[int] = (),
    empty: str = "None.",
    class_: str = "grid",
) -> Markup:
    """A table; each of ``rows`` is a ``tr``. ``numeric``: which columns are numbers. Of class "grid": a line a row."""
    if not rows:
        return element("p", empty, class_="empty")
    cells = [element("th", head, scope="col", class_="n" if n in numeric else None) for n, head in enumerate(heads)]
    body = element("table", element("thead", element("tr", cells)), element("tbody", rows), class_=class_)
    return element("div", body, class_="scroll", tabindex=0, role="region", aria_label=name)


def row(*cells: Child, numeric: Sequence[int] = (), key: str) -> Markup:
    """A row of a table. ``key``: by which it is known again when the page is brought up to date."""
    shown = [element("td", cell, class_="n" if n in numeric else None) for n, cell in enumerate(cells)]
    return element("tr", shown, data_key=key)


# Values -----------------------------------------------------------------------------------------


def as_text(value: Any) -> str:
    r"""Return a value as JSON; what JSON cannot say as ``cat --json`` says it.

    >>> as_text({"sum": b"\x00\xff", "n": 1})
    '{"sum": {"$bytes": "AP8="}, "n": 1}'
    """
    return json.dumps(value, ensure_ascii=False, default=_otherwise)


def _otherwise(value: Any) -> Any:
    match value:
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case Mapping():
            return dict(value)
        case _:
            return str(value)


@dataclass(frozen=True, slots=True)
class Look:
    """How the documents of one kind look, now."""

    now_ms: int
    labels: Mapping[str, type[IntEnum] | Mapping[Any, str]]

    def brief(self, value: Any, path: tuple[str, ...] = ()) -> Markup:
        """A value on one line; longer ones are cut."""
        match value:
            case None:
                return element("span", "null", class_="null")
            case bool():
                return element("span", str(value).lower(), class_="bool")
            case int() if (label := self._label(path, value)) is not None:
                return tag(label, title=f"{path[-1]} = {value}")
            case int() if (ms := _as_time(path, value)) is not None:
                return ago(ms, self.now_ms, f" · {value}")
            case int() | float():
                return element("span", repr(value), class_="number")
            case "":
                return element("span", '""', class_="null")
            case str():
                return _cut(value, "text")
            case _:
                return _cut(as_text(value), "code")

    def tree(self, value: Any, path: tuple[str, ...] = (), *, now: Any = ..., depth: int = 0) -> Markup:
        """A value in full, a line for each field; those that are otherwise ``now`` are marked."""
        match value:
            case Mapping() if value and depth < 32:
                fields = [(name, inner, _inside(now, name)) for name, inner in value.items()]
            case list() | tuple() if value and depth < 32:
                fields = [(str(place), inner, _inside(now, place)) for place, inner in enumerate(value)]
            case str() if len(value) > _BRIEF_MAX or "\n" in value:
                return element("pre", value)
            case _ if isinstance(value, Mapping | list | tuple) and value:
                return element("pre", as_text(value))
            case _:
                return self.brief(value, path)
        return element("dl", [self._field(*field, path, depth) for field in fields], class_="tree")

    def _field(self, name: str, value: Any, now: Any, path: tuple[str, ...], depth: int) -> Markup:
        is_leaf = not isinstance(value, Mapping | list | tuple)
        differs = now is not ... and is_leaf and (now is _NOTHING or as_text(now) != as_text(value))
        title = None if not differs else "gone now" if now is _NOTHING else f"now: {as_text(now)[:_TITLE_MAX]}"
        return element(
            "div",
            element("dt", name),
            element("dd", self.tree(value, (*path, name), now=now, depth=depth + 1)),
            class_="differs" if differs else None,
            title=title,
        )

    def _label(self, path: tuple[str, ...], value: int) -> str | None:
        for field, names in self.labels.items():
            parts = field.split(".")
            if len(parts) == len(path) and all(part in ("*", name) for part, name in zip(parts, path, strict=True)):
                return _called(names, value)
        return None


_NOTHING: Final = object()


def _inside(now: Any, name: str | int) -> Any:
    """What stands there now; nothing, where nobody asks, or where there is none."""
    if now is ...:
        return ...
    if isinstance(now, Mapping):
        return now.get(name, _NOTHING)
    if isinstance(now, list | tuple) and isinstance(name, int) and name < len(now):
        return now[name]
    return _NOTHING


def _called(names: type[IntEnum] | Mapping[Any, str], value: int) -> str | None:
    if isinstance(names, Mapping):
        called = names.get(value)
        return None if called is None else str(called)
    try:
        return names(value).name.replace("_", " ").lower()
    except ValueError:
        return None


def _as_time(path: tuple[str, ...], value: int) -> int | None:
    """The milliseconds that a number means, where the field's name says that it is a time and the number may be one."""
    if not path or not _TIME_FIELD.search(path[-1]):
        return None
    return value * 1_000 if value in _SECONDS else value if value // 1_000 in _SECONDS else None


def _cut(words: str, class_: str) -> Markup:
    if len(words) <= _BRIEF_MAX:
        return element("span", words, class_=class_)
    return element("span", words[:_BRIEF_MAX], "…", class_=class_, title=words[:_TITLE_MAX])
