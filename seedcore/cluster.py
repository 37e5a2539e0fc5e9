"""What Ray's head knows, asked over HTTP without joining the cluster (a join costs two seconds and a job row).

The dashboard on the head serves the State API from the GCS: after ``kill -9`` of an actor's process its row is right
within about 15 ms, long before a caller of the actor is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from seedcore.errors import ClusterError
from seedcore.rest import request
from seedcore.settings import COORDINATOR_NAME, Settings

_LIMIT = 10_000
_MAX_ASKED_AT_ONCE = 32
_LIVE_STATES = frozenset({"ALIVE", "RESTARTING", "PENDING_CREATION", "DEPENDENCIES_UNREADY"})
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_OK = 200


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Rows of the State API: ``nodes`` (all, dead ones too) and ``actors`` (of our namespace)."""

    nodes: list[dict[str, Any]]
    actors: list[dict[str, Any]]
    alive_node_ids: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        alive = frozenset(node["node_id"] for node in self.nodes if node.get("state") == "ALIVE")
        object.__setattr__(self, "alive_node_ids", alive)

    @property
    def alive_names(self) -> list[str]:
        """Names of the living nodes, sorted."""
        return sorted(str(node.get("node_name")) for node in self.nodes if node.get("state") == "ALIVE")

    def actor(self, actor_id: str | None) -> dict[str, Any] | None:
        """Return the row of one actor."""
        return next((row for row in self.actors if row.get("actor_id") == actor_id), None)

    def coordinator_rows(self) -> list[dict[str, Any]]:
        """Rows of all Coordinators there ever were; the live one, if any, comes first."""
        rows = [row for row in self.actors if row.get("name") == COORDINATOR_NAME]
        return sorted(rows, key=lambda row: row.get("state") not in _LIVE_STATES)


def read_cluster(settings: Settings, *, token: str | None, timeout_s: float) -> ClusterState:
    """Read nodes and actors; ``timeout_s`` bounds each of the two requests.

    Raises:
        ClusterError: ``unreachable`` or ``unauthorized``.
    """
    nodes = _rows(settings, f"/api/v0/nodes?detail=1&limit={_LIMIT}", token=token, timeout_s=timeout_s)
    namespace = quote(settings.namespace, safe="")
    query = f"detail=1&filter_keys=ray_namespace&filter_predicates=%3D&filter_values={namespace}&limit={_LIMIT}"
    actors = _rows(settings, f"/api/v0/actors?{query}", token=token, timeout_s=timeout_s)
    return ClusterState(nodes, actors)


def newest_actor(
    settings: Settings, rows: list[dict[str, Any]], *, token: str | None, timeout_s: float
) -> dict[str, Any]:
    """Return the row of the actor that started last; only Ray's older endpoint tells start times.

    Raises:
        ClusterError: ``unreachable`` or ``unauthorized``.
    """
    if len(rows) == 1:
        return rows[0]
    document = _get(settings, "/logical/actors", token=token, timeout_s=timeout_s)
    actors = document.get("data", {}).get("actors", {}) if isinstance(document, dict) else {}

    def started(row: dict[str, Any]) -> int:
        return int(actors.get(row["actor_id"], {}).get("startTime") or 0)

    return max(rows, key=started)


def unwell_nodes(settings: Settings, *, token: str | None, timeout_s: float) -> list[str]:
    """Ask the agent of every living node, and say which do not answer, one text a node.

    A host that has lost its power or its network counts as alive for up to a minute more: nobody has told Ray.

    Raises:
        ClusterError: ``unreachable`` or ``unauthorized``.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only a gate comes here, every command starts

    summary = _living(settings, token=token, timeout_s=timeout_s)
    nodes = [entry["raylet"] for entry in summary]
    if not nodes:
        return []

    def ask(node: dict[str, Any]) -> str:
        host = str(node.get("nodeManagerAddress"))
        address = f"{f'[{host}]' if ':' in host else host}:{node.get('dashboardAgentListenPort')}"
        try:
            response = request(f"http://{address}/api/healthz", timeout_s=timeout_s)
        except OSError as error:
            detail = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
            return f"{node.get('nodeName')} does not answer at {address}: {detail}"
        return "" if response.status == _OK else f"{node.get('nodeName')} answers HTTP {response.status} at {address}"

    with ThreadPoolExecutor(min(_MAX_ASKED_AT_ONCE, len(nodes))) as pool:
        return sorted(filter(None, pool.map(ask, nodes)))


def read_disks(settings: Settings, *, token: str | None, timeout_s: float) -> list[dict[str, Any]]:
    """Return the disks of ``/`` and of Ray's directory of each living node: ``node_name, path, free, size`` (bytes).

    What the head was told last, some seconds ago; ``size`` is what may be used: without what is kept for root.

    Raises:
        ClusterError: ``unreachable`` or ``unauthorized``.
    """
    return [
        {
            "node_name": str(entry["raylet"].get("nodeName")),
            "path": path,
            "free": int(disk["free"]),
            "size": int(disk["free"]) + int(disk["used"]),
        }
        for entry in _living(settings, token=token, timeout_s=timeout_s)
        # None has been sent by an agent that has just started.
        for path, disk in sorted((entry.get("disk") or {}).items())
    ]


def _living(settings: Settings, *, token: str | None, timeout_s: float) -> list[dict[str, Any]]:
    """Return what the head knows of each living node."""
    document = _get(settings, "/nodes?view=summary", token=token, timeout_s=timeout_s)
    summary = document.get("data", {}).get("summary", []) if isinstance(document, dict) else []
    return [entry for entry in summary if entry.get("raylet", {}).get("state") == "ALIVE"]


def _rows(settings: Settings, path: str, *, token: str | None, timeout_s: float) -> list[dict[str, Any]]:
    document = _get(settings, path, token=token, timeout_s=timeout_s)
    try:
        rows = document["data"]["result"]["result"]
    except (TypeError, KeyError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ClusterError("unreachable", f"{settings.dashboard_url} answers, but not as Ray's dashboard")
    return rows


def _get(settings: Settings, path: str, *, token: str | None, timeout_s: float) -> Any:
    url = settings.dashboard_url
    try:
        response = request(url + path, token=token, timeout_s=timeout_s)
    except OSError as error:
        detail = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        raise ClusterError("unreachable", f"Ray's head at {url} cannot be asked: {detail}") from error
    if response.status in {_UNAUTHORIZED, _FORBIDDEN}:
        what = "wants a token" if response.status == _UNAUTHORIZED else "refuses this token"
        raise ClusterError("unauthorized", f"Ray's head at {url} {what} (HTTP {response.status})")
    if response.status != _OK:
        message = response.body.get("msg") if isinstance(response.body, dict) else None
        detail = f": {str(message).splitlines()[0]}" if message else ""
        raise ClusterError("unreachable", f"Ray's head at {url} answers HTTP {response.status}{detail}")
    return response.body
