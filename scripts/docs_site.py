"""What the site does to our texts, which are written for readers of the source: ``mkdocs.yml`` names both parts.

``Docstrings`` makes Markdown of docstrings: an example becomes a block of code, ``Cost:`` begins a paragraph. It leaves
out what is no user's: what one module hands another (``INNER``, as in the sync face), and how to construct what is
"Made by" something else. ``on_page_content`` makes links of the pages that any text names by their path in the tree,
as in ``docs/consistency.md``.
"""

from __future__ import annotations

import importlib.util
import logging
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe

_log = logging.getLogger("mkdocs.hooks.docs_site")


def _inner() -> dict[str, set[str]]:
    """What ``scripts/sync_face.py`` leaves out, too: members by class."""
    spec = importlib.util.spec_from_file_location("sync_face", Path(__file__).with_name("sync_face.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    inner: dict[str, set[str]] = module.INNER
    return inner


class Docstrings(griffe.Extension):
    """Docstrings as Markdown."""

    def __init__(self) -> None:
        self._inner = _inner()

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take in one object of the source."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Leave out what is no user's; say what a named tuple is made of."""
        for name in self._inner.get(cls.name, set()):
            cls.members.pop(name, None)
        if "Made by " in (cls.docstring.value if cls.docstring is not None else ""):
            cls.members.pop("__init__", None)
        elif "NamedTuple" in map(str, cls.bases):
            fields = [
                each for each in cls.members.values() if each.is_attribute and "instance-attribute" in each.labels
            ]
            kind = griffe.ParameterKind.positional_or_keyword
            parameters = [
                griffe.Parameter(each.name, annotation=each.annotation, kind=kind, default=each.value)
                for each in fields
            ]
            cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters)))


def markdown(docstring: str) -> str:
    r"""Return a docstring as Markdown.

    >>> markdown("Return two.\nCost: none.\n\n>>> two()\n2")
    'Return two.\n\nCost: none.\n\n```pycon\n>>> two()\n2\n```'
    """
    paragraphs = re.split(r"\n\s*\n", docstring.strip("\n"))
    return "\n\n".join(_paragraph(each) for each in paragraphs)


def _paragraph(text: str) -> str:
    if text.startswith(">>> "):
        return f"```pycon\n{text}\n```"
    if re.search(r"\S {3,}\S", text):  # columns
        return f"```text\n{text}\n```"
    return re.sub(r"\n(?=Cost: )", "\n\n", text)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Link what is named by its path."""

    def link(match: re.Match[str]) -> str:
        path = match[1].removeprefix("docs/")
        file = files.get_file_from_path(path)
        if file is None or file.inclusion.is_excluded():
            if not (Path(config.docs_dir) / path).exists():
                _log.warning("%s names a page that is not there: %s", page.file.src_uri, match[1])
            return match[0]
        address = posixpath.relpath(file.url, posixpath.dirname(page.url) or ".")
        return f'<a href="{address}">{match[0]}</a>'

    return re.sub(r"<code>(docs/[\w./-]+\.md)</code>", link, html)


def on_post_page(output: str, page: Any, config: Any) -> None:
    """Complain of what a browser would fetch from elsewhere."""
    for address in re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?((?:https?:)?//[^\"\s>]+)", output):
        _log.warning("%s fetches from elsewhere: %s", page.file.src_uri, address)
