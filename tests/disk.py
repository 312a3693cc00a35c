"""A disk under ``LocalStore``: what it was asked, in order; what it refuses; and what a power cut may leave of it.

``Disk`` stands where the module ``os`` stands in ``logstore/filestore/local.py``. It carries every call out on a real
directory, notes it, and may refuse it. ``Platter`` plays the noted calls again on a model that knows, of each file
and of each name in each directory, what has reached the medium: the disks that a power cut after any call may leave.

What the model lets a power cut do, which is what POSIX does not forbid:

- The bytes of a file that was not synced are there, or missing, or cut short, or zeros, its name being there or not.
- A name made or removed since its directory was synced is there or is not, each for itself: nothing keeps an order.
- A sync that failed (but was not just interrupted) has lost what was pending; one that succeeds afterwards makes none
  of it last ("fsyncgate").

``SteppingLoop`` runs each thread of a store one call at a time, in an order that a seed decides, in virtual time: calls
of several creations interleave, and a process that is killed stops between any two of them.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import math
import os
import posixpath
import random
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from logstore.testing.simulation import SimulatedLoop

__all__ = ["Call", "Disk", "Left", "Platter", "SteppingLoop", "count_calls"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

WRITE_BYTES_MAX: Final = 4_096  # a write may take less than it was given: large objects are written in several calls
SUBSETS_MAX: Final = 16  # of what is pending at a cut all subsets are tried when they are no more than these
LEFTOVERS_MAX: Final = 3  # of temporaries that a power cut brings back, so many at once
STEP_MS_MAX: Final = 0.2
_CHANGES: Final = {"write", "sync file", "link", "mkdir", "sync directory"}


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the function, its paths below the top ("" is the top), and what the model needs of it.

    ``failed``: the number of the error with which it was refused; it had no effect, except that of a failed sync.
    """

    function: str
    path: str
    other: str = ""
    data: bytes = b""
    failed: int = 0

    def __str__(self) -> str:
        return " ".join(
            filter(
                None,
                (self.function, self.path, self.other, errno.errorcode.get(self.failed, "") if self.failed else ""),
            )
        )


