"""The interface between the HTTP application and a Coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from seedcore.coordinator.inbox.inbox import Inbox
    from seedcore.coordinator.inbox_view import NoInbox
    from seedcore.coordinator.operations import Operations


class CoordinatorView(Protocol):
    """A Coordinator, as the HTTP application sees it.

    The sync methods answer from memory, within microseconds: they run on the event loop.
    """

    def status(self) -> dict[str, Any]:
        """Return the body of ``get_status``: ``status`` is ``healthy``, ``initializing`` or ``unhealthy``."""
        ...

    def organism(self) -> list[dict[str, Any]]:
        """Return one entry per organ: the result of the task ``get_organism_status``."""
        ...

    def activity(self) -> dict[str, Any]:
        """Return the last ten minutes and the last failures: see :class:`seedcore.coordinator.activity.Activity`."""
        ...

    @property
    def inbox(self) -> Inbox | NoInbox:
        """Return the interface to the durable tasks."""
        ...

    @property
    def operations(self) -> Operations:
        """Return the interface for operators."""
        ...

    async def handle(self, task: Any, /) -> dict[str, Any]:
        """Execute a task from untrusted input; never raise, and answer in the documented shape."""
        ...

    def metrics(self) -> dict[str, Any]:
        """Return the live figures.

        Shape: ``{"tasks": [{"task_type": str, "outcome": "success" | <error_type>, "count": int, "seconds_sum":
        float, "buckets": [int, ...]}], "in_flight": int, "init_seconds": float | None, "init_attempts": int,
        "restarts": int, "reloads": int, "uptime_s": float, "organs": [<entries of organism(), with agents, stuck,
        queue_limit and tasks of their own>], "disks": [<entries of Disks.to_list()>], "inbox": [<entries of
        Inbox.figures()>], "inbox_oldest_s": float | None, "inbox_canary_s": float | None,
        "schedules_late": [{"schedule": str, "seconds": float}]}``;
        ``buckets`` are those of
        :data:`seedcore.core.task_counters.BUCKETS_S`.
        """
        ...
