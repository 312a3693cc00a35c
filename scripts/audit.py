"""Ask which installed packages have known vulnerabilities: ``python scripts/audit.py SITE_PACKAGES``, by pip-audit.

Exit status 1 where there is one. A package that the service does not answer for is counted, and is no failure: where
the service cannot be reached, that is all of them, and the last line says so.

>>> from pprint import pprint
>>> hit = {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
>>> pprint(verdict([hit, {"name": "b", "version": "1", "vulns": []}]))
(['a 1: PYSEC-1, mended in 2',
  '2 packages audited, 1 with known vulnerabilities'],
 1)
>>> verdict([{"name": "a", "skip_reason": "not found"}])
(['the service was not reached: none of 1 packages audited'], 0)
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def verdict(dependencies: list[dict[str, Any]]) -> tuple[list[str], int]:
    """What to print, and the exit status."""
    audited = [each for each in dependencies if "skip_reason" not in each]
    skipped = len(dependencies) - len(audited)
    if not audited:
        return [f"the service was not reached: none of {skipped} packages audited"], 0
    found = [each for each in audited if each["vulns"]]
    lines = [
        f"{each['name']} {each['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for each in found
        for known in each["vulns"]
    ]
    lines.append(f"{len(audited)} packages audited, {len(found)} with known vulnerabilities")
    return [*lines, *([f"{skipped} not known to the service"] if skipped else [])], int(bool(found))


def main() -> int:
    """Audit one directory of packages."""
    command = ["pip_audit", "--path", sys.argv[1], "--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        print("not audited: no answer within two minutes", file=sys.stderr)
        return 0
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(f"not audited: {(done.stderr.strip().splitlines() or ['pip-audit said nothing'])[-1]}", file=sys.stderr)
        return 0
    lines, status = verdict(dependencies)
    print("\n".join(lines), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
