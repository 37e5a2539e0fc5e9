"""What an operator does: pause and resume organs, replace processes, rebalance, drain and undrain nodes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from seedcore.coordinator.http.answers import Failed, as_json, failed, with_examples
from seedcore.coordinator.http.audit import refusal
from seedcore.coordinator.http.middleware import access_of
from seedcore.core.access import Scope
from seedcore.core.errors import SeedCoreError, TaskError
from seedcore.core.task import failure

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView

# Time limits if the request has none, in seconds.
REPLACE_S = 300.0
REBALANCE_S = 600.0
_CODES = {"TaskError": 400, "UnknownNameError": 404}


class Own(BaseModel):
    """What the token of the request permits."""

    name: Annotated[str, Field(description="Name of the token; `anybody` without authentication.")]
    scope: Scope


class Ordered(BaseModel):
    """An order that lasts."""

    since: Annotated[str, Field(description="When it was given (ISO 8601).")]
    by: Annotated[str, Field(description="Name of the token of who has given it.")]


class PausedOrgan(BaseModel):
    """An organ after it was paused or resumed."""

    organ_id: str
    paused: Annotated[Ordered | None, Field(description="null if it begins tasks.")]
    in_flight: Annotated[int, Field(description="Tasks in its processes, those that wait included.")]
    queued: Annotated[int, Field(description="Tasks in its processes that have not begun.")]


class Replaced(BaseModel):
    """A process that was replaced."""

    organ_id: str
    replica: int
    from_: Annotated[str | None, Field(alias="from", description="Node of the old process.")]
    to: Annotated[str | None, Field(description="Node of the new process.")]
    pid: Annotated[int | None, Field(description="Process id of the new one.")]
    seconds: Annotated[float, Field(description="Until the new one was ready and the old one had ended.")]


class Move(BaseModel):
    """A move of a process."""

    organ_id: str
    replica: int
    from_: Annotated[str, Field(alias="from")]
    to: str
    seconds: Annotated[float | None, Field(description="How long it took; not in the plan.")] = None


class Rebalanced(BaseModel):
    """What was moved."""

    plan: list[Move]
    moved: list[Move]
    error: Annotated[str, Field(description="Why the rest was not moved; empty if there is no rest.")]


class Left(BaseModel):
    """A process that is still on a drained node."""

    organ_id: str
    replica: int
    why: str


class Drained(BaseModel):
    """A node after it was drained or undrained."""

    node: str
    drained: Annotated[Ordered | None, Field(description="null if organs may run there.")]
    left: Annotated[list[Left], Field(description="Processes that have still to leave it; they move by themselves.")]


_ORDER = {"since": "2026-11-27T21:31:56+00:00", "by": "anna"}
_UNSETTLED = failed("the organism is being reloaded", "OrganUnavailableError")
_NO_ORGAN = failed("there is no organ 'pay', organs are: cognitive_organ_1", "UnknownNameError")
_NO_NODE = failed("there is no node 'worker-9', nodes are: head, worker-1", "UnknownNameError")
_WRONG = failed("timeout_s is 'soon', expected a number of seconds above 0", "TaskError")
_MOVE = {"organ_id": "cognitive_organ_1", "replica": 0, "from": "head", "to": "worker-1"}
_WORDS = {
    400: "A parameter is wrong.",
    404: "There is no such organ, process or node; the message has those that exist.",
    503: "The organism is starting or being changed, or it was not done in time; nothing is lost, order it again.",
}
_ORGAN_ID = {"name": "organ_id", "in": "path", "required": True, "schema": {"type": "string"}}
_REPLICA = {"name": "replica", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 0}}
_NODE = {"name": "node", "in": "path", "required": True, "schema": {"type": "string"}}


def router(view: CoordinatorView) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["operations"])

    @routes.get(
        "/coordinator/access",
        summary="What the token of this request permits",
        response_description="Its name and scope.",
        response_model=Own,
    )
    @with_examples({200: {"an operator": {"name": "anna", "scope": "operate"}}})
    async def access(request: Request) -> Response:
        own = access_of(request.scope)
        return as_json({"name": own.name, "scope": str(own.scope)})

    for verb, summary in _OF_ORGANS.items():
        _add_for_organ(routes, view, verb, summary)
    _add_processes(routes, view)
    for verb, summary in _OF_NODES.items():
        _add_for_node(routes, view, verb, summary)
    return routes


_OF_ORGANS = {
    "pause": "Let an organ begin no task until it is resumed",
    "resume": "Let a paused organ begin tasks again",
}
_OF_NODES = {
    "drain": "Keep organs off a node, and move those away that are there",
    "undrain": "Allow organs on a drained node again",
}


def _add_for_organ(routes: APIRouter, view: CoordinatorView, verb: str, summary: str) -> None:
    order = _ORDER if verb == "pause" else None
    done = {"organ_id": "cognitive_organ_1", "paused": order, "in_flight": 3, "queued": 2}

    @routes.post(
        f"/coordinator/organs/{{organ_id}}/{verb}",
        name=f"{verb}_organ",
        summary=summary,
        response_description="The organ. Tasks that run go on; the others wait in its queue, within their limits.",
        response_model=PausedOrgan,
        responses=_responses(404, 503),
        openapi_extra={"parameters": [_ORGAN_ID]},
    )
    @with_examples({200: {"done": done}, 404: {"no such organ": _NO_ORGAN}, 503: {"being changed": _UNSETTLED}})
    async def change(request: Request) -> Response:
        organ_id = request.path_params["organ_id"]
        if (refused := refusal(request, verb, organ=organ_id)) is not None:
            return refused
        if verb == "pause":
            return await _answer(lambda: view.operations.pause(organ_id, by=access_of(request.scope).name))
        return await _answer(lambda: view.operations.resume(organ_id))


def _add_processes(routes: APIRouter, view: CoordinatorView) -> None:
    @routes.post(
        "/coordinator/organs/{organ_id}/replicas/{replica}/replace",  # noqa: FAST003 - FastAPI would describe its own errors
        summary="Replace a process by a new one",
        response_description="The new process is ready, and the old one has ended after its tasks.",
        response_model=Replaced,
        responses=_responses(400, 404, 503),
        openapi_extra={"parameters": [_ORGAN_ID, _REPLICA, _timeout(REPLACE_S)]},
    )
    @with_examples(
        {
            200: {"replaced": {**_MOVE, "pid": 8266, "seconds": 2.1}},
            400: {"wrong parameter": _WRONG},
            404: {"no such organ": _NO_ORGAN},
            503: {"being changed": _UNSETTLED},
        }
    )
    async def replace(request: Request) -> Response:
        organ_id, replica = request.path_params["organ_id"], request.path_params["replica"]
        if (refused := refusal(request, "replace", organ=organ_id, replica=replica)) is not None:
            return refused

        async def work() -> dict[str, Any]:
            if not (replica.isascii() and replica.isdigit()):
                raise TaskError(f"the process is {replica[:40]!r}, expected its number, from 0")
            return await view.operations.replace(organ_id, int(replica), timeout_s=_seconds(request, REPLACE_S))

        return await _answer(work)

    dry_run = {"name": "dry_run", "in": "query", "description": "Only plan.", "schema": {"type": "boolean"}}

    @routes.post(
        "/coordinator/rebalance",
        summary="Move processes to the nodes that a new start would choose",
        response_description="What was planned and what was moved, one process at a time.",
        response_model=Rebalanced,
        responses=_responses(400, 503),
        openapi_extra={"parameters": [dry_run, _timeout(REBALANCE_S)]},
    )
    @with_examples(
        {
            200: {"moved": {"plan": [_MOVE], "moved": [{**_MOVE, "seconds": 2.1}], "error": ""}},
            400: {"wrong parameter": _WRONG},
            503: {"being changed": _UNSETTLED},
        }
    )
    async def rebalance(request: Request) -> Response:
        if (refused := refusal(request, "rebalance")) is not None:
            return refused

        async def work() -> dict[str, Any]:
            word = request.query_params.get("dry_run", "false")
            if word not in {"true", "false"}:
                raise TaskError(f"dry_run is {word[:40]!r}, expected true or false")
            timeout_s = _seconds(request, REBALANCE_S)
            return await view.operations.rebalance(timeout_s=timeout_s, dry_run=word == "true")

        return await _answer(work)


def _add_for_node(routes: APIRouter, view: CoordinatorView, verb: str, summary: str) -> None:
    left = [{"organ_id": "cognitive_organ_1", "replica": 0, "why": "it waits for its turn"}]
    done: dict[str, Any] = {"node": "worker-1", "drained": _ORDER, "left": left}
    example: dict[str, Any] = done if verb == "drain" else {"node": "worker-1", "drained": None, "left": []}

    @routes.post(
        f"/coordinator/nodes/{{node}}/{verb}",
        name=f"{verb}_node",
        summary=summary,
        response_description="The node, by its name. Ray's own tasks and actors there are not touched.",
        response_model=Drained,
        responses=_responses(404, 503),
        openapi_extra={"parameters": [_NODE]},
    )
    @with_examples({200: {"done": example}, 404: {"no such node": _NO_NODE}, 503: {"being changed": _UNSETTLED}})
    async def change(request: Request) -> Response:
        node = request.path_params["node"]
        if (refused := refusal(request, verb, node=node)) is not None:
            return refused
        if verb == "drain":
            return await _answer(lambda: view.operations.drain(node, by=access_of(request.scope).name))
        return await _answer(lambda: view.operations.undrain(node))


async def _answer(work: Callable[[], Awaitable[dict[str, Any]]]) -> Response:
    try:
        return as_json(await work())
    except SeedCoreError as error:
        answer = failure(error, executed="no")
        code = _CODES.get(answer["error_type"], 503)
        return as_json(answer, code, {"Retry-After": "1"} if code == 503 else {})  # noqa: PLR2004 - not available


def _seconds(request: Request, default: float) -> float:
    text = request.query_params.get("timeout_s", str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise TaskError(f"timeout_s is {text[:40]!r}, expected a number of seconds above 0")
    return value


def _timeout(default: float) -> dict[str, Any]:
    text = f"Time limit in seconds. Default: {default:g}."
    schema = {"type": "number", "exclusiveMinimum": 0}
    return {"name": "timeout_s", "in": "query", "required": False, "description": text, "schema": schema}


def _responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": Failed, "description": _WORDS[code]} for code in codes}
