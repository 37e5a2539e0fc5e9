"""The inbox for durable tasks as the rest of the Coordinator sees it; without one, nothing of it is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from seedcore.coordinator.organ_actors import OrganRuntime
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import NoTaskError, TaskError
from seedcore.core.reason import Reason, Status
from seedcore.core.settings import Settings
from seedcore.core.task import Task

_NONE = (
    "this deployment has no inbox for durable tasks: deploy with seedcore_inbox=sqlite, or run seedcore bootstrap with "
    "SEEDCORE_INBOX=sqlite"
)


class InboxView(Protocol):
    """An inbox. Ids are text; a document is the plain data that HTTP clients get."""

    async def begin(self) -> None:
        """Open it, and ask the organs what became of the tasks that an earlier Coordinator has given to them."""

    async def close(self) -> None:
        """Close it in good order."""

    async def submit(self, raw: Mapping[str, Any], task: Task, /) -> dict[str, Any]:
        """Accept a durable task; return its acceptance, or its answer if it ends while the caller waits."""

    async def show(self, task_id: str, wait_s: float = 0.0) -> dict[str, Any] | None:
        """Return a task with its content, answer and story, once it has ended or after ``wait_s``; None for none."""

    async def find(
        self, *, states: Sequence[str] = (), kind: str | None = None, since_s: float | None = None, limit: int = 100
    ) -> list[dict[str, Any]]:
        """Return the newest tasks, without their content."""

    async def decide(self, task_id: str, verb: str, *, by: str) -> dict[str, Any]:
        """Retry, settle as done, discard or cancel a task; return it in short."""

    def look(self) -> None:
        """Notice that an organ may have got room."""

    def hold(self, seconds: float) -> None:
        """Accept and begin nothing for a time, because the Coordinator is about to be replaced."""

    def judge(self) -> tuple[Reason, str] | None:
        """Return what is wrong with it, if anything is."""

    def summary(self) -> dict[str, Any] | None:
        """Return its part of the status; None without an inbox."""

    def figures(self) -> list[dict[str, Any]]:
        """Return the number of tasks: ``{"task_type", "state", "count"}``."""


class NoInbox:
    """The inbox of a deployment that has none."""

    async def begin(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

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

    def look(self) -> None:
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


Judgement = tuple[Status, Reason, str, list[str]]


def combine(organism: Judgement, inbox: tuple[Reason, str] | None) -> Judgement:
    """Return the worse of what is wrong with the organism and with the inbox."""
    status, reason, message, degraded = organism
    if inbox is None or status is not Status.HEALTHY:
        return organism
    fault, text = inbox
    if fault.status is not Status.HEALTHY or reason is Reason.READY:
        return fault.status, fault, text, [text, *degraded]
    return status, reason, f"{message}; {text}", [*degraded, text]


def inbox_of(settings: Settings, runtime: OrganRuntime, organism: Callable[[], OrganismManager]) -> InboxView:
    """Return the inbox that the settings ask for.

    Args:
        settings: The settings of the Coordinator.
        runtime: Runs the organs.
        organism: Returns the present organism.
    """
    if not settings.inbox:
        return NoInbox()
    from seedcore.coordinator.inbox.inbox import Inbox  # noqa: PLC0415 - it imports sqlite3

    return Inbox(settings.state_dir / "inbox", settings.namespace, runtime=runtime, organism=organism)
