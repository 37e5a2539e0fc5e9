"""``/coordinator/tasks``: the durable tasks in the inbox, and decisions about them.

``POST /coordinator/tasks`` accepts them, see ``tasks.py``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from seedcore.coordinator.http.answers import Failed, as_json, failed, with_examples
from seedcore.coordinator.http.audit import refusal
from seedcore.coordinator.http.middleware import access_of
from seedcore.core.errors import Executed, SeedCoreError, TaskError
from seedcore.core.task import STATES, StateWord, failure

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView

_STATES = f"^(({'|'.join(STATES)})(,|$))*$"
_SECONDS: dict[str, Any] = {"type": "number", "minimum": 0}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_CODES = {"NoTaskError": 404, "WrongStateError": 409, "InboxUnavailableError": 503}


class Listed(BaseModel):
    """A durable task in short."""

    model_config = ConfigDict(extra="allow")

    id: Annotated[str, Field(description="Its id in the inbox.")]
    key: Annotated[str | None, Field(description="Its idempotency key.")]
    type: str
    state: Annotated[StateWord, Field(description="See durable.md.")]
    attempt: Annotated[int, Field(description="Number of its last attempt; 0 before the first one.")]
    created: Annotated[str, Field(description="When it was accepted (ISO 8601).")]
    ended: Annotated[str | None, Field(description="When it ended, or was parked.")]
    executed: Annotated[Executed | None, Field(description="Whether its code ran, as far as that is known.")]
    error: Annotated[str | None, Field(description="Why it has not succeeded.")]


class Shown(Listed):
    """A durable task with everything that is stored about it."""

    params: dict[str, Any]
    answer: Annotated[dict[str, Any] | None, Field(description="Its answer; null until it has ended.")]
    story: Annotated[list[dict[str, Any]], Field(description="Attempts that did not succeed, and decisions.")]


class Decided(BaseModel):
    """A durable task after a decision."""

    id: str
    state: StateWord
    executed: Executed | None


class Copied(BaseModel):
    """A copy of the inbox."""

    path: Annotated[str, Field(description="The file on the head.")]
    bytes: int
    schema_: Annotated[int, Field(alias="schema", description="Version of its tables.")]
    epoch: int
    tasks: Annotated[dict[StateWord, int], Field(description="Number of tasks by state.")]


_COPY: dict[str, Any] = {
    "path": "/opt/seedcore/state/seedcore/inbox/copy.sqlite3", "bytes": 65536, "schema": 1, "epoch": 4,
    "tasks": {"ready": 2, "leased": 1, "done": 40, "failed": 0, "parked": 1, "cancelled": 0, "expired": 0, "later": 0},
}  # fmt: skip
_TASK: dict[str, Any] = {
    "id": "1000000", "key": "order-17", "type": "pay", "domain": None, "state": "parked", "attempt": 1, "priority": 0,
    "repeatable": False, "created": "2026-11-27T10:00:00.000+00:00", "organ": "pay.0",
    "ended": "2026-11-27T10:00:04.000+00:00", "executed": "unknown", "error_type": "OrganUnavailableError",
    "error": "the process of organ pay.0 died with the task, so nobody knows whether it was executed",
}  # fmt: skip
_ANSWER = failed(_TASK["error"], "OrganUnavailableError", "pay", "unknown", id="1000000", state="parked")
_NOT_OPEN = failed("the inbox is not open: it is being opened", "InboxUnavailableError", retry_after_s=1.0)
_NO_INBOX = failed("this deployment has no inbox for durable tasks", "NoTaskError")
_NO_TASK = failed("there is no durable task 'nope'", "NoTaskError")
_WRONG = failed("limit is 'many', expected a number of at least 0", "TaskError")
_REFUSED: dict[int, dict[str, Any]] = {503: {"not open": _NOT_OPEN}}
_MISSING: dict[str, Any] = {"no such task": _NO_TASK, "no inbox": _NO_INBOX}
_TASK_ID = {"name": "task_id", "in": "path", "required": True, "schema": {"type": "string"}}
_WORDS = {
    400: "A parameter is wrong.",
    404: "There is no such task, or the deployment has no inbox.",
    409: "The state of the task does not allow it.",
    503: "The inbox is not open; retry.",
}


def router(view: CoordinatorView) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["durable tasks"])

    @routes.get(
        "/coordinator/tasks",
        summary="List durable tasks",
        response_description="The newest first.",
        response_model=list[Listed],
        responses=_responses(400, 404, 503),
        openapi_extra={
            "parameters": [
                _parameter(
                    "state", "States, separated by commas. Default: all.", {"type": "string", "pattern": _STATES}
                ),
                _parameter("type", "A task type.", {"type": "string"}),
                _parameter("since_s", "Only those accepted in the last so many seconds.", _SECONDS),
                _parameter("limit", "Largest number of tasks, at most 1000. Default: 100.", _COUNT),
            ]
        },
    )
    @with_examples(
        {200: {"one parked": [_TASK]}, 400: {"wrong parameter": _WRONG}, 404: {"no inbox": _NO_INBOX}, **_REFUSED}
    )
    async def list_tasks(request: Request) -> Response:
        try:
            query = request.query_params
            states = [word for word in query.get("state", "").split(",") if word]
            if unknown := [word for word in states if word not in STATES]:
                raise TaskError(f"state is {', '.join(unknown)}, expected some of {', '.join(STATES)}")
            since_s, limit = _number(request, "since_s"), _number(request, "limit")
            found = await view.inbox.find(
                states=states, kind=query.get("type"), since_s=since_s, limit=100 if limit is None else int(limit)
            )
        except SeedCoreError as error:
            return _refusal(error)
        return as_json(found)

    @routes.get(
        "/coordinator/tasks/{task_id}",  # noqa: FAST003 - FastAPI would describe its own errors for a parameter
        summary="Show a durable task, or wait for it",
        response_description="The task, once it has ended or the wait is over.",
        response_model=Shown,
        responses=_responses(400, 404, 503),
        openapi_extra={
            "parameters": [
                _TASK_ID,
                _parameter("wait_s", "Seconds to wait for its end, at most 600. Default: 0.", _SECONDS),
            ]
        },
    )
    @with_examples(
        {
            200: {"a parked one": {**_TASK, "params": {"order": 17}, "answer": _ANSWER, "story": []}},
            400: {"wrong parameter": _WRONG},
            404: _MISSING,
            **_REFUSED,
        }
    )
    async def show_task(request: Request) -> Response:
        task_id = request.path_params["task_id"]
        try:
            found = await view.inbox.show(task_id, _number(request, "wait_s") or 0.0)
        except SeedCoreError as error:
            return _refusal(error)
        if found is None:
            text = f"there is no durable task {task_id[:64]!r}"
            return as_json(failure(text, error_type="NoTaskError", executed="no"), 404)
        return as_json(found)

    _add_copy(routes, view)
    for verb, summary in _VERBS.items():
        _add_verb(routes, view, verb, summary)
    return routes


_VERBS = {
    "retry": "Run a parked or failed task again",
    "done": "Settle a parked or failed task as done",
    "discard": "Give a parked or failed task up",
    "cancel": "Cancel a task that has not ended",
}


def _add_verb(routes: APIRouter, view: CoordinatorView, verb: str, summary: str) -> None:
    @routes.post(
        f"/coordinator/tasks/{{task_id}}/{verb}",
        name=f"{verb}_task",
        summary=summary,
        response_description="Its new state. A task that runs stays leased until its organ has cancelled it.",
        response_model=Decided,
        responses=_responses(404, 409, 503),
        openapi_extra={"parameters": [_TASK_ID]},
    )
    @with_examples(
        {
            200: {"decided": {"id": "1000000", "state": "done", "executed": "unknown"}},
            404: _MISSING,
            409: {"wrong state": failed(f"task 1000000 is expired; {verb} is not possible", "WrongStateError")},
            **_REFUSED,
        }
    )
    async def decide(request: Request) -> Response:
        task_id = request.path_params["task_id"]
        if (refused := refusal(request, verb, task=task_id)) is not None:
            return refused
        try:
            return as_json(await view.inbox.decide(task_id, verb, by=access_of(request.scope).name))
        except SeedCoreError as error:
            return _refusal(error)


def _add_copy(routes: APIRouter, view: CoordinatorView) -> None:
    @routes.post(
        "/coordinator/inbox/copy",
        summary="Copy the inbox into one file on the head",
        response_description="Where the copy is, and what is in it. It replaces an earlier copy.",
        response_model=Copied,
        responses=_responses(404, 503),
    )
    @with_examples({200: {"copied": _COPY}, 404: {"no inbox": _NO_INBOX}, **_REFUSED})
    async def copy_inbox(request: Request) -> Response:
        if (refused := refusal(request, "copy")) is not None:
            return refused
        try:
            return as_json(await view.inbox.copy())
        except SeedCoreError as error:
            return _refusal(error)


def _responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Failed, "description": _WORDS[code]} for code in codes}


def _parameter(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise TaskError(f"{name} is {text[:40]!r}, expected a number of at least 0")
    return value


def _refusal(error: SeedCoreError) -> Response:
    answer = failure(error)
    code = _CODES.get(answer["error_type"], 400)
    headers = {"Retry-After": "1"} if code == 503 else {}  # noqa: PLR2004 - service unavailable
    return as_json(answer, code, headers)
