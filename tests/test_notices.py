"""Notices: named once and for all, told where something happens, one line of JSON each, without secrets."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Never

import pytest

import logstore
from logstore import Corrupt, Fenced, InvalidArgument, NotStored, Unknown
from logstore.filestore import MemoryStore
from logstore.notices import NOTICES, JsonFormatter, Notices
from projections import FoldFailed, Projection, View
from tests.cli.conftest import Tool, abandoned, age, place, tool
from tests.pages import ROOT, read
from tests.scene import FOREVER, Carry, Scene, die, directed, quick, refuse
from tests.test_keeper import live_a_day, opened
from tests.test_snapshots import Things, thing

__all__ = ["abandoned", "place", "tool"]  # fixtures

PAGE: Final = "docs/observability.md"
SECRET: Final = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.notice for record in caplog.records if hasattr(record, "notice")]


def fields(caplog: pytest.LogCaptureFixture, name: str) -> dict[str, Any]:
    return next(record.told for record in caplog.records if getattr(record, "notice", None) == name)  # type: ignore[attr-defined]


def said_in_the_code() -> Iterator[tuple[str, set[str]]]:
    """Each notice that the code says, with the fields that it gives there."""
    for package in ("logstore", "projections"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                    said, by = node.args[0].value, ast.unparse(node.func)
                    if isinstance(said, str) and re.search(r"(?:\b|_)(say|complain|Notices\(_log\))$", by):
                        yield said, {keyword.arg or "" for keyword in node.keywords}


def test_every_notice_is_said_and_only_those() -> None:
    """No name is invented where it is said, none is left over, and no field is unknown."""
    found = list(said_in_the_code())
    assert {name for name, _ in found} == set(NOTICES)
    for name, given in found:
        assert given <= {*NOTICES[name].fields, "error"}, name


def test_the_table_is_that_of_the_code() -> None:
    """docs/observability.md has every notice with its level and fields, and none that there is not."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (info|warning|error) \| ([^|]*) \| ([^|]*) \|$", read(PAGE), re.MULTILINE)
    assert [(name, level, tuple(re.findall(r"`(\w+)`", given)), what) for name, level, given, what in rows] == [
        (name, logging.getLevelName(notice.level).lower(), notice.fields, notice.sentence)
        for name, notice in NOTICES.items()
    ]


async def test_a_session_is_told_from_beginning_to_end(caplog: pytest.LogCaptureFixture) -> None:
    """Who, where, in which store; nothing is said of an event."""
    caplog.set_level(logging.DEBUG)
    async with logstore.open(MemoryStore()) as log, log.writer("web-1") as writer:
        for number in range(10):
            await writer.append(thing(number))
    assert told(caplog) == ["session-opened", "session-ended"]
    store = log.identity.id.hex()
    assert fields(caplog, "session-ended") == {"store": store, "writer": "web-1", "session": "0/1", "slots": 10}
    assert caplog.messages[-1] == "a session was ended by its writer writer=web-1 session=0/1 slots=10"


@contextmanager
def recorded() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """The notices said within, with their fields; info, too."""
    seen: list[tuple[str, dict[str, Any]]] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.__dict__["notice"], record.__dict__["told"]))

    recorder, loggers = Recorder(), [logging.getLogger("logstore"), logging.getLogger("projections")]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.addHandler(recorder)
    try:
        yield seen
    finally:
        for logger in loggers:
            logger.setLevel(logging.NOTSET)
            logger.removeHandler(recorder)


@directed
async def test_trouble_is_told_with_its_cause(scene: Scene) -> None:
    """What was given up, what is not stored, what nobody knows: with names and the error."""
    machine = scene.machine("web")
    with recorded() as seen:
        async with machine.open(quick(deadline_ms=10_000)) as log, log.writer("web") as writer:
            await writer.append(thing(1))
            machine.script.on("create", "log/web", refuse, 8)
            with pytest.raises(NotStored):
                await writer.append(thing(2))
            assert "events-not-stored" in dict(seen)
            await writer.append(thing(3))
            machine.script.on("create", "log/web", refuse, FOREVER)
            with pytest.raises(Unknown):
                await writer.append(thing(4))
            machine.script.clear()
    notices = dict(seen)
    assert notices["events-unknown"]["key"] == notices["creation-given-up"]["key"]
    assert notices["creation-given-up"]["key"].startswith("log/web/")
    assert notices["creation-given-up"]["error"].startswith("Unavailable: gave up verb=create")


