"""The documented shapes, for the OpenAPI document: what really happens is decided by hand, once a task."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class TaskIn(BaseModel):
    """A task. null for an optional key means its default; unknown keys are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "get_organism_status"}]})

    type: Annotated[str, Field(description="What to do; compared stripped and in lower case. `task_type` also works.")]
    params: Annotated[dict[str, Any] | None, Field(description="The work's arguments.")] = None
    description: Annotated[str | None, Field(description="For people.")] = None
    domain: Annotated[str | None, Field(description="Narrows the choice of the organ.")] = None
    drift_score: Annotated[float | None, Field(description="Carried along for agents that want it.")] = None
    id: Annotated[str | None, Field(description="Your own id of the task.")] = None
    timeout_s: Annotated[float | None, Field(gt=0, description="Seconds you are willing to wait.")] = None


class Done(BaseModel):
    """A task that succeeded."""

    model_config = ConfigDict(extra="allow")

    success: Literal[True]
    result: Annotated[
        Any,
        Field(
            description="What the agent returned. NaN and infinities are strings, bytes are "
            '`{"base64": "..."}`, tuples and sets are arrays, dates are ISO 8601 strings.'
        ),
    ]
    organ_id: Annotated[str | None, Field(description="null if the Coordinator did it itself.")]
    agent_id: Annotated[str | None, Field(description="null if the Coordinator did it itself.")]
    task_type: str
    duration_s: Annotated[float, Field(description="Seconds.")]


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


class Status(BaseModel):
    """How the Coordinator is: the body of its `get_status`."""

    model_config = ConfigDict(extra="allow")

    status: Literal["healthy", "initializing", "unhealthy"]
    organism_initialized: bool
    coordinator: Literal["available", "unavailable", "error"]
    reason: Annotated[str, Field(description="Which case of the status this is, for programs.")]
    message: Annotated[str, Field(description="One line for people.")]
    remedy: Annotated[str, Field(description="What to do about it; empty where there is nothing to do.")] = ""
    release: Annotated[str, Field(description="Id of the release that answers.")]
    degraded: Annotated[bool, Field(description="Healthy, but something that is not required is missing.")]
    since: Annotated[str, Field(description="When status or reason last changed, ISO 8601.")]
    nodes: Annotated[
        dict[str, Any] | None, Field(description="Living nodes by name, and those that have been lost.")
    ] = None
    organs: Annotated[list[dict[str, Any]], Field(description="Every organ, without its agents' ids.")]
    init_seconds: Annotated[float | None, Field(description="Seconds the last initialisation took.")]
    init_attempts: int
    restarts: Annotated[int, Field(description="Times the Coordinator's process was replaced.")]
    error: Annotated[str | None, Field(description="Only if unhealthy.")] = None


class Alive(BaseModel):
    """The event loop of the Coordinator turns."""

    alive: Literal[True]


class Ready(BaseModel):
    """Whether the Coordinator is healthy, for load balancers."""

    ready: bool
    status: Literal["healthy", "initializing", "unhealthy"]


class Samples(BaseModel):
    """Columns of equal length, one entry an interval, the oldest first."""

    at: Annotated[list[float], Field(description="When the interval began, seconds since 1970.")]
    done_per_s: Annotated[list[float], Field(description="Tasks that succeeded, per second.")]
    failed_per_s: Annotated[list[float], Field(description="Tasks that failed, per second.")]
    p50_s: Annotated[list[float | None], Field(description="Median duration in seconds; null without a task.")]
    p95_s: Annotated[list[float | None], Field(description="95 % were not longer; null without a task.")]
    in_flight: Annotated[list[int], Field(description="Tasks given to organs at once, the highest that was seen.")]
    queued: Annotated[list[int], Field(description="Tasks that waited for an agent, the highest that was seen.")]


class OrganActivity(BaseModel):
    """The work of one organ."""

    organ_id: str
    done: Annotated[int, Field(description="Tasks that succeeded since the Coordinator's process started.")]
    failed: Annotated[int, Field(description="Tasks that failed since then.")]
    per_s: Annotated[float, Field(description="Tasks per second, over the last intervals.")]
    failed_per_s: float
    mean_s: Annotated[float | None, Field(description="Their mean duration in seconds; null without a task.")]


class Failure(BaseModel):
    """A failure and its cause; equal ones are one entry."""

    model_config = ConfigDict(extra="allow")

    kind: Literal["task", "process"]
    error: Annotated[str, Field(description="The cause, at most 500 characters.")]
    count: Annotated[int, Field(description="How often it has happened.")]
    first_at: Annotated[float, Field(description="Seconds since 1970.")]
    at: Annotated[float, Field(description="The last time, seconds since 1970.")]
    organ_id: str | None = None
    agent_id: str | None = None
    task_type: str | None = None
    error_type: str | None = None
    replica: int | None = None


class Activity(BaseModel):
    """What the organism has done lately, since the Coordinator's process started and for ten minutes at most."""

    now: Annotated[float, Field(description="The Coordinator's clock, seconds since 1970.")]
    interval_s: Annotated[float, Field(description="Seconds of one interval.")]
    samples: Samples
    organs: list[OrganActivity]
    failures: Annotated[list[Failure], Field(description="The last one first.")]


class Organ(BaseModel):
    """One organ, as in the result of the task `get_organism_status`."""

    model_config = ConfigDict(extra="allow")

    organ_id: str
    organ_type: str
    agent_count: int
    agent_ids: list[str]
    status: Literal["ready", "starting", "degraded", "down", "stopped"]
    ready: bool
