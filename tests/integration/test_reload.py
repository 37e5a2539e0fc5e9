"""Test the reload of a living organism with another organism.yaml: unchanged organs are not disturbed."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from seedcore.status.report import Report
from tests.conftest import Organism
from tests.support.processes import kill
from tests.support.waiting import eventually


def organ_pids(report: Report) -> dict[str, int]:
    return {organ["organ_id"]: organ["replicas"][0]["pid"] for organ in report.coordinator["organs"]}


def names(organism: Organism) -> list[str]:
    """Return the names of the living actors, without the generation of their processes."""
    return [name.removesuffix("~1") for name in organism.actors()]


def reload(organism: Organism, *organs: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    done = organism.run("bootstrap", "--config", str(organism.config(*organs)), "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def counting(path: Path, **more: Any) -> dict[str, Any]:
    return {"agent": "helpers:Counts", "options": {"path": str(path)}, **more}


def under_way(organism: Organism, kind: str, seconds: float) -> subprocess.Popen[str]:
    """Submit a slow task and return when it has begun."""
    params = json.dumps({"seconds": seconds})
    process = organism.start("submit", kind, "--params", params)
    eventually(lambda: organism.probe().coordinator.get("in_flight"), timeout_s=60, what="the task is under way")
    return process


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=90)
    assert out, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def test_only_what_has_changed_is_replaced_and_a_new_coordinator_process_knows(
    organism: Organism, tmp_path: Path
) -> None:
    same = counting(tmp_path / "same", id="same", agent_count=2)
    organism.up(same, counting(tmp_path / "old", id="changed"), {"id": "dropped"})
    before = organism.probe()
    dry = organism.run("bootstrap", "--config", str(organism.config(same)), "--dry-run", "--json")
    assert (dry.returncode, json.loads(dry.stdout)["action"]) == (0, "reload")

    long_task = under_way(organism, "task_1", 8)
    changed = counting(tmp_path / "new", id="changed", agent_count=3)
    code, outcome = reload(organism, same, changed, {"id": "added", "task_types": ["added"]})

    assert (code, outcome["action"], outcome["changed"]) == (0, "reload", True)
    assert answer_of(long_task)["success"] is True
    after = organism.probe()
    assert after.coordinator["pid"] == before.coordinator["pid"]
    assert after.coordinator["reloads"] == 1
    old, new = organ_pids(before), organ_pids(after)
    assert new["same"] == old["same"]
    assert new["changed"] != old["changed"]
    organs = ("added.0", "changed.0~1", "same.0")
    assert organism.actors() == ["seedcore_coordinator", *(f"seedcore_organ.{key}" for key in organs)]
    assert organism.submit("added")["success"] is True
    assert organism.submit("task_3")["error_type"] == "UnknownTaskTypeError"

    # Ray restarts the process with its original arguments; it must come up with its present configuration.
    kill(after.coordinator["pid"])
    eventually(lambda: not organism.probe().healthy, what="the death is seen")
    eventually(lambda: organism.probe().healthy, timeout_s=90, what="healthy again")
    again = organism.probe()
    assert again.coordinator["fingerprint"] == after.coordinator["fingerprint"]
    assert organ_pids(again) == new
    assert reload(organism, same, changed, {"id": "added", "task_types": ["added"]})[1]["action"] == "none"


@pytest.mark.parametrize("room", [{}, {"num_cpus": 3}], ids=["beside the old ones", "in their place"])
def test_whoever_calls_by_plain_http_sees_no_error_while_organs_are_replaced(
    shared: Organism, room: dict[str, Any]
) -> None:
    shared.up({"id": "one", "agent_count": 2, **room})
    url, token = f"{shared.settings.http_url}/coordinator/tasks", shared.settings.token()
    answers: list[Any] = []
    ended = threading.Event()

    def call() -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=60) as client:
            while not ended.wait(0.02):
                answers.append(client.post(url, json={"type": "task_1", "params": {}}).json())

    def reached(count: int) -> bool:
        return len(answers) > count

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        eventually(partial(reached, 20), what="they call")
        before = organ_pids(shared.probe())
        for changed in (
            {"agent_count": 3},
            {"agent_count": 2, "replicas": 1 if room else 2},
            {"agent_count": 1, "queue_limit": 5},
        ):
            code, outcome = reload(shared, {"id": "one", **changed, **room})
            assert (code, outcome["action"]) == (0, "reload"), outcome
            enough = len(answers) + 20
            eventually(partial(reached, enough), what="they go on")
    finally:
        ended.set()
        for caller in callers:
            caller.join()

    assert organ_pids(shared.probe()) != before
    assert [answer for answer in answers if answer.get("success") is not True] == []


def test_new_processes_that_do_worse_than_the_old_ones_are_taken_back(shared: Organism, tmp_path: Path) -> None:
    shared.up({"id": "one", "agent": "helpers:FailsWhileFileExists", "options": {"path": str(tmp_path / "none")}})
    before, ended = organ_pids(shared.probe()), threading.Event()

    def call() -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {shared.settings.token()}"}, timeout=60) as client:
            while not ended.wait(0.02):
                client.post(f"{shared.settings.http_url}/coordinator/tasks", json={"type": "task_1", "params": {}})

    def bake(**organ: Any) -> tuple[int, dict[str, Any]]:
        path = shared.config({"id": "one", **organ})
        done = shared.run("bootstrap", "--config", str(path), "--json", "--bake", "8")
        return done.returncode, json.loads(done.stdout)

    caller = threading.Thread(target=call)
    caller.start()
    try:
        code, outcome = bake(agent="helpers:refuses")
        assert (code, outcome["reason"]) == (1, "init_failed")
        assert re.search(r"organ one: the new process is worse: \d+ of \d+ tasks failed", outcome["message"])
        assert organ_pids(shared.probe()) == before

        code, outcome = bake(agent="helpers:echo")
    finally:
        ended.set()
        caller.join()
    assert (code, outcome["action"]) == (0, "reload"), outcome
    assert re.fullmatch(r"8 s, [1-9]\d* tasks on new, 0 failed \(old: 0 of [1-9]\d*\)", outcome["baked"])
    assert organ_pids(shared.probe()) != before


def test_tasks_of_an_organ_that_is_replaced_end_first(shared: Organism, tmp_path: Path) -> None:
    shared.up(counting(tmp_path / "done", id="one"))
    long_task = under_way(shared, "task_1", 5)

    code, _ = reload(shared, counting(tmp_path / "done", id="one", agent_count=2))

    assert code == 0
    answer = answer_of(long_task)
    assert answer["success"] is True
    assert answer["result"]["pid"] != organ_pids(shared.probe())["one"]


def test_a_task_in_flight_gets_its_answer_from_a_coordinator_that_is_replaced(shared: Organism, tmp_path: Path) -> None:
    one = counting(tmp_path / "done", id="one")
    shared.up(one)
    before = shared.probe()
    long_task = under_way(shared, "task_1", 6)

    done = shared.run("bootstrap", "--replace", "--config", str(shared.config(one)), "--json")

    assert (done.returncode, json.loads(done.stdout)["action"]) == (0, "replace"), done.stderr
    assert "some tasks in flight did not end in time" not in done.stderr
    answer = answer_of(long_task)
    assert answer["success"] is True, answer
    after = shared.probe()
    assert after.coordinator["pid"] != before.coordinator["pid"]
    # The organ was adopted: its process is the one that executed the task.
    assert organ_pids(after) == organ_pids(before) == {"one": answer["result"]["pid"]}
    assert shared.submit("task_1", {"seconds": 0})["success"] is True


def test_an_organism_that_does_not_come_up_changes_nothing(shared: Organism, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.touch()
    one = {"id": "one"}
    shared.up(one, {"id": "two"})
    before = shared.probe()
    wanted = (shared.settings.state_dir / "desired.json").read_text()
    bad = {"agent": "helpers:FailsWhileFileExists", "options": {"path": str(blocker)}}

    for organs in [(one, {"id": "two"}, {"id": "bad", **bad}), (one, {"id": "two", **bad})]:
        code, outcome = reload(shared, *organs)
        assert (code, outcome["action"], outcome["reason"]) == (1, "reload", "init_failed")
        assert "the running organism was not changed: organ " in outcome["message"]
        assert "the database is locked by blocker" in outcome["message"]
        assert "Traceback" in outcome["cause"]
        eventually(lambda: shared.probe().healthy, timeout_s=60, what="as it was")
        after = shared.probe()
        assert after.coordinator["fingerprint"] == before.coordinator["fingerprint"]
        assert organ_pids(after) == organ_pids(before)
        assert shared.submit("task_2")["success"] is True
    assert (shared.settings.state_dir / "desired.json").read_text() == wanted
    assert names(shared) == ["seedcore_coordinator", "seedcore_organ.one.0", "seedcore_organ.two.0"]


def test_an_organism_that_cannot_be_placed_is_given_up_in_time(shared: Organism) -> None:
    shared.up({"id": "one"})
    before = shared.probe()
    path = shared.config({"id": "one"}, {"id": "big", "resources": {"quantum": 1}})

    done = shared.run("bootstrap", "--config", str(path), "--wait-timeout", "30", "--json")

    assert done.returncode == 1
    assert "organs big did not come up within" in json.loads(done.stdout)["message"]
    after = shared.probe()
    assert after.healthy
    assert organ_pids(after) == organ_pids(before)
    assert names(shared) == ["seedcore_coordinator", "seedcore_organ.one.0"]


def test_what_was_shut_down_stays_so_until_it_is_started_again(organism: Organism) -> None:
    organism.up({"id": "one"})
    pid = organism.probe().coordinator["pid"]
    assert organism.submit("shutdown_organism")["success"] is True

    kill(pid)

    def stopped_in_another_process() -> bool:
        report = organism.probe()
        assert not report.healthy
        return report.reason == "organs_down" and report.coordinator["pid"] != pid

    eventually(stopped_in_another_process, timeout_s=60, what="the Coordinator is back, its organism is not")
    assert organism.actors() == ["seedcore_coordinator"]
    assert organism.submit("initialize_organism")["success"] is True
    eventually(lambda: organism.probe().healthy, timeout_s=60, what="started again")
