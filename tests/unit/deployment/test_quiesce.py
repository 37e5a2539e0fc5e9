"""Test ``seedcore quiesce``: what it says, and its exit codes."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.deployment import driver as module
from seedcore.deployment import quiesce
from tests.support.command_line import run
from tests.support.fake_cluster import FakeCluster


class Driver:
    """Answers like the Coordinator."""

    def __init__(self) -> None:
        self.ends = True
        self.leased = [0]
        self.calls: list[str] = []

    def join(self) -> None:
        self.calls.append("join")

    def leave(self) -> None:
        self.calls.append("leave")

    def ask(self, method: str, *args: Any, timeout_s: float) -> Any:
        if method == "status":
            leased = self.leased.pop(0) if len(self.leased) > 1 else self.leased[0]
            return {"inbox": {"tasks": {"leased": leased}}}
        assert args == (timeout_s,)
        self.calls.append(f"{method} {timeout_s:g}")
        return self.ends


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    fake = Driver()
    monkeypatch.setattr(module, "Driver", lambda _settings, _remaining: fake)
    return fake


@pytest.mark.parametrize(
    ("ends", "code", "says"), [(True, 0, "no task is in flight\n"), (False, 1, "tasks are still in flight after 9 s\n")]
)
def test_it_waits_for_the_tasks_in_flight(
    cluster: FakeCluster, driver: Driver, *, ends: bool, code: int, says: str
) -> None:
    driver.ends = ends

    result = run(cluster, "quiesce", "--timeout", "9")

    assert (result.exit_code, result.stderr) == (code, says)
    assert driver.calls == ["join", "quiesce 9", "leave"]


def test_durable_tasks_in_flight_end_too_within_the_time_limit(
    cluster: FakeCluster, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiesce, "POLL_S", 0.01)
    driver.leased = [2, 1, 0]
    assert run(cluster, "quiesce", "--timeout", "9").exit_code == 0
    assert driver.leased == [0]

    driver.leased = [1]
    assert run(cluster, "quiesce", "--timeout", "0.1").exit_code == 1


def test_without_a_coordinator_it_joins_nothing(cluster: FakeCluster, driver: Driver) -> None:
    cluster.coordinator = None

    assert run(cluster, "quiesce").exit_code == 4
    assert driver.calls == []
