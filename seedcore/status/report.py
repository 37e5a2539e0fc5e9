"""The answer of a probe, and what each of its reasons means for whoever waits or decides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from seedcore.core.reason import ExitCode, Reason, Status

HEALTHY, INITIALIZING, UNHEALTHY = Status.HEALTHY, Status.INITIALIZING, Status.UNHEALTHY


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The answer of a probe.

    Attributes:
        healthy: Whether a gate may pass.
        status: ``healthy``, ``initializing`` or ``unhealthy``.
        reason: Which case of the truth table (``docs/status.md``).
        message: For a person, one line.
        degraded: Healthy, but not everything is there.
        coordinator: What the Coordinator says of itself, and its actor's ``actor_id, state, pid, node_id``.
        nodes: ``{"alive": int, "expected": int, "missing": [names], "names": [names]}``.
        evidence: What the judgement rests on where it is bad: traceback, death cause, HTTP answer.
        attempts: How many probes a wait has taken.
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
        """The reason; ``UNKNOWN`` for one of another release."""
        return Reason.of(self.reason)

    @property
    def exit_code(self) -> ExitCode:
        """How a command ends that asked for it."""
        if self.healthy:
            return ExitCode.OK
        if self.status == INITIALIZING:
            return ExitCode.INITIALIZING
        return self.case.exit_code or ExitCode.FAILED

    @property
    def help(self) -> str:
        """Where the documentation explains it; a word of another release stays as it is."""
        return "" if self.case is Reason.READY else f"docs/status.md#{self.reason}"

    @property
    def absent(self) -> bool:
        """Whether there is no Coordinator."""
        return self.case.exit_code is ExitCode.NOT_RUNNING

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of the Coordinator, so that there is nothing to decide on."""
        return self.case.blind

    @property
    def terminal(self) -> bool:
        """Whether waiting cannot mend it."""
        return self.case.terminal

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``release`` and ``since`` of the Coordinator stand at the top as well."""
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
    status: str,
    reason: str,
    message: str,
    coordinator: dict[str, Any] | None = None,
    evidence: dict[str, Any] | None = None,
    *,
    degraded: bool = False,
) -> Report:
    """Make a report; healthy if its status is."""
    return Report(
        healthy=status == HEALTHY,
        status=status,
        reason=reason,
        message=message,
        degraded=degraded,
        coordinator=coordinator or {},
        evidence=evidence or {},
    )


def bad(report: Report, reason: str, message: str) -> Report:
    """Turn a report bad; what it knows stays."""
    return replace(report, healthy=False, status=UNHEALTHY, reason=reason, message=message)
