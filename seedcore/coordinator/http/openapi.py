"""Complete /openapi.json with the token and the headers of all routes, which FastAPI does not know."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from seedcore.coordinator.http.answers import as_json, examples_of, failed
from seedcore.coordinator.http.middleware import OPEN_PATHS, REQUEST_ID
from seedcore.coordinator.http.routes.tasks import TASK_MODELS

_NO_TOKEN = failed("send the cluster's token as Authorization: Bearer <token>", "Unauthorized")
_REFUSALS = {
    "401": ("No token.", {"no token": {"value": _NO_TOKEN}}),
    "403": ("The token is wrong.", {"wrong token": {"value": failed("the token is wrong", "Forbidden")}}),
}
_RETRY = {"description": "Seconds after which to retry; only if a retry is safe.", "schema": {"type": "integer"}}
_RETRY_CODES = frozenset({"429", "503"})


def add_document(app: FastAPI, *, needs_token: bool) -> None:
    """Make the application serve the completed document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, needs_token=needs_token)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way

    async def serve(_: Request) -> Response:
        # FastAPI's own route would block the event loop for a tenth of a second.
        return as_json(await asyncio.to_thread(app.openapi))

    app.add_route("/openapi.json", serve, include_in_schema=False)


def _document(app: FastAPI, *, needs_token: bool) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    # The body of a task is read by hand, so FastAPI does not know its models.
    for model in TASK_MODELS:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {})[model.__name__] = schema
    components["headers"] = {
        REQUEST_ID: {
            "description": "The id of the request: the one that was sent, else a new one. Log lines contain it, too.",
            "schema": {"type": "string"},
        }
    }
    if needs_token:
        _add_security(document)
    for operations in document["paths"].values():
        for operation in operations.values():
            _add_headers(operation)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _add_examples(document["paths"][route.path][method.lower()], *examples_of(route.endpoint))
    return document


def _add_examples(operation: dict[str, Any], answers: Mapping[int, Mapping[str, Any]], body: Mapping[str, Any]) -> None:
    contents = [(operation["responses"][str(code)], named) for code, named in answers.items()]
    for described, named in [*contents, *([(operation["requestBody"], body)] if body else [])]:
        described["content"]["application/json"]["examples"] = {name: {"value": value} for name, value in named.items()}


def _add_headers(operation: dict[str, Any]) -> None:
    operation.setdefault("parameters", []).append(
        {
            "name": REQUEST_ID,
            "in": "header",
            "required": False,
            "description": "Your own id of the request: 1 to 128 letters, digits and . _ : - (others get a new one).",
            "schema": {"type": "string"},
        }
    )
    for code, response in operation["responses"].items():
        headers = response.setdefault("headers", {})
        headers[REQUEST_ID] = {"$ref": f"#/components/headers/{REQUEST_ID}"}
        if code in _RETRY_CODES:
            headers["Retry-After"] = _RETRY


def _add_security(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    schema = {"$ref": "#/components/schemas/Failed"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in OPEN_PATHS:
                operation["security"] = []
                continue
            for code, (description, examples) in _REFUSALS.items():
                content = {"application/json": {"schema": schema, "examples": examples}}
                operation["responses"][code] = {"description": description, "content": content}
