"""Public fakes: a clock moved by hand, stores that fail, whole systems under one seed.

Test what you build on this library the way it tests itself: real parts, and only the store, the
clock and the randomness replaced. ``clock.py``, ``faults.py`` and ``simulation.py`` have them.
"""

from __future__ import annotations

from logstore.testing.clock import ManualClock
from logstore.testing.faults import FaultyStore

__all__ = ["FaultyStore", "ManualClock"]
