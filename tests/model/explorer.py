"""Run processes through every schedule there is, breadth first, and check the promises in every state.

A process is a generator, and generators cannot be copied. So a suspended process is *identified* by where it stands and
what its variables hold, and *restored* by running a fresh one through the same answers. Both happen once for each
different suspended process: what an answer leads to is remembered, and from then on a process is a small number. So
are stores, sets of beliefs and networks; a state of the world is a tuple of small numbers, and a step is a few
dictionary look-ups.

Three reductions, none of which can hide a broken promise:
- A creation under a name that is taken can never land any more (unless names get free again, by deletion or loss), so
  it is dropped from the network.
- Where nothing is lost, and nobody else deletes, reading an object that is there gives the same answer now and later,
  and a process that is not a reader is not judged before it tells something: such a step is taken at once, alone.
- Identical readers are interchangeable: their states are kept sorted.
"""

from __future__ import annotations

import ast
import inspect
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import GeneratorType, ModuleType
from typing import Any, Generic, NamedTuple, TypeVar

from tests.model.promises import Broken, History, beliefs_broken, end_broken, pair_broken, store_broken
from tests.model.store import (
    CREATED,
    EXISTS,
    LOST,
    Body,
    Choose,
    Clock,
    Create,
    Delete,
    Forget,
    Get,
    GetAny,
    Key,
    ListChapter,
    Receive,
    Request,
    Send,
    Sleep,
    Steps,
    Store,
    Tell,
    show,
)

Role = Callable[[], Steps]
"""Makes a process afresh."""


@dataclass(frozen=True)
class Process:
    """One process of a world. Readers are judged by what they have read; nobody depends on them."""

    name: str
    role: Role
    reader: bool = False
    crashes: bool = False
    deletes: bool = False


@dataclass(frozen=True)
class World:
    """What to explore: who runs, from which store, and what may go wrong how often."""

    name: str
    about: str
    processes: tuple[Process, ...]
    store: Store
    crashes: int = 0
    lost_answers: int = 0
    lost_objects: int = 0
    late_witnesses: bool = False  # of lost slots; then the damage must be found in the end, not at once
    may_vanish: Callable[[Key, Body], bool] = lambda key, body: False
    horizon: int = 0  # time runs from 0 to this
    under_way: tuple[tuple[Key, Body], ...] = ()  # creations that may land at any time, or never


