"""What the shop windows show exists, explains itself, and agrees with the errors page."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest

import logstore
import logstore.errors
import logstore.sync
import logstore.testing
import projections
import projections.sync
import projections.testing

WINDOWS = (logstore, logstore.sync, logstore.testing, projections, projections.sync, projections.testing)


def shown(window: ModuleType) -> list[str]:
    """Return the names a window shows."""
    return list(getattr(window, "__all__", ()))


def public_members(cls: type) -> Iterator[tuple[str, object]]:
    """Yield the public methods and properties a class defines itself."""
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
            yield name, getattr(cls, name)


def documented(thing: object) -> bool:
    """Whether there is a docstring that somebody wrote: not inherited from object, not a dataclass's signature."""
    text = inspect.getdoc(thing) if not inspect.isclass(thing) else thing.__doc__
    return bool(text) and not (inspect.isclass(thing) and str(text).startswith(f"{thing.__name__}("))


NAMES = [pytest.param(window, name, id=f"{window.__name__}.{name}") for window in WINDOWS for name in shown(window)]


def test_the_window_of_logstore_shows_something() -> None:
    """The tests below are about names in ``__all__``: there are some."""
    assert "open" in logstore.__all__


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.__name__)
def test_a_window_shows_a_name_once(window: ModuleType) -> None:
    """``__all__`` lists no name twice, and nothing private."""
    names = shown(window)
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("_") and name != "__version__"]


@pytest.mark.parametrize(("window", "name"), NAMES)
def test_every_shown_name_exists_and_is_documented(window: ModuleType, name: str) -> None:
    """Classes, functions and modules carry a docstring; classes say so for each public method and property."""
    thing = getattr(window, name)
    if inspect.isclass(thing):
        assert documented(thing)
        assert not [member for member, value in public_members(thing) if not documented(value)]
    elif inspect.isroutine(thing) or inspect.ismodule(thing):
        assert documented(thing)


@pytest.mark.parametrize("name", logstore.errors.__all__)
def test_every_error_is_shown_and_under_one_base(name: str) -> None:
    """``except LogStoreError`` catches them all, and all are reached through ``logstore``."""
    error = getattr(logstore.errors, name)
    assert issubclass(error, logstore.errors.LogStoreError)
    assert getattr(logstore, name) is error
    assert name in logstore.__all__


def test_no_error_hides_outside_the_errors_page() -> None:
    """Every exception that errors.py defines is in its ``__all__``."""
    defined = {
        name for name, thing in vars(logstore.errors).items() if inspect.isclass(thing) and issubclass(thing, Exception)
    }
    assert defined == set(logstore.errors.__all__)
