"""``probe()``: what is true now. One implementation; the CLI, the Ansible module, bootstrap and the supervisor call it.

It joins what can be known without joining Ray: the Coordinator's own HTTP status, and the rows that the GCS keeps of
nodes and actors. Neither is believed alone: a Coordinator learns of a killed organ a second later than the GCS, and
the GCS calls an actor ALIVE that hangs.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from seedcore.cluster import ClusterState, newest_actor, read_cluster, unwell_nodes
from seedcore.errors import ClusterError
from seedcore.processes import has_lost_its_raylet, is_actor_of, is_living_actor
from seedcore.rest import CannotAskError, Response, request
from seedcore.settings import ORGAN_NAME_PREFIX, Settings
from seedcore.store import damage

HEALTHY, INITIALIZING, UNHEALTHY = "healthy", "initializing", "unhealthy"
# A placement takes about a second; what is not placed after this long waits for something.
UNSCHEDULABLE_AFTER_S = 15.0
PLACEMENT_S = 4.0
# What a request of `wait` may take at least, also close to the deadline: a busy host is not a dead one.
_MIN_REQUEST_S = 1.0
CANARY_TIMEOUT_S = 10.0
NODE_TIMEOUT_S = 3.0
_ABSENT = frozenset({"absent", "not_installed"})
_UNKNOWN = frozenset({"unreachable", "unauthorized"})
# Waiting does not mend these. `absent` and `unreachable` may pass while something starts or restarts.
_TERMINAL = frozenset({"init_failed", "unauthorized", "not_installed", "wrong_release", "wrong_configuration"})
_STATES_BEFORE_A_PROCESS = frozenset({"DEPENDENCIES_UNREADY", "PENDING_CREATION"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The answer of a probe.

    Attributes:
        healthy: Whether a gate may pass.
        status: ``healthy``, ``initializing`` or ``unhealthy``.
        reason: Which case of the truth table (``docs/status.md``).
        message: For a person, one line.
        degraded: Healthy, but not everything is there.
        coordinator: What the Coordinator says of itself, and its actor's ``actor_id, state, pid, node_id``.
        nodes: ``{"alive": int, "expected": int, "missing": [names], "names": [names]}``.
        evidence: What the judgement rests on where it is bad: traceback, death cause, HTTP answer.
        attempts: How many probes a wait has taken.
    """

    healthy: bool
    status: str
    reason: str
    message: str
    degraded: bool = False
    coordinator: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=lambda: {"alive": 0, "expected": 0, "missing": [], "names": []})
    evidence: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1

    @property
    def exit_code(self) -> int:
        """0 healthy, 1 unhealthy or degraded, 3 not running, 4 unknown, 5 initializing."""
        if self.healthy:
            return 0
        if self.status == INITIALIZING:
            return 5
        if self.reason in _ABSENT:
            return 3
        return 4 if self.reason in _UNKNOWN else 1

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of the Coordinator, so that there is nothing to decide on."""
        return self.reason in _UNKNOWN or self.reason == "state_damaged"

    @property
    def terminal(self) -> bool:
        """Whether waiting cannot mend it."""
        return self.reason in _TERMINAL

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``release`` and ``since`` of the Coordinator stand at the top as well."""
        return {
            "healthy": self.healthy,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "degraded": self.degraded,
            "terminal": self.terminal,
            "exit_code": self.exit_code,
            "attempts": self.attempts,
            "release": self.coordinator.get("release"),
            "since": self.coordinator.get("since"),
            "coordinator": self.coordinator,
            "nodes": self.nodes,
            "evidence": self.evidence,
        }


