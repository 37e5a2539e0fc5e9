"""Read the tasks of the inbox, for people and for the turns; only the writer thread does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seedcore.coordinator.inbox import schema
from seedcore.coordinator.inbox.decisions import ENDED, State

STORY = "task, at, attempt, what, executed, organ, boot, began, error_type, error, who"
_READY_SINCE = "CASE WHEN created > not_before THEN created ELSE not_before END"


class TaskReader:
    """What can be read of the tables of one inbox."""

    _story_order = "rowid"
    _db: Any

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
                oldest = f"SELECT {_READY_SINCE} {ready} AND lane = ? AND priority = ? ORDER BY id LIMIT 1"
                (since,) = self._one(oldest, (lane, priority))
                found[lane] = min(since, found.get(lane, since))
                lower = f"SELECT max(priority) {ready} AND lane = ? AND priority < ?"
                (priority,) = self._one(lower, (lane, priority))
            (lane,) = self._one(f"SELECT min(lane) {ready} AND lane > ?", (lane,))
        return found

    def read(self, task_id: int) -> dict[str, Any] | None:
        """Return everything about a task, for people: its columns, ``body``, ``answer`` and ``story``."""
        cursor = self._db.execute("SELECT * FROM task WHERE id = ?", (task_id,))
        row = cursor.fetchone()
        if row is None:
            return None
        task = dict(zip((column[0] for column in cursor.description), row, strict=True))
        task["body"], task["answer"] = self._body(task_id, task["body"]), self._answer(task_id, task["answer"])
        cursor = self._db.execute(
            f"SELECT {STORY} FROM story WHERE task = ? ORDER BY {self._story_order} LIMIT 100",  # noqa: S608
            (task_id,),
        )
        names = [column[0] for column in cursor.description]
        task["story"] = [dict(zip(names, entry, strict=True)) for entry in cursor]
        return task

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

    def ids_of(self, kind: str) -> list[int]:
        """Return the ids of all tasks of a type; it looks at every task."""
        return [task_id for (task_id,) in self._db.execute("SELECT id FROM task WHERE type = ?", (kind,)).fetchall()]

    def _one(self, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(statement, values).fetchone()
        return row

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
