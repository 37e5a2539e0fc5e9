"""Sum up the processes of one organ: its state, its report, its figures, and whether a start can succeed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seedcore.core.errors import AgentStartError, InitializationError
from seedcore.core.organ_snapshot import ReplicaState
from seedcore.core.task import describe

if TYPE_CHECKING:
    from seedcore.coordinator.replica_supervisor import Replica
    from seedcore.core.spec import OrganSpec

CANARY_TIMEOUT_S = 5.0


def state(replicas: Sequence[Replica], *, is_starting: bool) -> ReplicaState:
    """Return the state of the organ."""
    states = {replica.state for replica in replicas}
    if len(states) == 1:
        return states.pop()
    if ReplicaState.STARTING in states and is_starting:
        return ReplicaState.STARTING
    return ReplicaState.DEGRADED if states & {ReplicaState.READY, ReplicaState.DEGRADED} else ReplicaState.DOWN


def stage(states: Mapping[str, ReplicaState], coming: Iterable[str], *, waits: int) -> str:
    """Return the progress of the organs as text for people.

    Args:
        states: The state of each organ.
        coming: Organs whose next processes are starting.
        waits: Number of processes that wait for their turn to start.
    """
    ready = sum(state in {ReplicaState.READY, ReplicaState.DEGRADED} for state in states.values())
    text = f"{ready} of {len(states)} organs ready"
    starting = [*(key for key, state in states.items() if state is ReplicaState.STARTING), *coming]
    if starting:
        text += f"; starting: {', '.join(starting[:5])}"
    if waits:
        text += f"; {waits} process{'es wait for their' if waits > 1 else ' waits for its'} turn to start"
    return text


def ready_agents(replicas: Sequence[Replica]) -> int:
    """Return the number of ready agents."""
    return sum(replica.ready_agents for replica in replicas)


def why(organ: OrganSpec, replicas: Sequence[Replica], now: ReplicaState) -> str:
    """Return why no process of the organ can take a task."""
    errors = (replica.error.splitlines()[0] for replica in replicas if replica.error)
    return f"organ {organ.id} is not ready: {next(errors, f'it is {now}')}"


def because(replicas: Sequence[Replica]) -> str:
    """Return in parentheses the first reason why an agent is missing; "" if there is none."""
    texts = [
        replica.error.splitlines()[0] if replica.error else f"replica {replica.index} is {replica.state}"
        for replica in replicas
        if replica.error or not replica.usable
    ]
    return f" ({texts[0]})" if texts else ""


def route(organ: OrganSpec, replicas: Sequence[Replica], now: ReplicaState) -> dict[str, Any]:
    """Return the organ's entry in the routing table for clients."""
    usable = [replica for replica in replicas if replica.usable and replica.handle is not None]
    entries = [
        {
            "handle": replica.handle,
            "epoch": replica.epoch,
            "capacity": len(organ.agent_ids(replica.index)) * organ.max_concurrency + organ.queue_limit,
        }
        for replica in usable
    ]
    return {
        "task_timeout_s": organ.task_timeout_s,
        "why": "" if usable else why(organ, replicas, now),
        "replicas": entries,
    }


def report(organ: OrganSpec, replicas: Sequence[Replica], now: ReplicaState) -> dict[str, Any]:
    """Return the organ as plain data, without constant data."""
    ready = ready_agents(replicas)
    return {
        "organ_id": organ.id,
        "organ_type": organ.type,
        "agent_count": organ.agent_count,
        "status": str(now),
        "ready": ready >= organ.min_ready_agents,
        "ready_agents": ready,
        "min_ready_agents": organ.min_ready_agents,
        "required": organ.required,
        "in_flight": sum(replica.tasks_in_flight for replica in replicas),
        "queued": sum(replica.queued for replica in replicas),
        "replicas": [replica.report() for replica in replicas],
        "failed": [
            {"agent_id": failed.agent_id, "error": f"{failed.error_type}: {failed.error}"}
            for replica in replicas
            for failed in replica.failures
        ],
    }


