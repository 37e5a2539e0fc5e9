"""The inbox in PostgreSQL: one connection of the writer thread, in a schema of its own.

psycopg is synchronous there, as SQLite is, so that both share the store and its SQL. Statements that only write are
sent together, before the next one whose answer is needed.

Two processes cannot both write: each turn renews the row of ``meta`` that has the epoch, in its own transaction. If the
reply to a COMMIT is lost, that row tells on a new connection whether the turn was committed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo

from seedcore.coordinator.inbox import schema
from seedcore.coordinator.inbox.decisions import Answer, Standing, State
from seedcore.coordinator.inbox.messages import Conflict, Ending, NewTask, Opened, Told, Turn, Turned
from seedcore.coordinator.inbox.place import InUseError
from seedcore.coordinator.inbox.store import LOADED, FencedError, Store
from seedcore.core.errors import SeedCoreError
from seedcore.core.settings import database_of

logger = logging.getLogger(__name__)

SCHEMA = "seedcore_inbox"
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 10
OWNED_FOR_MS = 15_000
"""An owner that has not renewed for so long has gone."""
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# An agent that completes a task holds its row until its transaction ends.
_LOCKING, _LOCK = f"{LOADED} FROM task WHERE id", "FOR UPDATE"
_READS = ("SELECT", "UPDATE meta")
_MAX_QUEUED = 1000

_COMPLETE = """
CREATE TABLE completion(
  task BIGINT REFERENCES task ON DELETE CASCADE, attempt BIGINT, answer BYTEA NOT NULL, PRIMARY KEY(task, attempt));
CREATE FUNCTION complete(task_id TEXT, of_attempt BIGINT, result TEXT) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = seedcore_inbox, pg_temp AS $$
DECLARE
  number BIGINT := 0;
  kind TEXT;
BEGIN
  FOR place IN 1 .. length(task_id) LOOP
    number := number * 32 + strpos('0123456789abcdefghjkmnpqrstvwxyz', substr(lower(task_id), place, 1)) - 1;
  END LOOP;
  -- Whoever holds this row decides alone; the inbox waits for this transaction, which therefore must not take long.
  PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
  SELECT type INTO kind FROM task WHERE id = number AND attempt = of_attempt AND state = 1 FOR UPDATE;
  IF kind IS NULL THEN
    RAISE EXCEPTION 'attempt % of task % does not count any more: roll back', of_attempt, task_id;
  END IF;
  INSERT INTO completion VALUES(number, of_attempt, convert_to(
    '{"success":true,"result":' || coalesce(result, 'null')::json::text || ',"organ_id":null,"agent_id":null,'
    || '"task_type":' || to_json(kind)::text || ',"duration_s":0.0,"attempt":' || of_attempt || '}', 'UTF8'))
  ON CONFLICT(task, attempt) DO UPDATE SET answer = excluded.answer;
END $$
"""


class DatabaseError(SeedCoreError):
    """The database does not work, or refuses this deployment; the message names it."""


class _LostError(Exception):
    """A transaction is known not to be committed, and the connection is a new one."""


class _Result:
    """The answer to a statement that is sent later."""

    def __init__(self, connection: _Connection, cursor: psycopg.Cursor[Any]) -> None:
        self._connection, self._cursor = connection, cursor

    @property
    def rowcount(self) -> int:
        """Return how many rows the statement has changed."""
        self._connection.flush()
        return self._cursor.rowcount


class _Connection:
    """A connection that understands the store's statements, which are SQLite's."""

    def __init__(self, raw: psycopg.Connection[Any], place: str) -> None:
        self.raw, self._place = raw, place
        self._queue: list[tuple[psycopg.Cursor[Any], str, Sequence[Any]]] = []

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        """Send a statement, or keep it until the next one that has an answer."""
        text = statement.replace("%", "%%").replace("?", "%s") if values else statement
        cursor = self.raw.cursor()
        cleaned = [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]
        if statement.startswith(_READS) or "RETURNING" in statement:
            self.flush()
            with _named(self._place):
                return cursor.execute(text, cleaned or None)
        self._queue.append((cursor, text, cleaned))
        if len(self._queue) >= _MAX_QUEUED:
            self.flush()
        return _Result(self, cursor)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Send a statement for each row."""
        for row in rows:
            self.execute(statement, row)

    def flush(self) -> None:
        """Send what was kept."""
        queue, self._queue = self._queue, []
        if len(queue) == 1:
            ((cursor, text, values),) = queue
            with _named(self._place):
                cursor.execute(text, values or None)
        elif queue:
            with _named(self._place), self.raw.pipeline():
                for cursor, text, values in queue:
                    cursor.execute(text, values or None)

    def forget(self) -> None:
        """Forget what was kept."""
        self._queue.clear()


