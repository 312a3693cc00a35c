"""The promises of DESIGN §2, each as a function from the evidence of one run to what contradicts it.

Every checker yields one line for each contradiction, beginning with the promise's name. They know
nothing of how the library works inside: only its calls and answers, the store's requests, and the
truth in the bucket. What is promised of views is in ``glimpses.py``.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

from logstore.keys import EntryKey, RetiredKey, SegmentKey, StoreKey, parse_key
from logstore.testing.store import Request
from tests.simulation.evidence import Evidence
from tests.simulation.glimpses import VIEW_CHECKERS
from tests.simulation.history import Append, Attempt, History, Outcome, Stream
from tests.simulation.retention import p11_retention_is_safe
from tests.simulation.snapshots import p10_snapshots_are_the_fold
from tests.simulation.truth import Truth

__all__ = ["CHECKERS", "check", "fold"]

APPEND_S_MAX = 600.0  # an append may meet pauses, seals and deadlines, each bounded; together they stay below this
FLIGHTS_MAX = 8  # of the writers of these worlds
SILENCE_S = 4.5  # the least idle time and four creation deadlines of these worlds, and some drift of clocks


def check(evidence: Evidence) -> list[str]:
    """Return all contradictions, empty when every promise was kept."""
    return [*evidence.history.problems, *(line for checker in CHECKERS for line in checker(evidence))]


def p1_durable(evidence: Evidence) -> Iterator[str]:
    """What append returned is in the log, and every reading that began later has it."""
    for append in evidence.history.appends:
        if append.conclusion is Outcome.STORED:
            for id_ in append.ids:
                if id_ not in evidence.truth.place:
                    yield f"P1 acknowledged but not in the log: {id_} of {append.process} at {append.ended_s}"
    for stream in _whole_reads(evidence):
        seen = {event.id for event in stream.all}
        for append in evidence.history.appends:
            if append.outcome is Outcome.STORED and append.ended_s is not None and append.ended_s <= stream.began_s:
                for id_ in sorted(set(append.ids) - seen - _dropped(evidence.truth, stream)):
                    yield f"P1 acknowledged at {append.ended_s}, unread by {stream.consumer} at {stream.began_s}: {id_}"


def p2_atomic(evidence: Evidence) -> Iterator[str]:
    """The events of one call lie together in one segment, or nowhere; a reading has all or none."""
    truth = evidence.truth
    reads = [({event.id for event in stream.all}, stream) for stream in _whole_reads(evidence)]
    for append in evidence.history.appends:
        found = [truth.events[truth.place[id_]] for id_ in append.ids if id_ in truth.place]
        if found and (len(found) < len(append.ids) or len({event.key for event in found}) > 1):
            yield f"P2 torn: {append.ids} lies in {[event.key for event in found]}"
        if any(b.order[3] != a.order[3] + 1 for a, b in pairwise(found)):
            yield f"P2 mixed: {append.ids} has orders {[event.order for event in found]}"
        for seen, stream in reads:
            if 0 < sum(id_ in seen for id_ in append.ids) < len(append.ids):
                yield f"P2 read in part: {append.ids} by {stream.consumer}"


def p3_no_gaps(evidence: Evidence) -> Iterator[str]:
    """Within a session each stream yields every event, in order, from the first."""
    for stream in evidence.history.streams:
        following: dict[tuple[int, int], int] = defaultdict(int)
        for event in stream.all:
            _, chapter, session, sequence = event.order
            if sequence != following[chapter, session]:
                expected = following[chapter, session]
                yield f"P3 {stream.consumer} saw {sequence} of {chapter}/{session}, not {expected}: {event.id}"
            following[chapter, session] = sequence + 1


def p5_no_contention(evidence: Evidence) -> Iterator[str]:
    """Processes create in the roster and under their own sessions; under others' only an empty final."""
    opener: dict[tuple[int, int], str] = {}
    holding_events = {event.key for event in evidence.truth.events}
    for request in evidence.requests:
        if request.key.startswith("probe/"):
            continue
        if request.verb == "delete" and evidence.policy == "full":
            yield f"P5 nobody deletes: {request}"
        if request.verb != "create":
            continue
        match parse_key(request.key):
            case EntryKey(chapter, number) if request.landed:
                opener[chapter, number] = request.process
            case EntryKey() | StoreKey():
                pass
            case SegmentKey(_, chapter, session, _) if opener.get((chapter, session)) == request.process:
                pass
            case SegmentKey() if request.landed and request.key in holding_events:
                yield f"P5 events under a session of another process: {request}"
            case SegmentKey():
                pass
            case RetiredKey() if evidence.policy != "full":
                pass
            case RetiredKey() | None:
                yield f"P5 an odd creation: {request}"


