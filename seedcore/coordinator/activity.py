"""Recent activity of the organism: rates, durations and the last failures with their cause, in limited memory.

Prometheus reads counters since the start and keeps its own history. This is the history for the page and
``seedcore top``, which work without Prometheus.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import add, sub
from typing import Any

from seedcore.core.task_counters import BUCKETS_S, quantile

INTERVAL_S = 2.0
INTERVALS = 300
MAX_FAILURES = 50
# Number of intervals for the rates of an organ; a single one is too short if tasks are rare.
ORGAN_INTERVALS = 5
MAX_ERROR_CHARS = 500
_DIRECT = "in tasks that clients sent to the organ directly; its log has the causes"
_BAD_STATES = frozenset({"down", "degraded"})
_NO_BUCKETS = [0] * (len(BUCKETS_S) + 1)


@dataclass(slots=True)
class _Figures:
    done: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, count: int, seconds: float, *, success: bool) -> None:
        if success:
            self.done += count
        else:
            self.failed += count
        self.seconds += seconds


@dataclass(slots=True)
class _Interval:
    at: float
    all: _Figures = field(default_factory=_Figures)
    in_flight: int = 0
    queued: int = 0
    buckets: list[int] = field(default_factory=lambda: list(_NO_BUCKETS))
    organs: dict[str, _Figures] = field(default_factory=dict)


class Activity:
    """Keep the last ten minutes and the last failures.

    Args:
        clock: Seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._closed: deque[_Interval] = deque(maxlen=INTERVALS)
        self._open = _Interval(clock())
        self._failures: deque[dict[str, Any]] = deque(maxlen=MAX_FAILURES)
        self._states: dict[tuple[str, Any], tuple[str, str]] = {}
        self._totals: dict[str, _Figures] = {}
        # The last counts of each organ, by task type and outcome; their number is limited by TaskCounts.
        self._counted: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}

    def task(self, kind: str, answer: Mapping[str, Any], *, is_work: bool) -> None:
        """Add the answer of a task that came by the Coordinator; it counts in rates only if no organ counts it."""
        if answer.get("success") is True:
            return
        organ_id = answer.get("organ_id")
        # An answer of an organ names its agent or has `executed: no`. The Coordinator made the others itself, for a
        # process that died with the task or did not answer.
        is_counted = organ_id is not None and (answer.get("agent_id") is not None or answer.get("executed") == "no")
        if is_work and not is_counted:
            self._add(organ_id if isinstance(organ_id, str) else None, 1, 0.0, success=False)
        self._failed(
            "task",
            answer.get("error"),
            task_type=kind[:100],
            organ_id=organ_id,
            error_type=str(answer.get("error_type") or "unknown"),
            last={"agent_id": answer.get("agent_id")},
        )

    def knows(self, organ_id: str) -> bool:
        """Return whether :meth:`counted` has been called for an organ."""
        return organ_id in self._counted

    def counted(self, organ_id: str, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add the total counts of an organ (:meth:`seedcore.core.task_counters.TaskCounts.to_list`).

        The counts of its first report, and counts that restarted, are not activity.
        """
        before = self._counted.get(organ_id)
        now = {(str(entry["task_type"]), str(entry["outcome"])): entry for entry in entries}
        self._counted[organ_id] = now
        if before is None:
            return
        for (kind, outcome), entry in now.items():
            last = before.get((kind, outcome), _NOTHING)
            more = entry["count"] - last["count"]
            if more <= 0:
                continue
            success = outcome == "success"
            self._add(organ_id, more, entry["seconds_sum"] - last["seconds_sum"], success=success)
            news = map(sub, entry["buckets"], last["buckets"])
            self._open.buckets = list(map(add, self._open.buckets, news))
            direct = entry["direct"] - last["direct"]
            if direct > 0 and not success:
                what = {"task_type": kind, "organ_id": organ_id, "error_type": outcome}
                self._failed("task", _DIRECT, last={}, times=direct, **what)

    def organs(self, reports: Iterable[Mapping[str, Any]]) -> None:
        """Record each process of the organs whose state has become worse."""
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
        """Advance the clock, several times per interval; the load of an interval is the highest one seen."""
        now, current = self._clock(), self._open
        current.in_flight, current.queued = max(current.in_flight, in_flight), max(current.queued, queued)
        if now - current.at < INTERVAL_S and now >= current.at:
            return
        # Use the actual end of the interval, also for rates, because a busy loop may be late.
        self._closed.append(current)
        self._open = _Interval(now)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: columns of equal length, one entry per interval, the oldest first."""
        closed = list(self._closed)
        ends = [interval.at for interval in closed[1:]] + [self._open.at]
        spans = [max(1e-3, end - interval.at) for interval, end in zip(closed, ends, strict=False)]
        return {
            "now": round(self._clock(), 3),
            "interval_s": INTERVAL_S,
            "samples": {
                "at": [round(interval.at, 3) for interval in closed],
                "done_per_s": [_rate(one.all.done, span) for one, span in zip(closed, spans, strict=True)],
                "failed_per_s": [_rate(one.all.failed, span) for one, span in zip(closed, spans, strict=True)],
                "p50_s": [_rounded(quantile(one.buckets, 0.5)) for one in closed],
                "p95_s": [_rounded(quantile(one.buckets, 0.95)) for one in closed],
                "in_flight": [interval.in_flight for interval in closed],
                "queued": [interval.queued for interval in closed],
            },
            "organs": self._organ_figures(closed[-ORGAN_INTERVALS:], sum(spans[-ORGAN_INTERVALS:])),
            "failures": [dict(failure) for failure in reversed(self._failures)],
        }

    def _organ_figures(self, closed: list[_Interval], span: float) -> list[dict[str, Any]]:
        figures = []
        for organ_id, total in sorted(self._totals.items()):
            lately = [interval.organs[organ_id] for interval in closed if organ_id in interval.organs]
            failed = sum(one.failed for one in lately)
            count = failed + sum(one.done for one in lately)
            figures.append(
                {
                    "organ_id": organ_id,
                    "done": total.done,
                    "failed": total.failed,
                    "per_s": _rate(count, span),
                    "failed_per_s": _rate(failed, span),
                    "mean_s": round(sum(one.seconds for one in lately) / count, 6) if count else None,
                }
            )
        return figures

    def _add(self, organ_id: str | None, count: int, seconds: float, *, success: bool) -> None:
        figures = [self._open.all]
        if organ_id is not None:
            figures += [some.setdefault(organ_id, _Figures()) for some in (self._open.organs, self._totals)]
        for one in figures:
            one.add(count, seconds, success=success)

    def _failed(self, kind: str, error: Any, *, last: Mapping[str, Any], times: int = 1, **what: Any) -> None:
        """Record a failure; ``what`` identifies it, ``last`` describes its latest occurrence."""
        now = round(self._clock(), 3)
        text = str(error or "unknown cause").strip()[:MAX_ERROR_CHARS]
        same = {"kind": kind, "error": text, **what}
        for known in self._failures:
            # One entry per cause: ten thousand identical failures must not hide a different one.
            if all(known.get(key) == value for key, value in same.items()):
                known.update(last, count=known["count"] + times, at=now)
                self._failures.remove(known)
                self._failures.append(known)
                return
        self._failures.append({**same, **last, "first_at": now, "at": now, "count": times})


_NOTHING: Mapping[str, Any] = {"count": 0, "direct": 0, "seconds_sum": 0.0, "buckets": _NO_BUCKETS}


def _rate(count: float, span: float) -> float:
    return round(count / span, 3) if span > 0 else 0.0


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
