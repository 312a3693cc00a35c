"""The sync face at work: threads, interrupts, iterators, errors, forks, and the end of the process."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import logstore as asynchronous
import logstore.sync as logstore
from logstore.background import Background, Face, _Call, look, wait
from logstore.sync import AlreadyExists, Block, Event, InvalidArgument, NotFound, StageLogs
from projections.sync import Collection, DocumentChange, Documents, DocumentStore, Index, Projection, View, diff, keep

PATIENCE_S = 20  # what takes so long hangs


class Moves(Projection):
    name, kinds, fold = "moves", {"Thing"}, "patch"
    indexes = (Index("group"),)


@pytest.fixture(autouse=True)
def debugging() -> Iterator[None]:
    """In debug mode the loop refuses to be woken, or given anything to do, from another thread than its own."""
    loop = Background.current()._loop
    loop.set_debug(True)
    loop.slow_callback_duration = 10
    yield
    loop.set_debug(False)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logstore.Log]:
    with logstore.open(tmp_path.as_uri()) as log:
        yield log


@pytest.fixture
def things(log: logstore.Log) -> Iterator[Documents[Any]]:
    with DocumentStore.open(log, writer="things", collections=[Collection("Thing")]) as db:
        yield db.collection("Thing")


def event(n: int, group: int = 0) -> Event:
    return Event("Thing", f"t-{n}", "moved", {"n": n, "group": group})


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def ended(thread: threading.Thread) -> bool:
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.002)


def waiting() -> int:
    """How many calls the loop has begun and not ended."""
    return sum(call.task is not None for call in list(Background.current()._calls))


# What it is for ------------------------------------------------------------------------------


def test_a_session_from_append_to_documents(log: logstore.Log) -> None:
    """Everything that the asyncio API awaits, without."""
    with log.writer("web-1") as writer:
        receipt = writer.append_many([event(n, n % 2) for n in range(6)])
        assert [each.key for each in log.read(kinds={"Thing"})] == [f"t-{n}" for n in range(6)]
        with View.open(log, Moves(), follow=True) as view:
            view.wait_for(receipt, timeout=5)
            assert view.find([("group", "==", 1)]).keys == ["t-1", "t-3", "t-5"]
            assert view.get("t-0") == {"n": 0, "group": 0}
            assert (len(view), view.count(), sorted(view.keys())) == (6, 6, [f"t-{n}" for n in range(6)])
            assert view.settled(receipt, timeout=20) == {}
            assert view.snapshot().rows == 6
    with View.open(log, Moves(), at=view.watermark) as past:
        assert len(past) == 6
    assert [change.key for change in diff(log, Moves(), 0, view.watermark)] == [f"t-{n}" for n in range(6)]
    assert not [finding for finding in log.check() if finding.severity == "damage"]


def test_documents(things: Documents[Any]) -> None:
    """Written, asked, judged; errors are those of the asyncio API."""
    receipt = things.create("d-1", {"status": 0})
    things.update("d-1", {"status": 1}, when=[("status", "==", 0)])
    things.modify("d-1", lambda thing: {**thing, "status": thing["status"] + 1})
    assert things.get("d-1") == {"status": 2}
    assert "d-1" in things
    receipt.settled(timeout=20)
    with pytest.raises(AlreadyExists):
        things.create("d-1", {})
    with pytest.raises(NotFound):
        things.get("d-2")
    assert things.view == things.view


def test_documents_as_they_were(log: logstore.Log) -> None:
    """All collections at a settled moment, while they go on; what is not open is told."""
    with DocumentStore.open(log, writer="w", collections=[Collection("Thing")]) as db:
        things = db.collection("Thing")
        things.create("t", {"n": 1})
        things.view.settle()
        moment = things.view.watermark
        things.update("t", {"n": 2})
        with db.at(moment) as past:
            assert [row["doc"] for row in past("Thing").find().rows] == [{"n": 1}]
            with pytest.raises(InvalidArgument, match="no such collection"):
                past("Other")
        assert things.get("t") == {"n": 2}


def test_stage_logs_and_keeping(log: logstore.Log) -> None:
    """Also of what users construct, and of functions that yield."""
    stage = StageLogs(log).stage("deployment-1", "stage-1")
    stage.append([Block(0, "pulling")])
    stage.complete([Block(1, "pulled")])
    assert [block.text for block in stage.follow()] == ["pulling", "pulled"]
    assert stage.fetch() == ([Block(0, "pulling"), Block(1, "pulled")], True)
    rounds = keep(log, pause_ms=1)
    assert next(rounds).problems == []
    rounds.close()
    with log.pin("an export") as pin:
        assert pin.chapter == 0


def test_it_can_be_called_where_another_loop_runs(log: logstore.Log) -> None:
    """The caller's loop waits meanwhile; that is for the caller to know."""

    async def caller() -> int:
        with log.writer("web-1") as writer:
            return writer.append(event(1)).count

    assert asyncio.run(caller()) == 1


