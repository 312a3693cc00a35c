"""ARCHITECTURE.md names every file, and no file that is not there."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import pytest

from projections.cli import VERBS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
SECTIONS = dict(re.findall(r"^## [^\n]*`(\w+)/`\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
VERB_FILES = {f"cli/{verb}_.py" if keyword.iskeyword(verb) else f"cli/{verb}.py" for verb in VERBS}  # named as a family


@pytest.mark.parametrize("package", ["logstore", "projections"])
def test_every_file_has_its_line(package: str) -> None:
    """The file map and the tree agree."""
    named = re.findall(r"^- `([\w/]+\.py)`: ", SECTIONS[package], re.MULTILINE)
    files = {path.relative_to(ROOT / package).as_posix() for path in (ROOT / package).rglob("*.py")}
    assert len(named) == len(set(named)), "a file is named twice"
    assert set(named) == files - VERB_FILES, "give a new file its one noun in ARCHITECTURE.md"


def test_every_path_in_it_is_there() -> None:
    """What the prose names exists, too."""
    paths = re.findall(r"`((?:docs|tests|benchmarks)/[\w./-]+)`", TEXT)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
