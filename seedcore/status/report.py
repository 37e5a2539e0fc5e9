"""The report of a probe."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from seedcore.core.reason import ExitCode, Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of a probe.

    Attributes:
        healthy: Whether a gate may pass.
        status: ``healthy``, ``initializing`` or ``unhealthy``.
        reason: The reason; ``docs/status.md`` explains each.
        message: One line for people.
        degraded: Healthy, but incomplete.
        coordinator: The Coordinator's own status, and its actor's ``actor_id, state, pid, node_id``.
        nodes: ``{"alive": int, "expected": int, "missing": [names], "names": [names]}``.
        evidence: The facts behind a bad report: traceback, death cause, HTTP answer.
        attempts: Number of probes of a wait.
    """

    healthy: bool
    status: str
    reason: str
    message: str
    degraded: bool = False
    coordinator: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=lambda: {"alive": 0, "expected": 0, "missing": [], "names": []})
    evidence: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1

    @property
    def case(self) -> Reason:
        """Return the reason; ``UNKNOWN`` for a reason of another release."""
        return Reason.of(self.reason)

    @property
    def exit_code(self) -> ExitCode:
        """Return the exit code of a command with this report."""
        if self.healthy:
            return ExitCode.OK
        if self.status == Status.INITIALIZING:
            return ExitCode.INITIALIZING
        return self.case.exit_code or ExitCode.FAILED

    @property
    def help(self) -> str:
        """Return the section of the documentation; a reason of another release is kept as it is."""
        return "" if self.case is Reason.READY else f"docs/status.md#{self.reason}"

    @property
    def absent(self) -> bool:
        """Return whether there is no Coordinator."""
        return self.case.exit_code is ExitCode.NOT_RUNNING

    @property
    def unknown(self) -> bool:
        """Return whether the probe learned nothing about the Coordinator, so that no decision can be based on it."""
        return self.case.blind

    @property
    def terminal(self) -> bool:
        """Return whether waiting cannot help."""
        return self.case.terminal

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the Coordinator's ``release`` and ``since`` also at the top level."""
        return {
            "healthy": self.healthy,
            "status": str(self.status),
            "reason": str(self.reason),
            "message": self.message,
            "degraded": self.degraded,
            "terminal": self.terminal,
            "exit_code": int(self.exit_code),
            "remedy": self.case.remedy,
            "help": self.help,
            "attempts": self.attempts,
            "release": self.coordinator.get("release"),
            "since": self.coordinator.get("since"),
            "coordinator": self.coordinator,
            "nodes": self.nodes,
            "evidence": self.evidence,
        }


def report_of(
    reason: str,
    message: str,
    coordinator: dict[str, Any] | None = None,
    evidence: dict[str, Any] | None = None,
    *,
    status: str | None = None,
    degraded: bool = False,
) -> Report:
    """Return a report; its status is that of the reason unless it is given, and it is healthy if its status is."""
    status = Reason.of(reason).status if status is None else status
    return Report(
        healthy=status == Status.HEALTHY,
        status=status,
        reason=reason,
        message=message,
        degraded=degraded,
        coordinator=coordinator or {},
        evidence=evidence or {},
    )


def bad(report: Report, reason: str, message: str) -> Report:
    """Return the report with a bad status; its other data stay."""
    return replace(report, healthy=False, status=Status.UNHEALTHY, reason=reason, message=message)
