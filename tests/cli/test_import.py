"""``logstore import``: every event once, in order, wherever it was killed; a bad line stops it there."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from logstore import AlreadyExists, Event
from projections import cli
from projections.cli.import_ import Import
from projections.cli.jsonlines import event_of_line, to_json
from projections.cli.marks import META
from tests.cli.conftest import Tool, deployment, lines
from tests.scene import Carry, Machine, Scene, Script, directed, event, lose, quick, refuse, until


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.split("\n") if line]


def bare(text: str) -> list[Event]:
    """What was appended, without what import has added."""
    events = [event_of_line(line.encode()) for line in text.split("\n") if line]
    metas = [{name: value for name, value in (each.meta or {}).items() if name != META} for each in events]
    return [each._replace(meta=meta or None) for each, meta in zip(events, metas, strict=True)]


def origin(record: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = record["meta"][META]
    return {name: found[name] for name in ("stamp", "writer", "chapter", "session", "seq")}


# What is imported --------------------------------------------------------------------------------


def test_an_export_is_imported_with_where_it_stood(tool: Tool, place: str, tmp_path: Path) -> None:
    """The same events in the same order, each with its origin in its meta, under the new writer's name."""
    exported = tmp_path / "events.jsonl"
    assert tool("export", place, "--out", str(exported)).exit_code == 0
    target = str(tmp_path / "target")
    result = tool("import", target, str(exported), "--writer", "mover", "--json")
    assert {**json.loads(result.stdout), "source": ""} == {"source": "", "skipped": 0, "imported": 3}
    assert "imported: lines 1 to 3 of" in result.stderr
    before, after = records(exported.read_text()), records(tool("export", target).stdout)
    assert bare(tool("export", target).stdout) == bare(exported.read_text())
    assert [origin(each) for each in after] == [
        {name: each[name] for name in ("stamp", "writer", "chapter", "session", "seq")} for each in before
    ]
    assert {each["writer"] for each in after} == {"mover"}


def test_where_it_stood_first_stays(tool: Tool, place: str, tmp_path: Path) -> None:
    """Imported from log to log, an event remembers the first one."""
    first = tool("export", place).stdout
    assert tool("import", str(tmp_path / "b"), stdin=first).exit_code == 0
    second = tool("export", str(tmp_path / "b")).stdout
    assert tool("import", str(tmp_path / "c"), stdin=second).exit_code == 0
    third = records(tool("export", str(tmp_path / "c")).stdout)
    assert [origin(each) for each in third] == [origin(each) for each in records(second)]


names = st.text(max_size=6) | st.just("$bytes")
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("$bytes"), inner, max_size=3)
    ),
    max_leaves=8,
)
maps = st.none() | st.dictionaries(st.text(max_size=6) | st.just("$map"), values, max_size=3)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "kind": st.sampled_from("AB"),
                "key": st.text(min_size=1, max_size=9),
                "type": st.just("t"),
                "data": maps.map(to_json),
                "meta": maps.map(to_json),
            }
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_export_and_import_are_each_others_inverse(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]
) -> None:
    """Whatever events there are: exported, imported and exported again they are the same, in the same order."""

    def tool(*arguments: str, stdin: str = "") -> str:
        result = CliRunner().invoke(cli.main, arguments, input=stdin.encode())
        assert result.exit_code == 0, result.stderr
        return result.stdout

    place = tmp_path_factory.mktemp("logs")
    tool("append", str(place / "a"), stdin=lines(*events))
    first = tool("export", str(place / "a"))
    tool("import", str(place / "b"), stdin=first)
    second = tool("export", str(place / "b"))
    assert bare(second) == bare(first) == bare(lines(*events))


# Once --------------------------------------------------------------------------------------------


