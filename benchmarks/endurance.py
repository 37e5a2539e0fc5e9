"""Measure the Coordinator under load: the latency of its status, and its memory after a million tasks."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import ray

from benchmarks.organism import ECHO, memory_mb, running
from benchmarks.timing import Round, Row, median_ms, pipelined
from seedcore.core.settings import Settings
from seedcore.status.http_client import request

TASK = {"type": "echo", "params": {"x": 1}}
LOAD = 0.8
# Two batches are in flight at a time; the Coordinator accepts at most 2,000 tasks at once.
BATCH = 500
FEW = 10_000
MANY = 1_000_000

# Sends at a steady rate, regardless of the answers, as independent callers do.
GENERATOR = """
import logging, os, sys, time, ray
rate, namespace = float(sys.argv[1]), sys.argv[2]
ray.init(address=os.environ["RAY_ADDRESS"], namespace=namespace, logging_level=logging.ERROR, log_to_driver=False)
coordinator = ray.get_actor("seedcore_coordinator")
task = {"type": "echo", "params": {"x": 1}}
ray.get(coordinator.handle.remote(task))
print("ready", flush=True)
began, sent, open_calls = time.monotonic(), 0, []
while True:
    due = int((time.monotonic() - began) * rate)
    while sent < due:
        open_calls.append(coordinator.handle.remote(task))
        sent += 1
    if len(open_calls) > 500:
        done, open_calls = ray.wait(open_calls, num_returns=len(open_calls) // 2, timeout=30)
    time.sleep(0.005)
"""


def measure(*, rounds: int, quick: bool) -> list[Row]:
    """Measure the status under load, then the memory."""
    with running("bench-load", ECHO) as (settings, outcome):
        coordinator = ray.get_actor("seedcore_coordinator", namespace=settings.namespace)
        pid = int((outcome.report.coordinator or {})["pid"])
        return [
            _status_under_load(settings, coordinator, rounds),
            _memory(coordinator, pid, MANY // 20 if quick else MANY),
        ]


def _status_under_load(settings: Settings, coordinator: Any, rounds: int) -> Row:
    token = settings.token()
    url = f"{settings.http_url}/coordinator/status"

    def ask() -> None:
        if request(url, token=token, timeout_s=30).status != 200:  # noqa: PLR2004 - healthy
            raise RuntimeError("the status is not healthy")

    def idle() -> float:
        time.sleep(1)
        return median_ms(ask, 50)

    def loaded() -> float:
        handle = coordinator.handle
        peak = max(pipelined(lambda: handle.remote(TASK), 500) for _ in range(3))
        command = [sys.executable, "-c", GENERATOR, str(LOAD * peak), settings.namespace]
        generator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        try:
            if generator.stdout is None or generator.stdout.readline() != "ready\n":
                raise RuntimeError("the load did not start")
            time.sleep(1)
            return median_ms(ask, 50)
        finally:
            generator.kill()
            generator.wait()

    contest = Round({"loaded": loaded, "idle": idle})
    contest.run(max(1, min(rounds, 5)))
    return contest.row(
        "GET /coordinator/status, p50, at 80 % load",
        "loaded",
        "idle",
        against="the same when idle",
        goal="<= 3",
        unit="ms",
        note="the load is 80 % of the peak of Coordinator.handle in the same round, from another process",
    )


def _memory(coordinator: Any, pid: int, total: int) -> Row:
    """Send tasks through ``handle``, many per call; the memory that a task leaves behind is the same either way."""
    handle = coordinator.handle
    document = {"type": "execute_many", "params": {"tasks": [TASK] * BATCH}}

    def feed(count: int) -> None:
        under_way: list[Any] = []
        for _ in range(count // BATCH):
            under_way.append(handle.remote(document))
            if len(under_way) > 1:
                first = under_way.pop(0)
                answers = ray.get(first, timeout=120)["result"]
                failed = [answer for answer in answers if not answer["success"]]
                if failed:
                    raise RuntimeError(f"a task failed: {failed[0]}")
        ray.get(under_way, timeout=120)

    feed(FEW)
    time.sleep(2)
    before = memory_mb(pid)
    feed(total - FEW)
    time.sleep(2)
    after = memory_mb(pid)
    return Row(
        what=f"memory of the Coordinator after {total:,} tasks",
        against=f"after {FEW:,}",
        ratios=[after / before],
        goal="<= 1.05",
        ours=after,
        theirs=before,
        unit="MB",
        note="PSS",
    )
