"""The Coordinator's HTTP interface.

Each file in ``routes/`` has one topic: its paths with their models, examples and status codes;
``docs/reference/http.md`` lists them all.

HEAD works where GET does. Everything but ``/livez`` and ``/readyz`` wants the token: 401 without, 403 with a wrong one.
A browser that opens a page without one gets it as the text of the 401 (see ``middleware.py``), and the page asks.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from seedcore.coordinator.http.answers import as_json
from seedcore.coordinator.http.body import RefusedError
from seedcore.coordinator.http.middleware import Gate
from seedcore.coordinator.http.openapi import add_document
from seedcore.coordinator.http.routes import activity, health, metrics, organism, pages, status, tasks
from seedcore.core.task import failure

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView

# A route of your own is a file in routes/ and its name here.
_ROUTES = (status, activity, health, organism, metrics, tasks)


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
    for_people = pages.read_pages()
    for router in (*(route.router(view) for route in _ROUTES), pages.router(for_people)):
        # Included, every router would be asked in turn, with each request.
        app.router.routes.extend(router.routes)
    app.add_middleware(Gate, token=token, pages=for_people)
    add_document(app, needs_token=token is not None)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)  # noqa: S101 - registered for no other
    return as_json(failure(error.message, error_type=error.error_type, executed="no"), error.status, error.headers)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for no other
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    error_type = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HTTPError")
    message = {404: "there is nothing at this path, see /docs"}.get(error.status_code, str(error.detail))
    return as_json(failure(message, error_type=error_type, executed="no"), error.status_code, headers)