def probe(
    settings: Settings,
    *,
    timeout_s: float = 3.0,
    expected_release: str | None = None,
    expected_fingerprint: str | None = None,
    expected_nodes: int | None = None,
    allow_degraded: bool = False,
) -> Report:
    """Find out what is true now; takes milliseconds, and at most ``timeout_s`` for each of its requests.

    Args:
        settings: Where to ask.
        timeout_s: Seconds for each request.
        expected_release: Another release is ``wrong_release``.
        expected_fingerprint: Another organism is ``wrong_configuration``.
        expected_nodes: Fewer living nodes are ``nodes_missing``; names in ``settings.expected_nodes`` count too.
        allow_degraded: Whether ``degraded`` is healthy enough.

    Raises:
        ConfigError: The token cannot be read.
    """
    token = settings.token()
    answer = _ask_coordinator(settings, token=token, timeout_s=timeout_s)
    try:
        # After the Coordinator, so that a row which contradicts it is the newer truth.
        cluster = read_cluster(settings, token=token, timeout_s=timeout_s)
        rows = cluster.coordinator_rows()
        row = _live_row(rows)
        if row is None and rows:
            row = newest_actor(settings, rows, token=token, timeout_s=timeout_s)
    except ClusterError as error:
        return _judge_head(error, settings)
    nodes = _judge_nodes(cluster, settings, expected_nodes)
    report = replace(_judge_coordinator(row, answer, cluster), nodes=nodes)
    if report.status == HEALTHY:
        report = expected(report, release=expected_release, fingerprint=expected_fingerprint)
    return report if report.status != HEALTHY else replace(report, healthy=allow_degraded or not report.degraded)


def expected(report: Report, *, release: str | None, fingerprint: str | None) -> Report:
    """Turn a healthy report bad if another release or organism answers, or nodes are missing."""
    own, nodes = report.coordinator, report.nodes
    if release is not None and own.get("release") != release:
        return _bad(report, "wrong_release", f"release {own.get('release')} answers, expected is {release}")
    if fingerprint is not None and own.get("fingerprint") != fingerprint:
        text = f"an organism with fingerprint {own.get('fingerprint')} answers, expected is {fingerprint}"
        return _bad(report, "wrong_configuration", text)
    if nodes["missing"]:
        return _bad(report, "nodes_missing", f"nodes that are not alive: {', '.join(nodes['missing'])}")
    if nodes["alive"] < nodes["expected"]:
        return _bad(report, "nodes_missing", f"{nodes['alive']} nodes are alive, expected are {nodes['expected']}")
    return report


def wait(
    settings: Settings,
    *,
    timeout_s: float,
    interval_s: float = 0.5,
    stable_s: float = 0.0,
    canary: bool = False,
    on_change: Callable[[Report], None] | None = None,
    ends: Callable[[Report], bool] | None = None,
    **expectations: Any,
) -> Report:
    """Probe until the answer is healthy, cannot become healthy, or the time is over; returns the last report.

    Args:
        settings: Where to ask.
        timeout_s: Seconds for everything.
        interval_s: Seconds between two probes.
        stable_s: How long it must have been healthy at a stretch, in the same process, with no organ restarted.
        canary: Whether, before healthy counts, every node must answer itself and a nonce come back through every organ.
        on_change: Called with each report that says something new.
        ends: Says of a report that waiting cannot mend it, beyond those that are terminal anyway.
        expectations: The other arguments of :func:`probe`.

    Raises:
        ConfigError: The token cannot be read.
    """
    deadline = time.monotonic() + timeout_s
    watch = _Watch(stable_s)
    said: tuple[str, str, str] | None = None
    attempts = 0
    while True:
        attempts += 1
        report = probe(settings, timeout_s=max(_MIN_REQUEST_S, min(3.0, deadline - time.monotonic())), **expectations)
        report = replace(report, attempts=attempts)
        remaining = deadline - time.monotonic()
        if canary and watch.is_stable(report):
            limit = max(_MIN_REQUEST_S, remaining)
            report = check_nodes(settings, report, timeout_s=min(NODE_TIMEOUT_S, limit))
            if report.healthy:
                report = check_canary(settings, report, timeout_s=min(CANARY_TIMEOUT_S, limit))
        if watch.is_stable(report):
            return report
        unplaced_s = watch.unplaced_s(report)
        key = (report.status, report.reason, report.message)
        # Every actor waits for its place for a moment: nothing to tell.
        if on_change is not None and key != said and not 0.0 <= unplaced_s < PLACEMENT_S:
            said = key
            on_change(report)
        # A process that some node could hold may only be slow to start, or wait for room.
        hopeless = unplaced_s >= UNSCHEDULABLE_AFTER_S and bool(report.evidence.get("no_node_fits"))
        if report.terminal or hopeless or (ends is not None and ends(report)):
            return report
        if remaining <= 0:
            return _at_deadline(report, stable_s)
        time.sleep(min(interval_s, remaining))


