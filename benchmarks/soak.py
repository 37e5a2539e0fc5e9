"""Overload an organism, then load it for a long time while its organs are killed: ``python -m benchmarks.soak``.

A first measurement shows the gain of a second process of an organ for CPU-bound work.

Every task has a number, and every agent records the numbers of the tasks that it has done. At the end each task must be
accounted for: it was answered with success and done once, or it was answered with an error and done at most once (not
at all if the answer says so).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import ray

from benchmarks.durable import campaign
from seedcore.config.organism_file import parse_config
from seedcore.core.settings import Settings
from seedcore.deployment.bootstrap import bootstrap
from seedcore.status.http_client import coordinator_status
from tests.support.ray_head import RayHead

ROOT = Path(__file__).parents[1]
TICK_S = 0.02
PING_PAUSE_S = 0.1
ANSWER_TIMEOUT_S = 120.0


class Load:
    """Sends tasks to a Coordinator and accounts for each of them.

    Args:
        settings: Settings of the Coordinator; the process has joined Ray.
        kinds: Task types, taken in turn.
        seconds: Duration of each task.
    """

    def __init__(self, settings: Settings, kinds: list[str], *, seconds: float) -> None:
        self._coordinator = ray.get_actor("seedcore_coordinator", namespace=settings.namespace)
        self._settings = settings
        self._kinds = kinds
        self._seconds = seconds
        self._sent = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.outcomes: dict[str, str] = {}
        self.seconds_to_answer: dict[str, list[float]] = {}
        self.twice = 0

    @property
    def sent(self) -> int:
        """Return the number of tasks sent so far."""
        return self._sent

    def counts(self) -> Counter[str]:
        """Return the number of answers so far by outcome."""
        return Counter(self.outcomes.values())

    async def at_once(self, in_flight: int, duration_s: float) -> float:
        """Keep this many tasks in flight; return the successes per second."""
        end, began, before = time.monotonic() + duration_s, time.monotonic(), self.counts()["success"]

        async def one_after_the_other() -> None:
            while time.monotonic() < end:
                await self._one(self._next())

        await asyncio.gather(*(one_after_the_other() for _ in range(in_flight)))
        return (self.counts()["success"] - before) / (time.monotonic() - began)

    async def at_rate(self, rate: float, duration_s: float, *, every: Callable[[float], None] | None = None) -> float:
        """Send this many tasks per second, regardless of the answers; return the successes per second."""
        began, first, before = time.monotonic(), self._sent, self.counts()["success"]
        while (elapsed := time.monotonic() - began) < duration_s:
            while self._sent - first < elapsed * rate:
                task = asyncio.ensure_future(self._one(self._next()))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            if every is not None:
                every(elapsed)
            await asyncio.sleep(TICK_S)
        return (self.counts()["success"] - before) / (time.monotonic() - began)

    async def settle(self) -> None:
        """Wait until every sent task has its answer."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ANSWER_TIMEOUT_S + 10)

    def _next(self) -> int:
        # Count the task here: the asyncio task starts only in the next iteration of the event loop.
        self._sent += 1
        return self._sent

    async def _one(self, count: int) -> None:
        number = str(count)
        kind = self._kinds[count % len(self._kinds)]
        began = time.monotonic()
        reference: Any = self._coordinator.handle.remote(
            {"type": kind, "id": number, "params": {"seconds": self._seconds}}
        )
        try:
            answer = await asyncio.wait_for(reference, ANSWER_TIMEOUT_S)
        except Exception as error:
            outcome = f"no answer: {type(error).__name__}"
        else:
            outcome = _outcome(answer)
        self.twice += number in self.outcomes
        self.outcomes[number] = outcome
        self.seconds_to_answer.setdefault(outcome, []).append(time.monotonic() - began)


def account(load: Load, done: Counter[str]) -> dict[str, Any]:
    """Compare the answers with the records of the agents; ``faults`` is empty if every task is accounted for."""
    counts = load.counts()
    faults = []
    answered = sum(count for outcome, count in counts.items() if not outcome.startswith("no answer"))
    if answered != load.sent or load.twice:
        faults.append(f"{load.sent} sent, {answered} answered, {load.twice} answered twice: {dict(counts)}")
    for number, outcome in load.outcomes.items():
        times = done[number]
        allowed = {1} if outcome == "success" else {0} if outcome.endswith("executed no") else {0, 1}
        if times not in allowed:
            faults.append(f"task {number} was done {times} times and answered {outcome!r}")
    refused = sum(count for outcome, count in counts.items() if outcome.startswith("OverloadedError"))
    return {
        "sent": load.sent,
        "refused": refused,
        "accepted": load.sent - refused,
        "answered_with_success": counts["success"],
        "failed_with_a_reason": answered - counts["success"] - refused,
        "outcomes": dict(sorted(counts.items())),
        "done_by_agents": sum(done.values()),
        "faults": faults[:20],
    }


