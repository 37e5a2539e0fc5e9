"""What only PostgreSQL has: owners on other hosts, lost replies, passwords, and tasks that agents complete."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from seedcore.coordinator.inbox import ids
from seedcore.coordinator.inbox.decisions import Answer, State
from seedcore.coordinator.inbox.inbox import Inbox
from seedcore.coordinator.inbox.messages import Claimed, Ending, NewTask, Room, Told, Turn
from seedcore.coordinator.inbox.place import InUseError
from seedcore.coordinator.inbox.postgres import DatabaseError, PostgresStore
from seedcore.coordinator.inbox.schema import SchemaError
from seedcore.coordinator.inbox.store import FencedError
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import ConfigError, InboxUnavailableError
from seedcore.core.reason import Reason
from seedcore.core.settings import Settings
from seedcore.core.spec import OrganismSpec, OrganSpec
from tests.support.fake_ray import FakeCluster
from tests.support.postgres import PASSWORD, Server
from tests.support.waiting import eventually

ROOM = Room("one.0", "boot", ("pay",), 10, 60_000)
DONE = b'{"success":true}'


@pytest.fixture
def database(server: Server) -> str:
    return server.new_database()


@pytest.fixture
def box(server: Server, database: str) -> Iterator[PostgresStore]:
    made = store(server, database)
    made.open()
    yield made
    made.close()


def store(server: Server, database: str, deployment: str = "test", host: str = "head") -> PostgresStore:
    return PostgresStore(server.url(database), deployment, passfile=server.passfile, host=host)


def new(number: int, **more: Any) -> NewTask:
    given = {"key": f"k{number}", "digest": b"d", "type": "pay", "lane": "pay", "domain": None, "body": b"{}", **more}
    return NewTask(id=number, **given)


def answer(number: int, *, success: bool = True, executed: Any = "yes") -> Ending:
    return Ending(number, Answer(1, success, executed), DONE if success else None)


def test_another_deployment_or_host_waits_until_the_owner_has_gone(server: Server, database: str) -> None:
    first = store(server, database)
    first.open()
    for other in (store(server, database, "other"), store(server, database, host="next")):
        with pytest.raises(InUseError, match="belongs to the deployment test on head pid"):
            other.open()
    first.turn(Turn(new=[new(1)]))

    # It has not renewed for a while, as after the loss of its host.
    with server.connect(database) as connection:
        connection.execute("UPDATE seedcore_inbox.meta SET renewed = renewed - 16000")
    after = store(server, database, host="next")
    assert after.open().epoch == 2
    with pytest.raises(FencedError):
        first.turn(Turn(new=[new(2)]))
    first.close()
    after.close()

    # One that has closed in good order is not waited for.
    third = store(server, database, "other")
    assert third.open().epoch == 3
    third.close()


def test_the_next_process_of_the_same_host_takes_over_at_once_and_the_old_one_is_fenced(
    server: Server, database: str, box: PostgresStore
) -> None:
    box.turn(Turn(new=[new(1)]))
    after = store(server, database)
    assert (after.open().epoch, after.turn(Turn(rooms=[ROOM])).claimed[0][0].id) == (2, 1)
    for turn in (Turn(new=[new(2)]), Turn(rooms=[ROOM]), Turn(endings=[answer(1)])):
        with pytest.raises(FencedError):
            box.turn(turn)
    assert after.turn(Turn(endings=[answer(1)])).counts == {("pay", State.DONE): 1}
    after.close()


def test_the_server_proves_who_it_is(server: Server, database: str) -> None:
    url = server.url(database, sslmode="verify-full", sslrootcert=str(server.authority))
    made = PostgresStore(url, "test", passfile=server.passfile)
    made.open()
    assert made.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [(True,)]
    made.close()
    # The certificate is not for this name.
    with pytest.raises(DatabaseError, match=r"certificate for .*does not match host name"):
        PostgresStore(url.replace("127.0.0.1", "localhost"), "test", passfile=server.passfile).open()


class Losing:
    """A connection whose COMMIT is executed, or not, and whose reply is lost."""

    def __init__(self, raw: Any, server: Server, *, commits: bool) -> None:
        self._raw, self._server, self._commits = raw, server, commits

    def execute(self, statement: str, values: Any = None) -> Any:
        if statement != "COMMIT":
            return self._raw.execute(statement, values)
        if self._commits:
            self._raw.execute("COMMIT")
        with self._server.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", (self._raw.info.backend_pid,))
        return self._raw.execute("SELECT 1")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "not committed"])
def test_a_commit_whose_reply_is_lost_is_neither_lost_nor_done_twice(
    server: Server, box: PostgresStore, *, commits: bool
) -> None:
    box.turn(Turn(new=[new(1)]))
    box._db.raw = Losing(box._db.raw, server, commits=commits)  # type: ignore[assignment]

    turned = box.turn(Turn(new=[new(2)], rooms=[ROOM]))

    assert turned.accepted == [Told(2, State.READY, lane="pay")], "not a duplicate"
    assert [task.id for task in turned.claimed[0]] == [1, 2]
    assert turned.counts == {("pay", State.LEASED): 2}
    assert box.query("SELECT id, state, attempt FROM task ORDER BY id") == [(1, 1, 1), (2, 1, 1)]
    assert box.turn(Turn(endings=[answer(1), answer(2)])).counts == {("pay", State.DONE): 2}


def test_a_commit_whose_reply_is_lost_while_another_takes_over_is_fenced(
    server: Server, database: str, box: PostgresStore
) -> None:
    box.turn(Turn(new=[new(1)]))
    box._db.raw = Losing(box._db.raw, server, commits=False)  # type: ignore[assignment]
    connect = box._connect

    def late() -> Any:
        after = store(server, database)
        after.open()
        # The number of its turn is the same by chance.
        for _ in range(2):
            after.turn(Turn())
        after.close()
        return connect()

    box._connect = late  # type: ignore[method-assign]
    with pytest.raises(FencedError):
        box.turn(Turn(new=[new(2)]))


def completing(server: Server, database: str, number: int, attempt: int, result: str = '{"paid": 7}') -> Any:
    """Do what an agent does: its effect and the completion in one transaction, which is still open."""
    connection = psycopg.connect(server.url(database), password=PASSWORD)
    connection.execute("CREATE TABLE IF NOT EXISTS public.effect(task BIGINT)")
    connection.execute("INSERT INTO public.effect VALUES(%s)", (number,))
    try:
        connection.execute("SELECT seedcore_inbox.complete(%s, %s, %s)", (ids.to_text(number), attempt, result))
    except psycopg.Error:
        connection.close()
        raise
    return connection


def effects(server: Server, database: str) -> int:
    with server.connect(database) as connection:
        if connection.execute("SELECT to_regclass('public.effect')").fetchone() == (None,):
            return 0
        return int((connection.execute("SELECT count(*) FROM public.effect").fetchone() or (0,))[0])


@pytest.mark.parametrize("number", [1, (7 << 32) + 12345])
def test_what_an_agent_has_completed_is_done_even_if_its_process_dies(
    server: Server, database: str, box: PostgresStore, number: int
) -> None:
    box.turn(Turn(new=[new(number)], rooms=[ROOM]))
    agent = completing(server, database, number, 1)
    agent.commit()
    agent.close()

    (told,) = box.turn(Turn(endings=[answer(number, success=False, executed="unknown")])).ended

    assert isinstance(told, Told)
    assert (told.state, told.executed) == (State.DONE, "yes")
    assert json.loads(told.answer or b"")["result"] == {"paid": 7}
    assert json.loads(told.answer or b"")["task_type"] == "pay"
    assert effects(server, database) == 1


def test_an_agent_needs_no_right_but_to_use_the_schema(server: Server, database: str, box: PostgresStore) -> None:
    box.turn(Turn(new=[new(1)], rooms=[ROOM]))
    with server.connect(database) as connection:
        connection.execute(f"CREATE ROLE agent LOGIN PASSWORD '{PASSWORD}'")
        connection.execute("GRANT USAGE ON SCHEMA seedcore_inbox TO agent")
    url = server.url(database).replace("postgres@", "agent@")
    with psycopg.connect(url, password=PASSWORD, autocommit=True) as agent:
        agent.execute("SELECT seedcore_inbox.complete(%s, %s, %s)", (ids.to_text(1), 1, None))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            agent.execute("SELECT * FROM seedcore_inbox.task")
    (told,) = box.turn(Turn(endings=[answer(1, success=False, executed="unknown")])).ended
    assert isinstance(told, Told)
    assert (told.state, json.loads(told.answer or b"")["result"]) == (State.DONE, None)


def test_the_effect_of_an_attempt_that_does_not_count_is_rolled_back(
    server: Server, database: str, box: PostgresStore
) -> None:
    box.turn(Turn(new=[new(1)], rooms=[ROOM]))
    box.turn(Turn(endings=[answer(1, success=False, executed="unknown")]))
    for number, attempt in ((1, 1), (1, 2), (2, 1)):
        with pytest.raises(psycopg.Error, match="does not count any more: roll back"):
            completing(server, database, number, attempt)
    assert effects(server, database) == 0
    assert box.turn(Turn()).counts == {("pay", State.PARKED): 1}


def test_an_agent_whose_transaction_is_open_is_waited_for(server: Server, database: str, box: PostgresStore) -> None:
    box.turn(Turn(new=[new(1)], rooms=[ROOM]))
    agent = completing(server, database, 1, 1)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'seedcore' AND wait_event_type = 'Lock'"

    pid = os.fork()
    if not pid:  # a process that commits once the inbox waits; a thread would share the test's interpreter lock
        os._exit(_commit_when(server, waits, agent))
    (told,) = box.turn(Turn(endings=[answer(1, success=False, executed="unknown")])).ended
    assert os.waitpid(pid, 0)[1] == 0
    agent.pgconn.finish()

    assert isinstance(told, Told)
    assert told.state is State.DONE


def _commit_when(server: Server, waits: str, agent: Any) -> int:
    with server.connect() as connection:
        eventually(lambda: connection.execute(waits).fetchone() == (1,), what="the inbox waits for the agent")
    agent.execute("COMMIT")
    return 0


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"dbname": "nope"}, 'database "nope" does not exist'),
        ({"user": "nobody"}, "password authentication failed|no password supplied"),
        ({"sslmode": "verify-full", "sslrootcert": "/dev/null"}, "127.0.0.1:[0-9]+/inbox cannot be used: .*certif"),
        ({"port": "1"}, "127.0.0.1:1/inbox cannot be used: .*Connection refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_named_in_one_line(
    server: Server, parameters: dict[str, str], expected: str
) -> None:
    url = f"postgresql://{parameters.pop('user', 'postgres')}@127.0.0.1:{parameters.pop('port', server.port)}/"
    url += parameters.pop("dbname", "inbox")
    url += "?" + "&".join(f"{key}={value}" for key, value in parameters.items())
    with pytest.raises(DatabaseError, match=expected) as refused:
        PostgresStore(url, "test", passfile=server.passfile).open()
    assert "\n" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_a_wrong_password_is_one_clear_error(server: Server, database: str, tmp_path: Path) -> None:
    passfile = tmp_path / "pgpass"
    passfile.write_text("*:*:*:*:a-wrong-one\n")
    passfile.chmod(0o600)
    with pytest.raises(DatabaseError, match='password authentication failed for user "postgres"') as refused:
        PostgresStore(server.url(database), "test", passfile=passfile).open()
    assert "a-wrong-one" not in str(refused.value)

    passfile.chmod(0o644)
    with pytest.raises(DatabaseError, match=r"others may read the file with the password, .*pgpass: chmod 600"):
        PostgresStore(server.url(database), "test", passfile=passfile).open()


def test_a_database_of_a_newer_schema_is_refused_and_left_alone(server: Server, database: str) -> None:
    first = store(server, database)
    first.open()
    first.close()
    with server.connect(database) as connection:
        connection.execute("UPDATE seedcore_inbox.meta SET version = 9, min_reader = 9")
        with pytest.raises(SchemaError, match="has schema 9, which needs a release with schema 9 or newer"):
            store(server, database).open()
        assert connection.execute("SELECT epoch FROM seedcore_inbox.meta").fetchone() == (1,)


def test_a_schema_of_another_program_is_refused(server: Server, database: str) -> None:
    with server.connect(database) as connection:
        connection.execute("CREATE SCHEMA seedcore_inbox CREATE TABLE other(a int)")
    with pytest.raises(SchemaError, match="is not a database of the inbox"):
        store(server, database).open()


async def test_while_the_server_is_away_nothing_is_accepted_and_then_all_goes_on(server: Server, database: str) -> None:
    cluster = FakeCluster()
    spec = OrganismSpec(organs=(OrganSpec(id="pay", type="Test", agent="m:f", task_types=("pay",)),))
    organism = OrganismManager(spec, release="1", runtime=cluster, on_change=lambda: None)
    place = store(server, database).place
    inbox = Inbox(lambda: store(server, database), place, runtime=cluster, organism=lambda: organism)
    try:
        await inbox.begin()
        assert inbox.summary()["store"] == f"127.0.0.1:{server.port}/{database}"
        session = inbox._session
        assert session is not None
        assert (await session.pump.add(new(session.next_id()))).id == ids.make(1, 1)

        server.stop(signal.SIGQUIT)
        with pytest.raises(InboxUnavailableError):
            await session.pump.add(new(2))
        await asyncio.wait_for(_until(lambda: inbox._session is None), 30)
        judged = inbox.judge()
        server.start()

        assert judged is not None
        assert judged[0] is Reason.INBOX_UNAVAILABLE
        assert f"127.0.0.1:{server.port}/{database}" in judged[1]
        assert PASSWORD not in judged[1]
    finally:
        await inbox.close()
        await cluster.close()
    after = store(server, database)
    assert after.open().counts == {("pay", State.READY): 1}
    after.close()


async def _until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.005)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    for url in ("postgresql://me:hunter2@db/inbox", "postgresql://db/inbox?password=hunter2"):
        with pytest.raises(ConfigError, match="put it into the file that SEEDCORE_INBOX_PASSFILE names") as refused:
            Settings.from_env({"SEEDCORE_INBOX": url})
        assert "hunter2" not in str(refused.value)
    for url in ("mysql://db/inbox", "postgresql://db:port/inbox"):
        with pytest.raises(ConfigError, match="expected sqlite, none or a URL such as postgresql://user@host/database"):
            Settings.from_env({"SEEDCORE_INBOX": url})


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("postgresql://me@DB.example:5433/Inbox?sslmode=verify-full", "DB.example:5433/Inbox"),
        ("postgres:///inbox?host=/run/postgresql", "/run/postgresql/inbox"),
        ("SQLite", "sqlite"),
        ("none", ""),
    ],
)
def test_the_place_of_the_inbox_is_named_without_its_user(value: str, place: str) -> None:
    assert Settings.from_env({"SEEDCORE_INBOX": value}).inbox_place == place


def test_a_turn_with_many_tasks_asks_the_server_no_more_often_than_one_with_few(
    box: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    execute = box._db.execute

    def counting(statement: str, values: Any = ()) -> Any:
        if statement.startswith("SELECT"):
            asked.append(statement)
        return execute(statement, values)

    monkeypatch.setattr(box._db, "execute", counting)
    counts: list[int] = []
    claimed: list[Claimed] = []
    number = 0
    for size in (5, 5, 200, 200):
        asked.clear()
        tasks = [new(number + one) for one in range(1, size + 1)]
        number += size
        room = Room("one.0", "boot", ("pay",), size, 60_000)
        turned = box.turn(Turn(tasks, [answer(task.id) for task in claimed], [room]))
        claimed = turned.claimed[0]
        assert len(claimed) == size
        counts.append(len(asked))
    assert counts[1] == counts[3] <= 8, counts
