"""``POST /coordinator/tasks``: a task as JSON.

Every body has ``success``, even that of an error. Only ``success: true`` has code 200, so ``curl --fail`` and
``raise_for_status`` detect failures. ``_MEANINGS`` has the other codes.

A client that accepts ``application/x-ndjson`` gets 200 and each answer as its own line, as soon as it is ready; so do
the tasks in an ``execute_many``: see ``answer_lines.py``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from seedcore.coordinator.http.answer_lines import Lines, tasks_of
from seedcore.coordinator.http.answers import INITIALIZING_RETRY_S, Failed, as_json, failed, with_examples
from seedcore.coordinator.http.body import BODY_TIMEOUT_S, Intake, RefusedError
from seedcore.coordinator.http.encode import UnserializableResultError, encode, encode_own
from seedcore.coordinator.http.middleware import access_of, lacking, request_id
from seedcore.core.access import OPERATE_TYPES, Scope
from seedcore.core.errors import SeedCoreError
from seedcore.core.reason import Status
from seedcore.core.task import LINES_MEDIA_TYPE, MAX_NAME_CHARS, StateWord, failure, normalise, task_type_of

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView

logger = logging.getLogger(__name__)

# An error of these types comes from SeedCore only if no agent has got the task; an agent may raise anything.
_BEFORE_ANY_AGENT = {
    "TaskError": 400,
    "UnknownTaskTypeError": 404,
    "PayloadTooLargeError": 413,
    "OverloadedError": 429,
    "OrganUnavailableError": 503,
    "InboxUnavailableError": 503,
    "KeyConflictError": 409,
    "ExpiredError": 504,
    "InitializationError": 503,
}
# Additional meanings of the codes, for people.
_MEANINGS = {
    400: "The body is not JSON, nested too deeply, or not a task.",
    404: "No organ accepts this type; the error lists the known types.",
    409: "The key of a durable task belongs to another task.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "Not application/json.",
    429: "A limit is reached and nothing was started: retry after Retry-After.",
    500: "The task failed (see `agent_id`; `error_type` is the agent's own), or JSON cannot represent its result.",
    503: "The organ is starting (Retry-After), down, or its process died with the task (see `executed`).",
    504: "There was no answer in time and the task may have run, or an agent raised TimeoutError.",
}


class _TaskKeys(BaseModel):
    type: Annotated[str, Field(description="Task type, compared stripped and in lower case. `task_type` also works.")]
    params: Annotated[dict[str, Any] | None, Field(description="Arguments of the task.")] = None
    description: Annotated[str | None, Field(description="For people.")] = None
    domain: Annotated[str | None, Field(description="Preferred domain of the organ.")] = None
    drift_score: Annotated[float | None, Field(description="Passed to agents unchanged.")] = None
    id: Annotated[str | None, Field(description="Your own id of the task.")] = None
    timeout_s: Annotated[float | None, Field(gt=0, description="Time limit in seconds.")] = None


class TaskIn(_TaskKeys):
    """A task. null for an optional key means its default; unknown keys are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "get_organism_status"}]})

    durable: Annotated[Literal[False] | None, Field(description="See DurableTaskIn.")] = None


class DurableTaskIn(_TaskKeys):
    """A task for the inbox; the keys after `durable` are ignored in any other task."""

    durable: Annotated[Literal[True], Field(description="Whether to put it into the inbox.")]
    key: Annotated[
        str | None,
        Field(min_length=1, max_length=MAX_NAME_CHARS, description="Idempotency key: the same key is the same task."),
    ] = None
    wait_s: Annotated[float | None, Field(ge=0, description="Seconds to wait for the answer, at most 600.")] = None
    priority: Annotated[int | None, Field(ge=-100, le=100, description="Higher ones begin first.")] = None
    repeatable: Annotated[bool | None, Field(description="Whether it may run twice. Default: the organ's.")] = None
    deadline_s: Annotated[float | None, Field(gt=0, description="Seconds within which it has to begin.")] = None


TASK_MODELS = (TaskIn, DurableTaskIn)