@dataclass(frozen=True)
class Result:
    """What an exploration found."""

    world: World
    states: int
    transitions: int
    depth: int
    seconds: float
    broken: Broken | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}, {self.seconds:.1f} s"
        if self.broken is None:
            return f"{self.world.name}: holds in {counts}"
        steps = "\n".join(f"  {number:3}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.world.name}: {self.broken.promise} broken: {self.broken.how} ({counts})\n{steps}"


Thing = TypeVar("Thing", bound=Hashable)


class Table(Generic[Thing]):
    """Things and their numbers."""

    def __init__(self) -> None:
        self.things: list[Thing] = []
        self._numbers: dict[Thing, int] = {}

    def number(self, thing: Thing) -> int:
        if (number := self._numbers.get(thing)) is None:
            number = self._numbers[thing] = len(self.things)
            self.things.append(thing)
        return number


# Suspended processes.


class Outcome(NamedTuple):
    """Where an answer leads a process: the next suspended process, and what it told and sent on the way."""

    local: int
    effects: tuple[Tell | Send | Forget, ...]


class Locals:
    """Every suspended process met so far, by number."""

    def __init__(self) -> None:
        self._identities: Table[Hashable] = Table()
        self._histories: list[tuple[Role, tuple[Any, ...]]] = []
        self.requests: list[Request | None] = []  # what it waits for; None when it has ended
        self._outcomes: dict[tuple[int, Hashable], tuple[Outcome, ...]] = {}
        self.dead = self._suspend(_nobody, (), _nobody(), None)

    def start(self, role: Role) -> Outcome:
        (outcome,) = self._run(role, ())
        return outcome

    def advance(self, local: int, answer: Hashable) -> tuple[Outcome, ...]:
        """Resume with an answer; several outcomes when the process chooses before its next request."""
        if (known := self._outcomes.get((local, answer))) is None:
            role, history = self._histories[local]
            known = self._outcomes[local, answer] = tuple(self._run(role, (*history, answer)))
        return known

    def _run(self, role: Role, history: tuple[Any, ...]) -> Iterator[Outcome]:
        """Replay a history to its end, then go on until the next request of the store.

        Only what is told and sent after the history counts: the rest has taken effect already.
        """
        process, given = role(), 0
        effects: list[Tell | Send | Forget] = []
        request: Request | None
        try:
            request = next(process)
            while True:
                if given < len(history):
                    request, given = process.send(history[given]), given + 1
                elif isinstance(request, Tell | Send | Forget):
                    effects.append(request)
                    history, given = (*history, None), given + 1
                    request = process.send(None)
                elif isinstance(request, Choose):
                    for option in request.options:
                        for outcome in self._run(role, (*history, option)):
                            yield Outcome(outcome.local, (*effects, *outcome.effects))
                    return
                else:
                    break
        except StopIteration:
            request = None
        yield Outcome(self._suspend(role, history, process, request), tuple(effects))

    def _suspend(self, role: Role, history: tuple[Any, ...], process: Steps, request: Request | None) -> int:
        local = self._identities.number(None if request is None else (role, identity(process)))
        if local == len(self.requests):
            self._histories.append((role, history))
            self.requests.append(request)
        return local


def _nobody() -> Steps:
    """A process that has ended."""
    yield from ()


def identity(process: Steps) -> Hashable:
    """Where a suspended process stands, through all it has called, and what its variables hold."""
    frames: list[Hashable] = []
    seen: dict[int, int] = {}
    below: object = process
    while isinstance(below, GeneratorType) and below.gi_frame is not None:
        frame = below.gi_frame
        variables = tuple((name, freeze(value, seen)) for name, value in sorted(frame.f_locals.items()))
        frames.append((frame.f_code.co_qualname, frame.f_lasti, variables))
        below = below.gi_yieldfrom
    return tuple(frames)


def freeze(thing: Any, seen: dict[int, int]) -> Hashable:
    """A value that equals another frozen one exactly when the things do; shared objects stay shared."""
    if isinstance(thing, list | dict) or (is_dataclass(thing) and type(thing).__hash__ is None):
        if id(thing) in seen:
            return ("the same as", seen[id(thing)])
        seen[id(thing)] = len(seen)
        if isinstance(thing, list):
            return ("list", *(freeze(item, seen) for item in thing))
        if isinstance(thing, dict):
            return ("dict", *((key, freeze(value, seen)) for key, value in thing.items()))
        return ("object", *(freeze(getattr(thing, part.name), seen) for part in fields(thing)))
    hash(thing)  # immutable, or we fail here and now
    unchanged: Hashable = thing
    return unchanged


def check_style(module: ModuleType) -> list[str]:
    """Yields that would hide part of a process's state from `identity`: in a `for`, or inside an expression."""
    found = []
    tree = ast.parse(inspect.getsource(module))
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Yield | ast.YieldFrom):
            continue
        if not isinstance(parents[node], ast.Assign | ast.Expr | ast.Return):
            found.append(f"{module.__name__}:{node.lineno}: a yield in the midst of an expression")
        above: ast.AST = node
        while not isinstance(above, ast.FunctionDef):
            if isinstance(above, ast.For | ast.comprehension | ast.With | ast.Try):
                found.append(f"{module.__name__}:{node.lineno}: a yield inside a {type(above).__name__}")
            above = parents[above]
    return found


# The world.


class Flight(NamedTuple):
    """A creation under way: a process waits for its answer, or `NOBODY`; `answer` once it has landed."""

    process: int
    key: Key
    body: Body
    answer: str | None = None


NOBODY = -1

State = tuple[int, ...]
"""(store, network, now, crashes left, answers to lose left, objects to lose left, process…, beliefs…), as numbers."""

FIRST_PROCESS = 6


class Step(NamedTuple):
    """What happened between two states: who, what, and with what answer."""

    who: str
    what: object
    answer: object


