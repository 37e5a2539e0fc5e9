"""``probe()``: determine the present state, for the CLI, the Ansible module, bootstrap and the supervisor.

It combines two sources that need no join to Ray: the Coordinator's HTTP status, and the rows of nodes and actors in
the GCS. Either alone can be wrong: a Coordinator detects a killed organ a second later than the GCS, and the GCS
reports an actor that hangs as ALIVE.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from seedcore.core.errors import ClusterError
from seedcore.core.reason import Reason, Status
from seedcore.core.settings import Settings
from seedcore.status.http_client import Response, ask_coordinator, why
from seedcore.status.report import Report, bad
from seedcore.status.state_api import newest_actor, read_cluster, unwell_nodes
from seedcore.status.verdict import PLACEMENT_S, expected, judge_coordinator, judge_head, judge_nodes

# A placement takes about a second; a process that is not placed after this long waits for resources.
UNSCHEDULABLE_AFTER_S = 15.0
# Shortest time limit of a request of `wait`, even close to the deadline: a busy host is not a dead one.
_MIN_REQUEST_S = 1.0
CANARY_TIMEOUT_S = 10.0
NODE_TIMEOUT_S = 3.0
_CANARY_REASONS = {"InboxStuckError": Reason.INBOX_STUCK, "InboxUnavailableError": Reason.INBOX_UNAVAILABLE}


def probe(
    settings: Settings,
    *,
    timeout_s: float = 3.0,
    expected_release: str | None = None,
    expected_fingerprint: str | None = None,
    expected_nodes: int | None = None,
    only_expected: bool = False,
    allow_degraded: bool = False,
) -> Report:
    """Determine the present state; this takes milliseconds, and at most ``timeout_s`` for each request.

    Args:
        settings: Where the cluster is.
        timeout_s: Time limit of each request, in seconds.
        expected_release: Another release is ``wrong_release``.
        expected_fingerprint: Another organism is ``wrong_configuration``.
        expected_nodes: Fewer living nodes, or a missing ``settings.expected_nodes``, are ``nodes_missing``.
        only_expected: Whether a living node that ``settings.expected_nodes`` does not name is ``nodes_unexpected``.
        allow_degraded: Whether to accept ``degraded``.

    Raises:
        ConfigError: The token cannot be read.
    """
    token = settings.token()
    answer = _answer(settings, timeout_s=timeout_s)
    try:
        # Read the rows after the Coordinator, so that a row that contradicts it is newer.
        cluster = read_cluster(settings, token=token, timeout_s=timeout_s)
        rows = cluster.coordinator_rows()
        row = _live_row(rows)
        if row is None and rows:
            row = newest_actor(settings, rows, token=token, timeout_s=timeout_s)
    except ClusterError as error:
        return judge_head(error, settings)
    nodes = judge_nodes(cluster, settings, expected_nodes)
    report = replace(judge_coordinator(row, answer, cluster), nodes=nodes)
    if report.status == Status.HEALTHY:
        report = expected(report, release=expected_release, fingerprint=expected_fingerprint)
    nodes = report.nodes
    if report.status == Status.HEALTHY and only_expected and nodes["unexpected"]:
        text = f"nodes that are alive and not in the inventory: {', '.join(nodes['unexpected'])}"
        text += ": put them back and run remove_node, or allow them"
        return replace(report, healthy=False, degraded=True, reason=Reason.NODES_UNEXPECTED, message=text)
    return report if report.status != Status.HEALTHY else replace(report, healthy=allow_degraded or not report.degraded)


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
    """Probe until the report is healthy, cannot become healthy, or the time is over; return the last report.

    Args:
        settings: Where the cluster is.
        timeout_s: Time limit for everything, in seconds.
        interval_s: Seconds between probes.
        stable_s: Seconds that it must stay healthy, in the same processes, without a restart.
        canary: Whether every node must answer, and every organ return a nonce, before healthy counts.
        on_change: Called with each report that differs from the last one.
        ends: Returns whether waiting cannot help for a report, in addition to terminal reasons.
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
            if report.healthy:
                # Only nodes that were still alive were asked: one that has died since the probe is missing.
                limit = max(_MIN_REQUEST_S, min(3.0, deadline - time.monotonic()))
                report = replace(probe(settings, timeout_s=limit, **expectations), attempts=attempts)
        if watch.is_stable(report):
            return report
        unplaced_s = watch.unplaced_s(report)
        key = (report.status, report.reason, report.message)
        # Every actor waits for its placement for a moment: do not report that.
        if on_change is not None and key != said and not 0.0 <= unplaced_s < PLACEMENT_S:
            said = key
            on_change(report)
        # A process that fits on some node may only be slow to start, or wait for room.
        hopeless = unplaced_s >= UNSCHEDULABLE_AFTER_S and bool(report.evidence.get("no_node_fits"))
        if report.terminal or hopeless or (ends is not None and ends(report)):
            return report
        if remaining <= 0:
            return _at_deadline(report, stable_s)
        time.sleep(min(interval_s, remaining))