@directed
async def test_events_that_met_a_seal_are_told(scene: Scene) -> None:
    """Their caller hears nothing of it: they are sent again."""
    with recorded() as seen:
        async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
            first = await writer.append(thing(1))
            async with scene.machine("ops").open(quick()) as other:
                await other.seal(writer="web")
            second = await writer.append_many([thing(2), thing(3)])
    assert second.session != first.session
    assert dict(seen)["session-lost"] | {"store": ""} == {
        "store": "",
        "writer": "web",
        "session": f"{first.chapter}/{first.session}",
        "events": 2,
    }


@directed
async def test_a_lead_is_told_when_taken_and_when_lost(scene: Scene) -> None:
    """To another; a leader that says goodbye has lost nothing."""
    with recorded() as seen:
        async with scene.machine("one").open(quick()) as log, scene.machine("two").open(quick()) as other:
            first, second = log.lead("one", {"Thing"}), other.lead("two", {"Thing"})
            await first.acquire()
            await second.acquire(takeover=True)
            with pytest.raises(Fenced):
                await first.append([thing(1)])
            assert [(name, told["writer"]) for name, told in seen if name.startswith("lead-")] == [
                ("lead-acquired", "one"),
                ("lead-acquired", "two"),
                ("lead-lost", "one"),
            ]
            await second.aclose()
    assert [name for name, _ in seen].count("lead-lost") == 1
    assert dict(seen)["lead-lost"]["error"].startswith("Fenced: ")


@directed
async def test_what_ends_the_follower_is_told(scene: Scene) -> None:
    """It ends in a task of the log's, and all who follow with it."""
    machine = scene.machine("reader")
    with recorded() as seen:
        async with scene.machine("web").open(quick()) as log, log.writer("web") as writer:
            await writer.append(thing(1))
            async with machine.open(quick(), read_only=True) as reading, View.open(reading, Things(), follow=True):
                await asyncio.sleep(1)
                await writer.append(thing(2))
                await asyncio.sleep(1)
                machine.script.on("get", "log/web", break_down, FOREVER)
                await asyncio.sleep(5)
                machine.script.clear()
    notices = dict(seen)
    assert notices["following-ended"]["error"].startswith("Corrupt: ")
    assert notices["view-ended"]["projection"] == "things"


async def break_down(_carry: Carry) -> Never:
    raise Corrupt("made to be damaged")


@directed
async def test_looking_after_a_log_is_told(scene: Scene) -> None:
    """Seals, chapters and snapshots: what changes a store beside events."""
    with recorded() as seen:
        await live_a_day(scene, 1)
        await die(scene.machine("dying"), "a")
        await asyncio.sleep(60)
        async with opened(scene.machine("keeper")) as log:
            await log.seal()
    notices = dict(seen)
    assert notices["session-sealed"]["writer"] == "dying"
    assert notices["chapter-ended"]["chapter"] == 0
    assert (notices["snapshot-written"]["projection"], notices["snapshot-written"]["version"]) == ("things", 1)


async def test_what_ends_a_view_that_follows_is_told() -> None:
    """It ends in a task, where nobody catches it."""

    class Failing(Projection):
        name, kinds = "failing", frozenset({"Thing"})

        def apply(self, state: Any, event: Any) -> Any:
            raise ZeroDivisionError

    with recorded() as seen:
        async with logstore.open(MemoryStore()) as log, View.open(log, Failing(), follow=True) as view:
            async with log.writer("web") as writer:
                receipt = await writer.append(thing(1))
            with pytest.raises(FoldFailed):
                await view.wait_for(receipt)
            async with asyncio.timeout(30):
                assert view._task is not None
                await asyncio.wait([view._task])
    notices = dict(seen)
    assert notices["view-ended"]["projection"] == "failing"
    assert notices["view-ended"]["error"].startswith("FoldFailed: ")


