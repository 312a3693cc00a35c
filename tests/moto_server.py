"""Moto's server, taking one request at a time: ``python -m tests.moto_server -H 127.0.0.1 -p 0``.

By itself it looks whether a name is taken, and then stores, and another thread may come between: of four creations that
raced two have won. S3 has no such gap, so a test must not meet one.
"""

from __future__ import annotations

import threading
from typing import Any
from unittest.mock import patch

from moto import server
from moto.moto_server.werkzeug_app import DomainDispatcherApplication


class OneAtATime(DomainDispatcherApplication):
    """The application, behind a lock."""

    _lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        with self._lock:
            return super().__call__(environ, start_response)


if __name__ == "__main__":
    with patch.object(server, "DomainDispatcherApplication", OneAtATime):
        server.main()
