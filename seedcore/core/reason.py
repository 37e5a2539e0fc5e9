"""Define every reason of a status with its status, exit code, remedy, and whether waiting can help."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Self


class Status(StrEnum):
    """The three values of a status."""

    HEALTHY = "healthy"
    INITIALIZING = "initializing"
    UNHEALTHY = "unhealthy"


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNKNOWN = 4
    INITIALIZING = 5


class Reason(StrEnum):
    """The reason of a status; ``docs/status.md`` has a section on each.

    Attributes:
        status: The status that has this reason.
        exit_code: Exit code of ``seedcore status`` and ``seedcore bootstrap`` for this reason.
        remedy: What to do about it, in one sentence; empty if there is nothing to do.
        terminal: Whether waiting cannot help. ``absent`` and ``unreachable`` may pass while something starts.
        blind: Whether the probe learned nothing about the Coordinator, so that no decision can be based on it.
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
    # Exit code FAILED, unless --allow-degraded is given.
    DEGRADED = (
        "degraded", Status.HEALTHY, ExitCode.FAILED,
        "Check which organs or agents are missing, or accept it: --allow-degraded, seedcore_gate_allow_degraded.",
    )  # fmt: skip
    STARTING = (
        "starting", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Wait: seedcore status --wait.",
    )  # fmt: skip
    RESTARTING = (
        "restarting", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Wait; if it recurs, find out why the process dies, often for lack of memory.",
    )  # fmt: skip
    RELOADING = (
        "reloading", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Wait: the reload ends by itself, with the new organism or the previous one.",
    )  # fmt: skip
    UNSCHEDULABLE = (
        "unschedulable", Status.INITIALIZING, ExitCode.INITIALIZING,
        "Add a node with the resources that the message names, or reserve less for the organ.",
    )  # fmt: skip
    INIT_FAILED = (
        "init_failed", Status.UNHEALTHY, ExitCode.FAILED,
        "Fix the agent that the message names, and deploy again.", "terminal",
    )  # fmt: skip
    NOT_RESPONDING = (
        "not_responding", Status.UNHEALTHY, ExitCode.FAILED,
        "Give the supervisor half a minute; state/seedcore/supervisor.jsonl records what it does.",
    )  # fmt: skip
    STALE = (
        "stale", Status.UNHEALTHY, ExitCode.FAILED,
        "Give the supervisor half a minute: the Coordinator's event loop is blocked.",
    )  # fmt: skip
    ORGANS_DOWN = (
        "organs_down", Status.UNHEALTHY, ExitCode.FAILED,
        "Wait; if it persists, check the last cause in the message and the log of the organ.",
    )  # fmt: skip
    ORGANS_PAUSED = (
        "organs_paused", Status.UNHEALTHY, ExitCode.FAILED,
        "Let the organ begin tasks again when you are done: seedcore resume ORGAN.", "terminal",
    )  # fmt: skip
    INBOX_UNAVAILABLE = (
        "inbox_unavailable", Status.UNHEALTHY, ExitCode.FAILED,
        "Read the message; durable tasks are refused until the inbox is open again.",
    )  # fmt: skip
    INBOX_IN_USE = (
        "inbox_in_use", Status.UNHEALTHY, ExitCode.FAILED,
        "Give each deployment its own state directory, and end the process that the message names.",
    )  # fmt: skip
    INBOX_STUCK = (
        "inbox_stuck", Status.UNHEALTHY, ExitCode.FAILED,
        "Add the task type to an organ, or cancel the tasks; if the organ has room, report a bug.",
    )  # fmt: skip
    INBOX_RECOVERING = (
        "inbox_recovering", Status.HEALTHY, ExitCode.FAILED,
        "Wait: the tasks are decided when the organs answer, or have died.",
    )  # fmt: skip
    INBOX_FULL = (
        "inbox_full", Status.HEALTHY, ExitCode.FAILED,
        "Free space on the disk of the state directory, or decide about tasks: seedcore tasks --parked.",
    )  # fmt: skip
    INBOX_LATE = (
        "inbox_late", Status.HEALTHY, ExitCode.OK,
        "Add agents, replicas or max_concurrency to the organ, or submit less.",
    )  # fmt: skip
    INBOX_PARKED = (
        "inbox_parked", Status.HEALTHY, ExitCode.OK,
        "Decide about each task: seedcore tasks --parked, then seedcore task retry, done or discard ID.",
    )  # fmt: skip
    WRONG_RELEASE = (
        "wrong_release", Status.UNHEALTHY, ExitCode.FAILED,
        "Deploy again; this replaces the Coordinator.", "terminal",
    )  # fmt: skip
    WRONG_CONFIGURATION = (
        "wrong_configuration", Status.UNHEALTHY, ExitCode.FAILED,
        "Deploy again, or run seedcore bootstrap.", "terminal",
    )  # fmt: skip
    NODES_MISSING = (
        "nodes_missing", Status.UNHEALTHY, ExitCode.FAILED,
        "Check the service seedcore-ray on the host that the message names.",
    )  # fmt: skip
    NODES_UNEXPECTED = (
        "nodes_unexpected", Status.HEALTHY, ExitCode.FAILED,
        "Run playbooks/remove_node.yml for the node, or accept it: seedcore_gate_allow_unexpected.",
    )  # fmt: skip
    STATE_DAMAGED = (
        "state_damaged", Status.UNHEALTHY, ExitCode.FAILED,
        "Wait: the head moves the store aside; if the message names no corruption, mend its cause.", "blind",
    )  # fmt: skip
    DISK_FULL = (
        "disk_full", Status.UNHEALTHY, ExitCode.FAILED,
        "Free space on the disk that the message names; the head then starts by itself.", "blind",
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
        "Check the service seedcore-ray on the head, then the path to it: address, port, firewall.", "blind",
    )  # fmt: skip
    # Only for clients: the client was closed before an answer arrived.
    CLOSED = ("closed", Status.UNHEALTHY, ExitCode.UNKNOWN, "Open a new client.")
    # The probe could not make a report, or a newer release uses a reason that this one does not have.
    UNKNOWN = ("unknown", Status.UNHEALTHY, ExitCode.FAILED, "Read the message.")

    @classmethod
    def of(cls, text: object) -> Reason:
        """Return the reason with this value, or ``UNKNOWN`` if this release does not have it."""
        return next((reason for reason in cls if reason == text), cls.UNKNOWN)
