"""What the README shows runs, and prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from projections.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(code, following if language == "text" else None, id=code.splitlines()[0])
    for (kind, code), (language, following) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True)
    if kind == "python"
]
COMMANDS = [line for kind, code in BLOCKS if kind == "sh" for line in code.splitlines()]


def test_there_is_something_to_run() -> None:
    """The tests below are about blocks: there are some, and of known kinds only."""
    assert EXAMPLES
    assert COMMANDS
    assert {kind for kind, _ in BLOCKS} <= {"python", "text", "sh"}


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_examples_run(code: str, output: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of Python runs in an empty directory; a block of text after it is what it prints."""
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert output is None or printed.getvalue() == output


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``make`` has the target (running it is not cheap); the tool's verbs run."""
    monkeypatch.chdir(tmp_path)
    match shlex.split(command):
        case ["make", target]:
            assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
        case ["logstore", *arguments]:
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, result.output
        case _:
            pytest.fail("only make and logstore can be tested here")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+(?:/[\w.-]+|\.md|/))`", TEXT))))
def test_files_it_names_are_there(path: str) -> None:
    """A path in the README is a path in the tree; a bare file name is one of the log's."""
    assert any((base / path).exists() for base in (ROOT, ROOT / "logstore", ROOT / "logstore/filestore"))