def p6_exactly_one_copy(evidence: Evidence) -> Iterator[str]:
    """Stored once or not at all, as the caller was told, where the receipt says."""
    truth, history = evidence.truth, evidence.history
    for id_, copies in Counter(truth.ids).items():
        if copies > 1:
            keys = [event.key for event in truth.events if event.id == id_]
            yield f"P6 stored {copies} times: {id_} in {keys}"
    for append in history.appends:
        stored = [id_ for id_ in append.ids if id_ in truth.place]
        if stored and append.conclusion in {Outcome.NOT_STORED, Outcome.REFUSED}:
            yield f"P6 told {append.conclusion.value}, but it is stored: {stored} of {append.process}"
        yield from _receipt_lies(append, truth)
    for stream in history.streams:
        for id_, times in Counter(event.id for event in stream.all).items():
            if times > 1:
                yield f"P6 {stream.consumer} saw {times} times: {id_}"
            if id_ not in truth.place:
                yield f"P6 {stream.consumer} saw what is not in the log: {id_}"


def _receipt_lies(append: Append, truth: Truth) -> Iterator[str]:
    receipt = append.receipt
    if receipt is None or any(id_ not in truth.place for id_ in append.ids):
        return
    events = [truth.events[truth.place[id_]] for id_ in append.ids]
    told = (receipt.stamp, receipt.chapter, receipt.session, receipt.first_seq, receipt.count)
    if told != (*events[0].order, len(events)):
        yield f"P6 the receipt says {told}, the log {(*events[0].order, len(events))}: {append.ids[0]}"


def p7_one_order(evidence: Evidence) -> Iterator[str]:
    """Settled streams are prefixes of one order, which respects writers' order and causality; settled is final."""
    truth, history = evidence.truth, evidence.history
    for stream in history.streams:
        ids, kept = [event.id for event in stream.all], truth.since(stream.first_chapter)
        true_ids = [event.id for event in kept]
        if stream.settled and ids != true_ids[: len(ids)]:
            at = next(i for i, id_ in enumerate(ids) if true_ids[i : i + 1] != [id_])
            wanted = kept[at : at + 1]
            yield f"P7 {stream.consumer} saw {ids[at]} {stream.all[at].order} as its {at}th, not {wanted}"
        if (stream.settled or not stream.follows) and any(b.order <= a.order for a, b in pairwise(stream.events)):
            yield f"P7 {stream.consumer} did not see events in order"
        for event in stream.all:
            place = truth.place.get(event.id)
            if place is not None and truth.events[place].order != event.order:
                yield f"P7 {stream.consumer} saw {event.id} at {event.order}, not at {truth.events[place].order}"
    yield from _writers_order(history, truth)
    yield from _causality(history, truth)
    yield from _settled_is_final(evidence)


def _writers_order(history: History, truth: Truth) -> Iterator[str]:
    last: dict[str, tuple[int, str]] = {}
    for append in history.appends:
        for id_ in append.ids:
            if id_ in truth.place:
                place, before = last.get(append.writer, (-1, ""))
                if truth.place[id_] < place:
                    yield f"P7 {append.writer} appended {before} before {id_}, the order has them reversed"
                last[append.writer] = (truth.place[id_], id_)


def _causality(history: History, truth: Truth) -> Iterator[str]:
    latest = {
        process: [-1, *accumulate((truth.place.get(id_, -1) for id_ in heard), max)]
        for process, heard in history.heard.items()
    }
    for append in history.appends:
        heard = latest.get(append.process, [-1])[append.heard]
        for id_ in append.ids:
            if truth.place.get(id_, heard + 1) < heard:
                yield f"P7 {append.process} knew of {truth.ids[heard]} when it appended {id_}, which is ordered before"


def _settled_is_final(evidence: Evidence) -> Iterator[str]:
    """When an event was yielded as settled, everything ordered before it had landed in the store."""
    landed_s: dict[str, float | None] = {}
    for request in evidence.requests:
        if request.landed:
            landed_s.setdefault(request.key, request.arrived_s)  # what lands again lies in a collected chapter
    latest_s = [0.0, *accumulate((landed_s.get(event.key) or 0.0 for event in evidence.truth.events), max)]
    for stream in evidence.history.streams:
        for event in stream.events:
            before = evidence.truth.before(event.order)
            if event.settled and latest_s[before] > event.at_s:
                story = f"at {event.at_s:.4f}, yet one before it landed at {latest_s[before]:.4f}"
                yield f"P7 {stream.consumer} saw {event.id} as settled {story}"

    for id_, told_s in evidence.history.settled:
        place = evidence.truth.place.get(id_, 0)
        if latest_s[place] > told_s:
            yield f"P7 {id_} was said to be settled at {told_s:.4f}, yet one before it landed at {latest_s[place]:.4f}"


def p8_convergent(evidence: Evidence) -> Iterator[str]:
    """A fold that minds the order has one digest for each watermark, whoever folds."""
    digests_since: dict[int, list[str]] = {}
    for stream in [*_whole_reads(evidence), *(s for s in evidence.history.streams if s.settled)]:
        first = stream.first_chapter
        if first not in digests_since:
            digests_since[first] = fold([event.id for event in evidence.truth.since(first)])
        digests = digests_since[first]
        in_order = sorted(stream.all, key=lambda event: event.order)
        watermark = max((event.order for event in in_order if event.settled), default=None)
        settled = [] if watermark is None else [event.id for event in in_order if event.order <= watermark]
        if [fold(settled)[-1]] != digests[len(settled) : len(settled) + 1]:
            yield f"P8 the fold of {stream.consumer} over {len(settled)} events differs"


