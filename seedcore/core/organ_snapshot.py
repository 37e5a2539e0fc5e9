"""The message in which an organ's process reports its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

ORGAN_PROTOCOL = 1
"""Version of the methods of an organ, their arguments and answers. A Coordinator adopts organs of another release only
if they have the same one: raise it with every change after which the two could not work together."""

SEND_BACK = "send_back"
"""Order to a paused process to refuse the tasks that wait in it."""


class AgentState(StrEnum):
    """State of an agent."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class ReplicaState(StrEnum):
    """State of a replica."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DOWN = "down"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFailure:
    """Why an agent is not ready."""

    agent_id: str
    error: str
    error_type: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """State of an organ's process.

    Attributes:
        boot: Identifies the process: a new process has another boot.
        version: Increases with every change within a boot.
        identity: Digest of its spec and release.
        pid: Its process id.
        node_id: Ray's id of its node.
        agent_count: Configured number of agents in the process.
        ready: Agents that can accept a task now, or after their present tasks.
        stuck: Agents whose slots are held by code that ran past its deadline and does not end.
        starting: Agents that are starting, including those that have not been tried yet.
        first_round_over: Whether every agent has been tried once; stays True until the process ends.
        stopping: Whether the process has been told to stop.
        failed: Some of the agents that have failed.
        in_flight: Tasks that were accepted and are not answered yet.
        queued: Those of them that wait for an agent.
        epoch: The epoch that every call must carry; it changes after each expiry of the process's lease.
        stuck_tasks: Tasks that were answered at their deadline while their code still runs.
        tasks: Counts of answered tasks, in the form of :meth:`seedcore.core.task_counters.TaskCounts.to_list`.
    """

    boot: str
    version: int
    identity: str
    pid: int
    node_id: str | None
    agent_count: int
    ready: int
    stuck: int
    starting: int
    first_round_over: bool
    stopping: bool = False
    failed: tuple[AgentFailure, ...] = ()
    in_flight: int = 0
    queued: int = 0
    epoch: str | None = None
    stuck_tasks: int = 0
    tasks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> ReplicaState:
        """Derive the state of the replica from the counts of its agents."""
        if self.ready >= self.agent_count:
            return ReplicaState.READY
        if self.ready:
            return ReplicaState.DEGRADED
        return ReplicaState.DOWN if self.first_round_over else ReplicaState.STARTING

    @property
    def is_blocked(self) -> bool:
        """Return whether only a new process helps: no agent is ready or starting, and stuck code holds slots."""
        return bool(self.stuck and not self.ready and not self.starting)

    @property
    def cause(self) -> str | None:
        """Return why not every agent is ready, None if every agent is ready or starting."""
        if self.failed:
            return f"{self.failed[0].agent_id}: {self.failed[0].error}"
        if self.stuck:
            return f"{self.stuck} of {self.agent_count} agents are held by code that does not end"
        return None

    @property
    def agents(self) -> dict[str, int]:
        """Return the number of agents by state, for metrics."""
        counts = {"starting": self.starting, "ready": self.ready, "stuck": self.stuck}
        return {**counts, "failed": self.agent_count - sum(counts.values())}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, the inverse of :meth:`from_dict`."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "failed": [asdict(failure) for failure in self.failed]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """Build it from the result of :meth:`to_dict`."""
        failed = tuple(AgentFailure(**failure) for failure in data["failed"])
        return cls(**{**data, "failed": failed})