# Threads -------------------------------------------------------------------------------------


def test_many_threads_append_read_and_watch_at_once(log: logstore.Log, things: Documents[Any]) -> None:
    """Nothing is lost, readers are told each event once, and everything ends."""
    writers, each = 8, 25
    total = writers * each
    seen: dict[int, list[int]] = {}
    watched: set[str] = set()

    def write(number: int) -> None:
        for n in range(each):
            things.create(f"d-{number}-{n}", {"n": n, "writer": number})
            assert things.get(f"d-{number}-{n}")["n"] == n

    def follow(number: int) -> None:
        seen[number] = []
        for stored in log.follow():
            seen[number].append(stored.seq)
            if len(seen[number]) == total:
                return

    def watch(changes: Iterator[DocumentChange]) -> None:
        watched.update(change.key for change in changes)

    followers = [in_thread(lambda number=number: follow(number)) for number in range(3)]  # type: ignore[misc]
    watching = [things.watch() for _ in range(3)]
    watchers = [in_thread(lambda changes=changes: watch(changes)) for changes in watching]  # type: ignore[misc]
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    assert all(map(ended, followers))
    assert all(len(set(sequence)) == total for sequence in seen.values())
    eventually(lambda: len(watched) == total)
    for changes in watching:
        changes.close()
    assert all(map(ended, watchers))
    assert len(things) == things.count() == len(things.find().keys) == total
    assert sum(1 for _ in log.read()) == total


def test_no_reader_sees_rows_and_indexes_differ(log: logstore.Log) -> None:
    """While events move rows from one group to another, each answer is of one moment."""
    rows, interval = 40, sys.getswitchinterval()
    stop = threading.Event()
    wrong: list[object] = []

    def ask(view: View) -> None:
        while not stop.is_set():
            for group in range(3):
                page = view.find([("group", "==", group)])
                wrong.extend(row for row in page.rows if row["group"] != group)
            counts = [view.count([("group", "in", [0, 1, 2])]), len(view), view.count()]
            wrong.extend(count for count in counts if count != rows)

    with log.writer("web-1") as writer:
        writer.append_many([event(n) for n in range(rows)])
        with View.open(log, Moves(), follow=True) as view:
            sys.setswitchinterval(1e-5)
            try:
                readers = [in_thread(lambda: ask(view)) for _ in range(3)]
                for group in range(60):
                    receipt = writer.append_many([event(n, group % 3) for n in range(rows)])
                    view.wait_for(receipt)
                stop.set()
                assert all(map(ended, readers))
            finally:
                sys.setswitchinterval(interval)
    assert wrong == []


