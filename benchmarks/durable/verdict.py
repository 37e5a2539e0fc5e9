"""Judge the records of a long test of durable tasks, with pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

# What a task may be at the end. ``failed`` is none of them: no agent of the test raises.
ENDED = frozenset({"done", "parked"})
# No task of the test takes a second: one that waits longer than this is stuck, and the status must say so.
STUCK_S = 60.0
SHOWN = 20


@dataclass(slots=True)
class Told:
    """What the clients were told about one key.

    Attributes:
        kind: The task's type.
        ids: Ids that its acceptances and answers named; one, if nothing is wrong.
        outcomes: Final states that its answers named, in order.
        taken_with_other_params: Whether the same key was accepted with other params.
    """

    kind: str
    ids: set[str] = field(default_factory=set)
    outcomes: list[str] = field(default_factory=list)
    taken_with_other_params: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A task of the store: its id, type, state, number of attempts, and whether it was executed."""

    id: str
    kind: str
    state: str
    attempt: int
    executed: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the status: its time and verdict, and how long a client has waited for a task since it was ill."""

    at: float
    healthy: bool
    waited_s: float


def judge(
    told: Mapping[str, Told],
    stored: Mapping[str, Row],
    effects: Mapping[str, int],
    deaths: Mapping[str, int],
    seen: Sequence[Seen],
) -> list[str]:
    """Return every contradiction, one sentence each; empty if each accepted task is accounted for.

    Args:
        told: What clients know, by key.
        stored: Rows of the store, by key.
        effects: How often the agents wrote each key down.
        deaths: Number of deaths by kind: ``coordinator``, ``organ``, ``head``, ``database``.
        seen: Looks at the status while the test ran.
    """
    faults = [fault for key, one in told.items() for fault in _of_key(key, one, stored.get(key))]
    faults += [f"{key} has an effect, and nobody submitted it" for key in effects.keys() - told.keys() - stored.keys()]
    may_be_unknown = bool(deaths.get("organ") or deaths.get("head"))
    for key, row in stored.items():
        faults += _of_row(key, row, effects.get(key, 0), may_be_unknown=may_be_unknown)
    for look in seen:
        if look.healthy and look.waited_s > STUCK_S:
            faults.append(f"healthy at {look.at:.0f} s, while a task had waited for {look.waited_s:.0f} s")
    return faults


def _of_key(key: str, told: Told, row: Row | None) -> list[str]:
    faults = []
    if len(told.ids) > 1:
        faults.append(f"{key} has several ids: {', '.join(sorted(told.ids))}")
    if told.ids and row is None:
        faults.append(f"{key} was accepted, and is not in the store")
    if told.ids and row is not None and row.id not in told.ids:
        faults.append(f"{key} has the id {row.id} in the store, clients were told {', '.join(told.ids)}")
    # A parked task may be told as parked and nothing else, because nobody decides during the test.
    finals = list(dict.fromkeys(told.outcomes))
    if len(finals) > 1:
        faults.append(f"{key} was told as {' and then '.join(finals)}")
    if finals and row is not None and finals[-1] != row.state:
        faults.append(f"{key} was told as {finals[-1]}, and is {row.state} in the store")
    if told.taken_with_other_params:
        faults.append(f"{key} was accepted with other params")
    return faults


def _of_row(key: str, row: Row, effects: int, *, may_be_unknown: bool) -> list[str]:
    faults = []
    if row.state not in ENDED:
        faults.append(f"{key} ({row.kind}) is {row.state} at the end")
    if row.state == "done" and not effects:
        faults.append(f"{key} ({row.kind}) is done without an effect")
    if row.state == "parked" and (row.executed != "unknown" or not may_be_unknown):
        faults.append(f"{key} ({row.kind}) is parked, executed {row.executed!r}, although no process of an organ died")
    if row.kind == "fetch":
        if row.state == "parked":
            faults.append(f"{key} may be repeated, and is parked")
        if effects > row.attempt:
            faults.append(f"{key} has {effects} effects in {row.attempt} attempts")
    elif effects > 1:
        faults.append(f"{key} ({row.kind}) has {effects} effects")
    if row.kind == "book" and row.state != "done":
        faults.append(f"{key} has its effect in one transaction, and is {row.state}")
    return faults


def judge_moments(keys: Sequence[str], every_s: float) -> list[str]:
    """Return what is wrong with the tasks of a schedule: a moment that is missing, or planned twice."""
    moments = Counter(datetime.fromisoformat(key.rpartition("beat:")[2]) for key in keys)
    faults = [f"the moment {moment} was planned {count} times" for moment, count in moments.items() if count > 1]
    for before, after in pairwise(sorted(moments)):
        if (after - before).total_seconds() != every_s:
            faults.append(f"no task was planned between {before} and {after}")
    return faults if moments else ["the schedule planned nothing"]
