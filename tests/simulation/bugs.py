"""Bugs to plant, by name: each is one line of production code as somebody might write it who did not know why it is so.

Production code has no switches for this. A bug names a function, a text in its source that must occur
exactly once, and what to put there instead; while ``planted`` is entered the function is the mutant. Each must be
found within a thousand seeds, by the checker of a promise that it breaks.
"""

from __future__ import annotations
import __future__

import asyncio
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FunctionType
from typing import Any
from unittest.mock import patch

from logstore import keeper, retention, seal, unsettled
from logstore.buffer import Buffer
from logstore.catchup import _Merge
from logstore.chapter import Chapter
from logstore.collector import Collector
from logstore.errors import LogStoreError
from logstore.frontier import Frontier
from logstore.keys import SegmentKey, segment_key
from logstore.lead import Lead
from logstore.log import Log
from logstore.looks import Look
from logstore.needs import Needs
from logstore.objects import Objects
from logstore.reader import Reader
from logstore.receipt import Receipt
from logstore.roster import Roster
from logstore.testing.simulation import Weather
from logstore.writer import Writer, _Outcome
from projections import watch
from projections.claims import Claimant
from projections.document import Collection, CollectionFold
from projections.documents import Documents
from projections.snapshots import Snapshotter
from projections.state import State
from projections.table import Table
from projections.transactions import Transaction, Transactions
from projections.view import View
from tests.simulation.documents import DocumentWorld
from tests.simulation.leaders import LeaderWorld
from tests.simulation.world import CHANCE, LATE_MS, Circumstances, World

__all__ = ["BUGS", "Bug", "planted"]


@dataclass(frozen=True, slots=True)
class Bug:
    """``old`` becomes ``new`` in ``function`` of ``owner``: one of the promises ``breaks`` is broken under ``seed``.

    ``circumstances``: what has to befall writers for it to show, where chance seldom has it. ``documents``: it shows
    where servers write documents; ``leaders``: where they lead. ``peer``: which failure of
    other systems it is, and whose.
    """

    breaks: tuple[str, ...]
    seed: int
    owner: Any
    function: str
    old: str
    new: str
    circumstances: Circumstances = CHANCE
    documents: bool = False
    leaders: bool = False
    peer: str = ""

    @property
    def world(self) -> type[World]:
        """In what kind of worlds it shows."""
        return LeaderWorld if self.leaders else DocumentWorld if self.documents else World

    def caught_by(self, problems: list[str]) -> list[str]:
        """Those of the problems that tell of this bug."""
        return [problem for problem in problems if problem.split(" ", 1)[0].rstrip(":") in self.breaks]


LATE_CREATIONS = Circumstances(("storm",), often_s=1.5, storm=Weather(late=0.8, late_ms=LATE_MS, verbs=("create",)))
SLEEP = Circumstances(("long pause",), often_s=0.5, lasts_s=(60.0, 90.0), cut_off=0.0)
SLEEP_WHILE_SENDING = Circumstances(("long pause",), often_s=0.5, lasts_s=(60.0, 90.0), cut_off=1.0)
WRONG_CLOCKS = Circumstances(("clock",), often_s=1.0)

NAPS = Circumstances(("long pause",), often_s=0.2, lasts_s=(60.0, 90.0), cut_off=0.5, policy="drop")
SHORT_NAPS = Circumstances(("long pause",), often_s=0.5, lasts_s=(15.0, 20.0), cut_off=0.2, policy="drop")
CUT_OFF = Circumstances(("long pause", "storm"), often_s=0.7, lasts_s=(20.0, 30.0), cut_off=1.0, policy="full")
DROP = Circumstances(policy="drop")
ARCHIVE = Circumstances(policy="archive")

