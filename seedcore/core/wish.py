"""The keys of a durable task that other tasks do not have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedcore.core.errors import TaskError
from seedcore.core.task import BUILTIN_TASK_TYPES, MAX_NAME_CHARS, Task

MAX_WAIT_S = 600.0
_MAX_PRIORITY = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The keys of a durable task that other tasks do not have.

    Attributes:
        key: Idempotency key: the same key with the same task is the same task.
        wait_s: How long to wait for its answer; None to return once it is accepted.
        priority: Higher ones begin first.
        repeatable: Whether it may run again if nobody knows whether it ran; None for what its organ says.
        deadline_s: Seconds within which it has to begin; None for ever.
    """

    key: str | None = None
    wait_s: float | None = None
    priority: int = 0
    repeatable: bool | None = None
    deadline_s: float | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], task: Task) -> Wish:
        """Check the keys.

        Raises:
            TaskError: A key has a wrong value, or the task cannot be durable.
        """
        if raw.get("durable") is not True:
            raise TaskError(f"task key 'durable' is {raw.get('durable')!r}, expected true or false")
        if task.type in BUILTIN_TASK_TYPES:
            raise TaskError(f"task type {task.type!r} is done by the Coordinator itself and cannot be durable")
        key = raw.get("key")
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= MAX_NAME_CHARS):
            raise TaskError(f"task key 'key' must be a string of 1 to {MAX_NAME_CHARS} characters")
        priority = raw.get("priority") or 0
        if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > _MAX_PRIORITY:
            raise TaskError(f"task key 'priority' must be a whole number from -{_MAX_PRIORITY} to {_MAX_PRIORITY}")
        repeatable = raw.get("repeatable")
        if repeatable is not None and not isinstance(repeatable, bool):
            raise TaskError("task key 'repeatable' must be true or false")
        deadline_s = _seconds(raw, "deadline_s")
        if deadline_s is not None and deadline_s <= 0:
            raise TaskError(f"task key 'deadline_s' is {deadline_s:g}, which is in the past; expected more than 0")
        wait_s = _seconds(raw, "wait_s")
        if wait_s is not None and wait_s < 0:
            raise TaskError(f"task key 'wait_s' is {wait_s:g}, expected 0 or more")
        return cls(key=key, wait_s=wait_s, priority=priority, repeatable=repeatable, deadline_s=deadline_s)


def _seconds(raw: Mapping[str, Any], key: str) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TaskError(f"task key {key!r} must be a finite number of seconds")
    if abs(value) > _MAX_SECONDS:
        raise TaskError(f"task key {key!r} must be at most {_MAX_SECONDS} seconds")
    return float(value)


_MAX_SECONDS = 10 * 365 * 86_400
