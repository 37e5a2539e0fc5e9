"""Pauses between retries, for everything that backs off. It keeps no state and reads no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses after failures in a row.

    Attributes:
        steps: Seconds after the first failure, the second and so on; the last value repeats.
        reset_after_s: Healthy seconds after which earlier failures no longer count.
    """

    steps: tuple[float, ...]
    reset_after_s: float = math.inf

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 0:
            raise ValueError(f"steps must be at least one number from 0, got {self.steps!r}")

    @classmethod
    def doubling(cls, first_s: float, max_s: float, *, reset_after_s: float = math.inf) -> Backoff:
        """Double the pause from ``first_s`` with each failure, up to ``max_s``."""
        steps = [min(first_s, max_s)]
        while 0 < steps[-1] < max_s:
            steps.append(min(2 * steps[-1], max_s))
        return cls(tuple(steps), reset_after_s)

    def delay_s(self, failures: int) -> float:
        """Return the pause after ``failures`` failures in a row; 0 if there was none."""
        return self.steps[min(failures, len(self.steps)) - 1] if failures > 0 else 0.0

    def total_s(self, failures: int) -> float:
        """Return the sum of the pauses after the first ``failures`` failures."""
        return sum(self.delay_s(count) for count in range(1, failures + 1))

    def still_counting(self, failures: int, *, healthy_s: float) -> int:
        """Return how many failures count after ``healthy_s`` seconds of health: all of them, or none."""
        return 0 if healthy_s >= self.reset_after_s else failures
