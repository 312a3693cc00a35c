"""The pages of collections: which there are, and what one holds: what is asked of it, page by page, and the plan. Pure.

A question is the query part of the page's address, so it can be kept and sent: ``f``, ``o``, ``v`` for each clause's
field, operator and value, ``order``, ``cursor``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from logstore.errors import InvalidArgument, LogStoreError
from projections.console.look import Look, count, notice, row, table, tag
from projections.console.markup import Child, Markup, element, joined, link, url
from projections.console.page import part
from projections.document import Collection
from projections.query import OPERATORS, Page, Plan

__all__ = ["PAGE_ROWS", "Found", "Asked", "collection", "collections"]

PAGE_ROWS: Final = 50
COLUMNS_MAX: Final = 6
FIELDS_MAX: Final = 60
CLAUSES_MAX: Final = 12
_TAKES_MANY: Final = ("in", "not-in")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, as it was typed. ``where`` and ``order_by`` are what ``find`` takes."""

    kind: str
    clauses: tuple[tuple[str, str, str], ...] = ()
    order: str = ""
    cursor: str | None = None

    @classmethod
    def parse(cls, kind: str, parameters: Iterable[tuple[str, str]]) -> Asked:
        """Return the question in the query part of an address. A clause without a field is none."""
        given: dict[str, list[str]] = {}
        for name, value in parameters:
            given.setdefault(name, []).append(value)
        parts = [given.get(name, []) for name in ("f", "o", "v")]
        longest = max(map(len, parts))
        fields, operators, values = (each + [""] * (longest - len(each)) for each in parts)
        clauses = tuple(
            (name.strip(), sign or "==", value)
            for name, sign, value in zip(fields, operators, values, strict=True)
            if name.strip()
        )
        if len(clauses) > CLAUSES_MAX:
            raise InvalidArgument(f"too many clauses max={CLAUSES_MAX}")
        return cls(kind, clauses, given.get("order", [""])[0].strip(), given.get("cursor", [None])[0] or None)

    @property
    def where(self) -> list[tuple[str, str, Any]]:
        """The clauses, their values read."""
        return [(name, sign, _value(sign, typed)) for name, sign, typed in self.clauses]

    @property
    def order_by(self) -> list[str]:
        """The fields to order by.

        >>> Asked("Deployment", order="-updated_at, name").order_by
        ['-updated_at', 'name']
        """
        return [name.strip() for name in self.order.split(",") if name.strip()]

    def address(self, cursor: str | None = None) -> str:
        """Where the found is shown; from behind ``cursor`` on."""
        pairs = [pair for clause in self.clauses for pair in zip("fov", clause, strict=True)]
        return url("/collection", *pairs, kind=self.kind, order=self.order or None, cursor=cursor)


def _value(sign: str, typed: str) -> Any:
    """What was meant: JSON where it is, else text; several, parted by commas, for the operators that take them."""
    if sign in _TAKES_MANY and not typed.lstrip().startswith("["):
        return [_value("", one.strip()) for one in typed.split(",") if one.strip()]
    try:
        return json.loads(typed, parse_constant=lambda _: typed)
    except (ValueError, RecursionError):
        return typed


# All of them ------------------------------------------------------------------------------------


def collections(each: Sequence[tuple[Collection, int | LogStoreError | None]], kinds: Mapping[str, int]) -> Markup:
    """Return what the page of all collections shows: each with how many documents it has, None: it is being read.

    ``kinds``: how many events there are of the kinds that were found, for who declared no collection.
    """
    heading = element("h1", "Collections")
    if each:
        return joined(heading, part("collections", _collections(each)))
    told = joined(
        "No collection was declared. Start the console with ",
        element("code", "--collections package.module:NAME"),
        " to see documents; ",
        link("/events", "events"),
        " are shown as they are stored.",
    )
    shown = [
        row(link(url("/events", kind=kind), kind), count(number), numeric=(1,), key=kind)
        for kind, number in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))[:FIELDS_MAX]
    ]
    found = table(("kind of events", "events"), shown, numeric=(1,), empty="The log holds no event.", name="Kinds")
    return joined(heading, notice(told), part("collections", found))


def _collections(each: Sequence[tuple[Collection, int | LogStoreError | None]]) -> Markup:
    rows = []
    for declared, held in each:
        state: Child = None
        match held:
            case None:
                state = tag("being read", "busy")
            case LogStoreError():
                state = tag("not readable", "bad", f"{type(held).__name__}: {held}")
        shown = count(held) if isinstance(held, int) else None
        indexes = [element("code", ", ".join(map(str, index.fields)), class_="index") for index in declared.indexes]
        cells = (
            link(url("/collection", kind=declared.kind), declared.kind),
            shown,
            indexes,
            str(declared.version),
            state,
        )
        rows.append(row(*cells, numeric=(1, 3), key=declared.kind))
    return table(("collection", "documents", "indexes", "version", ""), rows, numeric=(1, 3), name="Collections")


# One of them ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What a question found: a page, of how many that match, and the plan."""

    page: Page
    matching: int
    plan: Plan


