"""Show the known state of a replica, from its last report and the life cycle of its process."""

from __future__ import annotations

from seedcore.coordinator.replica_state import Phase, Process
from seedcore.core.organ_snapshot import AgentFailure, ReplicaState, Snapshot
from seedcore.core.spec import OrganSpec


class ReplicaView:
    """The state of one replica, read from memory without a call to it.

    Args:
        spec: The organ.
        index: Index of the replica, from 0.
    """

    def __init__(self, spec: OrganSpec, index: int) -> None:
        self.spec = spec
        self.index = index
        self._process = Process()

    @property
    def state(self) -> ReplicaState:
        """Return the state of the replica."""
        return self._process.state

    @property
    def error(self) -> str | None:
        """Return why it is not ready."""
        return self._process.error

    @property
    def snapshot(self) -> Snapshot | None:
        """Return the last report, even of a process that is gone."""
        return self._process.snapshot

    @property
    def restarts(self) -> int:
        """Return the number of processes after the first one."""
        return self._process.restarts

    @property
    def queued(self) -> int:
        """Return the number of tasks that wait for an agent, by its last report."""
        return self.snapshot.queued if self.snapshot and self.usable else 0

    @property
    def settled(self) -> bool:
        """Return whether every agent of the living process has either started or failed to start."""
        return self._answers and self.snapshot is not None and self.snapshot.first_round_over

    @property
    def node_id(self) -> str | None:
        """Return the node on which the process was last seen."""
        return self.snapshot.node_id if self.snapshot else None

    @property
    def boot(self) -> str | None:
        """Return the id of the process that reported last."""
        return self.snapshot.boot if self.snapshot else None

    @property
    def given_up(self) -> bool:
        """Return whether the process died so often before it was ever ready that a first start does not wait for it."""
        return self._process.has_given_up

    @property
    def failures(self) -> tuple[AgentFailure, ...]:
        """Return the agents that did not start or are unhealthy."""
        if not self.given_up:
            return self.snapshot.failed if self.snapshot else ()
        text = f"the process of organ {self.spec.id} died {self._process.deaths} times while it started"
        first, cause = self.spec.agent_ids(self.index)[0], self._process.cause or ""
        return (AgentFailure(agent_id=first, error=text, error_type="OrganUnavailableError", traceback=cause),)

    @property
    def lost_agents(self) -> int:
        """Return the number of agents that are known to have failed."""
        if self.settled and self.snapshot:
            return self.snapshot.agent_count - self.snapshot.ready
        return len(self.spec.agent_ids(self.index)) if self.given_up else 0

    @property
    def ready_agents(self) -> int:
        """Return the number of ready agents; 0 while the process is down."""
        return self.snapshot.ready if self.snapshot and self.usable else 0

    @property
    def waits(self) -> bool:
        """Return whether it waits for its turn to start a process."""
        return self._process.waits is not None

    @property
    def usable(self) -> bool:
        """Return whether a task may be sent there."""
        return self.state in {ReplicaState.READY, ReplicaState.DEGRADED}

    @property
    def _answers(self) -> bool:
        return self._process.phase is Phase.ANSWERING

    @property
    def started_agents(self) -> int:
        """Return the number of started agents of the living process, even while others are starting."""
        return self.snapshot.ready if self.snapshot and self._answers else 0