class PostgresStore(Store):
    """The tables of one inbox in PostgreSQL.

    Args:
        url: Where it is, without a password: ``postgresql://user@host/database``, with any parameter of libpq.
        deployment: Namespace of the Coordinator.
        place: Its host and name, for people.
        passfile: A file with the password, in the format of ``PGPASSFILE``.
        clock: Gives the milliseconds since 1970.
        host: Name of this host; another deployment or host waits until this one has not renewed for a while.
    """

    faults = (SeedCoreError, psycopg.Error, OSError)
    _story_order = "n"

    def __init__(
        self,
        url: str,
        deployment: str,
        *,
        place: str = "",
        passfile: Path | None = None,
        clock: Callable[[], int] = schema.now_ms,
        host: str | None = None,
    ) -> None:
        super().__init__(deployment, clock=clock)
        self.place = place or database_of(url)
        self._url = url
        self._passfile = passfile
        self._owner = f"{deployment} on {host or socket.gethostname()}"
        self._db: _Connection
        # Read at the beginning of a turn, each used once: keys that no task has, and rows of tasks.
        self._absent: set[str] = set()
        self._rows: dict[int, Sequence[Any]] = {}

    def open(self) -> Opened:
        """Take the inbox over: from now on, no older epoch writes.

        Raises:
            DatabaseError: The database does not answer, or refuses.
            InUseError | SchemaError: It cannot be used; the message says why.
        """
        with _named(self.place):
            self._db = self._connect()
            try:
                return self._open()
            except BaseException:
                self._db.raw.close()
                raise

    def close(self) -> None:
        """Let another process have it."""
        if not hasattr(self, "_db"):
            return
        with contextlib.suppress(psycopg.Error):
            self._db.raw.execute("UPDATE meta SET renewed = 0 WHERE epoch = %s", (self.epoch,))
        self._db.raw.close()

    def turn(self, turn: Turn) -> Turned:
        """Do everything of one turn; if it is known that nothing of it was committed, do it again."""
        try:
            return super().turn(turn)
        except _LostError:
            logger.warning("the database %s has lost a turn, doing it again", self.place)
        try:
            return super().turn(turn)
        except _LostError as error:
            raise DatabaseError(f"the database {self.place} loses its connections") from error

    def _connect(self) -> _Connection:
        parameters: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT_S, "application_name": "seedcore", "keepalives_idle": 5,
            "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,
            "options": f"-c search_path={SCHEMA} -c statement_timeout={STATEMENT_TIMEOUT_S}s "
            f"-c idle_in_transaction_session_timeout={STATEMENT_TIMEOUT_S}s -c synchronous_commit=on "
            # The epoch must be read as the last commit has left it.
            "-c default_transaction_isolation=read\\ committed",
        }  # fmt: skip
        given = conninfo.conninfo_to_dict(self._url)
        if self._passfile is not None and self._passfile.exists():
            if stat.S_IMODE(self._passfile.stat().st_mode) & 0o077:
                raise DatabaseError(f"others may read the file with the password, {self._passfile}: chmod 600")
            parameters["passfile"] = str(self._passfile)
        raw = psycopg.connect(self._url, **{**parameters, **_only_new(parameters, given)}, autocommit=True)
        return _Connection(raw, self.place)

    def _prepare(self, now: int) -> None:
        self._db.execute("SELECT pg_advisory_xact_lock(hashtext(?))", (SCHEMA,))
        found = self._db.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = ?", (SCHEMA,)
        ).fetchall()
        names = {name for (name,) in found}
        if names:
            version = schema.check(names, lambda: self._db.execute("SELECT version, min_reader FROM meta").fetchone())
            for statement in schema.statements(version):
                self._db.execute(_translated(statement))
            self._check_owner()
            return
        self._db.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        for statement in schema.statements(0):
            self._db.execute(_translated(statement))
        table, function = _COMPLETE.split(";\n", 1)
        self._db.execute(table)
        self._db.execute(function)
        self._db.execute(
            "INSERT INTO meta VALUES(1, ?, ?, ?, 0, 0, NULL, ?)",
            (schema.VERSION, schema.MIN_READER, uuid.uuid4().hex, now),
        )

    def _check_owner(self) -> None:
        statement = f"SELECT owner, {_NOW} - renewed FROM meta FOR UPDATE"  # noqa: S608 - a constant
        owner, silence_ms = self._db.execute(statement).fetchone()
        mine = owner is None or str(owner).rpartition(" pid ")[0] == self._owner
        if not mine and silence_ms < OWNED_FOR_MS:
            text = f"the database {self.place} belongs to the deployment {owner}, which renewed it {silence_ms} ms ago"
            raise InUseError(f"{text}; each deployment needs a database of its own")

    def _claim_ownership(self, now: int) -> None:
        super()._claim_ownership(now)
        statement = f"UPDATE meta SET owner = ?, renewed = {_NOW}"  # noqa: S608 - a constant
        self._db.execute(statement, (f"{self._owner} pid {os.getpid()}",))

    def _guard(self, now: int) -> None:  # noqa: ARG002 - the server's clock counts, whichever host asks
        self._turn += 1
        statement = f"UPDATE meta SET turn = ?, renewed = {_NOW} WHERE epoch = ?"  # noqa: S608 - a constant
        if not self._db.execute(statement, (self._turn, self.epoch)).rowcount:
            raise FencedError("another process has taken the inbox over")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _named(self.place):
            self._db.raw.execute("BEGIN")
            try:
                yield
                self._db.flush()
            except BaseException:
                self._db.forget()
                with contextlib.suppress(psycopg.Error):
                    self._db.raw.execute("ROLLBACK")
                raise
            self._commit()

    def _commit(self) -> None:
        """Commit; if the reply is lost, find out what has become of it."""
        try:
            self._db.raw.execute("COMMIT")
        except psycopg.OperationalError as error:
            if not self._turn:
                raise
            logger.warning("the reply of the database %s to a commit is lost: %s", self.place, _line(error))
            with contextlib.suppress(psycopg.Error):
                self._db.raw.close()
            self._db = self._connect()
            # This waits until the server has ended the transaction, one way or the other.
            found = self._db.raw.execute("SELECT epoch, turn FROM meta FOR UPDATE").fetchone()
            if found is None or found[0] != self.epoch:
                raise FencedError("another process has taken the inbox over") from error
            if found[1] != self._turn:
                self._turn = int(found[1])
                raise _LostError("the connection was lost before the commit") from error

    def _read_ahead(self, turn: Turn) -> None:
        keys = [task.key for task in turn.new if task.key is not None and "\0" not in task.key]
        numbers = [ending.id for ending in turn.endings]
        self._absent, self._rows = set(keys), {}
        if keys:
            found = "SELECT key FROM task WHERE key = ANY(?) UNION ALL SELECT key FROM tombstone WHERE key = ANY(?)"
            self._absent.difference_update(key for (key,) in self.query(found, (keys, keys)))
        if numbers:
            self._rows = {row[0]: row[1:] for row in self.query(f"SELECT id, {_LOCKING} = ANY(?) {_LOCK}", (numbers,))}

    def _known(self, task: NewTask) -> Told | Conflict | None:
        if task.key in self._absent:
            self._absent.discard(task.key)
            return None
        return super()._known(task)

    def _row(self, task_id: int) -> Sequence[Any] | None:
        if (known := self._rows.pop(task_id, None)) is not None:
            return known
        row: Sequence[Any] | None = self._db.execute(f"SELECT {_LOCKING} = ? {_LOCK}", (task_id,)).fetchone()
        return row

    def _completed(self, ending: Ending, task: Standing) -> Ending:
        """Return what the agent's own transaction says, if the organ cannot say that the task was done."""
        event = ending.event
        if (
            not isinstance(event, Answer)
            or event.success
            or (task.state, task.attempt) != (State.LEASED, event.attempt)
        ):
            return ending
        found = self._db.execute(
            "SELECT answer FROM completion WHERE task = ? AND attempt = ?", (ending.id, event.attempt)
        ).fetchone()
        if found is None:
            return ending
        return Ending(ending.id, Answer(event.attempt, success=True, executed="yes"), bytes(found[0]))

    def _is_low(self) -> str:
        return ""


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    """Name the database in the errors of its driver."""
    try:
        yield
    except psycopg.Error as error:
        raise DatabaseError(f"the database {place} cannot be used: {_line(error)}") from error


def _translated(statement: str) -> str:
    """Return a statement that makes a table in PostgreSQL's words."""
    text = statement.replace("INTEGER", "BIGINT").replace("BLOB", "BYTEA").replace(" WITHOUT ROWID", "")
    return text.replace("TABLE story(", "TABLE story(n BIGINT GENERATED ALWAYS AS IDENTITY, ")


def _only_new(parameters: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of the URL that go before ours; its ``options`` come after ours."""
    kept = {key: value for key, value in given.items() if key in parameters}
    if "options" in kept:
        kept["options"] = f"{parameters['options']} {kept['options']}"
    return kept


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
