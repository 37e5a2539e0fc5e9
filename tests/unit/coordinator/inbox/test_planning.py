"""Which moments are planned: misfire, overlap, and clocks that are set."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.coordinator.inbox.decisions import State
from seedcore.coordinator.inbox.planning import Move, Plan, first_moment, lateness, overlap, plan
from seedcore.core.schedule import MOST_AT_ONCE, ScheduleSpec

T = 1_700_000_000_000
S = 1000


def spec(**keys: Any) -> ScheduleSpec:
    return ScheduleSpec(id="s", task={"type": "t"}, **{"every": 10, **keys})


@pytest.mark.parametrize(
    ("misfire", "late_s", "moments", "missed"),
    [
        ("once", 0, [0], 0),
        ("once", 25, [0, 10, 20], 0),
        ("once", 60, [0, 10, 20, 30, 40, 50, 60], 0),
        ("once", 85, [80], 8),
        ("skip", 85, [30, 40, 50, 60, 70, 80], 3),
        ("skip", 25, [0, 10, 20], 0),
        ("all", 85, [0, 10, 20, 30, 40, 50, 60, 70, 80], 0),
    ],
)
def test_what_is_planned_after_an_outage(misfire: str, late_s: int, moments: list[int], missed: int) -> None:
    found = plan(spec(misfire=misfire), T, T + late_s * S)
    last = T + late_s // 10 * 10 * S
    assert found == Plan([T + moment * S for moment in moments], missed, last, last + 10 * S)


def test_a_long_outage_is_made_up_for_by_the_last_hundred() -> None:
    found = plan(spec(misfire="all"), T, T + 10 * S * 10_000)
    assert len(found.moments) == MOST_AT_ONCE
    assert found.moments[-1] == found.last == T + 10 * S * 10_000
    assert found.missed == 1


def test_after_its_moment_a_single_one_is_over() -> None:
    assert plan(spec(every=None, at="2023-11-14T22:13:20Z"), T, T + 5 * S) == Plan([T], 0, T, None)
    late = plan(spec(every=None, at="2023-11-14T22:13:20Z", misfire="skip"), T, T + 61 * S)
    assert late == Plan([], 1, T, None)


@pytest.mark.parametrize(
    ("policy", "last", "move"),
    [
        *[(policy, None, "plan") for policy in ("allow", "forbid", "replace")],
        *[("allow", state, "plan") for state in State],
        *[("forbid", state, "skip") for state in (State.READY, State.LATER, State.LEASED)],
        *[("replace", state, "replace") for state in (State.READY, State.LATER, State.LEASED)],
        *[
            (policy, state, "plan")
            for policy in ("forbid", "replace")
            for state in (State.DONE, State.FAILED, State.PARKED, State.CANCELLED, State.EXPIRED)
        ],
    ],
)
def test_what_happens_while_the_previous_task_has_not_ended(policy: str, last: State | None, move: Move) -> None:
    assert overlap(spec(overlap=policy), last) == move


def test_a_new_one_begins_after_now_at_a_whole_second() -> None:
    assert first_moment(spec(), T + 345) == T + 10 * S
    assert first_moment(spec(every=None, cron="* * * * *"), T + 345) == T // 60_000 * 60_000 + 60_000


def test_a_changed_one_keeps_its_phase_and_repeats_no_moment() -> None:
    assert first_moment(spec(every=60), T + 25 * S, last_planned=T) == T + 60 * S
    # The clock has gone back by an hour since the last moment was planned.
    assert first_moment(spec(every=60), T - 3600 * S, last_planned=T) == T + 60 * S
    assert (
        first_moment(spec(every=None, cron="* * * * *"), T - 3600 * S, last_planned=T) == T // 60_000 * 60_000 + 60_000
    )


def test_late_is_what_should_have_begun() -> None:
    assert lateness(spec(), T + 5 * S, None, T).seconds == 0.0
    assert lateness(spec(), T, None, T + 70 * S).is_over_grace
    assert lateness(spec(), T + 5 * S, T - 30 * S, T).seconds == 30.0
    assert not lateness(spec(), T + 5 * S, T - 30 * S, T).is_over_grace
    assert lateness(spec(), None, None, T).seconds == 0.0