class Explorer:
    """Explores one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.locals = Locals()
        self.stores: Table[Store] = Table()
        self.networks: Table[tuple[Flight, ...]] = Table()
        self.beliefs: Table[frozenset[tuple[str, Hashable]]] = Table()
        self._count = len(world.processes)
        self._contents: list[dict[Key, Body]] = []
        self._created: dict[tuple[int, Key, Body], tuple[int, str]] = {}
        self._histories: dict[int, History] = {}
        self._judged: dict[tuple[int, ...], Broken | None] = {}
        self._stable = not world.lost_objects and not any(process.deletes for process in world.processes)
        self._steady = [  # of each process: can nobody take away under its eyes what it reads?
            not process.reader
            and not world.lost_objects
            and not any(p.deletes for p in world.processes if p != process)
            for process in world.processes
        ]
        self._twins = [
            (one, two)
            for one in range(self._count)
            for two in range(one + 1, self._count)
            if world.processes[one].role is world.processes[two].role and world.processes[one].reader
        ]

    def explore(self, *, states_max: int = 5_000_000) -> Result:
        """Every reachable state, or the shortest way to one that breaks a promise."""
        began = time.perf_counter()
        first = self._first()
        parents: dict[State, State | None] = {first: None}
        layer, depth, transitions = [first], 0, 0

        def result(broken: Broken | None = None, last: State | None = None) -> Result:
            seconds = time.perf_counter() - began
            trace = self._trace(parents, last) if last else ()
            return Result(self.world, len(parents), transitions, depth, seconds, broken, trace)

        if broken := self._judge(first):
            return result(broken, first)
        while layer:
            following = []
            for state in layer:
                stuck = True
                for after, _ in self._successors(state):
                    if after == state:
                        continue
                    stuck = False
                    transitions += 1
                    if after in parents:
                        continue
                    parents[after] = state
                    if broken := self._judge(after):
                        return result(broken, after)
                    following.append(after)
                if stuck and (broken := self._judge_end(state)):
                    return result(broken, state)
            if len(parents) > states_max:
                raise AssertionError(f"{self.world.name} has more than {states_max} states: choose smaller bounds")
            layer, depth = following, depth + 1
        return result()

    # Steps.

    def _first(self) -> State:
        world = self.world
        started = [self.locals.start(process.role) for process in world.processes]
        nothing = self.beliefs.number(frozenset())
        state = (
            self._store(world.store),
            self.networks.number(tuple(Flight(NOBODY, key, body) for key, body in world.under_way)),
            0,
            world.crashes,
            world.lost_answers,
            world.lost_objects,
            *(outcome.local for outcome in started),
            *(nothing for _ in started),
        )
        for process, outcome in enumerate(started):
            state = self._resumed(state, process, outcome)
        return state

    def _successors(self, state: State) -> Iterator[tuple[State, Step]]:
        """Every state that one step leads to."""
        requests = [self.locals.requests[local] for local in state[FIRST_PROCESS : FIRST_PROCESS + self._count]]
        for process, request in enumerate(requests):
            if self._steady[process] and isinstance(request, Get):
                body = self._contents[state[0]].get(request.key)
                if body is not None:
                    yield from self._answer(state, process, request, body)
                    return
        for process, request in enumerate(requests):
            if request is not None:
                yield from self._serve(state, process, request)
                if state[3] and self.world.processes[process].crashes:
                    yield self._crash(state, process, request)
        yield from self._weather(state)

    def _serve(self, state: State, process: int, request: Request) -> Iterator[tuple[State, Step]]:
        """The store answers one request, or the network loses the answer."""
        contents = self._contents[state[0]]
        match request:
            case Get(key):
                yield from self._answer(state, process, request, contents.get(key))
            case GetAny(keys):
                for key in keys:
                    yield from self._answer(state, process, request, (key, contents.get(key)))
            case Create(key, body):
                store, answer = self._create(state[0], key, body)
                yield from self._answer((store, *state[1:]), process, request, answer)
                if state[4]:
                    lost = self._fly(self._spend(state, 4), Flight(NOBODY, key, body))
                    yield from self._answer(lost, process, request, LOST)
            case Receive():
                yield from self._receive(state, process)
            case Delete(key):
                yield from self._answer(self._remove(state, key), process, request, None)
            case ListChapter(chapter):
                keys = tuple(sorted(key for key in contents if key.chapter == chapter and key.kind != "retired"))
                yield from self._answer(state, process, request, keys)
            case Clock():
                yield from self._answer(state, process, request, state[2])
            case Sleep(until) if state[2] >= until:
                yield from self._answer(state, process, request, None)

    def _receive(self, state: State, process: int) -> Iterator[tuple[State, Step]]:
        """One of the creations under way lands and is answered, lands only, or has its answer lost."""
        network = self.networks.things[state[1]]
        mine = [flight for flight in network if flight.process == process]
        for flight in mine:
            gone = self._with_network(state, _without(network, flight))
            _, key, body, answer = flight
            request = Create(key, body)
            if answer is None:
                store, landed = self._create(state[0], key, body)
                yield from self._answer((store, *gone[1:]), process, request, (key, landed))
                if len(mine) > 1:
                    waits = self._fly((store, *gone[1:]), Flight(process, key, body, landed))
                    yield waits, Step(self.world.processes[process].name, request, "lands, unanswered yet")
            else:
                yield from self._answer(gone, process, request, (key, answer))
            if state[4]:
                lost = self._spend(gone, 4)
                if answer is None:
                    lost = self._fly(lost, Flight(NOBODY, key, body))
                yield from self._answer(lost, process, request, (key, LOST))

    def _weather(self, state: State) -> Iterator[tuple[State, Step]]:
        """What happens by itself: abandoned creations land, objects vanish, time goes by."""
        network = self.networks.things[state[1]]
        for flight in dict.fromkeys(network):
            if flight.process == NOBODY:
                store, answer = self._create(state[0], flight.key, flight.body)
                landed = self._with_network((store, *state[1:]), _without(network, flight))
                yield self._tidy(landed), Step("network", Create(flight.key, flight.body), f"lands late: {answer}")
        if state[5]:
            for key, body in self._contents[state[0]].items():
                if self.world.may_vanish(key, body):
                    yield self._remove(self._spend(state, 5), key), Step("store", f"loses {show(key)}", "")
        if state[2] < self.world.horizon:
            yield (*state[:2], state[2] + 1, *state[3:]), Step("time", f"is {state[2] + 1}", "")

    def _crash(self, state: State, process: int, request: Request) -> tuple[State, Step]:
        """The process dies; what it has under way may land or not."""
        after = self._abandon(self._spend(state, 3), process)
        if isinstance(request, Create):
            after = self._fly(after, Flight(NOBODY, request.key, request.body))
        after = self._with_local(after, process, self.locals.dead)
        return self._tidy(after), Step(self.world.processes[process].name, "dies", "")

    def _answer(self, state: State, process: int, request: Request, answer: Hashable) -> Iterator[tuple[State, Step]]:
        """Resume a process."""
        step = Step(self.world.processes[process].name, request, answer)
        for outcome in self.locals.advance(state[FIRST_PROCESS + process], answer):
            yield self._resumed(state, process, outcome), step

    def _resumed(self, state: State, process: int, outcome: Outcome) -> State:
        """What a process told and sent takes effect at once."""
        after = self._with_local(state, process, outcome.local)
        for effect in outcome.effects:
            if isinstance(effect, Tell):
                place = FIRST_PROCESS + self._count + process
                told = {**dict(self.beliefs.things[after[place]]), effect.topic: effect.what}
                after = (*after[:place], self.beliefs.number(frozenset(told.items())), *after[place + 1 :])
            elif isinstance(effect, Send):
                after = self._fly(after, Flight(process, effect.key, effect.body))
            else:
                after = self._abandon(after, process)
        return self._tidy(after)

    # Parts of a state.

    def _store(self, store: Store) -> int:
        number = self.stores.number(store)
        if number == len(self._contents):
            self._contents.append(dict(store.objects))
        return number

    def _create(self, store: int, key: Key, body: Body) -> tuple[int, str]:
        if (known := self._created.get((store, key, body))) is None:
            if key in self._contents[store]:
                known = (store, EXISTS)
            else:
                objects, first = self.stores.things[store]
                named = any(name == key for name, _ in first)
                item = frozenset({(key, body)})
                known = (self._store(Store(objects | item, first if named else first | item)), CREATED)
            self._created[store, key, body] = known
        return known

    def _remove(self, state: State, key: Key) -> State:
        objects, first = self.stores.things[state[0]]
        return (self._store(Store(frozenset(item for item in objects if item[0] != key), first)), *state[1:])

    def _fly(self, state: State, flight: Flight) -> State:
        return self._with_network(state, (*self.networks.things[state[1]], flight))

    def _abandon(self, state: State, process: int) -> State:
        """Nobody waits any more for what this process has under way."""
        kept = []
        for flight in self.networks.things[state[1]]:
            if flight.process != process:
                kept.append(flight)
            elif flight.answer is None:
                kept.append(flight._replace(process=NOBODY))
        return self._with_network(state, tuple(kept))

    def _with_network(self, state: State, network: Sequence[Flight]) -> State:
        ordered = tuple(sorted(network, key=lambda flight: (flight.process, flight.key, str(flight.body))))
        return (state[0], self.networks.number(ordered), *state[2:])

    def _with_local(self, state: State, process: int, local: int) -> State:
        place = FIRST_PROCESS + process
        return (*state[:place], local, *state[place + 1 :])

    def _spend(self, state: State, budget: int) -> State:
        return (*state[:budget], state[budget] - 1, *state[budget + 1 :])

    def _tidy(self, state: State) -> State:
        """One state for all that differ in nothing that matters: see the reductions above."""
        network = self.networks.things[state[1]]
        if network and self._stable:
            contents = self._contents[state[0]]
            kept = [flight for flight in network if flight.process != NOBODY or flight.key not in contents]
            if len(kept) < len(network):
                state = self._with_network(state, kept)
        for one, two in self._twins:
            a, b = FIRST_PROCESS + one, FIRST_PROCESS + two
            if state[a] > state[b]:
                swapped = list(state)
                for place in (0, self._count):
                    swapped[a + place], swapped[b + place] = state[b + place], state[a + place]
                state = tuple(swapped)
        return state

    # Judging.

    def _history(self, store: int) -> History:
        if store not in self._histories:
            self._histories[store] = History(self.stores.things[store])
        return self._histories[store]

    def _judge(self, state: State) -> Broken | None:
        """The first promise that this state breaks. What was judged once is remembered part by part."""
        store, losses = state[0], bool(self.world.lost_objects)
        told = state[FIRST_PROCESS + self._count :]
        if losses and any("missing" in self._told(number) for number in told):
            return None  # the damage is found; what happens after that is not promised
        judged, broken = self._judged, None
        if (store,) not in judged:
            judged[store,] = next(self._store_broken(store, at_end=False), None)
        broken = judged[store,]
        for number in told:
            if (store, number) not in judged:
                judged[store, number] = next(beliefs_broken(self._history(store), self._told(number), losses), None)
            broken = broken or judged[store, number]
        for one, two in self._twins:
            pair = (NOBODY, told[one], told[two])
            if pair not in judged:
                judged[pair] = next(pair_broken(self._told(told[one]), self._told(told[two])), None)
            broken = broken or judged[pair]
        return broken

    def _store_broken(self, store: int, *, at_end: bool) -> Iterator[Broken]:
        return store_broken(
            self._history(store), bool(self.world.lost_objects), self.world.late_witnesses and not at_end
        )

    def _judge_end(self, state: State) -> Broken | None:
        """Nothing can move any more: is every acknowledged event, and every reader, where it should be?"""
        told = state[FIRST_PROCESS + self._count :]
        if any("missing" in self._told(number) for number in told):
            return None
        for number in told:
            for broken in end_broken(self._history(state[0]), self._told(number), bool(self.world.lost_objects)):
                return broken
        return next(self._store_broken(state[0], at_end=True), None)

    def _told(self, number: int) -> dict[str, Hashable]:
        return dict(self.beliefs.things[number])

    # Counterexamples.

    def _trace(self, parents: dict[State, State | None], last: State) -> tuple[str, ...]:
        """The schedule that leads to a state, a line for each step."""
        steps: list[str] = []
        state, before = last, parents[last]
        while before is not None:
            step = next(step for after, step in self._successors(before) if after == state)
            steps.append(self._line(step, before, state))
            state, before = before, parents[before]
        return tuple(reversed(steps))

    def _line(self, step: Step, before: State, after: State) -> str:
        answer = step.answer if isinstance(step.answer, str) else show(step.answer)
        line = f"{step.who:<9} {show(step.what)}" + (f" -> {answer}" if answer else "")
        news = []
        for old, new in zip(before[-self._count :], after[-self._count :], strict=True):
            told = self.beliefs.things[new] - self.beliefs.things[old]
            news += [f"{topic}: {show(what)}" for topic, what in sorted(told, key=str) if topic != "read"]
            for topic, what in told:
                if topic == "read" and isinstance(what, tuple):
                    news.append(f"has read {','.join(event for *_, event in sorted(what[0]))} W={what[1]} {what[4]}")
        return line + (f"   [{'; '.join(news)}]" if news else "")


def _without(network: tuple[Flight, ...], flight: Flight) -> tuple[Flight, ...]:
    index = network.index(flight)
    return network[:index] + network[index + 1 :]


def explore(world: World, *, states_max: int = 5_000_000) -> Result:
    """Every reachable state of a world, or the shortest way to a broken promise."""
    return Explorer(world).explore(states_max=states_max)
