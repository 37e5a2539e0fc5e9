"""Provide an in-memory Coordinator with a value for every HTTP field, for docs/reference and for tests."""

from __future__ import annotations

from typing import Any

from seedcore.coordinator.activity import Activity
from seedcore.coordinator.inbox_view import NoInbox
from seedcore.core.task_counters import BUCKETS_S


def _buckets(at_most_100_ms: int, *, above: int = 0) -> list[int]:
    counts = [0] * (len(BUCKETS_S) + 1)
    counts[BUCKETS_S.index(0.1)], counts[-1] = at_most_100_ms, above
    return counts


class ExampleOperations:
    """Does nothing, and names it."""

    async def pause(self, organ_id: str, *, by: str) -> dict[str, Any]:
        """Return a paused organ."""
        return {"organ_id": organ_id, "paused": {"since": "", "by": by}, "in_flight": 0, "queued": 0}

    async def resume(self, organ_id: str) -> dict[str, Any]:
        """Return an organ that is not paused."""
        return {"organ_id": organ_id, "paused": None, "in_flight": 0, "queued": 0}

    async def replace(self, organ_id: str, index: int, *, timeout_s: float) -> dict[str, Any]:
        """Return a replaced process."""
        own = {"organ_id": organ_id, "replica": index, "from": "head", "to": "head"}
        return {**own, "pid": 1, "seconds": timeout_s}

    async def rebalance(self, *, timeout_s: float, dry_run: bool) -> dict[str, Any]:  # noqa: ARG002
        """Return that nothing was moved."""
        return {"plan": [], "moved": [], "error": ""}

    async def drain(self, node: str, *, by: str) -> dict[str, Any]:
        """Return a drained node."""
        return {"node": node, "drained": {"since": "", "by": by}, "left": []}

    async def undrain(self, node: str) -> dict[str, Any]:
        """Return a node that is not drained."""
        return {"node": node, "drained": None, "left": []}


class ExampleCoordinator:
    """A Coordinator whose answers are its attributes."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {
            "status": "healthy",
            "organism_initialized": True,
            "coordinator": "available",
            "reason": "ready",
            "message": "1 of 1 organs ready, all agents ready",
            "release": "0.1.0-abc",
            "degraded": False,
            "since": "2026-01-01T00:00:00.000+00:00",
            "organs": [],
            "placed": [],
            "init_seconds": 1.25,
            "init_attempts": 2,
            "restarts": 3,
        }
        self.organs: list[dict[str, Any]] = [
            {
                "organ_id": "utility_organ_1",
                "organ_type": "Utility",
                "agent_count": 3,
                "agent_ids": ["utility_organ_1_agent_0"],
                "status": "degraded",
                "ready": True,
                "ready_agents": 2,
                "required": True,
                "in_flight": 4,
                "queued": 5,
                "queue_limit": 20,
                "stuck": 1,
                "agents": {"ready": 2, "starting": 0, "failed": 1, "stopped": 0, "down": 0},
                "tasks": [
                    {
                        "task_type": "echo",
                        "outcome": "success",
                        "count": 9,
                        "seconds_sum": 0.25,
                        "buckets": _buckets(9),
                    },
                ],
                "replicas": [
                    {"replica": 0, "state": "ready", "restarts": 1},
                    {"replica": 1, "state": "down", "restarts": 2},
                ],
            }
        ]
        self.figures: dict[str, Any] = {
            "tasks": [
                {"task_type": "echo", "outcome": "success", "count": 7, "seconds_sum": 0.5, "buckets": _buckets(7)},
                {
                    "task_type": 'odd "name"\n\\',
                    "outcome": "TimeoutError",
                    "count": 2,
                    "seconds_sum": 120.0,
                    "buckets": _buckets(0, above=2),
                },
            ],
            "in_flight": 6,
            "init_seconds": 1.25,
            "init_attempts": 2,
            "restarts": 3,
            "reloads": 4,
            "uptime_s": 12.5,
        }
        self.disks = [{"node_name": "worker-1", "path": "/opt/seedcore/tmp", "free": 7, "size": 9}]
        self.durable = [{"task_type": "echo", "state": "parked", "count": 8}]
        self.inbox = NoInbox()
        self.operations: Any = ExampleOperations()
        self.lately = Activity(lambda: 1_795_555_924.0)

    def status(self) -> dict[str, Any]:
        """Return the body of a status response."""
        return self.said

    def organism(self) -> list[dict[str, Any]]:
        """Return one entry per organ."""
        return self.organs

    def activity(self) -> dict[str, Any]:
        """Return the activity of the last ten minutes."""
        return self.lately.to_dict()

    def metrics(self) -> dict[str, Any]:
        """Return the input of ``GET /metrics``: counters, organs, disks and durable tasks."""
        late = [{"schedule": "nightly", "seconds": 1.5}]
        figures = {"disks": self.disks, "inbox": self.durable, "inbox_oldest_s": 2.5}
        figures |= {"inbox_canary_s": 0.25, "schedules_late": late}
        return {**self.figures, "organs": self.organs, **figures}

    async def handle(self, _task: Any, /) -> dict[str, Any]:
        """Return the same successful answer for every task."""
        return {"success": True, "result": None, "organ_id": "utility_organ_1", "task_type": "echo", "duration_s": 0.01}
