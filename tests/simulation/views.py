"""Views in the world: a fold that minds every order, and processes that look at what their views show.

The fold chains ids: each row is a number that depends on which events of its key came, and in which order. It
rejects some, deletes some, and which ones depends on what came before. So two orders, or a view that lacks one
event, hardly ever look alike.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from typing import Final

from logstore import Receipt, StoredEvent
from logstore.catchup import Run
from logstore.event import Data
from projections import Index, Projection, Rejected, View
from tests.simulation.history import Append, Glimpse, History, Outcome, Verdicts

__all__ = ["THING", "THINGS", "Chain", "Glass", "follow_chain", "rows_of", "thing_of"]

THINGS: Final = tuple(f"k{i}" for i in range(5))
THING: Final = "Thing"
NO_LINK: Final = 0  # where there is no row
WAIT_S: Final = 5
SETTLE_S: Final = 10
WATCHED_S: Final = 0.05  # a virtual while in which who is told of a change takes it


def thing_of(id_: str) -> str:
    """The key of the event with this id."""
    return THINGS[zlib.crc32(id_.encode()) % len(THINGS)]


def follow_chain(link: int, id_: str) -> tuple[int, str]:
    """The link after an event, and why it changed nothing, "" where it did."""
    following = zlib.crc32(id_.encode(), link)
    if following % 4 == 0:
        return link, f"would be {following}"
    return (NO_LINK if following % 16 == 1 else following), ""


class Chain(Projection):
    """A row's ``link`` stands for all that was applied to it, in order."""

    name, kinds = "chain", frozenset({THING})
    indexes = (Index("-link"),)

    def apply(self, state: Data | None, event: StoredEvent) -> Data | None:
        """As ``follow_chain`` says."""
        assert event.data is not None
        link, objection = follow_chain(state["link"] if state else NO_LINK, event.data["id"])
        if objection:
            raise Rejected(objection)
        return {"link": link} if link else None


class Glass:
    """One view, through which a process looks; what it sees goes into the history."""

    def __init__(self, name: str, process: str, view: View, history: History, *, follows: bool) -> None:
        self.name = name
        self.view = view
        self.follows = follows
        self._process = process
        self._history = history
        self._ahead = False  # it has taken in what its watermark does not tell yet
        self._mirror = self._rows()
        self._changes = view.changes()
        self._mark_batches()

    def _mark_batches(self) -> None:
        """Notice when a batch begins and is complete, one that is interrupted only with the next."""
        state = self.view._state
        take, rise = state.take, state.rise

        def mark_take(run: Run) -> None:
            self._ahead = True
            take(run)

        def mark_rise(watermark: int) -> None:
            rise(watermark)
            self._ahead = False

        state.take, state.rise = mark_take, mark_rise  # type: ignore[method-assign]

    def look(self, *, acknowledged: int = 0, promised: Sequence[str] = ()) -> None:
        """Write down what the view shows now."""
        self._history.glimpse(self._glimpse(acknowledged, tuple(promised)))

    def _glimpse(self, acknowledged: int, promised: tuple[str, ...]) -> Glimpse:
        view = self.view
        return Glimpse(
            view=self.name,
            process=self._process,
            at_s=self._history.now_s(),
            appends=len(self._history.appends),
            between_batches=not (self._ahead or view._taking.locked()),
            position=view.position,
            watermark=view.watermark,
            settled=tuple(_link(view.get(thing, settled=True)) for thing in THINGS),
            visible=rows_of(view),
            found=tuple(view.find(order_by=["-link"]).keys),
            digest=view.digest(),
            acknowledged=acknowledged,
            promised=promised,
        )

    async def wait_for(self, append: Append) -> None:
        """Wait until the view holds an append, and look. TimeoutError, Unavailable: it was not to be."""
        assert append.receipt is not None
        began_s, costs_nothing = self._history.now_s(), self._has_begun(append)
        await self.view.wait_for(append.receipt, timeout=WAIT_S)
        self.look(promised=append.ids)
        if costs_nothing:
            self._history.own_waits.append((append.ids[0], began_s, self._history.now_s()))

    def _has_begun(self, append: Append) -> bool:
        """Whether it follows its own process in a session whose beginning it has read, and is not waiting for others.

        The roster up to a new session may still have to be read, by the follower too, which may be behind a view that
        began at a snapshot; and what is being taken in has to arrive.
        """
        receipt, position = append.receipt, self.view.position
        if receipt is None or position is None or position.last is None or self.view._taking.locked():
            return False
        follower = self.view._log.follower
        if follower is None or follower.frontier.last is None:
            return False
        has_read = min(position.last, follower.frontier.last.address) >= (receipt.chapter, receipt.session)
        acknowledged_here = append.process == self._process and append.outcome is Outcome.STORED
        return has_read and self.follows and acknowledged_here  # not what another had to be asked about

    async def settled(self, append: Append) -> None:
        """Wait until the view says what became of an append, and write it down."""
        receipt = append.receipt
        assert receipt is not None
        verdicts = await self.view.settled(receipt, timeout=SETTLE_S)
        told = tuple(
            verdicts[seq].reason if seq in verdicts else "" for seq in range(receipt.first_seq, _stop(receipt))
        )
        self._history.judge(Verdicts(self.name, self._process, self._history.now_s(), append.ids, told))
        self.look(promised=append.ids)

    async def snapshot(self) -> None:
        """Write a snapshot, and look: what it holds is checked when all is over."""
        acknowledged = len(self._history.acknowledged)
        manifest = await self.view.snapshot()
        self._history.note(self._process, f"wrote a snapshot of {manifest.rows} rows at {manifest.point}")
        self.look(acknowledged=acknowledged)

    async def watch(self) -> None:
        """Keep a mirror of the rows by their changes; each must begin where the one before it ended."""
        async for key, old, new in self._changes:
            if self._mirror[key] != _link(old):
                self._history.problem(f"P9 {self.name} changes {key} from {old}, it was {self._mirror[key]}")
            self._mirror[key] = _link(new)

    async def compare_mirror(self) -> None:
        """With all changes taken, the mirror is the rows."""
        before = self._rows()
        await asyncio.sleep(WATCHED_S)
        if self._rows() == before != self._mirror:
            self._history.problem(f"P9 {self.name} told changes that end in {self._mirror}, its rows are {before}")

    def _rows(self) -> dict[str, int]:
        return {thing: _link(self.view.get(thing)) for thing in THINGS}


def rows_of(view: View) -> tuple[int, ...]:
    """The links that a view shows, thing by thing."""
    return tuple(_link(view.get(thing)) for thing in THINGS)


def _stop(receipt: Receipt) -> int:
    return receipt.first_seq + receipt.count


def _link(row: Data | None) -> int:
    return NO_LINK if row is None else row["link"]
