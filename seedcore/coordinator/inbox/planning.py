"""Decide which moments of a schedule are planned: pure functions of (schedule, next moment, time)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from seedcore.coordinator.inbox.decisions import WAITING, State
from seedcore.core.schedule import MOST_AT_ONCE, ScheduleSpec, latest, next_after

Move = Literal["plan", "skip", "replace"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is due.

    Attributes:
        moments: Planned moments for which a task is due, in order.
        missed: Moments that were missed and get none; at most some more than MOST_AT_ONCE are counted.
        last: The last moment that has come.
        next: The next planned moment; None if there is none.
    """

    moments: list[int]
    missed: int
    last: int
    next: int | None


def plan(spec: ScheduleSpec, due: int, now: int) -> Plan:
    """Decide what to do about a schedule whose next moment has come.

    Args:
        spec: The schedule.
        due: Its next planned moment, not after ``now``.
        now: Milliseconds since 1970.
    """
    moments = latest(spec, since=due, until=now) or [due]
    in_time = [moment for moment in moments if now - moment <= spec.grace_s * 1000]
    chosen = moments[-MOST_AT_ONCE:]
    if spec.misfire == "skip":
        chosen = in_time[-MOST_AT_ONCE:]
    elif spec.misfire == "once" and len(in_time) < len(moments):
        # One task makes up for all, also for those that are still in time.
        chosen = moments[-1:]
    return Plan(chosen, len(moments) - len(chosen), moments[-1], next_after(spec, now, phase=due))


def first_moment(spec: ScheduleSpec, now: int, *, last_planned: int | None = None) -> int | None:
    """Return the next moment of a schedule that is new, or changed, or was paused: never one that was planned."""
    whole = now // 1000 * 1000
    return next_after(spec, max(now, last_planned or 0), phase=whole if last_planned is None else last_planned)


def overlap(spec: ScheduleSpec, last: State | None) -> Move:
    """Decide what to do if the task of the moment before is in a state; None if there is none."""
    if last is None or last not in WAITING | {State.LEASED} or spec.overlap == "allow":
        return "plan"
    return "replace" if spec.overlap == "replace" else "skip"


@dataclass(frozen=True, slots=True)
class Lateness:
    """A schedule that is late.

    Attributes:
        id: The schedule.
        seconds: Since when a task should have begun.
        is_over_grace: Whether that is longer than its grace.
    """

    id: str
    seconds: float
    is_over_grace: bool


def lateness(spec: ScheduleSpec, due: int | None, begins: int | None, now: int) -> Lateness:
    """Return how late a schedule is.

    Args:
        spec: The schedule.
        due: Its next planned moment, if it has one.
        begins: Since when its last task has waited to begin; None if it has begun.
        now: Milliseconds since 1970.
    """
    since: Collection[int] = [one for one in (due, begins) if one is not None]
    seconds = max(0, now - min(since, default=now)) / 1000
    return Lateness(spec.id, seconds, seconds > spec.grace_s)
