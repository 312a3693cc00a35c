"""A simulated operating system process: something that can stop, go on, and die.

A process is a tag in the context of its tasks, and everything they start inherits it. The loop
looks at the tag before it runs anything: what belongs to a *paused* process is parked until the
process goes on (SIGSTOP, SIGCONT), what belongs to a *crashed* one is dropped for ever
(SIGKILL): no ``finally`` runs, nothing is flushed. What it had sent before may still land.

Each process has a machine of its own, hence a clock of its own: skewed, drifting, stepping.

Invariants:
- A paused process does nothing, yet its clocks go on; its timers all fire late.
- A crashed process never does anything again.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

__all__ = ["Process", "ProcessState", "SimulatedClock", "current_process"]

T = TypeVar("T")

EPOCH_MS = 1_700_000_000_000  # every simulation begins on the same date


class SimulatedClock:
    """Both clocks of a machine, driven by the loop's virtual time but never quite agreeing with it.

    ``drift`` is how many seconds the machine gains per second; ``skew_ms`` how far its wall clock
    is ahead at the start. ``step`` sets the wall clock, as an operator or NTP would.
    """

    def __init__(self, time_s: Callable[[], float], *, skew_ms: int = 0, drift: float = 0.0) -> None:
        self._time_s = time_s
        self._drift = drift
        self._wall_ahead_ms = skew_ms

    def __repr__(self) -> str:
        return f"<SimulatedClock ahead_ms={self.wall_ms() - EPOCH_MS - int(self._time_s() * 1000)}>"

    def wall_ms(self) -> int:
        """Unix time in milliseconds, as this machine believes it to be."""
        return EPOCH_MS + self._wall_ahead_ms + self.elapsed_ms()

    def elapsed_ms(self) -> int:
        """Milliseconds since the start of the simulation; pauses count."""
        return int(self._time_s() * (1.0 + self._drift) * 1000)

    def step(self, ms: int) -> None:
        """Set the wall clock ``ms`` forward (or back); nothing passes."""
        self._wall_ahead_ms += ms


class ProcessState(enum.Enum):
    """What a process is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    CRASHED = "crashed"


@dataclass(eq=False, slots=True)
class Process:
    """One process; made by ``SimulatedLoop.process``."""

    name: str
    clock: SimulatedClock
    unpark: Callable[[Process], None] = field(repr=False)
    state: ProcessState = ProcessState.RUNNING
    parked: list[asyncio.Handle] = field(default_factory=list, repr=False)
    pauses: int = 0

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Run ``coroutine`` as a task of this process; all that it starts belongs to it as well."""
        context = contextvars.Context()
        context.run(_current.set, self)
        return asyncio.get_running_loop().create_task(coroutine, name=name, context=context)

    def pause(self) -> None:
        """SIGSTOP: park everything until ``resume``."""
        if self.state is ProcessState.RUNNING:
            self.state = ProcessState.PAUSED
            self.pauses += 1

    def resume(self) -> None:
        """SIGCONT: run what was parked, late timers and answers that have come meanwhile alike."""
        if self.state is ProcessState.PAUSED:
            self.state = ProcessState.RUNNING
            self.unpark(self)

    def crash(self) -> None:
        """SIGKILL: drop everything. What was sent may still land."""
        self.state = ProcessState.CRASHED
        self.parked.clear()


_current: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


def current_process(context: contextvars.Context | None = None) -> Process | None:
    """The process that is running, or that ``context`` belongs to; None for the world outside of all of them."""
    return _current.get() if context is None else context.get(_current)
