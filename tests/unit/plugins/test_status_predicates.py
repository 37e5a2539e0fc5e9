from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.plugins.conftest import FAILED, HEALTHY, STARTING

status: Any = pytest.importorskip("ansible_collections.seedcore.cluster.plugins.module_utils.status")

DEFAULTS = {name: option.get("default") for name, option in status.ARGUMENT_SPEC.items()}
UNPLACED = {**STARTING, "reason": "unschedulable"}
DEGRADED = {**HEALTHY, "degraded": True, "reason": "degraded"}


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def wait(clock: Clock, look: Callable[[], dict[str, Any]], **options: Any) -> tuple[dict[str, Any], int]:
    given = {"timeout_s": 10, "sleep_s": 2, **options}
    found: tuple[dict[str, Any], int] = status.wait_for(look, clock=clock, sleep=clock.sleep, **given)
    return found


def test_the_defaults_have_no_fault() -> None:
    assert status.faults(DEFAULTS) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wait_timeout": 0}, "wait_timeout is 0, allowed is 1 or more"),
        ({"wait_timeout": -5, "wait": True}, "wait_timeout is -5, allowed is 1 or more"),
        ({"wait_sleep": 0}, "wait_sleep is 0, allowed is 1 or more"),
        ({"stable_s": -1}, "stable_s is -1, allowed is 0 or more"),
        ({"command_timeout": 0}, "command_timeout is 0, allowed is 1 or more"),
        ({"expected_nodes": 0}, "expected_nodes is 0, allowed is 1 or more"),
        ({"expected_release": " "}, "expected_release is empty, allowed is a text or no expected_release at all"),
        ({"executable": ""}, "executable is empty, allowed is a text or no executable at all"),
        ({"namespace": ""}, "namespace is empty, allowed is a text or no namespace at all"),
        ({"namespace": "a b"}, "namespace is 'a b', allowed is one word"),
        ({"address": "head"}, "address is 'head', allowed is host:port"),
        ({"address": "head:70000"}, "address is 'head:70000', allowed is host:port"),
        ({"expected_node_names": ["a", ""]}, "expected_node_names has an empty name, allowed are names of nodes"),
        ({"expected_node_names": ["a", "a"]}, "expected_node_names has a name twice, allowed is each name once"),
        (
            {"wait": True, "wait_timeout": 5, "stable_s": 5},
            "stable_s is 5, allowed is less than wait_timeout (5)",
        ),
    ],
)
def test_each_fault_is_named_with_what_is_allowed(options: dict[str, Any], said: str) -> None:
    assert status.faults({**DEFAULTS, **options}) == [said]


def test_all_faults_are_named_at_once() -> None:
    assert len(status.faults({**DEFAULTS, "wait_timeout": 0, "wait_sleep": 0, "namespace": ""})) == 3


def test_a_wait_ends_at_the_first_report_that_passes() -> None:
    clock = Clock()
    reports = iter([STARTING, STARTING, HEALTHY])
    report, attempts = wait(clock, lambda: next(reports))
    assert report["healthy"]
    assert (attempts, clock.slept) == (3, [2, 2])


def test_a_wait_ends_at_once_on_a_terminal_reason() -> None:
    clock = Clock()
    report, attempts = wait(clock, lambda: FAILED)
    assert (report["reason"], attempts, clock.slept) == ("init_failed", 1, [])


def test_a_wait_looks_once_more_at_the_deadline_and_not_after_it() -> None:
    clock = Clock()
    _, attempts = wait(clock, lambda: STARTING, timeout_s=5, sleep_s=2)
    assert (attempts, clock.slept) == (4, [2, 2, 1])


def test_a_wait_looks_at_least_once_however_long_a_look_takes() -> None:
    clock = Clock()

    def look() -> dict[str, Any]:
        clock.now += 60
        return STARTING

    assert wait(clock, look, timeout_s=1)[1] == 1


def test_what_has_no_place_for_long_is_terminal() -> None:
    clock = Clock()
    report, attempts = wait(clock, lambda: UNPLACED, timeout_s=300, sleep_s=5)
    assert (report["reason"], attempts) == ("unschedulable", 4)


def test_what_finds_its_place_in_time_is_waited_for() -> None:
    clock = Clock()
    reports = iter([UNPLACED, UNPLACED, STARTING, UNPLACED, UNPLACED, HEALTHY])
    assert wait(clock, lambda: next(reports), timeout_s=300, sleep_s=5)[0]["healthy"]


def test_a_failed_module_ends_the_wait() -> None:
    assert wait(Clock(), lambda: {"failed": True, "msg": "no such host"})[1] == 1


def test_degraded_passes_only_if_it_is_allowed() -> None:
    assert not status.passes(DEGRADED)
    assert status.passes(DEGRADED, allow_degraded=True)


def test_a_node_that_is_not_alive_turns_a_healthy_report_bad() -> None:
    report = status.with_node_names(HEALTHY, ["head", "worker-2", "worker-1"])
    assert (report["healthy"], report["status"], report["reason"]) == (False, "unhealthy", "nodes_missing")
    assert report["message"] == "nodes that are not alive: worker-1, worker-2"
    assert report["nodes"]["missing"] == ["worker-1", "worker-2"]


def test_a_missing_node_does_not_hide_a_worse_reason() -> None:
    report = status.with_node_names(FAILED, ["worker-1"])
    assert (report["reason"], report["nodes"]["missing"]) == ("init_failed", ["worker-1"])


def test_the_line_of_a_failure() -> None:
    line = status.failure_line(FAILED, elapsed_s=4.2)
    assert line == "init_failed: agent a_agent_0 did not start: no such file (after 4 s)"


def test_the_line_of_what_still_initializes_says_so_once() -> None:
    line = "starting: still initializing: 1 of 3 organs ready (after 5 s)"
    assert status.failure_line(STARTING, elapsed_s=5.3) == line
    said = {**STARTING, "message": "still initializing: 1 of 3 organs ready"}
    assert status.failure_line(said, elapsed_s=5.3) == line