class Disk:
    """The module ``os``, as ``LocalStore`` uses it, on the real directory ``top``.

    ``refuse`` is asked before each call, with its number, and returns the error to raise instead: at first what
    ``fail`` has for the function. ``after`` is told of each that was carried out. ``now_ns`` is the time that files and
    directories bear. No sync reaches a real medium: the model says what one is worth.
    """

    def __init__(self, top: str | os.PathLike[str], now_ns: Callable[[], int]) -> None:
        self.top = os.fspath(top)
        self.calls: list[Call] = []
        self.fail: dict[str, OSError] = {}
        self.refuse: Callable[[int, str, str], OSError | None] = lambda number, function, path: self.fail.get(function)
        self.after: Callable[[Call], object] = lambda call: None
        self.path = _Paths(self)
        self._now_ns = now_ns
        self._opened: dict[int, str] = {}
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @property
    def handles(self) -> list[str]:
        """What is open."""
        return list(self._opened.values())

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The calls that store something, or make it last: function and path."""
        return [(call.function, call.path) for call in self.calls if call.function in _CHANGES and not call.failed]

    def close_all(self) -> None:
        """What the end of a process does."""
        for handle in list(self._opened):
            os.close(handle)
        self._opened.clear()

    # Calls that change something -------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        with self._call("open", path, noted=False):
            made = flags & os.O_CREAT and not os.path.lexists(path)
            handle = os.open(path, flags, mode)
            self._opened[handle] = path
            self.calls.append(Call("create" if made else "open", self._below(path)))
            if made:
                self._touch(path)
            return handle

    def write(self, handle: int, data: bytes | memoryview) -> int:
        path = self._opened[handle]
        with self._call("write", path, data=bytes(data[:WRITE_BYTES_MAX])):
            written = os.write(handle, data[:WRITE_BYTES_MAX])
            os.utime(handle, ns=(self._now_ns(),) * 2)
            return written

    def fsync(self, handle: int) -> None:
        path = self._opened[handle]
        with self._call("sync directory" if os.path.isdir(path) else "sync file", path):
            pass

    def close(self, handle: int) -> None:
        try:
            with self._call("close", self._opened[handle]):
                pass
        finally:  # whatever it says, the handle is gone
            self._opened.pop(handle)
            os.close(handle)

    def link(self, source: str, target: str) -> None:
        with self._call("link", source, target):
            os.link(source, target)
            self._touch(target)

    def rename(self, source: str, target: str) -> None:
        with self._call("rename", source, target):
            os.rename(source, target)

    def unlink(self, path: str) -> None:
        with self._call("unlink", path):
            os.unlink(path)
            self._touch(path)

    def mkdir(self, path: str) -> None:
        with self._call("mkdir", path):
            os.mkdir(path)
            self._touch(path, path)

    def rmdir(self, path: str) -> None:
        with self._call("rmdir", path):
            os.rmdir(path)
            self._touch(path)

    # Calls that only look --------------------------------------------------------------------

    def pread(self, handle: int, count: int, offset: int) -> bytes:
        with self._call("pread", self._opened[handle]):
            return os.pread(handle, count, offset)

    def fstat(self, handle: int) -> os.stat_result:
        with self._call("fstat", self._opened[handle]):
            return os.fstat(handle)

    def stat(self, path: str) -> os.stat_result:
        with self._call("stat", path):
            return os.stat(path)

    def lstat(self, path: str) -> os.stat_result:
        with self._call("lstat", path):
            return os.lstat(path)

    def scandir(self, path: str) -> Any:
        with self._call("scandir", path):
            return os.scandir(path)

    # How a call is made ----------------------------------------------------------------------

    def _call(self, function: str, path: str, other: str = "", *, data: bytes = b"", noted: bool = True) -> _Calling:
        return _Calling(self, Call(function, self._below(path), other and self._below(other), data), noted=noted)

    def _below(self, path: str) -> str:
        """A path below the top; one above it as it is."""
        inside = path == self.top or path.startswith(self.top + "/")
        return path[len(self.top) + 1 :] if inside else path

    def _touch(self, path: str, *more: str) -> None:
        """Let what was changed bear our time: the directory of ``path``, and ``more``."""
        for touched in (os.path.dirname(path), *more):
            os.utime(touched, ns=(self._now_ns(),) * 2)


class _Calling:
    """Around one call: its turn comes, it may be refused, and it is noted when it has had its effect."""

    def __init__(self, disk: Disk, call: Call, *, noted: bool) -> None:
        self._disk, self._the_call, self._noted = disk, call, noted

    def __enter__(self) -> None:
        if (strand := _strand.current) is not None:
            strand.wait_for_turn()
        self._disk._lock.acquire()
        call, calls = self._the_call, self._disk.calls
        refused = self._disk.refuse(len(calls), call.function, call.path)
        if refused is not None:
            calls.append(Call(call.function, call.path, call.other, failed=refused.errno or errno.EIO))
            self._disk._lock.release()
            raise refused

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        call = self._the_call
        if error is not None:
            number = getattr(error, "errno", None) or errno.EIO
            self._disk.calls.append(Call(call.function, call.path, call.other, failed=number))
        else:
            if self._noted:
                self._disk.calls.append(call)
            self._disk.after(call)
        self._disk._lock.release()


class _Paths:
    """``os.path``, whose questions to the disk are calls like all others."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(posixpath, name)

    def isdir(self, path: str) -> bool:
        return self._is(self._disk.stat, path, stat.S_ISDIR)

    def isfile(self, path: str) -> bool:
        return self._is(self._disk.stat, path, stat.S_ISREG)

    def lexists(self, path: str) -> bool:
        return self._is(self._disk.lstat, path, lambda mode: True)

    @staticmethod
    def _is(look: Callable[[str], os.stat_result], path: str, test: Callable[[int], bool]) -> bool:
        try:
            return test(look(path).st_mode)
        except (OSError, ValueError):  # as os.path has it
            return False


# What a power cut leaves -------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _File:
    serial: int
    data: bytes = b""
    synced: bool = False
    lost: bool = False  # a sync of it failed: no later one makes it last


@dataclass(eq=False, slots=True)
class _Directory:
    """``names``: as processes see it. ``pending``: what each name was since the directory was synced, oldest first."""

    serial: int
    names: dict[str, _File | _Directory] = field(default_factory=dict)
    pending: dict[str, list[_File | _Directory | None]] = field(default_factory=dict)
    lost: dict[str, list[_File | _Directory | None]] = field(default_factory=dict)

    def put(self, name: str, node: _File | _Directory | None) -> None:
        old = self.names.get(name)
        self.pending.setdefault(name, [old]).append(node)
        if node is None:
            del self.names[name]
        else:
            self.names[name] = node

    def sync(self) -> None:
        self.pending.clear()

    def fail(self) -> None:
        for name, was in self.pending.items():
            self.lost.setdefault(name, []).extend(was)
        self.pending.clear()

    def choices(self, name: str) -> list[_File | _Directory | None]:
        """What may be left under the name, the surest first."""
        options = self.lost.get(name, []) + self.pending.get(name, [])
        return list(dict.fromkeys(options)) if options else [self.names.get(name)]

    def known(self) -> list[str]:
        return list(dict.fromkeys([*self.lost, *self.pending, *self.names]))


