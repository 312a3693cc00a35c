"""What is wrong with a log, since when, and what to do about it: decided from what was found out. Pure.

``logstore status`` says it, and exits with 1. ``doctor`` asks the same of clocks, stamps and sessions. Nothing here is
damage that only ``check`` finds: that takes a reading of every object.

Invariants:
- A concern is something that does not pass by itself while everybody does their work, and that a command mends.
- A time that the store does not tell is no reason for concern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from logstore import OpenSessionSurvey, Survey
from logstore.clock import SKEW_MS_MAX, stamp_ms
from logstore.pin import PinRecord
from logstore.snapshots import FoldSurvey
from projections.words import duration

__all__ = [
    "Concern",
    "Facts",
    "HealthSettings",
    "about_clock",
    "about_sessions",
    "about_stamps",
    "concerns",
]

UNTICKED_MS: Final = 300_000  # a writer ticks within 75 s, and whoever needs the watermark within some seconds of that
EVENTS_WITHOUT_SNAPSHOT_MAX: Final = 1_000_000  # a view takes seconds to read so many
PATIENCE: Final = 2  # so many times as long as it should take, before anybody is told


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """What the log's keeper is told, so that it is not said to be late when it is not. Times in milliseconds.

    ``snapshots_kept``: of each fold, a grace old; those before them are garbage.

    >>> HealthSettings(chapter_age_ms=7 * 86_400_000).snapshot_ms
    3600000
    """

    chapter_age_ms: int = 86_400_000
    snapshot_ms: int = 3_600_000
    snapshots_kept: int = 2


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out: the survey, how the snapshots of each fold fare, and the pins that have not expired."""

    survey: Survey
    folds: Sequence[FoldSurvey] = ()
    pins: Sequence[PinRecord] = ()


@dataclass(frozen=True, slots=True)
class Concern:
    """One thing that is wrong. ``kind`` is for programs and stays; ``what`` and ``do`` are for people.

    ``since_ms``: Unix milliseconds by the store's clock, None: nobody can tell.
    """

    kind: str
    what: str
    do: str
    since_ms: int | None = None

    def said(self, now_ms: int | None) -> str:
        """Return it as one line.

        >>> Concern("garbage", "7 objects are left", "run `logstore gc`", since_ms=1_000).said(61_000)
        '7 objects are left, for 60.0 s: run `logstore gc`'
        """
        known = self.since_ms is not None and now_ms is not None
        since = f", for {duration(max(0, (now_ms or 0) - (self.since_ms or 0)))}" if known else ""
        return f"{self.what}{since}: {self.do}"


def concerns(facts: Facts, settings: HealthSettings | None = None) -> list[Concern]:
    """Return all that is wrong, the worst first; none: all is well."""
    settings, survey = settings or HealthSettings(), facts.survey
    found = [Concern("snapshot-damaged", *_damaged(fold)) for fold in facts.folds if fold.damage]
    if survey.lost_entry:
        what = f"a session has segments, and the entry that opened it is gone key={survey.lost_entry}"
        found.insert(0, Concern("entry-lost", what, "run `logstore check`; restore it from a copy"))
    found += [*about_clock(survey), *about_stamps(survey), *about_sessions(survey)]
    if survey.now_ms is None:
        return found
    now_ms = survey.now_ms
    found += _about_ticks(survey, now_ms)
    found += _about_chapters(survey, settings, now_ms)
    for fold in facts.folds:
        if fold.registered:
            found += _about_snapshots(fold, survey, settings, now_ms)
    found += _about_garbage(facts, settings, now_ms)
    found += _about_history(facts, settings, now_ms)
    return found


def about_clock(survey: Survey) -> list[Concern]:
    """Whether this machine's clock and the store's agree."""
    if abs(survey.skew_ms) <= SKEW_MS_MAX:
        return []
    side = "ahead of" if survey.skew_ms > 0 else "behind"
    what = f"the store's clock is {duration(abs(survey.skew_ms))} {side} this machine's, which can open no session"
    return [Concern("clock", what, "repair this machine's time synchronisation")]


def about_stamps(survey: Survey) -> list[Concern]:
    """One bad clock pushes everybody's stamps; the store's time tells."""
    newest = max(survey.newest_stamp, survey.newest_entry_stamp, *(writer.last_stamp for writer in survey.writers), 0)
    ahead_ms = 0 if survey.now_ms is None else stamp_ms(newest) - survey.now_ms
    if ahead_ms <= SKEW_MS_MAX:
        return []
    whose = next((f" of {writer.writer}" for writer in survey.writers if writer.last_stamp == newest), "")
    what = f"the newest stamp{whose} is {duration(ahead_ms)} ahead of the store's clock: some writer's clock was off"
    return [Concern("stamps-ahead", what, "repair that machine's clock; order stays right, times are late until then")]


def about_sessions(survey: Survey) -> list[Concern]:
    """The sessions whose writers are gone."""
    do = "its writer seems gone; run `logstore seal`"
    return [
        Concern("session-silent", _silence(session), do, _sealable_ms(session, survey))
        for session in survey.open_sessions
        if session.may_be_sealed
    ]


