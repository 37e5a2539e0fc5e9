"""Tasks and their answers, in the documented shapes.

A task is a mapping from any sender; an answer is always plain data. This module checks both by hand and not with
pydantic, because it runs once per task in the Coordinator's event loop.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, get_args

from seedcore.core.errors import Executed, OrganUnavailableError, OverloadedError, PayloadTooLargeError, TaskError

MAX_PAYLOAD_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 100
MAX_NAME_CHARS = 200
"""Longest task type, domain or id, in characters."""
MAX_BATCH = 1_000
"""Largest number of tasks in one ``execute_many``."""
SENT_TOGETHER, SENT_TOGETHER_BYTES = 250, 1024 * 1024
"""Largest number of tasks, and their estimated size in bytes, that a sender puts into one call or request."""
LINES_MEDIA_TYPE = "application/x-ndjson"
"""An HTTP client that accepts this type gets each answer as its own line, as soon as it is ready."""

CANARY = "canary"
BUILTIN_TASK_TYPES = frozenset(
    {
        CANARY,
        "execute_many",
        "execute_on_organ",
        "execute_on_random_organ",
        "get_metrics",
        "get_organism_status",
        "get_organism_summary",
        "get_routing_debug",
        "initialize_organism",
        "shutdown_organism",
    }
)
"""Task types that the Coordinator handles itself; no organ can accept them."""

StateWord = Literal["ready", "later", "leased", "done", "failed", "parked", "cancelled", "expired"]
STATES: tuple[str, ...] = get_args(StateWord)
"""States of a durable task, as people and programs see them."""

_EXECUTED: dict[str, Executed] = {
    "TaskError": "no",
    "UnknownTaskTypeError": "no",
    "KeyConflictError": "no",
    "NoTaskError": "no",
    "WrongStateError": "no",
    "PayloadTooLargeError": "no",
    "OverloadedError": "no",
    "UnserializableResultError": "yes",
    "ResultTooLargeError": "yes",
}
_SCALAR_BYTES = 16
_MAX_ERROR_CHARS = 4000
_MAX_ERROR_TYPE_CHARS = 100


@dataclass(frozen=True, slots=True)
class Task:
    """One task, as an agent receives it.

    Attributes:
        type: The task type, stripped and lower case.
        params: The arguments.
        description: For people.
        domain: Preferred domain of the organ; stripped and lower case, None for any.
        drift_score: Passed to agents unchanged.
        id: The caller's id of the task, if any.
        timeout_s: Time limit in seconds; None means the organ's limit.
        key: Of a durable task: the idempotency key, if it has one. ``id`` is then its id in the inbox.
        attempt: Of a durable task: the number of this attempt, from 1; 0 for any other task.
    """

    type: str
    params: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    domain: str | None = None
    drift_score: float = 0.0
    id: str | None = None
    timeout_s: float | None = None
    key: str | None = None
    attempt: int = 0

    @classmethod
    def parse(cls, raw: Any, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> Task:
        """Check a task from a sender.

        Unknown keys are ignored, None means a key's default, and ``task_type`` is an alias of ``type``.

        Raises:
            TaskError: The shape is wrong; the message names the key and the expected value.
            PayloadTooLargeError: The task is larger than ``max_bytes`` or nested deeper than MAX_DEPTH.
        """
        return parse_sized(raw, max_bytes=max_bytes)[0]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`parse` accepts."""
        return {
            "type": self.type,
            "params": dict(self.params),
            "description": self.description,
            "domain": self.domain,
            "drift_score": self.drift_score,
            "id": self.id,
            "timeout_s": self.timeout_s,
        }


