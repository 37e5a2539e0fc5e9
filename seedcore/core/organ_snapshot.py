"""The one message that an organ's process sends about itself, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any


class AgentState(StrEnum):
    """Where an agent is in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class ReplicaState(StrEnum):
    """How a replica is."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DOWN = "down"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFailure:
    """Why an agent does not work."""

    agent_id: str
    error: str
    error_type: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How an organ's process is.

    Attributes:
        boot: Names the process: another boot is another process.
        version: Grows with every change within a boot.
        identity: Digest of the spec and the release that it runs.
        pid: Its process id.
        node_id: Ray's id of its node.
        agent_count: Agents that the process is to have.
        ready: Agents that can take a task now, or once they have done what they do.
        stuck: Agents that can take none because code that was given up on does not end.
        starting: Agents that are being started, those that have not been tried yet included.
        first_round_over: Whether every agent has been tried once; True until the process ends.
        stopping: Whether somebody has told it to stop.
        failed: Some of the agents that do not work.
        in_flight: Tasks that were accepted and are not answered.
        queued: Tasks of those that wait for an agent.
        epoch: What senders of tasks must name; another one after each lapse of the process's lease.
        stuck_tasks: Tasks that were answered at their deadline and whose code has not ended.
        tasks: Counts of answered tasks, as :meth:`seedcore.core.task_counters.TaskCounts.to_list` gives them.
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
        """Whether only a new process helps: no agent works or is about to, and code that does not end is in the way."""
        return bool(self.stuck and not self.ready and not self.starting)

    @property
    def cause(self) -> str | None:
        """Say why not every agent is ready, None if every one is or is about to be."""
        if self.failed:
            return f"{self.failed[0].agent_id}: {self.failed[0].error}"
        if self.stuck:
            return f"{self.stuck} of {self.agent_count} agents are held by code that does not end"
        return None

    @property
    def agents(self) -> dict[str, int]:
        """Agents by their state, for metrics."""
        counts = {"starting": self.starting, "ready": self.ready, "stuck": self.stuck}
        return {**counts, "failed": self.agent_count - sum(counts.values())}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the inverse of :meth:`from_dict`."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**values, "failed": [asdict(failure) for failure in self.failed]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Snapshot:
        """Build from what :meth:`to_dict` gave."""
        failed = tuple(AgentFailure(**failure) for failure in data["failed"])
        return cls(**{**data, "failed": failed})
