"""The small worlds with deletion and time: a collector, and somebody who sleeps through it.

Time is a small integer that goes on between any two steps, up to a horizon; the grace is 2, so a look that found no
record may be relied on for 1. Nobody is quick: every process may sleep over any number of graces between two of its
requests. What these worlds prove is that the sleeper's rule is enough, whoever sleeps; and by the planted mistakes,
that it is needed, by the writer, the opener, the reader and the sealer alike, and that it is as DESIGN words it: half
the grace, from the look's start, after the request that is concluded from.
"""

from __future__ import annotations

from functools import partial

from tests.model import protocol
from tests.model.bugs import Bug
from tests.model.explorer import Process, World
from tests.model.protocol import Mind, Reader, Rules, Witness
from tests.model.store import CREATED, Body, Create, Entry, Key, Segment, Session, Steps, log, roster, stored
from tests.model.worlds import BEGIN, FIRST, rules

GRACE = 2
HORIZON = GRACE + 1

CLOSED: dict[Key, Body] = {
    **BEGIN,
    roster(0, 1): Entry("open", 1, "writer-1"),
    roster(0, 2): Entry("closed", 2, "keeper"),
    roster(1, 0): Entry("begin", 3, "keeper"),
}
"""A closed chapter with one session, which nobody has ended, and the next one begun."""


def a_collector(given: Rules, chapter: int = 0) -> Process:
    return Process("collector", lambda: protocol.collector(Mind("collector", given), chapter), deletes=True)


def a_sealer_of(given: Rules, session: Session, name: str = "sealer") -> Process:
    return Process(name, lambda: protocol.seal(Witness(name, given, stamp=3), session))


def a_reader(given: Rules) -> Process:
    return Process("reader", lambda: protocol.reader(Reader("reader", given)), reader=True)


def sleeping_writer(*bugs: Bug, lost_answers: int = 0, batches: str = "a") -> World:
    """A writer sleeps before or after a creation; meanwhile its session is sealed, retired and deleted."""
    given = rules(*bugs, grace=GRACE, retries=False)

    def writes() -> Steps:
        return protocol.writer(Mind("writer-1", given, at=(1, 1), stamp=3), tuple(batches), session=FIRST)

    return World(
        "sleeping writer",
        f"writer of {len(batches)} batches with a session; sealer; collector; {lost_answers} lost answers",
        (Process("writer-1", writes), a_sealer_of(given, FIRST), a_collector(given)),
        stored(CLOSED),
        lost_answers=lost_answers,
        horizon=HORIZON,
    )


def unanswered_record(*bugs: Bug) -> World:
    """The answer to some creation is lost, the record's for one: what is not known to be retired is not deleted."""
    given = rules(*bugs, grace=GRACE, retries=False)

    def writes() -> Steps:
        return protocol.writer(Mind("writer-1", given, at=(1, 1), stamp=3), ("a",), session=FIRST)

    return World(
        "unanswered record",
        "writer with a sealed session; collector; 1 lost answer",
        (Process("writer-1", writes), a_collector(given)),
        stored({**CLOSED, log(FIRST, 0): Segment("sealer", 3, final=True)}),
        lost_answers=1,
        horizon=HORIZON,
    )


def sleeping_opener(*bugs: Bug) -> World:
    """A writer finds the tail of the roster and sleeps; meanwhile the chapter is closed, retired and deleted."""
    given = rules(*bugs, grace=GRACE, retries=False)
    contents: dict[Key, Body] = {
        **BEGIN,
        roster(0, 1): Entry("open", 1, "writer-2"),
        log((0, 1), 0): Segment("writer-2", 2, final=True),
    }

    def opens() -> Steps:
        return protocol.writer(Mind("writer-1", given, at=(0, 2), stamp=2), ("a",))

    def closes() -> Steps:
        """A keeper that has read the chapter already."""
        closed = yield Create(roster(0, 2), Entry("closed", 3, "keeper"))
        if closed == CREATED:
            yield Create(roster(1, 0), Entry("begin", 4, "keeper"))

    return World(
        "sleeping opener",
        "a writer that opens a session; keeper; collector",
        (Process("writer-1", opens), Process("keeper", closes), a_collector(given)),
        stored(contents),
        horizon=HORIZON,
    )


def slow_reader(*bugs: Bug, sealers: int = 0) -> World:
    """A reader sleeps anywhere in a chapter. A final that lost the race for slot 0 long ago may land after deletion."""
    given = rules(*bugs, grace=GRACE, retries=False)
    contents: dict[Key, Body] = {
        **CLOSED,
        log(FIRST, 0): Segment("writer-1", 2, "a"),
        log(FIRST, 1): Segment("writer-1", 3, acknowledged=1, final=True),
    }
    return World(
        "slow reader",
        f"reader; {sealers} more sealers; collector; a zombie's final under way",
        (a_reader(given), *(a_sealer_of(given, FIRST) for _ in range(sealers)), a_collector(given)),
        stored(contents),
        horizon=HORIZON,
        under_way=((log(FIRST, 0), Segment("zombie", 3, final=True)),),
    )


def sleeping_sealer(*bugs: Bug) -> World:
    """A sealer reads a prefix of which the first slots were deleted already: no seal, and no Missing."""
    given = rules(*bugs, grace=GRACE, retries=False)
    contents: dict[Key, Body] = {
        **CLOSED,
        log(FIRST, 0): Segment("writer-1", 2, "a"),
        log(FIRST, 1): Segment("writer-1", 3, "b", acknowledged=1),
    }
    return World(
        "sleeping sealer",
        "2 sealers of a dead writer's session of 2 slots; collector",
        (a_sealer_of(given, FIRST, "sealer-1"), a_sealer_of(given, FIRST, "sealer-2"), a_collector(given)),
        stored(contents),
        horizon=HORIZON,
    )


SLEEPERS = (sleeping_writer, sleeping_opener, slow_reader, sleeping_sealer)
"""One world for each sleeper."""

QUICK = (*SLEEPERS, unanswered_record)
"""Every world with deletion, in bounds that take seconds."""

LARGE = (
    partial(slow_reader, sealers=1),
    partial(sleeping_writer, lost_answers=1),
    partial(sleeping_writer, lost_answers=1, batches="ab"),
)
"""The same with late landings."""
