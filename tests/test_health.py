"""What is wrong with a log, from facts alone; and that the facts come from a log that is in trouble, or well."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import pytest

from logstore import OpenSessionSurvey, Survey, WriterSurvey
from logstore.keys import Fold, PinKey
from logstore.pin import PinRecord
from logstore.snapshots import FoldSurvey
from projections.health import Facts, HealthSettings, concerns
from projections.words import why_not_settled
from tests.pages import ROOT, read
from tests.scene import Scene, directed
from tests.test_keeper import age, keep, live_a_day, opened

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
NOW_MS: Final = 1_700_000_000_000


def stamp(ms: int) -> int:
    return ms << 16


def open_session(**fields: Any) -> OpenSessionSurvey:
    session = OpenSessionSurvey("web-1", 4, 7, 3, 3, 300, stamp(NOW_MS - 5_000), 5_000, 30_000, 70_000, False)
    return replace(session, **fields)


def well(**fields: Any) -> Survey:
    """A log in use, whose newest chapter began an hour ago, and of which all is settled."""
    writer = WriterSurvey("web-1", 5, 1, 1_000, 10_000, stamp(NOW_MS - 5_000))
    survey = Survey(
        store_id="ab",
        created_ms=NOW_MS - 30 * DAY_MS,
        history="drop",
        grace_ms=DAY_MS,
        chapters_retired=3,
        chapters=2,
        entries=20,
        sessions=5,
        open_sessions=(open_session(),),
        writers=(writer,),
        segments=100,
        events=1_000,
        bytes=10_000,
        watermark=stamp(NOW_MS - 5_000),
        newest_stamp=stamp(NOW_MS - 5_000),
        newest_entry_stamp=stamp(NOW_MS - 3_000),
        now_ms=NOW_MS,
        skew_ms=20,
        chapter_begun_ms=NOW_MS - HOUR_MS,
        chapter_sessions=2,
        oldest_ended_ms=NOW_MS - HOUR_MS,
    )
    return replace(survey, **fields)


def fold(*ages_ms: int, **fields: Any) -> FoldSurvey:
    """A registered fold with snapshots so old, oldest first."""
    made = tuple(NOW_MS - age_ms for age_ms in ages_ms)
    survey = FoldSurvey(Fold("deployments", 1, b"f" * 8), True, None, made, NOW_MS - 30 * DAY_MS)
    return replace(survey, **fields)


def pin(chapter: int) -> PinRecord:
    return PinRecord(PinKey(b"p" * 8, 0), "nightly export", chapter, NOW_MS + HOUR_MS)


KEPT: Final = fold(DAY_MS + HOUR_MS, DAY_MS, HOUR_MS)  # as a keeper leaves it


def test_a_log_that_is_looked_after_is_of_no_concern() -> None:
    """Snapshots, chapters and sessions as they are where writers write and a keeper keeps."""
    assert concerns(Facts(well(), (KEPT,), (pin(4),))) == []


@pytest.mark.parametrize(
    ("facts", "kind", "said"),
    [
        pytest.param(
            Facts(well(open_sessions=(open_session(silent_ms=130_000, holds_watermark=True),))),
            "session-silent",
            "session 4/7 of web-1, which holds the watermark, is silent beyond its seal time, for 60.0 s:"
            " its writer seems gone; run `logstore seal`",
            id="session",
        ),
        pytest.param(
            Facts(well(lost_entry="roster/7")),
            "entry-lost",
            "a session has segments, and the entry that opened it is gone key=roster/7:"
            " run `logstore check`; restore it from a copy",
            id="entry",
        ),
        pytest.param(
            Facts(well(skew_ms=-9_000)),
            "clock",
            "the store's clock is 9.0 s behind this machine's, which can open no session:"
            " repair this machine's time synchronisation",
            id="clock",
        ),
        pytest.param(
            Facts(well(writers=(WriterSurvey("piped-9", 1, 1, 1, 1, stamp(NOW_MS + HOUR_MS * 3)),))),
            "stamps-ahead",
            "the newest stamp of piped-9 is 3 h ahead of the store's clock: some writer's clock was off:"
            " repair that machine's clock; order stays right, times are late until then",
            id="stamps",
        ),
        pytest.param(
            Facts(well(newest_entry_stamp=stamp(NOW_MS - HOUR_MS * 3), newest_stamp=stamp(NOW_MS - HOUR_MS * 2))),
            "tick-owed",
            "the newest events have no roster entry above them, so they do not settle, for 2 h:"
            " nobody who may write follows the log; run `logstore keep`",
            id="tick",
        ),
        pytest.param(
            Facts(well(chapter_begun_ms=NOW_MS - 3 * DAY_MS)),
            "keeper-absent",
            "the newest chapter is 3 d old, and nobody has ended it, for 2 d:"
            " no keeper seems to run; start `logstore keep`, or give --chapter-age here as there",
            id="keeper",
        ),
        pytest.param(
            Facts(well(), (fold(5 * DAY_MS, 4 * DAY_MS),)),
            "snapshot-late",
            "projection deployments version 1 has no new snapshot, and events came since, for 4 d:"
            " run `logstore keep` with it, or drop it if nobody uses it any more",
            id="late",
        ),
        pytest.param(
            Facts(well(), (fold(),)),
            "snapshot-late",
            "projection deployments version 1 is registered and has no snapshot: who opens it reads all 1000 events,"
            " for 30 d: run `logstore keep` with it, or drop it if nobody uses it any more",
            id="none",
        ),
        pytest.param(
            Facts(well(), (fold(HOUR_MS, damage="digest differs key=snapshots/x", registered=None),)),
            "snapshot-damaged",
            "projection deployments version 1: digest differs key=snapshots/x:"
            " run `logstore check`; a new snapshot takes the place of a damaged one",
            id="damaged",
        ),
        pytest.param(
            Facts(well(left_over=7, left_over_since_ms=NOW_MS - 2 * DAY_MS)),
            "garbage",
            "7 objects of retired chapters could be deleted, for 2 d:"
            " no keeper seems to run; start `logstore keep`, or run `logstore gc`",
            id="chapters",
        ),
        pytest.param(
            Facts(well(newest_stamp=0), (fold(5 * DAY_MS, 4 * DAY_MS, 3 * DAY_MS),)),
            "garbage",
            "1 old snapshots of projection deployments version 1 could be deleted, for 2 d:"
            " no keeper seems to run; start `logstore keep`, or run `logstore gc`",
            id="snapshots",
        ),
        pytest.param(
            Facts(well(oldest_ended_ms=NOW_MS - 9 * DAY_MS)),
            "history-kept",
            "chapter 3 ended, and is not retired, for 9 d: `logstore gc --dry-run` says what keeps it",
            id="history",
        ),
        pytest.param(
            Facts(well(oldest_ended_ms=NOW_MS - 9 * DAY_MS), pins=(pin(3), pin(4))),
            "pin",
            "chapter 3 ended, and the pin 7070707070707070 of 'nightly export' keeps it, for 9 d:"
            " ask its owner; unless renewed it expires in 60 min",
            id="pin",
        ),
    ],
)
def test_each_concern_says_what_since_when_and_what_to_do(facts: Facts, kind: str, said: str) -> None:
    """One thing is wrong, and one line says it."""
    [concern] = concerns(facts)
    assert (concern.kind, concern.said(NOW_MS)) == (kind, said)


def test_every_kind_of_concern_is_explained() -> None:
    """The table of docs/operations.md has those that there are, and no others."""
    source = (ROOT / "projections/health.py").read_text()
    section = read("docs/operations.md").split("\n## status\n")[1].split("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`([a-z-]+)`", " ".join(rows))) == set(re.findall(r'Concern\(\s*"([a-z-]+)"', source))


def test_what_passes_by_itself_is_of_no_concern() -> None:
    """Just before each of the limits nobody is told."""
    survey = well(
        open_sessions=(open_session(silent_ms=69_999),),
        skew_ms=5_000,
        newest_entry_stamp=stamp(NOW_MS - HOUR_MS),
        newest_stamp=stamp(NOW_MS - 299_999),
        chapter_begun_ms=NOW_MS - 2 * DAY_MS + 1,
        left_over=7,
        left_over_since_ms=NOW_MS - DAY_MS + 1,
        oldest_ended_ms=NOW_MS - 6 * DAY_MS + 1,
    )
    late_ms = 2 * (DAY_MS + HOUR_MS)
    none_yet = fold(registered_ms=NOW_MS - late_ms + 1)
    folds = (fold(late_ms + DAY_MS, late_ms, 2 * DAY_MS - 1), none_yet, fold(late_ms - 1))
    assert concerns(Facts(survey, folds, (pin(3),))) == []


def test_history_that_is_kept_for_good_is_of_no_concern() -> None:
    """A store that keeps all has old chapters, and pins hold nothing up."""
    assert concerns(Facts(well(history="full", oldest_ended_ms=NOW_MS - 9 * DAY_MS), (KEPT,), (pin(3),))) == []


def test_a_projection_that_nobody_uses_needs_no_snapshot() -> None:
    """One that was dropped may be as old as it likes."""
    assert concerns(Facts(well(), (fold(30 * DAY_MS, registered=False),))) == []


def test_rows_that_hold_everything_need_no_new_snapshot() -> None:
    """However old it is: nothing came since."""
    assert concerns(Facts(well(newest_stamp=0), (fold(9 * DAY_MS),))) == []


def test_a_large_log_without_a_snapshot_is_told_at_once() -> None:
    """A view of a million events takes long to open, also on the first day."""
    facts = Facts(well(events=1_000_000), (fold(registered_ms=NOW_MS),))
    assert [concern.kind for concern in concerns(facts)] == ["snapshot-late"]


def test_times_that_the_store_does_not_tell_are_no_reason() -> None:
    """Nothing is called old then; what the clock says of itself is told."""
    survey = well(now_ms=None, skew_ms=9_000, chapter_begun_ms=0, oldest_ended_ms=0, left_over=7)
    assert [concern.kind for concern in concerns(Facts(survey, (fold(),)))] == ["clock"]
    unknown = fold(registered_ms=None, created_ms=(None, None, None))
    assert concerns(Facts(well(), (unknown, fold(registered_ms=None)))) == []


@pytest.mark.parametrize(
    ("silent_ms", "said"),
    [
        (5_000, "may be sealed in 65.0 s if it stays silent"),
        (None, "may be sealed once silent for 70.0 s; the store does not tell since when it is"),
        (70_000, "its writer seems gone; run `logstore seal`"),
    ],
)
def test_what_the_watermark_waits_for_is_said_with_how_long(silent_ms: int | None, said: str) -> None:
    """Where the store tells no times it was to be sealed "in unknown"."""
    holder = open_session(silent_ms=silent_ms, holds_watermark=True)
    assert why_not_settled(well(open_sessions=(holder,), watermark=0)).endswith(said)


def test_a_slower_keeper_is_believed() -> None:
    """Told what the keeper is told, it calls late only what is late by that."""
    facts = Facts(well(chapter_begun_ms=NOW_MS - 3 * DAY_MS), (fold(4 * DAY_MS),))
    assert concerns(facts, HealthSettings(chapter_age_ms=7 * DAY_MS)) == []
    assert {concern.kind for concern in concerns(facts)} == {"keeper-absent", "snapshot-late"}


def test_snapshots_that_the_keeper_is_told_to_keep_are_no_garbage() -> None:
    """A keeper that keeps five was said not to run, for ever."""
    facts = Facts(well(), (fold(*(age_ms * DAY_MS for age_ms in (9, 8, 7, 6, 5)), HOUR_MS),))
    assert concerns(facts, HealthSettings(snapshots_kept=5)) == []
    assert [concern.kind for concern in concerns(facts, HealthSettings(snapshots_kept=4))] == ["garbage"]


@directed
async def test_a_log_that_nobody_keeps_comes_to_be_of_concern(scene: Scene) -> None:
    """The facts of a real log: first all is well; left alone its chapter, its snapshots and its garbage are told."""
    settings = HealthSettings(chapter_age_ms=20_000, snapshot_ms=10_000)

    async def kinds(name: str) -> list[str]:
        async with scene.machine(name).open(read_only=True) as log:
            survey, folds, pins = await log.survey(), await log.snapshots.survey(), await log.pins.live()
        return sorted(concern.kind for concern in concerns(Facts(survey, folds, pins), settings))

    await live_a_day(scene, 1, snapshots=3)
    assert await kinds("early") == []
    await age()
    await keep(scene)
    await age()
    assert await kinds("due") == ["keeper-absent"]  # the old chapter could be deleted since just now
    await age()
    assert await kinds("late") == ["garbage", "keeper-absent"]
    await keep(scene)
    assert await kinds("kept") == ["keeper-absent"]


@directed
async def test_a_pin_that_holds_history_for_long_is_told_with_its_owner(scene: Scene) -> None:
    """The chapter could have been retired long ago; while it is pinned, its keeper cannot."""
    settings = HealthSettings(chapter_age_ms=20_000, snapshot_ms=10_000)
    await live_a_day(scene, 1, snapshots=2)
    async with opened(scene.machine("exporter")) as log, log.pin("nightly export", for_ms=7 * DAY_MS):
        await age(6)
        found = concerns(Facts(await log.survey(), (), await log.pins.live()), settings)
    assert [concern.kind for concern in found] == ["keeper-absent", "pin"]
    assert "of 'nightly export' keeps it" in found[1].what
