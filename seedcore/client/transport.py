"""Choose the transport of a client: ``ray`` in a process that has joined Ray, ``http`` in any other."""

from __future__ import annotations

import sys
from typing import Any, Literal

from seedcore.core.errors import ClusterError
from seedcore.core.reason import Reason

Transport = Literal["auto", "ray", "http"]


def choose(transport: Transport) -> Literal["ray", "http"]:
    """Return the transport to use, without importing Ray.

    Raises:
        ClusterError: ``ray`` is requested, but this process has not joined Ray.
        ValueError: There is no such transport.
    """
    if transport == "http":
        return "http"
    if transport not in {"auto", "ray"}:
        raise ValueError(f"transport is {transport!r}, expected 'auto', 'ray' or 'http'")
    # A process that has not imported Ray has not joined it.
    joined = "ray" in sys.modules and _is_member()
    if transport == "ray" and not joined:
        raise ClusterError(Reason.UNREACHABLE, "this process has not joined Ray: call ray.init() first, or use HTTP")
    return "ray" if joined else "http"


def _is_member() -> bool:
    import ray  # noqa: PLC0415 - it is imported already

    # A process behind ray:// (Ray Client) is not a member: it cannot call actors directly.
    client: Any = ray.util.client.ray
    return bool(ray.is_initialized()) and not client.is_connected()
