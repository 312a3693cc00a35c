"""A view of the past: the rows as they were at a moment that is settled. It does not move.

It begins at the last snapshot before that moment and folds the settled events up to it; so it shows what every view
had as settled rows when its watermark was there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

from logstore import InvalidArgument, Log, LogStoreError, Position, Reader, StaleStore
from logstore.catchup import Run
from logstore.clock import COUNTER_BITS, STAMP_MAX
from projections.bounded import MemoryBudget
from projections.projection import Projection
from projections.snapshots import begin, differences
from projections.table import Change, Table, decode_or_none

__all__ = ["Moment", "PastView", "diff", "parse_moment", "rows_and_later_keys", "stamp_of"]

Moment = int | datetime | Position
_COUNTER_MAX: Final = (1 << COUNTER_BITS) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def stamp_of(at: Moment) -> int:
    """The stamp up to which events count: a stamp, a time with its zone, or a settled reader's position.

    >>> from datetime import UTC
    >>> stamp_of(datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)) >> 16
    1700000000000
    """
    match at:
        case bool():
            pass
        case int() if 0 <= at <= STAMP_MAX:
            return at
        case datetime() if at.tzinfo is not None:
            return stamp_of(((at - _EPOCH) // timedelta(milliseconds=1) << COUNTER_BITS) + _COUNTER_MAX)
        case Position(settled=(stamp, _, _, _)):
            return stamp
        case _:
            pass
    raise InvalidArgument(f"not a moment: needs a stamp, a time with its zone, or a settled position at={at!r:.60}")


def parse_moment(text: str, argument: str) -> Moment:
    """The moment that somebody typed: a time, UTC unless it has a zone, or a stamp. InvalidArgument, naming it.

    >>> str(parse_moment("2026-11-26T10:00:00", "--from"))
    '2026-11-26 10:00:00+00:00'
    """
    try:
        if text.isascii() and text.isdigit():
            return int(text)
        at = datetime.fromisoformat(text)
    except ValueError as error:
        shown = text if text.isprintable() else repr(text)
        raise InvalidArgument(f"not a time {argument}={shown:.60}; write 2026-11-26T10:00:00Z, or a stamp") from error
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


class PastView(Table):
    """Rows as they were. Made by ``View.open(…, at=…)``, used as ``async with``. ``damage``: snapshots passed over."""

    def __init__(self, log: Log, projection: Projection, at: Moment, budget: MemoryBudget) -> None:
        super().__init__(projection, log.identity.id, budget)
        self._log = log
        self._at = _stamp_in(log, at)
        self.damage: list[LogStoreError] = []

    def __repr__(self) -> str:
        return f"<PastView {self._projection.name} at={self._at} {self._state!r}>"

    async def __aenter__(self) -> PastView:
        await self._read_on(await self._start(), self._at)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """There is nothing to end."""

    async def _start(self) -> Reader:
        """A reader from the last snapshot before the moment, whose rows are loaded now, or from the beginning."""
        records = await self._log.snapshots.records(self._projection.registration().key)
        begun = await begin(self._state, self._log, records, self._log.read, self.damage, at=self._at)
        return begun.reader

    async def _read_on(self, reader: Reader, at: int, later: Callable[[Run], None] | None = None) -> None:
        """Take in what is stamped at or below ``at``; refuse where that is not settled. ``later`` gets all that is."""
        passed = self._state.watermark >= at and later is None
        if not passed:
            async with aclosing(reader.runs()) as runs:
                async for run in runs:
                    if run.segment.stamp <= at:
                        self._state.take(run)
                        self._state.shrink()
                    elif later is not None:
                        later(run)
                    elif passed := run.settled:
                        break
        if not passed and reader.watermark < at:
            raise InvalidArgument(
                f"that moment is not settled yet at={at} watermark={reader.watermark}; ask again when it is"
            )
        self._state.rise(at)


async def rows_and_later_keys(log: Log, projection: Projection, at: int) -> tuple[PastView, set[str]]:
    """The rows at a stamp, and the keys that anything stored now and stamped above it is about.

    Cost: as ``View.open(…, at=at)``, and reading what came later. Raises as that does.
    """
    past, keys = PastView(log, projection, at, MemoryBudget(None, None)), set[str]()
    reader = await past._start()
    await past._read_on(reader, at, lambda run: keys.update(past._state.keys_in(run)))
    return past, keys


async def diff(
    log: Log,
    projection: Projection,
    before: Moment,
    after: Moment,
    *,
    memory_bytes_max: int | None = None,
    cache_directory: str | os.PathLike[str] | None = None,
) -> list[Change]:
    """Return how the rows of two moments differ, by key: each as it was at the earlier one, and at the later.

    The memory budget is as that of ``View.open``, and does not count the changes returned.

    Cost: that of ``View.open(…, at=before)``, of reading from there to ``after``, and of comparing all rows. Raises as
    that does.

    >>> async def changed(log, projection, yesterday, now):
    ...     return [change.key for change in await diff(log, projection, yesterday, now)]
    """
    projection.check()
    start, stop = _stamp_in(log, before), _stamp_in(log, after)
    if stop < start:
        raise InvalidArgument(f"the later moment comes first before={start} after={stop}; swap them")
    past = PastView(log, projection, start, MemoryBudget(memory_bytes_max, cache_directory))
    reader = await past._start()
    await past._read_on(reader, start)
    earlier = past._state.rows.copy()
    await past._read_on(reader, stop)
    rows = past._state.rows
    differing = sorted(differences(earlier, rows).items(), key=lambda item: item[0].encode())
    changes = (Change(key, decode_or_none(key, old), decode_or_none(key, rows.get(key))) for key, old in differing)
    return [change for change in changes if change.differs]


def _stamp_in(log: Log, at: Moment) -> int:
    """As ``stamp_of``; a position must be of this log. Raises StaleStore."""
    stamp = stamp_of(at)
    if isinstance(at, Position) and at.store_id != log.identity.id:
        raise StaleStore(f"the position is of another store at={at.store_id.hex()} store={log.identity.id.hex()}")
    return stamp
