"""The sync face has what the asyncio API has, and nothing else; and it is as its script writes it."""

from __future__ import annotations

import enum
import inspect
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

import logstore
import logstore.sync
import projections
import projections.sync
from logstore.background import Face
from scripts import sync_face

WINDOWS = ((logstore, logstore.sync), (projections, projections.sync))
FACES = [
    pytest.param(asynchronous, name, getattr(plain, name), id=f"{plain.__name__}.{name}")
    for window, plain in WINDOWS
    for name in plain.__all__
    if inspect.isclass(getattr(plain, name)) and issubclass(getattr(plain, name), Face)
    for asynchronous in [getattr(window, name)]
]
WITHOUT_AWAIT = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
BY_FACE = {"__init__", "__eq__", "__hash__", "__repr__"}  # every face has them
WAITS = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)


class Kind(enum.Enum):
    CLASS_METHOD = enum.auto()
    METHOD = enum.auto()
    PROPERTY = enum.auto()


def members(cls: type) -> dict[str, tuple[Kind, Any]]:
    """What users call or look at; of all classes that it extends."""
    found: dict[str, tuple[Kind, Any]] = {}
    for base in reversed(cls.__mro__[: cls.__mro__.index(object)]):
        if base.__module__.partition(".")[0] not in ("logstore", "projections") or base is Face:
            continue
        for name, member in vars(base).items():
            if name.startswith("_") and not (name.endswith("__") and inspect.isfunction(member)):
                continue
            if isinstance(member, property):
                found[name] = (Kind.PROPERTY, member.fget)
            elif isinstance(member, classmethod):
                found[name] = (Kind.CLASS_METHOD, member.__func__)
            elif inspect.isfunction(member):
                found[name] = (Kind.METHOD, member)
    return {name: member for name, member in found.items() if name not in BY_FACE}


def attributes(cls: type) -> set[str]:
    """The public attributes that its constructors set."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__[:-1] if "__init__" in vars(base)]
    sources = [inspect.getsource(constructor) for constructor in constructors]
    return {
        name for source in sources for name in re.findall(r"^ +self\.([a-z]\w*)(?:: [^=]+)? = ", source, re.MULTILINE)
    }


def parameters(function: Callable[..., object]) -> list[tuple[str, object, object, object]]:
    return [
        (each.name, each.kind, each.default, each.annotation)
        for each in inspect.signature(function).parameters.values()
    ]


def returned(function: Callable[..., object]) -> str:
    annotation = str(inspect.signature(function).return_annotation)
    annotation = re.sub(r"AsyncGenerator\[(.*), None\]", r"Generator[\1, None, None]", annotation)
    return re.sub(r"AsyncIterator\[(.*)\]", r"Generator[\1, None, None]", annotation)


@pytest.mark.parametrize("package", sync_face.PACKAGES)
def test_the_face_is_as_the_script_writes_it(package: str) -> None:
    """Who changes the asyncio API runs scripts/sync_face.py."""
    assert (sync_face.ROOT / package / "sync.py").read_text() == sync_face.written(package)


@pytest.mark.parametrize(("window", "plain"), WINDOWS, ids=lambda window: window.__name__)
def test_the_windows_show_the_same_names(window: ModuleType, plain: ModuleType) -> None:
    """In the same order; what never waits is the same thing."""
    assert plain.__all__ == window.__all__
    for name in window.__all__:
        there, here = getattr(window, name), getattr(plain, name)
        if inspect.isclass(there) and name not in sync_face.COMPONENTS:
            waits = any(check(function) for _, function in members(there).values() for check in WAITS)
            assert (here is not there) == waits, name
        elif inspect.isfunction(there):
            assert here is not there
            assert parameters(here) == parameters(there)
            assert returned(here) == returned(there)


@pytest.mark.parametrize(("asynchronous", "name", "face"), FACES)
def test_a_face_has_the_members_of_its_class(asynchronous: type, name: str, face: type) -> None:
    """The same methods and properties, parameters, defaults and types; no more, and none that is awaited."""
    theirs, ours = members(asynchronous), members(face)
    expected = {WITHOUT_AWAIT.get(member, member) for member in theirs} - sync_face.INNER.get(name, set())
    assert ours.keys() == expected | attributes(asynchronous)
    for member, (kind, function) in theirs.items():
        if member in sync_face.INNER.get(name, set()):
            continue
        our_kind, our_function = ours[WITHOUT_AWAIT.get(member, member)]
        assert our_kind is kind, member
        assert not any(check(our_function) for check in WAITS), member
        if member != "__aexit__":
            assert parameters(our_function) == parameters(function), member
            assert returned(our_function) == returned(function), member
            assert bool(our_function.__doc__) == bool(function.__doc__), member


@pytest.mark.parametrize(("asynchronous", "name", "face"), FACES)
def test_no_docstring_of_a_face_speaks_of_awaiting(asynchronous: type, name: str, face: type) -> None:
    """Its words and examples are of plain functions."""
    texts = [face.__doc__ or "", *(function.__doc__ or "" for _, function in members(face).values())]
    assert [text for text in texts if re.search(r"\basync\b|\bawait\b|asyncio", text)] == []


@pytest.mark.parametrize(
    ("name", "member"), [(name, each) for name, inner in sync_face.INNER.items() for each in sorted(inner)]
)
def test_what_is_left_out_is_there(name: str, member: str) -> None:
    """Nothing is left out of the face that is gone from the asyncio API."""
    window = logstore if name in logstore.__all__ else projections
    assert hasattr(getattr(window, name), member)


def test_the_comparison_sees_what_waits() -> None:
    """What these tests rest on: iterators by annotation, attributes by their assignment."""

    class Example:
        def __init__(self) -> None:
            self.shown: list[int] = []
            self._hidden = 1

        async def steps(self) -> AsyncGenerator[int, None]:
            yield 1

        def __aiter__(self) -> AsyncIterator[int]:
            raise NotImplementedError

        def __iter__(self) -> Iterator[int]:
            raise NotImplementedError

    assert attributes(Example) == {"shown"}
    assert returned(Example.steps) == "Generator[int, None, None]" == returned(Example.__aiter__)


@pytest.mark.parametrize("module", ["logstore", "projections", "projections.cli"])
def test_who_does_not_use_the_face_does_not_load_it(module: str) -> None:
    """Importing the asyncio API starts no thread, and imports no sync face."""
    script = (
        f"import sys, threading, {module}; "
        "ours = {'logstore.sync', 'projections.sync', 'logstore.background'}; "
        "print(ours & set(sys.modules), threading.active_count())"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output == "set() 1\n"


def test_importing_the_face_starts_no_thread() -> None:
    """The loop starts at the first use; and the log's face knows nothing of the read side."""
    script = (
        "import sys, threading, logstore.sync; print(threading.active_count(), 'projections' in sys.modules); "
        "import projections.sync; print(threading.active_count())"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output == "1 False\n1\n"
