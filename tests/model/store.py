"""What a process may ask the store, and what the store does: the whole outside world of the models.

A process is a generator. It yields one request, is resumed with the answer, and everything between two yields is
instantaneous: interleaving happens at single store requests. Requests that only talk to the model (`Tell`, `Choose`,
`Send`, `Forget`) take no time at all.

The store remembers more than a real one: beside the objects that are there, the *first* content that each name ever
had. Promises are judged against that, so that deletion and loss cannot hide a mistake.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping
from typing import Any, NamedTuple

Session = tuple[int, int]
"""(chapter, number of the open entry)."""


class Key(NamedTuple):
    """A name in the bucket. `number` is the entry's, or the session's."""

    kind: str  # roster, log, retired
    chapter: int
    number: int = 0
    slot: int = 0

    @property
    def session(self) -> Session:
        return self.chapter, self.number


def roster(chapter: int, number: int) -> Key:
    return Key("roster", chapter, number)


def log(session: Session, slot: int) -> Key:
    return Key("log", *session, slot)


def retired(chapter: int) -> Key:
    return Key("retired", chapter)


class Entry(NamedTuple):
    """A roster entry. `poster` and `nonce` make every attempt's bytes its own."""

    kind: str  # begin, open, tick, closed
    stamp: int
    poster: str = ""
    nonce: int = 0
    slots: tuple[tuple[Session, int], ...] = ()  # of a tick: so many slots of that session were stored


class Segment(NamedTuple):
    """A segment with at most one event, which stands for a whole batch."""

    owner: str
    stamp: int
    event: str | None = None
    acknowledged: int = 0
    final: bool = False


class Record(NamedTuple):
    """`retired/<chapter>`: how many slots of each session count, for ever."""

    slots: tuple[tuple[int, int], ...]


Body = Entry | Segment | Record


# Requests of the store. Each is one step of a schedule.


class Get(NamedTuple):
    """The object, or None."""

    key: Key


class GetAny(NamedTuple):
    """(key, object or None) for one of the keys; the schedule picks which."""

    keys: tuple[Key, ...]


class Create(NamedTuple):
    """CREATED, EXISTS, or LOST: the answer did not come; the creation landed, or lands later, or never."""

    key: Key
    body: Body


class Delete(NamedTuple):
    key: Key


class ListChapter(NamedTuple):
    """Every key of the chapter but its record."""

    chapter: int


class Receive(NamedTuple):
    """(key, answer) of one of the creations sent before."""


class Clock(NamedTuple):
    """The time now."""


class Sleep(NamedTuple):
    """Nothing until that time has come."""

    until: int


# Requests of the model. They take no time.


class Send(NamedTuple):
    """Start a creation without waiting for its answer."""

    key: Key
    body: Body


class Forget(NamedTuple):
    """Stop caring about every creation sent; those under way may still land."""


class Choose(NamedTuple):
    """Any of the options; the schedule picks."""

    options: tuple[str, ...]


class Tell(NamedTuple):
    """Testimony: what this process now believes about a topic. The promises are about testimony."""

    topic: str
    what: Hashable


Request = Get | GetAny | Create | Delete | ListChapter | Receive | Clock | Sleep | Send | Forget | Choose | Tell

Steps = Generator[Request, Any, Any]
"""A process or a part of one. `x = yield Get(key)` types x as Any: the request decides."""

CREATED, EXISTS, LOST = "created", "exists", "lost"


class Store(NamedTuple):
    """What is there, and the first content that each name ever had."""

    objects: frozenset[tuple[Key, Body]]
    first: frozenset[tuple[Key, Body]]


def stored(contents: Mapping[Key, Body]) -> Store:
    """A store that holds these objects and never held others."""
    items = frozenset(contents.items())
    return Store(items, items)


def show(thing: object) -> str:
    """Keys, bodies, requests and answers as a reader of schedules wants them."""
    match thing:
        case None:
            return "404"
        case Entry(kind, stamp, poster, _, slots):
            named = "".join(f" names {session}<{count}" for session, count in slots)
            return f"<{kind} {stamp}{' by ' + poster if poster else ''}{named}>"
        case Segment(owner, stamp, event, acknowledged, final):
            what = " ".join(filter(None, ["final" if final else "", event or ""])) or "heartbeat"
            return f"<{what} {stamp} by {owner} ack<{acknowledged}>"
        case Record(slots):
            return "<retired, slots " + " ".join(f"{session}:{count}" for session, count in slots) + ">"
        case GetAny() | Get():
            return "get" if isinstance(thing, GetAny) else f"get {show(thing.key)}"
        case Create(key, body) | Send(key, body):
            return f"create {show(key)} {show(body)}"
        case ListChapter(chapter):
            return f"list chapter {chapter}"
        case Clock():
            return "what time is it?"
        case Sleep(until):
            return f"sleep until {until}"
        case Delete(key):
            return f"delete {show(key)}"
        case Tell(topic, what):
            return f"{topic}: {show(what)}"
        case Key(kind, chapter, number, slot):
            numbers = {"roster": (chapter, number), "log": (chapter, number, slot), "retired": (chapter,)}[kind]
            return "/".join([kind, *map(str, numbers)])
        case tuple():
            return " ".join(map(show, thing))
        case _:
            return str(thing)
