"""Charts as SVG, readable on light and on dark ground: text, bars, and nothing that moves or is fetched.

bars     how much each of several reaches, in groups; a logarithmic scale
ratios   how many times as good ours is as each of others: to the right of the line at 1 better, to the left worse
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Generic, TypeVar

from benchmarks.figure import shown

__all__ = ["Bar", "Group", "Ratio", "bars", "ratios"]

WIDTH = 860
LABEL_WIDTH = 330
VALUE_WIDTH = 90
ROW = 22
BAR = 14
STYLE = """\
text{font:13px system-ui,sans-serif;fill:#57606a}
.title{font-weight:600;fill:#24292f}
.group{font-weight:600}
.ours{fill:#3f51b5}
.theirs{fill:#9aa4b2}
.worse{fill:#c2410c}
.axis{stroke:#57606a;stroke-width:1}
.goal{stroke:#15803d;stroke-width:3}
@media(prefers-color-scheme:dark){text{fill:#9aa4b2}.title{fill:#e6edf3}.ours{fill:#8c9eff}.theirs{fill:#57606a}\
.worse{fill:#fb923c}.axis{stroke:#9aa4b2}.goal{stroke:#4ade80}}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """What one of them reaches."""

    label: str
    value: float
    ours: bool


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as good ours is as one of others, and is to be."""

    label: str
    value: float
    goal: float


Row = TypeVar("Row", bound=Bar | Ratio)


@dataclass(frozen=True, slots=True)
class Group(Generic[Row]):
    """What belongs together: the same work."""

    label: str
    rows: Sequence[Row]


def bars(title: str, unit: str, groups: Sequence[Group[Bar]]) -> str:
    """Draw groups of bars; their lengths are logarithms, so that a tenth of the value is as much shorter anywhere."""
    values = [bar.value for group in groups for bar in group.rows]
    scale = _scale(math.floor(math.log10(min(values)) - 0.2), math.log10(max(values)))

    def draw(bar: Bar, y: int) -> list[str]:
        width = scale(math.log10(bar.value))
        return [
            _bar(LABEL_WIDTH, y, width, "ours" if bar.ours else "theirs"),
            _text(LABEL_WIDTH + width + 6, y + 12, shown(bar.value)),
        ]

    return _svg(title, f"{unit}, logarithmic scale", groups, draw)


def ratios(title: str, groups: Sequence[Group[Ratio]]) -> str:
    """Draw bars from 1 to each ratio, as logarithms, and a mark at each goal."""
    logs = [math.log10(value) for group in groups for row in group.rows for value in (row.value, row.goal)]
    scale = _scale(min(-0.3, *logs), max(0.3, *logs))
    one = LABEL_WIDTH + scale(0)

    def draw(row: Ratio, y: int) -> list[str]:
        end, goal = LABEL_WIDTH + scale(math.log10(row.value)), LABEL_WIDTH + scale(math.log10(row.goal))
        return [
            _bar(min(one, end), y, abs(end - one), "ours" if row.value >= row.goal else "worse"),
            _line(one, y - 4, y + BAR + 4, "axis"),
            _line(goal, y - 2, y + BAR + 2, "goal"),
            _text(max(one, end, goal) + 6, y + 12, shown(row.value)),
        ]

    return _svg(title, "times as good; logarithmic scale; the mark is the goal", groups, draw)


def _scale(first: float, last: float) -> Callable[[float], float]:
    """From logarithms to widths."""
    per_unit = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / max(last - first, 0.1)
    return lambda value: (value - first) * per_unit


def _svg(title: str, note: str, groups: Sequence[Group[Row]], draw: Callable[[Row, int], list[str]]) -> str:
    """Lay out groups of rows, each with its label; ``draw`` draws what is beside the label at a height."""
    parts: list[str] = [_text(0, 18, title, "title"), _text(WIDTH, 18, note, anchor="end")]
    y = 34
    for group in groups:
        parts.append(_text(0, y + 12, group.label, "group"))
        y += ROW
        for row in group.rows:
            parts += [_text(LABEL_WIDTH - 10, y + 12, row.label, anchor="end"), *draw(row, y)]
            y += ROW
        y += ROW // 4
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
        f' role="img" aria-label="{escape(title)}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "") -> str:
    attributes = (f' class="{style}"' if style else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.0f}" y="{y:.0f}"{attributes}>{escape(text)}</text>'


def _bar(x: float, y: float, width: float, style: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{max(width, 1):.1f}" height="{BAR}" rx="2" class="{style}"/>'


def _line(x: float, y1: float, y2: float, style: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y1}" x2="{x:.1f}" y2="{y2}" class="{style}"/>'