def test_a_notice_that_nobody_hears_is_not_made() -> None:
    """Not even its fields are turned into text."""

    class Untold:
        def __str__(self) -> str:
            raise AssertionError

    Notices(logging.getLogger("logstore.test"))("session-opened", writer=Untold(), session="0/1")


def test_a_name_is_shown_and_not_obeyed(caplog: pytest.LogCaptureFixture) -> None:
    """A writer's name may hold what a terminal obeys, and an error may name it."""
    Notices(logging.getLogger("logstore.test"))(
        "session-not-ended", writer="web\x1b[2J\nroot", session="0/1", error=InvalidArgument("no\r\nway \u202e")
    )
    assert caplog.messages[0].isprintable()
    assert r"writer='web\x1b[2J\nroot'" in caplog.messages[0]
    assert formatted(caplog.records[0])["writer"] == "web\x1b[2J\nroot"


# As JSON


def formatted(record: logging.LogRecord, **environment: str) -> dict[str, Any]:
    line = JsonFormatter(environment).format(record)
    assert line.isascii()
    assert line.isprintable()
    return json.loads(line)  # type: ignore[no-any-return]


def made(message: str, **extra: Any) -> logging.LogRecord:
    record = {"name": "logstore.writer", "levelname": "WARNING", "msg": message, "created": 1_700_000_000.1234}
    return logging.makeLogRecord(record | extra)


