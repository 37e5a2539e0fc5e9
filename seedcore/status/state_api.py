"""Read the state that Ray's head records, over HTTP without joining (a join costs two seconds and a job row).

The dashboard on the head serves the State API from the GCS: after ``kill -9`` of an actor's process its row is right
within about 15 ms, long before a caller of the actor gets an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from seedcore.core.errors import ClusterError
from seedcore.core.reason import Reason
from seedcore.core.settings import COORDINATOR_NAME, Settings
from seedcore.status.http_client import check_refusal, request, why

_LIMIT = 10_000
_MAX_ASKED_AT_ONCE = 32
_LIVE_STATES = frozenset({"ALIVE", "RESTARTING", "PENDING_CREATION", "DEPENDENCIES_UNREADY"})
_OK = 200


@dataclass(frozen=True, slots=True)
class ClusterState:
    """Rows of the State API.

    Attributes:
        nodes: All nodes, including dead ones.
        actors: The actors of our namespace that are not dead, and every dead Coordinator.
        complete: Whether all rows are included; Ray cuts a list of more than 10,000 actors of the whole cluster.
    """

    nodes: list[dict[str, Any]]
    actors: list[dict[str, Any]]
    complete: bool = True
    alive_node_ids: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        alive = frozenset(node["node_id"] for node in self.nodes if node.get("state") == "ALIVE")
        object.__setattr__(self, "alive_node_ids", alive)

    @property
    def alive_names(self) -> list[str]:
        """Return the names of the living nodes, sorted."""
        return sorted(str(node.get("node_name")) for node in self.nodes if node.get("state") == "ALIVE")

    def actor(self, actor_id: str | None) -> dict[str, Any] | None:
        """Return the row of one actor."""
        return next((row for row in self.actors if row.get("actor_id") == actor_id), None)

    def coordinator_rows(self) -> list[dict[str, Any]]:
        """Return the rows of all Coordinators, dead ones included; a living one comes first."""
        rows = [row for row in self.actors if row.get("name") == COORDINATOR_NAME]
        return sorted(rows, key=lambda row: row.get("state") not in _LIVE_STATES)


def read_cluster(settings: Settings, *, token: str | None, timeout_s: float) -> ClusterState:
    """Read nodes and actors; ``timeout_s`` limits each of the two or three requests.

    Dead actors are read only if no Coordinator is alive, and then by its name: a crash loop leaves thousands.

    Raises:
        ClusterError: ``unreachable`` or ``unauthorized``; also if the Coordinator may be among the rows cut off.
    """
    nodes, _ = _rows(settings, f"/api/v0/nodes?detail=1&limit={_LIMIT}", token=token, timeout_s=timeout_s)
    ours = ("ray_namespace", "=", settings.namespace)
    actors, complete = _actors(settings, [ours, ("state", "!=", "DEAD")], token=token, timeout_s=timeout_s)
    actors = [row for row in actors if row.get("state") != "DEAD"]
    if all(row.get("name") != COORDINATOR_NAME for row in actors):
        dead, all_dead = _actors(settings, [ours, ("name", "=", COORDINATOR_NAME)], token=token, timeout_s=timeout_s)
        # The second answer contains a Coordinator that has started in between.
        actors, complete = [*actors, *dead], complete and all_dead
        if not complete and all(row.get("state") == "DEAD" for row in dead):
            raise ClusterError(
                Reason.UNREACHABLE, f"Ray's head at {settings.dashboard_url} lists only a part of the cluster's actors"
            )
    return ClusterState(nodes, actors, complete)


def newest_actor(
    settings: Settings, rows: list[dict[str, Any]], *, token: str | None, timeout_s: float
) -> dict[str, Any]:
    """Return the row of the actor that started or ended last; only Ray's older endpoint has times.

    An actor that never started, for lack of a runtime environment or resources, has only an end time.

    Raises:
        ClusterError: ``unreachable`` or ``unauthorized``.
    """
    if len(rows) == 1:
        return rows[0]
    document = _get(settings, "/logical/actors", token=token, timeout_s=timeout_s)
    actors = document.get("data", {}).get("actors", {}) if isinstance(document, dict) else {}

    def last_seen(row: dict[str, Any]) -> int:
        own = actors.get(row["actor_id"], {})
        return max(int(own.get("startTime") or 0), int(own.get("endTime") or 0))

    return max(rows, key=last_seen)


def unwell_nodes(settings: Settings, *, token: str | None, timeout_s: float) -> list[str]:
    """Ask the agent of every living node, and return one text for each that does not answer.

    Ray reports a host that has lost its power or its network as alive for up to a minute more.

    Raises:
        ClusterError: ``unreachable`` or ``unauthorized``.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only a gate comes here, every command starts

    rows, _ = _rows(settings, f"/api/v0/nodes?detail=1&limit={_LIMIT}", token=token, timeout_s=timeout_s)
    alive = [row for row in rows if row.get("state") == "ALIVE"]
    if not alive:
        return ["no node is alive"]
    # The dashboard fills this list from its own cache, which lacks a node that has just joined.
    known = {
        entry["raylet"].get("nodeId"): entry["raylet"] for entry in _living(settings, token=token, timeout_s=timeout_s)
    }

    def ask(row: dict[str, Any]) -> str:
        node = known.get(row["node_id"])
        if node is None:
            return f"{row.get('node_name')} has joined, but the dashboard does not list its agent yet"
        host = str(node.get("nodeManagerAddress"))
        address = f"{f'[{host}]' if ':' in host else host}:{node.get('dashboardAgentListenPort')}"
        try:
            response = request(f"http://{address}/api/healthz", timeout_s=timeout_s)
        except OSError as error:
            return f"{node.get('nodeName')} does not answer at {address}: {why(error)}"
        return "" if response.status == _OK else f"{node.get('nodeName')} answers HTTP {response.status} at {address}"

    with ThreadPoolExecutor(min(_MAX_ASKED_AT_ONCE, len(alive))) as pool:
        return sorted(filter(None, pool.map(ask, alive)))


