"""``GET /livez`` and ``GET /readyz``, without a token, for load balancers and service managers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from seedcore.coordinator.http.answers import as_json, health, with_examples
from seedcore.core.reason import Status

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView


class Alive(BaseModel):
    """The Coordinator's event loop runs."""

    alive: Literal[True]


class Ready(BaseModel):
    """Whether the Coordinator is healthy, for load balancers."""

    ready: bool
    status: Literal["healthy", "initializing", "unhealthy"]


_READY = {"ready": True, "status": "healthy"}
_STARTING = {"ready": False, "status": "initializing"}


def router(view: CoordinatorView) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["health"])

    @routes.get(
        "/livez",
        summary="Whether the Coordinator's event loop runs",
        response_description="It turns.",
        response_model=Alive,
    )
    @with_examples({200: {"alive": {"alive": True}}})
    async def livez() -> Response:
        return as_json({"alive": True})

    @routes.get(
        "/readyz",
        summary="Whether the Coordinator is healthy",
        response_description="Healthy.",
        response_model=Ready,
        responses={503: {"model": Ready, "description": "Not healthy."}},
    )
    @with_examples({200: {"healthy": _READY}, 503: {"initializing": _STARTING}})
    async def readyz() -> Response:
        status = view.status()
        # It needs no token, so it must not tell what is wrong.
        body = {"ready": status.get("status") == Status.HEALTHY, "status": status.get("status")}
        return as_json(body, *health(status))

    return routes
