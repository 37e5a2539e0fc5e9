"""The store of the inbox: one transaction for all that came up in a turn of the event loop.

Only the writer thread calls it. The SQL here is that which every database understands; ``sqlite.py`` has the rest.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from seedcore.coordinator.inbox import ids, schema
from seedcore.coordinator.inbox.decisions import (
    ENDED,
    FINAL,
    Claim,
    Event,
    Order,
    Standing,
    State,
    Tick,
    decide,
)
from seedcore.coordinator.inbox.messages import (
    Claimed,
    Conflict,
    Ending,
    Leased,
    NewTask,
    Opened,
    Refused,
    Room,
    Told,
    Turn,
    Turned,
)
from seedcore.coordinator.inbox.reading import STORY, TaskReader
from seedcore.coordinator.inbox.schedules import Schedules
from seedcore.core.errors import SeedCoreError

T = TypeVar("T")
# How much a turn does of what is due by itself.
_AT_ONCE = 500
# A lease lasts as long as the attempt may take. It only finds what everybody has forgotten.
LEASE_GRACE_MS = 15_000
LIMIT = 1_000_000
"""Largest number of tasks that have not ended."""
KEEP_MS = 7 * 86_400_000
KEEP_KEYS_MS = 90 * 86_400_000

_STANDING = "state, attempt, bounces, deaths, repeatable, unwanted, not_before, deadline, executed"
LOADED = f"type, lane, organ, boot, leased, {_STANDING}"
_TOLD = "id, state, executed, answer, error, lane, digest"


class FencedError(SeedCoreError):
    """Another process has opened the database since: this one must not write any more."""


class Store(TaskReader, ABC):
    """The tables of one inbox.

    Args:
        deployment: Namespace of the Coordinator.
        clock: Gives the milliseconds since 1970.
    """

    faults: tuple[type[Exception], ...]
    """What the database raises when it cannot be used or relied on."""

    def __init__(self, deployment: str, *, clock: Callable[[], int]) -> None:
        self._deployment = deployment
        self._clock = clock
        self._turn = 0
        self._counts: Counter[tuple[str, State]] = Counter()
        self._numbers = itertools.count(1)
        self._schedules = Schedules(self, self.next_id)
        self.epoch = 0

    @abstractmethod
    def open(self) -> Opened:
        """Take the inbox over: from now on, no older epoch writes."""

    @abstractmethod
    def close(self) -> None:
        """Close it in good order."""

    @abstractmethod
    def _prepare(self, now: int) -> None:
        """Create the tables if there are none, within a transaction."""

    @abstractmethod
    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        """Commit what is done inside, or nothing of it."""

    @abstractmethod
    def _is_low(self) -> str:
        """Return why there is no space for more tasks, or an empty text."""

    def _read_ahead(self, turn: Turn) -> None:
        """Read what a turn needs, where each question takes its time."""

    def _completed(self, ending: Ending, task: Standing) -> Ending:  # noqa: ARG002
        """Return the ending that counts; an agent may have ended its task in a transaction of its own."""
        return ending

    def next_id(self) -> int:
        """Return the id of a new task; any thread may call it."""
        return ids.make(self.epoch, next(self._numbers))

    def _open(self) -> Opened:
        now = self._clock()
        with self._transaction():
            self._prepare(now)
            self._claim_ownership(now)
        leased = self._db.execute("SELECT id, attempt, organ, boot, leased_until FROM task WHERE state = 1")
        lanes = self._db.execute("SELECT DISTINCT lane FROM task WHERE state = 0")
        counts = self._db.execute("SELECT type, state, count(*) FROM task GROUP BY type, state")
        self._counts = Counter({(kind, State(state)): count for kind, state, count in counts})
        return Opened(
            epoch=self.epoch,
            leased=[Leased(*row) for row in leased],
            lanes=frozenset(lane for (lane,) in lanes),
            counts=dict(self._counts),
        )

    def _claim_ownership(self, now: int) -> None:
        found = self._db.execute(
            "UPDATE meta SET epoch = epoch + 1, owner = ?, renewed = ?, "
            "version = CASE WHEN version < ? THEN ? ELSE version END RETURNING epoch",
            (f"{self._deployment} pid {os.getpid()}", now, schema.VERSION, schema.VERSION),
        )
        (self.epoch,) = found.fetchone()

    def turn(self, turn: Turn) -> Turned:
        """Do everything of one turn, durably; what it returns may be told.

        Raises:
            FencedError: Another process has taken over. Nothing was done.
            Exception: One of :attr:`faults`: nothing is certain any more; open the inbox again.
        """
        now = self._clock()
        before = self._counts.copy()
        try:
            with self._transaction():
                self._guard(now)
                self._read_ahead(turn)
                ready: set[str] = set()
                accepted = [self.accept(task, now, ready) for task in turn.new]
                ended = [self.end(ending, now, ready) for ending in turn.endings]
                expired = self._let_time_pass(now, ready)
                planned = self._schedules.pass_time(now, ready)
                claimed = [self._claim(room, now) for room in turn.rooms]
                due = self._one("SELECT min(not_before) FROM task WHERE state = 7")
                late = self._one("SELECT min(deadline) FROM task WHERE state IN (0, 7) AND deadline IS NOT NULL")
        except BaseException:
            self._counts = before
            self._schedules.forget()
            raise
        times = [moment for moment in (*due, *late, self._schedules.next) if moment is not None]
        return Turned(
            accepted, ended, claimed, [*expired, *planned.told], frozenset(ready), min(times, default=None),
            dict(self._counts), self._is_full(), planned.cancelling,
        )  # fmt: skip

    def on_schedules(self, work: Callable[[Schedules, int], T]) -> T:
        """Do something with the schedules, durably, at the present time."""
        now = self._clock()
        with self._guarded(now):
            return work(self._schedules, now)

    def tidy(self) -> int:
        """Delete some of what has ended long ago; return the number of tasks."""
        now = self._clock()
        final = "state IN (2, 5, 6) AND ended < ?"
        with self._transaction():
            self._guard(now)
            rows = self._db.execute(
                f"SELECT id, type, state FROM task WHERE {final} LIMIT 1000",  # noqa: S608 - constants
                (now - KEEP_MS,),
            ).fetchall()
            ids = [(row[0],) for row in rows]
            self._db.executemany(
                "INSERT INTO tombstone SELECT key, digest, id, state, executed, ended FROM task "
                "WHERE id = ? AND key IS NOT NULL ON CONFLICT(key) DO UPDATE SET digest = excluded.digest, "
                "task = excluded.task, state = excluded.state, executed = excluded.executed, ended = excluded.ended",
                ids,
            )
            self._delete(ids)
            self._db.execute(
                "DELETE FROM tombstone WHERE key IN (SELECT key FROM tombstone WHERE ended < ? LIMIT 1000)",
                (now - KEEP_KEYS_MS,),
            )
            self._schedules.tidy(now)
        for _, kind, state in rows:
            self._count(kind, State(state), -1)
        return len(rows)

    def forget(self, task_ids: Sequence[int]) -> None:
        """Delete tasks, whatever their state."""
        with self._guarded(self._clock()):
            for task_id in task_ids:
                if (found := self._load(task_id)) is not None:
                    self._count(found[1], found[0].state, -1)
            self._delete([(task_id,) for task_id in task_ids])

    def _delete(self, ids: list[tuple[int]]) -> None:
        for table, column in (("body", "task"), ("story", "task"), ("task", "id")):
            self._db.executemany(f"DELETE FROM {table} WHERE {column} = ?", ids)  # noqa: S608 - constants

    def told(self, task_id: int) -> Told | None:
        """Return what may be told about a task; None if there is none."""
        row = self._db.execute(f"SELECT {_TOLD} FROM task WHERE id = ?", (task_id,)).fetchone()  # noqa: S608
        return None if row is None else self._tell(row)

    def query(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows."""
        rows: list[tuple[Any, ...]] = self._db.execute(statement, values).fetchall()
        return rows

    def write(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Change rows; return how many."""
        return int(self._db.execute(statement, values).rowcount)

    @contextlib.contextmanager
    def _guarded(self, now: int) -> Iterator[None]:
        """Make a transaction outside of the turns."""
        before = self._counts.copy()
        try:
            with self._transaction():
                self._guard(now)
                yield
        except BaseException:
            self._counts = before
            self._schedules.forget()
            raise

    def _guard(self, now: int) -> None:
        """Renew the ownership in the transaction that relies on it."""
        self._turn += 1
        values = (self._turn, now, self.epoch)
        if not self._db.execute("UPDATE meta SET turn = ?, renewed = ? WHERE epoch = ?", values).rowcount:
            raise FencedError("another process has taken the inbox over")

    def accept(self, task: NewTask, now: int, ready: set[str]) -> Told | Conflict:
        """Store a task, within a transaction."""
        if task.key is not None and (found := self._known(task)) is not None:
            return found
        inline = task.body if len(task.body) <= schema.INLINE_BYTES else None
        self._db.execute(
            "INSERT INTO task(id, key, digest, type, lane, domain, body, priority, state, repeatable, created, "
            "deadline, timeout_ms, submitter) VALUES(?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)",
            (
                task.id, task.key, task.digest, task.type, task.lane, task.domain, inline, task.priority,
                int(task.repeatable), now, task.deadline, task.timeout_ms, task.by,
            ),
        )  # fmt: skip
        if inline is None:
            self._put(task.id, schema.PARAMS, task.body)
        self._count(task.type, State.READY, 1)
        ready.add(task.lane)
        return Told(task.id, State.READY, lane=task.lane)

    def _known(self, task: NewTask) -> Told | Conflict | None:
        """Return the task that has the key already."""
        row = self._db.execute(f"SELECT {_TOLD} FROM task WHERE key = ?", (task.key,)).fetchone()  # noqa: S608
        if row is not None:
            return self._tell(row, duplicate=True) if row[6] == task.digest else Conflict(row[0])
        gone = self._db.execute("SELECT task, digest, state, executed FROM tombstone WHERE key = ?", (task.key,))
        if (found := gone.fetchone()) is None:
            return None
        task_id, digest, state, executed = found
        if digest != task.digest:
            return Conflict(task_id)
        return Told(task_id, State(state), duplicate=True, executed=executed, error="its answer has been deleted")

    def end(self, ending: Ending, now: int, ready: set[str]) -> Told | Refused | None:
        """Record what has happened to a task, within a transaction."""
        found = self._load(ending.id)
        if found is None:
            return Refused(ending.id, None) if isinstance(ending.event, Order) else None
        task, kind, lane, leased = found
        ending = self._completed(ending, task)
        after = decide(task, ending.event, now)
        if after is None:
            return Refused(ending.id, task.state) if isinstance(ending.event, Order) else None
        self._save(ending.id, kind, task, after, now)
        if after.state is State.READY:
            ready.add(lane)
        if after.state is not State.DONE or ending.by:
            self._tell_story(ending, after, leased, now)
        if after.state in ENDED and ending.answer is not None:
            self._keep_answer(ending)
        elif isinstance(ending.event, Order):
            self._forget_answer(ending.id, after)
        elif ending.error:
            self._db.execute(
                "UPDATE task SET error_type = ?, error = ? WHERE id = ?",
                (ending.error_type, ending.error, ending.id),
            )
        return Told(
            ending.id, after.state, executed=after.executed, answer=ending.answer, error=ending.error, lane=lane
        )

    def _keep_answer(self, ending: Ending) -> None:
        answer = ending.answer or b""
        inline = answer if len(answer) <= schema.INLINE_BYTES else None
        self._db.execute(
            "UPDATE task SET answer = ?, error_type = ?, error = ? WHERE id = ?",
            (inline, ending.error_type, ending.error, ending.id),
        )
        if inline is None:
            self._put(ending.id, schema.ANSWER, answer)

    def _forget_answer(self, task_id: int, after: Standing) -> None:
        """Delete the answer of the attempt that a person has overruled."""
        if after.state is not State.LEASED:
            self._db.execute("UPDATE task SET answer = NULL, error_type = NULL, error = NULL WHERE id = ?", (task_id,))
            self._db.execute("DELETE FROM body WHERE task = ? AND kind = ?", (task_id, schema.ANSWER))

    def _tell_story(self, ending: Ending, after: Standing, leased: Sequence[Any], now: int) -> None:
        what = ending.event.verb if isinstance(ending.event, Order) else after.state.word
        organ, boot, began = leased
        self._db.execute(
            f"INSERT INTO story({STORY}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                ending.id, now, after.attempt, what, after.executed, organ, boot, began, ending.error_type,
                ending.error, ending.by,
            ),
        )  # fmt: skip

    def _let_time_pass(self, now: int, ready: set[str]) -> list[Told]:
        due = [
            *self._db.execute("SELECT id FROM task WHERE state = 7 AND not_before <= ? LIMIT ?", (now, _AT_ONCE)),
            *self._db.execute(
                "SELECT id FROM task WHERE state IN (0, 7) AND deadline IS NOT NULL AND deadline <= ? LIMIT ?",
                (now, _AT_ONCE),
            ),
        ]
        told = []
        for (task_id,) in due:
            if (changed := self._step(task_id, Tick(), now)) is None:
                continue
            after, lane = changed
            if after.state is State.READY:
                ready.add(lane)
            else:
                told.append(Told(task_id, after.state, executed=after.executed, lane=lane))
        return told

    def _claim(self, room: Room, now: int) -> list[Claimed]:
        rows: list[tuple[Any, ...]] = []
        for lane in room.lanes:
            rows += self._db.execute(
                f"SELECT priority, id, type, domain, key, body, timeout_ms, {_STANDING} FROM task "  # noqa: S608
                "WHERE state = 0 AND lane = ? ORDER BY priority DESC, id LIMIT ?",
                (lane, room.tasks),
            ).fetchall()
        rows.sort(key=lambda row: (-row[0], row[1]))
        claimed = []
        for _, task_id, kind, domain, key, body, timeout_ms, *standing in rows[: room.tasks]:
            before = Standing.of(standing)
            after = decide(before, Claim(), now)
            if after is None:
                continue
            self._save(task_id, kind, before, after, now)
            if after.state is not State.LEASED:
                continue
            limit_ms = min(timeout_ms or room.limit_ms, room.limit_ms)
            self._db.execute(
                "UPDATE task SET organ = ?, boot = ?, leased = ?, leased_until = ? WHERE id = ?",
                (room.organ, room.boot, now, now + limit_ms + LEASE_GRACE_MS, task_id),
            )
            whole = self._body(task_id, body)
            claimed.append(Claimed(task_id, after.attempt, kind, domain, key, whole, limit_ms))
        return claimed

    def _step(self, task_id: int, event: Event, now: int) -> tuple[Standing, str] | None:
        found = self._load(task_id)
        if found is None:
            return None
        task, kind, lane, _ = found
        after = decide(task, event, now)
        if after is None:
            return None
        self._save(task_id, kind, task, after, now)
        return after, lane

    def _row(self, task_id: int) -> Sequence[Any] | None:
        row: Sequence[Any] | None = self._db.execute(f"SELECT {LOADED} FROM task WHERE id = ?", (task_id,)).fetchone()  # noqa: S608
        return row

    def _load(self, task_id: int) -> tuple[Standing, str, str, Sequence[Any]] | None:
        row = self._row(task_id)
        return None if row is None else (Standing.of(row[5:]), row[0], row[1], row[2:5])

    def _save(self, task_id: int, kind: str, before: Standing, after: Standing, now: int) -> None:
        self._db.execute(
            "UPDATE task SET state = ?, attempt = ?, bounces = ?, deaths = ?, unwanted = ?, not_before = ?, "
            "deadline = ?, executed = ?, ended = ? WHERE id = ?",
            (
                after.state, after.attempt, after.bounces, after.deaths, int(after.is_unwanted), after.not_before,
                after.deadline, after.executed, now if after.state in ENDED else None, task_id,
            ),
        )  # fmt: skip
        self._count(kind, before.state, -1)
        self._count(kind, after.state, 1)

    def _count(self, kind: str, state: State, change: int) -> None:
        self._counts[kind, state] += change
        if not self._counts[kind, state]:
            del self._counts[kind, state]

    def _put(self, task_id: int, kind: int, data: bytes) -> None:
        self._db.execute(
            "INSERT INTO body VALUES(?, ?, ?) ON CONFLICT(task, kind) DO UPDATE SET data = excluded.data",
            (task_id, kind, data),
        )

    def _tell(self, row: Sequence[Any], *, duplicate: bool = False) -> Told:
        task_id, state, executed, answer, error, lane, _ = row
        state = State(state)
        whole = self._answer(task_id, answer) if state in ENDED else None
        return Told(task_id, state, duplicate, executed, whole, error or "", lane)

    def _is_full(self) -> str:
        """Return why no more tasks are accepted, or an empty text."""
        held = sum(count for (_, state), count in self._counts.items() if state not in FINAL)
        return self._is_low() or (f"{held} tasks have not ended, the limit is {LIMIT}" if held >= LIMIT else "")
