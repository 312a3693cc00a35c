"""The property that every target has.

Decoding an input returns what it means, or raises an error of the target's, and nothing else. What it returned can be
written again, and means the same then; where the format knows one form only, it is the same again. An error is one line
that a terminal can show and that names what was decoded. Neither takes more memory than the target allows.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from logstore.errors import LogStoreError

__all__ = ["Found", "Target", "judge"]

MESSAGE_MAX: Final = 4_000
SECONDS_MAX: Final = 5.0  # of the processor's time: what takes longer grows faster than its input


class Found(AssertionError):
    """A target does not have the property."""


@dataclass(frozen=True)
class Target:
    """A decoder, and what is asked of it.

    ``inputs``: strategies; those of the first only are good. ``again``: what was decoded, written anew; None: it cannot
    be. ``same``: what of a value must survive that. ``exact``: only the input itself has this meaning. ``named``: what
    an error must name. ``allowance``: how many bytes of memory decoding may take.
    """

    name: str
    inputs: tuple[st.SearchStrategy[Any], ...]
    decode: Callable[[Any], Any]
    errors: tuple[type[LogStoreError], ...]
    allowance: Callable[[Any], int]
    again: Callable[[Any, Any], Any] | None = None
    same: Callable[[Any], Any] = lambda value: value
    exact: bool = False
    named: Callable[[Any], str] = lambda _: ""

    @property
    def good(self) -> st.SearchStrategy[Any]:
        """Inputs that are decoded."""
        return self.inputs[0]

    @property
    def any(self) -> st.SearchStrategy[Any]:
        """Inputs of all kinds."""
        return st.one_of(*self.inputs[1:], self.inputs[0])


def judge(target: Target, given: Any) -> bool:
    """Return whether ``given`` was decoded. Raises Found, which says what is wrong with the target."""
    try:
        with _within(target, given):
            value = target.decode(given)
    except target.errors as error:
        _judge_message(target, given, str(error))
        return False
    except Found:
        raise
    except Exception as error:
        raise Found(f"{target.name}: {type(error).__name__} leaks for {_shown(given)}") from error
    if target.again is None:
        return True
    try:
        again = target.again(value, given)
        back = target.decode(again)
    except Exception as error:
        raise Found(f"{target.name}: what was read is not written and read again, of {_shown(given)}") from error
    if not _equal(target.same(back), target.same(value)):
        raise Found(f"{target.name}: means something else once written again: {_shown(given)}")
    if target.exact and again != given:
        raise Found(f"{target.name}: a second form of {_shown(again)}: {_shown(given)}")
    return True


@contextmanager
def _within(target: Target, given: Any) -> Iterator[None]:
    """Measure; an error from within counts only if the measure was kept."""
    allowed, began_s = target.allowance(given), time.process_time()
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > allowed:
            raise Found(f"{target.name}: takes {peak:,} bytes, not {allowed:,}, for {_shown(given)}")
        if (took_s := time.process_time() - began_s) > SECONDS_MAX:
            raise Found(f"{target.name}: takes {took_s:.1f} s for {_shown(given)}")


def _judge_message(target: Target, given: Any, message: str) -> None:
    if len(message.splitlines()) != 1 or len(message) > MESSAGE_MAX:
        raise Found(f"{target.name}: an error is not one line: {message[:400]!r} for {_shown(given)}")
    try:
        message.encode()
    except UnicodeEncodeError as error:
        raise Found(f"{target.name}: an error that no terminal shows: {message!r:.400} for {_shown(given)}") from error
    if target.named(given) not in message:
        raise Found(f"{target.name}: an error does not name {target.named(given)!r}: {message!r:.400}")


def _equal(one: Any, other: Any) -> bool:
    """Equality for which NaN is NaN, and 1 is neither True nor 1.0."""
    return bool(one == other) or repr(one) == repr(other)


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 2_000 else f"{text[:1_000]} … {text[-900:]} ({len(text):,} characters)"
