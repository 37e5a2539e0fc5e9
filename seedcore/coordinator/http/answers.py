"""What the answers of all routes have in common: how they are written, and how they are described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from seedcore.coordinator.http.encode import encode_own
from seedcore.core.reason import Status

INITIALIZING_RETRY_S = 1
_Endpoint = Callable[..., Any]
_Decorator = Callable[[_Endpoint], _Endpoint]


class Failed(BaseModel):
    """Anything that did not succeed, on every path."""

    model_config = ConfigDict(extra="allow")

    success: Literal[False]
    error: Annotated[str, Field(description="For people; never empty.")]
    error_type: Annotated[str, Field(description="For programs.")]
    task_type: Annotated[str, Field(description="The type that the task named, or `unknown`.")]
    executed: Annotated[
        Literal["no", "yes", "unknown"],
        Field(description="Whether anything was done; after `no` the task can be sent again without care."),
    ]


def as_json(content: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with plain data of our own."""
    return Response(encode_own(content), code, headers, media_type="application/json")


def health(status: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
    """Return the status code and the headers that tell a load balancer how the Coordinator is."""
    if status.get("status") == Status.HEALTHY:
        return 200, {}
    is_coming_up = status.get("status") == Status.INITIALIZING
    return 503, {"Retry-After": str(INITIALIZING_RETRY_S)} if is_coming_up else {}


def with_examples(answers: Mapping[int, Mapping[str, Any]], *, body: Mapping[str, Any] | None = None) -> _Decorator:
    """Give a route examples of its answers, by code and name, and of its body; a test holds them against the models.

    They are added to the finished document: FastAPI would drop every null in them.
    """

    def add(endpoint: _Endpoint) -> _Endpoint:
        endpoint.examples = answers, body or {}  # type: ignore[attr-defined]
        return endpoint

    return add


def examples_of(endpoint: Any) -> tuple[Mapping[int, Mapping[str, Any]], Mapping[str, Any]]:
    """Return the examples that a route was given: of its answers, and of its body."""
    found: tuple[Mapping[int, Mapping[str, Any]], Mapping[str, Any]] = getattr(endpoint, "examples", ({}, {}))
    return found


def failed(
    error: str, error_type: str, task_type: str = "unknown", executed: str = "no", **more: Any
) -> dict[str, Any]:
    """Return an example of an answer that says what went wrong."""
    example = {"success": False, "error": error, "error_type": error_type, "executed": executed}
    return {**example, "task_type": task_type, **more}
