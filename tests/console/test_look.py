"""How values look: readable on the page, exact in the title."""

from __future__ import annotations

from typing import Any

import pytest

from projections.console.look import Look, ago, as_text, clock_time, tag
from tests.console.conftest import LABELS

NOW_MS = 1_700_000_100_000
LOOK = Look(NOW_MS, LABELS["Deployment"])


@pytest.mark.parametrize(
    ("value", "path", "shown"),
    [
        (None, ("a",), "null"),
        (True, ("a",), "true"),
        (7, ("a",), "7"),
        (0.5, ("a",), "0.5"),
        ("", ("a",), "&quot;&quot;"),
        ("<b>", ("a",), "&lt;b&gt;"),
        (b"\x00\xff", ("a",), "AP8="),
        ({"a": [1, None]}, ("a",), "[1, null]"),
        (1, ("status",), '<span class="tag busy" title="status = 1">running</span>'),
        (9, ("status",), '<span class="number">9</span>'),
        (1, ("stages", "plan", "status"), "begun"),
        (1_700_000_000, ("updated_at",), 'title="2023-11-14T22:13:20.000Z · 1700000000"'),
        (1_700_000_000_000, ("updated_at",), 'title="2023-11-14T22:13:20.000Z · 1700000000000"'),
        (1_700_000_000, ("count",), '<span class="number">1700000000</span>'),
        (0, ("updated_at",), '<span class="number">0</span>'),
        (True, ("status",), "true"),
    ],
)
def test_a_value_on_one_line(value: Any, path: tuple[str, ...], shown: str) -> None:
    """Statuses by their names, times as how long ago; all else as JSON would say it."""
    assert shown in LOOK.brief(value, path)


def test_a_long_value_is_cut_and_its_title_has_more() -> None:
    """A cell is a line, not a page."""
    shown = LOOK.brief("<" * 1_000)
    assert shown.count("&lt;") == 96 + 1_000
    assert "…" in shown
    assert len(LOOK.brief("x" * 1_000_000)) < 3_000


def test_a_tree_has_a_line_for_each_field_and_marks_what_is_otherwise_now() -> None:
    """Also what is gone now; a nest as deep as the log takes is still an answer."""
    shown = LOOK.tree({"same": 1, "other": {"in": 2}, "gone": 3}, now={"same": 1, "other": {"in": 5}})
    assert shown.count('class="differs"') == 2
    assert 'title="now: 5"' in shown
    assert 'title="gone now"' in shown
    assert "differs" not in LOOK.tree({"a": [1, {"b": "x\ny"}]}, now={"a": [1, {"b": "x\ny"}]})
    deep: Any = 1
    for _ in range(400):
        deep = {"d": [deep]}
    assert len(LOOK.tree(deep)) < 20_000
    assert as_text(deep).startswith('{"d": [{"d"')


def test_times_and_tones() -> None:
    """A moment of another clock's future is told as such; what ends badly looks so."""
    assert ">now<" in ago(NOW_MS, NOW_MS)
    assert ">in 3 min<" in ago(NOW_MS + 180_000, NOW_MS)
    assert 'class="tag bad"' in tag("failure")
    assert 'class="tag"' in tag("whatever")
    assert ">22:13:20Z<" in clock_time(NOW_MS - 100_000, NOW_MS)
    assert ">2023-11-13 22:15:00Z<" in clock_time(NOW_MS - 86_400_000, NOW_MS)