def test_what_is_there_is_skipped(tool: Tool, place: str, tmp_path: Path) -> None:
    """Imported again nothing is appended; and of an input that has grown, only what is new."""
    text = tool("export", place, "--settled").stdout
    target = str(tmp_path / "target")
    assert tool("import", target, stdin=text).exit_code == 0
    again = tool("import", target, "--json", stdin=text)
    assert (json.loads(again.stdout)["skipped"], json.loads(again.stdout)["imported"]) == (3, 0)
    assert tool("append", place, stdin=lines(deployment(3))).exit_code == 0
    grown = tool("import", target, "--json", stdin=tool("export", place, "--settled").stdout)
    assert (json.loads(grown.stdout)["skipped"], json.loads(grown.stdout)["imported"]) == (3, 1)
    assert [each["key"] for each in records(tool("export", target).stdout)] == ["d-1", "d-2", "c-1", "d-3"]


def test_two_inputs_are_told_apart(tool: Tool, tmp_path: Path) -> None:
    """By their first event, or by a name; one that begins alike and goes on otherwise is refused, not mixed up."""
    target = str(tmp_path / "target")
    for text in (lines(deployment(1), deployment(2)), lines(deployment(5), deployment(2))):
        assert json.loads(tool("import", target, "--json", stdin=text).stdout)["imported"] == 2
    other = tool("import", target, stdin=lines(deployment(1), deployment(9)))
    assert (other.exit_code, "differs from it further on" in other.stderr) == (2, True)
    shorter = tool("import", target, stdin=lines(deployment(1)))
    assert (shorter.exit_code, "the input has 1 events, and 2 of it were imported before" in shorter.stderr) == (
        2,
        True,
    )
    named = tool("import", target, "--source", "second", "--json", stdin=lines(deployment(1), deployment(9)))
    assert json.loads(named.stdout) == {"source": "second", "skipped": 0, "imported": 2}
    assert [each["key"] for each in records(tool("export", target).stdout)] == [
        "d-1",
        "d-2",
        "d-5",
        "d-2",
        "d-1",
        "d-9",
    ]


async def batches(text: str, count: int) -> AsyncIterator[list[bytes]]:
    found = text.encode().splitlines()
    for start in range(0, len(found), count):
        yield found[start : start + count]


async def bring(machine: Machine, text: str, name: str = "mover") -> Import:
    """Import ``text`` as a process of its own, three events a batch."""
    async with machine.open(quick(), create=True) as log:
        importing = Import(log, machine.script, name, None, "input", batch_events=3)
        async with aclosing(importing.run(batches(text, 2))) as running:
            async for _ in running:
                pass
        return importing


async def crash(machine: Machine, carry: Carry, *, before: bool) -> None:
    """The process dies at a creation: before it was sent, or after it has landed."""
    if not before:
        with suppress(AlreadyExists):
            await carry()
    machine.process.crash()
    await asyncio.sleep(0.001)


def keys_stored(scene: Scene) -> list[str]:
    return [key for segment in scene.segments("log/mover") for key in (segment.columns.keys if segment.columns else [])]


TEXT = lines(*(deployment(n, meta={"n": n} if n % 2 else None) for n in range(11)))


def is_over(machine: Machine, task: asyncio.Task[Import]) -> bool:
    return task.done() or machine.process.state.value == "crashed"


def import_killed(scene: Scene, steps: list[int], *, before: bool) -> int:
    """Import again and again, killed at these creations, then to the end; how often it was killed."""

    async def play() -> int:
        killed = 0
        for attempt, step in enumerate([*steps, None]):
            machine = scene.machine(f"mover-{attempt}")
            if step is not None:
                machine.script.on("create", "/", partial(crash, machine, before=before), skip=step)
            task = machine.start(bring(machine, TEXT))
            await until(partial(is_over, machine, task))
            if task.done():
                task.result()
            else:
                killed += 1
        return killed

    try:
        return scene.loop.run_until_complete(play())
    finally:
        scene.loop.close()


