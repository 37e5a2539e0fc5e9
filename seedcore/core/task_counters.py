"""Counts and durations of tasks by outcome, for ``get_metrics`` and ``GET /metrics``."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper limits of the histogram's buckets in seconds; one more bucket has no limit."""
MAX_OUTCOMES = 50
OTHER = "other"
UNKNOWN = "unknown"


class TaskCounts:
    """Counts by task type and outcome; their number is limited, whatever callers and agents send."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], _Count] = {}
        self._outcomes: set[str] = set()

    def add(
        self, kind: str, answer: Mapping[str, Any], seconds: float, *, known: Container[str], direct: bool = False
    ) -> None:
        """Count one answer; unknown types are counted together, ``direct`` answers are counted a second time."""
        outcome = "success" if answer.get("success") else str(answer.get("error_type") or UNKNOWN)
        if outcome not in self._outcomes:
            if len(self._outcomes) >= MAX_OUTCOMES:
                outcome = OTHER
            self._outcomes.add(outcome)
        key = (kind if kind in known else UNKNOWN, outcome)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.seconds_sum += seconds
        count.direct += direct
        count.buckets[bisect_left(BUCKETS_S, seconds)] += 1

    def to_list(self) -> list[dict[str, Any]]:
        """Return one entry per count: ``task_type, outcome, count, direct, seconds_sum, buckets`` (of BUCKETS_S).

        ``direct`` is the number of tasks that did not come through the Coordinator.
        """
        return [
            {
                "task_type": kind,
                "outcome": outcome,
                "count": sum(count.buckets),
                "direct": count.direct,
                "seconds_sum": round(count.seconds_sum, 6),
                "buckets": list(count.buckets),
            }
            for (kind, outcome), count in sorted(self._counts.items())
        ]


class _Count:
    __slots__ = ("buckets", "direct", "seconds_sum")

    def __init__(self) -> None:
        self.direct = 0
        self.seconds_sum = 0.0
        self.buckets = [0] * (len(BUCKETS_S) + 1)


def merge(lists: Iterable[Iterable[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Add up the results of several :meth:`TaskCounts.to_list`."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for entries in lists:
        for entry in entries:
            key = (entry["task_type"], entry["outcome"])
            known = merged.get(key)
            if known is None:
                merged[key] = {**entry, "buckets": list(entry["buckets"])}
                continue
            known["count"] += entry["count"]
            known["direct"] += entry["direct"]
            known["seconds_sum"] = round(known["seconds_sum"] + entry["seconds_sum"], 6)
            known["buckets"] = [one + two for one, two in zip(known["buckets"], entry["buckets"], strict=True)]
    return [merged[key] for key in sorted(merged)]


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the duration that ``share`` of the tasks did not exceed, in the precision of the buckets, or None."""
    wanted = share * sum(buckets)
    if not wanted:
        return None
    below = 0
    for index, count in enumerate(buckets):
        if below + count >= wanted:
            low = BUCKETS_S[index - 1] if index else 0.0
            high = BUCKETS_S[min(index, len(BUCKETS_S) - 1)]
            return low + (high - low) * (wanted - below) / count
        below += count
    return BUCKETS_S[-1]
