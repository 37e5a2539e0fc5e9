"""``GET /coordinator/activity``: the last ten minutes, and the last failures with their cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from seedcore.coordinator.http.answers import as_json, with_examples

if TYPE_CHECKING:
    from seedcore.coordinator.http.view import CoordinatorView


class Samples(BaseModel):
    """Columns of equal length, one entry per interval, the oldest first."""

    at: Annotated[list[float], Field(description="When the interval began, seconds since 1970.")]
    done_per_s: Annotated[list[float], Field(description="Tasks that succeeded, per second.")]
    failed_per_s: Annotated[list[float], Field(description="Tasks that failed, per second.")]
    p50_s: Annotated[list[float | None], Field(description="Median duration in seconds; null without a task.")]
    p95_s: Annotated[list[float | None], Field(description="95th percentile in seconds; null without a task.")]
    in_flight: Annotated[list[int], Field(description="Largest number of tasks in flight in the organs.")]
    queued: Annotated[list[int], Field(description="Largest number of tasks that waited for an agent.")]


class OrganActivity(BaseModel):
    """The activity of one organ."""

    organ_id: str
    done: Annotated[int, Field(description="Tasks that succeeded since the Coordinator's process started.")]
    failed: Annotated[int, Field(description="Tasks that failed since then.")]
    per_s: Annotated[float, Field(description="Tasks per second, over the last intervals.")]
    failed_per_s: float
    mean_s: Annotated[float | None, Field(description="Their mean duration in seconds; null without a task.")]


class Failure(BaseModel):
    """A failure and its cause; identical ones are one entry."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["task", "process"]
    error: Annotated[str, Field(description="The cause, at most 500 characters.")]
    count: Annotated[int, Field(description="Number of occurrences.")]
    first_at: Annotated[float, Field(description="Seconds since 1970.")]
    at: Annotated[float, Field(description="The last time, seconds since 1970.")]
    organ_id: str | None = None
    agent_id: str | None = None
    task_type: str | None = None
    error_type: str | None = None
    replica: int | None = None


class Activity(BaseModel):
    """Recent activity of the organism, since the Coordinator's process started and for ten minutes at most."""

    now: Annotated[float, Field(description="The Coordinator's clock, seconds since 1970.")]
    interval_s: Annotated[float, Field(description="Seconds of one interval.")]
    samples: Samples
    organs: list[OrganActivity]
    failures: Annotated[list[Failure], Field(description="The newest first.")]


_EXAMPLES = {
    "two intervals": {
        "now": 1795555924.024,
        "interval_s": 2.0,
        "samples": {
            "at": [1795555920.007, 1795555922.014],
            "done_per_s": [0.498, 12.0],
            "failed_per_s": [0.0, 0.5],
            "p50_s": [0.004997, 0.0041],
            "p95_s": [0.004997, 0.0183],
            "in_flight": [1, 4],
            "queued": [0, 2],
        },
        "organs": [
            {
                "organ_id": "cognitive_organ_1",
                "done": 25,
                "failed": 1,
                "per_s": 6.5,
                "failed_per_s": 0.25,
                "mean_s": 0.0052,
            }
        ],
        "failures": [
            {
                "kind": "task",
                "error": "params key 'text' must be a string, got NoneType",
                "task_type": "keywords",
                "organ_id": "cognitive_organ_1",
                "agent_id": "cognitive_organ_1_agent_0",
                "error_type": "BadTaskError",
                "first_at": 1795555922.1,
                "at": 1795555922.1,
                "count": 1,
            }
        ],
    }
}


def router(view: CoordinatorView) -> APIRouter:
    """Return the route."""
    routes = APIRouter(tags=["status"])

    @routes.get(
        "/coordinator/activity",
        summary="Recent activity of the organism",
        response_description="The last ten minutes.",
        response_model=Activity,
    )
    @with_examples({200: _EXAMPLES})
    async def coordinator_activity() -> Response:
        return as_json(view.activity())

    return routes
