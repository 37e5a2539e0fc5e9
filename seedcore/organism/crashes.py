"""When a process that dies again and again is left alone for a while: pure decisions, with the time passed in."""

from __future__ import annotations

from collections import deque

# Processes that die now and then are started at once; this many deaths in this time are a crash loop.
LOOP_DEATHS = 5
LOOP_WINDOW_S = 60.0
BACKOFF_S = (5.0, 10.0, 20.0, 40.0, 60.0)


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
        delay_s = BACKOFF_S[min(self._backoffs, len(BACKOFF_S) - 1)]
        self._backoffs += 1
        return delay_s

    def lives(self, now: float) -> None:
        """Take in that the process works: after long enough, earlier deaths no longer count."""
        if self._deaths and now - self._deaths[-1] > LOOP_WINDOW_S + self._paused_s():
            self._deaths.clear()
            self._backoffs = self._total = 0

    def _paused_s(self) -> float:
        return BACKOFF_S[min(self._backoffs, len(BACKOFF_S)) - 1] if self._backoffs else 0.0

    def _window_s(self) -> float:
        # The pauses lie inside of the window: one more death after a pause is the same loop.
        return LOOP_WINDOW_S + sum(BACKOFF_S[min(step, len(BACKOFF_S) - 1)] for step in range(self._backoffs))
