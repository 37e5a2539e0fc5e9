"""Decide after which answers, and for how long, a client retries a task."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from seedcore.core.errors import ClusterError, Executed, SeedCoreError
from seedcore.core.reason import Reason
from seedcore.core.task import Task, describe, failure, parse_sized, task_type_of

DEFAULT_TIMEOUT_S = 60.0
"""Time limit of a task if neither the caller, nor the task, nor its organ sets one."""

MAX_IN_FLIGHT = 1_000
FIRST_PAUSE_S = 0.02

Sink = Callable[[dict[str, Any]], None]
"""Takes the one answer of a task."""


class Attempts:
    """The attempts of one task, all within one deadline.

    Args:
        limits_s: Seconds from now; the smallest one that is not None applies.
        patience_s: Seconds in which the task is retried. Each attempt then has the full limit.
    """

    __slots__ = ("_deadline", "_doubted", "_limit_s", "_patience_s", "_pauses", "_started")

    def __init__(self, *limits_s: float | None, patience_s: float | None = None) -> None:
        self._started = time.monotonic()
        named = [limit for limit in limits_s if limit is not None]
        self._limit_s = min(named) if named else None
        self._patience_s = patience_s
        within_s = self._limit_s if patience_s is None else patience_s
        self._deadline = None if within_s is None else self._started + within_s
        self._pauses = 0
        self._doubted = False

    def first_doubt(self) -> bool:
        """Return True once: the type may be in a routing table that has not arrived yet."""
        doubted, self._doubted = self._doubted, True
        return not doubted

    def remaining(self, limit_s: float = DEFAULT_TIMEOUT_S) -> float:
        """Return the seconds for the next attempt, at most ``limit_s``, which also limits the total by default."""
        now = time.monotonic()
        deadline = self._started + limit_s if self._deadline is None else self._deadline
        return max(0.0, min(deadline - now, limit_s))

    def limit(self) -> float | None:
        """Return the seconds for the next attempt, or None if no limit is set, so that the organ's limit applies."""
        if self._limit_s is None or self._patience_s is not None:
            return self._limit_s
        return max(0.0, self._started + self._limit_s - time.monotonic())

    def pause(self, answer: Mapping[str, Any], limit_s: float = DEFAULT_TIMEOUT_S) -> float | None:
        """Return the seconds until the next attempt, or None if the answer is final.

        The task is retried only if it certainly did not run, if a retry can help (the answer has ``retry_after_s``),
        and if there is time left.
        """
        hint = answer.get("retry_after_s")
        if answer.get("success") or answer.get("executed") != "no" or not isinstance(hint, int | float):
            return None
        # Trust the hint of an organ that is overloaded; otherwise back off from FIRST_PAUSE_S.
        overloaded = answer.get("error_type") == "OverloadedError"
        pause = hint if overloaded else min(hint, FIRST_PAUSE_S * 2.0**self._pauses)
        pause *= random.uniform(1.0, 1.5)  # noqa: S311 - so that clients do not come back all at once
        self._pauses = min(self._pauses + 1, 16)
        return pause if pause < self.remaining(limit_s) else None


class Engine(Protocol):
    """Submit tasks in the background."""

    def add(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
        """Start one task; ``sink`` is called exactly once, in any thread."""

    def close(self) -> None:
        """Send nothing more; answer tasks in flight with ``executed: unknown``."""


def parse(raw: Any) -> tuple[Task, int] | dict[str, Any]:
    """Return the caller's task and its size in bytes, or the answer that explains why it is invalid."""
    try:
        return parse_sized(raw)
    except SeedCoreError as error:
        return failure(error, task_type=task_type_of(raw))
    except Exception as error:
        # The caller's mapping may raise anything, or another thread may change it meanwhile.
        text = f"the task cannot be read: {describe(error)}"
        return failure(text, error_type="TaskError", task_type=task_type_of(raw))


def closed_answer(raw: Any, *, executed: Executed = "no") -> dict[str, Any]:
    """Answer a task that a closed client got or had in flight; ``raw`` is the task or its type."""
    error = ClusterError(Reason.CLOSED, "the client was closed")
    return failure(error, task_type=raw if isinstance(raw, str) else task_type_of(raw), executed=executed)
