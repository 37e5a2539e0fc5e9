"""Every reason of a status, once: what the status is then, how a command ends, whether waiting helps, and what does."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Self


class Status(StrEnum):
    """The three words of a status."""

    HEALTHY = "healthy"
    INITIALIZING = "initializing"
    UNHEALTHY = "unhealthy"


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNKNOWN = 4
    INITIALIZING = 5


class Reason(StrEnum):
    """Which case of a status this is; ``docs/status.md`` has a section on each.

    Attributes:
        status: The status that has this reason.
        exit_code: How ``seedcore status`` and ``bootstrap`` end with it.
        remedy: What to do about it, in one sentence; empty where there is nothing to do.
        terminal: Whether waiting cannot mend it. ``absent`` and ``unreachable`` may pass while something starts.
        blind: Whether nothing is known of the Coordinator itself, so that there is nothing to decide on.
    """

    status: Status
    exit_code: ExitCode
    remedy: str
    terminal: bool
    blind: bool

    def __new__(cls, value: str, status: Status, exit_code: ExitCode, remedy: str, *flags: str) -> Self:
        """Make a member; the flags are ``terminal`` and ``blind``."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.status, member.exit_code, member.remedy = status, exit_code, remedy
        member.terminal, member.blind = "terminal" in flags, "blind" in flags
        return member

    READY = "ready", Status.HEALTHY, ExitCode.OK, ""
    # As bad as FAILED unless somebody allows it, which --allow-degraded does.
    DEGRADED = (
        "degraded", Status.HEALTHY, ExitCode.FAILED,
        "Read which organs or agents are missing, or allow it: --allow-degraded, seedcore_gate_allow_degraded.",
    )  # fmt: skip
    STARTING = (
        "starting", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Wait: seedcore status --wait.",
    )  # fmt: skip
    RESTARTING = (
        "restarting", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Wait; if it comes again and again, look why the process dies, often for lack of memory.",
    )  # fmt: skip
    RELOADING = (
        "reloading", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Wait: it ends by itself, with the new organism or the one before.",
    )  # fmt: skip
    UNSCHEDULABLE = (
        "unschedulable", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Add a node with what the message names, or let the organ ask for less.",
    )  # fmt: skip
    INIT_FAILED = (
        "init_failed", Status.UNHEALTHY, ExitCode.FAILED,
        "Mend the agent that the message names, and deploy again.", "terminal",
    )  # fmt: skip
    NOT_RESPONDING = (
        "not_responding", Status.UNHEALTHY, ExitCode.FAILED,
        "Give the supervisor half a minute; state/seedcore/supervisor.jsonl says what it does.",
    )  # fmt: skip
    STALE = (
        "stale", Status.UNHEALTHY, ExitCode.FAILED,
        "Give the supervisor half a minute: the Coordinator's loop is blocked.",
    )  # fmt: skip
    ORGANS_DOWN = (
        "organs_down", Status.UNHEALTHY, ExitCode.FAILED,
        "Wait; if it lasts, look at the last cause in the message and at the log of the organ.",
    )  # fmt: skip
    WRONG_RELEASE = (
        "wrong_release", Status.UNHEALTHY, ExitCode.FAILED,
        "Deploy again: the Coordinator is replaced.", "terminal",
    )  # fmt: skip
    WRONG_CONFIGURATION = (
        "wrong_configuration", Status.UNHEALTHY, ExitCode.FAILED,
        "Deploy again, or run seedcore bootstrap.", "terminal",
    )  # fmt: skip
    NODES_MISSING = (
        "nodes_missing", Status.UNHEALTHY, ExitCode.FAILED,
        "Look at the service seedcore-ray on the host that the message names.",
    )  # fmt: skip
    NODES_UNEXPECTED = (
        "nodes_unexpected", Status.HEALTHY, ExitCode.FAILED,
        "Run playbooks/remove_node.yml for the node, or allow it: seedcore_gate_allow_unexpected.",
    )  # fmt: skip
    STATE_DAMAGED = (
        "state_damaged", Status.UNHEALTHY, ExitCode.FAILED,
        "Put the store of the GCS aside, start seedcore-ray, and deploy.", "blind",
    )  # fmt: skip
    ABSENT = (
        "absent", Status.UNHEALTHY, ExitCode.NOT_RUNNING,
        "Start it: seedcore bootstrap, or deploy.",
    )  # fmt: skip
    NOT_INSTALLED = (
        "not_installed", Status.UNHEALTHY, ExitCode.NOT_RUNNING,
        "Deploy.", "terminal",
    )  # fmt: skip
    UNAUTHORIZED = (
        "unauthorized", Status.UNHEALTHY, ExitCode.UNKNOWN,
        "Use the token of the deployment: . bin/activate.", "terminal", "blind",
    )  # fmt: skip
    UNREACHABLE = (
        "unreachable", Status.UNHEALTHY, ExitCode.UNKNOWN,
        "Look at the service seedcore-ray on the head, then at the way there: address, port, firewall.", "blind",
    )  # fmt: skip
    # Of a client, not of a status: it was closed before there was an answer.
    CLOSED = ("closed", Status.UNHEALTHY, ExitCode.UNKNOWN, "Open a new client.")
    # A report that could not be made, or a word of a newer release.
    UNKNOWN = ("unknown", Status.UNHEALTHY, ExitCode.FAILED, "Read the message.")

    @classmethod
    def of(cls, text: object) -> Reason:
        """Return the reason that a word names; ``UNKNOWN`` for a word of another release."""
        return next((reason for reason in cls if reason == text), cls.UNKNOWN)
