"""Code shared by the module seedcore_status and its action plugin: options and failures. It does not import Ansible."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "int", "default": 300},
    "wait_sleep": {"type": "int", "default": 2},
    "stable_s": {"type": "int", "default": 0},
    "canary": {"type": "bool", "default": False},
    "while_healthy": {"type": "bool", "default": False},
    "expected_release": {"type": "str"},
    "expected_fingerprint": {"type": "str"},
    "expected_nodes": {"type": "int"},
    "expected_node_names": {"type": "list", "elements": "str"},
    "allow_degraded": {"type": "bool", "default": False},
    "allow_unexpected_nodes": {"type": "bool", "default": False},
    "executable": {"type": "path", "default": "seedcore"},
    "namespace": {"type": "str"},
    "address": {"type": "str"},
    "command_timeout": {"type": "int", "default": 30},
}
_MINIMUM = {"wait_timeout": 1, "wait_sleep": 1, "stable_s": 0, "expected_nodes": 1, "command_timeout": 1}
_NOT_EMPTY = ("expected_release", "expected_fingerprint", "executable", "namespace", "address")


def faults(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the options, one text per fault, each with the expected value."""
    found = minimum_faults(params, _MINIMUM) + empty_faults(params, _NOT_EMPTY)
    names = params.get("expected_node_names")
    if names is not None and not all(name.strip() for name in names):
        found.append("expected_node_names contains an empty name, expected names of nodes")
    if names is not None and len(set(names)) != len(names):
        found.append("expected_node_names contains a name twice, expected unique names")
    for name in ("namespace", "address"):
        if len((params.get(name) or "").split()) > 1:
            found.append(f"{name} is {params[name]!r}, expected one word")
    address = params.get("address")
    if address and not _is_host_and_port(address):
        found.append(f"address is {address!r}, expected host:port")
    if params.get("wait") and params["stable_s"] >= params["wait_timeout"] > 0:
        found.append(f"stable_s is {params['stable_s']}, expected less than wait_timeout ({params['wait_timeout']})")
    return found


def minimum_faults(params: Mapping[str, Any], minimum: Mapping[str, int]) -> list[str]:
    """Return the numbers that are too small or not finite, one text each."""
    given = {name: params[name] for name in minimum if params.get(name) is not None}
    # nan is below nothing, and above nothing.
    return [
        f"{name} is {value}, expected {minimum[name]} or more{'' if math.isfinite(value) else ', and finite'}"
        for name, value in given.items()
        if not minimum[name] <= value < math.inf
    ]


def empty_faults(params: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the texts that are empty, one text each."""
    return [
        f"{name} is empty, expected a text or no {name} at all"
        for name in names
        if params.get(name) is not None and not str(params[name]).strip()
    ]


def failure_line(report: Mapping[str, Any], *, elapsed_s: float) -> str:
    """Return one line for people with the cause."""
    message = str(report["message"])
    if report["status"] == "initializing" and not message.startswith("still initializing"):
        message = f"still initializing: {message}"
    return f"{report['reason']}: {message} (after {elapsed_s:.0f} s)"


def failure(report: Mapping[str, Any], *, elapsed_s: float) -> dict[str, Any]:
    """Return the result of a failed wait; keep that of a module that failed by itself."""
    if report.get("failed"):
        return dict(report)
    return {**report, "failed": True, "changed": False, "msg": failure_line(report, elapsed_s=elapsed_s)}


def _is_host_and_port(address: str) -> bool:
    host, _colon, port = address.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536  # noqa: PLR2004 - the last port
