"""What the pages need comes with the package."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from projections.console.server import FILES

ROOT = Path(__file__).parent.parent.parent


def test_every_file_is_served_and_every_file_served_is_there() -> None:
    """Neither is without the other."""
    assert {path.name for path in (ROOT / "projections/console/static").iterdir()} == set(FILES)


def test_a_wheel_has_them(tmp_path: Path) -> None:
    """Also where somebody installs it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"projections/console/static/{name}" for name in FILES} <= names
    assert "projections/console/server.py" in names


def test_the_page_about_it_shows_every_picture() -> None:
    """Those that are taken, and no others."""
    shown = re.findall(r"\(images/(console-\w+\.png)\)", (ROOT / "docs/console.md").read_text())
    assert sorted(shown) == sorted(path.name for path in (ROOT / "docs/images").iterdir())


def test_they_load_nothing_from_elsewhere() -> None:
    """No address of another host, no style or script that the policy would refuse."""
    for name in FILES:
        text = (ROOT / "projections/console/static" / name).read_text()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert "@import" not in text
