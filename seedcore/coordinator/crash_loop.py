"""Pause restarts of a process in a crash loop: pure decisions, with the time passed in."""

from __future__ import annotations

from collections import deque

from seedcore.core.backoff import Backoff

# A process that dies now and then is restarted at once; this many deaths in this time are a crash loop.
LOOP_DEATHS = 5
LOOP_WINDOW_S = 60.0
BACKOFF = Backoff((5.0, 10.0, 20.0, 40.0, 60.0), reset_after_s=LOOP_WINDOW_S)


class CrashLoop:
    """The deaths of one organ's successive processes.

    Attributes:
        deaths: Their number since a process last lived for LOOP_WINDOW_S.
    """

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=LOOP_DEATHS)
        self._backoffs = 0
        self.deaths = 0

    def died(self, now: float) -> float:
        """Record a death; return the seconds to pause before the next start, 0 outside of a crash loop."""
        self.lives(now)
        self._deaths.append(now)
        self.deaths += 1
        if len(self._deaths) < LOOP_DEATHS or now - self._deaths[0] > self._window_s():
            return 0.0
        self._backoffs += 1
        return BACKOFF.delay_s(self._backoffs)

    def lives(self, now: float) -> None:
        """Record that the process works; after long enough, earlier deaths no longer count."""
        if not self._deaths:
            return
        # The pause is not part of its life.
        lived_s = now - self._deaths[-1] - BACKOFF.delay_s(self._backoffs)
        self.deaths = BACKOFF.still_counting(self.deaths, healthy_s=lived_s)
        if not self.deaths:
            self._deaths.clear()
            self._backoffs = 0

    def _window_s(self) -> float:
        # The window includes the pauses, so that a death after a pause belongs to the same loop.
        return LOOP_WINDOW_S + BACKOFF.total_s(self._backoffs)
