"""docs/operations.md is true: it has every verb, and its commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from projections.cli import VERBS, main

PAGE = Path(__file__).parent.parent / "docs/operations.md"
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_section_and_an_example(verb: str) -> None:
    """A verb that is not explained does not exist."""
    assert f"\n## {verb}\n" in PAGE.read_text()
    assert [command for command in COMMANDS if f"logstore {verb} " in command]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand, one after the other, each with status 0; pipes in a shell, the others in this process."""
    tool = tmp_path / "bin" / "logstore"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m projections.cli "$@"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parent.parent))
    monkeypatch.chdir(tmp_path)
    assert len(COMMANDS) >= len(VERBS)
    for command in COMMANDS:
        if "|" in command:
            done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
            status, output = done.returncode, done.stdout + done.stderr
        else:
            name, *arguments = shlex.split(command)
            assert name == "logstore"
            result = CliRunner().invoke(main, arguments)
            status, output = result.exit_code, result.output
        assert status == 0, f"{command}\n{output}"