def test_who_looks_sees_no_step_half_done() -> None:
    """A step of the loop ends before anybody looks, in its thread or in the loop's."""
    state = [0, 0]
    stop = threading.Event()
    halves: list[list[int]] = []

    async def change() -> None:
        while not stop.is_set():
            for _ in range(10):
                state[0] += 1
                for _ in range(200):
                    pass
                state[1] += 1
                await asyncio.sleep(0)
            await asyncio.sleep(0.0005)

    def ask() -> None:
        while not stop.is_set():
            one, other = look(lambda: [state[0], sum(0 for _ in range(50)) + state[1]])
            if one != other:
                halves.append([one, other])

    changing = in_thread(lambda: wait(change()))
    asking = [in_thread(ask) for _ in range(3)]
    time.sleep(0.3)
    stop.set()
    assert all(map(ended, [changing, *asking]))
    assert state[0] > 10
    assert halves == []


def test_a_look_may_look_and_must_not_wait() -> None:
    """Who has the turn already takes no other, and would wait for a loop that waits for it."""
    assert look(lambda: look(lambda: 1)) == 1
    with pytest.raises(InvalidArgument, match="waits for the event loop"):
        look(lambda: wait(asyncio.sleep(0)))


def test_a_function_that_the_loop_calls_may_look_and_must_not_wait(things: Documents[Any]) -> None:
    """It would wait for itself for ever; it is told so."""
    things.create("d-1", {"n": 1})
    things.create("d-2", {"n": 2})
    things.update("d-1", lambda thing: {**thing, "n": things.get("d-2")["n"]})
    assert things.get("d-1") == {"n": 2}

    def writes(_: object) -> None:
        things.update("d-2", {"n": 3})

    with pytest.raises(InvalidArgument, match="called by a function that the loop waits for"):
        things.update("d-1", writes)


def test_a_call_has_its_callers_context() -> None:
    """What a tracing or logging library keeps there is that of the thread that calls."""
    request = contextvars.ContextVar[str]("request")

    async def ask() -> str:
        await asyncio.sleep(0)
        return request.get()

    def call(name: str) -> str:
        request.set(name)
        return wait(ask())

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, "abcdefgh")) == list("abcdefgh")


# Errors and interrupts -----------------------------------------------------------------------


def test_an_error_arrives_as_it_was_raised(log: logstore.Log, things: Documents[Any]) -> None:
    """The same object's type and message, and where it came from: the caller's line, and the line that raised it."""
    with pytest.raises(NotFound) as caught:
        things.update("d-1", {"n": 1})
    frames = {Path(frame.filename).name for frame in traceback.extract_tb(caught.value.__traceback__)}
    assert {"test_sync.py", "sync.py", "documents.py"} <= frames
    with log.writer("web-1") as writer, pytest.raises(InvalidArgument, match="needs text"):
        writer.append(Event("Thing", 1, "moved"))  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_what_a_callers_function_raises_does_not_end_the_loop(things: Documents[Any], error: BaseException) -> None:
    """Not even what ends a process: it is the caller's."""
    things.create("d-1", {"n": 1})

    def fails(_: object) -> None:
        raise error

    with pytest.raises(type(error)):
        things.update("d-1", fails)
    things.update("d-1", {"n": 2})
    assert things.get("d-1") == {"n": 2}


def test_a_timeout_works(log: logstore.Log) -> None:
    """It is the asyncio API's own."""
    with log.writer("web-1") as writer:
        receipt = writer.append(event(1))
        with pytest.raises(TimeoutError):
            log.settled(receipt, timeout=0.01)


def test_an_interrupt_cancels_the_call() -> None:
    """It is raised once the coroutine has ended; what waits in other threads goes on."""
    ends = threading.Event()
    others = threading.Event()

    async def step() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ends.set()

    async def other() -> None:
        await asyncio.sleep(0.2)
        others.set()

    in_thread(lambda: wait(other()))
    timer = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        wait(step())
    assert ends.is_set()
    assert others.wait(PATIENCE_S)
    timer.join()


