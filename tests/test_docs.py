"""The pages under docs/ are true: their code runs and prints what they say, and what they claim is tested."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("docs/consistency.md", "docs/tutorial.md", "docs/control-planes.md")
TESTS = {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}


def blocks(page: str) -> list[tuple[str, str, int]]:
    """Language, text and line of each block of a page."""
    text = (ROOT / page).read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(match[1], match[2], text[: match.start()].count("\n") + 2) for match in found]


async def run(code: str, names: dict[str, Any], where: str) -> str:
    """What a block prints; ``await`` works outside functions, as in ``python -m asyncio``."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        done = eval(compile(code, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.iscoroutine(done):
            await done
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of Python are one program; one that begins with a file's name is that file; text is what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed, files = "", []
    try:
        for language, text, line in blocks(page):
            where = f"{page}:{line}"
            if language == "text":
                assert printed == text, where
                printed = ""
                continue
            assert language == "python", where
            assert not printed, f"what is printed above {where} is not shown"
            if named := re.match(r"# (\w+)\.py\n", text):
                (tmp_path / f"{named[1]}.py").write_text(text)
                files.append(named[1])
            else:
                printed = await run(text, names, where)
        assert not printed
    finally:
        for file in files:
            sys.modules.pop(file, None)


def test_every_claim_about_consistency_names_tests_that_exist() -> None:
    """A list item is a claim; it ends with the tests that prove it, and they are there."""
    claims = re.findall(r"^- .*?(?=^- |^#|^```|\n\n|\Z)", (ROOT / PAGES[0]).read_text(), re.MULTILINE | re.DOTALL)
    assert len(claims) > 20
    for claim in claims:
        named = re.findall(r"`(test_\w+)`", claim)
        assert named, f"prove it: {claim}"
        assert set(named) <= TESTS, claim
