"""The type checker accepts what users write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def mypy(file: Path) -> str:
    """What mypy --strict says of ``file``, without our own configuration."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", file.name]
    environment = {"MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache/typing")}
    return subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", ["user_code", "sync_code"])
def test_user_code_passes_strict(tmp_path: Path, name: str) -> None:
    """What tests/typing/ shows is accepted, and one mistake in it is not."""
    code = (ROOT / f"tests/typing/{name}.py").read_text()
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(code)
    assert mypy(right).startswith("Success"), mypy(right)
    wrong.write_text(code.replace("assert_type(event.kind, str)", "assert_type(event.kind, int)"))
    assert "wrong.py" in mypy(wrong)
