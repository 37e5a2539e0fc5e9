"""Test ``seedcore rebalance``: its output, its exit codes, and that it stops at a deviation from the plan."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seedcore.deployment import driver as module
from tests.support.command_line import run
from tests.support.fake_cluster import FakeCluster

PLAN = [
    {"organ_id": "one", "replica": 0, "from": "head", "to": "a"},
    {"organ_id": "two", "replica": 1, "from": "head", "to": "b"},
]


class Driver:
    """Answers like the Coordinator; the organ ``broken`` cannot be moved."""

    def __init__(self) -> None:
        self.plan = PLAN
        self.broken: str | None = None
        self.calls: list[str] = []

    def join(self) -> None:
        self.calls.append("join")

    def leave(self) -> None:
        self.calls.append("leave")

    def ask(self, method: str, *args: Any, timeout_s: float) -> dict[str, Any]:
        assert 0 < timeout_s <= 600
        if method == "moves":
            return {"success": True, "moves": self.plan}
        organ_id, replica, limit_s = args
        assert 0 < limit_s <= 600
        self.calls.append(f"{organ_id}[{replica}]")
        if organ_id == self.broken:
            return {"success": False, "error": "two[1] is not back within 9 s\x1b[1m"}
        return {"success": True, "to": "c" if organ_id == "two" else "a"}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    fake = Driver()
    monkeypatch.setattr(module, "Driver", lambda _settings, _remaining: fake)
    return fake


def test_a_dry_run_says_what_would_move_and_moves_nothing(cluster: FakeCluster, driver: Driver) -> None:
    result = run(cluster, "rebalance", "--dry-run")

    assert result.exit_code == 0
    assert result.stdout == "would move one[0] from head to a\nwould move two[1] from head to b\n"
    assert driver.calls == ["join", "leave"]


def test_replicas_move_one_after_the_other_and_it_says_where_they_are(cluster: FakeCluster, driver: Driver) -> None:
    result = run(cluster, "rebalance")

    assert result.exit_code == 0
    assert result.stdout == "moved one[0] from head to a (0.0 s)\nmoved two[1] from head to c (0.0 s)\n"
    assert result.stderr == "moving one[0] from head to a\nmoving two[1] from head to b\n"
    assert driver.calls == ["join", "one[0]", "two[1]", "leave"]


def test_the_first_that_cannot_be_moved_is_the_last_that_is_tried(cluster: FakeCluster, driver: Driver) -> None:
    driver.broken = "two"
    driver.plan = [*PLAN, {"organ_id": "three", "replica": 0, "from": "head", "to": "a"}]

    result = run(cluster, "rebalance", "--json")

    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["plan"], len(document["moved"])) == (driver.plan, 1)
    assert result.stderr.splitlines()[-1] == "moved 1 of 3: two[1] is not back within 9 s?[1m"
    assert driver.calls == ["join", "one[0]", "two[1]", "leave"]


def test_nothing_to_move_is_said_in_words(cluster: FakeCluster, driver: Driver) -> None:
    driver.plan = []
    result = run(cluster, "rebalance")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "nothing to move: every replica is on the node that a new start would choose\n"


def test_without_a_coordinator_that_has_come_up_nothing_is_asked(cluster: FakeCluster, driver: Driver) -> None:
    cluster.coordinator = None
    result = run(cluster, "rebalance")
    assert (result.exit_code, driver.calls) == (4, [])
    assert result.stderr.startswith("absent: ")