def collection(
    declared: Collection,
    asked: Asked,
    found: Found | LogStoreError,
    look: Look,
    *,
    total: int,
    settled: Sequence[bool],
) -> Markup:
    """Return the page of one collection, ``total`` documents in all. ``settled``: which rows have nothing pending."""
    heading = element("h1", declared.kind, element("small", count(total), " documents"))
    if isinstance(found, LogStoreError):
        known = known_fields(declared, [])
        return joined(heading, _form(asked, known), notice(joined("That cannot be asked: ", str(found)), "bad"))
    known = known_fields(declared, found.page.rows)
    return joined(
        heading,
        _form(asked, known),
        part(
            "rows",
            _summary(asked, found),
            _rows(asked, declared, found.page, settled, look),
            _turning(asked, found.page),
        ),
    )


def known_fields(declared: Collection, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields that may be asked for: those of indexes, and those of documents that are shown."""
    indexed = [str(each).removeprefix("-") for index in declared.indexes for each in index.fields]
    seen = [name for document in rows for name in document if "." not in name]
    return list(dict.fromkeys([*indexed, *seen]))[:FIELDS_MAX]


def _form(asked: Asked, known: Sequence[str]) -> Markup:
    """The question, to be changed: always with room for one clause more."""
    options = element("datalist", [element("option", value=name) for name in known], id="fields")
    clauses = [_clause(number, *clause) for number, clause in enumerate([*asked.clauses, ("", "==", "")])]
    order = element(
        "label",
        "order by ",
        element("input", name="order", value=asked.order, list="fields", placeholder="-updated_at, name", size=24),
    )
    return element(
        "form",
        element("input", type="hidden", name="kind", value=asked.kind),
        options,
        element("div", clauses, class_="clauses"),
        element(
            "div",
            order,
            element("button", "Find"),
            link(url("/collection", kind=asked.kind), "clear") if asked.clauses or asked.order else None,
        ),
        action="/collection",
        class_="query",
        role="search",
    )


def _clause(number: int, name: str, sign: str, typed: str) -> Markup:
    signs = [element("option", each, selected=each == sign) for each in OPERATORS]
    told = f"clause {number + 1}: "
    return element(
        "div",
        element("input", name="f", value=name, list="fields", placeholder="field", size=18, aria_label=f"{told}field"),
        element("select", signs, name="o", aria_label=f"{told}operator"),
        element("input", name="v", value=typed, placeholder="value", size=24, aria_label=f"{told}value"),
        class_="clause",
    )


def _summary(asked: Asked, found: Found) -> Markup:
    words = str(found.plan).replace("doc.", "")
    matching = joined(count(found.matching), " match · " if found.matching != 1 else " matches · ")
    return element(
        "p",
        matching if asked.clauses else None,
        element("span", "plan ", class_="label"),
        element("code", words, class_="plan"),
        f" · examined {found.page.examined:,}",
        class_="more",
    )


def _rows(asked: Asked, declared: Collection, page: Page, settled: Sequence[bool], look: Look) -> Markup:
    columns = _columns(asked, declared, page.rows)
    rows = [
        row(
            link(url("/document", kind=asked.kind, key=key), element("code", key)),
            *(look.brief(_field(document, name), tuple(name.split("."))) for name in columns),
            None if is_settled else tag("pending", "busy", "an event about it is not settled: its place may change"),
            key=key,
        )
        for key, document, is_settled in zip(page.keys, page.rows, settled, strict=True)
    ]
    heads = ["key", *(_head(asked, name) for name in columns), ""]
    return table(heads, rows, empty="No document matches.", name=declared.kind)


def _columns(asked: Asked, declared: Collection, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is asked about, then what indexes are about, then what most documents have: as far as there is room."""
    wanted = [name for name, _, _ in asked.clauses] + [name.removeprefix("-") for name in asked.order_by]
    indexed = Counter(str(each).removeprefix("-") for index in declared.indexes for each in index.fields)
    common = Counter(
        name for document in rows for name, value in document.items() if not isinstance(value, Mapping | list | tuple)
    )
    shown = {name for document in rows for name in document}
    likely = [name for name, _ in [*indexed.most_common(), *common.most_common()] if name in shown and name != "id"]
    return list(dict.fromkeys([*wanted, *likely]))[: max(COLUMNS_MAX, len(set(wanted)))]


def _field(document: Mapping[str, Any], name: str) -> Any:
    value: Any = document
    for step in name.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _head(asked: Asked, name: str) -> Markup:
    """A column's name, which orders by it: ascending, then descending; where it can be asked for so."""
    if not name or "," in name or name != name.strip() or name.startswith("-"):
        return element("span", name)
    ascending, descending = asked.order_by == [name], asked.order_by == [f"-{name}"]
    turned = Asked(asked.kind, asked.clauses, f"-{name}" if ascending else name)
    mark = " ↑" if ascending else " ↓" if descending else ""
    return link(turned.address(), f"{name}{mark}", title=f"order by {turned.order}")


def _turning(asked: Asked, page: Page) -> Markup | None:
    """The ways to the first page and to the next."""
    ways = [
        link(asked.address(), "first page", rel="first") if asked.cursor else None,
        link(asked.address(page.cursor), "next page →", rel="next") if page.cursor else None,
    ]
    return element("p", ways, class_="turning") if any(ways) else None
