"""The console: pages that show a log to people. ``logstore console``, docs/console.md.

    request ▶ server ─asks▶ source ─reads▶ log
    answer  ◀ server ◀─HTML─ overview, collections, document, events ◀─values─ source

``markup.py`` is the one place that escapes, ``look.py`` says how values look, ``page.py`` has the frame of all pages.
It only reads. Not here: users, passwords, TLS, writing; put it behind what has these, or leave it on loopback.
"""

from __future__ import annotations

from projections.console.server import Console
from projections.console.source import Source

__all__ = ["Console", "Source"]
