"""The inbox in SQLite: one connection, and one transaction for all that came up in a turn of the event loop.

Only the writer thread calls it. ``synchronous=FULL`` makes a committed turn survive a loss of power; with NORMAL it
does not. The connection locks the database exclusively, because two connections that write may damage a database in
WAL mode (a bug of SQLite before 3.51.3).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from seedcore.coordinator.inbox import place, schema
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
from seedcore.core.errors import SeedCoreError

# How much a turn does of what is due by itself.
_AT_ONCE = 500
# A lease lasts as long as the attempt may take. It only finds what everybody has forgotten.
LEASE_GRACE_MS = 15_000
LIMIT = 1_000_000
"""Largest number of tasks that have not ended."""
_FREE_SHARE = 0.05
_LOOK_AT_DISK_S = 5.0
KEEP_MS = 7 * 86_400_000
KEEP_KEYS_MS = 90 * 86_400_000

_STANDING = "state, attempt, bounces, deaths, repeatable, unwanted, not_before, deadline, executed"
_TOLD = "id, state, executed, answer, error, lane, digest"


class FencedError(SeedCoreError):
    """Another process has opened the database since: this one must not write any more."""


class SqliteStore:
    """The tables of one inbox.

    Args:
        directory: Where its files are.
        deployment: Namespace of the Coordinator.
        clock: Gives the milliseconds since 1970.
    """

    def __init__(self, directory: Path, deployment: str, *, clock: Callable[[], int] = schema.now_ms) -> None:
        self._directory = directory
        self._deployment = deployment
        self._clock = clock
        self._lock = place.Lock(directory, deployment)
        self._db: sqlite3.Connection
        self._turn = 0
        self._counts: Counter[tuple[str, State]] = Counter()
        self._full = ""
        self._looked_at_disk = -_LOOK_AT_DISK_S
        self.epoch = 0

    def open(self) -> Opened:
        """Take the inbox over: from now on, no older epoch writes.

        Raises:
            PlaceError | InUseError | SchemaError: It cannot be used; the message says why.
            sqlite3.Error: The database is damaged, or the disk does not work.
        """
        database = place.prepare(self._directory)
        self._lock.take()
        try:
            self._db = sqlite3.connect(database, isolation_level=None, cached_statements=256)
            try:
                return self._open()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._lock.free()
            raise

    def _open(self) -> Opened:
        for pragma in (
            "locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000",
            "wal_autocheckpoint=4000", "cache_size=-4000",
        ):  # fmt: skip
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        now = self._clock()
        with self._transaction():
            schema.prepare(self._db, now=now)
            (self.epoch,) = self._one("SELECT epoch + 1 FROM meta")
            self._db.execute(
                "UPDATE meta SET epoch = ?, owner = ?, renewed = ?, version = max(version, ?)",
                (self.epoch, f"{self._deployment} pid {os.getpid()}", now, schema.VERSION),
            )
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

    def close(self) -> None:
        """Close the database in good order, and let another process have it."""
        try:
            if hasattr(self, "_db"):
                self._db.close()
        finally:
            self._lock.free()

    def turn(self, turn: Turn) -> Turned:
        """Do everything of one turn, durably; what it returns may be told.

        Raises:
            FencedError: Another process has taken over. Nothing was done.
            sqlite3.Error: Nothing is certain any more; open the inbox again.
        """
        now = self._clock()
        before = self._counts.copy()
        try:
            with self._transaction():
                self._guard(now)
                ready: set[str] = set()
                accepted = [self._accept(task, now, ready) for task in turn.new]
                ended = [self._end(ending, now, ready) for ending in turn.endings]
                expired = self._let_time_pass(now, ready)
                claimed = [self._claim(room, now) for room in turn.rooms]
                due = self._one("SELECT min(not_before) FROM task WHERE state = 7")
                late = self._one("SELECT min(deadline) FROM task WHERE state IN (0, 7) AND deadline IS NOT NULL")
        except BaseException:
            self._counts = before
            raise
        times = [moment for (moment,) in (due, late) if moment is not None]
        return Turned(
            accepted, ended, claimed, expired, frozenset(ready), min(times, default=None), dict(self._counts),
            self._is_full(),
        )  # fmt: skip

    def ready_since(self) -> dict[str, int]:
        """Return the time from which the oldest ready task of each queue has waited, in milliseconds since 1970.

        Each step is one search in the index, however many tasks wait.
        """
        found: dict[str, int] = {}
        ready = "FROM task WHERE state = 0"
        (lane,) = self._one(f"SELECT min(lane) {ready}")
        while lane is not None:
            (priority,) = self._one(f"SELECT max(priority) {ready} AND lane = ?", (lane,))
            while priority is not None:
                oldest = f"SELECT max(created, not_before) {ready} AND lane = ? AND priority = ? ORDER BY id LIMIT 1"
                (since,) = self._one(oldest, (lane, priority))
                found[lane] = min(since, found.get(lane, since))
                lower = f"SELECT max(priority) {ready} AND lane = ? AND priority < ?"
                (priority,) = self._one(lower, (lane, priority))
            (lane,) = self._one(f"SELECT min(lane) {ready} AND lane > ?", (lane,))
        return found

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
                "INSERT OR REPLACE INTO tombstone SELECT key, digest, id, state, executed, ended FROM task "
                "WHERE id = ? AND key IS NOT NULL",
                ids,
            )
            for statement in (
                "DELETE FROM body WHERE task = ?", "DELETE FROM story WHERE task = ?", "DELETE FROM task WHERE id = ?"
            ):  # fmt: skip
                self._db.executemany(statement, ids)
            self._db.execute(
                "DELETE FROM tombstone WHERE key IN (SELECT key FROM tombstone WHERE ended < ? LIMIT 1000)",
                (now - KEEP_KEYS_MS,),
            )
        for _, kind, state in rows:
            self._count(kind, State(state), -1)
        return len(rows)

    def read(self, task_id: int) -> dict[str, Any] | None:
        """Return everything about a task, for people: its columns, ``body``, ``answer`` and ``story``."""
        cursor = self._db.execute("SELECT * FROM task WHERE id = ?", (task_id,))
        row = cursor.fetchone()
        if row is None:
            return None
        task = dict(zip((column[0] for column in cursor.description), row, strict=True))
        task["body"], task["answer"] = self._body(task_id, task["body"]), self._answer(task_id, task["answer"])
        cursor = self._db.execute("SELECT * FROM story WHERE task = ? ORDER BY rowid LIMIT 100", (task_id,))
        names = [column[0] for column in cursor.description]
        task["story"] = [dict(zip(names, entry, strict=True)) for entry in cursor]
        return task

    def told(self, task_id: int) -> Told | None:
        """Return what may be told about a task; None if there is none."""
        row = self._db.execute(f"SELECT {_TOLD} FROM task WHERE id = ?", (task_id,)).fetchone()  # noqa: S608
        return None if row is None else self._tell(row)

    def find(self, states: Sequence[State], kind: str | None, since: int, limit: int) -> list[dict[str, Any]]:
        """Return the newest tasks in these states, without their content."""
        columns = (
            "id, key, type, domain, state, attempt, priority, repeatable, created, organ, ended, executed, error_type, "
            "error"
        )
        tasks = []
        for state in states:
            # What has ended is found by an index, however many other tasks there are.
            by_index = "state BETWEEN 2 AND 6 AND" if state in ENDED else ""
            order = "ended" if by_index else "id"
            cursor = self._db.execute(
                f"SELECT {columns} FROM task WHERE {by_index} state = ? AND created >= ?"  # noqa: S608 - constants
                f"{' AND type = ?' if kind else ''} ORDER BY {order} DESC LIMIT ?",
                (state, since, *((kind,) if kind else ()), limit),
            )
            names = [column[0] for column in cursor.description]
            tasks += [dict(zip(names, row, strict=True)) for row in cursor]
        tasks.sort(key=lambda task: task["id"], reverse=True)
        return tasks[:limit]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _one(self, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(statement, values).fetchone()
        return row

    def _guard(self, now: int) -> None:
        """Renew the ownership in the transaction that relies on it."""
        self._turn += 1
        values = (self._turn, now, self.epoch)
        if not self._db.execute("UPDATE meta SET turn = ?, renewed = ? WHERE epoch = ?", values).rowcount:
            raise FencedError("another process has taken the inbox over")

    def _accept(self, task: NewTask, now: int, ready: set[str]) -> Told | Conflict:
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

    def _end(self, ending: Ending, now: int, ready: set[str]) -> Told | Refused | None:
        found = self._load(ending.id)
        if found is None:
            return Refused(ending.id, None) if isinstance(ending.event, Order) else None
        task, kind, lane, leased = found
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
            "INSERT INTO story VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            before = _standing(standing)
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

    def _load(self, task_id: int) -> tuple[Standing, str, str, Sequence[Any]] | None:
        row = self._db.execute(
            f"SELECT type, lane, organ, boot, leased, {_STANDING} FROM task WHERE id = ?",  # noqa: S608
            (task_id,),
        ).fetchone()
        return None if row is None else (_standing(row[5:]), row[0], row[1], row[2:5])

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
        self._db.execute("INSERT OR REPLACE INTO body VALUES(?, ?, ?)", (task_id, kind, data))

    def _body(self, task_id: int, inline: bytes | None) -> bytes:
        if inline is not None:
            return inline
        (data,) = self._one("SELECT data FROM body WHERE task = ? AND kind = ?", (task_id, schema.PARAMS))
        return bytes(data)

    def _answer(self, task_id: int, inline: bytes | None) -> bytes | None:
        if inline is not None:
            return inline
        found = self._db.execute("SELECT data FROM body WHERE task = ? AND kind = ?", (task_id, schema.ANSWER))
        row = found.fetchone()
        return None if row is None else bytes(row[0])

    def _tell(self, row: Sequence[Any], *, duplicate: bool = False) -> Told:
        task_id, state, executed, answer, error, lane, _ = row
        state = State(state)
        whole = self._answer(task_id, answer) if state in ENDED else None
        return Told(task_id, state, duplicate, executed, whole, error or "", lane)

    def _is_full(self) -> str:
        """Return why no more tasks are accepted, or an empty text."""
        moment = time.monotonic()
        if moment - self._looked_at_disk >= _LOOK_AT_DISK_S:
            self._looked_at_disk = moment
            disk = os.statvfs(self._directory)
            is_low = disk.f_bavail < disk.f_blocks * _FREE_SHARE
            self._full = f"less than {_FREE_SHARE:.0%} of the disk of {self._directory} is free" if is_low else ""
        held = sum(count for (_, state), count in self._counts.items() if state not in FINAL)
        return self._full or (f"{held} tasks have not ended, the limit is {LIMIT}" if held >= LIMIT else "")


def _standing(values: Sequence[Any]) -> Standing:
    state, attempt, bounces, deaths, repeatable, unwanted, not_before, deadline, executed = values
    return Standing(
        state=State(state), attempt=attempt, bounces=bounces, deaths=deaths, repeatable=bool(repeatable),
        is_unwanted=bool(unwanted), not_before=not_before, deadline=deadline, executed=executed,
    )  # fmt: skip