def parse_sized(raw: Any, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> tuple[Task, int]:
    """Parse a task like :meth:`Task.parse`, and also return its size in bytes."""
    if type(raw) is not dict and not isinstance(raw, Mapping):
        raise TaskError(f"a task must be a mapping with a 'type', got {type(raw).__name__}")
    # Check the size first: after that it is safe to inspect the task and to quote it in a message.
    size = payload_bytes(raw, limit=max_bytes)
    if size > max_bytes:
        raise PayloadTooLargeError(f"the task is larger than {max_bytes} bytes")
    kind = raw.get("type")
    if kind is None:
        kind = raw.get("task_type")
    if not isinstance(kind, str) or not kind.strip() or len(kind) > MAX_NAME_CHARS:
        raise TaskError(f"task key 'type' is {_short(kind)}, expected a string of 1 to {MAX_NAME_CHARS} characters")
    params = raw.get("params")
    if type(params) is not dict:  # the check for Mapping is slow
        params = _optional(raw, "params", Mapping, {})
    for key in params:
        if not isinstance(key, str):
            raise TaskError(f"task key 'params' has the key {_short(key)}, expected strings only")
    domain, identity = _name(raw, "domain"), _name(raw, "id")
    timeout = _number(raw, "timeout_s", None)
    if timeout is not None and timeout <= 0:
        raise TaskError(f"task key 'timeout_s' is {timeout}, expected a number of seconds above 0")
    task = Task(
        type=normalise(kind),
        params=params,
        description=_optional(raw, "description", str, ""),
        domain=(normalise(domain) or None) if domain is not None else None,
        drift_score=_number(raw, "drift_score", 0.0) or 0.0,
        id=identity,
        timeout_s=timeout,
    )
    return task, size


def inner_tasks(task: Task) -> list[Any]:
    """Return the tasks in an ``execute_many``.

    Raises:
        TaskError: They are not a list, too many, or one of them contains tasks itself.
    """
    tasks = task.params.get("tasks")
    if not isinstance(tasks, list | tuple) or len(tasks) > MAX_BATCH:
        raise TaskError(f"params key 'tasks' must be a list of at most {MAX_BATCH} tasks")
    if any(normalise(task_type_of(inner)) == task.type for inner in tasks):
        raise TaskError(f"params key 'tasks' contains a task of type {task.type!r}, which must not be nested")
    return list(tasks)


def normalise(key: str) -> str:
    """Return a task type or domain in the form in which they are compared: stripped, in lower case."""
    return key.strip().lower()


def failure(
    error: BaseException | str,
    *,
    task_type: str = "unknown",
    error_type: str | None = None,
    executed: Executed | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Build the documented answer of a failed task.

    Args:
        error: The error.
        task_type: Type of the task.
        error_type: Error type for programs; default: the type of ``error``.
        executed: Whether the task's code ran: ``no``, ``yes``, or ``unknown``; default: derived from the error.
        extra: More keys. ``retry_after_s`` of the error is added, if it has one.
    """
    if error_type is None:
        error_type = type(error).__name__ if isinstance(error, BaseException) else "TaskError"
    if executed is None:
        told = error.executed if isinstance(error, OrganUnavailableError) else None
        executed = told or _EXECUTED.get(error_type, "unknown")
    if isinstance(error, OverloadedError | OrganUnavailableError) and error.retry_after_s is not None:
        extra.setdefault("retry_after_s", error.retry_after_s)
    return {
        "success": False,
        "error": describe(error) if isinstance(error, BaseException) else _encodable(error[:_MAX_ERROR_CHARS]),
        "error_type": _encodable(error_type[:_MAX_ERROR_TYPE_CHARS]),
        "task_type": task_type,
        "executed": executed,
        **extra,
    }


def task_type_of(raw: Any) -> str:
    """Return the task type in untrusted input, or ``unknown``; never raise."""
    try:
        kind = raw.get("type")
        kind = raw.get("task_type") if kind is None else kind
        return str(kind)[:MAX_NAME_CHARS] if isinstance(kind, str) and kind.strip() else "unknown"
    except BaseException:
        # The input may be any object with any ``get``.
        return "unknown"


def describe(error: BaseException) -> str:
    """Return the text of an exception; it is never empty, can be encoded, and ``__str__`` cannot make it raise."""
    try:
        text = str(error)[:_MAX_ERROR_CHARS]
    except BaseException:
        # The exception is user code as well, and its __str__ may raise.
        text = ""
    return _encodable(text) or type(error).__name__


def _encodable(text: str) -> str:
    # An OSError about a file whose name is not UTF-8 contains half surrogate pairs, which JSON cannot represent.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def payload_bytes(value: Any, *, limit: int) -> int:
    """Estimate the size of plain data in bytes, text as UTF-8; stop counting above ``limit``.

    It is quick and takes little memory, however large the value is.

    Raises:
        PayloadTooLargeError: The value is nested deeper than MAX_DEPTH (a cycle, for example).
    """
    total = 0
    # Items of a container with their depth. Only containers are pushed, because most values are leaves.
    stack: list[tuple[Iterable[Any], int]] = [((value,), 0)]
    while stack:
        items, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise PayloadTooLargeError(f"the task is nested deeper than {MAX_DEPTH} levels")
        for item in items:
            kind = type(item)
            if kind in _FIXED:
                total += _SCALAR_BYTES
            elif kind is str and item.isascii():
                # Most text is short and ASCII: a call for each, or the check for Mapping, costs more than all the rest.
                total += len(item) + _SCALAR_BYTES
            elif kind is dict or isinstance(item, _CONTAINERS):
                # A lower limit of its size: a list of millions must not be copied.
                is_mapping = kind is dict or isinstance(item, Mapping)
                parts = 2 * len(item) if is_mapping else len(item)
                if total + _SCALAR_BYTES * (parts + 1) > limit:
                    return limit + 1
                total += _SCALAR_BYTES
                if parts:
                    stack.append((chain(item, item.values()) if is_mapping else item, depth + 1))
            else:
                total += _leaf_bytes(item, room=limit - total)
            if total > limit:
                return total
    return total


_FIXED = frozenset({type(None), bool, int, float})
# The most common types first: checking for Mapping is slow.
_CONTAINERS = (dict, list, tuple, set, frozenset, Mapping)


def _leaf_bytes(item: Any, *, room: int) -> int:
    if isinstance(item, str):
        if item.isascii() or len(item) > room:
            return len(item) + _SCALAR_BYTES
        return len(item.encode("utf-8", "surrogatepass")) + _SCALAR_BYTES
    if isinstance(item, bytes | bytearray):
        return len(item) + _SCALAR_BYTES
    size = getattr(item, "nbytes", 0)
    return max(size, _SCALAR_BYTES) if isinstance(size, int) else _SCALAR_BYTES


def is_plain(value: Any) -> bool:
    """Return whether a value consists only of None, bool, numbers, text, bytes, lists, tuples and dicts.

    Only exact types count, because a subclass may have a ``__reduce__`` that runs code. A cycle is not plain.
    """
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        kind = type(item)
        if kind in _PLAIN_SCALARS:
            continue
        if depth > MAX_DEPTH:
            return False
        if kind is dict:
            for key, entry in item.items():
                if type(key) not in _PLAIN_SCALARS:
                    return False
                stack.append((entry, depth + 1))
        elif kind is list or kind is tuple:
            stack.extend((entry, depth + 1) for entry in item)
        else:
            return False
    return True


_PLAIN_SCALARS = frozenset({type(None), bool, int, float, str, bytes})


def _optional(raw: Mapping[str, Any], key: str, kind: type | Any, default: Any) -> Any:
    value = raw.get(key)
    if value is None:
        return default
    if not isinstance(value, kind):
        wanted = "a mapping" if kind is Mapping else "a string"
        raise TaskError(f"task key {key!r} is {_short(value)}, expected {wanted}")
    return value


def _name(raw: Mapping[str, Any], key: str) -> str | None:
    name: str | None = _optional(raw, key, str, None)
    if name is not None and len(name) > MAX_NAME_CHARS:
        raise TaskError(f"task key {key!r} is {_short(name)}, expected up to {MAX_NAME_CHARS} characters")
    return name


def _number(raw: Mapping[str, Any], key: str, default: float | None) -> float | None:
    value = raw.get(key)
    if value is None:
        return default
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise TaskError(f"task key {key!r} is {_short(value)}, expected a finite number")


def _short(value: Any) -> str:
    if value is None:
        return "missing"
    try:
        # reprlib shortens as it goes; the full text of a large value would take too long.
        text = reprlib.repr(value)
    except BaseException:
        # __repr__ may be user code.
        return type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line's worth of it
