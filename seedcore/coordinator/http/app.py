"""The Coordinator's HTTP interface.

============================  ========================================================================================
``GET /coordinator/status``   body of ``get_status``; 200 if healthy, else 503 (with Retry-After while initializing)
``GET /livez``                200: the Coordinator's loop turns
``GET /readyz``               200 if healthy, else 503; says no more than the status
``GET /coordinator/activity``  200, the last ten minutes: rates, durations, load, and the last failures with their cause
``GET /organism/status``      200, one entry an organ: the result of the task ``get_organism_status``
``GET /metrics``              Prometheus
``POST /coordinator/tasks``   a task as JSON; the answer in the documented shape, see below
``GET /``, ``GET /docs``      pages for people, without any data in them; ``/openapi.json`` for programs
============================  ========================================================================================

HEAD works where GET does. Everything but ``/livez`` and ``/readyz`` wants the token: 401 without, 403 with a wrong one.
A browser that opens a page without one gets it as the text of the 401 (see ``gate.py``), and the page asks.

Answers of ``POST /coordinator/tasks``. Every body, also of an error, has ``success``; ``success: true`` is 200 and
nothing else is, so that ``curl --fail`` and ``raise_for_status`` tell the truth:

======  =====================================================================================================
200     done
400     the body is not JSON, is nested too deep, or is not a task
401     no token
403     the token is wrong, or a browser sends this for a page of another site
404     no organ takes this type; the error lists the types that are known
408     the body did not arrive in time
413     larger than allowed
415     not application/json
429     a bound is reached and nothing was started: try again after Retry-After
500     the work failed (``agent_id`` says where, ``error_type`` is the agent's own), or its result cannot be JSON
503     no organ can do this now: not up yet (Retry-After), down, or its process died with the task (half done?)
504     no answer within the task's time, which may be half done; or an agent raised TimeoutError
======  =====================================================================================================

Who accepts ``application/x-ndjson`` gets 200 and each answer as a line of its own, as soon as it is there; those of the
tasks in one of type ``execute_many`` as well: see ``lines.py``.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from seedcore.coordinator.http import schemas
from seedcore.coordinator.http.answer_lines import Lines, tasks_of
from seedcore.coordinator.http.body import BODY_TIMEOUT_S, Intake, RefusedError
from seedcore.coordinator.http.encode import UnserializableResultError, encode, encode_own
from seedcore.coordinator.http.metrics import MetricsPage
from seedcore.coordinator.http.middleware import Gate, Page, request_id
from seedcore.coordinator.http.openapi import add_document
from seedcore.core.errors import SeedCoreError
from seedcore.core.task import LINES_MEDIA_TYPE, failure, task_type_of

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView

logger = logging.getLogger(__name__)

INITIALIZING_RETRY_S = 1
# An error of these types is ours if no agent has seen the task; an agent may raise what it likes.
_BEFORE_ANY_AGENT = {
    "TaskError": 400,
    "UnknownTaskTypeError": 404,
    "PayloadTooLargeError": 413,
    "OverloadedError": 429,
    "OrganUnavailableError": 503,
    "InitializationError": 503,
}
_FAILED = {"model": schemas.Failed}
_INCLUDE = re.compile(r"<!-- include ([a-z]+\.(html|css|js)) -->\n")
_WRAPPED = {"css": "<style>\n{}</style>\n", "js": "<script>\n{}</script>\n", "html": "{}"}
_Decorator = Callable[[Callable[[], Awaitable[Response]]], Any]
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def create_app(view: CoordinatorView, *, token: str | None) -> FastAPI:
    """Build the application.

    Args:
        view: The Coordinator.
        token: Who sends it may ask; None where authentication is off.

    Raises:
        ValueError: The token is empty, which would let everybody in.
    """
    if token is not None and not token.strip():
        raise ValueError("the token is empty; None turns authentication off")
    app = FastAPI(
        title="SeedCore Coordinator",
        version=metadata.version("seedcore"),
        description="Status, health, metrics and tasks of one organism.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_error, RefusedError: _refused},
    )
    pages = {"/": _page("page.html"), "/docs": _page("docs.html")}
    _add_reading(app, view, pages)
    _add_tasks(app, view)
    app.add_middleware(Gate, token=token, pages=pages)
    add_document(app, needs_token=token is not None)
    return app


def status_code(answer: Mapping[str, Any]) -> int:
    """Return the HTTP status code of a task's answer: see the module's table."""
    if answer.get("success") is True:
        return 200
    error_type = answer.get("error_type")
    if error_type == "TimeoutError":
        return 504
    if not answer.get("agent_id") and isinstance(error_type, str):
        return _BEFORE_ANY_AGENT.get(error_type, 500)
    return 500


def _add_reading(app: FastAPI, view: CoordinatorView, pages: Mapping[str, Page]) -> None:
    metrics = MetricsPage(view)

    def get(path: str, summary: str, ok: str, model: Any, tag: str, *, unhealthy: str = "") -> _Decorator:
        responses: Any = {503: {"model": model, "description": unhealthy}} if unhealthy else {}
        return app.get(
            path, summary=summary, response_description=ok, response_model=model, tags=[tag], responses=responses
        )

    may_wait = "Not healthy; Retry-After while initializing."

    @get("/coordinator/status", "How the Coordinator is", "Healthy.", schemas.Status, "status", unhealthy=may_wait)
    async def coordinator_status() -> Response:
        status = view.status()
        return _json(status, *_health(status))

    lately = "What the organism has done lately"

    @get("/coordinator/activity", lately, "The last ten minutes.", schemas.Activity, "status")
    async def coordinator_activity() -> Response:
        return _json(view.activity())

    @get("/livez", "Whether the Coordinator's loop turns", "It turns.", schemas.Alive, "health")
    async def livez() -> Response:
        return _json({"alive": True})

    @get("/readyz", "Whether the Coordinator is healthy", "Healthy.", schemas.Ready, "health", unhealthy="Not healthy.")
    async def readyz() -> Response:
        status = view.status()
        # Open to everybody: what is wrong, and where, is for those who know the token.
        body = {"ready": status.get("status") == "healthy", "status": status.get("status")}
        return _json(body, *_health(status))

    @get("/organism/status", "Every organ", "One entry an organ.", list[schemas.Organ], "status")
    async def organism_status() -> Response:
        return _json(view.organism())

    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        tags=["status"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}}},
    )
    async def prometheus(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    for path, page in pages.items():
        answer = Response(page.body, media_type="text/html", headers={"Content-Security-Policy": page.policy})
        app.add_api_route(path, _always(answer), include_in_schema=False)


def _add_tasks(app: FastAPI, view: CoordinatorView) -> None:
    intake = Intake(timeout_s=BODY_TIMEOUT_S)
    body_schema = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TaskIn"}}},
        }
    }
    responses: dict[int | str, dict[str, Any]] = {
        200: {"content": {LINES_MEDIA_TYPE: {"schema": {"type": "string"}}}},
        400: _FAILED | {"description": "Not JSON, nested too deep, or not a task."},
        404: _FAILED | {"description": "No organ takes this type; the error lists those that are known."},
        408: _FAILED | {"description": "The body did not arrive in time."},
        413: _FAILED | {"description": "Larger than allowed."},
        415: _FAILED | {"description": "Not application/json."},
        429: _FAILED | {"description": "A bound is reached, nothing was started: try again after Retry-After."},
        500: _FAILED | {"description": "The work failed, or its result cannot be JSON."},
        503: _FAILED | {"description": "No organ can do this now, or its process died with the task."},
        504: _FAILED | {"description": "No answer within the task's time, or an agent raised TimeoutError."},
    }

    @app.post(
        "/coordinator/tasks",
        summary="Do a task",
        response_description="Done.",
        response_model=schemas.Done,
        tags=["tasks"],
        responses=responses,
        openapi_extra=body_schema,
    )
    async def tasks(request: Request) -> Response:
        task, held = await intake.read(request)
        if isinstance(task, dict) and task.get("id") is None:
            # Whoever looks for a request finds what became of it, in the logs of the agents, too.
            task["id"] = request_id(request.scope)
        if LINES_MEDIA_TYPE in request.headers.get("accept", ""):
            try:
                return Lines(tasks_of(task), _work(view), done=partial(intake.release, held))
            except SeedCoreError as error:
                intake.release(held)
                refusal = failure(error, task_type=task_type_of(task))
                return _json(refusal, status_code(refusal))
        try:
            answer = await view.handle(task)
        finally:
            intake.release(held)
        body, code = await _written(answer, task)
        return Response(body, code, _retry_after(answer, code, view), media_type="application/json")


def _work(view: CoordinatorView) -> Callable[[Any], Awaitable[bytes]]:
    async def work(task: Any) -> bytes:
        try:
            answer = await view.handle(task)
        except Exception:
            # A fault of ours ends with this task; the others of the request go on.
            logger.exception("task failed: type=%r", task_type_of(task))
            text = "the Coordinator's HTTP server failed, see its log"
            answer = failure(text, error_type="InternalError", executed="unknown", task_type=task_type_of(task))
        return (await _written(answer, task))[0]

    return work


async def _written(answer: Mapping[str, Any], task: Any) -> tuple[bytes, int]:
    """Return an answer as JSON, with its status code; one that JSON cannot hold is another answer, which says so."""
    try:
        return await encode(answer), status_code(answer)
    except UnserializableResultError as error:
        kept = {key: answer[key] for key in ("organ_id", "agent_id") if isinstance(answer.get(key), str)}
        text = f"the work ended, but its result cannot be sent as JSON: {error}"
        refusal = failure(text, error_type=type(error).__name__, task_type=task_type_of(task), **kept)
        return encode_own(refusal), 500


def _retry_after(answer: Mapping[str, Any], code: int, view: CoordinatorView) -> dict[str, str]:
    """Say when to try again, where trying again is safe: nothing of the task has been done."""
    if code == HTTPStatus.TOO_MANY_REQUESTS:
        said = answer.get("retry_after_s")
        seconds = math.ceil(said) if isinstance(said, int | float) and math.isfinite(said) else 1
        return {"Retry-After": str(max(1, seconds))}
    if code == HTTPStatus.SERVICE_UNAVAILABLE and view.status().get("status") == "initializing":
        return {"Retry-After": str(INITIALIZING_RETRY_S)}
    return {}


def _always(answer: Response) -> Callable[[], Awaitable[Response]]:
    async def endpoint() -> Response:
        return answer

    return endpoint


def _health(status: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    if status.get("status") == "healthy":
        return 200, {}
    return 503, {"Retry-After": str(INITIALIZING_RETRY_S)} if status.get("status") == "initializing" else {}


def _json(content: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encode_own(content), code, headers, media_type="application/json")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - registered for no other
    return _json(failure(error.message, error_type=error.error_type, executed="no"), error.status, error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for no other
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    error_type = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HTTPError")
    message = {404: "there is nothing at this path, see /docs"}.get(error.status_code, str(error.detail))
    return _json(failure(message, error_type=error_type, executed="no"), error.status_code, headers)


def _page(name: str) -> Page:
    """Read a page, with what it includes, and allow in its policy exactly the scripts and styles that are in it."""
    here = Path(__file__).parent / "static"

    def included(found: re.Match[str]) -> str:
        return _WRAPPED[found[2]].replace("{}", (here / found[1]).read_text(encoding="utf-8"))

    text = _INCLUDE.sub(included, (here / name).read_text(encoding="utf-8"))
    digests: dict[str, list[str]] = {"script": [], "style": []}
    for kind, code in _INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        digests[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; script-src {' '.join(digests['script'])}; style-src {' '.join(digests['style'])}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(text.encode(), policy)
