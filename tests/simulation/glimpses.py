"""What P7, P8 and P9 say of views, each as a function from the evidence of one run to what contradicts it.

What a view holds follows from its position: of each session it lists so many events, and all of those it no longer
lists. So the true order, folded anew over just these, says what the view must have shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from logstore.frontier import Position
from projections.state import NOT_KEPT
from tests.simulation.evidence import Evidence
from tests.simulation.history import Glimpse, Order
from tests.simulation.truth import Truth
from tests.simulation.views import NO_LINK, THING, THINGS, follow_chain, thing_of

__all__ = ["VIEW_CHECKERS", "TrueFold"]

OWN_WAIT_S_MAX: Final = 1e-3  # some hundred steps of the loop, and less than nearly every request takes


class Held(NamedTuple):
    """What a position stands for: the place of the last event in the order, and the fold of all."""

    last: int
    visible: tuple[int, ...]


class TrueFold:
    """The fold of the true order: after each event, and over what a position holds."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._held: dict[Position, Held] = {}
        links = dict.fromkeys(THINGS, NO_LINK)
        self._after: list[tuple[int, ...]] = [tuple(links.values())]
        self.objections: dict[str, str] = {}
        for event in truth.events:
            if event.kind == THING:
                thing = thing_of(event.id)
                links[thing], self.objections[event.id] = follow_chain(links[thing], event.id)
            self._after.append(tuple(links.values()))

    def settled(self, watermark: int) -> tuple[int, ...]:
        """The fold of what is at or below a watermark."""
        return self._after[self._settled_count(watermark)]

    def _settled_count(self, watermark: int) -> int:
        return self._truth.before((watermark + 1, 0, 0, 0))

    def held(self, glimpse: Glimpse) -> Held:
        """The fold of what a view held."""
        position = glimpse.position
        if position is None:
            return Held(-1, self._after[0])
        if position not in self._held:
            self._held[position] = self._fold(position, self._settled_count(glimpse.watermark))
        return self._held[position]

    def _fold(self, position: Position, settled: int) -> Held:
        links = dict(zip(THINGS, self._after[settled], strict=True))
        last = settled - 1
        stops = _stops(position)
        for place in range(settled, len(self._truth.events)):
            event = self._truth.events[place]
            if event.kind == THING and _holds(position, stops, event.order):
                thing = thing_of(event.id)
                links[thing], _ = follow_chain(links[thing], event.id)
                last = place
        return Held(last, tuple(links.values()))


def _stops(position: Position) -> dict[tuple[int, int], int]:
    """How many events it holds of each session that it has not read to the end."""
    return {(session.chapter, session.number): session.tip.sequence + session.taken for session in position.sessions}


def _holds(position: Position, stops: dict[tuple[int, int], int], order: Order) -> bool:
    _, chapter, session, sequence = order
    if (stop := stops.get((chapter, session))) is not None:
        return sequence < stop
    return position.last is not None and (chapter, session) <= position.last


def p7_rows_are_the_fold(evidence: Evidence) -> Iterator[str]:
    """Settled rows are the fold of what is at or below the watermark, visible ones of what the view holds."""
    fold = TrueFold(evidence.truth)
    for glimpse in evidence.history.glimpses:
        story = f"{glimpse.view} of {glimpse.process} at {glimpse.at_s:.4f}"
        if glimpse.settled != (wanted := fold.settled(glimpse.watermark)):
            yield f"P7 {story} shows {glimpse.settled} as settled at {glimpse.watermark}, not {wanted}"
        if glimpse.between_batches and glimpse.visible != (wanted := fold.held(glimpse).visible):
            yield f"P7 {story} shows {glimpse.visible}, not {wanted}"
        links = dict(zip(THINGS, glimpse.visible, strict=True))
        by_link = tuple(sorted((thing for thing in THINGS if links[thing] != NO_LINK), key=lambda t: (-links[t], t)))
        if glimpse.found != by_link:
            yield f"P7 {story} finds {glimpse.found}, its rows are {by_link}"