def written_down(path: Path) -> Counter[str]:
    """Return how often the agents have done each task."""
    return Counter(path.read_text().split()) if path.exists() else Counter()


async def soak(
    settings: Settings, record: Path, kinds: list[str], *, duration_s: float, kill_every_s: float, peak_s: float = 10.0
) -> dict[str, Any]:
    """Run at 80 % of the organism's capacity and kill a process of an organ repeatedly."""
    load = Load(settings, kinds, seconds=0.01)
    await load.at_once(20, 2.0)
    peak = await load.at_once(50, peak_s)
    killed: list[int] = []

    def kill(elapsed: float) -> None:
        if elapsed < (len(killed) + 1) * kill_every_s:
            return
        organs = coordinator_status(settings, timeout_s=10).get("organs") or []
        pids = [replica["pid"] for organ in organs for replica in organ["replicas"] if replica["state"] == "ready"]
        if pids:
            killed.append(random.choice(pids))  # noqa: S311 - a choice, not a secret
            os.kill(killed[-1], signal.SIGKILL)

    memory = [coordinator_memory(settings)]
    throughput = await load.at_rate(0.8 * peak, duration_s, every=kill)
    await load.settle()
    memory.append(coordinator_memory(settings))
    figures = account(load, written_down(record))
    return {
        "peak_per_s": round(peak, 1),
        "load_per_s": round(0.8 * peak, 1),
        "success_per_s": round(throughput, 1),
        "seconds": duration_s,
        "kills": len(killed),
        **figures,
        "coordinator_mb": memory,
    }


async def overload(
    settings: Settings,
    record: Path,
    kinds: list[str],
    *,
    duration_s: float,
    seconds: float,
    places: int,
    times: float,
) -> dict[str, Any]:
    """Send many times the organism's capacity; measure refusals, ping and status latency, and remaining throughput."""
    load = Load(settings, kinds, seconds=seconds)
    coordinator = ray.get_actor("seedcore_coordinator", namespace=settings.namespace)
    peak = await load.at_once(places, duration_s / 2)
    memory = [coordinator_memory(settings)]
    pings: list[float] = []
    states: list[float] = []

    async def ask() -> None:
        while True:
            began = time.monotonic()
            await coordinator.ping.remote()
            pings.append(time.monotonic() - began)
            began = time.monotonic()
            await asyncio.to_thread(coordinator_status, settings, timeout_s=10)
            states.append(time.monotonic() - began)
            await asyncio.sleep(PING_PAUSE_S)

    asking = asyncio.create_task(ask())
    throughput = await load.at_rate(times * peak, duration_s)
    asking.cancel()
    memory.append(coordinator_memory(settings))
    await load.settle()
    refusals = [each for name, found in load.seconds_to_answer.items() if "Overloaded" in name for each in found]
    return {
        "peak_per_s": round(peak, 1),
        "load_per_s": round(times * peak, 1),
        "success_per_s": round(throughput, 1),
        "success_of_peak": round(throughput / peak, 3),
        "refusal_ms": _quantiles(refusals),
        "success_ms": _quantiles(load.seconds_to_answer.get("success", [])),
        "ping_ms": _quantiles(pings),
        "status_ms": _quantiles(states),
        **account(load, written_down(record)),
        "coordinator_mb": memory,
    }


def cores(settings: Settings, *, rounds: int = 5, tasks: int = 8, steps: int = 3_000_000) -> dict[str, Any]:
    """Compare the time of the same sync work by two agents in one process and by two in separate processes."""
    coordinator = ray.get_actor("seedcore_coordinator", namespace=settings.namespace)

    def took(kind: str) -> float:
        began = time.monotonic()
        task = {"type": kind, "params": {"steps": steps}}
        answers: list[dict[str, Any]] = ray.get([coordinator.handle.remote(task) for _ in range(tasks)], timeout=300)
        if not all(answer["success"] for answer in answers):
            raise SystemExit(str(answers))
        return time.monotonic() - began

    took("burn_in_two")
    ratios = [took("burn_in_one") / took("burn_in_two") for _ in range(rounds)]
    return {"cores": os.cpu_count(), "speed_up": round(statistics.median(ratios), 2), "rounds": ratios, "faults": []}


