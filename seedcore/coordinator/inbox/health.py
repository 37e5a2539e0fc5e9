"""Judge the inbox: pure, from what is known in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from seedcore.core.reason import Reason

BLOCKED_AFTER_S = 5.0
STUCK_AFTER_S = 60.0
LATE_AFTER_S = 600.0
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is known of an inbox.

    Attributes:
        fault: Why it is not open, empty if it is.
        is_in_use: Whether another process has it.
        place: Where the inbox is.
        busy_s: How long the present turn has been in the writer thread.
        idle_s: By queue with ready tasks, how long none of them has been given to an organ.
        with_room: Queues for which an organ has room now.
        known: Queues that some organ serves.
        canary: Why the inbox's own task has not come back, empty if it has.
        recovering: By organ, the number of tasks that it has to tell about.
        full: Why no more tasks are accepted, empty if they are.
        oldest_s: By queue with ready tasks, how long its oldest one has waited.
        late: By schedule that is late by more than its grace, by how many seconds.
        parked: By task type, the number of tasks that wait for a person.
    """

    fault: str = ""
    is_in_use: bool = False
    place: str = "the disk of the inbox"
    busy_s: float = 0.0
    idle_s: Mapping[str, float] = field(default_factory=dict)
    with_room: Collection[str] = ()
    known: Collection[str] = ()
    canary: str = ""
    recovering: Mapping[str, int] = field(default_factory=dict)
    full: str = ""
    oldest_s: Mapping[str, float] = field(default_factory=dict)
    late: Mapping[str, float] = field(default_factory=dict)
    parked: Mapping[str, int] = field(default_factory=dict)


def judge(now: Condition) -> tuple[Reason, str] | None:
    """Return the worst that is wrong, with a message for people, or None."""
    if now.fault:
        reason = Reason.INBOX_IN_USE if now.is_in_use else Reason.INBOX_UNAVAILABLE
        return reason, f"the inbox is not open: {now.fault}"
    if now.busy_s >= BLOCKED_AFTER_S:
        return Reason.INBOX_UNAVAILABLE, f"{now.place} has not answered for {now.busy_s:.0f} s"
    if (text := _stuck(now)) is not None:
        return Reason.INBOX_STUCK, text
    if now.recovering:
        parts = ", ".join(f"{organ} ({count})" for organ, count in sorted(now.recovering.items()))
        return Reason.INBOX_RECOVERING, f"organs have yet to tell what became of durable tasks: {parts}"
    if now.full:
        return Reason.INBOX_FULL, f"the inbox accepts no more tasks: {now.full}"
    return _named(now)


def _named(now: Condition) -> tuple[Reason, str] | None:
    """Return what is no fault of the deployment, but somebody should know."""
    lane = max(now.oldest_s, key=lambda one: now.oldest_s[one], default="")
    if lane and now.oldest_s[lane] >= LATE_AFTER_S:
        text = f"the oldest durable task of type {_kind(lane)} has waited for {now.oldest_s[lane]:.0f} s"
        return Reason.INBOX_LATE, text
    if now.late:
        name = max(now.late, key=lambda one: now.late[one])
        others = f", and {len(now.late) - 1} more" if len(now.late) > 1 else ""
        return Reason.INBOX_LATE, f"the task of schedule {name} is {now.late[name]:.0f} s late{others}"
    if now.parked:
        most = sorted(now.parked.items(), key=lambda one: (-one[1], one[0]))
        kinds = [f"{kind} ({count})" for kind, count in most[:_MAX_NAMED]] + ["..."] * (len(most) > _MAX_NAMED)
        total = sum(now.parked.values())
        who = "1 durable task waits" if total == 1 else f"{total} durable tasks wait"
        return Reason.INBOX_PARKED, f"{who} for a decision: {', '.join(kinds)}"
    return None


def _kind(lane: str) -> str:
    return lane.replace("\n", " in domain ")


def _stuck(now: Condition) -> str | None:
    if now.canary:
        return f"the inbox accepts tasks and does not complete them: {now.canary}"
    for lane, seconds in sorted(now.idle_s.items()):
        kind = _kind(lane)
        if seconds >= STUCK_AFTER_S and lane not in now.known:
            return f"durable tasks of type {kind} wait, and no organ accepts them"
        if seconds >= STUCK_AFTER_S and lane in now.with_room:
            return f"durable tasks of type {kind} have waited for {seconds:.0f} s although their organ has room"
    return None
