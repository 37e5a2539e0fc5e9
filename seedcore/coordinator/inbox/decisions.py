"""Decide what becomes of a durable task: pure functions of (standing, event, time).

::

    later ---> ready ---> leased ---> done
      ^          |          |---> failed, parked ---> ready, done or cancelled, by a person
      |          |          |---> cancelled, expired
      |          |          |
      |          |          +---> later or ready: it was not begun, or it may be repeated
      |          +--> cancelled, expired
      +-- not begun, retry later

A lease is one attempt. An answer counts only for the attempt that holds the lease. A task that may not be repeated
is never ready again after an attempt whose outcome is unknown, unless a person decides so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal, TypeAlias

from seedcore.core.errors import Executed

MAX_DEATHS = 3
"""A repeatable task whose outcome was unknown this often is parked."""
FIRST_PAUSE_MS, MAX_PAUSE_MS = 50, 30_000
"""Pause after an attempt that did not begin; it doubles with each such attempt in a row."""


class State(IntEnum):
    """State of a task, as the store keeps it."""

    READY = 0
    LEASED = 1
    DONE = 2
    FAILED = 3
    PARKED = 4
    CANCELLED = 5
    EXPIRED = 6
    LATER = 7

    @property
    def word(self) -> str:
        """Its name for people and programs."""
        return self.name.lower()


FINAL = frozenset({State.DONE, State.CANCELLED, State.EXPIRED})
HELD = frozenset({State.FAILED, State.PARKED})
"""A person decides about these."""
WAITING = frozenset({State.READY, State.LATER})
ENDED = FINAL | HELD
"""Nothing happens to these by itself: whoever waits for the task is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a task stands. Times are milliseconds since 1970.

    Attributes:
        state: Its state.
        attempt: Number of its last attempt, from 1.
        bounces: Attempts in a row that did not begin.
        deaths: Attempts whose outcome is unknown.
        repeatable: Whether it may run again after such an attempt.
        is_unwanted: Whether somebody has asked to cancel it while it was leased.
        not_before: When a task that is ``later`` becomes ready.
        deadline: When a task that has not begun expires; None for never.
        executed: Whether its code ran in the last attempt that ended; None before.
    """

    state: State = State.READY
    attempt: int = 0
    bounces: int = 0
    deaths: int = 0
    repeatable: bool = False
    is_unwanted: bool = False
    not_before: int = 0
    deadline: int | None = None
    executed: Executed | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Standing:
        """Read it from a row of the store, in the order of the attributes."""
        state, attempt, bounces, deaths, repeatable, unwanted, not_before, deadline, executed = values
        return cls(
            state=State(state), attempt=attempt, bounces=bounces, deaths=deaths, repeatable=bool(repeatable),
            is_unwanted=bool(unwanted), not_before=not_before, deadline=deadline, executed=executed,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """An organ process has room for it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An attempt has ended, or nobody will ever know how.

    Attributes:
        attempt: Its number.
        success: Whether the work succeeded.
        executed: Whether the code ran; ``unknown`` if the process died with it.
        pause_ms: How long to wait before another attempt if it did not begin; None for the default.
    """

    attempt: int
    success: bool
    executed: Executed
    pause_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A person or a program decides."""

    verb: Literal["retry", "done", "discard", "cancel"]


Event: TypeAlias = Claim | Tick | Answer | Order
ALLOWED: dict[str, frozenset[State]] = {
    "retry": HELD,
    "done": HELD,
    "discard": HELD,
    "cancel": WAITING | {State.LEASED},
}
"""In which states each order has an effect."""


def decide(task: Standing, event: Event, now: int) -> Standing | None:
    """Return the standing after an event, or None if the event changes nothing: it is stale, or not allowed."""
    if isinstance(event, Answer):
        is_current = task.state is State.LEASED and event.attempt == task.attempt
        return _answered(task, event, now) if is_current else None
    if isinstance(event, Order):
        return _ordered(task, event) if task.state in ALLOWED[event.verb] else None
    if task.state not in WAITING:
        return None
    if _is_late(task, now):
        return _expired(task)
    if isinstance(event, Tick):
        is_due = task.state is State.LATER and task.not_before <= now
        return replace(task, state=State.READY) if is_due else None
    return replace(task, state=State.LEASED, attempt=task.attempt + 1) if task.state is State.READY else None


def _answered(task: Standing, answer: Answer, now: int) -> Standing:
    if answer.success:
        return replace(task, state=State.DONE, executed="yes")
    if answer.executed == "no":
        # It says nothing about an earlier attempt, which may have run.
        task = replace(task, executed=task.executed or "no")
        return replace(task, state=State.CANCELLED) if task.is_unwanted else _not_begun(task, answer, now)
    task = replace(task, executed=answer.executed, bounces=0)
    if answer.executed == "yes":
        return replace(task, state=State.FAILED)
    task = replace(task, deaths=task.deaths + 1)
    if task.is_unwanted:
        return replace(task, state=State.CANCELLED)
    may_run_again = task.repeatable and task.deaths < MAX_DEATHS and not _is_late(task, now)
    return replace(task, state=State.READY if may_run_again else State.PARKED)


def _not_begun(task: Standing, answer: Answer, now: int) -> Standing:
    if _is_late(task, now):
        return _expired(task)
    pause_ms = min(MAX_PAUSE_MS, FIRST_PAUSE_MS << min(task.bounces, 16))
    if answer.pause_ms is not None:
        pause_ms = min(MAX_PAUSE_MS, max(pause_ms, answer.pause_ms)) if answer.pause_ms else 0
    state = State.LATER if pause_ms else State.READY
    return replace(task, state=state, not_before=now + pause_ms, bounces=task.bounces + 1)


def _expired(task: Standing) -> Standing:
    # If an attempt may have run, "expired, not executed" would be wrong, and a person has to decide.
    return replace(task, state=State.PARKED if task.deaths else State.EXPIRED, executed=task.executed or "no")


def _ordered(task: Standing, order: Order) -> Standing:
    if order.verb == "retry":
        # It begins anew, without its old deadline.
        return replace(task, state=State.READY, deaths=0, bounces=0, deadline=None, is_unwanted=False)
    if order.verb == "done":
        return replace(task, state=State.DONE)
    if order.verb == "cancel" and task.state is State.LEASED:
        return replace(task, is_unwanted=True)
    return replace(task, state=State.CANCELLED, executed=task.executed or "no")


def _is_late(task: Standing, now: int) -> bool:
    return task.deadline is not None and task.deadline <= now
