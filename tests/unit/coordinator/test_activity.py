"""Test the in-memory activity of the last ten minutes."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from seedcore.coordinator.activity import INTERVAL_S, INTERVALS, MAX_FAILURES, Activity
from seedcore.core.task_counters import BUCKETS_S, TaskCounts


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


def failed(error: str = "no such file", **keys: Any) -> dict[str, Any]:
    answer = {"success": False, "error": error, "error_type": "OSError", "organ_id": "one", "agent_id": "one_agent_0"}
    return answer | keys


class Organ:
    """Counts tasks and reports the counters like an organ."""

    def __init__(self, activity: Activity, organ_id: str = "one") -> None:
        self.activity = activity
        self.organ_id = organ_id
        self.counts = TaskCounts()
        self.reports()

    def does(
        self, times: int = 1, seconds: float = 0.1, *, error_type: str | None = None, direct: bool = False
    ) -> None:
        answer = {"success": error_type is None, "error_type": error_type}
        for _ in range(times):
            self.counts.add("read", answer, seconds, known={"read"}, direct=direct)

    def reports(self) -> None:
        self.activity.counted(self.organ_id, self.counts.to_list())


@pytest.fixture
def organ(activity: Activity) -> Organ:
    return Organ(activity)


def ends(activity: Activity, clock: Clock, *, in_flight: int = 0, queued: int = 0) -> None:
    activity.tick(in_flight=in_flight, queued=queued)
    clock.now += INTERVAL_S
    activity.tick(in_flight=0, queued=0)


def test_an_interval_has_rates_and_durations(activity: Activity, clock: Clock, organ: Organ) -> None:
    for milliseconds in range(1, 101):
        organ.does(seconds=milliseconds / 1000)
    organ.does(seconds=9.0, error_type="OSError")
    organ.reports()
    ends(activity, clock, in_flight=7, queued=3)

    said = activity.to_dict()

    samples = said["samples"]
    assert (samples["at"], samples["in_flight"], samples["queued"]) == ([1_000_000.0], [7], [3])
    assert (samples["done_per_s"], samples["failed_per_s"]) == ([50.0], [0.5])
    assert samples["p50_s"] == [pytest.approx(0.05, abs=0.002)]
    assert samples["p95_s"] == [pytest.approx(0.096, abs=0.005)]
    assert said["now"] == clock.now
    assert said["organs"] == [
        {"organ_id": "one", "done": 100, "failed": 1, "per_s": 50.5, "failed_per_s": 0.5, "mean_s": 0.139109}
    ]


def test_an_interval_without_tasks_has_no_durations(activity: Activity, clock: Clock) -> None:
    ends(activity, clock)

    assert activity.to_dict()["samples"]["p50_s"] == [None]


def test_a_late_tick_does_not_raise_the_rate(activity: Activity, clock: Clock, organ: Organ) -> None:
    organ.does(100)
    organ.reports()
    clock.now += 10
    activity.tick(in_flight=0, queued=0)

    assert activity.to_dict()["samples"]["done_per_s"] == [10.0]


def test_memory_is_bounded(activity: Activity, clock: Clock) -> None:
    for number in range(INTERVALS + 20):
        for _ in range(3):
            activity.task("read", failed(f"error {number}"), is_work=True)
        ends(activity, clock)

    said = activity.to_dict()
    assert {len(column) for column in said["samples"].values()} == {INTERVALS}
    assert len(said["failures"]) == MAX_FAILURES


def test_what_callers_and_agents_name_is_not_kept(activity: Activity, clock: Clock, organ: Organ) -> None:
    sizes = []
    for number in range(20_000):
        if number % 10_000 == 100:
            sizes.append(len(pickle.dumps(activity._counted)))
        activity.task(f"type-{number}", failed(f"error {number}", error_type=f"Error{number}"), is_work=True)
        organ.does(error_type=f"Error{number}")
        if number % 50 == 0:
            organ.reports()

    assert sizes[1] < 2 * sizes[0]


def test_a_failure_is_counted_once_whatever_its_error_is_called(activity: Activity, clock: Clock, organ: Organ) -> None:
    for number in range(100):
        organ.does(error_type=f"Error{number}")
        activity.task("read", failed(error_type=f"Error{number}"), is_work=True)
    organ.reports()
    ends(activity, clock)

    said = activity.to_dict()
    assert said["organs"][0]["failed"] == 100
    assert said["samples"]["failed_per_s"] == [50.0]
    assert not [one for one in said["failures"] if "directly" in one["error"]]


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (failed(), 0),
        # A full organ has counted it.
        (failed(agent_id=None, error_type="OverloadedError", executed="no"), 0),
        # No organ has counted tasks that died with its process or that no organ received.
        (failed(agent_id=None, error_type="OrganUnavailableError", executed="unknown"), 1),
        (failed(agent_id=None, organ_id=None, error_type="UnknownTaskTypeError", executed="no"), 1),
    ],
)
def test_what_no_organ_counts_is_counted_here(
    activity: Activity, clock: Clock, answer: dict[str, Any], counted: int
) -> None:
    activity.task("read", answer, is_work=True)
    ends(activity, clock)

    said = activity.to_dict()
    assert said["samples"]["failed_per_s"] == [counted / INTERVAL_S]
    assert len(said["failures"]) == 1


def test_a_question_is_no_work(activity: Activity, clock: Clock) -> None:
    activity.task("get_metrics", failed(organ_id=None, agent_id=None), is_work=False)
    ends(activity, clock)

    assert activity.to_dict()["samples"]["failed_per_s"] == [0.0]


def test_equal_failures_are_one_entry_and_the_last_comes_first(activity: Activity, clock: Clock) -> None:
    for _ in range(3):
        activity.task("read", failed(), is_work=True)
    clock.now += 1
    activity.task("write", failed("disk full"), is_work=True)
    clock.now += 1
    activity.task("read", failed(), is_work=True)

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
    activity.task("read", failed("x" * 100_000), is_work=True)

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


def test_what_came_to_an_organ_directly_is_told_and_what_came_before_is_not(activity: Activity, clock: Clock) -> None:
    organ = Organ(Activity(clock))
    organ.does(1000, 0.25)
    organ.activity = activity
    organ.reports()
    organ.does(4, 0.25)
    organ.does(2, 0.25, direct=True)
    organ.does(3, 0.25, error_type="OSError", direct=True)
    organ.reports()
    organ.reports()
    ends(activity, clock)

    said = activity.to_dict()
    assert (said["samples"]["done_per_s"], said["samples"]["failed_per_s"]) == ([3.0], [1.5])
    assert (said["organs"][0]["done"], said["organs"][0]["failed"], said["organs"][0]["mean_s"]) == (6, 3, 0.25)
    (failure,) = said["failures"]
    assert (failure["count"], failure["error_type"], failure["task_type"]) == (3, "OSError", "read")
    assert "directly" in failure["error"]


def test_counts_that_begin_anew_are_no_news(activity: Activity, clock: Clock, organ: Organ) -> None:
    organ.does(12)
    organ.reports()
    organ.counts = TaskCounts()
    organ.does(1)
    organ.reports()
    organ.does(2)
    organ.reports()
    ends(activity, clock)

    assert activity.to_dict()["organs"][0]["done"] == 14


def test_a_duration_above_all_buckets_is_the_last_bound(activity: Activity, clock: Clock, organ: Organ) -> None:
    organ.does(3, 1000.0)
    organ.reports()
    ends(activity, clock)

    assert activity.to_dict()["samples"]["p95_s"] == [BUCKETS_S[-1]]
