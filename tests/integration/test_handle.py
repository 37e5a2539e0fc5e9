"""Test that ``handle`` answers any input in the documented shape, and that ``ping`` answers meanwhile."""

from __future__ import annotations

import time
from typing import Any

from tests.conftest import Organism
from tests.support.waiting import eventually

HOSTILE = {"id": "hostile", "agent": "helpers:Hostile", "task_types": ["do"], "agent_count": 2, "task_timeout_s": 3}
CALM = {"id": "calm", "task_types": ["calm"]}

FEED = """
import threading
coord = ray.get_actor("seedcore_coordinator", namespace=os.environ["RAY_NAMESPACE"])
def ask(task):
    pong = coord.ping.remote()
    started = time.monotonic()
    try:
        answer = ray.get(coord.handle.remote(task), timeout=30)
    except Exception as error:
        answer = {"raised": type(error).__name__, "error": str(error)[:300]}
    if isinstance(answer, dict) and len(str(answer)) > 3000:
        answer = {"success": answer["success"], "large": True}
    return {"answer": answer, "seconds": time.monotonic() - started, "ping": ray.get(pong, timeout=10),
            "calm": ray.get(coord.handle.remote({"type": "calm"}), timeout=20)["success"]}
"""


def feed(organism: Organism, tasks: str) -> list[dict[str, Any]]:
    """Pass Python literals to handle, one after the other."""
    answers: list[dict[str, Any]] = organism.drive(FEED + f"say([ask(task) for task in {tasks}])")
    for entry in answers:
        assert entry["ping"] == "pong"
        assert entry["calm"] is True
    return answers


def test_what_is_no_task_is_refused_in_the_documented_shape(shared: Organism) -> None:
    shared.up(CALM, HOSTILE)

    answers = feed(
        shared,
        """[None, [], [1, 2], "text", 7, {}, {"type": ""}, {"type": 5}, {"type": "calm", "params": []},
            {"type": "calm", "params": {1: 2}}, {"type": "calm", "timeout_s": -1},
            {"type": "calm", "drift_score": float("nan")},
            {"type": "no such type"}, {"type": "calm", "params": {"blob": b"x" * 50_000_000}},
            {"type": "calm", "params": {"blob": list(range(3_000_000))}}, {"type": "execute_on_organ"},
            {"type": "execute_on_organ", "params": {"organ_id": "nobody", "task_data": {"type": "x"}}},
            {"type": "canary"}]""",
    )

    for entry in answers:
        answer = entry["answer"]
        assert answer["success"] is False, answer
        assert answer["error"]
        assert answer["error_type"].endswith("Error")
        assert answer["task_type"]
    assert answers[0]["answer"]["task_type"] == "unknown"
    assert "known types are: calm" in answers[12]["answer"]["error"]
    assert answers[13]["answer"]["error_type"] == "PayloadTooLargeError"


def test_none_stands_for_a_default_and_types_are_normalised(shared: Organism) -> None:
    shared.up(CALM, HOSTILE)

    answers = feed(
        shared,
        """[{"type": " CALM ", "params": None, "description": None, "domain": None, "drift_score": None, "id": None,
             "timeout_s": None}, {"task_type": "calm", "params": {"a": [1, 2.5, "x", None, True]}}]""",
    )

    assert all(entry["answer"]["success"] for entry in answers)
    answer = answers[1]["answer"]
    assert answer["result"]["echo"] == {"a": [1, 2.5, "x", None, True]}
    assert (answer["organ_id"], answer["agent_id"], answer["task_type"]) == ("calm", "calm_agent_0", "calm")
    assert answer["duration_s"] >= 0