def coordinator_memory(settings: Settings) -> float:
    """Return the resident memory of the Coordinator's process in MB."""
    pid = coordinator_status(settings, timeout_s=10)["pid"]
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    (line,) = [line for line in text.splitlines() if line.startswith("VmRSS:")]
    return round(int(line.split()[1]) / 1024, 1)


def organism_file(record: Path, *, queue_limit: int) -> bytes:
    """Return an organism.yaml with two organs, one of them with two processes, whose agents record the tasks done.

    Two more organs are for :func:`cores`.
    """
    agent = {"type": "Soak", "agent": "helpers:Counts", "options": {"path": str(record)}, "queue_limit": queue_limit}
    organs: list[dict[str, Any]] = [
        {"id": "pair", "agent_count": 4, "replicas": 2, "task_types": ["pair"], **agent},
        {"id": "single", "agent_count": 2, "task_types": ["single"], **agent},
    ]
    burn = {"type": "Soak", "agent": "helpers:burn", "agent_count": 2}
    organs += [
        {"id": "burn_1", "task_types": ["burn_in_one"], **burn},
        {"id": "burn_2", "task_types": ["burn_in_two"], "replicas": 2, **burn},
    ]
    return json.dumps({"seedcore": {"organism": {"organ_types": organs}}}).encode()


def _outcome(answer: dict[str, Any]) -> str:
    if answer.get("success") is True:
        return "success"
    return f"{answer['error_type']}, executed {answer['executed']}"


def _quantiles(values: list[float]) -> dict[str, float]:
    if len(values) < 2:  # noqa: PLR2004 - what quantiles wants
        return {}
    cut = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(1000 * cut[49], 1), "p99": round(1000 * cut[98], 1), "max": round(1000 * max(values), 1)}


def measure(minutes: float, kill_every_s: float) -> bool:
    """Start an organism on the cluster of the environment and print the figures; return True without faults."""
    settings = Settings.from_env()
    with tempfile.TemporaryDirectory() as directory:
        record = Path(directory) / "done"
        ray.init(namespace=settings.namespace, log_to_driver=False, logging_level=logging.ERROR)
        outcome = bootstrap(settings, parse_config(organism_file(record, queue_limit=20)), wait_timeout_s=300)
        if not outcome.report.healthy:
            raise SystemExit(outcome.report.message)
        figures = {"cores": cores(settings)}
        flood = overload(settings, record, ["pair", "single"], duration_s=20, seconds=0.1, places=6, times=10)
        figures["overload"] = asyncio.run(flood)
        record.unlink()
        long = soak(settings, record, ["pair", "single"], duration_s=60 * minutes, kill_every_s=kill_every_s)
        figures["soak"] = asyncio.run(long)
    print(json.dumps(figures, indent=2))
    return not any(part["faults"] for part in figures.values())


@click.command()
@click.option("--minutes", type=click.FloatRange(0.1, 600), default=10.0, show_default=True)
@click.option("--kill-every", type=click.FloatRange(1, 600), default=20.0, show_default=True, help="Seconds.")
@click.option("--durable", is_flag=True, help="Test durable tasks instead, on each store, under many kinds of faults.")
@click.option("--store", type=click.Choice(campaign.STORES), multiple=True, help="With --durable. [default: all]")
@click.option("--seed", type=int, default=None, help="With --durable: draws the faults. [default: at random]")
@click.option("--inside", is_flag=True, hidden=True)
def main(
    *, minutes: float, kill_every: float, durable: bool, store: tuple[str, ...], seed: int | None, inside: bool
) -> None:
    """Overload an organism, then soak it; exit with 1 unless every single task is accounted for."""
    if durable:
        chosen = random.randrange(1_000_000) if seed is None else seed  # noqa: S311 - a choice, not a secret
        passed = [campaign.run(one, minutes=minutes, seed=chosen) for one in store or campaign.STORES]
        sys.exit(0 if all(passed) else 1)
    if inside:
        sys.exit(0 if measure(minutes, kill_every) else 1)
    os.environ["PYTHONPATH"] = str(ROOT)
    head = RayHead()
    try:
        head.start()
        # A separate driver process: Ray reads its token's path at import, and the path exists only now.
        command = [
            sys.executable,
            "-m",
            "benchmarks.soak",
            "--inside",
            f"--minutes={minutes}",
            f"--kill-every={kill_every}",
        ]
        code = subprocess.run(command, env=head.env(), cwd=ROOT, check=False).returncode  # noqa: S603 - ours
    finally:
        head.close()
    sys.exit(code)


if __name__ == "__main__":
    main()
