"""Test the supervisor on a real Ray: it repairs faults that Ray does not, and leaves healthy processes alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seedcore.status.report import Report
from tests.conftest import Organism
from tests.support.processes import kill
from tests.support.waiting import eventually

PATIENCE = ("--interval", "0.5", "--hang-timeout", "4", "--bootstrap-timeout", "60")
LOSE_THE_COORDINATOR = """
ray.kill(ray.get_actor("seedcore_coordinator", namespace=os.environ["RAY_NAMESPACE"]), no_restart=True)
say("killed")
"""


def journal(organism: Organism, event: str = "") -> list[dict[str, Any]]:
    path = organism.settings.state_dir / "supervisor.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [entry for entry in entries if event in {"", entry["event"]}]


def organs(report: Report) -> dict[str, int]:
    return {organ["organ_id"]: organ["replicas"][0]["pid"] for organ in report.coordinator["organs"]}


@contextmanager
def supervised(organism: Organism) -> Iterator[subprocess.Popen[str]]:
    """Run a supervisor for the duration of the block, then require a clean exit."""
    process = organism.start("supervise", *PATIENCE)
    try:
        eventually(lambda: journal(organism, "started"), what="the supervisor")
        yield process
    finally:
        process.terminate()
        _, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "the probe failed" not in err
    assert err.rstrip().endswith("stopped")


def healthy_without(organism: Organism, pid: int, *, timeout_s: float = 90) -> Report:
    """Wait until another process is healthy; fail if a report calls the old one healthy."""

    def check() -> Report | None:
        report = organism.probe()
        assert not (report.healthy and report.coordinator["pid"] == pid), report
        return report if report.healthy else None

    return eventually(check, timeout_s=timeout_s, what="a healthy Coordinator in another process")


def is_stopped(pid: int) -> bool:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(text.rpartition(")")[2].split()[0] == "T" for text in stats)


def test_a_stopped_coordinator_is_killed_and_comes_back_with_its_organs(organism: Organism) -> None:
    organism.up({"id": "one"}, {"id": "two"})
    before = organism.probe()
    pid = before.coordinator["pid"]
    with supervised(organism):
        os.kill(pid, signal.SIGSTOP)
        try:
            # On a busy machine its threads keep running for a moment.
            eventually(lambda: is_stopped(pid), what="a process that has stopped")
            assert organism.probe(timeout_s=1).reason == "not_responding"
            after = healthy_without(organism, pid)
        finally:
            kill(pid)
        eventually(lambda: journal(organism, "recovered"), what="the last word in the journal")

    assert after.coordinator["actor_id"] == before.coordinator["actor_id"]
    assert organs(after) == organs(before)
    (killed,) = journal(organism, "kill")
    assert (killed["pid"], killed["outcome"]) == (pid, "killed")
    # On a busy machine its end may take longer than the supervisor waits for it.
    assert killed["detail"].startswith("it was in state T")
    assert killed["why"].startswith("not_responding for ")
    assert journal(organism, "bootstrap") == []
    assert organism.submit("task_2")["success"] is True


def test_a_coordinator_that_is_lost_is_started_again_as_it_was(organism: Organism) -> None:
    organism.up({"id": "one"}, {"id": "two"})
    before = organism.probe()
    with supervised(organism):
        organism.drive(LOSE_THE_COORDINATOR)
        after = healthy_without(organism, before.coordinator["pid"])

    assert after.coordinator["fingerprint"] == before.coordinator["fingerprint"]
    assert organs(after) == organs(before)
    (entry,) = journal(organism, "bootstrap")
    assert entry["why"].startswith("absent for ")
    assert entry["config"] == str(organism.directory / "organism.yaml")


def test_a_cause_that_passes_is_outlived(organism: Organism) -> None:
    blocker = organism.directory / "blocker"
    organism.up({"id": "one", "agent": "helpers:FailsWhileFileExists", "options": {"path": str(blocker)}})
    before = organism.probe()
    blocker.touch()
    with supervised(organism):
        # Kill the organ first, so that the restarted Coordinator finds nothing to adopt.
        kill(organs(before)["one"])
        organism.drive(LOSE_THE_COORDINATOR)
        failed = eventually(lambda: journal(organism, "bootstrap_ended"), timeout_s=120, what="a failed bootstrap")
        assert failed[0]["reason"] == "init_failed"
        blocker.unlink()
        healthy_without(organism, before.coordinator["pid"], timeout_s=120)


def test_what_was_shut_down_stays_down_and_what_runs_is_left_alone(organism: Organism) -> None:
    organism.up({"id": "one"})
    before = organism.probe()
    with supervised(organism) as supervisor:
        assert organism.run("status", "--wait", "--timeout", "30", "--stable", "6").returncode == 0
        assert organism.probe().coordinator["pid"] == before.coordinator["pid"]

        assert organism.run("shutdown").returncode == 0
        # Wait longer than the supervisor takes to repair an absence that nobody wanted.
        waited = organism.run("status", "--wait", "--timeout", "10", "--json")
        assert (waited.returncode, json.loads(waited.stdout)["reason"]) == (3, "absent")
        assert organism.actors() == []
        assert supervisor.poll() is None

    assert [entry["event"] for entry in journal(organism)] == ["started", "stopped"]
