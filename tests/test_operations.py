"""docs/operations.md is true: it has every verb, and its commands run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from projections.cli import VERBS

PAGE = Path(__file__).parent.parent / "docs/operations.md"
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_section_and_an_example(verb: str) -> None:
    """A verb that is not explained does not exist."""
    assert f"\n## {verb}\n" in PAGE.read_text()
    assert [command for command in COMMANDS if f"logstore {verb} " in command]


def test_the_commands_run(tmp_path: Path) -> None:
    """As they stand, one after the other, in a shell; each with status 0."""
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "logstore"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m projections.cli "$@"\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}", "PYTHONPATH": str(PAGE.parent.parent)}
    assert len(COMMANDS) >= len(VERBS)
    for command in COMMANDS:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
