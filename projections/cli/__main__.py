"""``python -m projections.cli`` is ``logstore``."""

from __future__ import annotations

from projections.cli import main

main(prog_name="logstore")