def figures(replicas: Sequence[Replica], agent_count: int) -> dict[str, Any]:
    """Return ``agents`` by state, ``stuck`` slots and the ``queue_limit`` of the organ."""
    living = [replica.snapshot for replica in replicas if replica.snapshot and replica.usable]
    agents = dict.fromkeys(("starting", "ready", "stuck", "failed", "stopped"), 0)
    for snapshot in living:
        for name, count in snapshot.agents.items():
            agents[name] += count
    return {
        # The agents of a process that is down.
        "agents": {**agents, "down": agent_count - sum(agents.values())},
        "stuck": sum(snapshot.stuck_tasks for snapshot in living),
        "queue_limit": sum(replica.spec.queue_limit for replica in replicas),
    }


def missing(organs: Iterable[tuple[OrganSpec, Sequence[Replica]]]) -> tuple[list[str], list[str]]:
    """Return the missing parts: (required organs below their minimum, everything else)."""
    down: list[str] = []
    degraded: list[str] = []
    for organ, replicas in organs:
        ready = ready_agents(replicas)
        if ready >= organ.agent_count:
            continue
        text = f"{organ.id}: {ready} of {organ.agent_count} agents ready{because(replicas)}"
        enough = ready >= organ.min_ready_agents
        (degraded if enough or not organ.required else down).append(text)
    return down, degraded


async def canary(replica: Replica, replicas: Sequence[Replica], nonce: str) -> dict[str, Any]:
    """Send a nonce through one of the organ's replicas and return its entry; see ``OrganismManager.canary``."""
    organ = replica.spec
    must = organ.required and ready_agents(replicas) < organ.min_ready_agents
    missed = replica.usable or must
    entry: dict[str, Any] = {"organ_id": organ.id, "replica": replica.index, "ok": False, "missed": missed}
    if not replica.usable and not must:
        return {**entry, "error": replica.error or f"it is {replica.state}"}
    try:
        answer = await replica.canary(nonce, CANARY_TIMEOUT_S)
    except Exception as error:
        # A canary that does not return, whatever the error, is a result and not a failure of this process.
        return {**entry, "error": describe(error).splitlines()[0]}
    is_back = answer.get("nonce") == nonce and "error" not in answer
    entry = {**entry, "ok": is_back, "missed": not is_back, "pid": answer.get("pid")}
    return {**entry, "error": answer["error"]} if "error" in answer else entry


def constants(organ: OrganSpec) -> dict[str, Any]:
    """Return the constant data of an organ."""
    return {
        "description": organ.description,
        "agent_ids": organ.agent_ids(),
        "task_types": sorted(organ.all_task_types()),
    }


def is_awaited(replicas: Sequence[Replica], elapsed_s: float) -> bool:
    """Return whether a start still waits for an organ: without limit for a required one, else for a time."""
    organ = replicas[0].spec
    if all(replica.settled or replica.given_up for replica in replicas):
        return False
    must = organ.required and ready_agents(replicas) < organ.min_ready_agents
    return must or elapsed_s < organ.start_timeout_s


def check_possible(replicas: Sequence[Replica]) -> None:
    """Raise if a required organ cannot reach its minimum any more at this first start.

    Raises:
        InitializationError: The first failed agent's error is the cause.
    """
    organ = replicas[0].spec
    failures = [failed for replica in replicas for failed in replica.failures]
    lost = sum(replica.lost_agents for replica in replicas)
    if not organ.required or not failures or organ.agent_count - lost >= organ.min_ready_agents:
        return
    failed = failures[0]
    cause = AgentStartError(
        f"agent {failed.agent_id} did not start: {failed.error_type}: {failed.error}", failed.traceback
    )
    cause.add_note(f"The agent's own traceback:\n{failed.traceback}")
    raise InitializationError(f"organ {organ.id}: {cause.message}") from cause
