"""What SeedCore adds to raw Ray. Prints ratios only: these hold when the machine's speed drifts, seconds do not.

Each pair runs interleaved on the same cluster, in rounds; the figure is the median of the rounds' ratios.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from seedcore.bootstrap import bootstrap
from seedcore.client import Client
from seedcore.config import load_config
from seedcore.settings import Settings
from seedcore.status import probe

CONFIG = """
seedcore:
  organism:
    organ_types:
      - {id: echo, type: Benchmark, agent: "benchmarks.agents:echo", task_types: [echo], max_concurrency: 200}
"""


class Inner:
    """The second hop of the raw pair."""

    async def echo(self, task: dict[str, Any]) -> dict[str, Any]:
        """Give the task back."""
        return task


class Outer:
    """The first hop of the raw pair: what a Coordinator would be without anything in it."""

    async def __init__(self) -> None:  # type: ignore[misc]  # an async __init__ is Ray's idea
        remote: Any = ray.remote
        self.inner = remote(Inner).options(num_cpus=0.1).remote()

    async def echo(self, task: dict[str, Any]) -> dict[str, Any]:
        """Ask the second hop."""
        answer: dict[str, Any] = await self.inner.echo.remote(task)
        return answer


def pipelined(call: Callable[[], Any], count: int) -> float:
    """Seconds per call with all calls under way at once."""
    started = time.perf_counter()
    ray.get([call() for _ in range(count)], timeout=120)
    return (time.perf_counter() - started) / count


def one_by_one(call: Callable[[], Any], count: int) -> float:
    """Median seconds of a call that waits for its answer."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        ray.get(call(), timeout=60)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def ratio(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> float:
    """Median over rounds of ours / theirs; who goes first alternates."""
    found = []
    for index in range(rounds):
        if index % 2:
            other, own = theirs(), ours()
        else:
            own, other = ours(), theirs()
        found.append(own / other)
    return statistics.median(found)


def measure(*, rounds: int, calls: int) -> None:
    """Bring an organism up on the cluster of the environment, measure, and print the table."""
    settings = Settings.from_env()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CONFIG)
        file.flush()
        outcome = bootstrap(settings, load_config(Path(file.name)))
    if not outcome.report.healthy:
        raise SystemExit(outcome.report.message)
    ray.init(namespace=settings.namespace, log_to_driver=False, logging_level=logging.ERROR)
    remote: Any = ray.remote
    raw = remote(Outer).options(num_cpus=0.1).remote()
    coordinator = ray.get_actor("seedcore_coordinator", namespace=settings.namespace)
    task = {"type": "echo", "params": {"x": 1}}
    if not Client(settings).submit(task)["success"]:
        raise SystemExit("the organism does not answer")

    def handle() -> Any:
        return coordinator.handle.remote(task)

    def hops() -> Any:
        return raw.echo.remote(task)

    rows = [
        ("Coordinator.handle, calls/s pipelined", "async actor -> async actor",
         1 / ratio(lambda: pipelined(handle, calls), lambda: pipelined(hops, calls), rounds), ">= 0.9"),
        ("Coordinator.handle, p50", "async actor -> async actor",
         ratio(lambda: one_by_one(handle, 100), lambda: one_by_one(hops, 100), rounds), "<= 1.15"),
        ("probe(), p50", "one Coordinator.get_status call",
         ratio(lambda: median_of(lambda: probe(settings)),
               lambda: one_by_one(coordinator.get_status.remote, 20), rounds), ""),
    ]  # fmt: skip
    print(f"{'what':<40} {'against':<34} {'ratio':>6}  goal")
    for what, against, value, goal in rows:
        print(f"{what:<40} {against:<34} {value:>6.2f}  {goal}")


def median_of(function: Callable[[], Any], count: int = 20) -> float:
    """Median seconds of a plain call."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    measure(rounds=int(sys.argv[1]), calls=int(sys.argv[2]))