class _Watch:
    """Remembers since when the same processes have been healthy, and since when a process was not placed."""

    def __init__(self, stable_s: float) -> None:
        self._stable_s = stable_s
        self._identity = ""
        self._healthy_since = 0.0
        self._unplaced_since: float | None = None

    def is_stable(self, report: Report) -> bool:
        """Whether it has been healthy for long enough, in the same processes."""
        if not report.healthy:
            self._identity = ""
            return False
        identity = _identity(report)
        if identity != self._identity:
            self._identity, self._healthy_since = identity, time.monotonic()
        return time.monotonic() - self._healthy_since >= self._stable_s

    def unplaced_s(self, report: Report) -> float:
        """For how many seconds the Coordinator or an organ has waited for its place; -1 if none does."""
        if report.reason != "unschedulable":
            self._unplaced_since = None
            return -1.0
        if self._unplaced_since is None:
            self._unplaced_since = time.monotonic()
        return time.monotonic() - self._unplaced_since


def check_nodes(settings: Settings, report: Report, *, timeout_s: float = NODE_TIMEOUT_S) -> Report:
    """Ask every node itself; the report turns bad if one that counts as alive does not answer."""
    try:
        unwell = unwell_nodes(settings, token=settings.token(), timeout_s=timeout_s)
    except ClusterError as error:
        return _bad(report, error.reason, error.message)
    return _bad(report, "nodes_missing", "; ".join(unwell)) if unwell else report


def check_canary(settings: Settings, report: Report, *, timeout_s: float = CANARY_TIMEOUT_S) -> Report:
    """Send a nonce through the Coordinator to every organ and back; the report turns bad if it does not return."""
    nonce = secrets.token_hex(8)
    task = {"type": "canary", "params": {"nonce": nonce}}
    url = f"{settings.http_url}/coordinator/tasks"
    try:
        response = request(
            url,
            method="POST",
            token=settings.token(),
            body=task,
            timeout_s=timeout_s,
            certificate=settings.http_tls_cert,
        )
    except OSError as error:
        return _bad(report, "not_responding", f"the canary was not answered: {_why(error)}")
    body = response.body if isinstance(response.body, Mapping) else {}
    result = body.get("result")
    if body.get("success") is True and isinstance(result, Mapping) and result.get("nonce") == nonce:
        return report
    return _bad(report, "organs_down", str(body.get("error") or f"the canary got HTTP {response.status}"))


def _ask_coordinator(settings: Settings, *, token: str | None, timeout_s: float) -> Response | OSError:
    try:
        url = f"{settings.http_url}/coordinator/status"
        return request(url, token=token, timeout_s=timeout_s, certificate=settings.http_tls_cert)
    except OSError as error:
        return error


def _judge_head(error: ClusterError, settings: Settings) -> Report:
    """Judge a head that cannot be asked; on the head itself, the log of its GCS may know why."""
    why = damage(settings.ray_logs) if error.reason == "unreachable" else None
    if why is None:
        return _report(UNHEALTHY, error.reason, error.message)
    return _report(UNHEALTHY, "state_damaged", f"Ray's head cannot open its store: {why}")


