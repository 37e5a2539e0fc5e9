"""The Coordinator's HTTP interface.

Each file in ``routes/`` has the paths of one topic with their models, examples and status codes;
``docs/reference/http.md`` lists all of them.

HEAD works wherever GET does. Every path except ``/livez`` and ``/readyz`` requires a token: 401 without one, 403 for a
wrong one or one whose scope does not suffice. A browser that opens a page without a token gets the page as the body of
the 401 (see ``middleware.py``); the page then asks for the token.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from seedcore.coordinator.http.answers import as_json
from seedcore.coordinator.http.body import RefusedError
from seedcore.coordinator.http.middleware import FindAccess, Gate
from seedcore.coordinator.http.openapi import add_document
from seedcore.coordinator.http.routes import (
    activity,
    health,
    inbox,
    metrics,
    operations,
    organism,
    pages,
    schedules,
    status,
    tasks,
)
from seedcore.core.task import failure

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView

# To add a route, add a file to routes/ and its name here.
_ROUTES = (status, activity, health, organism, metrics, tasks, inbox, schedules, operations)


async def _nobody(_: bytes) -> None:
    """Know no named token."""


def create_app(view: CoordinatorView, *, token: str | None, named: FindAccess | None = None) -> FastAPI:
    """Build the application.

    Args:
        view: The Coordinator.
        token: The cluster's token, which allows everything; None without authentication.
        named: Returns the origin and scope of any other token.

    Raises:
        ValueError: The token is empty, which would let every request pass.
    """
    if token is not None and not token.strip():
        raise ValueError("the token is empty; None turns authentication off")
    app = FastAPI(
        title="SeedCore Coordinator",
        version=metadata.version("seedcore"),
        description="Status, health, metrics and tasks of one organism.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_error, RefusedError: _refused},
    )
    for_people = pages.read_pages()
    for router in (*(route.router(view) for route in _ROUTES), pages.router(for_people)):
        # include_router would make each request try every router in turn.
        app.router.routes.extend(router.routes)
    app.add_middleware(Gate, token=token, named=named or _nobody, pages=for_people)
    add_document(app, needs_token=token is not None)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - registered for no other
    return as_json(failure(error.message, error_type=error.error_type, executed="no"), error.status, error.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for no other
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(_methods(request))
    error_type = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HTTPError")
    message = {404: "no such path, see /docs"}.get(error.status_code, str(error.detail))
    return as_json(failure(message, error_type=error_type, executed="no"), error.status_code, headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of a path; several routes may share it."""
    routes = (route for route in request.app.router.routes if route.matches(request.scope)[0] is not Match.NONE)
    methods = {method for route in routes for method in route.methods}
    return sorted({*methods, "HEAD"} if "GET" in methods else methods)
