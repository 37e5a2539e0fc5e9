"""``/coordinator/schedules``: the schedules of durable tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from seedcore.coordinator.http.answers import Failed, as_json, failed, with_examples
from seedcore.coordinator.http.audit import refusal
from seedcore.coordinator.http.body import BODY_TIMEOUT_S, Intake
from seedcore.coordinator.http.middleware import access_of
from seedcore.core.access import Scope
from seedcore.core.errors import SeedCoreError
from seedcore.core.schedule import schema
from seedcore.core.task import StateWord, failure

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView

_CODES = {"NoTaskError": 404, "UnknownTaskTypeError": 404, "WrongStateError": 409, "InboxUnavailableError": 503}


class LastTask(BaseModel):
    """The task that a schedule has planned last."""

    id: Annotated[str, Field(description="Its id in the inbox.")]
    state: Annotated[StateWord, Field(description="See durable.md.")]


class Schedule(BaseModel):
    """A schedule of durable tasks."""

    id: str
    when: Annotated[str, Field(description="Its moments in short.")]
    source: Annotated[Literal["file", "http"], Field(description="organism.yaml, or a request.")]
    next: Annotated[str | None, Field(description="Its next planned moment in its time zone; null if it is over.")]
    last_planned: Annotated[str | None, Field(description="The last moment that has come.")]
    last_task: Annotated[LastTask | None, Field(description="null if there is none, or it has been deleted.")]
    paused: bool
    missed: Annotated[int, Field(description="Moments that came while nothing could be planned, and got no task.")]
    overlapped: Annotated[int, Field(description="Moments that got no task because the previous one had not ended.")]
    spec: Annotated[dict[str, Any], Field(description="The schedule as it was given.")]


class Put(Schedule):
    """A schedule after it was made or changed."""

    created: Annotated[bool, Field(description="Whether it is new.")]


class Ran(BaseModel):
    """The task of a schedule that was run at once."""

    success: Annotated[None, Field(description="null: nobody knows yet.")]
    accepted: Literal[True]
    id: Annotated[str, Field(description="Its id in the inbox.")]
    state: StateWord
    duplicate: bool


_SPEC = {"id": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "task": {"type": "report"}}
_SCHEDULE: dict[str, Any] = {
    "id": "nightly", "when": "cron 30 2 * * * Europe/Berlin", "source": "http", "next": "2026-11-28T02:30:00+01:00",
    "last_planned": "2026-11-27T02:30:00+01:00", "last_task": {"id": "1000000", "state": "done"}, "paused": False,
    "missed": 0, "overlapped": 0,
    "spec": {**_SPEC, "grace_s": 60.0, "misfire": "once", "overlap": "forbid"},
}  # fmt: skip
_NOT_OPEN = failed("the inbox is not open: it is being opened", "InboxUnavailableError", retry_after_s=1.0)
_MISSING = {
    "no such schedule": failed("there is no schedule 'nope'", "NoTaskError"),
    "no inbox": failed("this deployment has no inbox for durable tasks", "NoTaskError"),
}
_WRONG = failed("every is '0s', expected a whole number of seconds of at least 1", "TaskError")
_OF_FILE = failed("the schedule 'nightly' is one of organism.yaml; change it there", "WrongStateError")
_REFUSED: dict[int, dict[str, Any]] = {503: {"not open": _NOT_OPEN}}
_WORDS = {
    400: "The schedule is wrong.",
    404: "There is no such schedule, no organ accepts its task, or the deployment has no inbox.",
    408: "The body did not arrive in time.",
    409: "It belongs to organism.yaml.",
    413: "The body is too large.",
    415: "Not application/json.",
    429: "Too much is being received at once: retry after Retry-After.",
    503: "The inbox is not open; retry.",
}
_ID = {"name": "schedule_id", "in": "path", "required": True, "schema": {"type": "string"}}


def router(view: CoordinatorView) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["schedules"])
    intake = Intake(timeout_s=BODY_TIMEOUT_S)

    @routes.get(
        "/coordinator/schedules",
        summary="List the schedules",
        response_description="All schedules, by id.",
        response_model=list[Schedule],
        responses=_responses(404, 503),
    )
    @with_examples({200: {"one": [_SCHEDULE]}, 404: {"no inbox": _MISSING["no inbox"]}, **_REFUSED})
    async def list_schedules(_: Request) -> Response:
        return await _answer(view.inbox.schedules)

    body = {"required": True, "content": {"application/json": {"schema": schema()}}}

    @routes.post(
        "/coordinator/schedules",
        summary="Make a schedule, or change the one with its id",
        response_description="The schedule.",
        response_model=Put,
        responses=_responses(400, 404, 408, 409, 413, 415, 429, 503),
        openapi_extra={"requestBody": body},
    )
    @with_examples(
        {
            200: {"a new one": {**_SCHEDULE, "created": True}},
            400: {"a wrong one": _WRONG},
            404: _MISSING,
            408: {"too slow": failed("the body did not arrive within 60 s", "TimeoutError")},
            409: {"of the file": _OF_FILE},
            413: {"too large": failed("the body is larger than 16777216 bytes", "PayloadTooLargeError")},
            415: {"no JSON": failed("send the task as Content-Type: application/json, not text/plain", "TaskError")},
            429: {"too much": failed("too much is being received at once", "OverloadedError")},
            **_REFUSED,
        },
        body={
            "every night": _SPEC,
            "every quarter of an hour": {"id": "poll", "every": "15m", "task": {"type": "poll"}},
        },
    )
    async def put_schedule(request: Request) -> Response:
        if (refused := refusal(request, "put a schedule")) is not None:
            return refused
        raw, held = await intake.read(request)
        try:
            return await _answer(lambda: view.inbox.put_schedule(raw, by=access_of(request.scope).name))
        finally:
            intake.release(held)

    @routes.delete(
        "/coordinator/schedules/{schedule_id}",  # noqa: FAST003 - FastAPI would describe its own errors for a parameter
        summary="Delete a schedule; its tasks stay",
        response_description="The schedule as it was.",
        response_model=Schedule,
        responses=_responses(404, 409, 503),
        openapi_extra={"parameters": [_ID]},
    )
    @with_examples({200: {"deleted": _SCHEDULE}, 404: _MISSING, 409: {"of the file": _OF_FILE}, **_REFUSED})
    async def delete(request: Request) -> Response:
        return await _change(view, request, "delete")

    for verb, summary in {"pause": "Pause a schedule", "resume": "Go on with a paused schedule"}.items():
        _add_verb(routes, view, verb, summary)

    @routes.post(
        "/coordinator/schedules/{schedule_id}/run",  # noqa: FAST003 - as above
        summary="Run the task of a schedule now, beside its planned moments",
        response_description="Its task is in the inbox.",
        response_model=Ran,
        responses=_responses(404, 503),
        openapi_extra={"parameters": [_ID]},
    )
    @with_examples(
        {
            200: {
                "accepted": {"success": None, "accepted": True, "id": "1000000", "state": "ready", "duplicate": False}
            },
            404: _MISSING,
            **_REFUSED,
        }
    )
    async def run(request: Request) -> Response:
        return await _change(view, request, "run", needed=Scope.SUBMIT)

    return routes


def _add_verb(routes: APIRouter, view: CoordinatorView, verb: str, summary: str) -> None:
    @routes.post(
        f"/coordinator/schedules/{{schedule_id}}/{verb}",
        name=f"{verb}_schedule",
        summary=summary,
        response_description="The schedule.",
        response_model=Schedule,
        responses=_responses(404, 503),
        openapi_extra={"parameters": [_ID]},
    )
    @with_examples({200: {"done": _SCHEDULE}, 404: _MISSING, **_REFUSED})
    async def change(request: Request) -> Response:
        return await _change(view, request, verb)


async def _change(view: CoordinatorView, request: Request, verb: str, *, needed: Scope = Scope.OPERATE) -> Response:
    schedule_id = request.path_params["schedule_id"]
    if (refused := refusal(request, verb, needed=needed, schedule=schedule_id)) is not None:
        return refused
    name = access_of(request.scope).name
    return await _answer(lambda: view.inbox.change_schedule(schedule_id, verb, by=name))


async def _answer(ask: Callable[[], Awaitable[Any]]) -> Response:
    try:
        return as_json(await ask())
    except SeedCoreError as error:
        answer = failure(error)
        code = _CODES.get(answer["error_type"], 400)
        return as_json(answer, code, {"Retry-After": "1"} if code == 503 else {})  # noqa: PLR2004 - as above


def _responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Failed, "description": _WORDS[code]} for code in codes}
