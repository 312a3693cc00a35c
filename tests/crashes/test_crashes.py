"""Death between any two calls, power cuts after any call, disks that refuse any call: docs/testing.md tells the story.

``SEED=7 pytest tests/crashes -m "slow or not slow"`` tries other subsets, other interleavings, and all of them.
"""

from __future__ import annotations

import errno
import gc
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from logstore.errors import LogStoreError, UnsafeStore
from tests.crashes.bugs import BUGS, planted
from tests.crashes.histories import HISTORIES, Host, Refuse, Told, examine, played
from tests.disk import Call, Left, Platter

SEED: Final = int(os.environ.get("SEED", "1"))
TEMPORARIES_MAX: Final = 8  # that one ill spell may leave to a sweep: as many as a creation has attempts
CODES: Final = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, errno.EDQUOT, errno.EINTR)
SPELL_S: Final = 3.0  # longer than the deadline of a creation


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Each simulated loop collects garbage when it closes; what was there before needs no look."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def top() -> Iterator[Path]:
    """Where disks are laid, thousands of small files: in memory if the system lets us, and gone at once."""
    memory = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


def power_cuts(calls: list[Call], seed: int) -> dict[frozenset[tuple[str, int, bytes]], tuple[int, Left]]:
    """Disks that a power cut may leave, each with the last call after which it may; those that look alike once."""
    rng, platter = random.Random(seed), Platter()
    found = {left.objects: (0, left) for left in platter.left_by_power_cut(rng)}
    for number, call in enumerate(calls, 1):
        if platter.play(call):
            found |= {left.objects: (number, left) for left in platter.left_by_power_cut(rng)}
    return found


def deaths(calls: list[Call]) -> list[tuple[int, Left]]:
    """What is there when all processes are killed after a call and the machine goes on: its cache has all they did."""
    platter, found = Platter(), []
    for number, call in enumerate(calls, 1):
        if platter.play(call):
            found.append((number, platter.now()))
    return found


def tell(name: str, told: Told, number: int, problems: list[str]) -> str:
    """One line for each problem of a disk, and the calls before the cut."""
    last = "\n    ".join(str(call) for call in told.disk.calls[max(0, number - 8) : number])
    return f"SEED={SEED} history={name!r} call={number}\n    {last}\n  " + "\n  ".join(problems)


def first_problem(name: str, told: Told, lefts: list[tuple[int, Left]], top: Path) -> str | None:
    for index, (number, left) in enumerate(lefts):
        root = top / f"left-{index}"
        root.mkdir()
        if problems := examine(left, told, number, root, HISTORIES[name][0]):
            return tell(name, told, number, problems)
        shutil.rmtree(root)
    return None


def some(lefts: list[tuple[int, Left]], count: int | None) -> list[tuple[int, Left]]:
    """So many of them, and the last; None: all."""
    if count is None or len(lefts) <= count:
        return lefts
    return [*random.Random(SEED).sample(lefts[:-1], count - 1), lefts[-1]]


def play(name: str, top: Path, seed: int = SEED, refuse: Refuse | None = None) -> Told:
    top.mkdir()
    told = played(name, top, seed, refuse)
    assert told.complaints == []
    return told


# Crashes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("writers", 50),
        ("upkeep", 30),
        pytest.param("writers", None, marks=pytest.mark.slow, id="writers, all"),
        pytest.param("upkeep", None, marks=pytest.mark.slow, id="upkeep, all"),
    ],
)
def test_whatever_a_power_cut_leaves_opens_as_it_is(name: str, count: int | None, top: Path) -> None:
    """After any call: what was acknowledged or read is there, whole and once; nothing else is; all goes on."""
    told = play(name, top / "disk")
    assert told.errors == []
    cuts = list(power_cuts(told.disk.calls, SEED).values())
    assert len(cuts) > 200
    assert first_problem(name, told, some(cuts, count), top) is None


@pytest.mark.parametrize(
    ("name", "count"),
    [("writers", 25), ("upkeep", 15), pytest.param("writers", None, marks=pytest.mark.slow, id="writers, all")],
)
def test_death_after_any_call_leaves_a_store_that_opens_as_it_is(name: str, count: int | None, top: Path) -> None:
    """Kill -9 of all processes between any two calls, with temporaries left as they were."""
    told = play(name, top / "disk")
    assert first_problem(name, told, some(deaths(told.disk.calls), count), top) is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_other_interleavings(seed: int, top: Path) -> None:
    """Other orders of the calls of several processes, each cut everywhere."""
    told = play("writers", top / "disk", seed)
    cuts = list(power_cuts(told.disk.calls, seed).values())
    assert first_problem("writers", told, cuts, top) is None


