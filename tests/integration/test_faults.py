"""Test kills by pid: the status is never `healthy` with a dead process, and recovers by itself."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seedcore.status.report import Report
from tests.conftest import Organism, keep_ray
from tests.support.processes import kill, marked
from tests.support.ray_head import RayHead
from tests.support.waiting import eventually

ORGANS: list[dict[str, Any]] = [{"id": "one"}, {"id": "two", "task_types": ["two"], "agent_count": 2}]


def processes(report: Report) -> set[int]:
    """Return every pid that a report claims to be healthy."""
    organs = {replica["pid"] for organ in report.coordinator["organs"] for replica in organ["replicas"]}
    return {report.coordinator["pid"], *organs}


def healthy_again(organism: Organism, killed: set[int], *, timeout_s: float = 90) -> list[Report]:
    """Probe until healthy; fail if a report is healthy with a process that was killed before it."""
    reports: list[Report] = []

    def check() -> bool:
        report = organism.probe()
        reports.append(report)
        if not report.healthy:
            return False
        assert not processes(report) & killed, report
        return True

    eventually(check, timeout_s=timeout_s, interval_s=0.05, what="healthy again")
    return reports


@pytest.fixture(scope="module")
def own_heads() -> Iterator[list[Organism]]:
    """Provide the list of heads that :func:`lone` has started and not closed: at most one."""
    started: list[Organism] = []
    try:
        yield started
    finally:
        for deployment in started:
            deployment.head.close()


@pytest.fixture
def lone(
    own_heads: list[Organism], tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Organism]:
    """Provide an organism on a head that the test may kill; earlier tests may have killed and restarted it."""
    if own_heads and not own_heads[0].probe().healthy:
        own_heads.pop().head.close()
    if not own_heads:
        head = RayHead()
        own_heads.append(Organism(head, head.scope("faults"), tmp_path_factory.mktemp("lone")))
        head.start()
        own_heads[0].up(*ORGANS)
    deployment = own_heads[0]
    try:
        yield deployment
    finally:
        if keep_ray(deployment.head, request, deployment.settings):
            own_heads.clear()
        else:
            deployment.end_processes()


def test_a_killed_organ_is_seen_at_once_and_comes_back(organism: Organism) -> None:
    organism.up(*ORGANS)
    before = organism.probe()
    pid = before.coordinator["organs"][1]["replicas"][0]["pid"]

    kill(pid)
    reports = healthy_again(organism, {pid})
    assert not reports[0].healthy, "the probe right after the kill must not be green"

    assert {report.reason for report in reports[:-1]} == {"organs_down"}
    assert reports[-1].coordinator["pid"] == before.coordinator["pid"]
    assert organism.submit("two")["success"] is True


_KILL_AND_ASK = """
import signal
coordinator = ray.get_actor("seedcore_coordinator")
seen, deadline = [], time.monotonic() + 60
os.kill(PID, signal.SIGKILL)
while time.monotonic() < deadline:
    answer = ray.get(coordinator.handle.remote({"type": "two", "timeout_s": 5}))
    status = ray.get(coordinator.get_status.remote())
    seen.append({"success": answer["success"], "executed": answer.get("executed"), "error": answer.get("error"),
                 "status": status["status"], "message": status["message"]})
    if answer["success"] and len(seen) > 1:
        break
    time.sleep(0.02)
