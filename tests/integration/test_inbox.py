"""Durable tasks on a real Ray, while the Coordinator and organs are killed under load."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from seedcore.client import AsyncClient
from seedcore.status.http_client import request
from tests.conftest import Organism
from tests.support.processes import kill
from tests.support.ray_head import RayHead
from tests.support.waiting import eventually

KILLS = 3
FROM_RAY = """
import seedcore
with seedcore.Client() as client:
    task = {"type": "pay", "params": {"n": "ray"}}
    accepted = client.submit(task, durable=True, key="ray", wait=False)
    answers = [client.submit(task, durable=True, key="ray", timeout_s=60)]
    answers += client.submit_many([{"type": "pay", "params": {"n": f"ray-{n}"}} for n in range(5)], durable=True)
    say([client.transport, accepted["accepted"], [answer["success"] for answer in answers]])
"""
CALLERS = 8


@pytest.fixture
def durable(head: RayHead, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Organism]:
    """A namespace of its own, whose Coordinator has an inbox."""
    scope = replace(head.scope(f"inbox-{tmp_path.name}"), inbox="sqlite")
    deployment = Organism(head, scope, tmp_path)
    try:
        yield deployment
    finally:
        deployment.close()


def up(organism: Organism) -> Path:
    """Start two organs that write down what they do: one whose tasks may be repeated, one whose tasks may not."""
    ledger = organism.directory / "ledger"
    ledger.touch()
    organs = [
        {"id": name, "agent": "ledger:Ledger", "agent_count": 4, "task_types": [name], "options": {"path": str(ledger)}}
        for name in ("pay", "fetch")
    ]
    organs[1]["repeatable"] = True
    organism.up(*organs)
    return ledger


def effects(ledger: Path) -> Counter[str]:
    return Counter(ledger.read_text().split())


def gated(kind: str, gate: Path) -> str:
    return json.dumps({"n": kind, "until": str(gate)})


def pid_of(organism: Organism) -> int:
    """Return the pid of the Coordinator's process, once it answers."""
    body = eventually(lambda: organism.probe().coordinator if organism.probe().healthy else None, what="health")
    return int(body["pid"])


async def load(organism: Organism, kinds: tuple[str, ...], stop: asyncio.Event) -> dict[str, dict[str, Any]]:
    """Submit tasks with keys of their own, several at a time, until ``stop``; return all answers."""
    answers: dict[str, dict[str, Any]] = {}
    async with AsyncClient(organism.settings, transport="http") as client:

        async def caller(number: int) -> None:
            turn = 0
            while not stop.is_set():
                turn += 1
                key = f"{number}-{turn}"
                params = {"n": key, "seconds": (turn % 5) / 50}
                task = {"type": kinds[turn % len(kinds)], "params": params}
                answers[key] = await client.submit(task, durable=True, key=key, timeout_s=100)

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return answers


async def kill_coordinators(organism: Organism, stop: asyncio.Event) -> list[int]:
    killed: list[int] = []
    for _ in range(KILLS):
        pid = await asyncio.to_thread(pid_of, organism)
        await asyncio.sleep(0.3)  # so that tasks are under way
        kill(pid)
        killed.append(pid)
    await asyncio.to_thread(pid_of, organism)
    stop.set()
    return killed


def test_no_death_of_the_coordinator_loses_or_doubles_a_task(durable: Organism) -> None:
    ledger = up(durable)

    async def run() -> tuple[dict[str, dict[str, Any]], list[int]]:
        stop = asyncio.Event()
        answers, killed = await asyncio.gather(load(durable, ("pay", "fetch"), stop), kill_coordinators(durable, stop))
        return answers, killed

    answers, killed = asyncio.run(run())

    assert len(set(killed)) == KILLS
    assert len(answers) > 50
    assert [answer for answer in answers.values() if answer.get("success") is not True] == []
    done = effects(ledger)
    assert set(done) == set(answers), "each accepted task was done, and nothing else"
    assert [key for key, times in done.items() if times > 1] == []
    told = durable.told()
    assert told["inbox"]["epoch"] == KILLS + 1
    assert told["inbox"]["tasks"] | {"done": 0} == dict.fromkeys(told["inbox"]["tasks"], 0)
    assert told["inbox"]["tasks"]["done"] == len(answers)
    # A process that has joined Ray sends them to the Coordinator, and not to the organs.
    assert durable.drive(FROM_RAY) == ["ray", True, [True] * 6]
    assert durable.told()["inbox"]["tasks"]["done"] == len(answers) + 6
    assert_a_schedule_misses_no_moment(durable)


