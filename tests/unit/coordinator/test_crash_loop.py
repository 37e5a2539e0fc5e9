"""Test when repeated deaths count as a crash loop."""

from __future__ import annotations

from seedcore.coordinator.crash_loop import BACKOFF, LOOP_DEATHS, LOOP_WINDOW_S, CrashLoop


def test_deaths_now_and_then_are_no_loop() -> None:
    crashes = CrashLoop()
    gap = LOOP_WINDOW_S / (LOOP_DEATHS - 2)
    assert [crashes.died(index * gap) for index in range(50)] == [0.0] * 50


def test_a_loop_is_left_alone_for_longer_each_time() -> None:
    crashes = CrashLoop()
    now, pauses = 0.0, []
    for _ in range(30):
        pause = crashes.died(now)
        pauses.append(pause)
        now += pause + 2.0
    expected = [0.0] * (LOOP_DEATHS - 1) + list(BACKOFF.steps)
    assert pauses[: len(expected)] == expected
    assert set(pauses[len(expected) :]) == {BACKOFF.steps[-1]}
    assert crashes.deaths == 30


def test_a_process_that_has_lived_long_enough_begins_anew() -> None:
    crashes = CrashLoop()
    for second in range(LOOP_DEATHS):
        crashes.died(float(second))
    crashes.lives(LOOP_DEATHS + LOOP_WINDOW_S)
    assert crashes.deaths == LOOP_DEATHS
    crashes.lives(LOOP_DEATHS + LOOP_WINDOW_S + BACKOFF.steps[0])
    assert crashes.deaths == 0
    assert crashes.died(1000.0) == 0.0
