"""Reading: total order, exact settled flags, positions that resume exactly, damage that is named and never passed over."""

from __future__ import annotations

import asyncio

from tests.scene import Gate, Scene, directed, event, moved_by, read


@directed
async def test_an_event_below_an_entry_taken_before_is_settled_without_another_entry(scene: Scene) -> None:
    """A slot that was absent when a later tick was taken in is settled as soon as it is there: the tick counts still."""
    web, other = scene.machine("web"), scene.machine("other")
    async with web.open() as log, log.writer("web") as writer, other.open() as other_log:
        first = await writer.append(event("a"))
        gate = Gate()
        web.script.on("create", "log/", gate.before)
        call = asyncio.create_task(writer.append(event("b")))
        await gate.met()
        await other_log.settled(first, timeout=5)
        reader = other_log.read(settled=True)
        assert [each.key async for each in reader] == ["a"]
        position = moved_by(reader.position)
        gate.open()
        tick = scene.roster()[-1]
        assert (await call).last_stamp < tick.stamp
        assert await read(other_log, after=position, settled=True) == ["b"]
        assert [each.settled async for each in other_log.read()] == [True, True]
