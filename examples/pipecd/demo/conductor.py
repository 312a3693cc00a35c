"""Start the demo's processes, kill two of them, wait for the others, and hold the readers against each other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

from examples.pipecd.collections import COMMAND
from examples.pipecd.demo.station import PIPEDS, open_demo_log
from examples.pipecd.models import CommandStatus
from logstore import Log, StoreStatistics
from projections import Documents, DocumentStore
from projections.demo.conductor import require_no_log, statistics_of, sum_of
from projections.demo.history import Commit
from projections.demo.process import DemoProcess

__all__ = ["Outcome", "conduct"]

KILL_AGENT_AT: Final = 1 / 3  # of the commands handled
KILL_OPS_AT: Final = 1 / 2
VICTIM: Final = 1
LOCAL_MS: Final = (2_000, 500)  # creation deadline and idle time, which make the seal time
REMOTE_MS: Final = (3_000, 1_000)
LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened, in numbers. ``queries``: nanoseconds by the query's number."""

    web: dict[str, Any]
    resumed: int
    snapshots: int
    events: int
    queries: dict[int, list[int]]
    requests: dict[str, StoreStatistics]
    readers: dict[str, dict[str, Any]]
    findings: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether all was done once, both readers agree, and nothing is damaged."""
        digests = [reader["digests"] for reader in self.readers.values()]
        done = sum(self.web["deployments"].values()) == self.web["commands"]
        return done and all(each == digests[0] for each in digests) and not self.findings


class _Cast:
    """The demo's processes that are on stage."""

    def __init__(self, config: dict[str, Any], stack: AsyncExitStack) -> None:
        self._config = config
        self._stack = stack
        self._processes: list[DemoProcess] = []

    async def start(self, role: str, **more: Any) -> DemoProcess:
        """Start a process of a role, and let it work."""
        name = " ".join((role, *(str(value) for value in more.values() if isinstance(value, str))))
        process = DemoProcess(f"examples.pipecd.demo.{role}", name, {**self._config, **more})
        await self._stack.enter_async_context(process)
        process.go()
        self._processes.append(process)
        return process

    async def kill(self, process: DemoProcess) -> None:
        """SIGKILL a process, which is not missed."""
        self._processes.remove(process)
        await process.kill()

    def require_none_failed(self) -> None:
        """Raise DemoFailed when a process ended badly of itself: what the others wait for may never come."""
        for process in self._processes:
            process.require_not_failed()


async def conduct(url: str, commits: Sequence[Commit], on_progress: Callable[[int], None]) -> Outcome:
    """Run the demo at ``url``, which must hold no log yet; ``on_progress`` is told how many commands are handled.

    Raises InvalidArgument, DemoFailed, Unavailable.
    """
    deadline_ms, idle_ms = REMOTE_MS if url.startswith("s3:") else LOCAL_MS
    config = {"url": url, "deadline_ms": deadline_ms, "idle_ms": idle_ms}
    await require_no_log(url)
    async with open_demo_log(config) as log, AsyncExitStack() as stack:
        cast = _Cast(config, stack)
        ops = await cast.start("ops")
        agents = [await cast.start("agent", piped=piped) for piped in PIPEDS]
        web = await cast.start("web", commits=[asdict(commit) for commit in commits])
        total = sum(len(commit.applications) for commit in commits)
        async with DocumentStore.open(log, collections=[COMMAND]) as db:
            commands = db.collection("Command")
            await _until_handled(commands, total * KILL_AGENT_AT, on_progress, cast)
            await cast.kill(agents[VICTIM])
            agents[VICTIM] = await cast.start("agent", piped=PIPEDS[VICTIM])
            await _until_handled(commands, total * KILL_OPS_AT, on_progress, cast)
            await cast.kill(ops)
            ops = await cast.start("ops")
            await _until_handled(commands, total, on_progress, cast)
        of_web, of_ops, *of_agents = await asyncio.gather(*(process.report() for process in (web, ops, *agents)))
        readers = {}
        for start in ("newest snapshots", "beginning"):
            reader = await cast.start("reader", **{"from": start})
            readers[start] = await reader.report()
        events = await _count_events(log)
        findings = tuple([str(finding) async for finding in log.check() if finding.severity == "damage"])
        queries: defaultdict[int, list[int]] = defaultdict(list)
        for report in (of_web, of_ops, *of_agents):
            for number, took_ns in report["queries"].items():
                queries[int(number)] += took_ns
        return Outcome(
            web=of_web,
            resumed=sum(report["resumed"] for report in of_agents),
            snapshots=of_ops["snapshots"],
            events=events,
            queries=dict(queries),
            requests={
                "web": statistics_of(of_web["requests"]),
                "3 agents": sum_of([statistics_of(report["requests"]) for report in of_agents]),
                "ops": statistics_of(of_ops["requests"]),
                "2 readers": sum_of([statistics_of(reader["requests"]) for reader in readers.values()]),
            },
            readers=readers,
            findings=findings,
        )


async def _until_handled(
    commands: Documents[Any], count: float, on_progress: Callable[[int], None], cast: _Cast
) -> None:
    """Wait until so many commands are handled."""
    while True:
        cast.require_none_failed()
        handled = commands.count([("status", "!=", int(CommandStatus.NOT_HANDLED_YET))])
        on_progress(handled)
        if handled >= count:
            return
        await asyncio.sleep(LOOK_S)


async def _count_events(log: Log) -> int:
    return sum([len(run.indices) async for run in log.read().runs()])
