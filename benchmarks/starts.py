"""Measure start times and memory: of organisms, agents and commands."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import ray

from benchmarks import raw
from benchmarks.organism import memory_mb, pids_of, running, scope
from benchmarks.timing import Round, Row
from seedcore.core.settings import Settings
from seedcore.deployment.bootstrap import shutdown

AGENTS = 10_000
START = {"type": "Benchmark", "agent": "benchmarks.agents:Quiet", "start_timeout_s": 120}
# Pause between starts: processes of the last one may still be exiting, and Ray may be starting spare workers.
PAUSE_S = 3.0


class Pid:
    """A bare actor that returns its process id."""

    async def pid(self) -> int:
        """Return the process id."""
        return os.getpid()


def measure(*, rounds: int, quick: bool) -> list[Row]:
    """Measure starts; each takes seconds, so there are fewer rounds than for calls."""
    rounds = max(1, min(rounds, 5))
    return [
        *_ten_thousand_agents(rounds),
        *_a_hundred_agents(1 if quick else min(rounds, 2), 20 if quick else 100),
        _bootstrap(rounds),
        _status_command(rounds),
    ]


def _ten_thousand_agents(rounds: int) -> list[Row]:
    memory: dict[str, list[float]] = {"organism": [], "actors": []}
    whole: list[float] = []
    organs = [
        {**START, "id": f"organ_{i}", "task_types": [f"t{i}"], "agent_count": AGENTS // 3 + (i == 0)} for i in range(3)
    ]

    def organism() -> float:
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        with running("bench-start", *organs) as (_, outcome):
            whole.append(time.perf_counter() - began)
            memory["organism"].append(memory_mb(*pids_of(outcome)))
            return float((outcome.report.coordinator or {})["init_seconds"])

    def actors() -> float:
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        handles = [raw.bare_actor(Pid) for _ in range(3)]
        pids = ray.get([handle.pid.remote() for handle in handles], timeout=120)
        seconds = time.perf_counter() - began
        memory["actors"].append(memory_mb(*pids))
        _end(handles)
        return seconds

    contest = Round({"organism": organism, "actors": actors})
    contest.run(rounds)
    more = [ours - theirs for ours, theirs in zip(memory["organism"], memory["actors"], strict=True)]
    row = contest.row(
        f"{AGENTS:,} agents in 3 organs: until all are ready",
        "organism",
        "actors",
        against="3 bare actors: until all answer",
        goal="<= 1.5",
        unit="s",
        note="the Coordinator's init_seconds; its own process starts before, see the bootstrap",
    )
    weight = Row(
        what=f"{AGENTS:,} agents in 3 organs: memory above 3 bare actors",
        against="40 MB",
        ratios=[value / 40 for value in more],
        goal="<= 1",
        ours=sorted(memory["organism"])[len(more) // 2],
        theirs=sorted(memory["actors"])[len(more) // 2],
        unit="MB",
        note="PSS; the ratio is what the organs have more, divided by 40 MB",
    )
    return [row, weight]


def _a_hundred_agents(rounds: int, count: int) -> list[Row]:
    organ = {**START, "id": "many", "task_types": ["t"], "agent_count": count}

    def agents() -> float:
        time.sleep(PAUSE_S)
        with running("bench-agents", organ) as (_, outcome):
            return float((outcome.report.coordinator or {})["init_seconds"])

    def actors() -> float:
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        handles = [raw.bare_actor(Pid, num_cpus=0.001) for _ in range(count)]
        ray.get([handle.pid.remote() for handle in handles], timeout=600)
        seconds = time.perf_counter() - began
        _end(handles)
        return seconds

    contest = Round({"actors": actors, "agents": agents})
    contest.run(rounds)
    return [
        contest.row(
            f"{count} agents in an organ: faster to start by",
            "actors",
            "agents",
            against=f"{count} actors, a process each",
            goal=">= 20",
            unit="s",
            note="theirs / ours: the two columns are exchanged",
        )
    ]


BY_HAND = """
import asyncio, logging, os, ray
class Actor:
    async def ping(self):
        return "pong"
ray.init(address=os.environ["RAY_ADDRESS"], namespace=os.environ["RAY_NAMESPACE"], logging_level=logging.ERROR,
         log_to_driver=False)
names = ["coordinator", "cognitive_organ_1", "actuator_organ_1", "utility_organ_1"]
actors = [ray.remote(Actor).options(name=name, lifetime="detached", num_cpus=0.1, max_restarts=-1).remote()
          for name in names]
assert ray.get([actor.ping.remote() for actor in actors], timeout=120) == ["pong"] * 4
"""
ONE_CALL = """
import logging, os, ray
ray.init(address=os.environ["RAY_ADDRESS"], namespace=os.environ["RAY_NAMESPACE"], logging_level=logging.ERROR,
         log_to_driver=False)
ray.get(ray.get_actor("seedcore_coordinator").get_status.remote(), timeout=60)
"""


def _bootstrap(rounds: int) -> Row:
    def ours() -> float:
        settings = scope("bench-bootstrap")
        seconds = _seconds(settings, "-m", "seedcore", "bootstrap", "--wait-timeout", "180")
        shutdown(settings)
        return seconds

    def by_hand() -> float:
        settings = scope("bench-by-hand")
        seconds = _seconds(settings, "-c", BY_HAND)
        names = ray.util.list_named_actors(all_namespaces=True)
        for entry in names:
            if entry["namespace"] == settings.namespace:
                ray.kill(ray.get_actor(entry["name"], namespace=settings.namespace))
        return seconds

    contest = Round({"ours": _paused(ours), "by hand": _paused(by_hand)})
    contest.run(rounds)
    return contest.row(
        "seedcore bootstrap, default organism (whole process)",
        "ours",
        "by hand",
        against="ray.init and 4 bare actors that answer (whole process)",
        goal="<= 1.2",
        unit="s",
        note="healthy, every organ ready",
    )


def _status_command(rounds: int) -> Row:
    organ = {**START, "id": "one", "task_types": ["t"]}
    with running("bench-status", organ) as (settings, _):
        contest = Round(
            {
                "ours": lambda: _seconds(settings, "-m", "seedcore", "status", "--json"),
                "theirs": lambda: _seconds(settings, "-c", ONE_CALL),
            }
        )
        contest.run(rounds)
    return contest.row(
        "seedcore status (whole process)",
        "ours",
        "theirs",
        against="python: ray.init and one call",
        goal="<= 0.2",
        unit="s",
    )


def _seconds(settings: Settings, *arguments: str) -> float:
    env = {
        **os.environ,
        "RAY_NAMESPACE": settings.namespace,
        "SEEDCORE_HTTP_PORT": str(settings.http_port),
        "SEEDCORE_STATE_DIR": str(settings.state_dir),
    }
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=env, check=True, capture_output=True)  # noqa: S603 - ours
    return time.perf_counter() - began


def _paused(function: Callable[[], float]) -> Callable[[], float]:
    def paused() -> float:
        time.sleep(PAUSE_S)
        return function()

    return paused


def _end(handles: list[Any]) -> None:
    for handle in handles:
        ray.kill(handle)