class Entered:
    """What counts how it was left."""

    def __init__(self) -> None:
        self.left: list[object] = []

    async def __aenter__(self) -> Entered:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self.left.append(kind)
        await asyncio.sleep(0)


@pytest.mark.parametrize(("begun", "told"), [(False, SystemExit), (True, None)])
def test_an_interrupt_as_it_is_left_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, begun: bool, told: object
) -> None:
    """Just before the call begins, or in the same step of the loop: it is left all the same, and once."""
    behind = Background.current()
    face: Face[Any] = Face(Entered())
    face._enter()

    def interrupted(coroutine: Coroutine[Any, Any, Any], within: Any) -> Any:
        call = _Call[Any](within)

        def begin() -> None:
            call.begin(coroutine)
            call.cancel_task()

        if begun:
            behind._submit(call, begin)
        else:
            coroutine.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patching:
        patching.setattr(behind, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            face._exit(None, None, None)
    eventually(lambda: face._inner.left)
    assert face._inner.left == [told]
    assert id(face._inner) not in behind._open


def test_an_interrupted_follower_goes_on_where_it_was(log: logstore.Log) -> None:
    """An interrupt ends the iteration; iterated again, the reader misses nothing and repeats nothing."""
    with log.writer("web-1") as writer:
        writer.append_many([event(n) for n in range(3)])
        reader = log.follow()
        timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        seen: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            seen.extend(stored.key for stored in reader)
        writer.append(event(3))
        for stored in reader:
            seen.append(stored.key)
            if stored.key == "t-3":
                break
        assert seen == ["t-0", "t-1", "t-2", "t-3"]
        timer.join()


# Iterators -----------------------------------------------------------------------------------


def test_the_position_is_right_after_each_event(log: logstore.Log) -> None:
    """Though events come by the segment; and a reader that was left goes on there."""
    with log.writer("web-1") as writer:
        writer.append_many([event(n) for n in range(5)])
        writer.append_many([event(n) for n in range(5, 9)])
        for stop in range(9):
            reader = log.read()
            for stored in reader:
                if stored.key == f"t-{stop}":
                    break
            rest = [stored.key for stored in log.read(after=reader.position)]
            assert rest == [f"t-{n}" for n in range(stop + 1, 9)] == [stored.key for stored in reader]
            assert list(reader) == []


class Numbers(Face[object]):
    """Something that counts, for ever."""

    def __init__(self) -> None:
        super().__init__(object())
        self.ended = threading.Event()
        self.pause_s = 0.0

    def count(self) -> Any:
        return self._iterate(self._count())

    async def _count(self) -> AsyncGenerator[int, None]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                await asyncio.sleep(self.pause_s)
        finally:
            await asyncio.sleep(0)
            self.ended.set()


def test_leaving_the_loop_ends_the_iterator() -> None:
    """Whoever lets go of it need not close it."""
    numbers = Numbers()
    for number in numbers.count():
        if number == 3:
            break
    assert numbers.ended.wait(PATIENCE_S)


def test_a_closed_iterator_has_ended() -> None:
    """``close`` returns when it has; closed again, or asked for more, it says that there is no more."""
    numbers = Numbers()
    counting = numbers.count()
    assert [next(counting), next(counting)] == [0, 1]
    counting.close()
    assert numbers.ended.is_set()
    counting.close()
    assert list(counting) == []
    begun = Numbers().count()
    begun.close()
    assert list(begun) == []


def test_an_error_thrown_in_ends_the_iterator() -> None:
    """As a generator's: it is raised, and all is over."""
    numbers = Numbers()
    counting = numbers.count()
    next(counting)
    with pytest.raises(LookupError):
        counting.throw(LookupError("of the caller"))
    assert numbers.ended.is_set()


def test_an_iterator_is_closed_while_another_thread_waits_in_it() -> None:
    """That one is told that there is no more: its loop ends."""
    numbers = Numbers()
    numbers.pause_s = 60
    counting = numbers.count()
    seen: list[int] = []
    thread = in_thread(lambda: seen.extend(counting))
    eventually(lambda: counting._step is not None)
    time.sleep(0.02)
    with pytest.raises(ValueError, match="another thread"):
        next(counting)
    counting.close()
    assert ended(thread)
    assert seen == [0]
    assert numbers.ended.is_set()


# Closing -------------------------------------------------------------------------------------


def test_after_its_end_a_writer_refuses(log: logstore.Log) -> None:
    """As in the asyncio API."""
    with log.writer("web-1") as writer:
        writer.append(event(1))
    with pytest.raises(InvalidArgument, match="writer is closed"):
        writer.append(event(2))
    assert writer.is_closed
    assert writer.statistics().events_stored == 1


def test_what_is_not_open_says_so(tmp_path: Path) -> None:
    """A log that was not entered; and one that does not exist is not opened."""
    log = logstore.open(tmp_path.as_uri(), create=False)
    with pytest.raises(InvalidArgument, match="not open"):
        log.read()
    with pytest.raises(NotFound), log:
        pass


def test_leaving_a_with_ends_what_other_threads_wait_for_within_it(tmp_path: Path) -> None:
    """Nothing waits for ever for what is closed."""
    errors: list[logstore.LogStoreError] = []

    def waits(function: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            try:
                function()
            except logstore.LogStoreError as error:
                errors.append(error)

        return run

    with logstore.open(tmp_path.as_uri()) as log, log.writer("web-1") as writer:
        receipt = writer.append(event(1))
        with View.open(log, Moves(), follow=True) as view:
            threads = [
                in_thread(waits(lambda: list(view.changes()))),
                in_thread(waits(lambda: list(view.rejections()))),
                in_thread(waits(lambda: list(log.follow()))),
                in_thread(waits(lambda: log.settled(receipt))),
            ]
            eventually(lambda: waiting() >= 4)
        assert all(map(ended, threads[:2]))
    assert all(map(ended, threads))
    assert len(errors) in (3, 4)  # the writer's end may have settled it
    assert waiting() == 0


def test_objects_of_the_asyncio_api_are_refused(tmp_path: Path) -> None:
    """They belong to another loop."""
    with pytest.raises(InvalidArgument, match="not the asyncio API"):
        View.open(asynchronous.open(tmp_path.as_uri()), Moves())  # type: ignore[call-overload]


# Processes -----------------------------------------------------------------------------------


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


HEAD = """
import os, sys, threading, time
import logstore.sync as logstore
from logstore.sync import Event
from projections.sync import Collection, DocumentStore
log = logstore.open(sys.argv[1]).__enter__()
writer = log.writer("web-1").__enter__()
writer.append(Event("Thing", "t-1", "moved", {"n": 1}))
"""


def test_a_process_that_leaves_everything_open_ends(tmp_path: Path) -> None:
    """At once, with its sessions closed; daemons are left where they wait, others are told."""
    script = """
    db = DocumentStore.open(log, writer="web-2", collections=[Collection("Other")]).__enter__()
    others = db.collection("Other")
    others.create("o-1", {"n": 1})
    def watch():
        try:
            for change in others.watch():
                print("watched", change.key, flush=True)
        except logstore.InvalidArgument as error:
            print(error)
    threading.Thread(target=watch).start()
    threading.Thread(target=lambda: list(log.follow()), daemon=True).start()
    threading.Thread(target=lambda: list(others.conflicts()), daemon=True).start()
    time.sleep(0.3)
    print("ends", time.time(), flush=True)
    """
    done = run(HEAD + textwrap.dedent(script), tmp_path.as_uri())
    now = time.time()
    assert (done.stderr, done.returncode) == ("", 0)
    watched, ends, told = done.stdout.splitlines()
    assert watched == "watched o-1"
    assert "the process is ending" in told
    assert now - float(ends.split()[1]) < 3
    with logstore.open(tmp_path.as_uri()) as log:
        assert log.survey().open_sessions == ()
        assert [each.key for each in log.read()] == ["t-1", "o-1"]


@pytest.mark.parametrize("daemon", [True, False])
def test_a_transaction_that_a_process_ends_in_writes_nothing(tmp_path: Path, daemon: bool) -> None:
    """A thread is in the middle of it: nobody left it, so what it has written so far is not committed."""
    script = f"""
    accounts = [Collection("Account", exclusive=True)]
    db = DocumentStore.open(log, writer="bank", collections=accounts, mode="exclusive").__enter__()
    with db.transaction() as tx:
        for key in "ab":
            tx.create("Account", key, {{"n": 50}})
    half = threading.Event()
    def move():
        with db.transaction() as tx:
            tx.update("Account", "a", {{"n": 0}})
            half.set()
            time.sleep(2)
            tx.update("Account", "b", {{"n": 100}})
    threading.Thread(target=move, daemon={daemon}).start()
    half.wait()
    """
    assert run(HEAD + textwrap.dedent(script), tmp_path.as_uri()).returncode == 0
    accounts = Collection("Account", exclusive=True)
    with logstore.open(tmp_path.as_uri()) as log, DocumentStore.open(log, collections=[accounts]) as db:
        assert [row["n"] for row in db.collection("Account").find().rows] == [50, 50]


def test_what_cannot_be_closed_does_not_keep_the_process(tmp_path: Path) -> None:
    """A store that does not answer: a warning, and the end."""
    script = """
    from logstore.filestore import MemoryStore
    class Stuck(MemoryStore):
        async def create(self, key, data):
            if getattr(self, "stuck", False):
                import asyncio
                await asyncio.sleep(3600)
            return await super().create(key, data)
    store = Stuck()
    stuck = logstore.open(store).__enter__()
    other = stuck.writer("web-1").__enter__()
    other.append(Event("Thing", "t-1", "moved"))
    store.stuck = True
    print(time.time())
    """
    done = run(HEAD + textwrap.dedent(script), tmp_path.as_uri())
    assert time.time() - float(done.stdout) < 5
    assert done.returncode == 0
    assert "took too long" in done.stderr


def test_calls_after_the_main_thread_are_refused(tmp_path: Path) -> None:
    """A thread that outlives it is told, not left to hang."""
    script = """
    def late():
        threading.main_thread().join()
        time.sleep(0.5)
        try:
            writer.append(Event("Thing", "t-2", "moved"))
        except logstore.InvalidArgument as error:
            print(error)
    threading.Thread(target=late).start()
    """
    done = run(HEAD + textwrap.dedent(script), tmp_path.as_uri())
    assert (done.stderr, done.returncode) == ("", 0)
    assert "the process is ending" in done.stdout


def test_after_a_fork_the_child_opens_its_own(tmp_path: Path) -> None:
    """What the parent opened is refused there, and goes on here; the child's own loop works."""
    script = """
    following = iter(log.follow())
    assert next(following).key == "t-1"
    child = os.fork()
    if child == 0:
        for call in (lambda: writer.append(Event("Thing", "t-2", "moved")), log.requests, lambda: next(following)):
            try:
                call()
                os._exit(1)
            except logstore.InvalidArgument as error:
                assert "forked" in str(error)
        del following
        with logstore.open(sys.argv[1]) as own, own.writer("child") as writer:
            writer.append(Event("Thing", "t-3", "moved"))
            assert [each.key for each in own.read()] == ["t-1", "t-3"]
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    writer.append(Event("Thing", "t-4", "moved"))
    assert {next(following).key, next(following).key} == {"t-3", "t-4"}
    print("both")
    """
    done = run("import warnings; warnings.simplefilter('ignore')" + HEAD + textwrap.dedent(script), tmp_path.as_uri())
    assert (done.stdout, done.stderr, done.returncode) == ("both\n", "", 0)
