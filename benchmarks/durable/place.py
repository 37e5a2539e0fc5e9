"""The cluster of the long test: a Ray head, its supervisor, the organism, and where the inbox is."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import psycopg

from benchmarks.durable.verdict import Row
from seedcore.coordinator.inbox.decisions import State
from seedcore.coordinator.inbox.ids import to_text
from seedcore.coordinator.inbox.place import DATABASE
from seedcore.core.settings import Settings
from seedcore.status.probing import probe
from seedcore.status.report import Report
from tests.support.postgres import Server, running
from tests.support.ray_head import RayHead
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
NAMESPACE = "durable-soak"
UP_S = 180.0
COMMAND_S = 300.0
_SUPERVISE = ("supervise", "--interval", "0.5", "--hang-timeout", "6", "--bootstrap-timeout", "120")
_ROWS = "SELECT key, id, type, state, attempt, executed FROM task WHERE key IS NOT NULL"


class Place:
    """One cluster.

    Args:
        server: The PostgreSQL server of the inbox; None for SQLite.
    """

    def __init__(self, server: Server | None) -> None:
        self.server = server
        self.head = RayHead()
        scope = self.head.scope(NAMESPACE)
        self._database = server.new_database() if server else ""
        inbox = server.url(self._database) if server else "sqlite"
        self.settings: Settings = replace(scope, inbox=inbox, inbox_passfile=server.passfile if server else None)
        self.ledger = self.head.directory / "ledger"
        self.organism = self.head.directory / "organism.yaml"
        self.agent_count = 3
        self._supervisor: subprocess.Popen[bytes] | None = None

    @property
    def kinds(self) -> list[str]:
        """Return the task types that the organism takes."""
        return ["pay", "fetch", *(["book"] if self.server else [])]

    def start(self) -> None:
        """Start Ray, the supervisor and the organism."""
        self.ledger.touch()
        if self.server:
            with self._connect() as connection:
                connection.execute("CREATE TABLE effect(key TEXT, attempt BIGINT)")
        self.head.start()
        self.bootstrap()
        self._supervise()

    def restart_head(self) -> None:
        """Kill every process of the cluster, and start Ray and the supervisor again, as a reboot does."""
        self.stop()
        self.head.start()
        self._supervise()

    def bootstrap(self) -> None:
        """Bring up the organism of :attr:`agent_count`, or reload a running one."""
        self.organism.write_text(json.dumps(self._organism()))
        done = self._seedcore("bootstrap", "--config", str(self.organism), "--wait-timeout", f"{UP_S:g}")
        if done.returncode != 0:
            raise click.ClickException(f"bootstrap: {done.stdout}{done.stderr}")

    def report(self) -> Report:
        """Return the status."""
        return probe(self.settings, timeout_s=10)

    def wait_for_health(self) -> Report:
        """Return the status once it is healthy."""
        return eventually(lambda: report if (report := self.report()).healthy else None, timeout_s=UP_S, what="health")

    def is_quiet(self) -> bool:
        """Return whether no task waits or runs."""
        tasks = (self.report().coordinator.get("inbox") or {}).get("tasks") or {"ready": 1}
        return not any(tasks.get(state) for state in ("ready", "leased", "later"))

    def stop(self) -> None:
        """Kill every process of the cluster, so that its SQLite file can be read: one process owns it."""
        self.head.kill()
        self._reap()

    def rows(self) -> dict[str, Row]:
        """Return all tasks of the store that have a key; a SQLite store must have been stopped."""
        return {
            str(key): Row(to_text(number), str(kind), State(state).word, int(attempt), str(executed or ""))
            for key, number, kind, state, attempt, executed in self._select(_ROWS)
        }

    def effects(self) -> Counter[str]:
        """Return how often each key was written down."""
        found = Counter(line.split()[0] for line in self.ledger.read_text().splitlines())
        if self.server:
            with self._connect() as connection:
                found.update(key for (key,) in connection.execute("SELECT key FROM effect").fetchall())
        return found

    def integrity(self) -> str:
        """Return what the store says about itself; ``ok`` if nothing is wrong."""
        return "ok" if self.server else str(self._select("PRAGMA integrity_check")[0][0])

    def crash_database(self, away_s: float) -> None:
        """Let the PostgreSQL server crash, and start it again."""
        if self.server:
            self.server.stop()
            time.sleep(away_s)
            self.server.start()

    def end_sessions(self) -> None:
        """Let the PostgreSQL server end the sessions of the inbox."""
        with self._connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid()"
            )

    def close(self) -> None:
        """Kill everything and remove the directory."""
        self.head.close()
        self._reap()

    def _reap(self) -> None:
        """Wait for the supervisor, which was killed with everything else of the cluster."""
        if self._supervisor is not None:
            self._supervisor.wait(timeout=COMMAND_S)
            self._supervisor = None

    def _connect(self) -> psycopg.Connection[Any]:
        if self.server is None:
            raise click.UsageError("the inbox is not in PostgreSQL")
        return self.server.connect(self._database)

    def _select(self, statement: str) -> list[tuple[Any, ...]]:
        if self.server:
            with self._connect() as connection:
                connection.execute("SET search_path = seedcore_inbox, public")
                return list(connection.execute(statement.encode()).fetchall())
        path = self.settings.state_dir / "inbox" / DATABASE
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as connection:
            return list(connection.execute(statement))

    def _supervise(self) -> None:
        log = (self.head.directory / "supervise.log").open("ab")
        with log:
            self._supervisor = self._spawn(*_SUPERVISE, stdout=log, stderr=log)

    def _seedcore(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self._spawn(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = process.communicate(timeout=COMMAND_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def _spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        environ = self.head.env(self.settings)
        environ["PYTHONPATH"] = f"{environ['PYTHONPATH']}:{ROOT}"
        argv = [sys.executable, "-m", "seedcore", *arguments]
        return subprocess.Popen(argv, env=environ, cwd=ROOT, stdin=subprocess.DEVNULL, **options)  # noqa: S603 - ours

    def _organism(self) -> dict[str, Any]:
        def organ(name: str, agent: str, **options: Any) -> dict[str, Any]:
            own = {"id": name, "type": "Soak", "agent": f"benchmarks.durable.agents:{agent}", "task_types": [name]}
            return {**own, "agent_count": self.agent_count, "repeatable": name != "pay", "options": options}

        organs = [organ(name, "Writer", path=str(self.ledger)) for name in ("pay", "fetch")]
        if self.server:
            url = self.server.url(self._database)
            organs.append(organ("book", "Booker", url=url, passfile=str(self.server.passfile)))
        task = {"type": "fetch", "params": {"n": "beat", "seconds": 0}}
        beat = {"id": "beat", "every": "5s", "misfire": "all", "overlap": "allow", "task": task}
        return {"seedcore": {"organism": {"organ_types": organs, "schedules": [beat]}}}


@contextmanager
def place(store: str) -> Iterator[Place]:
    """Provide a cluster that is up, with its inbox in ``sqlite`` or ``postgresql``."""
    with running() if store == "postgresql" else _nothing() as server:
        cluster = Place(server)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.close()


@contextmanager
def _nothing() -> Iterator[None]:
    yield None
