"""What the README shows runs, and prints what it says; so do the commands of CONTRIBUTING.md."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from logstore import filestore
from projections.cli import main
from tests.pages import ROOT, blocks, read

TEXT = read("README.md")
BLOCKS = [(block.language, block.text) for block in blocks("README.md")]
EXAMPLES = [
    pytest.param(code, following if language == "text" else None, id=code.splitlines()[0])
    for (kind, code), (language, following) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
    if kind == "python"
]
COMMANDS = [
    line
    for page in ("README.md", "CONTRIBUTING.md")
    for block in blocks(page)
    if block.language == "sh"
    for line in block.text.splitlines()
]


def test_there_is_something_to_run() -> None:
    """The tests below are about blocks: there are some, and of known kinds only."""
    assert EXAMPLES
    assert COMMANDS
    assert {kind for kind, _ in BLOCKS} <= {"python", "text", "sh"}


def run(code: str) -> str:
    """What a block prints, in a process that has no store in memory yet."""
    printed = io.StringIO()
    with patch.dict(filestore._memory_stores, clear=True), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader's own, empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
@pytest.mark.usefixtures("directory")
def test_examples_run(code: str, output: str | None) -> None:
    """A block of Python runs; a block of text after it is what it prints."""
    assert run(code) == output or output is None


@pytest.mark.usefixtures("directory")
def test_commands_run() -> None:
    """``make`` has the targets (running them is not cheap); the tool's verbs run on what the examples leave."""
    for code, _ in (example.values for example in EXAMPLES):
        run(str(code))
    for command in COMMANDS:
        match shlex.split(os.path.expandvars(command), comments=True):
            case ["make", target]:
                assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
            case ["logstore", *arguments]:
                result = CliRunner().invoke(main, arguments)
                assert result.exit_code == 0, (command, result.output)
            case _:
                pytest.fail(f"only make and logstore can be tested here: {command}")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+(?:/[\w.-]+|\.md|/))`", TEXT))))
def test_files_it_names_are_there(path: str) -> None:
    """A path in the README is a path in the tree; a bare file name is one of the log's."""
    assert any((base / path).exists() for base in (ROOT, ROOT / "logstore", ROOT / "logstore/filestore"))
