"""Choose the transport of a client: ``ray`` in a process that has joined Ray, ``http`` in any other."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Literal

from seedcore.client.retry import DEFAULT_TIMEOUT_S
from seedcore.core.errors import ClusterError, DeadlineError
from seedcore.core.reason import Reason, Status
from seedcore.core.settings import Settings
from seedcore.status.http_client import coordinator_status
from seedcore.status.probing import why_silent

if TYPE_CHECKING:
    from seedcore.client.ray_transport import Direct
    from seedcore.client.routing_cache import Routes

Transport = Literal["auto", "ray", "http"]
_PAUSE_S = 0.1


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


class Connected:
    """The part that both clients have: their limits, and where the Coordinator and the organs are."""

    def __init__(
        self, settings: Settings | None, transport: Transport, timeout_s: float | None, max_in_flight: int
    ) -> None:
        self._settings = settings or Settings.from_env()
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._routes: Routes | None = None
        self._direct: Direct | None = None
        self.transport = choose(transport)
        if self.transport == "ray":
            from seedcore.client.ray_transport import Direct  # noqa: PLC0415 - it imports Ray
            from seedcore.client.routing_cache import Routes  # noqa: PLC0415 - the same

            self._routes = Routes(self._settings.namespace)
            self._direct = Direct(self._routes)

    def _ask_status(self, timeout_s: float | None) -> dict[str, Any]:
        limit_s = self._limit(timeout_s)
        if self._direct is not None:
            return dict(self._direct.ask("get_status", limit_s))
        try:
            return coordinator_status(self._settings, timeout_s=limit_s)
        except OSError as error:
            raise why_silent(self._settings, error) from error

    def _ask_ping(self, timeout_s: float | None) -> str:
        limit_s = self._limit(timeout_s)
        if self._direct is not None:
            return str(self._direct.ask("ping", limit_s))
        # Over Ray the answer comes when the Coordinator has started.
        deadline = time.monotonic() + limit_s
        while self._ask_status(max(0.001, deadline - time.monotonic()))["status"] == Status.INITIALIZING:
            if time.monotonic() + _PAUSE_S > deadline:
                raise DeadlineError(f"the Coordinator is still initializing after {limit_s:g} s")
            time.sleep(_PAUSE_S)
        return "pong"

    def _limit(self, timeout_s: float | None) -> float:
        return next(limit for limit in (timeout_s, self._timeout_s, DEFAULT_TIMEOUT_S) if limit is not None)


def _is_member() -> bool:
    import ray  # noqa: PLC0415 - it is imported already

    # A process behind ray:// (Ray Client) is not a member: it cannot call actors directly.
    client: Any = ray.util.client.ray
    return bool(ray.is_initialized()) and not client.is_connected()
