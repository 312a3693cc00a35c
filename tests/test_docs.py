"""The pages are true: their code runs and prints what they say, and what they claim is tested."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from logstore import filestore
from projections.cli import main
from tests.pages import PAGES, ROOT, blocks, read

README: Final = "README.md"  # its examples stand alone each, and tests/test_readme.py runs them
RUN: Final = [page for page in PAGES if page != README and blocks(page)]
LANGUAGES: Final = {
    "python": "runs",
    "text": "is what was printed",
    "console": "runs, what follows a $",
    "shell": "is for other programs than ours: mysql, Firestore's client",
    "sql": "is for other databases",
    "sh": "runs; in README.md and CONTRIBUTING.md only, by tests/test_readme.py",
}
GUIDES: Final = [
    page for page in PAGES if page.startswith("docs/") and page != "docs/FORMAT.md" and "/rfcs/" not in page
]
TESTS = {name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())}


def run(code: str, names: dict[str, Any], where: str, loop: asyncio.Runner) -> str:
    """What a block prints; ``await`` works outside functions, as in ``python -m asyncio``."""
    printed = io.StringIO()
    compiled = compile(code, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    async def execute() -> None:
        await eval(compiled, names)

    with contextlib.redirect_stdout(printed):
        if compiled.co_flags & inspect.CO_COROUTINE:
            loop.run(execute())
        else:
            exec(compiled, names)
    return printed.getvalue()


def command(line: str) -> None:
    """Run what follows a ``$``: pipes and what sets variables in a shell, the tool alone in this process."""
    if "|" in line or re.match(r"[A-Z_]+=", line):
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False)
        status, output = done.returncode, done.stdout + done.stderr
    else:
        name, *arguments = shlex.split(line)
        assert name == "logstore", f"only the tool, and pipes, can be run here: {line}"
        result = CliRunner().invoke(main, arguments)
        status, output = result.exit_code, result.output
    assert status == 0, f"{line}\n{output}"


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """A page that sets up logging has set it up for itself."""
    loggers = [logging.getLogger(name) for name in ("", "logstore", "projections")]
    before = [(list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's own, empty, with the tool on his path, in a process that has no store in memory yet."""
    monkeypatch.setattr(filestore, "_memory_stores", {})
    tool = tmp_path / "bin" / "logstore"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m projections.cli "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reader = tmp_path / "reader"
    reader.mkdir()
    monkeypatch.chdir(reader)
    monkeypatch.syspath_prepend(reader)
    return reader


@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(page: str, directory: Path) -> None:
    """Blocks of Python are one program; one that begins with a file's name is that file; text is what was printed."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed, files = "", []
    try:
        with asyncio.Runner() as loop:
            for language, text, where in blocks(page):
                if language == "text":
                    assert printed == text, where
                    printed = ""
                    continue
                assert not printed, f"what is printed above {where} is not shown"
                if language == "console":
                    lines = text.splitlines()
                    assert all(line.startswith("$ ") for line in lines), f"{where}: what a command prints is not tested"
                    for line in lines:
                        command(line.removeprefix("$ "))
                elif language == "python" and (named := re.match(r"# (\w+)\.py\n", text)):
                    (directory / f"{named[1]}.py").write_text(text)
                    files.append(named[1])
                elif language == "python":
                    printed = run(text, names, where, loop)
            assert not printed
    finally:
        for file in files:
            sys.modules.pop(file, None)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_a_language_that_runs(page: str) -> None:
    """A block is code that a test runs, or what that prints; or for a program that is not ours, and marked so."""
    known = LANGUAGES if page in (README, "CONTRIBUTING.md") else LANGUAGES.keys() - {"sh"}
    assert [block for block in blocks(page) if block.language not in known] == []


@pytest.mark.parametrize("page", GUIDES)
def test_a_guide_has_no_code_outside_fences(page: str) -> None:
    """Code that is only indented has no language, so nothing would run it."""
    prose = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"(?:\A|\n\n)((?: {4}|\t)[^\n]*)", prose) == []


@pytest.mark.parametrize(
    "text",
    [
        "```python title=x\n1\n```\n",
        "  ```python\n  1\n  ```\n",
        "~~~python\n1\n~~~\n",
        "```python\n1\n",
        "> ```\n> 1\n> ```\n",
    ],
)
def test_no_block_is_passed_over(text: str) -> None:
    """A fence that the tests do not understand is an error, not prose."""
    with pytest.raises(AssertionError, match="fences"):
        blocks("page", text)


def test_every_claim_about_consistency_names_tests_that_exist() -> None:
    """A list item is a claim; it ends with the tests that prove it, and they are there."""
    claims = re.findall(r"^- .*?(?=^- |^#|^```|\n\n|\Z)", read("docs/consistency.md"), re.MULTILINE | re.DOTALL)
    assert len(claims) > 20
    for claim in claims:
        named = re.findall(r"`(test_\w+)`", claim)
        assert named, f"prove it: {claim}"
        assert set(named) <= TESTS, claim