class Done(BaseModel):
    """A task that succeeded."""

    model_config = ConfigDict(extra="allow")

    success: Literal[True]
    result: Annotated[
        Any,
        Field(
            description="The agent's result. NaN and infinities are strings, bytes are "
            '`{"base64": "..."}`, tuples and sets are arrays, dates are ISO 8601 strings.'
        ),
    ]
    organ_id: Annotated[str | None, Field(description="null for a built-in task.")]
    agent_id: Annotated[str | None, Field(description="null for a built-in task.")]
    task_type: str
    duration_s: Annotated[float, Field(description="Seconds.")]


class Accepted(BaseModel):
    """A durable task that is on disk and has not ended."""

    success: Annotated[None, Field(description="null: nobody knows yet.")]
    accepted: Literal[True]
    id: Annotated[str, Field(description="Its id in the inbox.")]
    state: Annotated[StateWord, Field(description="See durable.md.")]
    duplicate: Annotated[bool, Field(description="Whether its key was there already.")]


_TASKS = {
    "no params": {"type": "node_facts"},
    "with params": {"type": "echo", "params": {"text": "hi"}, "timeout_s": 5},
    "durable": {"type": "echo", "params": {"text": "hi"}, "durable": True, "key": "greeting-1"},
    "on one organ": {
        "type": "execute_on_organ",
        "params": {"organ_id": "utility_organ_1", "task_data": {"type": "echo", "params": {"text": "hi"}}},
        "timeout_s": 5,
    },
}
_AGENT = {"organ_id": "cognitive_organ_1", "agent_id": "cognitive_organ_1_agent_0"}
_EXAMPLES: dict[int, dict[str, Any]] = {
    200: {
        "done": {
            "success": True,
            "result": {"words": 6, "keywords": [{"word": "agents", "count": 2}]},
            **_AGENT,
            "task_type": "keywords",
            "duration_s": 0.000677,
        }
    },
    202: {"durable": {"success": None, "accepted": True, "id": "1000000", "state": "ready", "duplicate": False}},
    409: {
        "another task": failed(
            "the key 'order-17' belongs to task 1000000, which has another type, domain or params", "KeyConflictError"
        )
    },
    400: {
        "not JSON": failed("the body is not JSON: expected value at line 1 column 1", "TaskError"),
        "not a task": failed("key 'type' is missing, it says what to do", "TaskError"),
    },
    404: {
        "no such type": failed(
            "no organ accepts task type 'nope', known types are: keywords, summarize", "UnknownTaskTypeError", "nope"
        )
    },
    408: {"too slow": failed("the body did not arrive within 60 s", "TimeoutError")},
    413: {"too large": failed("the body is larger than 16777216 bytes", "PayloadTooLargeError")},
    415: {"no JSON": failed("send the task as Content-Type: application/json, not text/plain", "TaskError")},
    429: {
        "queue full": failed(
            "1000 tasks are already waiting",
            "OverloadedError",
            "keywords",
            organ_id="cognitive_organ_1",
            retry_after_s=1.0,
        )
    },
    500: {
        "the agent raised": failed(
            "params key 'text' must be a string, got NoneType", "BadTaskError", "keywords", "yes", **_AGENT
        )
    },
    503: {
        "initializing": failed(
            "the organism is initializing: 0 of 1 organs ready; starting: cognitive_organ_1",
            "OrganUnavailableError",
            "keywords",
        ),
        "its process died": failed(
            "the process of organ cognitive_organ_1 (replica 0) died with the task",
            "OrganUnavailableError",
            "keywords",
            "unknown",
        ),
    },
    504: {"too long": failed("no answer within 60 s", "TimeoutError", "keywords", "unknown", **_AGENT)},
}


