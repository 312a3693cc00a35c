"""The pages: Markdown for readers, and the fenced blocks in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["PAGES", "ROOT", "Block", "blocks", "read"]

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.joinpath("docs").rglob("*.md"))
)
"""Every page, by its path in the tree."""

_FENCED = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block, and where it begins: ``page:line``."""

    language: str
    text: str
    where: str


def read(page: str) -> str:
    """Return a page's text."""
    return (ROOT / page).read_text()


def blocks(page: str, text: str | None = None) -> list[Block]:
    """Return the blocks of a page, in order; AssertionError for a fence that this does not understand."""
    text = read(page) if text is None else text
    found = list(_FENCED.finditer(text))
    fences = re.findall(r"^[ \t>]*(?:```|~~~).*$", text, re.MULTILINE)
    assert len(fences) == 2 * len(found), f"{page}: fences begin a line, with three backquotes and a language alone"
    return [Block(each[1], each[2], f"{page}:{text[: each.start()].count(chr(10)) + 2}") for each in found]
