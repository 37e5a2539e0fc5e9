"""When a process that dies again and again is left alone for a while: pure decisions, with the time passed in."""

from __future__ import annotations

from collections import deque

from seedcore.core.backoff import Backoff

# Processes that die now and then are started at once; this many deaths in this time are a crash loop.
LOOP_DEATHS = 5
LOOP_WINDOW_S = 60.0
BACKOFF = Backoff((5.0, 10.0, 20.0, 40.0, 60.0), reset_after_s=LOOP_WINDOW_S)


class CrashLoop:
    """Remembers the deaths of one organ process's successive lives."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=LOOP_DEATHS)
        self._backoffs = 0
        self._total = 0

    @property
    def deaths(self) -> int:
        """Deaths since the process last lived for LOOP_WINDOW_S."""
        return self._total

    def died(self, now: float) -> float:
        """Take in a death; returns for how many seconds nothing is to be started, 0 where this is no crash loop."""
        self.lives(now)
        self._deaths.append(now)
        self._total += 1
        if len(self._deaths) < LOOP_DEATHS or now - self._deaths[0] > self._window_s():
            return 0.0
        self._backoffs += 1
        return BACKOFF.delay_s(self._backoffs)

    def lives(self, now: float) -> None:
        """Take in that the process works: after long enough, earlier deaths no longer count."""
        if not self._deaths:
            return
        # It was not started again before the pause was over.
        lived_s = now - self._deaths[-1] - BACKOFF.delay_s(self._backoffs)
        self._total = BACKOFF.still_counting(self._total, healthy_s=lived_s)
        if not self._total:
            self._deaths.clear()
            self._backoffs = 0

    def _window_s(self) -> float:
        # The pauses lie inside of the window: one more death after a pause is the same loop.
        return LOOP_WINDOW_S + BACKOFF.total_s(self._backoffs)
