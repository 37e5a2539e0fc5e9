"""What the organism has done lately: rates, durations and the last failures with their cause, bounded in memory.

Counters since the start are for Prometheus, which keeps a history of its own. This is the history for whoever opens the
page or ``seedcore top`` now and has no Prometheus.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

INTERVAL_S = 2.0
INTERVALS = 300
MAX_FAILURES = 50
# Rates of an organ are those of so many intervals: a single one says little where tasks are few.
ORGAN_INTERVALS = 5
# Durations that an interval keeps; with more tasks than that they are a random sample.
MAX_DURATIONS = 512
MAX_ERROR_CHARS = 500
_DIRECT = "in tasks that came to the organ directly; its log has their causes"
_BAD_STATES = frozenset({"down", "degraded"})


@dataclass(slots=True)
class _Interval:
    at: float
    done: int = 0
    failed: int = 0
    in_flight: int = 0
    queued: int = 0
    durations: list[float] = field(default_factory=list)
    seen: int = 0
    p50_s: float | None = None
    p95_s: float | None = None
    organs: dict[str, list[float]] = field(default_factory=dict)

    def add(self, organ_id: str | None, seconds: float, *, success: bool, times: int = 1) -> None:
        if success:
            self.done += times
        else:
            self.failed += times
        for _ in range(min(times, MAX_DURATIONS)):
            self.seen += 1
            if len(self.durations) < MAX_DURATIONS:
                self.durations.append(seconds)
            elif (place := random.randrange(self.seen)) < MAX_DURATIONS:  # noqa: S311 - a sample, not a secret
                self.durations[place] = seconds
        if organ_id is not None:
            figures = self.organs.setdefault(organ_id, [0, 0, 0.0])
            figures[0 if success else 1] += times
            figures[2] += times * seconds

    def close(self) -> None:
        """Keep two figures of the durations, and not the durations."""
        ordered = sorted(self.durations)
        self.durations = []
        if ordered:
            self.p50_s, self.p95_s = _at(ordered, 0.5), _at(ordered, 0.95)


class Activity:
    """Keeps the last ten minutes and the last failures.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._closed: deque[_Interval] = deque(maxlen=INTERVALS)
        self._open = _Interval(clock())
        self._failures: deque[dict[str, Any]] = deque(maxlen=MAX_FAILURES)
        self._states: dict[tuple[str, Any], tuple[str, str]] = {}
        self._totals: dict[str, list[int]] = {}
        self._direct = _Direct()

    def task(self, kind: str, answer: Mapping[str, Any], seconds: float, *, counts: bool) -> None:
        """Take the answer of a task; ``counts`` says whether it is work, which rates are made of."""
        success = answer.get("success") is True
        organ_id = answer.get("organ_id")
        if counts:
            known = organ_id if isinstance(organ_id, str) else None
            self._add(known, seconds, success=success, times=1)
            if known is not None:
                # As the organ itself counts it: what is built in and work of an organ has a task inside.
                outcome = "success" if success else str(answer.get("error_type"))
                self._direct.seen[(known, str(answer.get("task_type")), outcome)] += 1
        if not success:
            self._failed(
                "task",
                answer.get("error"),
                task_type=kind[:100],
                organ_id=organ_id,
                error_type=str(answer.get("error_type") or "unknown"),
                last={"agent_id": answer.get("agent_id")},
            )

    def counted(self, organ_id: str, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take what an organ has counted in all (:meth:`seedcore.counts.TaskCounts.to_list`).

        What it has done beyond what has been seen here came to it directly, from a client of its own.
        """
        first = self._direct.begin(organ_id)
        for entry in entries:
            kind, outcome, count = str(entry["task_type"]), str(entry["outcome"]), int(entry["count"])
            more = self._direct.more((organ_id, kind, outcome), count, first=first)
            if not more:
                continue
            success = outcome == "success"
            self._add(organ_id, entry["seconds_sum"] / count, success=success, times=more)
            if not success:
                self._failed(
                    "task", _DIRECT, task_type=kind, organ_id=organ_id, error_type=outcome, last={}, times=more
                )

    def organs(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Look at the organs, and remember each of their processes that is worse than it was."""
        for report in reports:
            for replica in report.get("replicas") or ():
                key = (str(report["organ_id"]), replica["replica"])
                now = (str(replica["state"]), str(replica.get("error") or ""))
                if self._states.get(key) == now:
                    continue
                self._states[key] = now
                if now[0] in _BAD_STATES and now[1]:
                    self._failed(
                        "process",
                        now[1],
                        organ_id=key[0],
                        replica=key[1],
                        state=now[0],
                        last={"node_id": replica.get("node_id")},
                    )

    def tick(self, *, in_flight: int, queued: int) -> None:
        """Look at the clock, several times an interval: its load is the highest that was seen."""
        now, current = self._clock(), self._open
        current.in_flight, current.queued = max(current.in_flight, in_flight), max(current.queued, queued)
        if now - current.at < INTERVAL_S and now >= current.at:
            return
        current.close()
        # The time it ends, which is also what the rate is divided by: a busy loop may be late.
        self._closed.append(current)
        self._open = _Interval(now)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: columns of equal length, one entry an interval, the oldest first."""
        closed = list(self._closed)
        ends = [interval.at for interval in closed[1:]] + [self._open.at]
        spans = [max(1e-3, end - interval.at) for interval, end in zip(closed, ends, strict=False)]
        return {
            "now": round(self._clock(), 3),
            "interval_s": INTERVAL_S,
            "samples": {
                "at": [round(interval.at, 3) for interval in closed],
                "done_per_s": [_rate(one.done, span) for one, span in zip(closed, spans, strict=True)],
                "failed_per_s": [_rate(one.failed, span) for one, span in zip(closed, spans, strict=True)],
                "p50_s": [interval.p50_s for interval in closed],
                "p95_s": [interval.p95_s for interval in closed],
                "in_flight": [interval.in_flight for interval in closed],
                "queued": [interval.queued for interval in closed],
            },
            "organs": self._organ_figures(closed[-ORGAN_INTERVALS:], sum(spans[-ORGAN_INTERVALS:])),
            "failures": [dict(failure) for failure in reversed(self._failures)],
        }

    def _organ_figures(self, closed: list[_Interval], span: float) -> list[dict[str, Any]]:
        figures = []
        for organ_id, (done, failed) in sorted(self._totals.items()):
            lately = [interval.organs[organ_id] for interval in closed if organ_id in interval.organs]
            count = sum(one[0] + one[1] for one in lately)
            figures.append(
                {
                    "organ_id": organ_id,
                    "done": done,
                    "failed": failed,
                    "per_s": _rate(count, span),
                    "failed_per_s": _rate(sum(one[1] for one in lately), span),
                    "mean_s": round(sum(one[2] for one in lately) / count, 6) if count else None,
                }
            )
        return figures

    def _add(self, organ_id: str | None, seconds: float, *, success: bool, times: int) -> None:
        self._open.add(organ_id, seconds, success=success, times=times)
        if organ_id is not None:
            self._totals.setdefault(organ_id, [0, 0])[0 if success else 1] += times

    def _failed(self, kind: str, error: Any, *, last: Mapping[str, Any], times: int = 1, **what: Any) -> None:
        """Remember a failure; ``what`` makes it another one, ``last`` is told of the last of equal ones."""
        now = round(self._clock(), 3)
        text = str(error or "no cause is known").strip()[:MAX_ERROR_CHARS]
        same = {"kind": kind, "error": text, **what}
        for known in self._failures:
            # One entry for one cause: ten thousand equal failures must not hide the one that is different.
            if all(known.get(key) == value for key, value in same.items()):
                known.update(last, count=known["count"] + times, at=now)
                self._failures.remove(known)
                self._failures.append(known)
                return
        self._failures.append({**same, **last, "first_at": now, "at": now, "count": times})


class _Direct:
    """Finds what organs have counted beyond what was seen here; an organ's count may come later than the answer.

    Attributes:
        seen: Answers seen here, by organ, task type and outcome.
    """

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str, str]] = Counter()
        self._base: dict[tuple[str, str, str], int] = {}
        self._known: set[str] = set()
        self._told: Counter[tuple[str, str, str]] = Counter()

    def begin(self, organ_id: str) -> bool:
        """Say whether an organ's counts come for the first time: what it did before is no news."""
        first = organ_id not in self._known
        self._known.add(organ_id)
        return first

    def more(self, key: tuple[str, str, str], count: int, *, first: bool) -> int:
        """Return how many there are that nobody has been told of."""
        if first or count < self._base.get(key, 0):
            # Counts from before, or of a process that began anew.
            self._base[key] = count - self.seen[key] - self._told[key]
            return 0
        more = count - self._base.get(key, 0) - self.seen[key] - self._told[key]
        if more <= 0:
            return 0
        self._told[key] += more
        return more


def _rate(count: float, span: float) -> float:
    return round(count / span, 3) if span > 0 else 0.0


def _at(ordered: list[float], share: float) -> float:
    """Nearest rank: a duration that a task really had."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 6)
