"""Get a durable task accepted, and wait for its answer: when to send it again, and when an answer is final.

The key makes it safe to send it again, whatever has happened to the last request.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any

WAIT_S = 30.0
"""A request waits at most so long for the end of its task; then it is sent again."""
# More than the Coordinator needs for everything but the wait.
GRACE_S = 15.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.05, 2.0
# Errors after which nobody knows whether the task was accepted, or the inbox will be back.
_AGAIN = frozenset({"OrganUnavailableError", "InboxUnavailableError", "TimeoutError", "OverloadedError"})


class Submission:
    """One durable task of a client.

    Args:
        task: The task.
        key: Its idempotency key.
        wait: Whether to wait for its end, or only until it is accepted.
        timeout_s: Seconds in which to do so, from the first request.

    Attributes:
        answer: Its answer or acceptance, once :meth:`take` has returned None.
    """

    def __init__(self, task: Mapping[str, Any], key: str, *, wait: bool, timeout_s: float) -> None:
        self.task = task
        self.answer: dict[str, Any] = {}
        self._key = key
        self._wait = wait
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._accepted: dict[str, Any] | None = None
        self._failures = 0

    def request(self, now: float) -> tuple[Any, float]:
        """Return the task to send, and the time limit of the request; ``now`` is monotonic."""
        if self._deadline is None:
            self._deadline = now + self._timeout_s
        wait_s = max(0.0, min(WAIT_S, self._deadline - now)) if self._wait else 0.0
        if not isinstance(self.task, Mapping):
            return self.task, GRACE_S  # refused as any other task of its kind
        document = {**self.task, "durable": True, "key": self._key}
        if self._wait:
            document["wait_s"] = round(wait_s, 3)
        return document, wait_s + GRACE_S

    def take(self, answer: dict[str, Any], now: float) -> float | None:
        """Take the answer of a request; return the seconds until the next one, or None if it is final."""
        remaining = 0.0 if self._deadline is None else self._deadline - now
        if answer.get("accepted") is True:
            self._accepted, self._failures = answer, 0
            self.answer = answer
            return 0.0 if self._wait and remaining > 0 else None
        is_told = answer.get("success") or "id" in answer
        if is_told or not self._is_worth_another(answer):
            self.answer = answer
            return None
        pause = min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2.0**self._failures)
        pause *= random.uniform(1.0, 1.5)  # noqa: S311 - so that clients do not come back all at once
        self._failures = min(self._failures + 1, 16)
        if pause < remaining:
            return pause
        self.answer = answer if self._accepted is None else self._accepted
        return None

    @staticmethod
    def _is_worth_another(answer: Mapping[str, Any]) -> bool:
        if answer.get("error_type") not in _AGAIN:
            return False
        return answer.get("executed") == "unknown" or isinstance(answer.get("retry_after_s"), int | float)


def submissions(
    tasks: Iterable[Mapping[str, Any]], keys: Iterable[str | None] | None, *, wait: bool, timeout_s: float
) -> Iterator[Submission]:
    """Return a submission for each task; without a key it gets a new one."""
    for task, key in zip(tasks, repeat(None) if keys is None else keys, strict=keys is not None):
        own = task.get("key") if isinstance(task, Mapping) else None
        yield Submission(task, key or own or uuid.uuid4().hex, wait=wait, timeout_s=timeout_s)
