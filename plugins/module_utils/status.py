"""What the module seedcore_status and its action plugin share: options, predicates and the wait, without Ansible."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Waiting does not mend these. A Coordinator that is absent or a cluster that is unreachable may be on its way.
TERMINAL = frozenset({"init_failed", "not_installed", "unauthorized", "wrong_configuration", "wrong_release"})
# A placement takes about a second; what is not placed after this long waits for something that does not come.
UNSCHEDULABLE_AFTER_S = 15.0

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "int", "default": 300},
    "wait_sleep": {"type": "int", "default": 2},
    "stable_s": {"type": "int", "default": 0},
    "canary": {"type": "bool", "default": False},
    "expected_release": {"type": "str"},
    "expected_fingerprint": {"type": "str"},
    "expected_nodes": {"type": "int"},
    "expected_node_names": {"type": "list", "elements": "str"},
    "allow_degraded": {"type": "bool", "default": False},
    "executable": {"type": "path", "default": "seedcore"},
    "namespace": {"type": "str"},
    "address": {"type": "str"},
    "command_timeout": {"type": "int", "default": 30},
}
_MINIMUM = {"wait_timeout": 1, "wait_sleep": 1, "stable_s": 0, "expected_nodes": 1, "command_timeout": 1}
_NOT_EMPTY = ("expected_release", "expected_fingerprint", "executable", "namespace", "address")

Report = dict[str, Any]


def faults(params: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the options, one text a fault, each with what is allowed."""
    found = minimum_faults(params, _MINIMUM) + empty_faults(params, _NOT_EMPTY)
    names = params.get("expected_node_names")
    if names is not None and not all(name.strip() for name in names):
        found.append("expected_node_names has an empty name, allowed are names of nodes")
    if names is not None and len(set(names)) != len(names):
        found.append("expected_node_names has a name twice, allowed is each name once")
    for name in ("namespace", "address"):
        if len((params.get(name) or "").split()) > 1:
            found.append(f"{name} is {params[name]!r}, allowed is one word")
    address = params.get("address")
    if address and not _is_host_and_port(address):
        found.append(f"address is {address!r}, allowed is host:port")
    if params.get("wait") and params["stable_s"] >= params["wait_timeout"] > 0:
        found.append(f"stable_s is {params['stable_s']}, allowed is less than wait_timeout ({params['wait_timeout']})")
    return found


def minimum_faults(params: Mapping[str, Any], minimum: Mapping[str, int]) -> list[str]:
    """Say which numbers are below what is allowed."""
    return [
        f"{name} is {params[name]}, allowed is {least} or more"
        for name, least in minimum.items()
        if params.get(name) is not None and params[name] < least
    ]


def empty_faults(params: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Say which texts are empty."""
    return [
        f"{name} is empty, allowed is a text or no {name} at all"
        for name in names
        if params.get(name) is not None and not str(params[name]).strip()
    ]


def with_node_names(report: Report, expected: Sequence[str] | None) -> Report:
    """Turn a healthy report bad if a node of this name is not alive; any report lists what is missing."""
    missing = sorted(set(expected or ()) - set(report["nodes"]["names"]))
    if not missing:
        return report
    nodes = {**report["nodes"], "missing": sorted({*report["nodes"]["missing"], *missing})}
    if not report["healthy"] and report["reason"] != "nodes_missing":
        return {**report, "nodes": nodes}
    # Also where only the number was known to be wrong.
    message = f"nodes that are not alive: {', '.join(missing)}"
    return {
        **report,
        "nodes": nodes,
        "healthy": False,
        "status": "unhealthy",
        "reason": "nodes_missing",
        "message": message,
    }


def passes(report: Mapping[str, Any], *, allow_degraded: bool = False) -> bool:
    """Say whether a gate may open on this report."""
    return bool(report["healthy"]) and (allow_degraded or not report["degraded"])


def is_terminal(report: Mapping[str, Any], *, unplaced_s: float = 0.0) -> bool:
    """Say whether waiting cannot mend it; ``unplaced_s`` is how long the Coordinator has had no place to run."""
    return report["reason"] in TERMINAL or unplaced_s >= UNSCHEDULABLE_AFTER_S


def failure_line(report: Mapping[str, Any], *, elapsed_s: float) -> str:
    """Return the one line that tells a person why."""
    message = str(report["message"])
    if report["status"] == "initializing" and not message.startswith("still initializing"):
        message = f"still initializing: {message}"
    return f"{report['reason']}: {message} (after {elapsed_s:.0f} s)"


def wait_for(
    look: Callable[[], Report],
    *,
    timeout_s: float,
    sleep_s: float,
    allow_degraded: bool = False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Report, int]:
    """Look until the report passes, cannot become good, or the time is over; looks at least once.

    Args:
        look: Returns a report. A report with ``failed`` in it ends the wait at once.
        timeout_s: Seconds for everything.
        sleep_s: Seconds between two looks; the last pause ends at the deadline.
        allow_degraded: Whether degraded is good enough.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.

    Returns:
        The last report and how often it looked.
    """
    deadline = clock() + timeout_s
    attempts = 0
    unplaced_since: float | None = None
    while True:
        report = look()
        attempts += 1
        now = clock()
        if report.get("failed") or passes(report, allow_degraded=allow_degraded):
            return report, attempts
        if report["reason"] != "unschedulable":
            unplaced_since = None
        elif unplaced_since is None:
            unplaced_since = now
        if (
            is_terminal(report, unplaced_s=now - unplaced_since if unplaced_since is not None else 0.0)
            or now >= deadline
        ):
            return report, attempts
        sleep(min(sleep_s, deadline - now))


def _is_host_and_port(address: str) -> bool:
    host, _colon, port = address.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536  # noqa: PLR2004 - the last port
