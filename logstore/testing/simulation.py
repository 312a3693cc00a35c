"""Whole systems under one seed: virtual time, processes that pause and crash, a store with weather.

Test what you build on this library the way it tests itself. Nothing of production code is
replaced but the store, the clock and the randomness; a failing run is a seed, and replays.

>>> import asyncio, random
>>> from logstore.errors import Unavailable
>>> from logstore.testing.simulation import SimulatedLoop, SimulatedStore, Weather
>>> loop = SimulatedLoop(random.Random(7))
>>> store = SimulatedStore(loop, random.Random(8))
>>> web = loop.process("web-1", skew_ms=300, drift=0.001)
>>> face = store.face(web, weather=Weather(lost=1.0))
>>> async def main():
...     return await web.start(two_hours_later(face))
>>> async def two_hours_later(face):
...     await asyncio.sleep(7_200)
...     try:
...         await face.create("log/web-1/0", b"hello")
...     except Unavailable:
...         return "who knows?"
>>> loop.run_until_complete(main()), store.requests[0].effect
('who knows?', 'created')
>>> loop.close()

``loop.py`` has the time, ``process.py`` those who live in it, ``store.py`` the bucket they share.
"""

from __future__ import annotations

from logstore.testing.loop import SimulatedLoop, Stuck
from logstore.testing.process import Process, ProcessState, SimulatedClock, current_process
from logstore.testing.store import CALM, Request, SimulatedStore, StoreFace, Weather

__all__ = [
    "CALM",
    "Process",
    "ProcessState",
    "Request",
    "SimulatedClock",
    "SimulatedLoop",
    "SimulatedStore",
    "StoreFace",
    "Stuck",
    "Weather",
    "current_process",
]
