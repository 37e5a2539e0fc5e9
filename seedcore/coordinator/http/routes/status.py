"""``GET /coordinator/status``: the body of ``get_status``, with 200 if healthy, else 503."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from seedcore.coordinator.http.answers import as_json, health, with_examples
from seedcore.coordinator.http.routes.organism import ORGAN
from seedcore.core.reason import Reason

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView


class Status(BaseModel):
    """The Coordinator's status: the body of its `get_status`."""

    model_config = ConfigDict(extra="allow")

    status: Literal["healthy", "initializing", "unhealthy"]
    organism_initialized: bool
    coordinator: Literal["available", "unavailable", "error"]
    reason: Annotated[str, Field(description="The reason of the status, for programs.")]
    message: Annotated[str, Field(description="One line for people.")]
    remedy: Annotated[str, Field(description="What to do about it; empty if there is nothing to do.")] = ""
    release: Annotated[str, Field(description="Id of the Coordinator's release.")]
    agents: Annotated[
        str, Field(description="Ids of the layers of agents and environments that organs run from, joined by commas.")
    ] = ""
    degraded: Annotated[bool, Field(description="Healthy, but an optional part is missing.")]
    since: Annotated[str, Field(description="When status or reason last changed, ISO 8601.")]
    nodes: Annotated[
        dict[str, Any] | None, Field(description="Names of living nodes, and of nodes that were lost.")
    ] = None
    organs: Annotated[list[dict[str, Any]], Field(description="Every organ, without its agents' ids.")]
    init_seconds: Annotated[float | None, Field(description="Duration of the last initialisation in seconds.")]
    init_attempts: int
    restarts: Annotated[int, Field(description="Times the Coordinator's process was replaced.")]
    error: Annotated[str | None, Field(description="Only if unhealthy.")] = None


_HEALTHY: dict[str, Any] = {
    "status": "healthy",
    "reason": Reason.READY.value,
    "message": "1 of 1 organs ready, all agents ready",
    "remedy": "",
    "organism_initialized": True,
    "coordinator": "available",
    "degraded": False,
    "missing": [],
    "release": "0.1.0-4e0140ea2d4f",
    "agents": "0.1.0-4e0140ea2d4f.b1946ac92492",
    "since": "2026-11-24T21:31:56.256+00:00",
    "stage": "1 of 1 organs ready",
    "progress": {"organs_ready": 1, "organs": 1, "agents_ready": 2, "agents": 2},
    "init_seconds": 2.1,
    "init_attempts": 1,
    "restarts": 0,
    "uptime_s": 18.869,
    "pid": 7939,
    "in_flight": 0,
    "nodes": {
        "alive": 1,
        "names": ["head"],
        "gone": [],
        "list": [
            {
                "node_id": "94612dc52ff7550d0005b01cdf089dca9d9da0679a47a9057ea72e18",
                "node_name": "head",
                "alive": True,
                "draining": False,
                "head": True,
            }
        ],
        "age_s": 3.5,
    },
    "organs": [ORGAN],
    "unplaced": [],
}
_STARTING = {
    **_HEALTHY,
    "status": "initializing",
    "reason": Reason.STARTING.value,
    "remedy": Reason.STARTING.remedy,
    "message": "0 of 1 organs ready; starting: cognitive_organ_1",
    "organism_initialized": False,
    "coordinator": "unavailable",
    "init_seconds": None,
    "organs": [],
}
_DOWN = {
    **_HEALTHY,
    "status": "unhealthy",
    "reason": Reason.ORGANS_DOWN.value,
    "remedy": Reason.ORGANS_DOWN.remedy,
    "message": "cognitive_organ_1: 0 of 2 agents ready (its report is overdue)",
    "coordinator": "error",
    "error": "cognitive_organ_1: 0 of 2 agents ready (its report is overdue)",
    "organs": [],
}


def router(view: CoordinatorView) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["status"])

    @routes.get(
        "/coordinator/status",
        summary="The Coordinator's status",
        response_description="Healthy.",
        response_model=Status,
        responses={503: {"model": Status, "description": "Not healthy; Retry-After while initializing."}},
    )
    @with_examples({200: {"healthy": _HEALTHY}, 503: {"initializing": _STARTING, "unhealthy": _DOWN}})
    async def coordinator_status() -> Response:
        status = view.status()
        return as_json(status, *health(status))

    return routes
