"""HTML, built of values. The one place that escapes. Pure.

What is not ``Markup`` is text, and is escaped wherever it goes. Only ``element`` makes ``Markup``, so no text from a
log becomes anything else, however it is put together. Characters that cannot be seen, or that turn the direction of
what follows, are shown as their number.

>>> print(element("p", "a < b ", element("b", "!"), class_="note"))
<p class="note">a &lt; b <b>!</b></p>
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Final, TypeAlias
from urllib.parse import quote, urlencode

from projections.words import UNSEEN

__all__ = ["Child", "Markup", "element", "joined", "link", "text", "url"]

_VOID: Final = frozenset({"input", "link", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | int | Iterable[Child] | None"
Attribute: TypeAlias = "str | int | bool | None"


def text(content: str) -> Markup:
    r"""Return text as HTML that shows all of it.

    >>> text("gpj\u202e.exe")
    'gpj<i class="unseen">U+202E</i>.exe'
    """
    pieces, start = [], 0
    for unseen in UNSEEN.finditer(content):
        pieces += [html.escape(content[start : unseen.start()]), f'<i class="unseen">U+{ord(unseen.group()):04X}</i>']
        start = unseen.end()
    return Markup("".join([*pieces, html.escape(content[start:])]))


def joined(*children: Child) -> Markup:
    """Return children one after the other."""
    return Markup("".join(map(_child, children)))


def element(tag: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """Return an element. Attributes that are None or False are left out; ``class_`` is class, ``data_x`` data-x."""
    shown = "".join(
        _attribute(name, value) for name, value in attributes.items() if value is not None and value is not False
    )
    if tag in _VOID:
        assert not children, tag
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{joined(*children)}</{tag}>")


def link(to: str, *children: Child, **attributes: Attribute) -> Markup:
    """Return a link to a page of ours."""
    assert to.startswith(("/", "#", "?")), "links lead nowhere else"
    return element("a", *children, href=to, **attributes)


def url(path: str, *pairs: tuple[str, str], **parameters: str | int | None) -> str:
    """Return the address of a page of ours. A parameter that is None is left out.

    >>> url("/document", kind="Deployment", key="a/b &c")
    '/document?kind=Deployment&key=a%2Fb%20%26c'
    """
    given = [*((name, value) for name, value in parameters.items() if value is not None), *pairs]
    return f"{path}?{urlencode(given, quote_via=quote, safe='', errors='replace')}" if given else path


def _child(child: Child) -> str:
    match child:
        case None:
            return ""
        case Markup():
            return child
        case str():
            return text(child)
        case int():
            return str(child)
        case _:
            return joined(*child)


def _attribute(name: str, value: Attribute) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
