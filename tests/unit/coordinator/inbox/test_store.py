"""The store, in SQLite on a real disk and in a real PostgreSQL: what a turn does, and what it refuses."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seedcore.coordinator.inbox import schema, sqlite, store
from seedcore.coordinator.inbox.decisions import Answer, Order, State
from seedcore.coordinator.inbox.messages import (
    Claimed,
    Conflict,
    Ending,
    Leased,
    NewTask,
    Refused,
    Room,
    Told,
    Turn,
    Turned,
)
from seedcore.coordinator.inbox.place import DATABASE, InUseError
from seedcore.coordinator.inbox.sqlite import SqliteStore
from seedcore.coordinator.inbox.store import FencedError, Store
from tests.unit.coordinator.inbox.conftest import MakeStore


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(make_store: MakeStore, clock: Clock) -> Iterator[Store]:
    made = make_store(clock)
    made.open()
    yield made
    made.close()


@pytest.fixture
def in_sqlite(tmp_path: Path, clock: Clock) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "inbox", "test", clock=clock)
    made.open()
    yield made
    made.close()


def new(number: int, **more: Any) -> NewTask:
    given = {"key": f"k{number}", "digest": b"d", "type": "pay", "lane": "pay", "domain": None, "body": b"{}", **more}
    return NewTask(id=number, **given)


ROOM = Room("one.0", "boot1", ("pay",), 10, 60_000)


def only(turned: Turned) -> Told | Conflict:
    (told,) = turned.accepted
    return told


def done(task: Claimed, answer: bytes = b'{"success":true}') -> Ending:
    return Ending(task.id, Answer(task.attempt, success=True, executed="yes"), answer)


def reopened(old: Store, make_store: MakeStore, clock: Clock) -> tuple[Store, Any]:
    old.close()
    made = make_store(clock)
    return made, made.open()


def test_a_task_is_accepted_claimed_and_done(opened: Store, clock: Clock) -> None:
    first = opened.turn(Turn(new=[new(1, body=b'{"params":{}}')], rooms=[ROOM]))

    assert first.accepted == [Told(1, State.READY, lane="pay")]
    assert first.claimed == [[Claimed(1, 1, "pay", None, "k1", b'{"params":{}}', 60_000)]]
    assert first.counts == {("pay", State.LEASED): 1}

    second = opened.turn(Turn(endings=[done(first.claimed[0][0])]))

    assert second.ended == [Told(1, State.DONE, executed="yes", answer=b'{"success":true}', lane="pay")]
    assert second.counts == {("pay", State.DONE): 1}
    assert opened.told(1) == Told(1, State.DONE, executed="yes", answer=b'{"success":true}', lane="pay")


def test_what_is_accepted_survives_the_process(opened: Store, make_store: MakeStore, clock: Clock) -> None:
    opened.turn(Turn(new=[new(1), new(2), new(3, lane="pay\neu")], rooms=[Room("one.0", "b", ("pay",), 1, 60_000)]))

    after, found = reopened(opened, make_store, clock)

    assert found.epoch == 2
    assert found.leased == [Leased(1, 1, "one.0", "b", clock.now + 60_000 + store.LEASE_GRACE_MS)]
    assert found.lanes == {"pay", "pay\neu"}
    assert found.counts == {("pay", State.READY): 2, ("pay", State.LEASED): 1}
    after.close()


def test_the_same_key_is_the_same_task_with_its_answer(opened: Store) -> None:
    (claimed,) = opened.turn(Turn(new=[new(1)], rooms=[ROOM])).claimed[0]
    assert only(opened.turn(Turn(new=[new(2, key="k1")]))) == Told(1, State.LEASED, duplicate=True, lane="pay")

    opened.turn(Turn(endings=[done(claimed)]))

    told = only(opened.turn(Turn(new=[new(3, key="k1")])))
    assert told == Told(1, State.DONE, True, "yes", b'{"success":true}', "", "pay")


def test_a_key_of_another_task_is_a_conflict_and_nothing_is_accepted(opened: Store) -> None:
    turned = opened.turn(Turn(new=[new(1), new(2, key="k1", digest=b"other"), new(3)]))

    assert turned.accepted == [Told(1, State.READY, lane="pay"), Conflict(1), Told(3, State.READY, lane="pay")]
    assert opened.told(2) is None


def test_tasks_without_a_key_are_all_different(opened: Store) -> None:
    turned = opened.turn(Turn(new=[new(1, key=None), new(2, key=None)]))
    assert [told.id for told in turned.accepted] == [1, 2]


def test_higher_priorities_begin_first_then_older_tasks(opened: Store) -> None:
    tasks = [new(1), new(2, priority=5), new(3, lane="refund"), new(4, lane="refund", priority=5), new(5, priority=-1)]
    turned = opened.turn(Turn(new=tasks, rooms=[Room("one.0", "b", ("pay", "refund"), 4, 60_000)]))
    assert [task.id for task in turned.claimed[0]] == [2, 4, 1, 3]


def test_a_claim_takes_only_its_queues_and_only_what_there_is_room_for(opened: Store) -> None:
    opened.turn(Turn(new=[new(number) for number in range(1, 6)] + [new(9, lane="other")]))
    turned = opened.turn(
        Turn(rooms=[Room("a.0", "x", ("pay",), 2, 60_000), Room("b.0", "y", ("pay", "other"), 9, 60_000)])
    )
    assert [[task.id for task in claimed] for claimed in turned.claimed] == [[1, 2], [3, 4, 5, 9]]


def test_an_answer_of_an_earlier_attempt_changes_nothing(opened: Store) -> None:
    (first,) = opened.turn(Turn(new=[new(1)], rooms=[ROOM])).claimed[0]
    back = Ending(1, Answer(1, success=False, executed="no", pause_ms=0))
    (second,) = opened.turn(Turn(endings=[back], rooms=[ROOM])).claimed[0]
    assert second.attempt == 2

    assert opened.turn(Turn(endings=[done(first)])).ended == [None]

    assert opened.turn(Turn(endings=[done(second)])).ended[0] == Told(
        1, State.DONE, executed="yes", answer=b'{"success":true}', lane="pay"
    )


def test_what_did_not_begin_is_ready_again_after_a_pause(opened: Store, clock: Clock) -> None:
    opened.turn(Turn(new=[new(1)], rooms=[ROOM]))
    bounced = opened.turn(Turn(endings=[Ending(1, Answer(1, success=False, executed="no"))], rooms=[ROOM]))
    assert (bounced.claimed, bounced.next_due_ms) == ([[]], clock.now + 50)

    clock.now += 50
    again = opened.turn(Turn(rooms=[ROOM]))

    assert [task.attempt for task in again.claimed[0]] == [2]
    assert again.lanes == {"pay"}
    assert again.next_due_ms is None


def test_a_task_that_has_not_begun_by_its_deadline_expires(opened: Store, clock: Clock) -> None:
    first = opened.turn(Turn(new=[new(1, deadline=clock.now + 100)]))
    assert first.next_due_ms == clock.now + 100

    clock.now += 100
    turned = opened.turn(Turn(rooms=[ROOM]))

    assert turned.expired == [Told(1, State.EXPIRED, executed="no", lane="pay")]
    assert turned.claimed == [[]]


def test_an_unknown_outcome_is_parked_and_a_person_decides(opened: Store) -> None:
    opened.turn(Turn(new=[new(1)], rooms=[ROOM]))
    died = Ending(
        1, Answer(1, success=False, executed="unknown"), b'{"success":false}', "OrganUnavailableError", "died"
    )
    assert opened.turn(Turn(endings=[died])).ended[0] == Told(
        1, State.PARKED, executed="unknown", answer=b'{"success":false}', error="died", lane="pay"
    )
    assert opened.turn(Turn(rooms=[ROOM])).claimed == [[]]

    turned = opened.turn(Turn(endings=[Ending(1, Order("retry"), by="ann")], rooms=[ROOM]))

    assert [task.attempt for task in turned.claimed[0]] == [2]
    task = opened.read(1)
    assert task is not None
    assert [(entry["what"], entry["attempt"], entry["executed"], entry["who"]) for entry in task["story"]] == [
        ("parked", 1, "unknown", ""),
        ("retry", 1, "unknown", "ann"),
    ]
    assert task["answer"] is None


def test_an_order_that_the_state_does_not_allow_is_refused(opened: Store) -> None:
    opened.turn(Turn(new=[new(1)]))
    turned = opened.turn(Turn(endings=[Ending(1, Order("retry")), Ending(77, Order("cancel"))]))
    assert turned.ended == [Refused(1, State.READY), Refused(77, None)]


def test_large_params_and_answers_come_back_whole(opened: Store) -> None:
    body, answer = b"p" * 5000, b"a" * 5000
    (task,) = opened.turn(Turn(new=[new(1, body=body)], rooms=[ROOM])).claimed[0]
    assert task.body == body
    opened.turn(Turn(endings=[done(task, answer)]))

    told, read = opened.told(1), opened.read(1)

    assert told is not None
    assert read is not None
    assert (told.answer, read["answer"], read["body"]) == (answer, answer, body)


def test_a_store_that_was_taken_over_writes_nothing(opened: Store) -> None:
    opened._db.execute("UPDATE meta SET epoch = epoch + 1")

    with pytest.raises(FencedError):
        opened.turn(Turn(new=[new(1)]))

    assert opened.told(1) is None
    assert opened._counts == {}


def test_another_deployment_is_refused_while_this_one_lives(tmp_path: Path, in_sqlite: SqliteStore) -> None:
    with pytest.raises(InUseError, match=r"belongs to the deployment 'test' \(pid \d+\)"):
        SqliteStore(tmp_path / "inbox", "other").open()


def test_a_database_of_a_newer_schema_is_refused_and_left_alone(
    tmp_path: Path, in_sqlite: SqliteStore, clock: Clock
) -> None:
    in_sqlite._db.execute("UPDATE meta SET version = 9, min_reader = 9")
    in_sqlite.close()
    other = SqliteStore(tmp_path / "inbox", "test", clock=clock)

    with pytest.raises(schema.SchemaError, match="has schema 9, which needs a release with schema 9 or newer"):
        other.open()

    with sqlite3.connect(tmp_path / "inbox" / DATABASE) as seen:
        assert seen.execute("SELECT epoch FROM meta").fetchone() == (1,)
    seen.close()
    with sqlite3.connect(tmp_path / "inbox" / DATABASE) as seen:
        seen.execute("UPDATE meta SET min_reader = 1")
    seen.close()
    assert other.open().epoch == 2, "a newer schema that this release can read is in_sqlite"


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    with sqlite3.connect(tmp_path / "inbox" / DATABASE) as other:
        other.execute("CREATE TABLE recipes(name TEXT)")
    other.close()
    with pytest.raises(schema.SchemaError, match="is not a database of the inbox"):
        SqliteStore(tmp_path / "inbox", "test").open()


def test_only_the_owner_may_read_the_files(tmp_path: Path, in_sqlite: SqliteStore) -> None:
    in_sqlite.turn(Turn(new=[new(1)]))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "inbox").iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE((tmp_path / "inbox").stat().st_mode) == 0o700


def test_what_ended_long_ago_is_deleted_and_its_key_remembered(opened: Store, clock: Clock) -> None:
    claimed = opened.turn(Turn(new=[new(1), new(2, key=None), new(3)], rooms=[ROOM])).claimed[0]
    opened.turn(Turn(endings=[done(task) for task in claimed[:2]]))
    opened.turn(Turn(endings=[Ending(3, Answer(1, success=False, executed="yes"), b"{}", "OSError", "no file")]))
    assert opened.tidy() == 0

    clock.now += store.KEEP_MS + 1

    assert opened.tidy() == 2
    assert opened.told(1) is None
    assert opened.told(3) is not None, "what failed waits for a person"
    assert only(opened.turn(Turn(new=[new(9, key="k1")]))) == Told(
        1, State.DONE, True, "yes", error="its answer has been deleted"
    )
    assert only(opened.turn(Turn(new=[new(9, key="k1", digest=b"other")]))) == Conflict(1)

    clock.now += store.KEEP_KEYS_MS
    opened.tidy()
    assert only(opened.turn(Turn(new=[new(9, key="k1")]))) == Told(9, State.READY, lane="pay")


def test_the_counts_are_those_of_the_table(opened: Store, make_store: MakeStore, clock: Clock) -> None:
    claimed = opened.turn(Turn(new=[new(number) for number in range(1, 9)], rooms=[ROOM])).claimed[0]
    endings = [done(claimed[0]), Ending(2, Answer(1, success=False, executed="unknown")), Ending(3, Order("cancel"))]
    turned = opened.turn(Turn(endings=endings))

    _, found = reopened(opened, make_store, clock)

    assert turned.counts == found.counts == {("pay", State.LEASED): 6, ("pay", State.DONE): 1, ("pay", State.PARKED): 1}


def test_too_many_tasks_and_a_full_disk_are_told(
    in_sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert in_sqlite.turn(Turn(new=[new(1)])).is_full == ""
    monkeypatch.setattr(store, "LIMIT", 2)
    assert "the limit is 2" in in_sqlite.turn(Turn(new=[new(2)])).is_full
    monkeypatch.setattr(sqlite, "_LOOK_AT_DISK_S", 0.0)
    disk = os.statvfs(tmp_path)
    low = type("Disk", (), {"f_bavail": disk.f_blocks // 100, "f_blocks": disk.f_blocks})
    monkeypatch.setattr(os, "statvfs", lambda _: low)
    assert "less than 5% of the disk" in in_sqlite.turn(Turn()).is_full


def test_tasks_are_listed_without_their_content(opened: Store, clock: Clock) -> None:
    opened.turn(Turn(new=[new(1), new(2, type="refund", lane="refund")]))
    clock.now += 1000
    opened.turn(Turn(new=[new(3)]))

    assert [task["id"] for task in opened.find([State.READY], None, 0, 10)] == [3, 2, 1]
    assert [task["id"] for task in opened.find([State.READY], "pay", 0, 1)] == [3]
    assert [task["id"] for task in opened.find([State.READY], None, clock.now, 10)] == [3]
    assert opened.find([State.PARKED], None, 0, 10) == []
    assert "body" not in opened.find([State.READY], None, 0, 10)[0]


def test_it_tells_since_when_the_oldest_task_of_each_queue_waits(opened: Store, clock: Clock) -> None:
    assert opened.ready_since() == {}
    opened.turn(Turn(new=[new(1, priority=0), new(2, type="mail", lane="mail\neu", domain="eu")]))
    first, clock.now = clock.now, clock.now + 5_000
    # Later ones that begin earlier do not hide it.
    opened.turn(Turn(new=[new(3, priority=9), new(4, priority=-1), new(5, type="mail", lane="mail")]))
    assert opened.ready_since() == {"mail": clock.now, "mail\neu": first, "pay": first}

    opened.turn(Turn(rooms=[replace(ROOM, tasks=2)]))
    assert opened.ready_since() == {"mail": clock.now, "mail\neu": first, "pay": clock.now}


def test_the_question_takes_as_many_steps_with_many_tasks_as_with_few(in_sqlite: SqliteStore) -> None:
    def steps() -> int:
        count = [0]

        def counted() -> int:
            count[0] += 1
            return 0

        in_sqlite._db.set_progress_handler(counted, 1)
        assert len(in_sqlite.ready_since()) == 1
        in_sqlite._db.set_progress_handler(None, 0)
        return count[0]

    in_sqlite.turn(Turn(new=[new(1)]))
    few = steps()
    in_sqlite.turn(Turn(new=[new(number) for number in range(2, 3000)]))
    assert steps() < few + 50
