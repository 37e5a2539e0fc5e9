"""``GET /organism/status``: every organ, with its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict

from seedcore.coordinator.http.answers import as_json, with_examples

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView


class Organ(BaseModel):
    """One organ, as in the result of the task `get_organism_status`."""

    model_config = ConfigDict(extra="allow")

    organ_id: str
    organ_type: str
    agent_count: int
    agent_ids: list[str]
    status: Literal["ready", "starting", "degraded", "down", "stopped"]
    ready: bool


ORGAN: dict[str, Any] = {
    "organ_id": "cognitive_organ_1",
    "organ_type": "Cognitive",
    "agent_count": 2,
    "status": "ready",
    "ready": True,
    "ready_agents": 2,
    "min_ready_agents": 2,
    "required": True,
    "in_flight": 0,
    "queued": 0,
    "replicas": [
        {
            "replica": 0,
            "state": "ready",
            "actor_id": "ef6f1dece5c0e67b88fd3a7001000000",
            "pid": 8266,
            "node_id": "94612dc52ff7550d0005b01cdf089dca9d9da0679a47a9057ea72e18",
            "agent_count": 2,
            "ready_agents": 2,
            "in_flight": 0,
            "queued": 0,
            "restarts": 0,
            "has_turn": False,
            "error": None,
        }
    ],
    "failed": [],
}
_EXAMPLES = {
    "one organ": [
        {
            **ORGAN,
            "description": "Reads texts and says what they are about",
            "agent_ids": ["cognitive_organ_1_agent_0", "cognitive_organ_1_agent_1"],
            "task_types": ["keywords", "summarize"],
        }
    ]
}


def router(view: CoordinatorView) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["status"])

    @routes.get(
        "/organism/status",
        summary="Every organ",
        response_description="One entry per organ.",
        response_model=list[Organ],
    )
    @with_examples({200: _EXAMPLES})
    async def organism_status() -> Response:
        return as_json(view.organism())

    return routes
