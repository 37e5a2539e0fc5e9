"""Test when a client sends a durable task again, and which answer is final."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.client.durable import GRACE_S, WAIT_S, Submission, submissions

ACCEPTED = {"success": None, "accepted": True, "id": "a1", "state": "ready", "duplicate": False}
DONE = {"success": True, "result": 1, "id": "a1", "state": "done"}
GONE = {
    "success": False,
    "error_type": "OrganUnavailableError",
    "executed": "unknown",
    "error": "the connection was lost",
}
AWAY = {"success": False, "error_type": "InboxUnavailableError", "executed": "no", "retry_after_s": 1.0, "error": "e"}
BAD = {"success": False, "error_type": "TaskError", "executed": "no", "error": "e"}
PARKED = {"success": False, "error_type": "OrganUnavailableError", "executed": "unknown", "id": "a1", "state": "parked"}


def submission(**options: Any) -> Submission:
    return Submission({"type": "t"}, "k", **{"wait": True, "timeout_s": 100.0, **options})


def test_a_request_has_the_key_and_waits_no_longer_than_there_is_time() -> None:
    one = submission(timeout_s=40.0)
    assert one.request(0.0) == ({"type": "t", "durable": True, "key": "k", "wait_s": WAIT_S}, WAIT_S + GRACE_S)
    assert one.request(35.0) == ({"type": "t", "durable": True, "key": "k", "wait_s": 5.0}, 5.0 + GRACE_S)
    assert submission(wait=False).request(0.0) == ({"type": "t", "durable": True, "key": "k"}, GRACE_S)


@pytest.mark.parametrize("answer", [DONE, BAD, PARKED])
def test_the_answer_of_the_task_and_bad_input_are_final(answer: dict[str, Any]) -> None:
    one = submission()
    one.request(0.0)
    assert one.take(answer, 1.0) is None
    assert one.answer == answer


@pytest.mark.parametrize("answer", [GONE, AWAY])
def test_a_lost_request_is_sent_again_until_the_time_is_over(answer: dict[str, Any]) -> None:
    one = submission(timeout_s=10.0)
    one.request(0.0)
    pauses = [one.take(answer, 1.0) for _ in range(8)]
    assert all(pause is not None and 0.05 <= pause <= 3.0 for pause in pauses)
    assert one.take(answer, 9.99) is None
    assert one.answer == answer


def test_after_its_acceptance_a_task_is_waited_for_across_failures() -> None:
    one = submission(timeout_s=100.0)
    one.request(0.0)
    assert one.take(ACCEPTED, 30.0) == 0.0
    assert one.take(GONE, 31.0) is not None
    assert one.take(GONE, 99.99) is None
    assert one.answer == ACCEPTED, "it is accepted, whatever has happened since"


def test_whoever_does_not_wait_gets_the_acceptance() -> None:
    one = submission(wait=False)
    one.request(0.0)
    assert one.take(ACCEPTED, 1.0) is None
    assert one.answer == ACCEPTED


def test_each_task_has_its_own_key() -> None:
    tasks = [{"type": "t"}, {"type": "t", "key": "own"}, {"type": "t"}]
    made = [one.request(0.0)[0]["key"] for one in submissions(tasks, None, wait=True, timeout_s=1.0)]
    assert made[1] == "own"
    assert len(set(made)) == 3
    given = [one.request(0.0)[0]["key"] for one in submissions(tasks, ["a", "b", "c"], wait=True, timeout_s=1.0)]
    assert given == ["a", "b", "c"]
    with pytest.raises(ValueError, match="shorter"):
        list(submissions(tasks, ["a"], wait=True, timeout_s=1.0))
