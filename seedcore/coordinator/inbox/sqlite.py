"""The inbox in SQLite: one connection.

``synchronous=FULL`` makes a committed turn survive a loss of power; with NORMAL it does not. The connection locks the
database exclusively, because two connections that write may damage a database in WAL mode (a bug of SQLite before
3.51.3).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seedcore.coordinator.inbox import copies, place, schema
from seedcore.coordinator.inbox.messages import Opened
from seedcore.coordinator.inbox.store import Store
from seedcore.core.errors import SeedCoreError

_FREE_SHARE = 0.05
_LOOK_AT_DISK_S = 5.0


class SqliteStore(Store):
    """The tables of one inbox in SQLite.

    Args:
        directory: Where its files are.
        deployment: Namespace of the Coordinator.
        clock: Gives the milliseconds since 1970.
    """

    faults = (SeedCoreError, sqlite3.Error, OSError)

    def __init__(self, directory: Path, deployment: str, *, clock: Callable[[], int] = schema.now_ms) -> None:
        super().__init__(deployment, clock=clock)
        self._directory = directory
        self._lock = place.Lock(directory, deployment)
        self._db: sqlite3.Connection
        self._low = ""
        self._looked_at_disk = -_LOOK_AT_DISK_S

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
                for pragma in (
                    "locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000",
                    "wal_autocheckpoint=4000", "cache_size=-4000",
                ):  # fmt: skip
                    self._db.execute(f"PRAGMA {pragma}").fetchall()
                return self._open()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._lock.free()
            raise

    def close(self) -> None:
        """Close the database in good order, and let another process have it."""
        try:
            if hasattr(self, "_db"):
                self._db.close()
        finally:
            self._lock.free()

    def copy(self) -> dict[str, Any]:
        """Copy everything into one file beside the database; describe the copy."""
        return copies.copy(self._db, self._directory)

    def _prepare(self, now: int) -> None:
        schema.prepare(self._db, now=now)

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

    def _is_low(self) -> str:
        moment = time.monotonic()
        if moment - self._looked_at_disk >= _LOOK_AT_DISK_S:
            self._looked_at_disk = moment
            disk = os.statvfs(self._directory)
            is_low = disk.f_bavail < disk.f_blocks * _FREE_SHARE
            self._low = f"less than {_FREE_SHARE:.0%} of the disk of {self._directory} is free" if is_low else ""
        return self._low
