"""Pure judgements from the Coordinator's answer and the rows of the GCS; either source alone can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seedcore.core.errors import ClusterError
from seedcore.core.reason import Reason, Status
from seedcore.core.settings import ORGAN_NAME_PREFIX, Settings
from seedcore.status.gcs_store import damage, full_disk
from seedcore.status.host_processes import has_lost_its_raylet, is_actor_of, is_living_actor
from seedcore.status.http_client import CannotAskError, Response, why
from seedcore.status.report import Report, bad, report_of
from seedcore.status.state_api import ClusterState

PLACEMENT_S = 4.0
_STATES_BEFORE_A_PROCESS = frozenset({"DEPENDENCIES_UNREADY", "PENDING_CREATION"})


def expected(report: Report, *, release: str | None, fingerprint: str | None) -> Report:
    """Turn a healthy report bad if another release or organism runs, or nodes are missing."""
    own, nodes = report.coordinator, report.nodes
    if release is not None and own.get("release") != release:
        return bad(report, Reason.WRONG_RELEASE, f"release {own.get('release')} answers, expected {release}")
    if fingerprint is not None and own.get("fingerprint") != fingerprint:
        text = f"an organism with fingerprint {own.get('fingerprint')} answers, expected {fingerprint}"
        return bad(report, Reason.WRONG_CONFIGURATION, text)
    if nodes["missing"]:
        return bad(report, Reason.NODES_MISSING, f"nodes that are not alive: {', '.join(nodes['missing'])}")
    if nodes["alive"] < nodes["expected"]:
        return bad(report, Reason.NODES_MISSING, f"{nodes['alive']} nodes are alive, expected {nodes['expected']}")
    return report


def judge_head(error: ClusterError, settings: Settings) -> Report:
    """Judge a head that does not answer; on the head itself, the log of its GCS and the disk may tell why."""
    if error.reason != Reason.UNREACHABLE or settings.ray_logs is None:
        return report_of(error.reason, error.message)
    cause = damage(settings.ray_logs)
    if full := full_disk(cause, settings.state_dir, settings.ray_logs):
        return report_of(Reason.DISK_FULL, f"Ray's head does not run, because its disk is full: {full}")
    if cause is not None:
        return report_of(Reason.STATE_DAMAGED, f"Ray's head cannot use its store: {cause}")
    return report_of(error.reason, error.message)


def judge_nodes(cluster: ClusterState, settings: Settings, expected_nodes: int | None) -> dict[str, Any]:
    """Return the nodes of a report: those that are alive, and those of the settings that are missing."""
    names = cluster.alive_names
    expected = expected_nodes if expected_nodes is not None else max(1, len(settings.expected_nodes))
    return {
        "alive": len(names),
        "expected": expected,
        "missing": sorted(set(settings.expected_nodes) - set(names)),
        "unexpected": sorted(set(names) - set(settings.expected_nodes)) if settings.expected_nodes else [],
        "names": names,
    }


def judge_coordinator(row: dict[str, Any] | None, answer: Response | OSError, cluster: ClusterState) -> Report:
    """Judge the Coordinator by its actor's row, its answer over HTTP, and the rows of its organs: docs/status.md."""
    if row is None:
        return report_of(Reason.ABSENT, "there is no Coordinator")
    state, pid = row.get("state"), row.get("pid")
    facts = {"actor_id": row.get("actor_id"), "state": state, "pid": pid, "node_id": row.get("node_id")}
    if state == "DEAD":
        return _judge_dead(row, facts)
    body = answer.body if isinstance(answer, Response) and isinstance(answer.body, Mapping) else {}
    same_process = bool(body.get("status")) and body.get("pid") == pid
    # The row's num_restarts covers all processes of the actor; the Coordinator counts only its own.
    own = {**body, "restarts": int(row.get("num_restarts") or 0)} if same_process else {}
    coordinator = {**own, **facts}
    if state != "ALIVE":
        return _judge_coming_up(row, coordinator, cluster)
    silence = _judge_silence(row, answer, cluster, same_process=same_process)
    if silence is not None:
        reason, message, evidence = silence
        return report_of(reason, message, coordinator, evidence)
    return _judge_answer(coordinator, cluster)