def test_a_line_has_the_notice_and_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Time, level, logger, message, notice; each field by its name, numbers as numbers."""
    Notices(logging.getLogger("logstore.writer"), store="ab", writer="web-1")(
        "events-unknown", key="log/w/…", events=3, error=Unknown("may be stored", token="t")
    )
    line = formatted(caplog.records[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "error",
        "logger": "logstore.writer",
        "message": f"{NOTICES['events-unknown'].sentence} writer=web-1 key=log/w/… events=3: Unknown: may be stored",
        "notice": "events-unknown",
        "store": "ab",
        "writer": "web-1",
        "key": "log/w/…",
        "events": 3,
        "error": "Unknown: may be stored",
    }


def test_a_record_of_another_library_is_a_line_too() -> None:
    """With its message, and where an error was raised; no notice."""
    try:
        raise InvalidArgument("one\ntwo")
    except InvalidArgument as error:
        trace = (type(error), error, error.__traceback__)
    line = formatted(made("it said\r\n\x1b[31m%s", args=("so",), exc_info=trace))
    assert (line["message"], "notice" in line) == ("it said\r\n\x1b[31mso", False)
    assert line["trace"].endswith("InvalidArgument: one\ntwo")


@pytest.mark.parametrize(
    "text",
    [
        f"signature differs secret={SECRET}",
        f"GET https://user:{SECRET}@host/x",
        f"GET https://user:p@{SECRET.replace('/', '')}@host/x",
        f"GET https://host/x?X-Amz-Security-Token={SECRET}&y=1",
        f"Authorization: AWS4-HMAC-SHA256 {SECRET}",
    ],
)
def test_no_credential_is_in_a_line(text: str) -> None:
    """Neither in the message, nor in a field, nor where an error was raised: known ones, and what looks like one."""
    try:
        raise InvalidArgument(text)
    except InvalidArgument as error:
        trace = (type(error), error, error.__traceback__)
    told = {"error": text, "many": [text]}
    record = made("failed: %s", args=(text,), notice="could-not-run", told=told, exc_info=trace)
    line = JsonFormatter({"AWS_SECRET_ACCESS_KEY": SECRET}).format(record)
    assert SECRET not in line.replace("\\", "")
    assert SECRET.replace("/", "") not in line
    assert "…" in json.loads(line)["message"]


class Unsayable:
    """Whose text cannot be made."""

    def __str__(self) -> str:
        raise LookupError(SECRET)

    __repr__ = __str__


def deep() -> list[Any]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (b"\xff\0", r"b'\xff\x00'"),
        ("\ud800", "\ud800"),
        ({"a": [1]}, "{'a': [1]}"),
        ([1, [None, 2.5]], [1, [None, 2.5]]),
        (True, True),
    ],
)
def test_a_field_of_any_value_is_json(value: Any, shown: Any) -> None:
    """As JSON knows it, or as text: NaN is no JSON."""
    assert formatted(made("it", notice="left-open", told={"what": value}))["what"] == shown


@pytest.mark.parametrize(
    ("extra", "error"),
    [
        ({"args": ("no number",)}, "TypeError"),
        ({"args": (1,), "notice": "left-open", "told": {"what": Unsayable()}}, "LookupError"),
        ({"args": (1,), "notice": "left-open", "told": {"what": 10**5_000}}, "ValueError"),
        ({"args": (1,), "notice": "left-open", "told": {"what": deep()}}, "RecursionError"),
        ({"args": (1,), "notice": "left-open", "told": "another's"}, "TypeError"),
    ],
)
def test_a_record_that_cannot_be_told_is_a_line(extra: dict[str, Any], error: str) -> None:
    """``logging`` would print a trace, with the arguments as they are, instead."""
    line = formatted(made("%d of them", **extra))
    assert (line["message"], line["error"]) == ("a record that cannot be told: %d of them", error)
    assert formatted(made("it", msg=Unsayable()))["message"] == "a record that cannot be told: …"


def test_what_is_short_is_no_secret() -> None:
    """One that is a word would make lines unreadable, and tells nothing."""
    line = JsonFormatter({"AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": ""}).format(made("a test of it"))
    assert json.loads(line)["message"] == "a test of it"


# The tool


def test_a_keepers_notices_come_as_json(tool: Tool, abandoned: str) -> None:
    """Each on a line of stderr; what it did stays on stdout."""
    age(abandoned, 60)
    result = tool("keep", abandoned, "--rounds", "1", "--metrics", "0", "--log-format", "json")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert [line["notice"] for line in lines] == ["metrics-served", "session-sealed"]
    assert lines[0]["metrics"].startswith("http://127.0.0.1:")
    assert (lines[1]["writer"], lines[1]["session"], lines[1]["level"]) == ("dead", "0/3", "info")
    assert "sealed 1 sessions" in result.stdout
    assert logging.getLogger("logstore").level == logging.NOTSET


@pytest.mark.parametrize("verb", [("keep", "--rounds=1"), ("tail", "--limit=1"), ("console", "--once", "--port=0")])
def test_what_ends_a_verb_is_a_line_of_json_too(tool: Tool, place: str, verb: tuple[str, ...]) -> None:
    """With the status that it has anyway."""
    name, *options = verb
    result = tool(name, f"{place}-not", *options, "--log-format=json")
    [line] = [json.loads(line) for line in result.stderr.splitlines()]
    assert (result.exit_code, line["notice"], line["level"]) == (2, "could-not-run", "error")
    assert line["error"].startswith("NotFound: no log in this store")


def test_a_round_that_fails_says_so_either_way(tool: Tool, place: str) -> None:
    """As people read it, or as a notice."""
    (Path(place) / "roster/0000000000/0000000001").write_bytes(b"x")
    text = tool("keep", place, "--rounds", "1")
    lines = tool("keep", place, "--rounds", "1", "--log-format", "json")
    assert (text.exit_code, lines.exit_code) == (1, 1)
    assert text.stderr.startswith("Corrupt: ")
    problems = [json.loads(line) for line in lines.stderr.splitlines()]
    assert {problem["notice"] for problem in problems} == {"round-problem"}
    assert [problem["error"] for problem in problems] == text.stderr.splitlines()
