"""The type checker accepts what users write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def mypy(code: str, tmp_path: Path) -> str:
    """What mypy --strict says of ``code``, without our own configuration."""
    (tmp_path / "user_code.py").write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent", "user_code.py"]
    environment = {"MYPYPATH": str(ROOT), "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache/typing")}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stdout


def test_user_code_passes_strict(tmp_path: Path) -> None:
    """What tests/typing/user_code.py shows is accepted, and one mistake in it is not."""
    code = (ROOT / "tests/typing/user_code.py").read_text()
    assert mypy(code, tmp_path).startswith("Success"), mypy(code, tmp_path)
    wrong = code.replace("assert_type(event.kind, str)", "assert_type(event.kind, int)")
    assert "user_code.py" in mypy(wrong, tmp_path)
