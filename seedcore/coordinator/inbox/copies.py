"""Copies of the inbox: made while it is open, and put in the place of an inbox that is lost.

A copy does not know what was done after it was made. A task that waited then may have been executed since, so it
waits for a person, unless it may be repeated or the caller says that nothing was executed since.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from seedcore.coordinator.inbox import place, schema
from seedcore.coordinator.inbox.decisions import FINAL, State
from seedcore.core.errors import SeedCoreError
from seedcore.core.state_file import lock, open_lock

COPY = "copy.sqlite3"
REPLACED = "inbox.sqlite3.replaced"
# No process of the lost inbox has got so far meanwhile.
EPOCHS_AHEAD = 1000
_BESIDE = ".inbox.sqlite3.new"
_TEXT = "restored from a backup: nobody knows whether it was executed after the backup was made"
_WAITED = (State.READY, State.LEASED, State.LATER)


class CopyError(SeedCoreError):
    """The inbox cannot be copied or restored."""


def copy(source: sqlite3.Connection, directory: Path) -> dict[str, Any]:
    """Copy an open database into a single file in the directory, in place of an earlier copy; describe the copy."""
    beside, path = directory / _BESIDE, directory / COPY
    _write(source, beside)
    beside.replace(path)
    with closing(_connect(path)) as made:
        return {"path": str(path), "bytes": path.stat().st_size, **describe(made)}


def copy_closed(directory: Path) -> dict[str, Any]:
    """Copy an inbox that no Coordinator has open.

    Raises:
        CopyError: There is none, or a Coordinator has it open.
    """
    with _held(directory):
        database = directory / place.DATABASE
        if not database.exists():
            raise CopyError(f"there is no inbox in {directory}")
        with closing(_connect(database)) as source:
            describe(source)
            return copy(source, directory)


def describe(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return schema, epoch, and the number of tasks by state.

    Raises:
        CopyError: It is damaged, or no database of an inbox.
        SchemaError: It is of a newer release.
    """
    try:
        (fault,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise CopyError(f"the database is damaged: {fault}")
        version, epoch = connection.execute("SELECT version, epoch FROM meta").fetchone()
        counts = dict(connection.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall())
    except (sqlite3.Error, TypeError) as error:
        raise CopyError(f"it is not a database of an inbox: {error}") from error
    if version > schema.VERSION:
        raise schema.SchemaError(
            f"the database has schema {version}, this release has {schema.VERSION}: restore it with the newer release"
        )
    tasks = {state.word: counts.get(int(state), 0) for state in State}
    return {"schema": version, "epoch": epoch, "tasks": tasks}


def restore(
    path: Path, directory: Path, *, replace: bool = False, run_waiting: bool = False, now: int | None = None
) -> dict[str, Any]:
    """Put a copy in the place of the inbox, which no Coordinator may have open; return its tasks by state.

    Args:
        path: The copy.
        directory: The directory of the inbox.
        replace: Whether to replace an inbox with tasks that have not ended; it is kept beside the new one.
        run_waiting: Whether tasks that waited run, because nothing was executed after the copy was made.
        now: Milliseconds since 1970.

    Raises:
        CopyError | SchemaError | PlaceError: It cannot be restored. Nothing was changed.
    """
    now = schema.now_ms() if now is None else now
    if not path.exists():
        raise CopyError(f"there is no file {path}")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source:
        found = describe(source)
        with _held(directory):
            database = place.prepare(directory)
            epoch = max(found["epoch"], _present_epoch(database, replace=replace)) + EPOCHS_AHEAD
            beside = database.parent / _BESIDE
            _write(source, beside)
            with closing(_connect(beside)) as made:
                _settle(made, epoch, run_waiting=run_waiting, now=now)
                told = describe(made)
            _exchange(beside, database)
    return told


def _settle(made: sqlite3.Connection, epoch: int, *, run_waiting: bool, now: int) -> None:
    """Decide what becomes of the tasks that had not ended."""
    states = _WAITED if not run_waiting else (State.LEASED,)
    parked = f"repeatable = 0 AND state IN ({', '.join(str(int(state)) for state in states)})"
    with made:
        made.execute("UPDATE meta SET epoch = ?, owner = NULL", (epoch,))
        made.execute(
            "INSERT INTO story(task, at, attempt, what, executed, organ, boot, began, error) "  # noqa: S608 - constants
            f"SELECT id, ?, attempt, 'restored', 'unknown', organ, boot, leased, ? FROM task WHERE {parked}",
            (now, _TEXT),
        )
        made.execute(
            "UPDATE task SET state = ?, ended = ?, executed = 'unknown', error_type = 'RestoredError', "  # noqa: S608
            f"error = ? WHERE {parked}",
            (int(State.PARKED), now, _TEXT),
        )
        made.execute(
            "UPDATE task SET state = ?, organ = NULL, boot = NULL, leased = NULL, leased_until = NULL WHERE state = ?",
            (int(State.READY), int(State.LEASED)),
        )


def _present_epoch(database: Path, *, replace: bool) -> int:
    """Return the epoch of the inbox that is there; refuse one with tasks that have not ended."""
    if database.stat().st_size == 0:
        return 0
    try:
        with closing(_connect(database)) as present:
            found = describe(present)
    except (CopyError, schema.SchemaError) as error:
        if replace:
            return 0
        raise CopyError(f"there is an inbox that cannot be read: {error}") from error
    count = sum(count for word, count in found["tasks"].items() if word not in {state.word for state in FINAL})
    if count and not replace:
        raise CopyError(f"there is an inbox with {count} tasks that have not ended")
    return int(found["epoch"])


def _exchange(beside: Path, database: Path) -> None:
    if database.stat().st_size:
        database.replace(database.parent / REPLACED)
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    beside.replace(database)
    descriptor = os.open(database.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(source: sqlite3.Connection, path: Path) -> None:
    """Copy a database into one new file, which only its owner may read."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(_connect(path)) as target:
        source.backup(target)
        # Everything in one file, without a log beside it.
        target.execute("PRAGMA journal_mode=DELETE").fetchone()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=FULL")
    return connection


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold the lock of an inbox that no Coordinator has open."""
    descriptor = open_lock(directory / place.LOCK)
    try:
        if not lock(descriptor):
            raise CopyError(f"a Coordinator has the inbox in {directory} open: shut it down first")
        yield
    finally:
        os.close(descriptor)
