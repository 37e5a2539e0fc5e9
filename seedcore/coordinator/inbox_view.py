"""The inbox for durable tasks as the rest of the Coordinator sees it; without one, nothing of it is imported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from seedcore.coordinator.organ_actors import OrganRuntime
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import NoTaskError, TaskError
from seedcore.core.reason import ExitCode, Reason, Status
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec
from seedcore.core.task import Task

if TYPE_CHECKING:
    from seedcore.coordinator.inbox.inbox import Inbox

_NONE = (
    "this deployment has no inbox for durable tasks: deploy with seedcore_inbox=sqlite, or run seedcore bootstrap with "
    "SEEDCORE_INBOX=sqlite"
)


class NoInbox:
    """The inbox of a deployment that has none."""

    async def begin(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def watch(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    async def prove(self, timeout_s: float) -> dict[str, Any] | None:  # noqa: ARG002
        """Return None: there is nothing to prove."""
        return None

    async def submit(self, _raw: Mapping[str, Any], _task: Task, /) -> dict[str, Any]:
        """Refuse the task."""
        raise TaskError(_NONE)

    async def show(self, task_id: str, wait_s: float = 0.0) -> dict[str, Any] | None:  # noqa: ARG002
        """Refuse the question."""
        raise NoTaskError(_NONE)

    async def find(self, **_: Any) -> list[dict[str, Any]]:
        """Refuse the question."""
        raise NoTaskError(_NONE)

    async def decide(self, task_id: str, verb: str, *, by: str) -> dict[str, Any]:  # noqa: ARG002
        """Refuse the order."""
        raise NoTaskError(_NONE)

    async def copy(self) -> dict[str, Any]:
        """Refuse the order."""
        raise NoTaskError(_NONE)

    async def schedules(self) -> list[dict[str, Any]]:
        """Refuse the question."""
        raise NoTaskError(_NONE)

    async def put_schedule(self, raw: Any, *, by: str) -> dict[str, Any]:  # noqa: ARG002
        """Refuse the schedule."""
        raise NoTaskError(_NONE)

    async def change_schedule(self, schedule_id: str, verb: str, *, by: str) -> dict[str, Any]:  # noqa: ARG002
        """Refuse the order."""
        raise NoTaskError(_NONE)

    def look(self) -> None:
        """Do nothing."""

    def follow(self, spec: OrganismSpec) -> None:
        """Do nothing."""

    def hold(self, seconds: float) -> None:
        """Do nothing."""

    def judge(self) -> tuple[Reason, str] | None:
        """Find nothing wrong."""
        return None

    def summary(self) -> dict[str, Any] | None:
        """Return None."""
        return None

    def figures(self) -> list[dict[str, Any]]:
        """Return nothing."""
        return []

    def late_schedules(self) -> list[dict[str, Any]]:
        """Return nothing."""
        return []

    def canary_s(self) -> float | None:
        """Return None."""
        return None

    def oldest_s(self) -> float | None:
        """Return None."""
        return None


Judgement = tuple[Status, Reason, str, list[str]]


def combine(organism: Judgement, inbox: tuple[Reason, str] | None) -> Judgement:
    """Return the worse of what is wrong with the organism and with the inbox.

    A backlog and parked tasks are named, but they do not degrade: a deployment must not be refused because of them.
    """
    status, reason, message, degraded = organism
    if inbox is None or status is not Status.HEALTHY:
        return organism
    fault, text = inbox
    if fault.exit_code is ExitCode.OK:
        return status, fault if reason is Reason.READY else reason, f"{message}; {text}", degraded
    if fault.status is not Status.HEALTHY or reason is Reason.READY:
        return fault.status, fault, text, [text, *degraded]
    return status, reason, f"{message}; {text}", [*degraded, text]


def inbox_of(
    settings: Settings,
    runtime: OrganRuntime,
    organism: Callable[[], OrganismManager],
    is_settled: Callable[[], bool] = lambda: True,
) -> Inbox | NoInbox:
    """Return the inbox that the settings ask for.

    Args:
        settings: The settings of the Coordinator.
        runtime: Runs the organs.
        organism: Returns the present organism.
        is_settled: Tells whether its processes are those of this release, and not being changed.
    """
    if not settings.inbox:
        return NoInbox()
    from seedcore.coordinator.inbox.inbox import Inbox  # noqa: PLC0415 - nearly every Coordinator has none
    from seedcore.coordinator.inbox.stores import store_of  # noqa: PLC0415

    place = settings.inbox_place
    return Inbox(lambda: store_of(settings), place, runtime=runtime, organism=organism, is_settled=is_settled)