def fold(ids: Sequence[str]) -> list[str]:
    """The digest after each event, the empty one first."""
    return list(
        accumulate(ids, lambda state, id_: hashlib.sha256(f"{state} {id_}".encode()).hexdigest()[:16], initial="")
    )


def p9_read_your_writes(evidence: Evidence) -> Iterator[str]:
    """Nobody fetches what it has itself stored and acknowledged, and still remembers."""
    if not evidence.remembers:
        return
    stored_s: dict[tuple[str, str], float] = {}
    for append in evidence.history.appends:
        if append.outcome is Outcome.STORED and append.ended_s is not None and append.ids[0] in evidence.truth.place:
            key = evidence.truth.events[evidence.truth.place[append.ids[0]]].key
            stored_s.setdefault((append.process, key), append.ended_s)
    asked_before: set[tuple[str, str]] = set()  # asked before it was acknowledged, without an answer: may ask again
    woken = slots_below_a_creation_after_a_silence(evidence.requests)
    for request in evidence.requests:
        address = (request.process, request.key)
        if address in woken:
            continue  # it must make sure that nobody took it for dead meanwhile
        if request.verb == "get" and address in stored_s:
            if request.sent_s > stored_s[address] and address not in asked_before:
                yield f"P9 a process fetched its own segment: {request}"
            elif request.outcome in {"unavailable", "cancelled", ""}:
                asked_before.add(address)


def slots_below_a_creation_after_a_silence(requests: Sequence[Request]) -> set[tuple[str, str]]:
    """Process and name of each slot just below one whose creation ended so late that the session might be sealed."""
    first_s: dict[tuple[str, str], dict[int, float]] = {}  # of each session, when each of its slots was first sent
    woken: set[tuple[str, str]] = set()
    for request in requests:
        if request.verb in {"create", "get"} and request.key.startswith("log/"):
            prefix, name = request.key.rsplit("/", 1)
            slot, slots_s = int(name), first_s.setdefault((request.process, prefix), {})
            if request.verb == "create":
                slots_s.setdefault(slot, request.sent_s)
            if slot not in slots_s or slot < max(slots_s) - FLIGHTS_MAX:
                continue  # neither the creation of a slot that is in flight nor the question who holds it
            ended_s = math.inf if request.answered_s is None else request.answered_s
            if ended_s - slots_s.get(slot - 1, slots_s[slot]) >= SILENCE_S:
                below = range(max(0, slot - FLIGHTS_MAX), slot)
                woken.update((request.process, f"{prefix}/{number:0{len(name)}d}") for number in below)
    return woken


def p13_bounded(evidence: Evidence) -> Iterator[str]:
    """Every call ends, in bounded time and with an error of ours or none; followers catch up."""
    for append in evidence.history.appends:
        if append.ended_s is not None and append.ended_s - append.called_s > APPEND_S_MAX:
            yield f"P13 an append took {append.ended_s - append.called_s:.0f} s: {append.ids[0]} of {append.process}"
    for stream in evidence.history.streams:
        if stream.error:
            yield f"P13 {stream.consumer} ended at {stream.ended_s} with {stream.error}"


def p14_cheap(evidence: Evidence) -> Iterator[str]:
    """Nobody lists, but who opens a view or takes a snapshot, keepers, and once who tries to lead if nobody does.

    Who slept for a seal time after that looks again: whoever leads by then may be silent.
    """
    attempts = defaultdict[str, list[Attempt]](list)
    for attempt in evidence.history.attempts:
        attempts[attempt.process].append(attempt)
    looked_s = dict[tuple[Attempt, str], float]()
    for request in evidence.requests:
        if request.verb != "list" or request.process.startswith("keeper"):
            continue
        if request.key.startswith(("probe/", "snapshots/")):
            continue
        of = [each for each in attempts[request.process] if each.began_s <= request.sent_s <= each.ended_s]
        of = [each for each in of if looked_s.get((each, request.key), -math.inf) + SILENCE_S <= request.sent_s]
        if not of:
            yield f"P14 a LIST: {request}"
        elif request.outcome == "listed":
            looked_s[of[0], request.key] = request.sent_s


def _dropped(truth: Truth, stream: Stream) -> set[str]:
    """What a stream cannot have seen: it lay in chapters that had been dropped."""
    return {event.id for event in truth.events if event.order[1] < stream.first_chapter}


def _whole_reads(evidence: Evidence) -> Iterable[Stream]:
    """Readings that were to end by themselves, and did."""
    return [
        s for s in evidence.history.streams if not s.follows and not s.settled and s.ended_s is not None and not s.error
    ]


CHECKERS: Sequence[Callable[[Evidence], Iterator[str]]] = (
    p1_durable,
    p2_atomic,
    p3_no_gaps,
    p5_no_contention,
    p6_exactly_one_copy,
    p7_one_order,
    p8_convergent,
    p9_read_your_writes,
    p13_bounded,
    p14_cheap,
    *VIEW_CHECKERS,
    p10_snapshots_are_the_fold,
    p11_retention_is_safe,
)