def _judge_coming_up(row: Mapping[str, Any], coordinator: dict[str, Any], cluster: ClusterState) -> Report:
    if row.get("state") in _STATES_BEFORE_A_PROCESS and not row.get("pid"):
        evidence = {"no_node_fits": not _fits_somewhere(row, cluster)}
        return report_of(Reason.UNSCHEDULABLE, f"no process yet, waits for {_needs(row)}", coordinator, evidence)
    reason = Reason.RESTARTING if row.get("state") == "RESTARTING" else "starting"
    stage = coordinator.get("stage") if coordinator.get("status") == Status.INITIALIZING else None
    return _judge_start(reason, str(stage or "its process is coming up"), coordinator, cluster)


def _judge_start(reason: str, stage: str, coordinator: dict[str, Any], cluster: ClusterState) -> Report:
    """Judge a start; one that waits for resources for a required organ does not hang and must not be killed."""
    waiting = _unplaced_organs(coordinator, cluster)
    message = "; ".join([stage, *(f"{row.get('name')} waits for {_needs(row)}" for row in waiting)])
    required = {str(organ["organ_id"]): bool(organ["required"]) for organ in coordinator.get("organs") or ()}
    needed = [row for row in waiting if required.get(_organ_id(row), True)]
    if not needed or reason == Reason.RELOADING:
        # A reload without room is undone in time.
        return report_of(reason, message, coordinator, status=Status.INITIALIZING)
    evidence = {"no_node_fits": not all(_fits_somewhere(row, cluster) for row in needed)}
    return report_of(Reason.UNSCHEDULABLE, message, coordinator, evidence)


def _judge_silence(
    row: Mapping[str, Any], answer: Response | OSError, cluster: ClusterState, *, same_process: bool
) -> tuple[str, str, dict[str, Any]] | None:
    """Return why an actor that Ray reports ALIVE is not healthy (reason, message, evidence), or None."""
    pid = row.get("pid")
    if row.get("node_id") not in cluster.alive_node_ids:
        return Reason.NOT_RESPONDING, "Ray reports it ALIVE on a node that is dead", {"zombie": True}
    if isinstance(answer, CannotAskError):
        # The fault is on this side, whatever state the Coordinator is in.
        evidence = {"silence": "cannot_ask", "untrusted": answer.untrusted}
        return Reason.UNREACHABLE, f"this host cannot ask the Coordinator: {why(answer)}", evidence
    if isinstance(answer, OSError):
        silence = "no_answer" if isinstance(answer, TimeoutError) else "nobody_listens"
        return Reason.NOT_RESPONDING, f"its process {pid} does not answer: {why(answer)}", {"silence": silence}
    if answer.status in {401, 403}:
        return Reason.UNAUTHORIZED, f"the Coordinator rejects this token (HTTP {answer.status})", {}
    if not same_process:
        other = f"process {answer.body['pid']}" if _has_pid(answer.body) else f"an HTTP {answer.status}"
        return Reason.NOT_RESPONDING, f"{other} answers instead of its process {pid}", {"silence": "another_answers"}
    return None


def _judge_answer(coordinator: dict[str, Any], cluster: ClusterState) -> Report:
    """Judge a living Coordinator's own status against the rows of its organs."""
    status, reason, message = (str(coordinator.get(key, "")) for key in ("status", "reason", "message"))
    if status == Status.INITIALIZING:
        return _judge_start(reason, message, coordinator, cluster)
    if status != Status.HEALTHY:
        return report_of(reason, message, coordinator, status=status)
    if has_lost_its_raylet(coordinator["pid"]):
        return report_of(Reason.NODES_MISSING, "the raylet of the Coordinator's node is gone", coordinator)
    down, missing = _contradicted_organs(coordinator, cluster)
    if down:
        return report_of(Reason.ORGANS_DOWN, "; ".join([*down, *missing]), coordinator)
    if missing:
        return report_of(Reason.DEGRADED, "; ".join(missing), coordinator, degraded=True)
    return report_of(reason, message, coordinator, status=status, degraded=bool(coordinator.get("degraded")))


