"""Measure what a reload costs clients that send tasks meanwhile by plain HTTP, at a steady rate, without retries."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from benchmarks.organism import ECHO, running
from benchmarks.timing import Row
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.deployment.bootstrap import bootstrap

TASKS = 10_000
PER_SECOND = 50.0
TASK = {"type": "echo", "params": {"x": 1}}
PAUSE_S = 3.0


@dataclass
class Load:
    """The sent tasks: the milliseconds that each took, and the errors of those that failed."""

    took_ms: list[float] = field(default_factory=list)
    failed: list[Any] = field(default_factory=list)


def measure(*, rounds: int, quick: bool) -> list[Row]:
    """Measure the same load without and with reloads."""
    del rounds  # the number of tasks makes the figure, not the number of rounds
    count = TASKS // 20 if quick else TASKS
    with running("bench-reload", {**ECHO, "agent_count": 2}) as (settings, _):
        return asyncio.run(_measure(settings, count))


async def _measure(settings: Settings, count: int) -> list[Row]:
    idle = await _load(settings, count // 5)
    async with _reloading(settings) as reloads:
        busy = await _load(settings, count)
    p99 = [statistics.quantiles(load.took_ms, n=100)[98] for load in (busy, idle)]
    what = f"{count:,} tasks by plain HTTP, {PER_SECOND:g} a second, organs replaced {reloads()} times"
    return [
        Row(
            what=f"{what}: failed",
            against="none",
            ratios=[float(len(busy.failed))],
            goal="<= 0",
            ours=float(len(busy.failed)),
            theirs=0.0,
            unit="tasks",
            note=str(busy.failed[:3]) if busy.failed else "no retry anywhere",
        ),
        Row(
            what=f"{what}: p99",
            against="the same without a reload",
            ratios=[p99[0] / p99[1]],
            goal="<= 2",
            ours=p99[0],
            theirs=p99[1],
            unit="ms",
        ),
    ]


@asynccontextmanager
async def _reloading(settings: Settings) -> AsyncIterator[Callable[[], int]]:
    """Reload the organism repeatedly for the duration of the block; yield a function that returns the count."""
    done = 0
    organs = itertools.cycle(_variations())

    async def reload() -> None:
        nonlocal done
        while True:
            spec = OrganismSpec(organs=(next(organs),))
            outcome = await asyncio.to_thread(bootstrap, settings, spec, wait_timeout_s=120, retries=0)
            if not outcome.report.healthy or outcome.action != "reload":
                raise RuntimeError(f"{outcome.action}: {outcome.report.message}")
            done += 1
            await asyncio.sleep(PAUSE_S)

    def count() -> int:
        if task.done() and not task.cancelled():
            task.result()
        return done

    task = asyncio.create_task(reload())
    try:
        yield count
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _variations() -> Iterator[OrganSpec]:
    """Yield organs with more agents, with a new code revision (as ``seedcore dev`` sets it), and with fewer agents."""
    base = OrganSpec.from_dict(ECHO)
    yield replace(base, agent_count=3, min_ready_agents=3)
    yield replace(base, agent_count=3, min_ready_agents=3, revision="other code")
    yield replace(base, agent_count=2, min_ready_agents=2)


async def _load(settings: Settings, count: int) -> Load:
    """Send tasks at a steady rate, regardless of the answers, as independent callers do."""
    load = Load()
    headers = {"Authorization": f"Bearer {settings.token()}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=settings.http_url, headers=headers, limits=limits, timeout=60) as client:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                await asyncio.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
                group.create_task(_one(client, load))
    return load


async def _one(client: httpx.AsyncClient, load: Load) -> None:
    began = time.perf_counter()
    try:
        answer = (await client.post("/coordinator/tasks", json=TASK)).json()
    except httpx.HTTPError as error:
        answer = {"success": False, "error": f"{type(error).__name__}: {error}"}
    load.took_ms.append((time.perf_counter() - began) * 1000)
    if answer.get("success") is not True:
        load.failed.append(answer)