def test_a_hostile_agent_hurts_nobody_else(shared: Organism) -> None:
    shared.up(CALM, HOSTILE)
    before = shared.told()

    kinds = [
        ("raise", "ValueError"), ("exit", "SystemExit"), ("interrupt", "KeyboardInterrupt"),
        ("unpicklable", "UnpicklableError"), ("bad_text", "BadTextError"), ("generator_exit", "GeneratorExit"),
        ("cancelled", "CancelledError"), ("garbage", "UnserializableResultError"),
        ("says_failed", "AgentReportedError"), ("loop", "ResultTooLargeError"), ("forever", "TimeoutError"),
        ("ignores_cancel", "TimeoutError"),
    ]  # fmt: skip
    tasks = [{"type": "do", "params": {"do": kind}} for kind, _ in kinds]
    answers = feed(shared, repr([*tasks, {"type": "do"}]))

    for entry, (kind, error_type) in zip(answers, kinds, strict=False):
        answer = entry["answer"]
        assert answer["success"] is False, kind
        assert answer["error_type"] == error_type, answer
        assert answer["task_type"] == "do"
        assert entry["seconds"] < 6
    assert answers[-1]["answer"]["success"] is True
    after = shared.told()
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)
    pids = [[replica["pid"] for replica in organ["replicas"]] for organ in after["organs"]]
    assert pids == [[replica["pid"] for replica in organ["replicas"]] for organ in before["organs"]]


def test_an_agent_that_kills_or_wedges_its_process_is_back_by_itself(organism: Organism) -> None:
    organism.up(CALM, HOSTILE)

    for what, error_type in [("die", "OrganUnavailableError"), ("stray_exit", "TimeoutError")]:
        (entry,) = feed(organism, repr([{"type": "do", "params": {"do": what}}]))
        assert entry["answer"]["success"] is False
        assert entry["answer"]["error_type"] in {error_type, "OrganUnavailableError"}
        eventually(lambda: organism.probe().healthy, timeout_s=40, what=f"healthy after {what}")
        assert organism.submit("do")["success"] is True
    (hostile,) = [organ for organ in organism.told()["organs"] if organ["organ_id"] == "hostile"]
    assert hostile["replicas"][0]["restarts"] == 2


def test_a_task_that_blocks_its_process_is_answered_in_time_and_the_process_replaced(organism: Organism) -> None:
    organism.up(CALM, {**HOSTILE, "health_timeout_s": 1, "failure_threshold": 2})
    began = time.monotonic()

    (entry,) = feed(organism, repr([{"type": "do", "params": {"do": "block", "seconds": 300}}]))

    assert entry["answer"]["error_type"] in {"TimeoutError", "OrganUnavailableError"}
    assert time.monotonic() - began < 30
    eventually(lambda: organism.probe().healthy, timeout_s=40, what="healthy with a new process")


def test_the_built_in_types(organism: Organism) -> None:
    organism.up(CALM)

    summary = organism.submit("get_organism_summary")["result"]
    assert summary["routes"]["by_type"] == {"calm": "calm"}
    assert organism.submit("get_routing_debug")["result"]["by_type"] == {"calm": "calm"}
    inner = {"organ_id": "calm", "task_data": {"type": "anything", "params": {"x": 1}}}
    assert organism.submit("execute_on_organ", inner)["result"]["echo"] == {"x": 1}
    assert organism.submit("execute_on_random_organ", {"task_data": {"type": "y"}})["organ_id"] == "calm"
    metrics = organism.submit("get_metrics")["result"]
    assert {"task_type": "execute_on_organ", "outcome": "success"}.items() <= next(
        entry for entry in metrics["tasks"] if entry["task_type"] == "execute_on_organ"
    ).items()
    canary = organism.submit("canary", {"nonce": "abc"})
    assert canary["result"]["replicas"][0]["ok"] is True

    before = organism.told()["organs"][0]["replicas"][0]["pid"]
    assert organism.submit("initialize_organism")["result"] == {"status": "initializing"}
    eventually(lambda: organism.probe().healthy, timeout_s=30, what="initialized again")
    assert organism.told()["organs"][0]["replicas"][0]["pid"] != before

    assert organism.submit("shutdown_organism")["result"] == {"stopped": ["calm"]}
    assert organism.actors() == ["seedcore_coordinator"]
    assert organism.probe().reason == "organs_down"
    assert organism.submit("calm")["error"] == "the organism is shut down"
