"""Make the durable task for the store from what its sender asks for."""

from __future__ import annotations

import hashlib
import json
import math

from seedcore.coordinator.inbox.messages import NewTask, lane_of
from seedcore.core.errors import TaskError
from seedcore.core.task import Task, describe
from seedcore.core.wish import Wish

_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
_SORTED = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def new_task(
    task: Task, wish: Wish, *, task_id: int, in_domain: bool, repeatable: bool, now: int, by: str = ""
) -> NewTask:
    """Return the task for the store.

    Args:
        task: The task.
        wish: What its sender asks for.
        task_id: Its id.
        in_domain: Whether an organ claims its type in its domain.
        repeatable: What its organ says.
        now: Milliseconds since 1970.
        by: Who submits it.

    Raises:
        TaskError: JSON cannot represent its params.
    """
    try:
        params = dict(task.params)
        rest = {"params": params, "description": task.description, "drift_score": task.drift_score}
        body = _JSON.encode(rest).encode()
        # The order of keys makes no other task.
        identity = _SORTED.encode([task.type, task.domain, params]).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskError(f"the params of a durable task must be JSON: {describe(error)}") from error
    return NewTask(
        id=task_id,
        key=wish.key,
        digest=hashlib.sha256(identity).digest(),
        type=task.type,
        lane=lane_of(task.type, task.domain if in_domain else None),
        domain=task.domain,
        body=body,
        priority=wish.priority,
        repeatable=repeatable if wish.repeatable is None else wish.repeatable,
        deadline=None if wish.deadline_s is None else now + max(1, int(wish.deadline_s * 1000)),
        timeout_ms=None if task.timeout_s is None else max(1, math.ceil(task.timeout_s * 1000)),
        by=by,
    )