def _contradicted_organs(coordinator: Mapping[str, Any], cluster: ClusterState) -> tuple[list[str], list[str]]:
    """Return organs that the Coordinator wrongly reports as working: (below their minimum, the rest).

    The GCS records a death usually within 15 ms, but later on a host that is short of CPU; for processes on this host
    the kernel knows it at once.
    """
    this_node = coordinator["node_id"]
    # On another host this pid may belong to another actor.
    is_here = is_actor_of(coordinator["pid"], node_id=this_node)
    down: list[str] = []
    missing: list[str] = []
    for organ in coordinator.get("organs") or ():
        lost, ready = [], 0
        for replica in organ["replicas"]:
            if replica["state"] not in {"ready", "degraded"}:
                continue
            row = cluster.actor(replica["actor_id"])
            # The row may have been cut off, so its absence proves nothing.
            row = {**replica, "state": "ALIVE"} if row is None and not cluster.complete else row or {}
            alive = row.get("state") == "ALIVE" and row.get("node_id") in cluster.alive_node_ids
            gone = is_here and row.get("node_id") == this_node and not is_living_actor(replica["pid"])
            if alive and not gone and row.get("pid") == replica["pid"]:
                ready += int(replica["ready_agents"])
            else:
                lost.append(f"{organ['organ_id']}: process {replica['pid']} of replica {replica['replica']} is gone")
        if lost:
            enough = ready >= int(organ["min_ready_agents"]) or not organ["required"]
            (missing if enough else down).extend(lost)
    return down, missing


def _unplaced_organs(coordinator: Mapping[str, Any], cluster: ClusterState) -> list[dict[str, Any]]:
    """Return the rows of organs that Ray has not placed, by name, except those that are being placed now."""
    if float(coordinator.get("uptime_s") or 0.0) < PLACEMENT_S:
        return []
    # A row gets its pid when the process runs, even if it was placed before. The Coordinator knows the difference.
    unplaced = coordinator.get("unplaced")
    waiting = [
        row
        for row in cluster.actors
        if row.get("class_name") == "Organ"
        and row.get("state") in _STATES_BEFORE_A_PROCESS
        and not row.get("pid")
        and (unplaced is None or row.get("name") in unplaced)
    ]
    return sorted(waiting, key=lambda row: str(row.get("name")))


def _organ_id(row: Mapping[str, Any]) -> str:
    return str(row.get("name")).removeprefix(ORGAN_NAME_PREFIX).rpartition(".")[0]


def _fits_somewhere(row: Mapping[str, Any], cluster: ClusterState) -> bool:
    """Return whether some living node has enough resources in total for the process; True if that is unknown."""
    needs = (row.get("required_resources") or {}).items()

    def holds(node: Mapping[str, Any]) -> bool:
        has = node.get("resources_total")
        if not isinstance(has, Mapping):
            return True
        return all(not isinstance(total := has.get(name, 0), int | float) or total >= amount for name, amount in needs)

    return any(holds(node) for node in cluster.nodes if node.get("state") == "ALIVE")


def _needs(row: Mapping[str, Any]) -> str:
    needs = (row.get("required_resources") or {}).items()
    return ", ".join(f"{key}: {value:g}" for key, value in needs) or "a worker process"


def _has_pid(body: Any) -> bool:
    return isinstance(body, Mapping) and "pid" in body


def _judge_dead(row: Mapping[str, Any], facts: dict[str, Any]) -> Report:
    cause = row.get("death_cause") or {}
    traceback_text = (cause.get("creation_task_failure_context") or {}).get("formatted_exception_string")
    if traceback_text:
        lines = [line.strip() for line in str(traceback_text).splitlines() if line.strip()]
        last = next((line for line in reversed(lines) if "Coordinator initialization failed" in line), lines[-1])
        message = last.removeprefix("RuntimeError: ")
        return report_of(Reason.INIT_FAILED, message, facts, {"traceback": traceback_text})
    # Ray fills in one context: node death, out of memory, a runtime environment, no resources.
    contexts = [context for context in cause.values() if isinstance(context, Mapping) and context.get("error_message")]
    died = dict(contexts[0]) if contexts else {}
    detail = str(died.get("error_message") or "Ray gives no reason").strip().splitlines()[0]
    return report_of(Reason.ABSENT, f"the last Coordinator is dead: {detail}", facts, {"death_cause": died})
