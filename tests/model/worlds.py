"""The small worlds without deletion: who runs, from which store, and what may go wrong how often.

One world with everything in it has too many states to see them all; so each asks one question and is small in the rest.
A pause needs no budget: between two requests of a process any number of other steps may happen, so every process may
sleep anywhere for as long as anything else goes on. "1 lost answer" is a creation whose answer does not come; it has
landed, or lands at any later moment, or never.
"""

from __future__ import annotations

from functools import partial

from tests.model import protocol
from tests.model.bugs import Bug
from tests.model.explorer import Process, World
from tests.model.protocol import Mind, Reader, Rules, Witness
from tests.model.store import Body, Entry, Key, Segment, Session, Steps, log, roster, stored

BEGIN: dict[Key, Body] = {roster(0, 0): Entry("begin", 0)}
FIRST: Session = (0, 1)
OPENED: dict[Key, Body] = {**BEGIN, roster(0, 1): Entry("open", 1, "writer-1")}


def rules(*bugs: Bug, **settings: int) -> Rules:
    return Rules(bugs=frozenset(bugs), **settings)  # type: ignore[arg-type]  # booleans are ints


def a_writer(
    given: Rules, name: str, batches: str, *, haste: int = 0, crashes: bool = False, **more: object
) -> Process:
    """Appends one batch for each letter of `batches`."""

    def role() -> Steps:
        at = (0, 2) if "session" in more else (0, 1)
        return protocol.writer(Mind(name, given, at=at, haste=haste, stamp=1), tuple(batches), **more)  # type: ignore[arg-type]

    return Process(name, role, crashes=crashes)


def a_sealer(given: Rules, name: str = "sealer", *, crashes: bool = False) -> Process:
    return Process(name, lambda: protocol.sealer(Witness(name, given)), crashes=crashes)


def a_keeper(given: Rules, name: str = "keeper", *, crashes: bool = False) -> Process:
    return Process(name, lambda: protocol.keeper(Witness(name, given)), crashes=crashes)


def readers(given: Rules, count: int = 1) -> tuple[Process, ...]:
    """Interchangeable, each having read the first begin."""

    def role() -> Steps:
        return protocol.reader(Reader("reader", given))

    return tuple(Process(f"reader-{number}", role, reader=True) for number in range(1, count + 1))


def flights(*bugs: Bug, batches: str = "ab") -> World:
    """Two slots in flight, a lost answer, a crash and a seal: what is acknowledged, void, NotStored?"""
    given = rules(*bugs, flights=2)
    return World(
        "flights",
        f"1 writer with 2 flights, {len(batches)} batches; sealer; reader; 1 crash, 1 lost answer",
        (a_writer(given, "writer-1", batches, session=FIRST, crashes=True), a_sealer(given), *readers(given)),
        stored(OPENED),
        crashes=1,
        lost_answers=1,
    )


def ambiguity(*bugs: Bug, batches: str = "a") -> World:
    """Several lost answers in a row: the slot's, the retry's, the seal's."""
    given = rules(*bugs)
    return World(
        "ambiguity",
        f"1 writer, {len(batches)} batches; sealer; reader; 3 lost answers",
        (a_writer(given, "writer-1", batches, session=FIRST), a_sealer(given), *readers(given)),
        stored(OPENED),
        lost_answers=3,
    )


def one_order(*bugs: Bug, settles: bool = False) -> World:
    """Two writers race for the roster, one with a hasty clock; two readers must agree on what is settled."""
    given = rules(*bugs)
    return World(
        "one order",
        "2 writers, one hasty; sealer; 2 readers",
        (
            a_writer(given, "writer-1", "a", haste=3, settles=settles),
            a_writer(given, "writer-2", "A"),
            a_sealer(given),
            *readers(given, 2),
        ),
        stored(BEGIN),
    )


def roster_race(*bugs: Bug, reading: int = 0) -> World:
    """Two writers race for the roster while one dies and an answer gets lost: sessions without an owner."""
    given = rules(*bugs, retries=False)
    return World(
        "roster race",
        f"2 writers, one hasty; sealer; {reading} readers; 1 crash, 1 late landing",
        (
            a_writer(given, "writer-1", "a", haste=3, crashes=True),
            a_writer(given, "writer-2", "A"),
            a_sealer(given),
            *readers(given, reading),
        ),
        stored(BEGIN),
        crashes=1,
        lost_answers=1,
    )


def chapters(*bugs: Bug, reading: int = 1) -> World:
    """A chapter of three entries closes under two writers, readers follow."""
    given = rules(*bugs)
    return World(
        "chapters",
        f"2 writers; keeper; {reading} readers; chapters of 3",
        (
            a_writer(given, "writer-1", "a", haste=2),
            a_writer(given, "writer-2", "A"),
            a_keeper(given),
            *readers(given, reading),
        ),
        stored(BEGIN),
    )