@dataclass(frozen=True, slots=True)
class Left:
    """A disk that may be left: directories, and files, each with the serial of its inode and its bytes."""

    directories: tuple[str, ...]
    files: tuple[tuple[str, int, bytes], ...]

    @property
    def objects(self) -> frozenset[tuple[str, int, bytes]]:
        """What a store can see of it: no temporary, and of a file with two names that it has them."""
        counts: dict[int, int] = {}
        for _, serial, _ in self.files:
            counts[serial] = counts.get(serial, 0) + 1
        return frozenset(
            (path, min(counts[serial], 2), data) for path, serial, data in self.files if not path.startswith("tmp/")
        )

    def lay(self, top: str | os.PathLike[str], now_ns: int) -> None:
        """Make it real below ``top``, an empty directory; everything bears the time ``now_ns``."""
        made: dict[int, str] = {}
        for path in self.directories:
            os.mkdir(os.path.join(top, path))
        for path, serial, data in self.files:
            target = os.path.join(top, path)
            if serial in made:
                os.link(made[serial], target)
                continue
            made[serial] = target
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                os.write(handle, data)
                os.utime(handle, ns=(now_ns, now_ns))
            finally:
                os.close(handle)


class Platter:
    """The model: plays calls, and says what a power cut now may leave. ``top`` itself is sure to be there."""

    def __init__(self) -> None:
        self._serials = itertools.count()
        self._top = _Directory(next(self._serials))

    def play(self, call: Call) -> bool:
        """Take one call; return whether it has changed what may be left."""
        if call.failed:
            return self._play_failed(call)
        match call.function:
            case "create":
                self._put(call.path, _File(next(self._serials)))
            case "write":
                file = self._file(call.path)
                file.data += call.data
                file.synced = False
            case "sync file":
                file = self._file(call.path)
                file.synced = not file.lost
            case "mkdir":
                self._put(call.path, _Directory(next(self._serials)))
            case "link":
                self._put(call.other, self._node(call.path))
            case "rename":
                node = self._node(call.path)
                self._put(call.other, node)
                self._put(call.path, None)
            case "unlink" | "rmdir":
                self._put(call.path, None)
            case "sync directory" if not call.path.startswith("/"):
                self._directory(call.path).sync()
            case _:
                return False
        return True

    def _play_failed(self, call: Call) -> bool:
        if call.failed == errno.EINTR:
            return False
        if call.function == "sync file":
            self._file(call.path).lost = True
        elif call.function == "sync directory" and not call.path.startswith("/"):
            self._directory(call.path).fail()
        return False

    def now(self) -> Left:
        """What processes see: what is left when all of them are killed and the machine goes on."""
        return self._left(self._top, lambda directory, name: directory.names.get(name), lambda file: file.data)

    def left_by_power_cut(self, rng: random.Random) -> Iterator[Left]:
        """Disks that a power cut may leave: the least, the most, and all between them or some by chance."""
        choices, contents = self._open_questions()
        count = math.prod(len(options) for *_, options in choices) * math.prod(len(o) for _, o in contents)
        questions = [range(len(options)) for *_, options in choices] + [range(len(o)) for _, o in contents]
        answers: Iterable[tuple[int, ...]]
        if count <= SUBSETS_MAX:
            answers = itertools.product(*questions)
        else:
            some = [tuple(rng.choice(question) for question in questions) for _ in range(SUBSETS_MAX - 2)]
            answers = [tuple(0 for _ in questions), tuple(q[-1] for q in questions), *some]
        for answer in answers:
            names = {
                (directory, name): options[index]
                for (directory, name, options), index in zip(choices, answer[: len(choices)], strict=True)
            }
            bytes_of = {
                file: options[index] for (file, options), index in zip(contents, answer[len(choices) :], strict=True)
            }
            leftovers = self._leftovers(rng)
            yield self._left(
                self._top,
                lambda directory, name, names=names, leftovers=leftovers: (  # type: ignore[misc]
                    names[directory, name]
                    if (directory, name) in names
                    else leftovers.get(name)
                    if directory is self._temporary
                    else directory.choices(name)[0]
                ),
                lambda file, bytes_of=bytes_of: (  # type: ignore[misc]
                    bytes_of[file] if file in bytes_of else file.data if file.synced else rng.choice(_torn(file.data))
                ),
            )

    def _open_questions(
        self,
    ) -> tuple[
        list[tuple[_Directory, str, list[_File | _Directory | None]]],
        list[tuple[_File, list[bytes]]],
    ]:
        """Where several things may be left: under names, and in files that may have a name. Temporaries apart."""
        names: list[tuple[_Directory, str, list[_File | _Directory | None]]] = []
        contents: dict[_File, list[bytes]] = {}
        seen: set[_Directory] = set()
        waiting = [self._top]
        while waiting:
            directory = waiting.pop()
            if directory in seen or directory is self._temporary:
                continue
            seen.add(directory)
            for name in directory.known():
                options = directory.choices(name)
                if len(options) > 1:
                    names.append((directory, name, options))
                for node in options:
                    if isinstance(node, _Directory):
                        waiting.append(node)
                    elif node is not None and not node.synced:
                        contents[node] = _torn(node.data)
        return names, list(contents.items())

    def _leftovers(self, rng: random.Random) -> dict[str, _File | _Directory]:
        """Temporaries that are there after all: none, or a few of those that once were."""
        temporary = self._temporary
        if temporary is None or rng.random() < 0.5:
            return {}
        was = {name: [node for node in temporary.choices(name) if node is not None] for name in temporary.known()}
        there = [(name, nodes[-1]) for name, nodes in was.items() if nodes]
        return dict(rng.sample(there[-12:], min(len(there), rng.randint(0, LEFTOVERS_MAX))))

    @property
    def _temporary(self) -> _Directory | None:
        found = self._top.names.get("tmp")
        return found if isinstance(found, _Directory) else None

    @staticmethod
    def _left(
        top: _Directory,
        name_of: Callable[[_Directory, str], _File | _Directory | None],
        bytes_of: Callable[[_File], bytes],
    ) -> Left:
        directories: list[str] = []
        files: list[tuple[str, int, bytes]] = []

        def walk(directory: _Directory, prefix: str) -> None:
            for name in directory.known():
                node = name_of(directory, name)
                if isinstance(node, _Directory):
                    directories.append(prefix + name)
                    walk(node, prefix + name + "/")
                elif node is not None:
                    files.append((prefix + name, node.serial, bytes_of(node)))

        walk(top, "")
        return Left(tuple(directories), tuple(files))

    # Finding things -------------------------------------------------------------------------

    def _node(self, path: str) -> _File | _Directory:
        node: _File | _Directory = self._top
        for name in filter(None, path.split("/")):
            assert isinstance(node, _Directory)
            node = node.names[name]
        return node

    def _file(self, path: str) -> _File:
        node = self._node(path)
        assert isinstance(node, _File)
        return node

    def _directory(self, path: str) -> _Directory:
        node = self._node(path)
        assert isinstance(node, _Directory)
        return node

    def _put(self, path: str, node: _File | _Directory | None) -> None:
        directory, _, name = path.rpartition("/")
        self._directory(directory).put(name, node)


