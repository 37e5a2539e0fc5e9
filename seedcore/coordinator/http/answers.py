"""Shared parts of the answers of all routes: their encoding and their description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from seedcore.coordinator.http.encode import encode_own
from seedcore.core.errors import Executed
from seedcore.core.reason import Status

INITIALIZING_RETRY_S = 1
_Endpoint = Callable[..., Any]
_Decorator = Callable[[_Endpoint], _Endpoint]


class Failed(BaseModel):
    """A failure, on every path."""

    model_config = ConfigDict(extra="allow")

    success: Literal[False]
    error: Annotated[str, Field(description="For people; never empty.")]
    error_type: Annotated[str, Field(description="For programs.")]
    task_type: Annotated[str, Field(description="The type of the task, or `unknown`.")]
    executed: Annotated[
        Executed,
        Field(description="Whether the task's code ran; after `no` it is safe to send the task again."),
    ]


def as_json(content: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with plain data of the Coordinator."""
    return Response(encode_own(content), code, headers, media_type="application/json")


def health(status: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    """Return the status code and the headers for load balancers."""
    if status.get("status") == Status.HEALTHY:
        return 200, {}
    is_coming_up = status.get("status") == Status.INITIALIZING
    return 503, {"Retry-After": str(INITIALIZING_RETRY_S)} if is_coming_up else {}


def with_examples(answers: Mapping[int, Mapping[str, Any]], *, body: Mapping[str, Any] | None = None) -> _Decorator:
    """Add examples of a route's answers, by code and name, and of its body; a test validates them with the models.

    They are added to the finished document, because FastAPI would drop every null in them.
    """

    def add(endpoint: _Endpoint) -> _Endpoint:
        endpoint.examples = answers, body or {}  # type: ignore[attr-defined]
        return endpoint

    return add


def examples_of(endpoint: Any) -> tuple[Mapping[int, Mapping[str, Any]], Mapping[str, Any]]:
    """Return the examples of a route: of its answers, and of its body."""
    found: tuple[Mapping[int, Mapping[str, Any]], Mapping[str, Any]] = getattr(endpoint, "examples", ({}, {}))
    return found


def failed(
    error: str, error_type: str, task_type: str = "unknown", executed: str = "no", **more: Any
) -> dict[str, Any]:
    """Return an example of a failure."""
    example = {"success": False, "error": error, "error_type": error_type, "executed": executed}
    return {**example, "task_type": task_type, **more}
