"""Test that a task is retried only if it certainly did not run and the cause is temporary, within its deadline."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.client.retry import Attempts, parse
from seedcore.core.errors import OrganUnavailableError, OverloadedError, UnknownTaskTypeError
from seedcore.core.task import Task, failure


@pytest.mark.parametrize(
    "answer",
    [
        {"success": True, "result": 1},
        {"success": True, "executed": "no", "retry_after_s": 0.1},
        failure("the agent raised", error_type="ValueError", executed="yes", retry_after_s=0.1),
        failure("late", error_type="TimeoutError", executed="unknown", retry_after_s=0.1),
        failure(OrganUnavailableError("died with the task", executed="unknown", retry_after_s=0.1)),
        failure(OrganUnavailableError("the organism is shut down")),
        failure(UnknownTaskTypeError("no such type")),
        failure("no hint", error_type="OverloadedError", retry_after_s="soon"),
    ],
)
def test_these_answers_are_the_last(answer: dict[str, Any]) -> None:
    assert Attempts(60.0).pause(answer) is None


def test_a_hint_of_an_overloaded_organ_is_kept_and_others_are_upper_bounds() -> None:
    attempts = Attempts(60.0)

    pause = attempts.pause(failure(OverloadedError("full", retry_after_s=2.0)))
    assert pause is not None
    assert 2.0 <= pause <= 3.0
    growing = Attempts(600.0)
    pauses = [growing.pause(failure(OrganUnavailableError("down", retry_after_s=5.0))) or 0.0 for _ in range(20)]
    assert pauses[0] < 0.1
    assert pauses[0] < pauses[3] < pauses[6]
    assert 5.0 <= pauses[-1] <= 7.5


def test_there_is_no_try_for_which_there_is_no_time() -> None:
    assert Attempts(0.5).pause(failure(OverloadedError("full", retry_after_s=0.6))) is None
    assert Attempts(0.5, None).pause(failure(OverloadedError("full", retry_after_s=0.1))) is not None


def test_the_least_limit_counts() -> None:
    assert Attempts(5.0, 50.0).remaining(20.0) == pytest.approx(5.0, abs=1)
    assert Attempts(None, 50.0).remaining(20.0) == pytest.approx(20.0, abs=1)
    assert Attempts(None, None).remaining(7.0) == pytest.approx(7.0, abs=1)
    assert Attempts(-1.0).remaining(7.0) == 0.0


def test_what_is_no_task_is_answered_here() -> None:
    task = {"type": " Echo ", "params": {"text": "x" * 1000}}
    parsed = parse(task)
    assert isinstance(parsed, tuple)
    assert parsed[0] == Task.parse(task)
    assert 1000 < parsed[1] < 2000
    answer = parse({"type": 7})
    assert isinstance(answer, dict)
    assert (answer["error_type"], answer["executed"]) == ("TaskError", "no")