def _torn(data: bytes) -> list[bytes]:
    """What may be left of bytes that were not synced."""
    return list(dict.fromkeys([b"", bytes(len(data)), data[: len(data) // 2], data]))


def count_calls(calls: Iterable[Call]) -> dict[str, int]:
    """How often each function was called."""
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.function] = counts.get(call.function, 0) + 1
    return counts


# Threads, one call at a time ----------------------------------------------------------------------


class _Killed(BaseException):
    """Ends a thread whose process is dead: none of its calls happens any more."""


class _Strand:
    """Work in a thread of its own, which stands still before each call until it is told to make it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._killed = False
        self.done = False
        self.result: object = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> bool:
        """Let it make the call before which it stands, and go on to the next; return whether it has ended."""
        self._go.release()
        self._stands.acquire()
        return self.done

    def kill(self) -> None:
        self._killed = True
        while not self.done:
            self.step()
        self._thread.join()

    def wait_for_turn(self) -> None:
        """Called in the thread."""
        if not self._killed:
            self._stands.release()
            self._go.acquire()
        if self._killed:
            raise _Killed

    def _run(self) -> None:
        self._go.acquire()
        _strand.current = self
        try:
            if not self._killed:
                self.result = self._work()
        except BaseException as error:  # noqa: BLE001  whatever it is, it is the caller's
            self.error = error
        self.done = True
        self._stands.release()


class _Current(threading.local):
    current: _Strand | None = None


_strand = _Current()


class SteppingLoop(SimulatedLoop):
    """A simulated loop whose threads take a call at a time, in between of each other and of everything else."""

    def __init__(self, rng: random.Random, **bounds: Any) -> None:
        super().__init__(rng, **bounds)
        self._steps_rng = random.Random(rng.random())
        self._strands: set[_Strand] = set()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run ``func`` in a thread that is told when to make each of its calls."""
        future = self.create_future()
        strand = _Strand(lambda: func(*args))
        self._strands.add(strand)

        def step() -> None:
            if not strand.step():
                self._soon(step)
                return
            self._strands.discard(strand)
            if future.done():
                return
            if strand.error is not None:
                future.set_exception(strand.error)
            else:
                future.set_result(strand.result)

        self._soon(step)
        return future

    def _soon(self, step: Callable[[], None]) -> None:
        self.call_later(self._steps_rng.uniform(0, STEP_MS_MAX) / 1000, step)

    def close(self) -> None:
        """Forget all tasks; threads end where they stand."""
        for strand in list(self._strands):
            with suppress(BaseException):
                strand.kill()
        self._strands.clear()
        super().close()
