"""Test ``seedcore quiesce``: what it says, and its exit codes."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.deployment import quiesce as module
from tests.support.command_line import run
from tests.support.fake_cluster import FakeCluster


class Driver:
    """Answers like the Coordinator."""

    def __init__(self) -> None:
        self.ends = True
        self.calls: list[str] = []

    def join(self) -> None:
        self.calls.append("join")

    def leave(self) -> None:
        self.calls.append("leave")

    def ask(self, method: str, *args: Any, timeout_s: float) -> bool:
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


def test_without_a_coordinator_it_joins_nothing(cluster: FakeCluster, driver: Driver) -> None:
    cluster.coordinator = None

    assert run(cluster, "quiesce").exit_code == 4
    assert driver.calls == []
