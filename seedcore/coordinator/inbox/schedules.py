"""The schedules in the store, and the tasks that they plan: the second half of a turn.

The task of a planned moment and the next moment are written in one transaction, and the task's key names the moment.
So each moment is planned once, whatever dies and whichever way the clock is set.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from seedcore.coordinator.inbox.decisions import Order, State
from seedcore.coordinator.inbox.messages import Conflict, Ending, NewTask, Refused, Told
from seedcore.coordinator.inbox.planning import Lateness, first_moment, lateness, overlap, plan
from seedcore.coordinator.inbox.wish import new_task
from seedcore.core.errors import NoTaskError, TaskError, WrongStateError
from seedcore.core.schedule import MAX_SCHEDULES, ScheduleSpec, key_of
from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task, describe
from seedcore.core.wish import Wish

logger = logging.getLogger(__name__)

FILE, HTTP = "file", "http"
KEEP_MS = 7 * 86_400_000
_COLUMNS = ("id", "spec", "source", "next", "last_planned", "last_task", "state", "paused", "missed", "overlapped")


class StoreLike(Protocol):
    """What the schedules need of the store, within a transaction of it."""

    def query(self, statement: str, values: Sequence[Any] = (), /) -> list[tuple[Any, ...]]:
        """Return all rows."""

    def write(self, statement: str, values: Sequence[Any] = (), /) -> int:
        """Change rows; return how many."""

    def accept(self, task: NewTask, now: int, ready: set[str], /) -> Told | Conflict:
        """Store a task."""

    def end(self, ending: Ending, now: int, ready: set[str], /) -> Told | Refused | None:
        """Record what has happened to a task."""


@dataclass(slots=True)
class Planned:
    """What the schedules have done in a turn.

    Attributes:
        told: Tasks that were cancelled.
        cancelling: Tasks that their organs have to cancel.
    """

    told: list[Told] = field(default_factory=list)
    cancelling: list[int] = field(default_factory=list)


class Schedules:
    """The schedules of one store.

    Args:
        store: The store; every method but the constructor is called within a transaction of it.
        next_id: Returns the id of a new task.
    """

    def __init__(self, store: StoreLike, next_id: Callable[[], int]) -> None:
        self._store = store
        self._next_id = next_id
        self._organs: Sequence[OrganSpec] | None = None
        self._specs: dict[str, tuple[str, ScheduleSpec]] = {}
        self._next: int | None = None
        self._has_read = False
        # Queues that have got a task between two turns.
        self._lanes: set[str] = set()

    @property
    def next(self) -> int | None:
        """Return the next planned moment of all schedules."""
        return self._next if self._organs is not None else None

    def forget(self) -> None:
        """Read the next moments again: the transaction was rolled back."""
        self._has_read = False

    def sync(self, organs: Sequence[OrganSpec], specs: Iterable[ScheduleSpec], now: int) -> None:
        """Take over the schedules of organism.yaml; from now on tasks are planned."""
        known = {spec.id: spec for spec in specs}
        for spec in known.values():
            self._put(spec, FILE, now)
        for (schedule_id,) in self._store.query("SELECT id FROM schedule WHERE source = ?", (FILE,)):
            if schedule_id not in known:
                self._store.write("DELETE FROM schedule WHERE id = ?", (schedule_id,))
        self._organs = organs
        self.forget()

    def put(self, spec: ScheduleSpec, now: int) -> bool:
        """Make or change a schedule; return whether it is new.

        Raises:
            WrongStateError: It belongs to organism.yaml.
            TaskError: There are too many.
        """
        row = self._row(spec.id)
        if row is not None and row[1] == FILE:
            raise WrongStateError(f"the schedule {spec.id!r} is one of organism.yaml; change it there")
        ((count,),) = self._store.query("SELECT count(*) FROM schedule")
        if row is None and count >= MAX_SCHEDULES:
            raise TaskError(f"there are {count} schedules, which is the limit")
        self._put(spec, HTTP, now)
        return row is None

    def change(self, schedule_id: str, verb: str, now: int, by: str = "") -> Told | None:
        """Let a person ``pause``, ``resume``, ``delete`` or ``run`` a schedule; return the task that it runs.

        Raises:
            NoTaskError: There is no such schedule.
            WrongStateError: It is deleted in organism.yaml, and not here.
            TaskError: Its task cannot be made.
        """
        row = self._row(schedule_id)
        if row is None:
            raise NoTaskError(f"there is no schedule {schedule_id[:100]!r}")
        text, source, _, last_planned, *_ = row
        spec = self._spec(schedule_id, text)
        self._has_read = False
        if verb == "run":
            key = f"schedule:{schedule_id}:run-{now}"
            told = self._store.accept(self._task(spec, key, now, by=by), now, self._lanes)
            self._store.write("UPDATE schedule SET last_task = ? WHERE id = ?", (told.id, schedule_id))
            return told if isinstance(told, Told) else None
        if verb == "delete":
            if source == FILE:
                text = f"the schedule {schedule_id!r} is one of organism.yaml; remove it there, or pause it"
                raise WrongStateError(text)
            self._store.write("DELETE FROM schedule WHERE id = ?", (schedule_id,))
        elif verb == "pause":
            self._store.write("UPDATE schedule SET paused = 1 WHERE id = ?", (schedule_id,))
        elif row[5]:
            # Moments of the pause were not missed.
            moment = first_moment(spec, now, last_planned=last_planned)
            self._store.write("UPDATE schedule SET paused = 0, next = ? WHERE id = ?", (moment, schedule_id))
        return None

    def pass_time(self, now: int, ready: set[str]) -> Planned:
        """Plan what is due."""
        done = Planned()
        ready |= self._lanes
        self._lanes.clear()
        if self._has_read and (self._next is None or self._next > now):
            return done
        if self._organs is not None:
            due = "SELECT id, spec, next, last_task FROM schedule WHERE paused = 0 AND next <= ? ORDER BY next"
            for schedule_id, text, moment, last_task in self._store.query(due, (now,)):
                self._plan(self._spec(schedule_id, text), (moment, last_task), now, ready, done)
        ((self._next,),) = self._store.query("SELECT min(next) FROM schedule WHERE paused = 0")
        self._has_read = True
        return done

    def all(self) -> list[dict[str, Any]]:
        """Return all schedules, for people."""
        rows = self._store.query(
            "SELECT s.id, s.spec, s.source, s.next, s.last_planned, s.last_task, t.state, s.paused, s.missed, "
            "s.overlapped FROM schedule s LEFT JOIN task t ON t.id = s.last_task ORDER BY s.id"
        )
        return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]

    def late(self, now: int) -> list[Lateness]:
        """Return how late each schedule is that is not paused."""
        rows = self._store.query(
            "SELECT s.id, s.spec, s.next, t.state, t.attempt, t.created FROM schedule s "
            "LEFT JOIN task t ON t.id = s.last_task WHERE s.paused = 0"
        )
        found = []
        for schedule_id, text, due, state, attempt, created in rows:
            waits = state in {State.READY, State.LATER} and not attempt
            found.append(lateness(self._spec(schedule_id, text), due, created if waits else None, now))
        return found

    def tidy(self, now: int) -> None:
        """Delete schedules that were made over HTTP and have been over for long."""
        statement = "DELETE FROM schedule WHERE source = ? AND next IS NULL AND last_planned < ?"
        self._store.write(statement, (HTTP, now - KEEP_MS))

    def _plan(
        self, spec: ScheduleSpec, standing: tuple[int, int | None], now: int, ready: set[str], done: Planned
    ) -> None:
        due, last_task = standing
        found = plan(spec, due, now)
        overlapped = 0
        for moment in found.moments:
            move = overlap(spec, self._state(last_task))
            if move == "skip":
                overlapped += 1
                continue
            if move == "replace" and last_task is not None:
                self._cancel(last_task, spec, now, ready, done)
            try:
                told = self._store.accept(self._task(spec, key_of(spec.id, moment), now), now, ready)
            except TaskError as error:
                # It was checked when the schedule was made; the others must go on.
                logger.error("schedule %s: its task cannot be made: %s", spec.id, describe(error))  # noqa: TRY400
                continue
            last_task = told.id
        self._store.write(
            "UPDATE schedule SET next = ?, last_planned = ?, last_task = ?, missed = missed + ?, "
            "overlapped = overlapped + ? WHERE id = ?",
            (found.next, found.last, last_task, found.missed, overlapped, spec.id),
        )

    def _cancel(self, task_id: int, spec: ScheduleSpec, now: int, ready: set[str], done: Planned) -> None:
        told = self._store.end(Ending(task_id, Order("cancel"), by=f"schedule {spec.id}"), now, ready)
        if isinstance(told, Told) and told.state is State.LEASED:
            done.cancelling.append(task_id)
        elif isinstance(told, Told):
            done.told.append(told)

    def _task(self, spec: ScheduleSpec, key: str, now: int, *, by: str = "") -> NewTask:
        raw = {**spec.task, "durable": True, "key": key}
        task = Task.parse(raw)
        wish = Wish.parse(raw, task)
        takers = [organ for organ in self._organs or () if task.type in organ.domains.get(task.domain or "", ())]
        organs = takers or [organ for organ in self._organs or () if task.type in organ.task_types]
        return new_task(
            task, wish, task_id=self._next_id(), in_domain=bool(takers), now=now, by=by or f"schedule {spec.id}",
            repeatable=any(organ.repeatable for organ in organs[:1]),
        )  # fmt: skip

    def _put(self, spec: ScheduleSpec, source: str, now: int) -> None:
        text = json.dumps(spec.to_dict(), separators=(",", ":"))
        row = self._row(spec.id)
        self._has_read = False
        if row is None:
            self._store.write(
                "INSERT INTO schedule(id, spec, source, next) VALUES(?, ?, ?, ?)",
                (spec.id, text, source, first_moment(spec, now)),
            )
            return
        before, _, moment, last_planned, _, _ = row
        if spec.timing != self._spec(spec.id, before).timing:
            moment = first_moment(spec, now, last_planned=last_planned)
        self._store.write(
            "UPDATE schedule SET spec = ?, source = ?, next = ? WHERE id = ?", (text, source, moment, spec.id)
        )

    def _row(self, schedule_id: str) -> tuple[Any, ...] | None:
        columns = "spec, source, next, last_planned, last_task, paused"
        rows = self._store.query(f"SELECT {columns} FROM schedule WHERE id = ?", (schedule_id,))  # noqa: S608
        return rows[0] if rows else None

    def _state(self, task_id: int | None) -> State | None:
        rows = self._store.query("SELECT state FROM task WHERE id = ?", (task_id,)) if task_id is not None else []
        return State(rows[0][0]) if rows else None

    def _spec(self, schedule_id: str, text: str) -> ScheduleSpec:
        known = self._specs.get(schedule_id)
        if known is None or known[0] != text:
            data: Mapping[str, Any] = json.loads(text)
            known = self._specs[schedule_id] = text, ScheduleSpec.from_dict(data)
        return known[1]
