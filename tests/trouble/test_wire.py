"""The wire and the verdict, without a service: they do what they say, and would notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from logstore import RetrySettings
from tests.trouble.ledger import Ledger, Name
from tests.trouble.verdict import broken, fold, judge
from tests.trouble.wire import FAIR, Weather, opened_wire

A, B, C = Name(0, 0, 0), Name(0, 0, 1), Name(1, 0, 0)


@dataclass
class Echo:
    """A service that says what it is told, and remembers it."""

    url: str = ""
    heard: bytes = b""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1_000):
                self.heard += data
                writer.write(data)
                await writer.drain()
        writer.close()
        self.ended.set()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield echo
    server.close()


@pytest.mark.parametrize(
    ("fate", "weather", "heard", "said"),
    [
        ("pass", FAIR, b"0123456789", b"0123456789"),
        ("delay", Weather(delay=1.0, delay_s_max=0.001), b"0123456789", b"0123456789"),
        ("truncate", Weather(truncate=1.0), b"01234", b""),
        ("cut", Weather(cut=1.0), b"", b""),
        ("silence", Weather(silence=1.0), b"", b""),
    ],
)
async def test_each_fate_is_what_it_is_called(
    echo: Echo, fate: str, weather: Weather, heard: bytes, said: bytes
) -> None:
    """Bytes pass, late or not; half of them do; the connection breaks before them; or it stays, and none comes."""
    async with opened_wire(echo.url, seed=0) as wire:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(wire.url.rpartition(":")[2]))
        wire.weather = weather
        writer.write(b"0123456789")
        await wire.met(fate)
        if fate == "silence":
            for _ in range(1_000):
                await asyncio.sleep(0)  # what had been let through would be there by now
            assert (echo.heard, reader.at_eof()) == (b"", False)
            wire.break_all()
        answer = b""
        with suppress(ConnectionError):
            answer = await reader.read(10)
        writer.close()
        await echo.ended.wait()
    assert (echo.heard, answer) == (heard, said)
    assert wire.fates.keys() == {fate}


def judged(**changes: Any) -> list[str]:
    """What is broken in a run that went well, but for the changes."""
    ledger = Ledger(acknowledged={A, B}, refused=set(), followed=Counter([A, B, C]))
    ledger.seats, ledger.counted = {"s": ["one"]}, Counter(yes=2, perhaps=1)
    for name in [name for name in changes if hasattr(ledger, name)]:
        setattr(ledger, name, changes.pop(name))
    given: dict[str, Any] = {
        "read": [A, B, C],
        "settled": [A, B, C],
        "views": {"view": fold([A, B, C])},
        "seats": {"s": "one"},
        "counter": 3,
        "damage": [],
        "retry": RetrySettings(),
        "within_s": 60.0,
    }
    return broken(judge(ledger, **given | changes))


@pytest.mark.parametrize(
    ("changes", "promise"),
    [
        ({"read": [B, C], "settled": [B, C], "views": {}}, "exactly once"),
        ({"read": [A, B, B, C], "settled": [A, B, B, C], "views": {}}, "exactly once"),
        ({"read": [B, A, C], "settled": [B, A, C], "views": {}}, "in its order"),
        ({"refused": {C}}, "not stored is not there"),
        ({"unknown": {C: "token"}}, "every unknown"),
        ({"settled": [A, C, B]}, "settled order"),
        ({"views": {"view": fold([A, C])}}, "a fold of the log"),
        ({"followed": Counter([A, A, B, C])}, "sees each event once"),
        ({"followed": Counter([A, B])}, "sees each event once"),
        ({"seats": {"s": ["one", "two"]}}, "one winner"),
        ({"counter": 1}, "a counter"),
        ({"counter": 4}, "a counter"),
        ({"damage": ["a slot is gone"]}, "no damage"),
        ({"errors": Counter({"append: KeyError": 1})}, "errors are ours"),
        ({"messages": {"append": ["no"]}}, "say the next step"),
        ({"messages": {"append": ["gave up verb=get key=k attempts=99 spent_ms=1; last: no"]}}, "bounded"),
        ({"longest_s": 61.0}, "nothing hangs"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_the_verdict_notices(changes: dict[str, Any], promise: str) -> None:
    """A promise that is broken is named, and none is where all was kept."""
    assert judged() == []
    assert any(promise in each for each in judged(**changes))


def test_a_view_that_folded_out_of_order_differs() -> None:
    """The rows by which views are compared depend on the order of their events, and on how often each came."""
    assert fold([A, B]) != fold([B, A])
    assert fold([A, B]) != fold([A, A, B])
