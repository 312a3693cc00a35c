"""A view of the past: the rows as they were at a moment that is settled. It does not move.

It begins at the last snapshot before that moment and folds the settled events up to it; so it shows what every view
had as settled rows when its watermark was there.
"""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final

from logstore import InvalidArgument, Log, LogStoreError, Position, Reader, StaleStore, Trimmed
from logstore.clock import COUNTER_BITS, STAMP_MAX
from logstore.snapshots import FoldRecords
from projections.projection import Projection
from projections.snapshots import whole_snapshots
from projections.table import Change, Table, decode_or_none

__all__ = ["Moment", "PastView", "diff", "stamp_of"]

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


class PastView(Table):
    """Rows as they were. Made by ``View.open(…, at=…)``, used as ``async with``. ``damage``: snapshots passed over."""

    def __init__(self, log: Log, projection: Projection, at: Moment) -> None:
        super().__init__(projection, log.identity.id)
        self._log = log
        self._at = stamp_of(at)
        if isinstance(at, Position) and at.store_id != log.identity.id:
            raise StaleStore(f"the position is of another store at={at.store_id.hex()} store={log.identity.id.hex()}")
        self.damage: list[LogStoreError] = []

    def __repr__(self) -> str:
        return f"<PastView {self._projection.name} at={self._at} {self._state!r}>"

    async def __aenter__(self) -> PastView:
        await self._read_on(await self._start(), self._at)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """There is nothing to end."""

    async def _read_on(self, reader: Reader, at: int) -> None:
        """Take in what is stamped at or below ``at``; refuse where that is not settled."""
        passed = self._state.watermark >= at
        if not passed:
            async with aclosing(reader.runs()) as runs:
                async for run in runs:
                    if run.segment.stamp <= at:
                        self._state.take(run)
                    elif passed := run.settled:
                        break
        if not passed and reader.watermark < at:
            raise InvalidArgument(
                f"that moment is not settled yet at={at} watermark={reader.watermark}; ask again when it is"
            )
        self._state.rise(at)

    async def _start(self) -> Reader:
        """A reader from the last snapshot before the moment, whose rows are loaded now, or from the beginning."""
        fold = self._projection.registration().key
        records = (await self._log.snapshots.listed(fold)).get(fold, FoldRecords())
        async with aclosing(whole_snapshots(self._log.snapshots, records, self.damage, at=self._at)) as whole:
            async for manifest, rows in whole:
                reader = self._log.read(after=manifest.position(self._log.identity.id))
                try:
                    await reader.begin()
                except (StaleStore, Trimmed) as error:
                    self.damage.append(error)
                else:
                    self._state.load(rows, manifest.stamp, manifest.verdicts)
                    return reader
        return self._log.read()

    async def _go_on(self, reader: Reader, at: int) -> list[Change]:
        """Move to a later moment after all; return what it changed, by key."""
        self._state.take_since()
        await self._read_on(reader, at)
        since, rows = self._state.take_since(), self._state.rows
        assert since is not None, "tracked since the earlier moment"
        return [
            Change(key, decode_or_none(key, old), decode_or_none(key, rows.get(key)))
            for key, old in sorted(since.rows.items(), key=lambda item: item[0].encode())
        ]


async def diff(log: Log, projection: Projection, before: Moment, after: Moment) -> list[Change]:
    """Return how the rows of two moments differ, by key: each as it was at the earlier one, and at the later.

    Cost: that of ``View.open(…, at=before)``, and of reading from there to ``after``. Raises as that does.

    >>> async def changed(log, projection, yesterday, now):
    ...     return [change.key for change in await diff(log, projection, yesterday, now)]
    """
    projection.check()
    start, stop = stamp_of(before), stamp_of(after)
    if stop < start:
        raise InvalidArgument(f"the later moment comes first before={start} after={stop}; swap them")
    past = PastView(log, projection, start)
    reader = await past._start()
    await past._read_on(reader, start)
    return await past._go_on(reader, stop)
