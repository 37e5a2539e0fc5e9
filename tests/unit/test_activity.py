"""The last ten minutes, in memory."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.activity import INTERVAL_S, INTERVALS, MAX_DURATIONS, MAX_FAILURES, Activity


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def activity(clock: Clock) -> Activity:
    return Activity(clock)


def done(organ_id: str = "one") -> dict[str, Any]:
    return {"success": True, "result": 1, "organ_id": organ_id, "agent_id": f"{organ_id}_agent_0"}


def failed(error: str = "no such file", **keys: Any) -> dict[str, Any]:
    answer = {"success": False, "error": error, "error_type": "OSError", "organ_id": "one", "agent_id": "one_agent_0"}
    return answer | keys


def ends(activity: Activity, clock: Clock, *, in_flight: int = 0, queued: int = 0) -> None:
    activity.tick(in_flight=in_flight, queued=queued)
    clock.now += INTERVAL_S
    activity.tick(in_flight=0, queued=0)


def test_an_interval_has_rates_and_durations(activity: Activity, clock: Clock) -> None:
    for milliseconds in range(1, 101):
        activity.task("read", done(), milliseconds / 1000, counts=True)
    activity.task("read", failed(), 9.0, counts=True)
    ends(activity, clock, in_flight=7, queued=3)

    said = activity.to_dict()

    assert said["samples"] == {
        "at": [1_000_000.0],
        "done_per_s": [50.0],
        "failed_per_s": [0.5],
        "p50_s": [0.051],
        "p95_s": [0.096],
        "in_flight": [7],
        "queued": [3],
    }
    assert said["now"] == clock.now
    assert said["organs"] == [
        {"organ_id": "one", "done": 100, "failed": 1, "per_s": 50.5, "failed_per_s": 0.5, "mean_s": 0.139109}
    ]


def test_an_interval_without_tasks_has_no_durations(activity: Activity, clock: Clock) -> None:
    ends(activity, clock)

    assert activity.to_dict()["samples"]["p50_s"] == [None]


def test_a_late_tick_does_not_raise_the_rate(activity: Activity, clock: Clock) -> None:
    for _ in range(100):
        activity.task("read", done(), 0.1, counts=True)
    clock.now += 10
    activity.tick(in_flight=0, queued=0)

    assert activity.to_dict()["samples"]["done_per_s"] == [10.0]


def test_memory_is_bounded(activity: Activity, clock: Clock) -> None:
    for number in range(INTERVALS + 20):
        for _ in range(3):
            activity.task("read", failed(f"error {number}"), 0.1, counts=True)
        ends(activity, clock)
    for _ in range(3 * MAX_DURATIONS):
        activity.task("read", done(), 0.1, counts=True)

    said = activity.to_dict()
    assert {len(column) for column in said["samples"].values()} == {INTERVALS}
    assert len(said["failures"]) == MAX_FAILURES
    assert len(activity._open.durations) == MAX_DURATIONS


def test_a_question_is_no_work(activity: Activity, clock: Clock) -> None:
    activity.task("get_metrics", {"success": True, "organ_id": None}, 5.0, counts=False)
    ends(activity, clock)

    assert activity.to_dict()["samples"]["done_per_s"] == [0.0]


def test_equal_failures_are_one_entry_and_the_last_comes_first(activity: Activity, clock: Clock) -> None:
    for _ in range(3):
        activity.task("read", failed(), 0.1, counts=True)
    clock.now += 1
    activity.task("write", failed("disk full"), 0.1, counts=True)
    clock.now += 1
    activity.task("read", failed(), 0.1, counts=True)

    first, second = activity.to_dict()["failures"]
    assert (first["error"], first["count"], first["first_at"], first["at"]) == (
        "no such file",
        4,
        1_000_000.0,
        1_000_002.0,
    )
    assert (first["kind"], first["task_type"], first["agent_id"], first["error_type"]) == (
        "task",
        "read",
        "one_agent_0",
        "OSError",
    )
    assert (second["error"], second["count"]) == ("disk full", 1)


def test_a_long_error_is_cut(activity: Activity) -> None:
    activity.task("read", failed("x" * 100_000), 0.1, counts=True)

    assert len(activity.to_dict()["failures"][0]["error"]) == 500


def test_a_process_that_goes_down_is_remembered_with_its_cause(activity: Activity) -> None:
    def organ(state: str, error: str | None) -> list[dict[str, Any]]:
        return [{"organ_id": "one", "replicas": [{"replica": 0, "state": state, "error": error, "node_id": "n"}]}]

    for state, error in [
        ("starting", None),
        ("ready", None),
        ("down", "it died"),
        ("down", "it died"),
        ("ready", None),
    ]:
        activity.organs(organ(state, error))

    (entry,) = activity.to_dict()["failures"]
    assert (entry["kind"], entry["organ_id"], entry["replica"], entry["error"]) == ("process", "one", 0, "it died")
    assert entry["count"] == 1
    activity.organs(organ("down", "it died"))
    assert activity.to_dict()["failures"][0]["count"] == 2


def counts(**outcomes: int) -> list[dict[str, Any]]:
    return [
        {"task_type": "read", "outcome": outcome, "count": count, "seconds_sum": count * 0.25, "buckets": []}
        for outcome, count in outcomes.items()
    ]


def test_what_came_to_an_organ_directly_counts_once_and_what_came_before_not_at_all(
    activity: Activity, clock: Clock
) -> None:
    activity.counted("one", counts(success=1000))
    for _ in range(4):
        activity.task("read", done() | {"task_type": "read"}, 0.25, counts=True)
    # The organ's own count of those four comes later, and two direct ones with it.
    activity.counted("one", counts(success=1002))
    activity.counted("one", counts(success=1006, OSError=3))
    activity.counted("one", counts(success=1006, OSError=3))
    ends(activity, clock)

    said = activity.to_dict()
    assert (said["samples"]["done_per_s"], said["samples"]["failed_per_s"]) == ([3.0], [1.5])
    assert (said["organs"][0]["done"], said["organs"][0]["failed"], said["organs"][0]["mean_s"]) == (6, 3, 0.25)
    (failure,) = said["failures"]
    assert (failure["count"], failure["error_type"]) == (3, "OSError")
    assert "directly" in failure["error"]


def test_counts_that_begin_anew_are_no_news(activity: Activity, clock: Clock) -> None:
    activity.counted("one", counts(success=10))
    activity.counted("one", counts(success=12))
    activity.counted("one", counts(success=1))
    activity.counted("one", counts(success=3))
    ends(activity, clock)

    assert activity.to_dict()["organs"][0]["done"] == 4
