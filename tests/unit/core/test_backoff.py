"""Test the pauses between retries."""

from __future__ import annotations

import pytest

from seedcore.core.backoff import Backoff


def test_each_failure_takes_the_next_step_and_the_last_step_repeats() -> None:
    backoff = Backoff((1.0, 2.0, 5.0))

    assert [backoff.delay_s(failures) for failures in range(6)] == [0.0, 1.0, 2.0, 5.0, 5.0, 5.0]
    assert [backoff.total_s(failures) for failures in range(5)] == [0.0, 1.0, 3.0, 8.0, 13.0]


def test_doubling_ends_at_its_bound() -> None:
    assert Backoff.doubling(5.0, 60.0).steps == (5.0, 10.0, 20.0, 40.0, 60.0)
    assert Backoff.doubling(5.0, 5.0).steps == (5.0,)
    assert Backoff.doubling(9.0, 5.0).steps == (5.0,)
    assert Backoff.doubling(0.0, 5.0).steps == (0.0,)


def test_failures_count_until_health_has_lasted() -> None:
    backoff = Backoff((1.0,), reset_after_s=60.0)

    assert backoff.still_counting(4, healthy_s=59.9) == 4
    assert backoff.still_counting(4, healthy_s=60.0) == 0
    assert Backoff((1.0,)).still_counting(4, healthy_s=1e9) == 4


@pytest.mark.parametrize("steps", [(), (-1.0,)])
def test_steps_that_mean_nothing_are_refused(steps: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="steps must be"):
        Backoff(steps)