class _Watch:
    """Track since when the same processes have been healthy, and since when a process has not been placed."""

    def __init__(self, stable_s: float) -> None:
        self._stable_s = stable_s
        self._identity = ""
        self._healthy_since = 0.0
        self._unplaced_since: float | None = None

    def is_stable(self, report: Report) -> bool:
        """Return whether it has been healthy long enough, in the same processes."""
        if not report.healthy:
            self._identity = ""
            return False
        identity = _identity(report)
        if identity != self._identity:
            self._identity, self._healthy_since = identity, time.monotonic()
        return time.monotonic() - self._healthy_since >= self._stable_s

    def unplaced_s(self, report: Report) -> float:
        """Return for how many seconds the Coordinator or an organ has waited for its placement; -1 if none waits."""
        if report.reason != Reason.UNSCHEDULABLE:
            self._unplaced_since = None
            return -1.0
        if self._unplaced_since is None:
            self._unplaced_since = time.monotonic()
        return time.monotonic() - self._unplaced_since


def check_nodes(settings: Settings, report: Report, *, timeout_s: float = NODE_TIMEOUT_S) -> Report:
    """Ask every node; turn the report bad if a node that Ray reports alive does not answer."""
    try:
        unwell = unwell_nodes(settings, token=settings.token(), timeout_s=timeout_s)
    except ClusterError as error:
        return bad(report, error.reason, error.message)
    return bad(report, Reason.NODES_MISSING, "; ".join(unwell)) if unwell else report


def check_canary(settings: Settings, report: Report, *, timeout_s: float = CANARY_TIMEOUT_S) -> Report:
    """Send a nonce through the Coordinator to every organ and back, and through the inbox; else turn the report bad."""
    nonce = secrets.token_hex(8)
    task = {"type": "canary", "params": {"nonce": nonce}}
    try:
        response = ask_coordinator(settings, "/coordinator/tasks", method="POST", body=task, timeout_s=timeout_s)
    except OSError as error:
        return bad(report, Reason.NOT_RESPONDING, f"the canary was not answered: {why(error)}")
    body = response.body if isinstance(response.body, Mapping) else {}
    result = body.get("result")
    if body.get("success") is True and isinstance(result, Mapping) and result.get("nonce") == nonce:
        return report
    reason = _CANARY_REASONS.get(str(body.get("error_type")), Reason.ORGANS_DOWN)
    return bad(report, reason, str(body.get("error") or f"the canary got HTTP {response.status}"))


def why_silent(settings: Settings, error: Exception) -> ClusterError:
    """Return why the Coordinator does not answer, as far as the cluster's head knows."""
    if isinstance(error, ClusterError):
        return error
    report = probe(settings)
    if report.reason == Reason.ABSENT:
        return ClusterError(Reason.ABSENT, f"{report.message.rstrip('.')}; `seedcore bootstrap` starts one")
    if report.status != Status.HEALTHY:
        return ClusterError(report.reason, report.message)
    return ClusterError(Reason.NOT_RESPONDING, f"the connection to {settings.http_url} failed: {why(error)}")


def _answer(settings: Settings, *, timeout_s: float) -> Response | OSError:
    try:
        return ask_coordinator(settings, "/coordinator/status", timeout_s=timeout_s)
    except OSError as error:
        return error


def _live_row(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return rows[0] if rows and rows[0].get("state") != "DEAD" else None


def _at_deadline(report: Report, stable_s: float) -> Report:
    if report.status == Status.INITIALIZING:
        return replace(report, message=f"still initializing: {report.message}")
    if not report.healthy:
        return report
    message = f"it did not stay healthy for {stable_s:g} s: a process was restarted"
    return bad(report, Reason.NOT_RESPONDING, message)


def _identity(report: Report) -> str:
    """Return what must stay the same during a stable period: the processes and their restarts."""
    organs = report.coordinator.get("organs") or ()
    processes = [(replica["pid"], replica["restarts"]) for organ in organs for replica in organ["replicas"]]
    return repr((report.coordinator.get("pid"), report.coordinator.get("restarts"), processes, report.nodes["names"]))
