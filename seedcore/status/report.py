"""The answer of a probe, and what each of its reasons means for whoever waits or decides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

HEALTHY, INITIALIZING, UNHEALTHY = "healthy", "initializing", "unhealthy"
_ABSENT = frozenset({"absent", "not_installed"})
_UNKNOWN = frozenset({"unreachable", "unauthorized"})
# Waiting does not mend these. `absent` and `unreachable` may pass while something starts or restarts.
_TERMINAL = frozenset({"init_failed", "unauthorized", "not_installed", "wrong_release", "wrong_configuration"})


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
    def exit_code(self) -> int:
        """0 healthy, 1 unhealthy or degraded, 3 not running, 4 unknown, 5 initializing."""
        if self.healthy:
            return 0
        if self.status == INITIALIZING:
            return 5
        if self.reason in _ABSENT:
            return 3
        return 4 if self.reason in _UNKNOWN else 1

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of the Coordinator, so that there is nothing to decide on."""
        return self.reason in _UNKNOWN or self.reason == "state_damaged"

    @property
    def terminal(self) -> bool:
        """Whether waiting cannot mend it."""
        return self.reason in _TERMINAL

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``release`` and ``since`` of the Coordinator stand at the top as well."""
        return {
            "healthy": self.healthy,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "degraded": self.degraded,
            "terminal": self.terminal,
            "exit_code": self.exit_code,
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