def p7_reading_a_view_comes_before(evidence: Evidence) -> Iterator[str]:
    """What a process has seen in a view is ordered before what it appends afterwards."""
    truth, fold = evidence.truth, TrueFold(evidence.truth)
    seen: dict[str, list[tuple[int, int]]] = defaultdict(lambda: [(0, -1)])
    for glimpse in evidence.history.glimpses:
        known = seen[glimpse.process]
        known.append((glimpse.appends, max(known[-1][1], fold.held(glimpse).last)))
    for number, append in enumerate(evidence.history.appends):
        known = seen[append.process]
        _, last = known[bisect_left(known, (number + 1, -1)) - 1]
        for id_ in append.ids:
            if truth.place.get(id_, last + 1) < last:
                yield f"P7 {append.process} saw {truth.ids[last]} in a view before it appended {id_}, ordered before it"


def p7_verdicts_are_the_folds(evidence: Evidence) -> Iterator[str]:
    """What a view says became of a settled append is what the true order makes of it."""
    objections = TrueFold(evidence.truth).objections
    for verdicts in evidence.history.verdicts:
        for id_, told in zip(verdicts.ids, verdicts.told, strict=True):
            objection = objections.get(id_, told)
            if objection != told and not (objection and told == NOT_KEPT):
                yield f"P7 {verdicts.view} says of {id_} {told or 'applied'!r}, not {objections[id_] or 'applied'!r}"


def p8_views_converge(evidence: Evidence) -> Iterator[str]:
    """All views, of all processes, have one digest for each watermark."""
    first: dict[int, Glimpse] = {}
    for glimpse in evidence.history.glimpses:
        other = first.setdefault(glimpse.watermark, glimpse)
        if other.digest != glimpse.digest:
            yield (
                f"P8 at {glimpse.watermark} {glimpse.view} of {glimpse.process} has {glimpse.digest[:12]}"
                f" at {glimpse.at_s:.4f}, {other.view} of {other.process} {other.digest[:12]} at {other.at_s:.4f}"
            )


def p9_views_only_go_on(evidence: Evidence) -> Iterator[str]:
    """A view shows what it was waited for and all that was acknowledged before a refresh, and never goes back."""
    truth, acknowledged = evidence.truth, evidence.history.acknowledged
    before: dict[tuple[str, str], Glimpse] = {}
    checked: dict[tuple[str, str], int] = defaultdict(int)  # so many of the acknowledged were shown
    for glimpse in evidence.history.glimpses:
        view, position = (glimpse.process, glimpse.view), glimpse.position
        story = f"P9 {glimpse.view} of {glimpse.process} at {glimpse.at_s:.4f}"
        if position is None:
            yield f"{story} stands nowhere"
            continue
        stops = _stops(position)
        if (earlier := before.get(view)) is not None:
            if glimpse.watermark < earlier.watermark:
                yield f"{story} goes back from {earlier.watermark} to {glimpse.watermark}"
            yield from (f"{story} lacks what it held of {lost}" for lost in _lost(earlier.position, position, stops))
        before[view] = glimpse
        for id_ in (*glimpse.promised, *acknowledged[checked[view] : glimpse.acknowledged]):
            if id_ in truth.place and not _holds(position, stops, truth.events[truth.place[id_]].order):
                yield f"{story} lacks {id_}"
        checked[view] = max(checked[view], glimpse.acknowledged)


def _lost(earlier: Position | None, later: Position, stops: dict[tuple[int, int], int]) -> Iterator[str]:
    """The sessions of which a later position holds less."""
    if earlier is None:
        return
    if (later.last or (0, -1)) < (earlier.last or (0, -1)):
        yield f"the roster up to {earlier.last}"
    for address, stop in _stops(earlier).items():
        if address in stops and stops[address] < stop:
            yield f"session {address}"
    for address in stops.keys() - _stops(earlier).keys():
        if earlier.last is not None and address <= earlier.last:
            yield f"session {address}, which was read to its end"


def p9_own_writes_cost_nothing(evidence: Evidence) -> Iterator[str]:
    """Who follows and remembers does not wait for what it wrote itself."""
    if not evidence.remembers:
        return
    for id_, began_s, ended_s in evidence.history.own_waits:
        if ended_s - began_s > OWN_WAIT_S_MAX:
            yield f"P9 a view waited for {id_}, its process's own, from {began_s:.4f} to {ended_s:.4f}"


VIEW_CHECKERS: Sequence[Callable[[Evidence], Iterator[str]]] = (
    p7_rows_are_the_fold,
    p7_reading_a_view_comes_before,
    p7_verdicts_are_the_folds,
    p8_views_converge,
    p9_views_only_go_on,
    p9_own_writes_cost_nothing,
)