BUGS: dict[str, Bug] = {
    "acknowledge before store": Bug(
        ("P1", "P6"),
        30,
        Writer,
        "_fly",
        "await self._objects.create(_name(segment), data)",
        "in_background(self._objects.create(_name(segment), data))",
    ),
    "acknowledge out of order": Bug(
        ("P1", "P6"),
        29,
        Writer,
        "_acknowledge_stored",
        "session = self._session",
        "session = self._session; answer_early(self._flights)",
    ),
    "404 means not stored": Bug(
        ("P6",),
        0,
        Writer,
        "_seal_own_slot",
        "flight = self._flights[0]",
        "flight = self._flights[0]\n"
        "    if await self._objects.segment(flight.segment.key) is None:\n"
        "        return _Outcome.SEALED, True",
        LATE_CREATIONS,
        peer="ambiguous PUT (SlateDB put ids, baerly, wal3)",
    ),
    "404 means not stored, in resolve": Bug(
        ("P6", "P1"),
        0,
        unsettled,
        "_is_stored",
        "if segment is None:",
        "if segment is None:\n            return False",
        LATE_CREATIONS,
    ),
    "taken means stored": Bug(
        ("P1", "P6"),
        6,
        Writer,
        "_fly",
        "return await self._judge(segment)",
        "return _Outcome.STORED",
        SLEEP,
        peer="zombie writer (SlateDB: two writers in one sequence of WAL objects)",
    ),
    "taken means sealed": Bug(
        ("P6",),
        1,
        Writer,
        "_fly",
        "return await self._judge(segment)",
        "return _Outcome.SEALED",
        peer="ambiguous PUT (SlateDB 766, icechunk 017: the retry meets one's own object)",
    ),
    "a segment takes four events of a call": Bug(
        ("P2",), 0, Writer, "_send", "(batch.events for", "(batch.events[:4] for"
    ),
    "send again without a seal": Bug(
        ("P6",),
        6,
        Writer,
        "_settle",
        "if outcome is _Outcome.GAVE_UP:",
        "if outcome is None:",
        peer="ambiguous PUT (Iceberg: unknown must never trigger a clean-up)",
    ),
    "send again at the end": Bug(
        ("P7",), 34, Buffer, "put_back", "extendleft(reversed(batches))", "extend(batches)", SLEEP_WHILE_SENDING
    ),
    "stamps read are not merged": Bug(
        ("P7",),
        0,
        Objects,
        "fetch_segment",
        "self._stamps.merge(segment.stamp)",
        "pass",
        WRONG_CLOCKS,
        peer="clock skew decides the order (Hudi HUDI-8464)",
    ),
    "settled though a session may go on": Bug(
        ("P7",), 0, _Merge, "runs", "min(self._dry_stamp(), self._known_stamp(entry))", "self._known_stamp(entry)"
    ),
    "settled above the last entry": Bug(
        ("P7",), 0, _Merge, "runs", "min(self._dry_stamp(), self._known_stamp(entry))", "self._dry_stamp()"
    ),
    "settled is said too soon": Bug(
        ("P7",),
        0,
        Log,
        "reach",
        "frontier.watermark() >= stamp",
        "frontier.last.stamp >= stamp",
        WRONG_CLOCKS,
    ),
    "who seals clears away what lies above": Bug(
        ("P5",),
        0,
        seal,
        "seal_silent",
        "return final if ours else None",
        "await objects._store.delete(name_above(final.key))\n    return final if ours else None",
    ),
    "an absent slot is the end, whatever names it": Bug(
        ("P12",),
        2,
        _Merge,
        "_load_head",
        "not stream.at_bound and (self._is_named(stream) or await self._is_overtaken(stream))",
        "False",
    ),
    "the end of the roster is listed": Bug(
        ("P14",),
        0,
        Roster,
        "_newest_begin",
        "first = await self.first_unretired()",
        "first = await self.first_unretired()\n    _ = [_ async for _ in self._objects._store.list('roster/')]",
        peer="correctness by LIST (S3 Express, caches: unordered, or late)",
    ),
    "a seal that lost is believed": Bug(
        ("P1", "P3", "P6", "P7"),
        6,
        seal,
        "create_final",
        "return None if found is None else (found, found.digest == final.digest)",
        "pass",
    ),
    "a position forgets the middle of a segment": Bug(
        ("P3", "P6"), 0, Frontier, "position", "session.tip, session.taken)", "session.tip, 0)"
    ),
    "a position runs ahead": Bug(
        ("P3",),
        1,
        Reader,
        "position",
        "self._run.segment, self._taken)",
        "self._run.segment, self._run.segment.count)",
    ),
    "a tick names what was not read": Bug(
        ("Missing",), 9, Log, "_slots_read", "(address, session.tip.slot)", "(address, session.tip.slot + 1)"
    ),
    "a late event is not folded in": Bug(("P7",), 0, State, "take", "folded.items()", "{}.items()"),
    "what is visible is settled": Bug(("P7", "P8"), 0, State, "take", "if run.settled:", "if True:"),
    "an index is not told of changes": Bug(
        ("P7",), 0, Table, "_index_changes", "index in self._indexes or ():", "index in ():"
    ),
    "a view does not wait": Bug(("P9",), 0, View, "wait_for", "while not self._reader.holds(receipt):", "while False:"),
    "an entered view is behind": Bug(("P9",), 21, View, "__aenter__", "self.refresh()", "self._take_batch()"),
    "a position shows what was read above the point": Bug(
        ("P7", "P8", "P10"), 4, View, "_leave_trail", "self._trail.cut(cut.entry.stamp)", "self._reader.position"
    ),
    "a cut that came to nothing is forgotten": Bug(
        ("P7", "P10"), 15, Snapshotter, "publish", "last.stamp == cut.since.stamp", "True"
    ),
    "what became settled late is not written": Bug(
        ("P7", "P8", "P10"), 5, State, "rise", "self._keep_since(touched, self._base)", "pass"
    ),
    "a manifest is not built on the one that the point names": Bug(
        ("P10",),
        0,
        Snapshotter,
        "publish",
        "last.key == base and",
        "",
        peer="snapshot poisoning (Delta Lake 4433)",
    ),
    "what was retired is deleted at once": Bug(
        ("P11",), 3, Collector, "_old_chapters", "if self._needs.is_old(listed.modified_ms)", "if True", DROP
    ),
    "snapshots count before they are a grace old": Bug(
        ("P11",), 3, Needs, "_floor", "self.is_old(records.created_ms[key]) and ", "", DROP
    ),
    "one snapshot is enough": Bug(("P11",), 3, Needs, "_floor", "whole == self._snapshots_kept", "whole == 1", DROP),
    "pins are not heeded": Bug(
        ("P11",),
        0,
        retention,
        "held_up_by",
        "if pin.chapter <= chapter:",
        "if False:",
        DROP,
        peer="slow reader loses a file (SlateDB checkpoints, wal3 cursors)",
    ),
    "the record counts the final": Bug(
        ("P11",),
        3,
        Chapter,
        "_next_segment",
        "del streams[number]",
        "del streams[number]; self._sessions[number] = RetiredSession(segment.key.slot + 1, segment.stamp)",
        DROP,
    ),
    "the record forgets heartbeats and events": Bug(
        ("P11",),
        5,
        Chapter,
        "_next_segment",
        "RetiredSession(segment.key.slot + 1, segment.stamp)",
        "RetiredSession(segment.key.slot + 1, 0)",
        DROP,
    ),
    "chunks that snapshots share are deleted": Bug(
        ("P11",), 4, retention, "condemned_chunks", "if key not in listed", "if True", DROP
    ),
    "what a new snapshot needs is deleted": Bug(
        ("P11",),
        19,
        retention,
        "condemned_chunks",
        "and now_ms - created_ms >= grace_ms",
        "",
        DROP,
        peer="GC races publication (SlateDB RFC 0029, baerly gc-grace-anchor)",
    ),
    "a retirement is passed over in silence": Bug(
        ("P3", "P1", "P7"),
        1,
        Frontier,
        "take_retirement",
        "if slots_read < held.slots:",
        "if False:",
        DROP,
        peer="slow reader loses a file (litestream 1270)",
    ),
    "a look is relied on for ever": Bug(
        ("P1", "P3", "P4", "P6", "P7", "P11", "P13", "Missing"),
        5,
        Look,
        "fresh",
        "self._store_time.passed_ms(since) < self._reliable_ms",
        "True",
        DROP,
        peer="GC removes the fence (SlateDB RFC 0026, baerly log_delete_floor)",
    ),
    "an archive has no finals": Bug(
        ("P11", "P13"),
        24,
        keeper,
        "_take",
        "return writer.take_segment(stored.value, stored.data)",
        "return None if stored.value.final else writer.take_segment(stored.value, stored.data)",
        ARCHIVE,
    ),
    "an archive is read under the old names": Bug(
        ("P1", "P3", "P11", "P13", "Missing", "Trimmed"),
        5,
        Objects,
        "fetch_segment",
        "if (archived := self._shelf.get(key.chapter)) is not None:",
        "if False:",
        ARCHIVE,
    ),
    "own segments are fetched": Bug(
        ("P9",),
        0,
        Writer,
        "_acknowledge",
        "self._objects.remember_segment(segment)",
        "pass",
        peer="request cost (baerly: requests counted for each logical write)",
    ),
    "an update goes by what the process happens to know": Bug(
        ("P7",),
        9,
        Documents,
        "update",
        "if looked := not blind or key not in self:",
        "if looked := False:",
        WRONG_CLOCKS,
        documents=True,
    ),
    "stamps that a server reads are not merged": Bug(
        ("P7",),
        0,
        Objects,
        "fetch_segment",
        "self._stamps.merge(segment.stamp)",
        "pass",
        WRONG_CLOCKS,
        documents=True,
    ),
    "a version is looked at only by who writes": Bug(
        ("P8", "P6", "P7"),
        4,
        Collection,
        "judge",
        "write.if_version is not None and",
        "write.if_version is not None and not isinstance(write.if_version, str) and",
        documents=True,
    ),
    "a guard is asked only by who writes": Bug(
        ("P8", "P6"),
        13,
        CollectionFold,
        "apply",
        "after = self.collection.judge(before, str(version), write, event.data, writer)",
        "after = Collection(self.name).judge(before, str(version), write, event.data, writer)",
        WRONG_CLOCKS,
        documents=True,
    ),
    "who meets a claim without its event lets it be": Bug(
        ("P6",),
        13,
        Claimant,
        "_finish",
        "if not self._log.claims.may_count(met):",
        "raise AlreadyExists('it is claimed')\n    if not self._log.claims.may_count(met):",
        documents=True,
    ),
    "a claim counts for ever": Bug(
        ("P6", "P8"),
        12,
        CollectionFold,
        "apply",
        "event.stamp > write.claim.last_stamp",
        "False",
        NAPS,
        documents=True,
    ),
    "a deletion leaves no tombstone": Bug(
        ("P6", "P8"),
        0,
        CollectionFold,
        "apply",
        "if claim and event.stamp <= claim[1]:",
        "if False:",
        documents=True,
    ),
    "the next number is claimed while the one before may count": Bug(
        ("P6", "P8"),
        5,
        Claimant,
        "create",
        "met is not None and self._view.watermark < met.last_stamp",
        "False",
        documents=True,
    ),
    "a change is made by a function of what it was before": Bug(
        ("P7",),
        4,
        Documents,
        "modify",
        "if_version=seen",
        "if_version=None",
        documents=True,
    ),
    "a watch that goes on tells what differs, and no more": Bug(
        ("P9",),
        36,
        watch,
        "watch",
        "later |= subscription.take_keys() if after is not None else set()",
        "later = set()",
        documents=True,
    ),
    "a leader serves before it has read to its predecessor's end": Bug(
        ("P6", "P7", "Corrupt"),
        0,
        Lead,
        "acquire",
        "await self._end_predecessors(follower, opened.address)",
        "pass",
        leaders=True,
    ),
    "a predecessor that was faster is let be": Bug(
        ("P6", "P7"), 0, Lead, "_end_predecessors", "while earlier :=", "if earlier :=", CUT_OFF, leaders=True
    ),
    "confirmed without asking": Bug(
        ("P7",), 31, Lead, "_look_whether_we_lead", "while True:", "while self._lost is not None:", leaders=True
    ),
    "confirmed in a chapter that may be retired": Bug(
        ("P7",),
        4,
        Lead,
        "_look_whether_we_lead",
        "if await self._looks.retired(session.id.chapter) is None:",
        "if True:",
        SHORT_NAPS,
        leaders=True,
    ),
    "who rolls over succeeds whoever leads by now": Bug(
        ("P6", "P7"),
        0,
        Lead,
        "_roll_over",
        "partial(self._open_after, session.id[:2])",
        "lambda tail: self._open_after(self._holder(tail), tail)",
        leaders=True,
    ),
    "what another's seal refused is stored": Bug(
        ("P1", "P6", "P7"),
        0,
        Lead,
        "_store",
        'raise Fenced(f"another took over: it sealed our session key={_name(segment)}") from None',
        "return",
        CUT_OFF,
        leaders=True,
    ),
    "a commit is acknowledged before it is stored": Bug(
        ("P1", "P6", "P7", "Corrupt"),
        0,
        Lead,
        "_store",
        "await self._objects.create(_name(segment), data)",
        "in_background(self._objects.create(_name(segment), data))",
        CUT_OFF,
        leaders=True,
    ),
    "a commit that was given up was not stored": Bug(
        ("P6",),
        0,
        Lead,
        "_store",
        "sealed = await create_final",
        "raise NotStored('given up') from error\n        sealed = await create_final",
        LATE_CREATIONS,
        leaders=True,
    ),
    "locks are given up when the commit begins": Bug(
        ("P6", "P7"),
        0,
        Transaction,
        "__aexit__",
        "if storing is not None:",
        "self._release()\n            if storing is not None:",
        leaders=True,
    ),
    "a question is not asked again": Bug(
        ("P7",), 2, Transactions, "commit", "for question in questions:", "for question in ():", leaders=True
    ),
    "who is cancelled while it commits gives up its locks": Bug(
        ("P6", "P7"), 2, Transaction, "__aexit__", "if storing is None or storing.done():", "if True:", leaders=True
    ),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant the bug of that name (None: none) while entered."""
    with ExitStack() as stack:
        if name is not None:
            bug = BUGS[name]
            original = inspect.getattr_static(bug.owner, bug.function)
            mutant = _mutant(original, bug)
            for owner in _owners(bug.owner, bug.function, original):
                stack.enter_context(patch.object(owner, bug.function, mutant))
        yield


def _mutant(original: FunctionType | property, bug: Bug) -> Any:
    """The function with the text replaced, compiled where the original was."""
    if isinstance(original, property):
        assert isinstance(original.fget, FunctionType)
        return property(_mutant(original.fget, bug))
    source = textwrap.dedent(inspect.getsource(original)).removeprefix("@property\n")
    assert source.count(bug.old) == 1, f"production code has changed: plant the bug anew in {original.__qualname__}"
    code = compile(
        source.replace(bug.old, bug.new), inspect.getfile(original), "exec", __future__.annotations.compiler_flag
    )
    helpers = {"in_background": _in_background, "answer_early": _answer_early, "name_above": _name_above}
    namespace = {**original.__globals__, **helpers}
    exec(code, namespace)
    return namespace[original.__name__]


def _owners(owner: Any, name: str, original: object) -> list[Any]:
    """Everybody who holds the function under its name: its class, or each module that imported it."""
    if isinstance(owner, type):
        return [owner]
    modules = [module for key, module in sys.modules.items() if key.startswith(("logstore", "projections"))]
    return [module for module in modules if getattr(module, name, None) is original]


# What some of the mutants call -----------------------------------------------------------------


def _in_background(coroutine: Any) -> None:
    async def forget() -> None:
        with suppress(LogStoreError):
            await coroutine

    _background.append(asyncio.ensure_future(forget()))


_background: list[asyncio.Future[None]] = []


def _answer_early(flights: Any) -> None:
    for flight in flights:
        if flight.task.done() and flight.task.result() is _Outcome.STORED:
            key, seq = flight.segment.key, flight.segment.first_sequence
            for batch in flight.batches:
                n = len(batch.events)
                batch.answer(Receipt(key.writer, key.chapter, key.session, key.slot, seq, n, flight.segment.stamp))
                seq += n


def _name_above(key: SegmentKey) -> str:
    return segment_key(key.writer, key.chapter, key.session, key.slot + 1)
