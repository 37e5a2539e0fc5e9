"""Schedules in the store: one task for each planned moment, whatever dies and however the clock is set."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seedcore.coordinator.inbox.decisions import Answer, State
from seedcore.coordinator.inbox.documents import schedule
from seedcore.coordinator.inbox.messages import Ending, Room, Told, Turn, Turned
from seedcore.coordinator.inbox.sqlite import SqliteStore
from seedcore.core.errors import NoTaskError, WrongStateError
from seedcore.core.schedule import ScheduleSpec
from seedcore.core.spec import OrganSpec
from tests.support.waiting import eventually
from tests.unit.coordinator.inbox.conftest import MakeStore

ORGAN = OrganSpec(
    id="one", type="Test", agent="m:f", task_types=("pay",), domains={"eu": ("pay",)}, repeatable=True
)  # fmt: skip
ROOM = Room("one.0", "boot", ("pay", "pay\neu"), 10, 60_000)
START = 1_700_000_000_000


class Box:
    """A store with a clock of its own."""

    def __init__(self, make: MakeStore) -> None:
        self.make = make
        self.now = START
        self.open()

    def open(self) -> None:
        self.store = self.make(lambda: self.now)
        self.opened = self.store.open()

    def again(self, *specs: ScheduleSpec) -> None:
        """Go on as the next process."""
        self.store.close()
        self.open()
        self.sync(*specs)

    def sync(self, *specs: ScheduleSpec) -> None:
        self.store.on_schedules(lambda table, now: table.sync((ORGAN,), specs, now))

    def put(self, spec: ScheduleSpec) -> bool:
        return self.store.on_schedules(lambda table, now: table.put(spec, now))

    def change(self, verb: str, name: str = "s") -> Told | None:
        return self.store.on_schedules(lambda table, now: table.change(name, verb, now, "me"))

    def turn(self, seconds: float = 0, *, rooms: bool = False, endings: Any = ()) -> Turned:
        self.now += int(seconds * 1000)
        return self.store.turn(Turn(endings=endings, rooms=[ROOM] if rooms else []))

    def keys(self) -> list[str]:
        return [key for (key,) in self.store.query("SELECT key FROM task ORDER BY id")]

    def row(self, name: str = "s") -> dict[str, Any]:
        (row,) = (row for row in self.store.on_schedules(lambda table, _: table.all()) if row["id"] == name)
        return row


@pytest.fixture
def box(make_store: MakeStore) -> Iterator[Box]:
    made = Box(make_store)
    yield made
    made.store.close()


def spec(name: str = "s", **keys: Any) -> ScheduleSpec:
    given = {"task": {"type": "pay", "params": {"a": 1}}, "every": 10, "overlap": "allow", **keys}
    return ScheduleSpec(id=name, **given)


def key(seconds: int, name: str = "s") -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START // 1000 + seconds))
    return f"schedule:{name}:{moment}"


def test_a_task_is_planned_at_each_moment_and_says_which(box: Box) -> None:
    box.sync(spec())
    first = box.turn()
    assert (first.next_due_ms, box.keys()) == (START + 10_000, [])

    due = box.turn(10, rooms=True)

    assert [(task.key, task.type, task.body) for task in due.claimed[0]] == [
        (key(10), "pay", b'{"params":{"a":1},"description":"","drift_score":0.0}')
    ]
    assert due.next_due_ms == START + 20_000
    assert box.turn(3).lanes == frozenset()
    assert box.turn(7).lanes == {"pay"}
    assert box.keys() == [key(10), key(20)]
    (row,) = box.store.query("SELECT submitter, repeatable FROM task WHERE key = ?", (key(10),))
    assert row == ("schedule s", 1)


def test_before_the_organism_is_there_nothing_is_planned(box: Box) -> None:
    box.sync(spec(misfire="all"))
    box.store.close()
    box.open()
    assert box.turn(35).next_due_ms is None
    assert box.keys() == []
    box.sync(spec(misfire="all"))
    box.turn()
    assert box.keys() == [key(10), key(20), key(30)]


def test_what_dies_before_the_commit_has_planned_nothing_and_the_next_one_does(tmp_path: Path) -> None:
    box = Box(lambda clock: SqliteStore(tmp_path, "test", clock=clock))
    box.sync(spec())
    taken = box.store._db

    class Dying:
        """Fails at the commit, when the task and the next moment are written."""

        def execute(self, statement: str, values: Any = ()) -> Any:
            if statement == "COMMIT":
                raise OSError("killed")
            return taken.execute(statement, values)

    box.store._db = Dying()
    with pytest.raises(OSError, match="killed"):
        box.turn(10)
    box.store._db = taken
    assert box.keys() == []
    assert box.row()["next"] == START + 10_000

    # The same process goes on as well as the next one.
    box.turn()
    assert box.keys() == [key(10)]
    box.again(spec())
    box.turn()
    assert box.keys() == [key(10)]
    box.store.close()


def test_a_clock_that_is_set_plans_nothing_twice(box: Box) -> None:
    box.sync(spec(misfire="all"))
    box.turn(10)
    box.turn(-3600)
    box.again(spec(misfire="all"))
    box.turn(5)
    assert box.keys() == [key(10)]
    box.turn(3595)
    assert box.row()["next"] == START + 20_000
    # Forward by a minute: the moments in between are late by less than their grace, or are made up for.
    box.turn(70)
    assert box.keys() == [key(10 * n) for n in range(1, 9)]
    # Even if somebody makes it anew after the clock has gone back: the keys are there.
    box.now = START
    box.sync()
    box.sync(spec(misfire="all"))
    box.turn(80)
    assert box.keys() == [key(10 * n) for n in range(1, 9)]


def test_missed_moments_are_counted(box: Box) -> None:
    box.sync(spec())
    box.turn(100)
    assert box.keys() == [key(100)]
    assert (box.row()["missed"], box.row()["last_planned"]) == (9, START + 100_000)


def test_no_task_is_planned_while_the_previous_one_has_not_ended(box: Box) -> None:
    box.sync(spec(overlap="forbid"))
    (task,) = box.turn(10, rooms=True).claimed[0]
    box.turn(10)
    box.turn(10)
    assert (box.keys(), box.row()["overlapped"]) == ([key(10)], 2)
    box.turn(5, endings=[Ending(task.id, Answer(1, success=True, executed="yes"), b"{}")])
    box.turn(5)
    assert box.keys() == [key(10), key(40)]


def test_replace_cancels_the_previous_task(box: Box) -> None:
    box.sync(spec(overlap="replace"))
    box.turn(10)
    replaced = box.turn(10, rooms=True)
    assert [told.state for told in replaced.expired] == [State.CANCELLED]
    (running,) = replaced.claimed[0]
    assert running.key == key(20)

    asked = box.turn(10)

    assert asked.cancelling == [running.id]
    assert box.keys() == [key(10), key(20), key(30)]
    answer = Answer(1, success=False, executed="no")
    (ended,) = box.turn(0, endings=[Ending(running.id, answer)]).ended
    assert isinstance(ended, Told)
    assert ended.state is State.CANCELLED


def test_a_domain_that_an_organ_claims_decides_the_queue(box: Box) -> None:
    box.sync(spec(task={"type": "pay", "domain": "eu"}), spec("other", task={"type": "pay", "domain": "us"}))
    assert box.turn(10).lanes == {"pay\neu", "pay"}


def test_the_file_rules_over_its_own_schedules_only(box: Box) -> None:
    box.sync(spec(), spec("b"))
    assert box.put(spec("h"))
    assert not box.put(spec("h", every=20))
    with pytest.raises(WrongStateError, match=r"the schedule 's' is one of organism\.yaml; change it there"):
        box.put(spec())
    with pytest.raises(WrongStateError, match="remove it there, or pause it"):
        box.change("delete")

    box.again(spec())

    assert [row["id"] for row in box.store.on_schedules(lambda table, _: table.all())] == ["h", "s"]
    box.change("delete", "h")
    with pytest.raises(NoTaskError, match="there is no schedule 'h'"):
        box.change("pause", "h")


def test_a_changed_one_keeps_what_it_has_planned(box: Box) -> None:
    box.sync(spec())
    box.turn(10)
    box.sync(spec(every=60))
    assert (box.row()["last_planned"], box.row()["next"]) == (START + 10_000, START + 70_000)
    # If only its task changes, not even a moment that is overdue is lost.
    box.now += 61_000
    box.again(spec(every=60, task={"type": "pay"}))
    box.turn()
    assert box.keys() == [key(10), key(70)]


def test_a_paused_one_plans_nothing_and_misses_nothing(box: Box) -> None:
    box.sync(spec(misfire="all"))
    box.change("pause")
    box.again(spec(misfire="all"))
    box.turn(35)
    assert box.keys() == []
    box.change("resume")
    assert box.row()["next"] == START + 45_000
    box.turn(10)
    assert (box.keys(), box.row()["missed"]) == ([key(45)], 0)


def test_run_makes_one_task_beside_the_planned_ones(box: Box) -> None:
    box.sync(spec())
    told = box.change("run")
    assert told is not None
    assert box.keys() == [f"schedule:s:run-{START}"]
    assert box.row()["next"] == START + 10_000
    assert schedule(box.row())["last_task"] is not None
    assert box.turn(0, rooms=True).claimed[0][0].id == told.id


def test_a_single_moment_is_over_and_is_deleted_later(box: Box) -> None:
    box.sync()
    box.put(spec("once", every=None, at="2023-11-14T22:13:30Z"))
    assert box.turn(10).next_due_ms is None
    assert box.keys() == [key(10, "once")]
    document = schedule(box.row("once"))
    assert (document["next"], document["last_planned"]) == (None, "2023-11-14T22:13:30+00:00")
    box.now += 8 * 86_400_000
    box.store.tidy()
    assert box.store.on_schedules(lambda table, _: table.all()) == []


def test_a_database_of_the_release_before_gets_the_table(tmp_path: Path) -> None:
    box = Box(lambda clock: SqliteStore(tmp_path, "test", clock=clock))
    box.store.write("DROP TABLE schedule")
    box.store.write("UPDATE meta SET version = 1")
    box.again(spec())
    box.turn(10)
    assert box.keys() == [key(10)]
    assert box.store.query("SELECT version, min_reader FROM meta") == [(2, 1)]
    box.store.close()


RUN = """
import sys
from pathlib import Path
from seedcore.coordinator.inbox.messages import Turn
from seedcore.coordinator.inbox.sqlite import SqliteStore
from seedcore.core.schedule import ScheduleSpec
from seedcore.core.spec import OrganSpec
directory, organ = Path(sys.argv[1]), OrganSpec(id="one", type="Test", agent="m:f", task_types=("pay",))
specs = [ScheduleSpec(id="s", task={"type": "pay"}, every=1, misfire="all", overlap="allow", grace_s=0)]
now = 1_700_000_000_000
if (directory / "clock").exists():
    now = int((directory / "clock").read_text() or now)
store = SqliteStore(directory / "inbox", "test", clock=lambda: now)
store.open()
store.on_schedules(lambda table, moment: table.sync((organ,), specs, moment))
while True:
    now += 700
    store.turn(Turn())
    (directory / "new").write_text(str(now))
    (directory / "new").rename(directory / "clock")
"""


@pytest.mark.loop_limit(60.0)
def test_each_moment_is_planned_once_whatever_is_killed(tmp_path: Path) -> None:
    chance = random.Random(20261127)
    clock = tmp_path / "clock"
    for _ in range(6):
        before = clock.read_text() if clock.exists() else ""
        process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)])
        eventually(lambda: clock.exists() and clock.read_text() != before, interval_s=0.005, what="a turn")  # noqa: B023
        time.sleep(chance.uniform(0.0, 0.1))  # the moment is what is random here, nothing is awaited
        process.kill()
        process.wait()

    store = SqliteStore(tmp_path / "inbox", "test")
    store.open()
    keys = [one for (one,) in store.query("SELECT key FROM task ORDER BY id")]
    store.close()
    assert len(keys) > 20
    assert keys == [key(seconds + 1) for seconds in range(len(keys))]
