"""The exceptions that SeedCore raises.

::

    SeedCoreError
    |-- ConfigError            organism.yaml or a setting is wrong; carries every fault
    |-- TaskError              a task does not have the documented shape
    |   |-- UnknownTaskTypeError    no organ accepts it
    |   |-- PayloadTooLargeError
    |   |-- KeyConflictError        its idempotency key belongs to another task
    |   |-- NoTaskError             there is no such durable task
    |   `-- WrongStateError         the state of a durable task does not allow an order
    |-- UnknownNameError       no organ, process or node has this name
    |-- OverloadedError        a limit is reached; retry later
    |-- OrganUnavailableError  the organ for the task is not available
    |   `-- InboxUnavailableError   the inbox for durable tasks is not available
    |-- AgentStartError        an agent did not start
    |-- InitializationError    the organism did not start
    |-- ClusterError           the Coordinator cannot be reached or cannot answer; see ``reason``
    `-- DeadlineError          a wait ended at its deadline

They are pickled between processes, so each passes all of its arguments to ``super().__init__``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Executed = Literal["no", "yes", "unknown"]
"""Whether the code of a failed task ran; it is safe to send the task again only after ``no``."""


class SeedCoreError(Exception):
    """Base class of all errors that SeedCore raises."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One error in a file, with its place.

    ``line`` and ``column`` count from 1; both are 0 if the error has no place (a missing file).
    """

    source: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        if not self.line:
            return f"{self.source}: {self.message}"
        return f"{self.source}:{self.line}:{self.column}: {self.message}"


class ConfigError(SeedCoreError):
    """A configuration is wrong; ``faults`` lists every error, in order of place."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class TaskError(SeedCoreError):
    """A task does not have the documented shape."""


class UnknownTaskTypeError(TaskError):
    """No organ accepts tasks of this type."""


class PayloadTooLargeError(TaskError):
    """The task is larger than the organism accepts."""


class KeyConflictError(TaskError):
    """The idempotency key belongs to a durable task with another type, domain or params."""


class NoTaskError(TaskError):
    """There is no such durable task."""


class WrongStateError(TaskError):
    """The state of a durable task does not allow an order."""


class UnknownNameError(SeedCoreError):
    """No organ, process or node has this name; the message has those that exist."""


class OverloadedError(SeedCoreError):
    """A limit (queue, tasks in flight) is reached; nothing was started. Retry after ``retry_after_s`` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OrganUnavailableError(SeedCoreError):
    """The organ for the task is not available, or its process died with the task.

    ``executed`` is ``no`` in the first case, ``unknown`` in the second; ``retry_after_s`` is None if the organ is not
    about to come back.
    """

    def __init__(self, message: str, executed: Executed = "no", retry_after_s: float | None = None) -> None:
        super().__init__(message, executed, retry_after_s)
        self.message = message
        self.executed = executed
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class InboxUnavailableError(OrganUnavailableError):
    """The inbox for durable tasks is not available. After ``executed: unknown``, send the task again with its key."""


class AgentStartError(SeedCoreError):
    """An agent did not start; ``traceback_text`` is the full traceback."""

    def __init__(self, message: str, traceback_text: str = "") -> None:
        super().__init__(message, traceback_text)
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return self.message


class InitializationError(SeedCoreError):
    """The organism did not start."""


class ClusterError(SeedCoreError):
    """The Coordinator cannot be reached, or cannot answer.

    ``reason`` is the value of a :class:`~seedcore.core.reason.Reason`, as text that any release can read.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(str(reason), message)
        self.reason = str(reason)
        self.message = message

    def __str__(self) -> str:
        return self.message


class DeadlineError(SeedCoreError):
    """A wait ended at its deadline."""
