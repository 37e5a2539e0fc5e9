"""The exceptions that SeedCore raises.

::

    SeedCoreError
    |-- ConfigError            organism.yaml or a setting is wrong; carries every fault
    |-- TaskError              a task is not of the documented shape
    |   |-- UnknownTaskTypeError    no organ takes it
    |   `-- PayloadTooLargeError
    |-- OverloadedError        a bound is reached; try again later
    |-- OrganUnavailableError  the organ that would do the work is not there
    |-- AgentStartError        an agent did not start
    |-- InitializationError    the organism did not come up
    |-- ClusterError           the cluster cannot be asked: unreachable or unauthorized
    `-- DeadlineError          a wait ended at its deadline

They cross process boundaries, so each hands all of its arguments to ``super().__init__``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Executed = Literal["no", "yes", "unknown"]
"""Whether anything of a task that did not succeed was done; only after a ``no`` it can be sent again without care."""


class SeedCoreError(Exception):
    """Base of everything that SeedCore raises on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file, and where.

    ``line`` and ``column`` count from 1; both are 0 where the fault has no place (a missing file).
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
    """A configuration is wrong; ``faults`` lists everything that is, in order of place."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(str(fault) for fault in self.faults)


class TaskError(SeedCoreError):
    """A task is not of the documented shape."""


class UnknownTaskTypeError(TaskError):
    """No organ takes tasks of this type."""


class PayloadTooLargeError(TaskError):
    """The task carries more than the organism accepts."""


class OverloadedError(SeedCoreError):
    """A bound (queue, tasks in flight) is reached; nothing was started. ``retry_after_s`` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OrganUnavailableError(SeedCoreError):
    """The organ that would do the work is not there, or its process died with the task.

    ``executed`` is ``no`` in the first case, ``unknown`` in the second; ``retry_after_s`` is None if nobody is about to
    bring it back.
    """

    def __init__(self, message: str, executed: Executed = "no", retry_after_s: float | None = None) -> None:
        super().__init__(message, executed, retry_after_s)
        self.message = message
        self.executed = executed
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class AgentStartError(SeedCoreError):
    """An agent did not start; ``traceback_text`` is the whole story, as text."""

    def __init__(self, message: str, traceback_text: str = "") -> None:
        super().__init__(message, traceback_text)
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return self.message


class InitializationError(SeedCoreError):
    """The organism did not come up."""


class ClusterError(SeedCoreError):
    """The Coordinator cannot be asked, or cannot do it.

    ``reason`` is the word of a :class:`~seedcore.core.reason.Reason`, as text, which any release can read.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(str(reason), message)
        self.reason = str(reason)
        self.message = message

    def __str__(self) -> str:
        return self.message


class DeadlineError(SeedCoreError):
    """A wait ended at its deadline."""
