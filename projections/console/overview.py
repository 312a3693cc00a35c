"""The first page: what the log holds, who writes, what its order waits for, and what looking at it costs. Pure."""

from __future__ import annotations

from typing import Final

from logstore import OpenSessionSurvey, StoreStatistics, Survey, WriterSurvey
from logstore.clock import stamp_ms
from logstore.snapshots import FoldSurvey
from projections.console.look import ago, count, dot, fact, price, row, stored_size, table, tag
from projections.console.markup import Child, Markup, element, joined
from projections.console.page import part
from projections.console.source import Overview
from projections.words import duration, why_not_settled

__all__ = ["overview"]

LAG_MS_MAX: Final = 120_000  # above it somebody's session is in the way: docs/operations.md, "What to watch"
DAY_S: Final = 86_400
PACE_S_MIN: Final = 60  # from then on a pace means something


def overview(seen: Overview) -> Markup:
    """Return the page's content."""
    survey, now_ms = seen.survey, seen.survey.now_ms or seen.taken_ms
    return joined(
        element("h1", "Overview"),
        part("facts", element("dl", _facts(survey, now_ms), class_="facts")),
        part("writers", element("h2", "Writers"), _writers(survey, now_ms)),
        part("sessions", element("h2", "Open sessions"), _sessions(survey, now_ms)),
        part("snapshots", element("h2", "Projections and snapshots"), _folds(seen.folds, now_ms)),
        part("requests", element("h2", "Requests of this process"), _requests(seen.requests, seen.running_s)),
        part("store", element("h2", "Store"), element("dl", _store(survey, now_ms), class_="facts quiet")),
    )


def _facts(survey: Survey, now_ms: int) -> list[Markup]:
    settled = survey.watermark_lag_ms == 0 and survey.watermark >= survey.newest_stamp
    late = not settled and survey.watermark_lag_ms > LAG_MS_MAX
    newest = ago(stamp_ms(survey.newest_stamp), now_ms, f" · stamp {survey.newest_stamp}") if survey.events else None
    lag = "settled" if settled else f"{duration(survey.watermark_lag_ms)} behind"
    return [
        fact("Events", count(survey.events), joined("newest ", newest) if newest else "none yet"),
        fact(
            "Watermark",
            joined(dot("bad" if late else "good" if settled else "busy", lag), lag),
            element("span", why_not_settled(survey).removeprefix(f"{lag} "), title=f"stamp {survey.watermark}"),
        ),
        fact("Writers", count(len(survey.writers)), f"{len(survey.open_sessions)} of {survey.sessions} sessions open"),
        fact("Segments", count(survey.segments), stored_size(survey.bytes)),
        fact(
            "Chapters",
            count(survey.chapters),
            f"and {survey.chapters_retired} retired" if survey.chapters_retired else "none retired",
        ),
    ]


def _writers(survey: Survey, now_ms: int) -> Markup:
    newest_first = sorted(survey.writers, key=lambda writer: -writer.last_stamp)
    return table(
        ("writer", "last heard", "events", "sessions", "size", ""),
        [_writer(writer, now_ms) for writer in newest_first],
        numeric=(2, 3, 4),
        empty="Nobody has written yet.",
        name="Writers",
    )


def _writer(writer: WriterSurvey, now_ms: int) -> Markup:
    return row(
        element("code", writer.writer),
        ago(stamp_ms(writer.last_stamp), now_ms, f" · stamp {writer.last_stamp}"),
        count(writer.events),
        count(writer.sessions),
        stored_size(writer.bytes),
        tag("open", title=f"{writer.open} sessions have not ended") if writer.open else None,
        numeric=(2, 3, 4),
        key=writer.writer,
    )


def _sessions(survey: Survey, now_ms: int) -> Markup:
    return table(
        ("writer", "session", "slots", "events", "last stamp", "silent for", "seal time", ""),
        [_session(session, now_ms) for session in survey.open_sessions],
        numeric=(2, 3, 5, 6),
        empty="None: nobody holds the watermark.",
        name="Open sessions",
    )


