"""A whole Coordinator with an inbox, with organs that live and die as Ray's do."""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from seedcore.coordinator.inbox import inbox as inbox_module
from seedcore.coordinator.inbox.inbox import Inbox
from seedcore.coordinator.inbox.place import DATABASE
from seedcore.coordinator.inbox.sqlite import SqliteStore
from seedcore.coordinator.inbox.store import Store
from seedcore.coordinator.orders import Order
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import (
    InboxUnavailableError,
    KeyConflictError,
    NoTaskError,
    TaskError,
    UnknownTaskTypeError,
    WrongStateError,
)
from seedcore.core.reason import Reason
from seedcore.core.schedule import ScheduleSpec
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from tests.support.fake_ray import FakeCluster

PAY = OrganSpec(id="pay", type="Test", agent="m:f", task_types=("pay",), agent_count=2, task_timeout_s=20.0)
FETCH = OrganSpec(id="fetch", type="Test", agent="m:f", task_types=("fetch",), agent_count=2, repeatable=True)


class House:
    """A Coordinator's organism and inbox; the next Coordinator finds the same cluster and the same disk."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cluster = FakeCluster()
        self.cluster.start_s = 0.01
        self.inbox: Inbox
        self.organism: OrganismManager

    async def begin(self, *organs: OrganSpec, release: str = "1", schedules: tuple[ScheduleSpec, ...] = ()) -> None:
        """Start a Coordinator."""
        spec = OrganismSpec(organs=organs or (PAY, FETCH), schedules=schedules)
        self.organism = OrganismManager(spec, release=release, runtime=self.cluster, on_change=self.look)
        self.inbox = Inbox(self.make_store, runtime=self.cluster, organism=lambda: self.organism)
        await self.inbox.begin()
        await self.organism.initialize()

    def make_store(self) -> Store:
        return SqliteStore(self.directory, "test")

    def look(self) -> None:
        if hasattr(self, "inbox"):
            self.inbox.look()
            self.inbox.follow(self.organism.spec)

    async def die(self) -> None:
        """End the Coordinator without a word to anybody."""
        await self.inbox.close()
        self.organism._watch.stop()
        for replica in self.organism._all():
            replica.handle = None
            if replica._supervision is not None:
                replica._supervision.cancel()

    async def submit(self, kind: str = "pay", wait_s: float | None = None, **more: Any) -> dict[str, Any]:
        params = more.pop("params", {})
        raw = {"type": kind, "params": params, "durable": True, "wait_s": wait_s, **more}
        return await self.inbox.submit(raw, Task.parse(raw))

    async def ended(self, task_id: str, within_s: float = 100.0) -> dict[str, Any]:
        """Return a task once it has ended."""
        task = await self.inbox.show(task_id, within_s)
        assert task is not None
        assert task["ended"] is not None, task
        return task

    def process(self, organ: str = "pay") -> Any:
        return self.cluster.actors[f"seedcore_organ.{organ}.0"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "inbox")
    yield made
    with contextlib.suppress(AttributeError):
        await made.inbox.close()
        made.organism._watch.stop()
        for replica in made.organism._all():
            if replica._supervision is not None:
                replica._supervision.cancel()
    await made.cluster.close()


async def until(check: Callable[[], Any], what: str = "") -> None:
    """Wait for a condition; ``what`` is for whoever reads the test."""
    async with asyncio.timeout(30):
        while not check():  # noqa: ASYNC110 - the organs have no event for it
            await asyncio.sleep(0.005)


def began(house: House, task_id: str, times: int) -> bool:
    return house.cluster.began[task_id] == times


async def test_a_durable_task_is_done_and_its_answer_told(house: House) -> None:
    await house.begin()

    answer = await house.submit(wait_s=30, key="order-1")

    assert (answer["success"], answer["result"], answer["state"], answer["attempt"]) == (True, "done", "done", 1)
    assert (answer["organ_id"], answer["task_type"]) == ("pay", "pay")
    assert house.cluster.done == {answer["id"]: 1}
    again = await house.submit(wait_s=30, key="order-1")
    assert again == answer
    assert house.cluster.began == {answer["id"]: 1}


async def test_an_acceptance_comes_before_the_work_is_done(house: House) -> None:
    await house.begin()

    accepted = await house.submit(params={"seconds": 0.2}, key="k")

    assert accepted == {
        "success": None, "accepted": True, "id": accepted["id"], "state": "ready", "duplicate": False
    }  # fmt: skip
    assert (await house.submit(params={"seconds": 0.2}, key="k"))["duplicate"]
    assert (await house.ended(accepted["id"]))["answer"]["success"]


async def test_a_waiter_whose_time_is_over_gets_the_acceptance(house: House) -> None:
    await house.begin()
    answer = await house.submit(params={"seconds": 0.5}, wait_s=0.01)
    assert (answer["success"], answer["accepted"]) == (None, True)
    assert (await house.ended(answer["id"]))["state"] == "done"


async def test_many_tasks_are_done_once_each(house: House) -> None:
    await house.begin()
    answers = await asyncio.gather(*(house.submit(wait_s=60, key=f"k{number}") for number in range(300)))
    assert all(answer["success"] for answer in answers)
    assert len({answer["id"] for answer in answers}) == 300
    assert set(house.cluster.began.values()) == {1}
    await until(lambda: not house.process().process.organ._durable.ledger._held, "all answers are acknowledged")


@pytest.mark.parametrize(
    ("raw", "error", "text"),
    [
        ({"type": "nope"}, UnknownTaskTypeError, "no organ accepts task type 'nope'"),
        ({"type": "canary"}, TaskError, "cannot be durable"),
        ({"durable": 1}, TaskError, "'durable' is 1"),
        ({"deadline_s": -1}, TaskError, "'deadline_s' is -1, which is in the past"),
        ({"wait_s": "x"}, TaskError, "'wait_s' must be a finite number"),
        ({"key": ""}, TaskError, "'key' must be a string of 1 to 200 characters"),
        ({"priority": 1.5}, TaskError, "'priority' must be a whole number"),
        ({"repeatable": "yes"}, TaskError, "'repeatable' must be true or false"),
        ({"params": {"x": b"bytes"}}, TaskError, "must be JSON: Object of type bytes"),
        ({"params": {"x": float("nan")}}, TaskError, "must be JSON"),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_is_accepted(
    house: House, raw: dict[str, Any], error: type[Exception], text: str
) -> None:
    await house.begin()
    whole = {"type": "pay", "durable": True, **raw}
    task = Task.parse(whole)
    with pytest.raises(error, match=text):
        await house.inbox.submit(whole, task)
    assert await house.inbox.find() == []


async def test_a_key_belongs_to_one_task(house: House) -> None:
    await house.begin()
    first = await house.submit(key="k", params={"a": 1, "b": 2})
    assert (await house.submit(key="k", params={"b": 2, "a": 1}))["id"] == first["id"], "the order of keys is no matter"
    with pytest.raises(KeyConflictError, match=f"the key 'k' belongs to task {first['id']}, which has another type"):
        await house.submit(key="k", params={"a": 2})


async def test_the_next_coordinator_adopts_what_still_runs(house: House) -> None:
    await house.begin()
    running = await house.submit(params={"seconds": 0.5})
    await until(lambda: house.cluster.began[running["id"]])
    await house.die()

    await house.begin()

    assert house.inbox.judge() is None
    task = await house.ended(running["id"])
    assert (task["state"], task["attempt"]) == ("done", 1)
    assert house.cluster.began == house.cluster.done == {running["id"]: 1}


async def test_an_answer_that_came_while_there_was_no_coordinator_is_recorded(house: House) -> None:
    await house.begin()
    task = await house.submit(params={"seconds": 0.05})
    await until(lambda: house.cluster.began[task["id"]])
    await house.die()
    await until(lambda: house.cluster.done[task["id"]])

    await house.begin()

    assert (await house.ended(task["id"]))["state"] == "done"
    assert house.cluster.began == {task["id"]: 1}


async def test_a_task_that_was_claimed_and_never_sent_is_done(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.begin()
    session = house.inbox._session
    assert session is not None
    monkeypatch.setattr(session.floor, "take", lambda *_: None)
    task = await house.submit()
    await until(lambda: session.pump.last and not session.pump.lanes)
    await house.die()

    await house.begin()

    ended = await house.ended(task["id"])
    assert (ended["state"], ended["attempt"]) == ("done", 2)
    assert house.cluster.began == {task["id"]: 1}


async def test_a_task_that_waits_survives_the_coordinator(house: House) -> None:
    await house.begin()
    blocking = [await house.submit(params={"seconds": 0.3, "n": number}) for number in range(2)]
    waiting = await house.submit()
    await house.die()
    await house.begin()
    for task in (*blocking, waiting):
        assert (await house.ended(task["id"]))["state"] == "done"
    assert set(house.cluster.began.values()) == {1}


async def test_a_task_whose_process_dies_is_parked_and_a_person_decides(house: House) -> None:
    await house.begin()
    task = await house.submit(params={"seconds": 5})
    await until(lambda: house.cluster.began[task["id"]])

    house.process().die()

    parked = await house.ended(task["id"])
    assert (parked["state"], parked["executed"], parked["error_type"]) == ("parked", "unknown", "OrganUnavailableError")
    assert f"seedcore task retry|done|discard {task['id']}" in parked["answer"]["error"]
    assert house.cluster.began == {task["id"]: 1}
    assert [one["id"] for one in await house.inbox.find(states=["parked"])] == [task["id"]]
    assert (await house.inbox.decide(task["id"], "done", by="ann"))["state"] == "done"
    assert [entry["what"] for entry in (await house.ended(task["id"]))["story"]] == ["parked", "done"]
    with pytest.raises(TaskError, match=f"task {task['id']} is done; retry needs one that is parked or failed"):
        await house.inbox.decide(task["id"], "retry", by="ann")


async def test_a_repeatable_task_whose_process_dies_runs_again(house: House) -> None:
    await house.begin()
    task = await house.submit("fetch", params={"seconds": 0.3})
    await until(lambda: house.cluster.began[task["id"]])

    house.process("fetch").die()

    ended = await house.ended(task["id"])
    assert (ended["state"], ended["attempt"], ended["story"][0]["executed"]) == ("done", 2, "unknown")
    assert house.cluster.began[task["id"]] == 2


async def test_a_repeatable_task_that_kills_its_process_again_and_again_is_parked(house: House) -> None:
    await house.begin()
    task = await house.submit("fetch", params={"seconds": 5})
    for number in range(1, 4):
        await until(partial(began, house, task["id"], number))
        house.process("fetch").die()
    assert (await house.ended(task["id"]))["state"] == "parked"


async def test_a_process_that_died_with_the_coordinator_is_found_out(house: House) -> None:
    await house.begin()
    mine, again = await house.submit(params={"seconds": 5}), await house.submit("fetch", params={"seconds": 0.2})
    await until(lambda: house.cluster.began[mine["id"]] and house.cluster.began[again["id"]])
    await house.die()
    house.process("pay").die()
    house.process("fetch").die()

    await house.begin()

    assert (await house.ended(mine["id"]))["state"] == "parked"
    assert (await house.ended(again["id"]))["state"] == "done"
    assert (house.cluster.began[mine["id"]], house.cluster.began[again["id"]]) == (1, 2)


async def test_an_organ_that_is_gone_for_good_is_found_out(house: House) -> None:
    await house.begin()
    task = await house.submit(params={"seconds": 5})
    await until(lambda: house.cluster.began[task["id"]])
    await house.die()
    actor = house.process("pay")
    await house.cluster.kill(actor, restart=False)

    await house.begin()

    assert (await house.ended(task["id"]))["state"] == "parked"


async def test_a_new_release_takes_over_what_the_organs_of_the_old_one_do(house: House) -> None:
    await house.begin()
    task = await house.submit(params={"seconds": 0.5})
    await until(lambda: house.cluster.began[task["id"]])
    await house.die()

    await house.begin(release="2")

    assert (await house.ended(task["id"]))["state"] == "done"
    assert house.cluster.began == {task["id"]: 1}


async def test_a_reload_that_removes_a_type_leaves_its_tasks_and_says_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.begin()
    blocked = [await house.submit(params={"seconds": 0.3, "n": number}) for number in range(2)]
    task = await house.submit()
    await house.die()
    await house.begin(FETCH)
    for one in blocked:
        assert (await house.ended(one["id"]))["state"] == "done"
    monkeypatch.setattr("seedcore.coordinator.inbox.health.STUCK_AFTER_S", 0.0)
    assert house.inbox.judge() == (Reason.INBOX_STUCK, "durable tasks of type pay wait, and no organ accepts them")
    assert (await house.inbox.decide(task["id"], "cancel", by="ann"))["state"] == "cancelled"


async def test_a_task_that_has_not_begun_by_its_deadline_expires(house: House) -> None:
    await house.begin()
    for number in range(2):
        await house.submit(params={"seconds": 0.5, "n": number})
    answer = await house.submit(deadline_s=0.05, wait_s=30)
    assert (answer["state"], answer["executed"], answer["error_type"]) == ("expired", "no", "ExpiredError")
    assert answer["id"] not in house.cluster.began


async def test_a_running_task_is_cancelled_by_its_organ(house: House) -> None:
    await house.begin()
    task = await house.submit(params={"seconds": 9})
    await until(lambda: house.cluster.began[task["id"]])

    assert (await house.inbox.decide(task["id"], "cancel", by="ann"))["state"] == "leased"

    ended = await house.ended(task["id"])
    assert (ended["state"], ended["executed"]) == ("cancelled", "unknown")


async def test_an_order_for_a_task_that_is_not_there_is_refused(house: House) -> None:
    await house.begin()
    for name in ("zzz", "not!", "", "z" * 99):
        with pytest.raises(TaskError, match="there is no durable task"):
            await house.inbox.decide(name, "retry", by="ann")
        assert await house.inbox.show(name) is None


async def test_an_inbox_that_cannot_be_opened_refuses_tasks_and_says_why(house: House) -> None:
    house.directory.parent.mkdir(exist_ok=True)
    house.directory.write_text("")
    await house.begin()
    assert (verdict := house.inbox.judge()) is not None
    assert verdict[0] is Reason.INBOX_UNAVAILABLE
    assert "inbox cannot be used: " in verdict[1]
    with pytest.raises(InboxUnavailableError, match="the inbox is not open: the directory") as raised:
        await house.submit()
    assert raised.value.executed == "no"


async def test_a_store_that_fails_is_opened_again_and_nothing_is_lost(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "REOPEN_AFTER_S", 0.01)
    await house.begin()
    running = await house.submit(params={"seconds": 0.3})
    await until(lambda: house.cluster.began[running["id"]])
    session = house.inbox._session
    assert session is not None

    def fail(_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(session.store, "turn", fail)
    with pytest.raises(InboxUnavailableError) as raised:
        await house.submit(key="k")
    assert raised.value.executed == "unknown"

    await until(lambda: house.inbox._session not in {None, session})
    assert (await house.ended(running["id"]))["state"] == "done"
    assert (await house.submit(key="k", wait_s=30))["success"]
    assert set(house.cluster.began.values()) == {1}


async def test_a_bug_ends_the_epoch_and_the_next_one_asks_the_organs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "REOPEN_AFTER_S", 0.01)
    await house.begin()

    async def fail(_: Any) -> bytes:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr("seedcore.coordinator.inbox.floor.encode", fail)
    task = await house.submit()

    await until(lambda: house.inbox.summary()["epoch"] == 2)
    assert (await house.ended(task["id"]))["state"] == "done"
    assert house.cluster.began == {task["id"]: 1}


async def test_an_inbox_that_is_closed_while_it_is_being_opened_stays_free(house: House) -> None:
    organism = OrganismManager(OrganismSpec(organs=(PAY,)), release="1", runtime=house.cluster, on_change=house.look)
    for _ in range(5):
        box = Inbox(house.make_store, runtime=house.cluster, organism=lambda: organism)
        opening = asyncio.ensure_future(box.begin())
        for _ in range(3):  # until the thread has got the call
            await asyncio.sleep(0)
        await box.close()
        opening.cancel()
    await house.begin()
    assert house.inbox.judge() is None


async def test_an_inbox_that_was_taken_over_writes_nothing_more(house: House) -> None:
    await house.begin()
    session = house.inbox._session
    assert session is not None
    await session.writer.call(session.store._db.execute, "UPDATE meta SET epoch = epoch + 1")
    with pytest.raises(InboxUnavailableError):
        await house.submit()
    await until(lambda: house.inbox._session is None)
    assert (verdict := house.inbox.judge()) is not None
    assert verdict == (
        Reason.INBOX_IN_USE, "the inbox is not open: another process has taken the inbox over"
    )  # fmt: skip


async def test_an_inbox_can_be_closed_while_it_closes_its_store(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.begin()
    session = house.inbox._session
    assert session is not None
    close = session.store.close

    def close_slowly() -> None:
        time.sleep(0.3)  # in the writer thread
        close()

    monkeypatch.setattr(session.store, "close", close_slowly)
    await session.writer.call(session.store._db.execute, "UPDATE meta SET epoch = epoch + 1")
    with pytest.raises(InboxUnavailableError):
        await house.submit()
    await until(lambda: house.inbox._session is None)

    async with asyncio.timeout(10):
        await house.inbox.close()


async def test_a_coordinator_that_is_about_to_be_replaced_accepts_and_begins_nothing(house: House) -> None:
    await house.begin()
    task = await house.submit(params={"seconds": 0.3})
    waiter = asyncio.ensure_future(house.submit(key="w", params={"seconds": 0.3}, wait_s=60))
    await until(lambda: house.cluster.began[task["id"]])
    await asyncio.sleep(0.05)

    house.inbox.hold(60.0)

    with pytest.raises(InboxUnavailableError) as waited:
        await waiter
    assert waited.value.executed == "unknown"
    with pytest.raises(InboxUnavailableError) as refused:
        await house.submit()
    assert (refused.value.executed, refused.value.retry_after_s) == ("no", 1.0)
    await house.die()
    await house.begin()
    assert (await house.submit(key="w", params={"seconds": 0.3}, wait_s=60))["success"]
    assert set(house.cluster.began.values()) == {1}


async def test_the_summary_counts_tasks(house: House) -> None:
    await house.begin()
    await house.submit(wait_s=30)
    summary = house.inbox.summary()
    assert (summary["is_open"], summary["epoch"], summary["tasks"]["done"]) == (True, 1, 1)
    assert house.inbox.figures() == [{"task_type": "pay", "state": "done", "count": 1}]
    assert (house.directory / DATABASE).exists()


EVERY_SECOND = ScheduleSpec(id="beat", task={"type": "pay"}, every=1, misfire="all", overlap="allow")


async def test_a_schedule_of_the_file_plans_tasks_across_the_death_of_the_coordinator(house: House) -> None:
    await house.begin(schedules=(EVERY_SECOND,))
    await until(lambda: len(house.cluster.done) >= 2, "two moments")

    await house.die()
    await asyncio.sleep(1.1)  # a moment passes while nobody is there
    await house.begin(release="1", schedules=(EVERY_SECOND,))
    await until(lambda: len(house.cluster.done) >= 4, "two more")

    (row,) = await house.inbox.schedules()
    assert (row["id"], row["source"], row["when"], row["missed"]) == ("beat", "file", "every 1", 0)
    tasks = await house.inbox.find(kind="pay", limit=1000)
    moments = sorted(time.strptime(task["key"].split(":", 2)[2], "%Y-%m-%dT%H:%M:%SZ") for task in tasks)
    seconds = [calendar.timegm(moment) for moment in moments]
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds))), "each moment once, and none missing"
    assert set(house.cluster.began.values()) == {1}


async def test_a_schedule_is_made_paused_run_and_deleted(house: House) -> None:
    await house.begin()
    raw = {"id": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "task": {"type": "pay"}}

    made = await house.inbox.put_schedule(raw, by="me")
    assert (made["created"], made["source"], made["last_task"]) == (True, "http", None)
    assert made["next"][11:19] in {"02:30:00", "03:00:00"}
    assert (await house.inbox.put_schedule({**raw, "misfire": "all"}, by="me"))["created"] is False
    assert (await house.inbox.change_schedule("nightly", "pause", by="me"))["paused"] is True
    ran = await house.inbox.change_schedule("nightly", "run", by="me")
    assert ran["accepted"]
    assert (await house.ended(ran["id"]))["state"] == "done"
    (row,) = await house.inbox.schedules()
    assert row["last_task"] == {"id": ran["id"], "state": "done"}
    await house.inbox.change_schedule("nightly", "delete", by="me")
    assert await house.inbox.schedules() == []


@pytest.mark.parametrize(
    ("raw", "error", "text"),
    [
        ({"id": "a", "every": 0, "task": {"type": "pay"}}, TaskError, "every is 0, expected a whole number"),
        ({"id": "a", "at": "2020-01-01T00:00", "task": {"type": "pay"}}, TaskError, "which is in the past"),
        ({"id": "a", "every": 1, "task": {"type": "nope"}}, UnknownTaskTypeError, "nope"),
        ({"id": "beat", "every": 1, "task": {"type": "pay"}}, WrongStateError, "is one of organism"),
        ([], TaskError, "expected a mapping"),
    ],
)
async def test_a_wrong_schedule_is_refused(house: House, raw: Any, error: type[Exception], text: str) -> None:
    paused = replace(EVERY_SECOND, every=3600)
    await house.begin(schedules=(paused,))
    async with asyncio.timeout(30):
        while not await house.inbox.schedules():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
    with pytest.raises(error, match=text):
        await house.inbox.put_schedule(raw, by="me")
    with pytest.raises(NoTaskError, match="there is no schedule 'a'"):
        await house.inbox.change_schedule("a", "pause", by="me")
    assert [row["id"] for row in await house.inbox.schedules()] == ["beat"]


async def test_a_schedule_whose_task_does_not_begin_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedcore.coordinator.inbox.pump.LOOK_S", 0.05)
    slow = replace(PAY, agent_count=1)
    await house.begin(slow, schedules=(replace(EVERY_SECOND, grace_s=0.0, overlap="forbid"),))
    for number in range(2):
        await house.submit(params={"seconds": 2}, priority=5, key=f"k{number}")
    # Whichever look comes, the pump makes it with its next turn.
    await until(lambda: house.inbox.look() or house.inbox.judge() is not None, "the schedule is late")  # type: ignore[func-returns-value]
    judged = house.inbox.judge()
    assert judged is not None
    assert judged[0] is Reason.INBOX_LATE
    assert judged[1].startswith("the task of schedule beat is ")
    assert house.inbox.late_schedules()[0]["seconds"] > 0


async def test_a_canary_goes_through_every_organ_to_no_code_and_leaves_nothing(house: House) -> None:
    await house.begin()
    # Both agents of an organ are busy, and others wait: that is no fault.
    tasks = [await house.submit(params={"seconds": 0.5}) for _ in range(6)]
    await until(lambda: house.cluster.began.total() >= 2, "work")

    proof = await house.inbox.prove(5.0)

    assert (proof["seconds"].keys(), proof["fault"]) == ({"pay", "fetch"}, "")
    assert house.inbox.canary_s() == max(proof["seconds"].values())
    assert {one["task_type"] for one in house.inbox.figures()} <= {"pay"}
    assert set(house.cluster.began) <= {task["id"] for task in tasks}
    for task in tasks:
        assert (await house.ended(task["id"]))["state"] == "done"
    assert {task["type"] for task in await house.inbox.find()} == {"pay"}
    await until(lambda: not house.process().process.organ._durable.ledger._held, "all answers are acknowledged")
    assert house.inbox.judge() is None


async def test_an_inbox_that_accepts_and_does_not_complete_is_not_healthy(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.begin()
    session = house.inbox._session
    assert session is not None
    with monkeypatch.context() as broken:
        # All that people see is well: tasks are accepted, organs have room, and nothing waits.
        broken.setattr(session.floor, "_record", lambda *_: None)
        accepted = await house.submit()
        assert accepted["accepted"]
        assert house.inbox.judge() is None
        proof = await house.inbox.prove(0.3)
        assert proof["fault"] == "organ fetch, pay has not done the inbox's own task within 0.3 s"
        assert house.inbox.judge() == (
            Reason.INBOX_STUCK, f"the inbox accepts tasks and does not complete them: {proof['fault']}"
        )  # fmt: skip
    assert (await house.inbox.prove(5.0))["fault"] == ""
    assert house.inbox.judge() is None


async def test_a_canary_asks_no_organ_that_is_paused_or_not_settled(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.begin()
    house.organism._orders.paused["pay"] = Order("2026-11-27", "anna")
    assert (await house.inbox.prove(5.0))["seconds"].keys() == {"fetch"}
    monkeypatch.setattr(house.inbox._canary, "_is_settled", lambda: False)
    assert await house.inbox.prove(5.0) == {"seconds": {}, "fault": ""}


async def test_canaries_are_sent_all_the_time_and_those_of_a_dead_process_are_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedcore.coordinator.inbox.canary.FIRST_S", 0.01)
    await house.begin()
    session = house.inbox._session
    assert session is not None
    monkeypatch.setattr(session, "forget", lambda _: None)
    await house.inbox.prove(5.0)
    assert [task["type"] for task in await house.inbox.find()] == ["canary", "canary"]
    await house.die()

    await house.begin()
    watching = asyncio.create_task(house.inbox.watch())
    await until(lambda: house.inbox.canary_s() is not None, "the first canary")
    watching.cancel()
    assert await house.inbox.find() == []
