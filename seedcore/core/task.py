"""Tasks and their answers, in the documented shapes.

A task is a mapping that anybody may send; an answer is plain data, whatever happened. Both are checked here, by
hand and not by pydantic: this runs once a task, inside the Coordinator's loop.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from seedcore.core.errors import Executed, OrganUnavailableError, OverloadedError, PayloadTooLargeError, TaskError

MAX_PAYLOAD_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 100
MAX_NAME_CHARS = 200
"""Length of a task type, a domain or an id."""
MAX_BATCH = 1_000
"""Tasks in one of type ``execute_many``."""
LINES_MEDIA_TYPE = "application/x-ndjson"
"""Who accepts this over HTTP gets each answer as a line of its own as soon as it is there."""

BUILTIN_TASK_TYPES = frozenset(
    {
        "canary",
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
"""What the Coordinator does itself; no organ can take a task of these types."""

_EXECUTED: dict[str, Executed] = {
    "TaskError": "no",
    "UnknownTaskTypeError": "no",
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
    """One piece of work, as an agent receives it.

    Attributes:
        type: What to do, stripped and lower case.
        params: The work's arguments.
        description: For people.
        domain: Narrows the choice of the organ; stripped and lower case, None for any.
        drift_score: Carried along for agents that want it.
        id: The caller's own id of the task, if any.
        timeout_s: Seconds the caller is willing to wait; None means the organ's own limit.
    """

    type: str
    params: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    domain: str | None = None
    drift_score: float = 0.0
    id: str | None = None
    timeout_s: float | None = None

    @classmethod
    def parse(cls, raw: Any, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> Task:
        """Check what somebody sent.

        Unknown keys are ignored, None stands for a key's default, ``task_type`` for ``type``.

        Raises:
            TaskError: The shape is wrong; the message names the key and what is allowed.
            PayloadTooLargeError: It is larger than ``max_bytes`` or nested deeper than MAX_DEPTH.
        """
        return parse_sized(raw, max_bytes=max_bytes)[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`parse` takes."""
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
    """Do as :meth:`Task.parse`; returns the size of what was sent, in bytes, as well."""
    if type(raw) is not dict and not isinstance(raw, Mapping):
        raise TaskError(f"a task is a mapping with a 'type', not {type(raw).__name__}")
    # First of all: what is known to be small can be looked at, and named in a message, without care.
    size = payload_bytes(raw, limit=max_bytes)
    if size > max_bytes:
        raise PayloadTooLargeError(f"the task is larger than the {max_bytes} bytes allowed")
    kind = raw.get("type")
    if kind is None:
        kind = raw.get("task_type")
    if not isinstance(kind, str) or not kind.strip() or len(kind) > MAX_NAME_CHARS:
        raise TaskError(f"task key 'type' is {_short(kind)}, expected a string of 1 to {MAX_NAME_CHARS} characters")
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
    """Return the tasks in one of type ``execute_many``.

    Raises:
        TaskError: They are not a list, too many, or one of them holds tasks itself.
    """
    tasks = task.params.get("tasks")
    if not isinstance(tasks, list | tuple) or len(tasks) > MAX_BATCH:
        raise TaskError(f"params key 'tasks' has to be a list of at most {MAX_BATCH} tasks")
    if any(normalise(task_type_of(inner)) == task.type for inner in tasks):
        raise TaskError(f"params key 'tasks' has a task of type {task.type!r} in it, which may hold no other")
    return list(tasks)


def normalise(key: str) -> str:
    """Task types and domains compare stripped and in lower case."""
    return key.strip().lower()


def failure(
    error: BaseException | str,
    *,
    task_type: str = "unknown",
    error_type: str | None = None,
    executed: Executed | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """Build the documented answer of a task that did not succeed.

    Args:
        error: What went wrong.
        task_type: The task's.
        error_type: For programs; default: the error's own type.
        executed: Whether anything was done: ``no``, ``yes``, or ``unknown``; default: what the error implies.
        extra: More keys. An error that knows when to try again gives ``retry_after_s``, which is there only if that
            can help.
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
    """Read the type that somebody's input names, or ``unknown``; never raises."""
    try:
        kind = raw.get("type")
        kind = raw.get("task_type") if kind is None else kind
        return str(kind)[:MAX_NAME_CHARS] if isinstance(kind, str) and kind.strip() else "unknown"
    except BaseException:
        # Anybody's object with anybody's ``get``.
        return "unknown"


def describe(error: BaseException) -> str:
    """Text of an exception that is never empty, can be encoded, and never raises, even if its ``__str__`` does."""
    try:
        text = str(error)[:_MAX_ERROR_CHARS]
    except BaseException:
        # The exception is user code as well: a __str__ that raises must not take the fence down.
        text = ""
    return _encodable(text) or type(error).__name__


def _encodable(text: str) -> str:
    # An OSError about a file whose name is not UTF-8 carries halves of surrogate pairs, which no JSON can hold.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def payload_bytes(value: Any, *, limit: int) -> int:
    """Estimate the size of plain data, in UTF-8 where it is text; stops counting once it is above ``limit``.

    The answer is quick and takes little memory however large the value is.

    Raises:
        PayloadTooLargeError: Nested deeper than MAX_DEPTH (a loop of containers, for one).
    """
    total = 0
    # What is in a container, and how deep that is; only containers come here, for most of what there is are leaves.
    stack: list[tuple[Iterable[Any], int]] = [((value,), 0)]
    while stack and total <= limit:
        items, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise PayloadTooLargeError(f"the task is nested deeper than {MAX_DEPTH} levels")
        for item in items:
            kind = type(item)
            if kind in _FIXED:
                total += _SCALAR_BYTES
            elif kind is dict or isinstance(item, _CONTAINERS):
                # What it holds is at least so large: a list of millions must not be copied to find out.
                is_mapping = kind is dict or isinstance(item, Mapping)
                parts = 2 * len(item) if is_mapping else len(item)
                if total + _SCALAR_BYTES * (parts + 1) > limit:
                    return limit + 1
                total += _SCALAR_BYTES
                if parts:
                    stack.append((chain(item, item.values()) if is_mapping else item, depth + 1))
            else:
                # Most text is short and ASCII: a call for each costs more than all the rest.
                plain = kind is str and item.isascii()
                total += len(item) + _SCALAR_BYTES if plain else _leaf_bytes(item, room=limit - total)
                if total > limit:
                    return total
    return total


_FIXED = frozenset({type(None), bool, int, float})
# What is usual first: to ask whether something is a Mapping takes long.
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
    """Say whether a value is made of None, bool, numbers, text, bytes, lists, tuples and dicts only.

    Exact types: a subclass may carry a ``__reduce__`` that runs code, and a loop of containers is not plain.
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
        # Shortens while it goes: the whole text of a large value would take long.
        text = reprlib.repr(value)
    except BaseException:
        # Somebody's __repr__ is user code too.
        return type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line's worth of it
