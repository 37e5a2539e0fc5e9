"""Measure tasks (through the Coordinator, directly, in batches) against raw Ray calls and against Ray Serve."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from benchmarks import raw
from benchmarks.organism import ECHO, running
from benchmarks.timing import Round, Row, cpu_us, gathered, median_ms, median_ms_async, pipelined
from seedcore.client import AsyncClient, Client
from seedcore.core.settings import Settings

TASK = {"type": "echo", "params": {"x": 1}}
TWO_HOPS = "raw async actor -> async actor"
ONE_CALL = "one raw async actor call"
SERVE = "Ray Serve handle, same work"


@dataclass(frozen=True, slots=True)
class Contestants:
    """The callables under test, ours and those that they are compared with."""

    loop: asyncio.AbstractEventLoop
    client: Client
    asynchronous: AsyncClient
    coordinator: Any
    relay: Any
    echo: Any
    serve: Any

    def throughput(self, calls: int) -> Round:
        """Return a round that measures tasks per second with all of them in flight at once."""

        def run(call: Callable[[], Awaitable[Any]]) -> float:
            return self.loop.run_until_complete(gathered(call, calls))

        def many() -> float:
            answers = self.client.submit_many(TASK for _ in range(calls))
            if not all(answer["success"] for answer in answers):
                raise RuntimeError("a task failed")
            return 0.0

        def served() -> None:
            for response in [self.serve.remote(TASK) for _ in range(calls)]:
                response.result(timeout_s=120)

        return Round(
            {
                "handle": lambda: pipelined(lambda: self.coordinator.handle.remote(TASK), calls),
                "two hops": lambda: pipelined(lambda: self.relay.echo.remote(TASK), calls),
                "submit": lambda: run(lambda: self.asynchronous.submit(TASK)),
                "one call, awaited": lambda: run(lambda: _awaited(self.echo.echo.remote(TASK))),
                "submit_many": lambda: 1000 * calls / median_ms(many, 1),
                "one call": lambda: pipelined(lambda: self.echo.echo.remote(TASK), calls),
                "serve": lambda: 1000 * calls / median_ms(served, 1),
            }
        )

    def cost(self, calls: int) -> Round:
        """Return a round that measures CPU microseconds per task, summed over all processes involved."""
        me = os.getpid()
        status = self.client.status()
        (organ,) = [replica["pid"] for organ in status["organs"] for replica in organ["replicas"]]
        echo, relay = ray.get([self.echo.pids.remote(), self.relay.pids.remote()], timeout=60)
        run = self.throughput(calls).contestants
        pids = {
            "handle": [me, status["pid"], organ],
            "two hops": [me, *relay],
            "submit_many": [me, organ],
            "one call": [me, *echo],
        }
        return Round({name: partial(cpu_us, run[name], calls, members) for name, members in pids.items()})

    def latency(self, alone: int) -> Round:
        """Return a round that measures the median milliseconds of sequential calls."""

        def run(call: Callable[[], Awaitable[Any]]) -> float:
            return self.loop.run_until_complete(median_ms_async(call, alone))

        return Round(
            {
                "handle": lambda: median_ms(lambda: ray.get(self.coordinator.handle.remote(TASK)), alone),
                "two hops": lambda: median_ms(lambda: ray.get(self.relay.echo.remote(TASK)), alone),
                "submit": lambda: median_ms(lambda: self.client.submit(TASK), alone),
                "one call": lambda: median_ms(lambda: ray.get(self.echo.echo.remote(TASK)), alone),
                "submit, awaited": lambda: run(lambda: self.asynchronous.submit(TASK)),
                "one call, awaited": lambda: run(lambda: _awaited(self.echo.echo.remote(TASK))),
                "serve": lambda: median_ms(lambda: self.serve.remote(TASK).result(timeout_s=60), alone),
            }
        )


def measure(*, rounds: int, quick: bool) -> list[Row]:
    """Measure throughput and latency of single tasks and of many."""
    calls, alone = (200, 50) if quick else (1000, 200)
    with running("bench-calls", ECHO) as (settings, _), _contestants(settings) as contestants:
        if not contestants.client.submit(TASK)["success"]:
            raise RuntimeError("the organism does not answer")
        throughput, latency = contestants.throughput(calls), contestants.latency(alone)
        cost = contestants.cost(calls)
        for contest in (throughput, latency, cost):
            contest.run(1)
            for values in contest.values.values():
                values.clear()  # the first round makes connections and warms caches
            contest.run(rounds)
    return [*_throughput_rows(throughput), *_latency_rows(latency), *_cost_rows(cost)]


@contextmanager
def _contestants(settings: Settings) -> Iterator[Contestants]:
    relay, echo = raw.bare_actor(raw.Relay), raw.bare_actor(raw.Echo)
    loop = asyncio.new_event_loop()
    with Client(settings) as client:
        asynchronous: AsyncClient = loop.run_until_complete(_async_client(settings))
        try:
            yield Contestants(
                loop=loop,
                client=client,
                asynchronous=asynchronous,
                coordinator=ray.get_actor("seedcore_coordinator", namespace=settings.namespace),
                relay=relay,
                echo=echo,
                serve=raw.serve_handle(),
            )
        finally:
            loop.run_until_complete(asynchronous.close())
            loop.close()
            raw.serve_shutdown()
            ray.kill(relay)
            ray.kill(echo)


async def _async_client(settings: Settings) -> AsyncClient:
    return AsyncClient(settings)


async def _awaited(reference: Awaitable[Any]) -> Any:
    return await reference


def _throughput_rows(contest: Round) -> list[Row]:
    together = "tasks that come up together travel as one call"
    handle, submit = "Coordinator.handle, pipelined", "AsyncClient.submit direct, pipelined"
    many = "Client.submit_many of 1,000 small tasks"
    return [
        contest.row(what, ours, theirs, against=against, goal=goal, unit="tasks/s", note=note)
        for what, ours, theirs, against, goal, note in [
            (handle, "handle", "two hops", TWO_HOPS, ">= 0.9", together),
            (submit, "submit", "one call, awaited", ONE_CALL, ">= 0.9", together),
            (many, "submit_many", "one call", f"{ONE_CALL}, pipelined", ">= 10", ""),
            (handle, "handle", "serve", SERVE, ">= 3", ""),
            (submit, "submit", "serve", SERVE, ">= 3", ""),
            (many, "submit_many", "serve", SERVE, ">= 3", ""),
        ]
    ]


def _latency_rows(contest: Round) -> list[Row]:
    return [
        contest.row(what, ours, theirs, against=against, goal=goal, unit="ms")
        for what, ours, theirs, against, goal in [
            ("Coordinator.handle, p50", "handle", "two hops", TWO_HOPS, "<= 1.15"),
            ("Client.submit direct, p50", "submit", "one call", ONE_CALL, "<= 1.15"),
            (
                "AsyncClient.submit direct, p50",
                "submit, awaited",
                "one call, awaited",
                f"{ONE_CALL}, awaited",
                "<= 1.15",
            ),
            ("Coordinator.handle, p50", "handle", "serve", SERVE, ""),
            ("Client.submit direct, p50", "submit", "serve", SERVE, ""),
        ]
    ]


def _cost_rows(contest: Round) -> list[Row]:
    return [
        contest.row(what, ours, theirs, against=against, goal="", unit="us", note="all processes together")
        for what, ours, theirs, against in [
            ("Coordinator.handle, pipelined: CPU per task", "handle", "two hops", TWO_HOPS),
            ("Client.submit_many: CPU per task", "submit_many", "one call", f"{ONE_CALL}, pipelined"),
        ]
    ]