@pytest.mark.parametrize("before", [False, True])
def test_killed_at_any_creation_it_goes_on(before: bool) -> None:
    """Before or after each object that an import creates, twice in a row: every event is there once, in order."""
    for step in range(200):
        scene = Scene(step)
        killed = import_killed(scene, [step, step // 2], before=before)
        assert keys_stored(scene) == [f"d-{n}" for n in range(11)], step
        if killed < 2:
            break
    else:
        pytest.fail("it never came to its end")
    assert step > 5


@given(st.lists(st.integers(0, 20), max_size=4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_killed_again_and_again_it_goes_on(steps: list[int], before: bool) -> None:
    """Wherever, and however often."""
    scene = Scene(1)
    import_killed(scene, steps, before=before)
    assert keys_stored(scene) == [f"d-{n}" for n in range(11)]


class Slow(Script):
    """A way to the bucket on which one creation is under way for long: longer than its process lives."""

    on_its_way: tuple[str, bytes] | None = None

    async def create(self, key: str, data: bytes) -> int | None:
        if self.on_its_way is None and key.startswith("log/") and key.endswith("1"):
            self.on_its_way = (key, data)
            await asyncio.get_running_loop().create_future()
        return await super().create(key, data)


@directed
async def test_what_lands_late_is_not_there_twice(scene: Scene) -> None:
    """A killed import's last segment arrives when the next one has looked: its slot is taken, by the final."""
    dying = scene.machine("dying")
    dying.script = slow = Slow(dying.face)
    dead = dying.start(bring(dying, TEXT))
    await until(lambda: slow.on_its_way is not None)
    dying.process.crash()
    importing = await bring(scene.machine("second"), TEXT)
    assert not dead.done()
    assert slow.on_its_way is not None
    with pytest.raises(AlreadyExists):
        await scene.world.create(*slow.on_its_way)
    assert (importing.skipped, importing.imported) == (3, 8)
    assert keys_stored(scene) == [f"d-{n}" for n in range(11)]


@directed
async def test_lost_answers_are_overcome(scene: Scene) -> None:
    """A creation whose answer is lost is not done twice."""
    machine = scene.machine("mover")
    machine.script.on("create", "log/", lose, times=2)
    await bring(machine, TEXT)
    assert keys_stored(scene) == [f"d-{n}" for n in range(11)]


@directed
async def test_an_unknown_outcome_says_what_to_do(scene: Scene) -> None:
    """Run it again: it looks first; whether the lines were stored or not, they are there once then."""
    machine = scene.machine("mover")
    machine.script.on("create", "log/", lose, times=10_000, skip=1)
    machine.script.on("get", "log/", refuse, times=10_000)
    with pytest.raises(click.ClickException, match=r"lines 4 to 6: Unknown: .*\n.*1 to 3 .*run it again, it looks"):
        await bring(machine, TEXT)
    importing = await bring(scene.machine("second"), TEXT)
    assert importing.skipped in (3, 6)
    assert keys_stored(scene) == [f"d-{n}" for n in range(11)]


@directed
async def test_a_name_that_is_in_use_is_taken_over(scene: Scene) -> None:
    """Its writer lives: it loses nothing, and goes on in another session; the import is whole."""
    async with scene.machine("live").open(quick(), create=True) as log, log.writer("mover") as writer:
        await writer.append(event("one"))
        await bring(scene.machine("second"), TEXT)
        await writer.append(event("two"))
    assert sorted(keys_stored(scene)) == sorted(["one", "two", *(f"d-{n}" for n in range(11))])


def test_killed_for_real_it_goes_on(tool: Tool, tmp_path: Path) -> None:
    """SIGKILL when part of the input has gone into the pipe, three times; then each event is there once, in order."""
    place, rng = str(tmp_path / "log"), random.Random(8)
    text = lines(*(deployment(n, data={"status": n, "fill": "x" * 100}) for n in range(30_000))).encode()
    command = [sys.executable, "-m", "projections.cli", "import", place]
    for _ in range(3):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as importing:
            assert importing.stdin is not None
            importing.stdin.write(text[: rng.randrange(len(text) // 3, len(text))])
            importing.kill()
    last = tool("import", place, "--json", stdin=text)
    assert last.exit_code == 0
    done = json.loads(last.stdout)
    assert done["skipped"] + done["imported"] == 30_000
    assert done["skipped"] > 0
    assert [each["key"] for each in records(tool("export", place).stdout)] == [f"d-{n}" for n in range(30_000)]


# What stops it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "not a line of JSON"),
        (
            '{"kind": "K", "key": "k", "type": "t", "data": {"a": 1, "a": 2}}',
            "a name stands twice in one object name='a'",
        ),
        ('{"kind": "A", "key": "k"}', "needs text field=type"),
        ('{"kind": "A", "key": "k", "type": "t", "more": 1}', "no such field of an event field='more'"),
        ('{"kind": "A", "key": "", "type": "t"}', "needs 1 to 1024 bytes"),
        (
            '{"kind": "A", "key": "k", "type": "t", "data": {"n": 1e999}}',
            "a number is too large for 64 bits field=data",
        ),
        ('{"kind": "A", "key": "k", "type": "t", "stamp": 7}', "not where an event stood field=writer"),
        (
            '{"kind": "A", "key": "k", "type": "t", "meta": {"imported": 1}}',
            "field of that name already field=imported",
        ),
    ],
)
def test_a_bad_line_stops_it_there(tool: Tool, tmp_path: Path, line: str, message: str) -> None:
    """Its file, number and mistake are said; what stands before is there, nothing from it on; mended, it goes on."""
    target, file = str(tmp_path / "target"), tmp_path / "events.jsonl"
    file.write_text(lines(deployment(1), deployment(2)) + line + "\n" + lines(deployment(4)))
    result = tool("import", target, str(file))
    assert result.exit_code == 2
    complaint, stored = result.stderr.splitlines()
    assert complaint.startswith(f"Error: {file}: line 3: InvalidArgument: ")
    assert message in complaint
    assert stored.startswith(f"imported: lines 1 to 2 of {file}: 2 events")
    assert stored.endswith("nothing from line 3 on")
    file.write_text(lines(deployment(1), deployment(2), deployment(3), deployment(4)))
    assert json.loads(tool("import", target, str(file), "--json").stdout)["skipped"] == 2
    assert [each["key"] for each in records(tool("export", target).stdout)] == ["d-1", "d-2", "d-3", "d-4"]


def test_large_events_fit_into_batches(tool: Tool, tmp_path: Path) -> None:
    """Five of 3 MiB: no batch is more than is accepted at once; one that is too large by itself is said."""
    target = str(tmp_path / "target")
    large = lines(*(deployment(n, data={"x": "y" * (3 << 20)}) for n in range(5)))
    assert json.loads(tool("import", target, "--json", stdin=large).stdout)["imported"] == 5
    assert len(list(Path(target).glob("log/import/*/*/*"))) == 4
    huge = tool(
        "import", str(tmp_path / "other"), stdin=lines(deployment(1), deployment(2, data={"x": "y" * (9 << 20)}))
    )
    assert (huge.exit_code, "LimitExceeded" in huge.stderr) == (2, True)


def test_bad_input_is_one_line(tool: Tool, tmp_path: Path) -> None:
    """No such file, no such store, no name: status 2."""
    target = str(tmp_path / "target")
    for arguments, message in (
        ((target, str(tmp_path / "none")), "cannot be read file="),
        ((target, str(tmp_path)), "cannot be read"),
        (("ftp://x/y",), "no such kind of store"),
        ((target, "--writer", ""), "needs a name --writer"),
        ((target, "--writer", "x" * 300), "needs 1 to 200 bytes"),
    ):
        result = tool("import", *arguments, stdin=lines(deployment(1)))
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1), result.stderr
        assert message in result.stderr


def test_nothing_is_imported_of_nothing(tool: Tool, tmp_path: Path) -> None:
    """Blank lines are no events: the log is made, and empty."""
    result = tool("import", str(tmp_path / "target"), "--json", stdin="\n \n")
    assert json.loads(result.stdout) == {"source": None, "skipped": 0, "imported": 0}
    assert tool("export", str(tmp_path / "target")).stdout == ""