def assert_a_schedule_misses_no_moment(organism: Organism) -> None:
    """Let the Coordinator die while a schedule plans a task every second."""
    url, token = f"{organism.settings.http_url}/coordinator/schedules", organism.settings.token()
    beat = {"id": "beat", "every": "1s", "misfire": "all", "overlap": "allow"}
    made = request(url, method="POST", token=token, body={**beat, "task": {"type": "fetch", "params": {"n": "beat"}}})
    assert (made.status, made.body["created"]) == (200, True), made.body

    def planned() -> list[str]:
        listed = json.loads(organism.run("tasks", "--type", "fetch", "--limit", "1000", "--json").stdout or "[]")
        return [task["key"] for task in listed if str(task["key"]).startswith("schedule:beat:")]

    eventually(planned, what="the first moment")
    kill(pid_of(organism))
    pid_of(organism)
    before = len(eventually(planned, what="the tasks after the death"))
    eventually(lambda: len(planned()) > before, what="another moment")
    assert organism.run("schedule", "pause", "beat").returncode == 0

    keys = planned()
    moments = sorted(datetime.fromisoformat(key.removeprefix("schedule:beat:")) for key in keys)
    assert len(set(keys)) == len(keys)
    assert {(one - other).total_seconds() for other, one in pairwise(moments)} == {1.0}, "none is missing"
    (listed,) = json.loads(organism.run("schedules", "--json").stdout)
    assert (listed["paused"], listed["missed"], listed["overlapped"]) == (True, 0, 0)
    eventually(lambda: organism.told()["inbox"]["tasks"]["ready"] == 0, what="all of them to begin")


def test_a_task_whose_process_dies_is_parked_unless_it_may_be_repeated(durable: Organism) -> None:
    ledger = up(durable)
    organs = {organ["organ_id"]: organ["replicas"][0]["pid"] for organ in durable.told()["organs"]}
    gate = durable.directory / "gate"
    accepted = {}
    for kind in ("pay", "fetch"):
        done = durable.run("submit", kind, "--params", gated(kind, gate), "--durable", "--key", kind)
        assert done.returncode == 0, done.stderr
        accepted[kind] = json.loads(done.stdout)["id"]
    eventually(lambda: set(effects(ledger)) == {"pay", "fetch"}, what="both tasks to begin")

    for pid in organs.values():
        kill(pid)
    gate.touch()

    again = durable.run("submit", "fetch", "--params", gated("fetch", gate), "--durable", "--key", "fetch", "--wait")
    parked = durable.run("task", "show", accepted["pay"], "--wait")
    listed = durable.run("tasks", "--parked", "--json")
    assert json.loads(again.stdout)["success"] is True, again.stderr
    assert json.loads(again.stdout)["id"] == accepted["fetch"]
    assert json.loads(parked.stdout)["state"] == "parked", parked.stdout
    assert [task["id"] for task in json.loads(listed.stdout)] == [accepted["pay"]]
    assert effects(ledger) == {"pay": 1, "fetch": 2}

    settled = durable.run("task", "retry", accepted["pay"])

    assert settled.returncode == 0, settled.stderr
    ended = json.loads(durable.run("task", "show", accepted["pay"], "--wait").stdout)
    assert (ended["state"], ended["attempt"]) == ("done", 2)
    assert [(entry["what"], entry["who"]) for entry in ended["story"]] == [("parked", ""), ("retry", "cluster")]
    assert effects(ledger) == {"pay": 2, "fetch": 2}


def test_the_canary_goes_through_the_inbox_and_leaves_nothing_there(durable: Organism) -> None:
    up(durable)

    answer = durable.submit("canary", {"nonce": "n"})
    assert answer["success"] is True, answer
    assert answer["result"]["inbox"]["seconds"].keys() == {"pay", "fetch"}
    assert durable.run("status", "--wait", "--canary", "--timeout", "60").returncode == 0
    assert durable.run("pause", "pay").returncode == 0
    paused = durable.submit("canary", {"nonce": "n"})
    assert paused["result"]["inbox"] == {
        "seconds": {"fetch": paused["result"]["inbox"]["seconds"]["fetch"]},
        "fault": "",
    }
    assert durable.run("resume", "pay").returncode == 0
    # The Coordinator's own canaries have gone on meanwhile.
    assert json.loads(durable.run("tasks", "--json").stdout) == []
    assert durable.submit("get_metrics")["result"]["inbox_canary_s"] > 0
