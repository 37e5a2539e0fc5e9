"""Test kills of a deployment's processes: the status is always true, and recovers to healthy without help."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from seedcore.deployment.socket_holder import HOLD_S
from tests.deploy.conftest import Deployment
from tests.support import http_load
from tests.support.processes import kill
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(2400)

# On a busy machine Ray alone needs minutes to start.
HEALED_S = 420


def status(deployment: Deployment) -> dict[str, Any]:
    done = deployment.seedcore("status", "--json")
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) is report["healthy"]
    return report


def claimed(report: dict[str, Any]) -> set[int]:
    """Return every pid that a report claims to be healthy."""
    coordinator = report["coordinator"]
    return {coordinator["pid"], *(replica["pid"] for organ in coordinator["organs"] for replica in organ["replicas"])}


def heals(deployment: Deployment, broken: set[int], *, timeout_s: float = HEALED_S) -> list[str]:
    """Probe until the status is healthy without the killed processes; return the reasons reported meanwhile."""
    reasons: list[str] = []

    def healthy() -> bool:
        report = status(deployment)
        if report["healthy"]:
            assert not claimed(report) & broken, report
            return True
        if report["reason"] not in reasons:
            reasons.append(report["reason"])
        return False

    eventually(healthy, timeout_s=timeout_s, what="healthy again by itself")
    answer = deployment.seedcore("submit", "echo", "--params", '{"text": "alive"}')
    assert answer.returncode == 0, answer.stderr
    return reasons


def journal(deployment: Deployment, event: str) -> list[dict[str, Any]]:
    lines = (deployment.prefix / "state" / "seedcore" / "supervisor.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def of_ray(deployment: Deployment) -> set[int]:
    """Return the deployment's processes except supervisord and our supervisor."""
    spared = {"supervisord", "seedcore"}
    return {pid for pid, name in deployment.processes().items() if name not in spared}


@contextmanager
def load(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """Submit tasks by plain HTTP without retries; the result is complete at the end of the block."""
    result: dict[str, Any] = {}
    command = [sys.executable, http_load.__file__, str(deployment.variables["seedcore_http_port"]), "20"]
    with subprocess.Popen(
        [*deployment.wrapper, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        process.stdin.write((deployment.prefix / "etc" / "token").read_text().strip() + "\n")
        process.stdin.flush()
        yield result
        said, _ = process.communicate(timeout=300)
    result.update(json.loads(said))


def check_load(result: dict[str, Any]) -> None:
    """Require that no caller saw an error, unless the pause was longer than connections wait."""
    assert result["done"] > 0
    assert not result["failed"] or result["pause_s"] > HOLD_S - 2, result


def test_a_killed_organ(deployed: Deployment) -> None:
    pid = status(deployed)["coordinator"]["organs"][0]["replicas"][0]["pid"]

    kill(pid)

    assert set(heals(deployed, {pid})) == {"organs_down"}


def test_a_killed_coordinator(deployed: Deployment) -> None:
    before = status(deployed)
    pid = before["coordinator"]["pid"]

    with load(deployed) as seen:
        kill(pid)
        assert set(heals(deployed, {pid})) <= {"restarting", "not_responding"}

    check_load(seen)
    assert claimed(status(deployed)) - {status(deployed)["coordinator"]["pid"]} == claimed(before) - {pid}


def test_another_release_takes_over_while_callers_only_wait(deployed: Deployment) -> None:
    before = status(deployed)
    document = (deployed.prefix / "current").resolve() / "release.json"
    text = document.read_text()
    own = before["coordinator"]["release"]

    with load(deployed) as seen:
        try:
            # What a release is called is in this file; processes that start from now on are of another one.
            document.write_text(text.replace(f'"{own}"', f'"{own}-next"'))
            done = deployed.seedcore("bootstrap", "--json", "--wait-timeout", "100")
        finally:
            document.write_text(text)

    after = json.loads(done.stdout)
    assert (done.returncode, after["action"]) == (0, "replace"), done.stderr
    assert after["status"]["coordinator"]["release"] == f"{own}-next"
    assert not claimed(after["status"]) & claimed(before), "every process is another one"
    check_load(seen)
    assert deployed.seedcore("bootstrap", "--wait-timeout", "100").returncode == 0
    assert status(deployed)["coordinator"]["release"] == own


def test_a_coordinator_that_hangs_is_replaced_by_the_supervisor(deployed: Deployment) -> None:
    pid = status(deployed)["coordinator"]["pid"]

    kill(pid, signal.SIGSTOP)
    try:
        assert status(deployed)["reason"] == "not_responding"
        assert "not_responding" in heals(deployed, {pid})
    finally:
        kill(pid)

    assert journal(deployed, "kill")[-1]["pid"] == pid


def test_a_node_that_runs_but_is_not_well_is_started_again(deployed: Deployment) -> None:
    def raylets() -> set[int]:
        return {pid for pid, name in deployed.processes().items() if name == "raylet"}

    before = raylets()
    (agent,) = (pid for pid, name in deployed.processes().items() if name.startswith("ray::Dashboard"))
    kill(agent, signal.SIGSTOP)

    eventually(lambda: not raylets() & before, timeout_s=HEALED_S, what="the node is killed")
    heals(deployed, {agent, *before})

    log = (deployed.prefix / "log" / "seedcore-ray-watchdog.log").read_text()
    assert "kill the node: pid=" in log


def test_the_head(deployed: Deployment) -> None:
    before = claimed(status(deployed))
    (raylet,) = (pid for pid, name in deployed.processes().items() if name == "raylet")

    kill(raylet)

    assert heals(deployed, {raylet, *before})


def test_everything_at_once_with_the_state_of_the_cluster_damaged(deployed: Deployment) -> None:
    doomed, state = of_ray(deployed), deployed.prefix / "state"
    manifests = [path for path in state.glob("gcs/*/MANIFEST-*") if path.stat().st_size]
    assert manifests
    for path in manifests:
        path.write_bytes(b"no manifest at all" * 20)

    for pid in doomed:
        kill(pid)

    assert "state_damaged" in heals(deployed, doomed)
    (aside,) = state.glob("gcs-damaged-*")
    assert {path.parent.name for path in aside.glob("*/MANIFEST-*")} >= {path.parent.name for path in manifests}
    log = (deployed.prefix / "log" / "seedcore-ray.log").read_text()
    assert f"moved it to {aside} and start with a new one" in log