def router(view: CoordinatorView) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["tasks"])
    intake = Intake(timeout_s=BODY_TIMEOUT_S)
    task_in = {"schema": {"anyOf": [{"$ref": f"#/components/schemas/{model.__name__}"} for model in TASK_MODELS]}}
    responses: dict[int | str, dict[str, Any]] = {
        code: {"model": Failed, "description": text} for code, text in _MEANINGS.items()
    }
    responses[202] = {"model": Accepted, "description": "A durable task is accepted and has not ended."}
    responses[200] = {"content": {LINES_MEDIA_TYPE: {"schema": {"type": "string"}}}}

    @routes.post(
        "/coordinator/tasks",
        summary="Do a task",
        response_description="Done.",
        response_model=Done,
        responses=responses,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": task_in}}},
    )
    @with_examples(_EXAMPLES, body=_TASKS)
    async def tasks(request: Request) -> Response:
        task, held = await intake.read(request)
        try:
            _check_scope(request, task)
        except RefusedError:
            intake.release(held)
            raise
        if isinstance(task, dict) and task.get("id") is None:
            # The request id makes it possible to find the task in all logs, those of agents included.
            task["id"] = request_id(request.scope)
        if LINES_MEDIA_TYPE in request.headers.get("accept", ""):
            try:
                return Lines(tasks_of(task), _work(view), done=partial(intake.release, held))
            except SeedCoreError as error:
                intake.release(held)
                refusal = failure(error, task_type=task_type_of(task))
                return as_json(refusal, status_code(refusal))
        try:
            answer = await view.handle(task)
        finally:
            intake.release(held)
        body, code = await _written(answer, task)
        return Response(body, code, _retry_after(answer, code, view), media_type="application/json")

    return routes


def _check_scope(request: Request, task: Any) -> None:
    """Check that the token permits a task that changes the organism, and log the token's name.

    Raises:
        RefusedError: The scope of the token is not sufficient.
    """
    types = {task_type_of(task)}
    if "execute_many" in types:
        params = task.get("params")
        inner = params.get("tasks") if isinstance(params, Mapping) else None
        types |= {task_type_of(one) for one in inner} if isinstance(inner, list) else set()
    operating = {kind for kind in types if normalise(kind) in OPERATE_TYPES}
    if not operating:
        return
    access = access_of(request.scope)
    what, identity = ", ".join(sorted(operating)), request_id(request.scope)
    if not access.scope.covers(Scope.OPERATE):
        logger.warning("audit: refused: token=%r types=%s id=%s", access.name, what, identity)
        raise RefusedError(403, "Forbidden", lacking(access, Scope.OPERATE))
    logger.info("audit: token=%r types=%s id=%s", access.name, what, identity)


def status_code(answer: Mapping[str, Any]) -> int:
    """Return the HTTP status code of a task's answer: see ``_MEANINGS``."""
    if answer.get("success") is True:
        return 200
    if answer.get("accepted") is True:
        return 202
    error_type = answer.get("error_type")
    if error_type == "TimeoutError":
        return 504
    if not answer.get("agent_id") and isinstance(error_type, str):
        return _BEFORE_ANY_AGENT.get(error_type, 500)
    return 500


def _work(view: CoordinatorView) -> Callable[[Any], Awaitable[bytes]]:
    async def work(task: Any) -> bytes:
        try:
            answer = await view.handle(task)
        except Exception:
            # A bug must affect only this task; the others of the request go on.
            logger.exception("task failed: type=%r", task_type_of(task))
            text = "the Coordinator's HTTP server failed, see its log"
            answer = failure(text, error_type="InternalError", executed="unknown", task_type=task_type_of(task))
        return (await _written(answer, task))[0]

    return work


async def _written(answer: Mapping[str, Any], task: Any) -> tuple[bytes, int]:
    """Return an answer as JSON, with its status code; if JSON cannot represent it, return an error instead."""
    try:
        return await encode(answer), status_code(answer)
    except UnserializableResultError as error:
        kept = {key: answer[key] for key in ("organ_id", "agent_id") if isinstance(answer.get(key), str)}
        text = f"the task was executed, but its result cannot be sent as JSON: {error}"
        refusal = failure(text, error_type=type(error).__name__, task_type=task_type_of(task), **kept)
        return encode_own(refusal), 500


def _retry_after(answer: Mapping[str, Any], code: int, view: CoordinatorView) -> dict[str, str]:
    """Return the seconds until a retry, if a retry is safe because the task did not run."""
    if code == HTTPStatus.TOO_MANY_REQUESTS:
        said = answer.get("retry_after_s")
        seconds = math.ceil(said) if isinstance(said, int | float) and math.isfinite(said) else 1
        return {"Retry-After": str(max(1, seconds))}
    if code == HTTPStatus.SERVICE_UNAVAILABLE and view.status().get("status") == Status.INITIALIZING:
        return {"Retry-After": str(INITIALIZING_RETRY_S)}
    return {}