def read_disks(settings: Settings, *, token: str | None, timeout_s: float) -> list[dict[str, Any]]:
    """Return the disks of ``/`` and of Ray's directory of each living node: ``node_name, path, free, size`` (bytes).

    The data are those that the head got last, some seconds ago; ``size`` is without the reserve for root.

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
        # An agent that has just started has not sent any.
        for path, disk in sorted((entry.get("disk") or {}).items())
    ]


def _living(settings: Settings, *, token: str | None, timeout_s: float) -> list[dict[str, Any]]:
    """Return the head's data of each living node."""
    document = _get(settings, "/nodes?view=summary", token=token, timeout_s=timeout_s)
    summary = document.get("data", {}).get("summary", []) if isinstance(document, dict) else []
    return [entry for entry in summary if entry.get("raylet", {}).get("state") == "ALIVE"]


def _actors(
    settings: Settings, filters: Sequence[tuple[str, str, str]], *, token: str | None, timeout_s: float
) -> tuple[list[dict[str, Any]], bool]:
    query = [("detail", "1"), ("limit", str(_LIMIT))]
    for key, predicate, value in filters:
        query += [("filter_keys", key), ("filter_predicates", predicate), ("filter_values", value)]
    return _rows(settings, f"/api/v0/actors?{urlencode(query)}", token=token, timeout_s=timeout_s)


def _rows(settings: Settings, path: str, *, token: str | None, timeout_s: float) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of one list of the State API, and whether the list is complete."""
    document = _get(settings, path, token=token, timeout_s=timeout_s)
    try:
        result = document["data"]["result"]
        rows = result["result"]
    except (TypeError, KeyError):
        result = rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ClusterError(Reason.UNREACHABLE, f"{settings.dashboard_url} answers, but not as Ray's dashboard")
    # Ray cuts the source, filters the rest, and cuts the result again.
    seen, total = result.get("num_after_truncation"), result.get("total")
    whole = seen is None or total is None or int(total) <= int(seen)
    return rows, whole and int(result.get("num_filtered") or 0) <= len(rows) and not result.get(
        "partial_failure_warning"
    )


def _get(settings: Settings, path: str, *, token: str | None, timeout_s: float) -> Any:
    url = settings.dashboard_url
    try:
        response = request(url + path, token=token, timeout_s=timeout_s)
    except OSError as error:
        raise ClusterError(Reason.UNREACHABLE, f"Ray's head at {url} does not answer: {why(error)}") from error
    check_refusal(f"Ray's head at {url}", response.status)
    if response.status != _OK:
        message = response.body.get("msg") if isinstance(response.body, dict) else None
        detail = f": {str(message).splitlines()[0]}" if message else ""
        raise ClusterError(Reason.UNREACHABLE, f"Ray's head at {url} answers HTTP {response.status}{detail}")
    return response.body
