"""Test the truth table: the verdict for rows of the State API and answers of the Coordinator."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seedcore.core.settings import COORDINATOR_NAME
from seedcore.status import host_processes as processes
from seedcore.status import probing
from seedcore.status import probing as status
from seedcore.status.http_client import CannotAskError, Response
from seedcore.status.probing import check_nodes, probe, wait
from seedcore.status.report import Report
from seedcore.status.state_api import ClusterState, newest_actor
from seedcore.status.verdict import judge_coordinator
from tests.support.fake_cluster import FakeCluster

NODE = {"node_id": "n1", "node_name": "head", "state": "ALIVE"}
DEAD_NODE = {"node_id": "n0", "node_name": "head", "state": "DEAD"}
TRACEBACK = """Traceback (most recent call last):
  File "coordinator.py", line 1, in __init__
RuntimeError: Coordinator initialization failed: organ a: agent a_agent_0 did not start: ValueError: no
"""


def row(**more: Any) -> dict[str, Any]:
    return {
        "actor_id": "c1", "name": COORDINATOR_NAME, "state": "ALIVE", "pid": 10, "node_id": "n1", "num_restarts": "0",
        "required_resources": {"CPU": 0.1}, "death_cause": None, **more,
    }  # fmt: skip


def organ_row(**more: Any) -> dict[str, Any]:
    return row(actor_id="o1", name="seedcore_organ.a.0", class_name="Organ", pid=20, **more)


def body(**more: Any) -> dict[str, Any]:
    replica = {"replica": 0, "state": "ready", "actor_id": "o1", "pid": 20, "ready_agents": 1, "restarts": 0}
    organ = {"organ_id": "a", "required": True, "min_ready_agents": 1, "replicas": [replica]}
    return {
        "status": "healthy", "reason": "ready", "message": "all ready", "pid": 10, "snapshot_at": time.time(),
        "organs": [organ], "degraded": False, "stage": "1 of 1 organs ready", **more,
    }  # fmt: skip


def judge(
    own: dict[str, Any] | None,
    answer: Response | OSError | None = None,
    *others: dict[str, Any],
    nodes: tuple[dict[str, Any], ...] = (NODE,),
) -> Report:
    rows = [entry for entry in (own, *others) if entry]
    return judge_coordinator(own, answer or Response(200, body()), ClusterState(list(nodes), rows))


def refused() -> OSError:
    return ConnectionRefusedError(111, "Connection refused")


@pytest.mark.parametrize(
    ("report", "word", "reason"),
    [
        (judge(row(), None, organ_row()), "healthy", "ready"),
        (judge(None), "unhealthy", "absent"),
        (judge(row(state="PENDING_CREATION", pid=0), refused()), "initializing", "unschedulable"),
        (judge(row(state="PENDING_CREATION"), Response(503, body(status="initializing"))), "initializing", "starting"),
        (judge(row(state="PENDING_CREATION"), refused()), "initializing", "starting"),
        (judge(row(state="RESTARTING"), refused()), "initializing", "restarting"),
        (judge(row(), refused()), "unhealthy", "not_responding"),
        (judge(row(), TimeoutError()), "unhealthy", "not_responding"),
        (judge(row(), Response(403, None)), "unhealthy", "unauthorized"),
        (judge(row(node_id="n0"), None, nodes=(NODE, DEAD_NODE)), "unhealthy", "not_responding"),
        (judge(row(), Response(200, body(pid=99)), organ_row()), "unhealthy", "not_responding"),
        (judge(row(), Response(404, {"detail": "somebody else"})), "unhealthy", "not_responding"),
        (judge(row(), Response(200, [1]), organ_row()), "unhealthy", "not_responding"),
        # The clock of another host proves nothing about the Coordinator.
        (judge(row(), Response(200, body(snapshot_at=time.time() - 60)), organ_row()), "healthy", "ready"),
        (judge(row(), None, organ_row(state="RESTARTING")), "unhealthy", "organs_down"),
        (judge(row(), None, organ_row() | {"pid": 21}), "unhealthy", "organs_down"),
        (judge(row(), None), "unhealthy", "organs_down"),
        (judge(row(state="DEAD", death_cause={"actor_died_error_context": {"error_message": "killed"}})),
         "unhealthy", "absent"),
    ],
)  # fmt: skip
def test_the_truth_table(report: Report, word: str, reason: str) -> None:
    assert (report.status, report.reason) == (word, reason)
    assert report.healthy is (word == "healthy")
    assert report.message


def test_a_failed_creation_is_told_in_one_line_with_the_traceback_as_evidence() -> None:
    cause = {"creation_task_failure_context": {"formatted_exception_string": TRACEBACK}}

    report = judge(row(state="DEAD", death_cause=cause))

    assert report.reason == "init_failed"
    assert report.message == (
        "Coordinator initialization failed: organ a: agent a_agent_0 did not start: ValueError: no"
    )
    assert report.evidence["traceback"] == TRACEBACK


def test_a_lost_replica_that_is_not_needed_degrades() -> None:
    answer = body()
    answer["organs"][0]["required"] = False

    report = judge(row(), Response(200, answer), organ_row(state="RESTARTING"))

    assert (report.status, report.reason, report.degraded) == ("healthy", "degraded", True)


def test_the_stage_of_a_process_that_initializes_is_told_with_what_its_organs_wait_for() -> None:
    waiting = organ_row(state="PENDING_CREATION", required_resources={"quantum": 1.0}) | {"pid": 0}
    answer = Response(503, body(status="initializing", stage="0 of 1 organs ready", uptime_s=6.0))

    report = judge(row(state="PENDING_CREATION"), answer, waiting)

    assert report.message == "0 of 1 organs ready; seedcore_organ.a.0 waits for quantum: 1"


@pytest.mark.parametrize(
    ("word", "reason", "code"),
    [
        ("healthy", "ready", 0), ("unhealthy", "organs_down", 1), ("unhealthy", "init_failed", 1),
        ("unhealthy", "absent", 3), ("unhealthy", "not_installed", 3), ("unhealthy", "unreachable", 4),
        ("unhealthy", "unauthorized", 4), ("initializing", "starting", 5), ("initializing", "unschedulable", 5),
        ("unhealthy", "wrong_release", 1), ("unhealthy", "wrong_configuration", 1),
        ("unhealthy", "nodes_missing", 1), ("unhealthy", "stale", 1),
    ],
)  # fmt: skip
def test_the_exit_codes(word: str, reason: str, code: int) -> None:
    report = Report(healthy=word == "healthy", status=word, reason=reason, message="")

    assert report.exit_code == code


@pytest.mark.parametrize(
    "context",
    ["runtime_env_failed_context", "oom_context", "actor_unschedulable_context", "actor_died_error_context"],
)
def test_whichever_cause_of_a_death_ray_has_is_told(context: str) -> None:
    cause = {"creation_task_failure_context": None, context: {"error_message": "THE CAUSE\nand more"}}

    report = judge(row(state="DEAD", death_cause=cause))

    assert report.message == "the last Coordinator is dead: THE CAUSE"
    assert report.evidence["death_cause"]["error_message"] == "THE CAUSE\nand more"


def test_a_row_that_was_cut_off_contradicts_nobody() -> None:
    answer = body()
    answer["organs"][0]["replicas"][0]["node_id"] = "n1"

    report = judge_coordinator(row(), Response(200, answer), ClusterState([NODE], [row()], complete=False))

    assert (report.status, report.reason) == ("healthy", "ready")


def test_a_list_that_is_cut_off_does_not_prove_that_there_is_no_coordinator(cluster: FakeCluster) -> None:
    cluster.coordinator, cluster.truncated = None, True
    report = probe(cluster.settings)

    assert (report.reason, report.exit_code) == ("unreachable", 4)
    assert "only a part of the cluster's actors" in report.message


def test_a_coordinator_in_a_list_that_is_cut_off_is_judged_as_ever(cluster: FakeCluster) -> None:
    cluster.truncated = True

    assert probe(cluster.settings).reason == "ready"


def test_a_node_that_nobody_expects_keeps_a_gate_shut(cluster: FakeCluster) -> None:
    cluster.nodes.append({"node_id": "beef", "node_name": "left-behind", "state": "ALIVE"})
    names = [node["node_name"] for node in cluster.nodes if node["node_name"] != "left-behind"]
    settings = replace(cluster.settings, expected_nodes=tuple(names))

    report = probe(settings, only_expected=True, allow_degraded=True)

    assert (report.healthy, report.status, report.reason) == (False, "healthy", "nodes_unexpected")
    assert "left-behind: put them back and run remove_node" in report.message
    assert report.exit_code == 1
    assert probe(settings).nodes["unexpected"] == ["left-behind"]
    assert probe(settings).healthy
    assert probe(cluster.settings, only_expected=True).healthy, "who names no nodes expects none"


def test_every_node_that_is_alive_is_asked(cluster: FakeCluster) -> None:
    assert check_nodes(cluster.settings, probe(cluster.settings)).healthy

    cluster.nodes.append({"node_id": "beef", "node_name": "worker", "state": "ALIVE"})
    assert check_nodes(cluster.settings, probe(cluster.settings)).healthy

    # The dashboard's cache lacks the node, or is empty.
    cluster.summary = [entry for entry in cluster._summary() if entry["raylet"]["nodeId"] != "beef"]
    report = check_nodes(cluster.settings, probe(cluster.settings))
    assert (report.healthy, report.reason) == (False, "nodes_missing")
    assert report.message == "worker has joined, but the dashboard does not list its agent yet"
    cluster.summary = []
    assert not check_nodes(cluster.settings, probe(cluster.settings)).healthy


def test_a_node_that_dies_just_before_it_would_be_asked_is_missing(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = {"node_id": "beef", "node_name": "worker", "state": "ALIVE"}
    cluster.nodes.append(worker)
    settings = replace(cluster.settings, expected_nodes=("head", "worker"))

    def unwell(*_: Any, **__: Any) -> list[str]:
        worker["state"] = "DEAD"
        return []

    monkeypatch.setattr(probing, "unwell_nodes", unwell)
    monkeypatch.setattr(probing, "check_canary", lambda _settings, report, **_: report)

    report = wait(settings, timeout_s=2, stable_s=0.2, interval_s=0.1, canary=True)

    assert (report.healthy, report.reason) == (False, "nodes_missing")
    assert "worker" in report.message


def test_another_actor_with_the_coordinators_pid_on_this_host_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seen from another host than the head: pid 10 here is an actor of another node, pid 20 does not exist.
    monkeypatch.setattr(processes, "is_living_actor", lambda pid: pid == 10)
    monkeypatch.setattr("seedcore.status.verdict.is_living_actor", lambda pid: pid == 10)
    monkeypatch.setattr(processes, "_raylet_above", lambda _: "another node")

    assert judge(row(), None, organ_row()).reason == "ready"

    monkeypatch.setattr(processes, "_raylet_above", lambda _: "n1")
    assert judge(row(), None, organ_row()).reason == "organs_down"

    monkeypatch.setattr(processes, "_raylet_above", lambda _: "")
    assert judge(row(), None, organ_row()).message == "the raylet of the Coordinator's node is gone"


def test_another_organism_than_the_expected_one_is_not_healthy_and_waiting_does_not_mend_it(
    cluster: FakeCluster,
) -> None:
    cluster.body["fingerprint"] = "f1"
    assert probe(cluster.settings, expected_fingerprint="f1").healthy

    report = probe(cluster.settings, expected_fingerprint="f2")

    assert (report.healthy, report.reason, report.terminal, report.exit_code) == (False, "wrong_configuration", True, 1)
    assert report.message == "an organism with fingerprint f1 answers, expected f2"
    del cluster.body["fingerprint"]
    assert probe(cluster.settings, expected_fingerprint="f2").reason == "wrong_configuration"


def test_silence_is_told_apart() -> None:
    def silence(answer: Response | OSError) -> tuple[str, Any]:
        report = judge(row(), answer)
        return report.reason, report.evidence["silence"]

    assert silence(TimeoutError()) == ("not_responding", "no_answer")
    assert silence(refused()) == ("not_responding", "nobody_listens")
    assert silence(Response(404, {"detail": "somebody else"})) == ("not_responding", "another_answers")
    assert silence(Response(200, body(pid=99))) == ("not_responding", "another_answers")
    assert silence(CannotAskError("cannot read the certificate x")) == ("unreachable", "cannot_ask")


BIG = {"node_id": "n1", "node_name": "head", "state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 1.0}}


@pytest.mark.parametrize(
    ("required", "asks", "reason", "hopeless"),
    [
        (True, {"GPU": 1.0}, "unschedulable", False),
        (True, {"GPU": 2.0}, "unschedulable", True),
        (True, {"quantum": 1.0}, "unschedulable", True),
        # The start does not wait for an optional organ.
        (False, {"quantum": 1.0}, "starting", None),
    ],
)
def test_an_organ_without_a_place_is_unschedulable(
    *, required: bool, asks: dict[str, float], reason: str, hopeless: bool | None
) -> None:
    waiting = organ_row(state="PENDING_CREATION", required_resources=asks) | {"pid": 0}
    stage = "0 of 1 organs ready"
    said = {"status": "initializing", "reason": "starting", "message": stage, "stage": stage, "uptime_s": 6.0}
    answer = body(**said)
    answer["organs"][0] |= {"required": required, "replicas": []}

    for own in (row(), row(state="PENDING_CREATION")):
        report = judge(own, Response(503, answer), waiting, nodes=(BIG,))
        assert (report.status, report.reason, report.exit_code) == ("initializing", reason, 5)
        assert report.evidence.get("no_node_fits") is hopeless
        assert report.message.startswith("0 of 1 organs ready; seedcore_organ.a.0 waits for ")


def test_an_organ_that_is_just_being_started_is_not_unschedulable() -> None:
    waiting = organ_row(state="PENDING_CREATION", required_resources={"CPU": 0.1}) | {"pid": 0}
    stage = "0 of 1 organs ready; starting: a"
    answer = body(status="initializing", reason="starting", message=stage, stage=stage, uptime_s=60.0)
    answer["organs"][0] |= {"required": True, "replicas": [{"replica": 0}]}
    answer["unplaced"] = []

    report = judge(row(), Response(503, answer), waiting, nodes=(BIG,))

    assert (report.reason, report.message) == ("starting", stage)
    answer["unplaced"] = [waiting["name"]]
    assert judge(row(), Response(503, answer), waiting, nodes=(BIG,)).reason == "unschedulable"


@pytest.mark.parametrize(("asks", "gives_up_after_s"), [({"GPU": 1.0}, 300.0), ({"quantum": 1.0}, 15.0)])
def test_a_wait_gives_up_early_only_on_what_no_node_could_ever_hold(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, asks: dict[str, float], gives_up_after_s: float
) -> None:
    # A worker that starts slowly has no pid for a while either.
    assert cluster.coordinator is not None
    cluster.nodes[0] |= {"resources_total": BIG["resources_total"]}
    cluster.coordinator |= {"state": "PENDING_CREATION", "pid": 0, "required_resources": asks}
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(status, "time", clock)

    report = wait(cluster.settings, timeout_s=300.0, interval_s=1.0)

    assert report.reason == "unschedulable"
    assert now[0] == pytest.approx(gives_up_after_s, abs=2.0)


def test_a_wait_says_how_often_it_asked_and_whether_waiting_can_mend_it(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: time.sleep(0.001)))
    assert cluster.coordinator is not None
    cluster.coordinator |= {"state": "RESTARTING"}

    report = wait(cluster.settings, timeout_s=0.5)

    document = report.to_dict()
    assert (document["reason"], document["terminal"], document["exit_code"]) == ("restarting", False, 5)
    assert document["attempts"] > 1
    assert probe(cluster.settings).to_dict()["attempts"] == 1


CORRUPT = """[2026-11-26 10:00:00,123 I 42 42] (gcs_server) gcs_server.cc:100: starting
[2026-11-26 10:00:01,456 C 42 42] (gcs_server) rocksdb_store_client.cc:95:  An unexpected system state has \
occurred. You have likely discovered a bug in Ray. Check failed: open_status.ok() Failed to open RocksDB at \
/x/state/gcs/tables: Corruption: MANIFEST-000005 may be corrupted
[2026-11-26 10:00:01,457 E 42 42] (gcs_server) logging.cc:118: Stack trace:
"""


def test_a_store_that_the_head_cannot_open_is_told_by_its_own_log(cluster: FakeCluster, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "gcs_server.err").touch()
    away = replace(cluster.settings, dashboard_url="http://127.0.0.1:1", ray_logs=logs)
    assert probe(away).reason == "unreachable"  # there is no log

    (logs / "gcs_server.out").write_text("x" * 100_000 + "\n" + CORRUPT)
    report = probe(away)

    assert (report.healthy, report.reason, report.exit_code, report.terminal) == (False, "state_damaged", 1, False)
    assert report.message == (
        "Ray's head cannot use its store: Failed to open RocksDB at /x/state/gcs/tables: "
        "Corruption: MANIFEST-000005 may be corrupted"
    )
    # A full disk is no damage.
    (logs / "gcs_server.out").write_text(
        CORRUPT.replace("Corruption: MANIFEST", "IO error: No space left on device: MANIFEST")
    )
    report = probe(away)
    assert (report.healthy, report.reason, report.exit_code, report.terminal) == (False, "disk_full", 1, False)
    assert report.message.startswith("Ray's head does not run, because its disk is full: Failed to open RocksDB")
    # The next start writes a new log; and no log is read if the head answers.
    assert probe(replace(cluster.settings, ray_logs=logs)).healthy
    (logs / "gcs_server.out").write_text("[2026-11-26 10:00:00,123 I 42 42] (gcs_server) gcs_server.cc:100: starting\n")
    assert probe(away).reason == "unreachable"


def test_of_several_dead_coordinators_the_one_that_ended_last_is_told(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The newest worker never started, because its runtime environment could not be created.
    times = {"old": {"startTime": 1000, "endTime": 5000}, "new": {"startTime": 0, "endTime": "9000"}}
    monkeypatch.setattr("seedcore.status.state_api._get", lambda *_, **__: {"data": {"actors": times}})
    rows = [{"actor_id": "old"}, {"actor_id": "new"}]

    assert newest_actor(cluster.settings, rows, token=None, timeout_s=1.0) == {"actor_id": "new"}


def test_a_reload_that_finds_no_room_is_still_a_reload() -> None:
    waiting = organ_row(state="PENDING_CREATION", required_resources={"quantum": 1.0}) | {"pid": 0}
    answer = body(status="initializing", reason="reloading", message="reloading: 0 of 1 organs ready", uptime_s=60.0)

    report = judge(row(), Response(503, answer), waiting, nodes=(BIG,))

    assert (report.reason, report.evidence) == ("reloading", {})
    assert report.message == "reloading: 0 of 1 organs ready; seedcore_organ.a.0 waits for quantum: 1"