def _silence(session: OpenSessionSurvey) -> str:
    holds = ", which holds the watermark," if session.holds_watermark else ""
    return f"session {session.chapter}/{session.session} of {session.writer}{holds} is silent beyond its seal time"


def _sealable_ms(session: OpenSessionSurvey, survey: Survey) -> int | None:
    """Since when it may be sealed."""
    if survey.now_ms is None or session.silent_ms is None:
        return None
    return survey.now_ms - session.silent_ms + session.seal_ms


def _about_ticks(survey: Survey, now_ms: int) -> list[Concern]:
    newest_ms = stamp_ms(survey.newest_stamp)
    if survey.newest_stamp <= survey.newest_entry_stamp or now_ms - newest_ms < UNTICKED_MS:
        return []
    what = "the newest events have no roster entry above them, so they do not settle"
    return [Concern("tick-owed", what, "nobody who may write follows the log; run `logstore keep`", newest_ms)]


def _about_chapters(survey: Survey, settings: HealthSettings, now_ms: int) -> list[Concern]:
    """A keeper ends chapters. What it does besides has concerns of its own."""
    if survey.chapter_begun_ms is None or not survey.chapter_sessions:
        return []
    due_ms = survey.chapter_begun_ms + settings.chapter_age_ms
    if now_ms < due_ms + (PATIENCE - 1) * settings.chapter_age_ms:
        return []
    what = f"the newest chapter is {duration(now_ms - survey.chapter_begun_ms)} old, and nobody has ended it"
    do = "no keeper seems to run; start `logstore keep`, or give --chapter-age here as there"
    return [Concern("keeper-absent", what, do, due_ms)]


def _damaged(fold: FoldSurvey) -> tuple[str, str]:
    return f"{_named(fold)}: {fold.damage}", "run `logstore check`; a new snapshot takes the place of a damaged one"


def _about_snapshots(fold: FoldSurvey, survey: Survey, settings: HealthSettings, now_ms: int) -> list[Concern]:
    do = "run `logstore keep` with it, or drop it if nobody uses it any more"
    late_ms = PATIENCE * (settings.chapter_age_ms + settings.snapshot_ms)
    if not fold.count:
        since_ms = fold.registered_ms
        is_late = since_ms is not None and now_ms - since_ms >= late_ms and survey.events > 0
        if not is_late and survey.events < EVENTS_WITHOUT_SNAPSHOT_MAX:
            return []
        what = f"{_named(fold)} is registered and has no snapshot: who opens it reads all {survey.events} events"
        return [Concern("snapshot-late", what, do, since_ms)]
    newest_ms = fold.created_ms[-1]
    covered = 0 if fold.newest is None else fold.newest.stamp
    if newest_ms is None or now_ms - newest_ms < late_ms or survey.newest_stamp <= covered:
        return []
    return [Concern("snapshot-late", f"{_named(fold)} has no new snapshot, and events came since", do, newest_ms)]


def _about_garbage(facts: Facts, settings: HealthSettings, now_ms: int) -> list[Concern]:
    """What could be deleted a grace ago and longer. A keeper deletes it within a round."""
    survey, found = facts.survey, []
    grace_ms, do = survey.grace_ms, "no keeper seems to run; start `logstore keep`, or run `logstore gc`"
    due_ms = survey.left_over_since_ms
    if due_ms is not None and now_ms - due_ms >= (PATIENCE - 1) * grace_ms:
        found.append(Concern("garbage", f"{survey.left_over} objects of retired chapters could be deleted", do, due_ms))
    for fold in facts.folds:
        old_ms = [made_ms for made_ms in fold.created_ms if made_ms is not None and now_ms - made_ms >= grace_ms]
        if not fold.registered or fold.damage or len(old_ms) <= settings.snapshots_kept:
            continue
        due_ms = old_ms[-1] + grace_ms
        if now_ms - due_ms >= (PATIENCE - 1) * grace_ms:
            what = f"{len(old_ms) - settings.snapshots_kept} old snapshots of {_named(fold)} could be deleted"
            found.append(Concern("garbage", what, do, due_ms))
    return found


def _about_history(facts: Facts, settings: HealthSettings, now_ms: int) -> list[Concern]:
    """Whether a chapter is kept that the history policy gives up, and by whom."""
    survey = facts.survey
    ended_ms, oldest = survey.oldest_ended_ms, survey.chapters_retired
    late_ms = PATIENCE * (2 * survey.grace_ms + settings.chapter_age_ms)
    if survey.history == "full" or ended_ms is None or now_ms - ended_ms < late_ms:
        return []
    pins = [pin for pin in facts.pins if pin.chapter <= oldest]
    if not pins:
        what = f"chapter {oldest} ended, and is not retired"
        return [Concern("history-kept", what, "`logstore gc --dry-run` says what keeps it", ended_ms)]
    return [
        Concern(
            "pin",
            f"chapter {oldest} ended, and the pin {pin.key.id.hex()} of {pin.owner!r} keeps it",
            f"ask its owner; unless renewed it expires in {duration(max(0, pin.expires_ms - now_ms))}",
            ended_ms,
        )
        for pin in pins
    ]


def _named(fold: FoldSurvey) -> str:
    return f"projection {fold.fold.projection} version {fold.fold.version}"