def _live_row(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return rows[0] if rows and rows[0].get("state") != "DEAD" else None


def _judge_nodes(cluster: ClusterState, settings: Settings, expected_nodes: int | None) -> dict[str, Any]:
    names = cluster.alive_names
    expected = expected_nodes if expected_nodes is not None else max(1, len(settings.expected_nodes))
    return {
        "alive": len(names),
        "expected": expected,
        "missing": sorted(set(settings.expected_nodes) - set(names)),
        "names": names,
    }


def _judge_coordinator(row: dict[str, Any] | None, answer: Response | OSError, cluster: ClusterState) -> Report:
    if row is None:
        return _report(UNHEALTHY, "absent", "there is no Coordinator")
    state, pid = row.get("state"), row.get("pid")
    facts = {"actor_id": row.get("actor_id"), "state": state, "pid": pid, "node_id": row.get("node_id")}
    if state == "DEAD":
        return _judge_dead(row, facts)
    body = answer.body if isinstance(answer, Response) and isinstance(answer.body, Mapping) else {}
    same_process = bool(body.get("status")) and body.get("pid") == pid
    # The row's num_restarts counts over all processes of the actor, where the Coordinator knows only its own.
    own = {**body, "restarts": int(row.get("num_restarts") or 0)} if same_process else {}
    coordinator = {**own, **facts}
    if state != "ALIVE":
        return _judge_coming_up(row, coordinator, cluster)
    silence = _judge_silence(row, answer, cluster, same_process=same_process)
    if silence is not None:
        reason, message, evidence = silence
        return _report(UNHEALTHY, reason, message, coordinator, evidence)
    return _judge_answer(coordinator, cluster)


def _judge_coming_up(row: Mapping[str, Any], coordinator: dict[str, Any], cluster: ClusterState) -> Report:
    if row.get("state") in _STATES_BEFORE_A_PROCESS and not row.get("pid"):
        evidence = {"no_node_fits": not _fits_somewhere(row, cluster)}
        return _report(INITIALIZING, "unschedulable", f"no process yet, waits for {_needs(row)}", coordinator, evidence)
    reason = "restarting" if row.get("state") == "RESTARTING" else "starting"
    stage = coordinator.get("stage") if coordinator.get("status") == INITIALIZING else None
    return _judge_start(reason, str(stage or "its process is coming up"), coordinator, cluster)


def _judge_start(reason: str, stage: str, coordinator: dict[str, Any], cluster: ClusterState) -> Report:
    """Judge a start; one that waits for a place for a required organ does not hang, and nothing is to be killed."""
    waiting = _unplaced_organs(coordinator, cluster)
    message = "; ".join([stage, *(f"{row.get('name')} waits for {_needs(row)}" for row in waiting)])
    required = {str(organ["organ_id"]): bool(organ["required"]) for organ in coordinator.get("organs") or ()}
    needed = [row for row in waiting if required.get(_organ_id(row), True)]
    if not needed:
        return _report(INITIALIZING, reason, message, coordinator)
    evidence = {"no_node_fits": not all(_fits_somewhere(row, cluster) for row in needed)}
    return _report(INITIALIZING, "unschedulable", message, coordinator, evidence)


def _judge_silence(
    row: Mapping[str, Any], answer: Response | OSError, cluster: ClusterState, *, same_process: bool
) -> tuple[str, str, dict[str, Any]] | None:
    """Say why an actor that Ray calls ALIVE is not believed, or None: (reason, message, evidence)."""
    pid = row.get("pid")
    if row.get("node_id") not in cluster.alive_node_ids:
        return "not_responding", "Ray calls it ALIVE on a node that is dead", {"zombie": True}
    if isinstance(answer, CannotAskError):
        # Whatever the Coordinator does: the fault is on the side that asks.
        evidence = {"silence": "cannot_ask", "untrusted": answer.untrusted}
        return "unreachable", f"the Coordinator cannot be asked from here: {_why(answer)}", evidence
    if isinstance(answer, OSError):
        silence = "no_answer" if isinstance(answer, TimeoutError) else "nobody_listens"
        return "not_responding", f"its process {pid} does not answer: {_why(answer)}", {"silence": silence}
    if answer.status in {401, 403}:
        return "unauthorized", f"the Coordinator refuses this token (HTTP {answer.status})", {}
    if not same_process:
        other = f"process {answer.body['pid']}" if _has_pid(answer.body) else f"an HTTP {answer.status}"
        return "not_responding", f"{other} answers in place of its process {pid}", {"silence": "another_answers"}
    return None


def _judge_answer(coordinator: dict[str, Any], cluster: ClusterState) -> Report:
    """Judge what a living Coordinator says of itself, against the rows of its organs."""
    status, reason, message = (str(coordinator.get(key, "")) for key in ("status", "reason", "message"))
    if status == INITIALIZING:
        return _judge_start(reason, message, coordinator, cluster)
    if status != HEALTHY:
        return _report(status, reason, message, coordinator)
    if has_lost_its_raylet(coordinator["pid"]):
        return _report(UNHEALTHY, "nodes_missing", "the raylet of the Coordinator's node is gone", coordinator)
    down, missing = _contradicted_organs(coordinator, cluster)
    if down:
        return _report(UNHEALTHY, "organs_down", "; ".join([*down, *missing]), coordinator)
    if missing:
        return _report(HEALTHY, "degraded", "; ".join(missing), coordinator, degraded=True)
    return _report(status, reason, message, coordinator, degraded=bool(coordinator.get("degraded")))


def _contradicted_organs(coordinator: Mapping[str, Any], cluster: ClusterState) -> tuple[list[str], list[str]]:
    """Organs that the Coordinator counts as working and somebody knows better: (below their minimum, the rest).

    The GCS knows, usually within 15 ms of a death but later on a host that is short of CPU; of processes on this very
    host the kernel knows at once.
    """
    this_node = coordinator["node_id"]
    # Off the head, its pid may be another actor's: the kernel that is asked is not that of its node.
    is_here = is_actor_of(coordinator["pid"], node_id=this_node)
    down: list[str] = []
    missing: list[str] = []
    for organ in coordinator.get("organs") or ():
        lost, ready = [], 0
        for replica in organ["replicas"]:
            if replica["state"] not in {"ready", "degraded"}:
                continue
            row = cluster.actor(replica["actor_id"])
            # A row that was cut off contradicts nobody.
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
    """Rows of organs that Ray has not placed, by name; none while a placement may still be under way."""
    if float(coordinator.get("uptime_s") or 0.0) < PLACEMENT_S:
        return []
    waiting = [
        row
        for row in cluster.actors
        if row.get("class_name") == "Organ" and row.get("state") in _STATES_BEFORE_A_PROCESS and not row.get("pid")
    ]
    return sorted(waiting, key=lambda row: str(row.get("name")))


def _organ_id(row: Mapping[str, Any]) -> str:
    return str(row.get("name")).removeprefix(ORGAN_NAME_PREFIX).rpartition(".")[0]


def _fits_somewhere(row: Mapping[str, Any], cluster: ClusterState) -> bool:
    """Say whether some living node has, all in all, what the process asks for; yes where that is not known."""
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
        return _report(UNHEALTHY, "init_failed", message, facts, {"traceback": traceback_text})
    # Whichever context Ray has filled in: node death, out of memory, a runtime environment, no place.
    contexts = [context for context in cause.values() if isinstance(context, Mapping) and context.get("error_message")]
    died = dict(contexts[0]) if contexts else {}
    detail = str(died.get("error_message") or "Ray gives no reason").strip().splitlines()[0]
    return _report(UNHEALTHY, "absent", f"the last Coordinator is dead: {detail}", facts, {"death_cause": died})


def _report(
    status: str,
    reason: str,
    message: str,
    coordinator: dict[str, Any] | None = None,
    evidence: dict[str, Any] | None = None,
    *,
    degraded: bool = False,
) -> Report:
    return Report(
        healthy=status == HEALTHY,
        status=status,
        reason=reason,
        message=message,
        degraded=degraded,
        coordinator=coordinator or {},
        evidence=evidence or {},
    )


def _bad(report: Report, reason: str, message: str) -> Report:
    return replace(report, healthy=False, status=UNHEALTHY, reason=reason, message=message)


def _at_deadline(report: Report, stable_s: float) -> Report:
    if report.status == INITIALIZING:
        return replace(report, message=f"still initializing: {report.message}")
    if not report.healthy:
        return report
    message = f"it was not healthy for {stable_s:g} s at a stretch: a process was restarted"
    return _bad(report, "not_responding", message)


def _identity(report: Report) -> str:
    """Everything that must stay the same while health is watched: the processes and their restarts."""
    organs = report.coordinator.get("organs") or ()
    processes = [(replica["pid"], replica["restarts"]) for organ in organs for replica in organ["replicas"]]
    return repr((report.coordinator.get("pid"), report.coordinator.get("restarts"), processes, report.nodes["names"]))


def _why(error: OSError) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