def _session(session: OpenSessionSurvey, now_ms: int) -> Markup:
    remarks = []
    if session.holds_watermark:
        remarks.append(tag("holds the watermark", "busy"))
    if session.may_be_sealed:
        remarks.append(tag("may be sealed", "bad", "silent for its seal time: `logstore seal` ends it"))
    silent = duration(session.silent_ms)
    return row(
        element("code", session.writer),
        element("code", f"{session.chapter}/{session.session}", title="chapter/session"),
        count(session.slots),
        count(session.events),
        ago(stamp_ms(session.last_stamp), now_ms, f" · stamp {session.last_stamp}"),
        element("span", silent, title=None if session.silent_ms is None else f"{session.silent_ms} ms"),
        element("span", duration(session.seal_ms), title=f"{session.seal_ms} ms"),
        remarks,
        numeric=(2, 3, 5, 6),
        key=f"{session.chapter}/{session.session}",
    )


def _folds(folds: tuple[FoldSurvey, ...], now_ms: int) -> Markup:
    return table(
        ("projection", "version", "snapshots", "newest", "rows", "unpacked", ""),
        [_fold(fold, now_ms) for fold in folds],
        numeric=(1, 2, 4, 5),
        empty="No projection is registered, and there is no snapshot: views are built from the beginning.",
        name="Projections and snapshots",
    )


def _fold(survey: FoldSurvey, now_ms: int) -> Markup:
    newest = survey.newest
    state = tag("registered", "good") if survey.registered else tag("not registered")
    return row(
        element("code", survey.fold.projection, title=f"fingerprint {survey.fold.fingerprint.hex()}"),
        str(survey.fold.version),
        count(survey.count),
        None if newest is None else ago(stamp_ms(newest.stamp), now_ms, f" · stamp {newest.stamp}"),
        None if newest is None else count(newest.rows),
        None if newest is None else stored_size(sum(chunk.size for chunk in newest.chunks)),
        tag("damaged", "bad", survey.damage) if survey.damage else state,
        numeric=(1, 2, 4, 5),
        key=f"{survey.fold.projection}/{survey.fold.version}/{survey.fold.fingerprint.hex()}",
    )


def _requests(used: StoreStatistics, running_s: float) -> Markup:
    verbs = (("GET", used.get), ("LIST", used.list), ("PUT", used.create), ("DELETE", used.delete))
    rows = [
        row(
            element("code", name),
            count(verb.requests),
            count(verb.refused),
            count(verb.failed),
            stored_size(verb.bytes_out),
            numeric=(1, 2, 3, 4),
            key=name,
        )
        for name, verb in verbs
        if verb.requests or name in ("GET", "LIST")
    ]
    spent: list[Child] = [f"{price(used.price_usd)} at S3's list price in {duration(round(running_s * 1000))}"]
    if running_s >= PACE_S_MIN:
        spent.append(f", {price(used.price_usd / running_s * DAY_S)} a day at this pace")
    heads = ("verb", "requests", "absent", "failed", "read")
    return joined(table(heads, rows, numeric=(1, 2, 3, 4), name="Requests"), element("p", *spent, ".", class_="more"))


def _store(survey: Survey, now_ms: int) -> list[Markup]:
    skew = survey.skew_ms
    clock = "with this machine's" if not skew else f"{duration(abs(skew))} {'ahead' if skew > 0 else 'behind'}"
    return [
        fact("Store", element("code", survey.store_id)),
        fact("Created", ago(survey.created_ms, now_ms)),
        fact("History", survey.history, f"grace {duration(survey.grace_ms)}"),
        fact("Roster", count(survey.entries), "entries"),
        fact("Store's clock", element("span", clock, title=f"{skew} ms")),
    ]
