"""Test the verdict of the long test of durable tasks: each contradiction is found, and a true record has none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.durable.verdict import Row, Seen, Told, judge, judge_moments

ROW = Row("a1", "pay", "done", 1, "yes")
ORGAN_DIED = {"organ": 1}
COORDINATOR_DIED = {"coordinator": 3}


def told(*outcomes: str, kind: str = "pay", ids: tuple[str, ...] = ("a1",), **more: Any) -> Told:
    return Told(kind, set(ids), list(outcomes), **more)


def faults(
    row: Row | None = ROW,
    *,
    of: Told | None = None,
    effects: int = 1,
    deaths: dict[str, int] | None = None,
    seen: tuple[Seen, ...] = (),
) -> list[str]:
    return judge(
        {"k": of or told("done")}, {"k": row} if row else {}, {"k": effects} if effects else {}, deaths or {}, seen
    )


PARKED = replace(ROW, state="parked", executed="unknown")
FETCH = replace(ROW, kind="fetch")
BOOK = replace(ROW, kind="book")


@pytest.mark.parametrize("deaths", [{}, ORGAN_DIED, COORDINATOR_DIED])
def test_a_task_that_was_done_once_is_accounted_for(deaths: dict[str, int]) -> None:
    assert faults(deaths=deaths) == []
    assert faults(of=told("done", "done"), deaths=deaths) == [], "sent twice, told the same"
    assert faults(of=told()) == [], "accepted, and its end was not waited for"


def test_what_nobody_can_know_is_accounted_for_if_a_process_of_an_organ_has_died() -> None:
    for effects in (0, 1):
        assert faults(PARKED, of=told("parked"), effects=effects, deaths=ORGAN_DIED) == []
    assert faults(replace(FETCH, attempt=2), effects=2, deaths=ORGAN_DIED) == []
    assert faults(None, of=told(ids=()), effects=0) == [], "it was never accepted"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (lambda: faults(None), "was accepted, and is not in the store"),
        (lambda: faults(of=told("done", ids=("a1", "b2"))), "has several ids: a1, b2"),
        (lambda: faults(replace(ROW, id="b2")), "has the id b2 in the store"),
        (lambda: faults(of=told("parked", "done")), "was told as parked and then done"),
        (lambda: faults(PARKED, deaths=ORGAN_DIED), "was told as done, and is parked"),
        (lambda: faults(of=told("done", taken_with_other_params=True)), "was accepted with other params"),
        (lambda: faults(replace(ROW, state="leased"), of=told()), "is leased at the end"),
        (lambda: faults(replace(ROW, state="failed"), of=told()), "is failed at the end"),
        (lambda: faults(effects=0), "is done without an effect"),
        (lambda: faults(effects=2, deaths=ORGAN_DIED), "(pay) has 2 effects"),
        (lambda: faults(PARKED, of=told(), deaths=COORDINATOR_DIED), "although no process of an organ died"),
        (lambda: faults(replace(PARKED, executed="no"), of=told(), deaths=ORGAN_DIED), "is parked, executed 'no'"),
        (lambda: faults(FETCH, effects=2, deaths=ORGAN_DIED), "has 2 effects in 1 attempts"),
        (lambda: faults(replace(PARKED, kind="fetch"), of=told(), deaths=ORGAN_DIED), "may be repeated, and is parked"),
        (lambda: faults(replace(BOOK, attempt=2), effects=2, deaths=ORGAN_DIED), "(book) has 2 effects"),
        (
            lambda: faults(replace(PARKED, kind="book"), of=told(), deaths=ORGAN_DIED),
            "in one transaction, and is parked",
        ),
        (lambda: judge({}, {}, {"k": 1}, {}, ()), "has an effect, and nobody submitted it"),
        (lambda: faults(seen=(Seen(90, healthy=True, waited_s=61),)), "healthy at 90 s, while a task had waited"),
    ],
)
def test_each_contradiction_is_found(found: Any, said: str) -> None:
    (only,) = found()
    assert said in only


def test_a_status_that_names_what_is_wrong_may_be_red_for_as_long_as_it_is() -> None:
    assert faults(seen=(Seen(90, healthy=False, waited_s=300), Seen(91, healthy=True, waited_s=0))) == []


def test_the_moments_of_a_schedule_are_complete() -> None:
    keys = [f"schedule:beat:2026-11-28T05:00:{second:02}+00:00" for second in (0, 5, 10, 15)]
    assert judge_moments(list(reversed(keys)), 5) == []
    assert judge_moments([keys[0], keys[2], keys[3]], 5) == [
        "no task was planned between 2026-11-28 05:00:00+00:00 and 2026-11-28 05:00:10+00:00"
    ]
    assert judge_moments([*keys, keys[1]], 5) == ["the moment 2026-11-28 05:00:05+00:00 was planned 2 times"]
    assert judge_moments([], 5) == ["the schedule planned nothing"]
