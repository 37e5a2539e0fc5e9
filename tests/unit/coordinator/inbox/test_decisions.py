"""What becomes of a durable task, as a table and as properties of every sequence of events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.coordinator.inbox.decisions import (
    ALLOWED,
    ENDED,
    FINAL,
    MAX_DEATHS,
    MAX_PAUSE_MS,
    Answer,
    Claim,
    Event,
    Order,
    Standing,
    State,
    Tick,
    decide,
)

NOW = 1_000_000
READY = Standing()
LEASED = Standing(state=State.LEASED, attempt=1)
LATER = Standing(state=State.LATER, attempt=1, not_before=NOW, bounces=1)
FAILED = Standing(state=State.FAILED, attempt=1, executed="yes")
PARKED = Standing(state=State.PARKED, attempt=1, executed="unknown", deaths=1)


def answer(executed: Any = "yes", *, success: bool = False, attempt: int = 1, pause_ms: int | None = None) -> Answer:
    return Answer(attempt, success, executed, pause_ms)


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        (READY, Claim(), LEASED),
        (LATER, Claim(), None),
        (LEASED, Claim(), None),
        (LATER, Tick(), replace(LATER, state=State.READY)),
        (replace(LATER, not_before=NOW + 1), Tick(), None),
        (READY, Tick(), None),
        (replace(READY, deadline=NOW), Claim(), Standing(state=State.EXPIRED, deadline=NOW, executed="no")),
        (replace(READY, deadline=NOW), Tick(), Standing(state=State.EXPIRED, deadline=NOW, executed="no")),
        (LEASED, answer(success=True), replace(LEASED, state=State.DONE, executed="yes")),
        (LEASED, answer("yes"), FAILED),
        (LEASED, answer("unknown"), PARKED),
        (LEASED, answer("yes", attempt=2), None),
        (replace(LEASED, attempt=2), answer("yes"), None),
        (READY, answer(success=True), None),
        (
            replace(LEASED, repeatable=True),
            answer("unknown"),
            Standing(repeatable=True, attempt=1, deaths=1, executed="unknown"),
        ),
        (
            replace(LEASED, repeatable=True, deaths=MAX_DEATHS - 1),
            answer("unknown"),
            replace(PARKED, repeatable=True, deaths=MAX_DEATHS),
        ),
        (LEASED, answer("no", pause_ms=0), Standing(attempt=1, not_before=NOW, bounces=1, executed="no")),
        (LEASED, answer("no"), replace(LATER, not_before=NOW + 50, executed="no")),
        (replace(LEASED, bounces=2), answer("no"), replace(LATER, not_before=NOW + 200, bounces=3, executed="no")),
        (LEASED, answer("no", pause_ms=700), replace(LATER, not_before=NOW + 700, executed="no")),
        (
            replace(LEASED, bounces=40),
            answer("no"),
            replace(LATER, not_before=NOW + MAX_PAUSE_MS, bounces=41, executed="no"),
        ),
        (
            replace(LEASED, deadline=NOW),
            answer("no"),
            replace(LEASED, state=State.EXPIRED, deadline=NOW, executed="no"),
        ),
        (
            replace(LEASED, deadline=NOW, deaths=1, executed="unknown", repeatable=True),
            answer("no"),
            replace(PARKED, deadline=NOW, repeatable=True),
        ),
        (FAILED, Order("retry"), Standing(attempt=1, executed="yes")),
        (PARKED, Order("retry"), Standing(attempt=1, executed="unknown")),
        (PARKED, Order("done"), replace(PARKED, state=State.DONE)),
        (PARKED, Order("discard"), replace(PARKED, state=State.CANCELLED)),
        (PARKED, Order("cancel"), None),
        (READY, Order("cancel"), Standing(state=State.CANCELLED, executed="no")),
        (READY, Order("done"), None),
        (LATER, Order("cancel"), replace(LATER, state=State.CANCELLED, executed="no")),
        (LEASED, Order("cancel"), replace(LEASED, is_unwanted=True)),
        (
            replace(LEASED, is_unwanted=True),
            answer("no"),
            replace(LEASED, state=State.CANCELLED, executed="no", is_unwanted=True),
        ),
        (
            replace(LEASED, is_unwanted=True),
            answer(success=True),
            replace(LEASED, state=State.DONE, executed="yes", is_unwanted=True),
        ),
        (
            replace(LEASED, is_unwanted=True),
            answer("unknown"),
            replace(LEASED, state=State.CANCELLED, executed="unknown", is_unwanted=True, deaths=1),
        ),
    ],
)
def test_what_an_event_does(before: Standing, event: Event, after: Standing | None) -> None:
    assert decide(before, event, NOW) == after


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(Claim()),
    st.just(Claim()),
    st.just(Tick()),
    st.builds(
        Answer,
        st.integers(1, 4),
        st.booleans(),
        st.sampled_from(["no", "yes", "unknown"]),
        st.none() | st.integers(0, 60_000),
    ),
    st.builds(Order, st.sampled_from(sorted(ALLOWED))),
)
HISTORIES = st.lists(st.tuples(EVENTS, st.integers(0, 40_000)), max_size=40)


@given(repeatable=st.booleans(), deadline=st.none() | st.integers(0, 100_000), history=HISTORIES)
def test_every_history_keeps_what_is_promised(
    *, repeatable: bool, deadline: int | None, history: list[tuple[Event, int]]
) -> None:
    task = Standing(repeatable=repeatable, deadline=deadline)
    now = 0
    may_have_run = False
    for event, passed in history:
        now += passed
        after = decide(task, event, now)
        if after is None:
            continue
        assert task.state not in FINAL, "what has ended for good does not change"
        if task.state in ENDED:
            assert isinstance(event, Order), "only a person decides about what waits for one"
        assert after.attempt == task.attempt + (after.state is State.LEASED and task.state is not State.LEASED)
        if isinstance(event, Answer):
            assert event.attempt == task.attempt
            may_have_run = may_have_run or event.success or event.executed != "no"
        if isinstance(event, Order) and event.verb == "retry":
            may_have_run = False
        if isinstance(event, Claim) and after.state is State.LEASED:
            assert repeatable or not may_have_run, "a task that may have run is begun again only if it is repeatable"
            assert task.deadline is None or now < task.deadline
        if after.state in ENDED and after.executed == "no":
            assert not may_have_run, "what may have run is not called: not executed"
        if after.state is State.EXPIRED:
            assert after.executed != "unknown"
        task = after


@given(HISTORIES)
def test_the_same_history_gives_the_same_standing(history: list[tuple[Event, int]]) -> None:
    def run() -> Standing:
        task, now = Standing(), 0
        for event, passed in history:
            now += passed
            task = decide(task, event, now) or task
        return task

    assert run() == run()