say(seen)
"""


def test_no_status_is_better_than_the_last_answer_to_a_task(organism: Organism) -> None:
    organism.up(*ORGANS)
    pid = organism.told()["organs"][1]["replicas"][0]["pid"]

    seen = organism.drive(_KILL_AND_ASK.replace("PID", str(pid)))

    failed = [entry for entry in seen if not entry["success"]]
    assert failed, "the kill was not noticed by any task"
    # A healthy status between a refused task and a successful one is true: the new process came up in that moment.
    rosy = [
        entry
        for entry, after in itertools.pairwise(seen)
        if not entry["success"] and entry["status"] == "healthy" and not after["success"]
    ]
    assert rosy == []
    assert seen[-1]["success"]
    # Only tasks in flight when the process died are in doubt; nothing is sent while Ray restarts it.
    assert [entry["executed"] for entry in failed[2:] if entry["executed"] != "no"] == []


def test_a_killed_coordinator_comes_back_and_adopts_its_organs(organism: Organism) -> None:
    organism.up(*ORGANS)
    before = organism.probe()
    pid = before.coordinator["pid"]

    kill(pid)
    reports = healthy_again(organism, {pid})
    assert not reports[0].healthy, "the probe right after the kill must not be green"

    assert {report.reason for report in reports[:-1]} <= {"restarting", "not_responding"}
    after = reports[-1]
    assert processes(after) - {after.coordinator["pid"]} == processes(before) - {pid}
    assert after.coordinator["restarts"] == 1
    assert organism.submit("two")["success"] is True


def test_a_stopped_coordinator_does_not_respond_and_bootstrap_replaces_it(organism: Organism) -> None:
    organism.up(*ORGANS)
    pid = organism.probe().coordinator["pid"]

    kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert organism.probe(timeout_s=1.0).reason == "not_responding"
        assert time.monotonic() - began < 3
        done = organism.run("bootstrap", "--config", str(organism.config(*ORGANS)))
        assert done.returncode == 0, done.stderr
    finally:
        kill(pid)
    after = organism.probe()
    assert after.healthy
    assert after.coordinator["pid"] != pid


def test_a_stopped_organ_is_replaced(organism: Organism) -> None:
    organism.up({"id": "one", "health_timeout_s": 1, "failure_threshold": 2})
    pid = organism.told()["organs"][0]["replicas"][0]["pid"]

    kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: not organism.probe().healthy, timeout_s=10, what="the stopped organ is noticed")
        eventually(lambda: organism.probe().healthy, timeout_s=60, what="a new process")
        assert organism.told()["organs"][0]["replicas"][0]["pid"] != pid
        eventually(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=20, what="the end of the stopped process")
    finally:
        kill(pid)
    assert organism.submit("task_1")["success"] is True


@pytest.mark.timeout(900)
def test_the_whole_head_is_killed_and_comes_back(lone: Organism) -> None:
    head = lone.head
    before = processes(lone.probe())

    head.kill()
    assert lone.probe().reason == "unreachable"
    head.start()
    reports = healthy_again(lone, before)

    assert {report.reason for report in reports[:-1]} <= {
        "unreachable", "nodes_missing", "restarting", "not_responding", "unschedulable", "starting", "organs_down",
    }  # fmt: skip
    assert lone.submit("two")["success"] is True


@pytest.mark.timeout(900)
def test_a_killed_raylet_ends_the_head_and_nothing_claims_to_be_well(lone: Organism) -> None:
    head = lone.head
    before = processes(lone.probe())
    (raylet,) = [pid for pid, command in marked(head.mark).items() if command.split()[0].endswith("/raylet")]

    kill(raylet)
    eventually(lambda: head.process.poll() is not None, timeout_s=30, what="`ray start --block` has ended")
    assert not lone.probe().healthy
    head.kill()
    head.start()
    healthy_again(lone, before)


def test_a_cluster_that_cannot_be_asked_is_unknown_and_not_absent(head: RayHead, tmp_path: Path) -> None:
    stranger = Organism(head, head.scope("nobody"), tmp_path)

    assert stranger.probe().reason == "absent"
    assert stranger.run("status").returncode == 3

    token = tmp_path / "token"
    token.write_text("0" * 32)
    refused = head.env(stranger.settings) | {"RAY_AUTH_TOKEN_PATH": str(token)}
    assert _status_code(stranger, refused) == 4
    gone = head.env(stranger.settings) | {"SEEDCORE_DASHBOARD_URL": "http://127.0.0.1:9"}
    assert _status_code(stranger, gone) == 4


def _status_code(organism: Organism, env: dict[str, str]) -> int:
    done = subprocess.run(
        [sys.executable, "-m", "seedcore", "status"], env=env, cwd=organism.directory, capture_output=True, check=False
    )
    return done.returncode


def test_a_process_that_dies_again_and_again_is_left_alone_and_told_with_its_cause(
    organism: Organism, tmp_path: Path
) -> None:
    blocker = tmp_path / "blocker"
    dies = {"agent": "helpers:DiesWhileFileExists", "options": {"path": str(blocker)}}
    organism.up({"id": "calm"}, {"id": "weak", "task_types": ["weak"], **dies})
    calm = organism.told()["organs"][0]["replicas"][0]["pid"]

    blocker.touch()
    kill(organism.told()["organs"][1]["replicas"][0]["pid"])

    def left_alone() -> Report | None:
        report = organism.probe()
        return report if "crash loop: " in report.message else None

    report = eventually(left_alone, timeout_s=120, what="the crash loop is told")
    assert report.reason == "organs_down"
    told = re.search(r"weak: 0 of 1 agents ready \(crash loop: (\d+) deaths, last: its process died", report.message)
    assert told is not None, report.message
    # Five, or more if a slow machine was probed later; each death doubles the pause.
    deaths = int(told[1])
    assert deaths >= 5
    assert f"next start in {5 * 2 ** (deaths - 5)} s" in report.message
    assert report.coordinator["progress"]["agents_ready"] == 1, "those of a dead process do not count"
    assert organism.submit("weak")["error"].startswith("organ weak is not ready: crash loop: ")
    assert organism.submit("task_1")["success"] is True

    blocker.unlink()
    eventually(lambda: organism.probe().healthy, timeout_s=90, what="the organ works again")
    assert organism.told()["organs"][0]["replicas"][0]["pid"] == calm


def test_a_process_that_dies_while_it_starts_fails_the_first_start_at_once(organism: Organism, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.touch()
    dies = {"agent": "helpers:DiesWhileFileExists", "options": {"path": str(blocker)}}
    path = organism.config({"id": "one"}, {"id": "weak", "start_timeout_s": 600, **dies})

    done = organism.run("bootstrap", "--config", str(path), "--retries", "0", "--wait-timeout", "120")

    assert done.returncode == 1
    # Three, or more if a fast machine restarted it again before the Coordinator's question.
    told = re.search(r"the process of organ weak died (\d+) times while it started", done.stderr + done.stdout)
    assert told is not None, done.stderr + done.stdout
    assert int(told[1]) >= 3
    assert organism.actors() == []
