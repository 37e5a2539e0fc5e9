"""What the event loop and the writer thread hand to each other; whoever gets one of these does not change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedcore.coordinator.inbox.decisions import Answer, Order, State
from seedcore.core.errors import Executed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to store.

    Attributes:
        id: Its id.
        key: Idempotency key, None for none.
        digest: SHA-256 of what the task is; a key belongs to one digest.
        type: The task type.
        lane: Which tasks share a queue with it: see :func:`lane_of`.
        domain: Its domain, if any.
        body: The rest of the task as a JSON object: ``params``, ``description``, ``drift_score``.
        priority: Higher ones begin first.
        repeatable: Whether it may run again when nobody knows whether it ran.
        deadline: When it expires if it has not begun, in milliseconds since 1970.
        timeout_ms: Time limit of each attempt; None for the organ's.
        by: Who has submitted it.
    """

    id: int
    key: str | None
    digest: bytes
    type: str
    lane: str
    domain: str | None
    body: bytes
    priority: int = 0
    repeatable: bool = False
    deadline: int | None = None
    timeout_ms: int | None = None
    by: str = ""


def lane_of(kind: str, domain: str | None) -> str:
    """Return the queue of a task type, or of a task type in a domain that an organ claims."""
    return kind if domain is None else f"{kind}\n{domain}"


@dataclass(frozen=True, slots=True)
class Ending:
    """What has happened to a stored task.

    Attributes:
        id: The task.
        event: What has happened.
        answer: The documented answer as JSON, if the attempt has one.
        error_type: Type of the error, empty for none.
        error: Its text.
        by: Who has decided, if a person has.
    """

    id: int
    event: Answer | Order
    answer: bytes | None = None
    error_type: str = ""
    error: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """An organ process that can take tasks.

    Attributes:
        organ: Name of its actor, without the prefix.
        boot: Identifies the process.
        lanes: Queues whose tasks it takes.
        tasks: How many tasks it can take.
        limit_ms: The organ's time limit of a task.
        process: What the floor sends tasks with; the store does not look at it.
    """

    organ: str
    boot: str
    lanes: tuple[str, ...]
    tasks: int
    limit_ms: int
    process: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task that an organ process has got."""

    id: int
    attempt: int
    type: str
    domain: str | None
    key: str | None
    body: bytes
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Told:
    """A stored task, for whoever has submitted it or waits for it.

    Attributes:
        id: The task.
        state: Its state.
        duplicate: Whether it was there already.
        executed: Whether its code ran, if known.
        answer: Its answer as JSON, if it has one.
        error: Why it is parked or failed.
        lane: Its queue.
    """

    id: int
    state: State
    duplicate: bool = False
    executed: Executed | None = None
    answer: bytes | None = None
    error: str = ""
    lane: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key of a new task belongs to another task."""

    id: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An order that its task's state does not allow, or a task that is not there (``state`` is None)."""

    id: int
    state: State | None


@dataclass(frozen=True, slots=True)
class Leased:
    """A task that an earlier epoch has given to an organ process."""

    id: int
    attempt: int
    organ: str
    boot: str
    until: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What a store knows when it is opened."""

    epoch: int
    leased: Sequence[Leased]
    lanes: frozenset[str]
    counts: Mapping[tuple[str, State], int]


@dataclass(frozen=True, slots=True)
class Turn:
    """Everything for one transaction."""

    new: Sequence[NewTask] = ()
    endings: Sequence[Ending] = ()
    rooms: Sequence[Room] = ()


@dataclass(frozen=True, slots=True)
class Turned:
    """What a transaction has done; everything in it is on disk.

    Attributes:
        accepted: For each new task, in order.
        ended: For each ending, in order; None if it was stale.
        claimed: For each room, in order.
        expired: Tasks that expired.
        lanes: Queues that have got a ready task.
        next_due_ms: When a task becomes ready or expires by itself; None for never.
        counts: Number of tasks by type and state.
        is_full: Whether there is no room for new tasks.
        cancelling: Tasks of schedules that their organs have to cancel.
    """

    accepted: list[Told | Conflict]
    ended: list[Told | Refused | None]
    claimed: list[list[Claimed]]
    expired: list[Told]
    lanes: frozenset[str]
    next_due_ms: int | None
    counts: Mapping[tuple[str, State], int] = field(default_factory=dict)
    is_full: str = ""
    cancelling: Sequence[int] = ()