def keepers(*bugs: Bug, count: int = 2, lost_answers: int = 0) -> World:
    """Keepers close the same chapter, and one dies before it has begun the next."""
    given = rules(*bugs, retries=False)
    return World(
        "keepers",
        f"2 writers; {count} keepers; chapters of 3; 1 crash, {lost_answers} lost answers",
        (
            a_writer(given, "writer-1", "a", haste=2),
            a_writer(given, "writer-2", "A"),
            *(a_keeper(given, f"keeper-{number}", crashes=number == 1) for number in range(1, count + 1)),
        ),
        stored(BEGIN),
        crashes=1,
        lost_answers=lost_answers,
    )


def _is_acknowledged_slot(key: Key, body: Body) -> bool:
    return isinstance(body, Segment) and not body.final and key.kind == "log"


def loss(*bugs: Bug, flights: int = 2) -> World:
    """The store loses a slot that later slots say was acknowledged, while a sealer comes along."""
    given = rules(*bugs, flights=flights)
    contents: dict[Key, Body] = {
        **OPENED,
        log(FIRST, 0): Segment("writer-1", 2, "a"),
        log(FIRST, 1): Segment("writer-1", 3, "b"),
        log(FIRST, 2): Segment("writer-1", 4, "c", acknowledged=1),
    }
    return World(
        "loss",
        "a dead writer's session, flights 2; sealer; reader; the store loses 1 slot",
        (a_sealer(given), *readers(given)),
        stored(contents),
        lost_objects=1,
        may_vanish=_is_acknowledged_slot,
    )


def loss_named_by_tick(*bugs: Bug) -> World:
    """The store loses the last slot of a session, which only a tick names."""
    given = rules(*bugs)
    contents: dict[Key, Body] = {
        **OPENED,
        log(FIRST, 0): Segment("writer-1", 2, "a"),
        roster(0, 2): Entry("tick", 3, "writer-1", slots=((FIRST, 1),)),
    }
    return World(
        "loss named by a tick",
        "a dead writer's session, named by a tick; sealer; reader; the store loses 1 slot",
        (a_sealer(given), *readers(given)),
        stored(contents),
        lost_objects=1,
        may_vanish=_is_acknowledged_slot,
    )


def loss_below_a_seal(*bugs: Bug) -> World:
    """The store loses the slot below a sealer's final; the next sealer must not put another final there."""
    given = rules(*bugs)
    seal = protocol.a_seal(Mind("sealer-1", given, stamp=2), 1)
    return World(
        "loss below a seal",
        "a dead writer's session of 1 slot, sealed; sealer; reader; the store loses 1 slot",
        (a_sealer(given, "sealer-2"), *readers(given)),
        stored({**OPENED, log(FIRST, 0): Segment("writer-1", 2, "a"), log(FIRST, 1): seal}),
        lost_objects=1,
        may_vanish=_is_acknowledged_slot,
    )


def loss_under_a_writer(*bugs: Bug) -> World:
    """The store loses a slot of a writer that is asleep; a sealer comes; the writer goes on."""
    given = rules(*bugs, slots_may_get_lost=True)
    return World(
        "loss under a writer",
        "1 writer, 2 batches; sealer; the store loses 1 slot",
        (a_writer(given, "writer-1", "ab", session=FIRST), a_sealer(given)),
        stored(OPENED),
        lost_objects=1,
        late_witnesses=True,
        may_vanish=_is_acknowledged_slot,
    )


def no_false_alarm(*bugs: Bug) -> World:
    """A sealer meets a writer at work, ticks included: nothing is lost, so nobody may cry Missing."""
    given = rules(*bugs, flights=2)
    return World(
        "no false alarm",
        "1 writer with 2 flights, 3 batches and a tick in between; sealer; reader",
        (a_writer(given, "writer-1", "abc", session=FIRST, tick_after=1), a_sealer(given), *readers(given)),
        stored(OPENED),
    )


def roster_loss(*bugs: Bug) -> World:
    """The store loses a roster entry below the tail: nobody may put another one there."""
    given = rules(*bugs, roster_may_lose=True)
    contents: dict[Key, Body] = {**OPENED, roster(0, 2): Entry("tick", 2), roster(0, 3): Entry("tick", 3)}
    return World(
        "roster loss",
        "2 writers, 1 batch each; reader; the store loses 1 roster entry with a later one",
        (a_writer(given, "writer-1", "a"), a_writer(given, "writer-2", "A"), *readers(given)),
        stored(contents),
        lost_objects=1,
        may_vanish=lambda key, body: key in (roster(0, 1), roster(0, 2)),
    )


QUICK = (
    flights,
    ambiguity,
    one_order,
    roster_race,
    chapters,
    keepers,
    loss,
    loss_named_by_tick,
    loss_below_a_seal,
    loss_under_a_writer,
    no_false_alarm,
    roster_loss,
)
"""Every world without deletion, in bounds that take seconds."""

LARGE = (
    partial(flights, batches="abc"),
    partial(ambiguity, batches="ab"),
    partial(one_order, settles=True),
    partial(roster_race, reading=1),
    partial(chapters, reading=2),
    partial(keepers, count=1, lost_answers=1),
)
"""The same questions in bounds that take minutes."""
