"""Documents about durable tasks for people and programs: acceptances, answers, and everything about a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from seedcore.coordinator.inbox.decisions import HELD, State
from seedcore.coordinator.inbox.ids import to_text
from seedcore.coordinator.inbox.messages import Told
from seedcore.core.schedule import ScheduleSpec, show_moment
from seedcore.core.task import failure

_TIMES = ("created", "ended", "deadline", "leased", "leased_until", "not_before", "at", "began")
_FLAGS = ("repeatable", "unwanted")
_HIDDEN = frozenset({"digest", "lane", "bounces", "timeout_ms", "task"})


def acceptance(told: Told) -> dict[str, Any]:
    """Return the answer to the acceptance of a task; ``success`` is null, because its work has not ended."""
    state = told.state.word
    return {"success": None, "accepted": True, "id": to_text(told.id), "state": state, "duplicate": told.duplicate}


def answer(told: Told, *, task_type: str = "unknown") -> dict[str, Any]:
    """Return the answer of a task that has ended, with its id and state."""
    name = to_text(told.id)
    document: dict[str, Any]
    if told.answer is not None:
        document = json.loads(told.answer)
    elif told.state is State.DONE and not told.error:
        # A person has said so.
        document = {"success": True, "result": None, "organ_id": None, "agent_id": None, "duration_s": 0.0}
    else:
        text, kind = _WORDS.get(told.state, ("{error}", "ResultLostError"))
        text = text.format(error=told.error or "it has no answer", id=name)
        document = failure(text, error_type=kind, executed=told.executed or "no")
    if document.get("task_type", "unknown") == "unknown":
        document["task_type"] = task_type
    if told.state in HELD and not document.get("success"):
        document["error"] = f"{document['error']} (it waits for a decision: seedcore task retry|done|discard {name})"
    return {**document, "id": name, "state": told.state.word}


_WORDS = {
    State.CANCELLED: ("the task was cancelled", "CancelledError"),
    State.EXPIRED: ("the task had not begun by its deadline", "ExpiredError"),
    State.PARKED: ("{error}", "ParkedError"),
    State.FAILED: ("{error}", "TaskError"),
}


def listed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a table as plain data."""
    document: dict[str, Any] = {}
    for name, value in row.items():
        if name in _HIDDEN:
            continue
        if name == "id":
            document[name] = to_text(value)
        elif name == "state":
            document[name] = State(value).word
        elif name in _TIMES:
            document[name] = _moment(value)
        elif name in _FLAGS:
            document[name] = bool(value)
        else:
            document[name] = value
    return document


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything about a task."""
    plain = {key: value for key, value in row.items() if key not in {"body", "answer", "story"}}
    document = listed(plain)
    timeout_ms = row.get("timeout_ms")
    document["timeout_s"] = None if timeout_ms is None else timeout_ms / 1000
    document |= json.loads(row["body"])
    told = Told(
        row["id"], State(row["state"]), executed=row["executed"], answer=row["answer"], error=row["error"] or ""
    )
    ended = row["ended"] is not None
    document["answer"] = answer(told, task_type=row["type"]) if ended else None
    document["story"] = [listed(entry) for entry in row["story"]]
    return document


def schedule(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schedule; its moments are in its time zone."""
    spec = json.loads(row["spec"])
    zone = spec.get("timezone", "UTC")
    moments = {
        name: None if row[name] is None else show_moment(row[name], zone) for name in ("next", "last_planned")
    }  # fmt: skip
    task, state = row["last_task"], row["state"]
    return {
        "id": row["id"],
        "when": ScheduleSpec.from_dict(spec).text,
        "source": row["source"],
        **moments,
        # The task is deleted some days after its end.
        "last_task": None if task is None or state is None else {"id": to_text(task), "state": State(state).word},
        "paused": bool(row["paused"]),
        "missed": row["missed"],
        "overlapped": row["overlapped"],
        "spec": spec,
    }


def _moment(value: int | None) -> str | None:
    if not value:
        return None
    return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
