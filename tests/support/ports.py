"""Allocate ports to tests so that no two test sessions or xdist workers of one machine get the same ones.

The ports lie below the ephemeral range, so no outgoing connection takes one between the choice and the bind. A record
lock on the port's byte of one file claims it; the kernel releases the locks when their process ends in any way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket

# Above the default worker ports of Ray and of a deployment.
FIRST, LAST = 20_000, 32_700
# Single ports have a separate range, so that they do not fragment the space of the long ranges.
_RANGES_FROM = 22_500
_TRIES = 1000
_OF_A_DEPLOYMENT = (
    "ray_gcs_port",
    "ray_node_manager_port",
    "ray_object_manager_port",
    "ray_dashboard_agent_grpc_port",
    "ray_runtime_env_agent_port",
    "ray_dashboard_agent_listen_port",
    "ray_metrics_export_port",
    "ray_autoscaler_metric_port",
    "ray_dashboard_metric_port",
    "ray_client_server_port",
    "ray_dashboard_port",
    "seedcore_http_port",
)
# The claims of all sessions of this user.
CLAIMS = f"/tmp/seedcore-test-ports-{os.getuid()}"
_claimed: set[int] = set()
_descriptor: int | None = None


def free_ports(count: int) -> list[int]:
    """Claim ``count`` single ports that are free now on all interfaces."""
    return [_find(1, FIRST, _RANGES_FROM) for _ in range(count)]


def deployment_ports() -> dict[str, int]:
    """Claim a port for each variable of a deployment that names one."""
    return dict(zip(_OF_A_DEPLOYMENT, free_ports(len(_OF_A_DEPLOYMENT)), strict=True))


def free_range(count: int) -> tuple[int, int]:
    """Claim ``count`` consecutive ports that are free now on all interfaces; return the first and the last."""
    start = _find(count, _RANGES_FROM, LAST)
    return start, start + count - 1


def _find(count: int, first: int, end: int) -> int:
    for _ in range(_TRIES):
        start = first + secrets.randbelow(end - first - count + 1)
        if _claim(start, count):
            return start
    raise AssertionError(f"no {count} consecutive free ports between {first} and {end}")


def _claim(start: int, count: int) -> bool:
    ports = range(start, start + count)
    # Record locks of the same process do not conflict.
    if not _claimed.isdisjoint(ports):
        return False
    try:
        fcntl.lockf(_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, count, start)
    except OSError:
        return False
    if not all(_is_free(port) for port in ports):
        fcntl.lockf(_file(), fcntl.LOCK_UN, count, start)
        return False
    _claimed.update(ports)
    return True


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket()) as tried:
        try:
            tried.bind(("", port))
        except OSError:
            return False
        return True


def _file() -> int:
    # Never close the file: closing any of its descriptors releases all locks of the process.
    global _descriptor  # noqa: PLW0603
    if _descriptor is None:
        _descriptor = os.open(CLAIMS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return _descriptor
