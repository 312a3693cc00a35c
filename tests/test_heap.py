"""What lives long is kept from the collector; what nobody refers to is freed all the same."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress

import pytest

import logstore
import projections.table
from logstore import Event
from logstore.filestore import MemoryStore
from projections import Index, Projection, View
from projections.heap import built_to_stay


class Things(Projection):
    name, kinds, fold = "things", frozenset({"Thing"}), "put"
    indexes = (Index("size"),)


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(*, enabled: bool) -> None:
    """On or off, and when what is built fails, too; then nothing is frozen."""
    was_enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    (gc.enable if enabled else gc.disable)()
    try:
        with suppress(KeyError), built_to_stay():
            assert not gc.isenabled()
            raise KeyError
        assert (gc.isenabled(), gc.get_freeze_count()) == (enabled, frozen)
        with built_to_stay():
            kept: list[object] = [[]]
        assert gc.isenabled() == enabled
        assert gc.get_freeze_count() > frozen
        assert all(tracked is not kept for tracked in gc.get_objects())
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_what_is_garbage_is_not_frozen() -> None:
    """A cycle that nobody refers to would stay for good."""
    garbage = weakref.ref(Cycle())
    with built_to_stay():
        pass
    assert garbage() is None


@pytest.mark.parametrize("follow", [True, False])
async def test_a_view_that_is_let_go_is_freed(monkeypatch: pytest.MonkeyPatch, *, follow: bool) -> None:
    """Its indexes are frozen, but in no cycle; so reloading views does not fill the memory."""
    monkeypatch.setattr(projections.table, "MANY_ROWS", 1)
    async with logstore.open(MemoryStore()) as log, log.writer("w") as writer:
        await writer.append_many([Event("Thing", f"t-{n}", "made", {"size": n}) for n in range(10)])
        async with View.open(log, Things(), follow=follow) as view:
            assert view.find([("size", ">", 7)]).keys == ["t-8", "t-9"]
            assert view._indexes is not None
            freed: list[weakref.ref[object]] = [weakref.ref(each) for each in (view, view._indexes[0], view._state)]
        del view
    gc.collect()
    assert [reference() for reference in freed] == [None] * 3
