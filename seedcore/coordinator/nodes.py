"""The cluster's nodes as the Coordinator knows them, to show names instead of ids."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

MAX_GONE = 20


class NodeList:
    """The living nodes, and those that were lost since the Coordinator's process started.

    Ray remembers dead nodes of any age; nodes that were never seen alive here are left out.
    """

    def __init__(self) -> None:
        self._alive: dict[str, dict[str, Any]] = {}
        self._gone: dict[str, dict[str, Any]] = {}
        self._asked_at: float | None = None

    def update(self, nodes: Iterable[Mapping[str, Any]]) -> None:
        """Update the list from Ray's entries with ``node_id, node_name, alive, draining, head``."""
        now = time.monotonic()
        alive = {str(node["node_id"]): dict(node) for node in nodes if node["alive"]}
        names = {node["node_name"] for node in alive.values()}
        for node_id, node in self._alive.items():
            if node_id not in alive:
                gone_at = datetime.now(UTC).isoformat(timespec="seconds")
                self._gone[node_id] = {**node, "alive": False, "gone_since": gone_at}
        # A host that has come back has a new id and its old name.
        kept = [(node_id, node) for node_id, node in self._gone.items() if node["node_name"] not in names]
        self._gone = dict(kept[-MAX_GONE:])
        self._alive, self._asked_at = alive, now

    def name(self, node_id: str | None) -> str | None:
        """Return the name of a living node, or its id as long as the name is unknown."""
        return str(self._alive[node_id]["node_name"]) if node_id in self._alive else node_id

    @property
    def draining(self) -> frozenset[str]:
        """Return the ids of draining nodes: Ray places nothing there any more."""
        return frozenset(node_id for node_id, node in self._alive.items() if node.get("draining"))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: ``alive``, ``names`` and ``gone``, ``list`` with one entry per node, and its ``age_s``."""
        living = sorted(self._alive.values(), key=lambda node: (not node["head"], str(node["node_name"])))
        return {
            "alive": len(living),
            "names": [node["node_name"] for node in living],
            "gone": sorted({str(node["node_name"]) for node in self._gone.values()}),
            "list": [*living, *self._gone.values()],
            "age_s": None if self._asked_at is None else round(time.monotonic() - self._asked_at, 1),
        }
