"""What writers have appended, counted where it is acknowledged: for who watches a process. Pure.

A segment is counted once, with all its events; nothing is counted for each event.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final

from logstore.histogram import Histogram, HistogramCounts

__all__ = ["Appended", "AppendedStatistics"]

SECONDS_UNIT: Final = 0.000_25
SECONDS_BOUNDS: Final = 18  # the last is 33 s: no creation goes on for longer
BYTES_UNIT: Final = 256
BYTES_BOUNDS: Final = 17  # the last is 16 MiB: what an append may weigh, and as much for keys and stamps


@dataclass(frozen=True, slots=True)
class AppendedStatistics:
    """What was appended. Counts only rise.

    ``batches``: calls that were acknowledged. ``seconds``: of each segment, from when the first of its events was
    buffered (or the segment before was sent) until it was acknowledged. ``segment_bytes``: of each as stored.
    """

    events: int
    batches: int
    sessions_opened: int
    events_sent_again: int
    events_not_stored: int
    events_unknown: int
    seconds: HistogramCounts
    segment_bytes: HistogramCounts


@dataclass(slots=True, eq=False)
class Appended:
    """The counts of a writer, or of several."""

    events: int = 0
    batches: int = 0
    segments: int = 0
    bytes: int = 0
    sessions_opened: int = 0
    events_sent_again: int = 0
    events_not_stored: int = 0
    events_unknown: int = 0
    _seconds: Histogram = field(default_factory=lambda: Histogram(SECONDS_UNIT, SECONDS_BOUNDS))
    _segment_bytes: Histogram = field(default_factory=lambda: Histogram(BYTES_UNIT, BYTES_BOUNDS))

    def store(self, *, events: int, batches: int, size: int, seconds: float) -> None:
        """A segment was acknowledged."""
        self.events += events
        self.batches += batches
        self.segments += 1
        self.bytes += size
        self._seconds.observe(seconds)
        self._segment_bytes.observe(size)

    def add(self, other: Appended) -> None:
        """Count what another has counted as well."""
        for count in fields(self):
            mine, theirs = getattr(self, count.name), getattr(other, count.name)
            if isinstance(mine, Histogram):
                mine.add(theirs)
            else:
                setattr(self, count.name, mine + theirs)

    def statistics(self) -> AppendedStatistics:
        """The counts as of now."""
        return AppendedStatistics(
            events=self.events,
            batches=self.batches,
            sessions_opened=self.sessions_opened,
            events_sent_again=self.events_sent_again,
            events_not_stored=self.events_not_stored,
            events_unknown=self.events_unknown,
            seconds=self._seconds.snapshot(),
            segment_bytes=self._segment_bytes.snapshot(),
        )