@pytest.mark.parametrize("name", list(HISTORIES))
def test_the_model_agrees_with_the_real_directory(name: str, top: Path) -> None:
    """The calls, played on the model, make what they made of the real directory, byte for byte."""
    told = play(name, top / "disk")
    platter = Platter()
    for call in told.disk.calls:
        platter.play(call)
    left = platter.now()
    paths = [path.relative_to(top / "disk").as_posix() for path in (top / "disk").rglob("*")]
    assert sorted(paths) == sorted([*left.directories, *(path for path, _, _ in left.files)])
    assert all((top / "disk" / path).read_bytes() == data for path, _, data in left.files)


# Refusals ----------------------------------------------------------------------------------------


def at_one(call: int, code: int) -> Refuse:
    """One call is refused."""
    return lambda host, number, function, path: OSError(code, os.strerror(code)) if number == call else None


def from_then_on(call: int, code: int) -> Refuse:
    """All are, for a while."""
    until_s: list[float] = []

    def refuse(host: Host, number: int, function: str, path: str) -> OSError | None:
        if number == call:
            until_s.append(host.loop.time() + SPELL_S)
        return OSError(code, os.strerror(code)) if until_s and host.loop.time() < until_s[0] else None

    return refuse


def check_refused(told: Told, top: Path) -> list[str]:
    """What must hold whatever was refused: typed errors, nothing left open, all goes on, all that was told is true."""
    problems = [f"not ours: {error!r}" for error in told.errors if not isinstance(error, LogStoreError)]
    problems += [
        f"does not say where: {error}"
        for error in told.errors
        if not re.search(r"(key|prefix|directory|stage_log)=", str(error)) or "\n" in str(error)
    ]
    problems += [f"left open: {path}" for path in told.open]
    if not told.last and not told.in_doubt:
        problems.append(f"does not go on: {told.errors[-1:]}")
    temporaries = top / "disk" / "tmp"
    if temporaries.exists() and len(list(temporaries.iterdir())) > TEMPORARIES_MAX:
        problems.append("temporaries pile up")
    platter = Platter()
    for call in told.disk.calls:
        platter.play(call)
    cuts = list(platter.left_by_power_cut(random.Random(SEED)))
    for name, left in (("least", cuts[0]), ("most", cuts[-1])):
        (top / name).mkdir()
        problems += examine(left, told, len(told.disk.calls), top / name, "full")
    return problems


def refused_calls(top: Path, share: int) -> list[int]:
    """The calls of the history to refuse: one in ``share``, and all syncs of directories if that is one."""
    calls = play("one process", top).disk.calls
    return list(range(SEED % share, len(calls), share))


@pytest.mark.parametrize("how", [at_one, from_then_on], ids=["one call", "a spell"])
@pytest.mark.parametrize("share", [53, pytest.param(1, marks=pytest.mark.slow, id="each")])
def test_a_disk_that_refuses(how: Callable[[int, int], Refuse], share: int, top: Path) -> None:
    """Any call meets any error: callers get ours, and what was acknowledged is on the disk all the same."""
    calls = refused_calls(top / "plain", share)
    for index, number in enumerate(calls):
        code = CODES[(index + SEED) % len(CODES)]
        place = top / f"{number}"
        place.mkdir()
        told = play("one process", place / "disk", refuse=how(number, code))
        problems = check_refused(told, place)
        shutil.rmtree(place)
        assert problems == [], tell(f"{errno.errorcode[code]} at {number}", told, number + 1, problems)


def test_no_sync_that_failed_is_believed(top: Path) -> None:
    """EIO at a sync, of a file or a directory: what was pending is lost, and nobody calls it stored."""
    calls = play("one process", top / "plain").disk.calls
    syncs = [number for number, call in enumerate(calls) if call.function.startswith("sync")]
    for number in syncs[:: max(1, len(syncs) // 10)]:
        place = top / f"{number}"
        place.mkdir()
        told = play("one process", place / "disk", refuse=at_one(number, errno.EIO))
        problems = check_refused(told, place)
        shutil.rmtree(place)
        assert problems == [], tell(f"EIO at {number}", told, number + 1, problems)


# Planted mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(BUGS))
def test_a_planted_mistake_is_caught(name: str, top: Path) -> None:
    """Each mistake that somebody could make in the local store is found by the tests above."""
    with planted(name):
        if BUGS[name].refused:
            calls = play("one process", top / "plain").disk.calls
            for number, call in enumerate(calls):
                if call.function == "sync directory" and call.path.startswith("log/web/0000000000/"):
                    place = top / f"{number}"
                    place.mkdir()
                    told = play("one process", place / "disk", refuse=at_one(number, errno.EIO))
                    if check_refused(told, place):
                        return
            pytest.fail("not caught")
        history = BUGS[name].history
        told = play(history, top / "disk")
        if any(isinstance(error, UnsafeStore) for error in told.errors):
            return  # nobody even makes a log there
        cuts = sorted(power_cuts(told.disk.calls, SEED).values(), key=lambda cut: cut[0])
        cuts = [cut for cut in cuts if cut[0] > told.died]
        assert first_problem(history, told, cuts, top) is not None
