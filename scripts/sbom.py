"""Write what an installation consists of: ``python scripts/sbom.py PYTHON FILE``, as CycloneDX JSON, with cyclonedx-py.

PYTHON is that of an environment into which logstore was installed, and nothing else. Fails where a package is missing
that pyproject.toml calls for.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> int:
    """Write the file."""
    python, file = sys.argv[1], Path(sys.argv[2])
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [
        "cyclonedx_py",
        "environment",
        python,
        "--pyproject",
        str(ROOT / "pyproject.toml"),
        "--mc-type",
        "library",
    ]
    form = ["--output-reproducible", "--output-format", "JSON", "--output-file", str(file)]
    subprocess.run([sys.executable, "-m", *command, *form], check=True)
    named = {component["name"].lower() for component in json.loads(file.read_text("utf-8"))["components"]}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    missing = {re.split(r"[^A-Za-z0-9_-]", each)[0].lower() for each in wanted} - named
    if missing:
        print(f"not in it: {', '.join(sorted(missing))}", file=sys.stderr)
        return 1
    print(f"{len(named)} packages: {file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
