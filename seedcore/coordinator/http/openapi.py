"""What /openapi.json says beyond what FastAPI can know: the task's schema, the token, headers, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from seedcore.coordinator.http import examples, schemas
from seedcore.coordinator.http.middleware import OPEN_PATHS, REQUEST_ID

_EXAMPLES: Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]] = {
    ("/coordinator/status", "get"): examples.STATUS,
    ("/coordinator/activity", "get"): examples.ACTIVITY,
    ("/organism/status", "get"): examples.ORGANISM,
    ("/livez", "get"): examples.ALIVE,
    ("/readyz", "get"): examples.READY,
    ("/coordinator/tasks", "post"): examples.TASKS,
}
_RETRY = {"description": "Seconds after which to ask again; only where that is safe.", "schema": {"type": "integer"}}
_RETRY_CODES = frozenset({"429", "503"})


def add_document(app: FastAPI, *, needs_token: bool) -> None:
    """Let the application describe itself whole."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, needs_token=needs_token)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI, *, needs_token: bool) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = document.setdefault("components", {})
    task = schemas.TaskIn.model_json_schema(ref_template="#/components/schemas/{model}")
    components.setdefault("schemas", {})["TaskIn"] = task
    components["headers"] = {
        REQUEST_ID: {
            "description": "The id of the request: the one that was sent, else a new one. It stands in the logs, too.",
            "schema": {"type": "string"},
        }
    }
    if needs_token:
        _add_security(document)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _add_headers(operation)
            _add_examples(operation, _EXAMPLES.get((path, method), {}))
    body = document["paths"]["/coordinator/tasks"]["post"]["requestBody"]["content"]["application/json"]
    body["examples"] = {name: {"value": value} for name, value in examples.TASKS_IN.items()}
    return document


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


def _add_examples(operation: dict[str, Any], known: Mapping[int, Mapping[str, Any]]) -> None:
    named = {"401": {"no token": examples.UNAUTHORIZED}, "403": {"wrong token": examples.FORBIDDEN}}
    for code, response in operation["responses"].items():
        found = known.get(int(code)) or named.get(code)
        content = response.get("content", {}).get("application/json")
        if found and content is not None:
            content["examples"] = {name: {"value": value} for name, value in found.items()}


def _add_security(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    schema = {"$ref": "#/components/schemas/Failed"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in OPEN_PATHS:
                operation["security"] = []
                continue
            for code, description in (("401", "No token."), ("403", "The token is wrong.")):
                content = {"application/json": {"schema": schema}}
                operation["responses"][code] = {"description": description, "content": content}
