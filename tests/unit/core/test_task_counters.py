"""Test the bounded counters of answers."""

from __future__ import annotations

from seedcore.core.task_counters import BUCKETS_S, MAX_OUTCOMES, TaskCounts, merge

KNOWN = {"echo"}


def test_an_answer_is_counted_once_in_the_bucket_of_its_seconds() -> None:
    counts = TaskCounts()
    for seconds in (0.0, 0.001, 0.0011, 60.0, 61.0):
        counts.add("echo", {"success": True}, seconds, known=KNOWN)
    (entry,) = counts.to_list()
    assert (entry["task_type"], entry["outcome"], entry["count"]) == ("echo", "success", 5)
    assert entry["buckets"][:2] == [2, 1]
    assert entry["buckets"][-2:] == [1, 1]
    assert len(entry["buckets"]) == len(BUCKETS_S) + 1


def test_names_that_anybody_may_invent_do_not_fill_the_memory() -> None:
    counts = TaskCounts()
    for index in range(500):
        answer = {"success": False, "error_type": f"Error{index}"}
        counts.add(f"type{index}", answer, 0.1, known=KNOWN)
    entries = counts.to_list()
    assert {entry["task_type"] for entry in entries} == {"unknown"}
    assert len(entries) == MAX_OUTCOMES + 1
    assert sum(entry["count"] for entry in entries) == 500


def test_counts_of_several_processes_add_up() -> None:
    one, two = TaskCounts(), TaskCounts()
    one.add("echo", {"success": True}, 0.2, known=KNOWN)
    two.add("echo", {"success": True}, 0.3, known=KNOWN)
    two.add("echo", {"success": False, "error_type": "X"}, 0.3, known=KNOWN)
    merged = merge([one.to_list(), two.to_list(), []])
    assert [(entry["outcome"], entry["count"], entry["seconds_sum"]) for entry in merged] == [
        ("X", 1, 0.3),
        ("success", 2, 0.5),
    ]
    assert merge([one.to_list()]) == one.to_list()
