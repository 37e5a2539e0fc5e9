"""The tables of the inbox in SQLite, and their version.

Times are milliseconds since 1970 by the head's clock. A change is additive within a minor release, so that a rollback
opens the database as well: the older release opens it if its own ``VERSION`` is at least ``min_reader``.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

from seedcore.core.errors import SeedCoreError

VERSION = 2
MIN_READER = 1
# Parameters and answers above this size have rows of their own, which keeps the rows of the queue small.
INLINE_BYTES = 1024
PARAMS, ANSWER = 0, 1

_TABLES = """
CREATE TABLE meta(
  one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, min_reader INTEGER NOT NULL,
  store_id TEXT NOT NULL, epoch INTEGER NOT NULL, turn INTEGER NOT NULL, owner TEXT, renewed INTEGER);
CREATE TABLE task(
  id INTEGER PRIMARY KEY, key TEXT UNIQUE, digest BLOB NOT NULL,
  type TEXT NOT NULL, lane TEXT NOT NULL, domain TEXT, body BLOB, priority INTEGER NOT NULL,
  state INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, bounces INTEGER NOT NULL DEFAULT 0,
  deaths INTEGER NOT NULL DEFAULT 0, repeatable INTEGER NOT NULL, unwanted INTEGER NOT NULL DEFAULT 0,
  created INTEGER NOT NULL, not_before INTEGER NOT NULL DEFAULT 0, deadline INTEGER, timeout_ms INTEGER,
  organ TEXT, boot TEXT, leased INTEGER, leased_until INTEGER,
  ended INTEGER, executed TEXT, error_type TEXT, error TEXT, answer BLOB, submitter TEXT);
CREATE INDEX task_ready ON task(lane, priority DESC, id) WHERE state = 0;
CREATE INDEX task_later ON task(not_before) WHERE state = 7;
CREATE INDEX task_leased ON task(leased_until) WHERE state = 1;
CREATE INDEX task_due ON task(deadline) WHERE state IN (0, 7) AND deadline IS NOT NULL;
CREATE INDEX task_ended ON task(state, ended) WHERE state BETWEEN 2 AND 6;
CREATE TABLE body(task INTEGER, kind INTEGER, data BLOB NOT NULL, PRIMARY KEY(task, kind)) WITHOUT ROWID;
CREATE TABLE story(
  task INTEGER NOT NULL, at INTEGER NOT NULL, attempt INTEGER NOT NULL, what TEXT NOT NULL, executed TEXT,
  organ TEXT, boot TEXT, began INTEGER, error_type TEXT, error TEXT, who TEXT);
CREATE INDEX story_task ON story(task);
CREATE TABLE tombstone(
  key TEXT PRIMARY KEY, digest BLOB NOT NULL, task INTEGER NOT NULL, state INTEGER NOT NULL, executed TEXT,
  ended INTEGER NOT NULL);
CREATE INDEX tombstone_ended ON tombstone(ended);
"""
# What each version adds; a rollback leaves it alone.
_ADDED = {
    2: """
CREATE TABLE schedule(
  id TEXT PRIMARY KEY, spec TEXT NOT NULL, source TEXT NOT NULL, next INTEGER, last_planned INTEGER,
  last_task INTEGER, paused INTEGER NOT NULL DEFAULT 0, missed INTEGER NOT NULL DEFAULT 0,
  overlapped INTEGER NOT NULL DEFAULT 0);
"""
}


class SchemaError(SeedCoreError):
    """The database is of a release that this one does not understand, or it is none of ours."""


def now_ms() -> int:
    """Return the milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def prepare(connection: sqlite3.Connection, *, now: int) -> None:
    """Create the tables if there are none, within the caller's transaction.

    Raises:
        SchemaError: The database belongs to a newer release, or to another program.
    """
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if names:
        version = check(names, lambda: connection.execute("SELECT version, min_reader FROM meta").fetchone())
        for statement in statements(version):
            connection.execute(statement)
        return
    for statement in statements(0):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO meta VALUES(1, ?, ?, ?, 0, 0, NULL, ?)", (VERSION, MIN_READER, uuid.uuid4().hex, now)
    )


def check(names: Collection[str], version: Callable[[], Any]) -> int:
    """Return the version of a database with these tables; ``version`` returns it and its oldest reader.

    Raises:
        SchemaError: The database belongs to a newer release, or to another program.
    """
    if "meta" not in names or "task" not in names:
        raise SchemaError("the file is not a database of the inbox")
    found = version()
    if found is None:
        raise SchemaError("the file is not a database of the inbox: its table meta is empty")
    has, min_reader = found
    if min_reader > VERSION:
        raise SchemaError(
            f"the database has schema {has}, which needs a release with schema {min_reader} or newer; "
            f"this one has schema {VERSION}"
        )
    return int(has)


def statements(version: int) -> list[str]:
    """Return what makes the tables of a database of a version, 0 for an empty one, those of this version."""
    texts = [_TABLES] if not version else []
    texts += [text for added, text in _ADDED.items() if added > version]
    return [one for text in texts for one in text.split(";\n") if one.strip()]
