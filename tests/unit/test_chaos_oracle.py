from __future__ import annotations

import pytest

from benchmarks.chaos.faults import worth_hurting
from benchmarks.chaos.oracle import (
    Asked,
    Executed,
    Injection,
    Replaced,
    Seen,
    false_healthy,
    recovery_s,
    unprovoked,
    wrong_answers,
)

numbers = iter(range(1, 10_000))


def task(sent: float, answered: float, executed: Executed = "success", *, organ: str = "one") -> Asked:
    return Asked(next(numbers), organ, sent, answered, executed)


def status(asked: float, *, healthy: bool = True) -> Seen:
    return Seen("http", asked, asked + 0.01, healthy, "ready" if healthy else "organs_down")


BEFORE, FAILED, FAILED_AGAIN = task(0, 0.1), task(1, 1.1, "no"), task(2, 2.1, "unknown")


@pytest.mark.parametrize(
    ("tasks", "said", "false"),
    [
        ([BEFORE, FAILED, FAILED_AGAIN], status(1.5), True),
        ([BEFORE, FAILED, FAILED_AGAIN], status(1.5, healthy=False), False),
        # The fault may have begun after the status and before the next task.
        ([BEFORE, FAILED], status(0.5), False),
        ([BEFORE, FAILED, task(2, 2.1)], status(1.5), False),
        # A working organ does not compensate for a failing one.
        ([FAILED, FAILED_AGAIN, task(1, 1.2, organ="two"), task(2, 2.2, organ="two")], status(1.5), True),
        # No task has failed yet, but one has been waiting for eleven seconds.
        ([BEFORE, task(1, 30, "unknown")], status(12), True),
        ([BEFORE, task(1, 30)], status(12), False),
        ([BEFORE, task(5, 30, "unknown")], status(12), False),
    ],
)
def test_healthy_is_false_only_where_work_is_shown_not_to_get_done(
    tasks: list[Asked], said: Seen, *, false: bool
) -> None:
    assert (false_healthy(tasks, [said]) == [said]) is false


@pytest.mark.parametrize(
    ("executed", "times", "true"),
    [
        ("success", 1, True), ("success", 0, False), ("success", 2, False), ("no", 0, True), ("no", 1, False),
        ("unknown", 0, True), ("unknown", 1, True), ("unknown", 2, False), ("yes", 1, True), ("yes", 0, False),
    ],
)  # fmt: skip
def test_an_answer_is_held_against_what_the_agents_wrote_down(executed: Executed, times: int, *, true: bool) -> None:
    asked = task(0, 1, executed)

    found = wrong_answers([asked], {asked.nonce: times}, sent=[asked.nonce])

    assert (not found) is true


def test_a_task_without_an_answer_or_with_two_is_named() -> None:
    twice = task(0, 1)

    assert wrong_answers([], {}, sent=[7]) == ["task 7: 0 answers"]
    assert wrong_answers([twice, twice], {twice.nonce: 1}, sent=[twice.nonce]) == [f"task {twice.nonce}: 2 answers"]


def fault(name: str, may_replace: set[str] | None) -> Injection:
    allowed = None if may_replace is None else frozenset(may_replace)
    return Injection(
        name=name, target="", goal_s=3, may_replace=allowed, began=10, counted_from=10, ended=20, recovered_s=1
    )


@pytest.mark.parametrize(
    ("at", "injections", "line"),
    [
        (12, [fault("organ_killed", {"one/0"})], None),
        (21, [fault("organ_killed", {"one/0"})], None),
        (12, [fault("head_killed", None)], None),
        (12, [fault("coordinator_killed", {"coordinator"})], "during coordinator_killed"),
        (40, [fault("organ_killed", {"one/0"})], "during no fault"),
    ],
)
def test_a_process_that_no_fault_explains_is_an_unprovoked_kill(
    at: float, injections: list[Injection], line: str | None
) -> None:
    found = unprovoked([Replaced(at, "one/0", "head", 1, 2)], injections, slack_s=5)

    assert len(found) == (line is not None)
    assert all(line and each.endswith(line) for each in found)


@pytest.mark.parametrize(
    ("tasks", "seconds"),
    [
        ([task(9, 10.5), task(11, 11.1)], 0.0),
        ([task(10, 10.5, "unknown"), task(12, 12.5)], 2.5),
        # A late success of an early task does not prove that the organ has recovered.
        ([task(9.5, 14), task(11, 11.1, "no"), task(15, 15.5)], 5.5),
        ([task(10, 10.5, "no")], None),
        ([task(10, 10.5, "no"), task(12, 12.5), task(13, 13.1, "no"), task(14, 14.5)], 4.5),
    ],
)
def test_recovery_counts_until_work_gets_done_for_good(tasks: list[Asked], seconds: float | None) -> None:
    assert recovery_s(tasks, since=10, organs=["one"]) == seconds


def test_recovery_waits_for_the_slowest_organ() -> None:
    tasks = [task(10, 10.1), task(10, 10.1, "no", organ="two"), task(16, 16.5, organ="two")]

    assert recovery_s(tasks, since=10, organs=["one", "two"]) == 6.5


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ({"one/0": "a", "two/0": "b", "two/1": "a"}, ["a"]),
        ({"one/0": "head", "two/0": "a", "two/1": "b"}, ["a", "b"]),
        ({"one/0": "head", "two/0": "head", "two/1": "b"}, ["b"]),
        ({"coordinator": "head", "one/0": "head"}, ["a", "b"]),
        ({}, ["a", "b"]),
    ],
)
def test_the_worker_that_is_hurt_is_one_whose_loss_is_felt(where: dict[str, str], chosen: list[str]) -> None:
    assert worth_hurting(["a", "b"], {what: (node, 1) for what, node in where.items()}) == chosen
