"""docs/operations.md has every verb of the tool. Its commands are run by tests/test_docs.py."""

from __future__ import annotations

import pytest

from projections.cli import VERBS
from tests.pages import blocks, read

PAGE = "docs/operations.md"
COMMANDS = [line for block in blocks(PAGE) for line in block.text.splitlines()]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_section_and_an_example(verb: str) -> None:
    """A verb that is not explained does not exist."""
    assert f"\n## {verb}\n" in read(PAGE)
    assert [command for command in COMMANDS if f"logstore {verb} " in command]
