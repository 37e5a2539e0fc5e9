"""What becomes of the attempts that a process has, by itself: the process is a list of replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from seedcore.coordinator.inbox.decisions import Answer
from seedcore.coordinator.inbox.floor import WorkFloor
from seedcore.coordinator.inbox.ids import parse, to_text
from seedcore.coordinator.inbox.messages import Claimed, Ending, Room
from seedcore.core.spec import OrganSpec
from seedcore.dispatch.sender import Call

LOST = {"success": False, "executed": "unknown", "error": "died", "error_type": "OrganUnavailableError"}


class Replica:
    """A process of an organ; ``reply`` answers questions."""

    def __init__(self) -> None:
        self.spec = OrganSpec(id="pay", type="T", agent="m:f", task_types=("pay",), agent_count=4)
        self.name, self.boot, self.ready_agents, self.queued = "seedcore_organ.pay.0", "b1", 4, 0
        self.handle = self
        self.call = self
        self.sent: list[Call] = []
        self.asked = asyncio.Event()
        self.may_reply = asyncio.Event()
        self.reply: Callable[[tuple[Any, ...]], Any] = lambda _: {"boot": "b2", "fenced": False, "entries": []}

    def send(self, call: Call) -> None:
        self.sent.append(call)

    def remote(self, order: tuple[Any, ...]) -> Any:
        async def answer() -> Any:
            self.asked.set()
            await self.may_reply.wait()
            return self.reply(order)

        return answer()


class House:
    def __init__(self) -> None:
        self.replica = Replica()
        self.endings: list[Ending] = []
        self.failures: list[BaseException] = []
        self.floor = WorkFloor(1, replicas=lambda: [self.replica], end=self.endings.append, failed=self.failures.append)

    def take(self, *numbers: int) -> None:
        (room,) = self.floor.rooms(frozenset({"pay"}))
        self.floor.take(room, [Claimed(number, 1, "pay", None, None, b'{"params":{}}', 1000) for number in numbers])

    async def ended(self, count: int) -> list[Ending]:
        async with asyncio.timeout(30):
            while len(self.endings) < count:  # noqa: ASYNC110 - the floor has no event for it
                await asyncio.sleep(0.001)
        return self.endings


@pytest.fixture
async def house() -> House:
    return House()


async def test_tasks_go_to_the_process_with_their_ticket(house: House) -> None:
    house.take(1)
    (call,) = house.replica.sent
    assert (call.task["id"], call.task["attempt"], call.task["ticket"]) == ("1", 1, (1, "b1"))
    assert (call.task["type"], call.task["params"], call.timeout_s) == ("pay", {}, 1.0)
    assert house.floor.rooms(frozenset({"pay"}))[0].tasks == 3, "an agent of four is busy"
    assert house.floor.rooms(frozenset({"other"})) == []


async def test_an_attempt_that_was_lost_while_others_were_asked_about_is_asked_about_as_well(house: House) -> None:
    house.take(1, 2)
    first, second = house.replica.sent
    first.done(dict(LOST))
    await house.replica.asked.wait()
    second.done(dict(LOST))

    house.replica.may_reply.set()

    endings = await house.ended(2)
    assert [(ending.id, ending.event) for ending in endings] == [
        (1, Answer(1, success=False, executed="unknown")),
        (2, Answer(1, success=False, executed="unknown")),
    ]


@pytest.mark.parametrize(("hint", "executed"), [("no", "no"), ("unknown", "unknown")])
async def test_a_dead_actor_tells_what_its_call_told(house: House, hint: str, executed: str) -> None:
    def die(_: Any) -> Any:
        raise ActorDiedError

    house.replica.reply = die
    house.replica.may_reply.set()
    house.take(1)
    house.replica.sent[0].done({**LOST, "executed": hint})
    (ending,) = await house.ended(1)
    assert isinstance(ending.event, Answer)
    assert ending.event.executed == executed


async def test_a_process_that_lives_knows_better_than_the_call(house: House) -> None:
    replies = {1: "never", 2: "answered"}

    def reply(order: tuple[Any, ...]) -> Any:
        entries = []
        for name, attempt in order[3]:
            what = replies[parse(name) or 0]
            answer = {"success": True, "result": 1, "task_type": "pay", "attempt": attempt}
            entries.append([name, attempt, what, answer if what == "answered" else None])
        return {"boot": "b1", "fenced": False, "entries": entries}

    house.replica.reply = reply
    house.replica.may_reply.set()
    house.take(1, 2)
    for call in house.replica.sent:
        call.done(dict(LOST))

    endings = {ending.id: ending.event for ending in await house.ended(2)}

    assert endings == {1: Answer(1, success=False, executed="no"), 2: Answer(1, success=True, executed="yes")}


async def test_an_organ_that_knows_of_a_newer_epoch_ends_this_one(house: House) -> None:
    house.replica.reply = lambda _: {"boot": "b1", "fenced": True, "entries": []}
    house.replica.may_reply.set()
    house.take(1)
    house.replica.sent[0].done(dict(LOST))
    async with asyncio.timeout(30):
        while not house.failures:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
    assert "another Coordinator" in str(house.failures[0])
    assert house.endings == []


async def test_a_process_whose_agents_are_busy_has_no_room(house: House) -> None:
    house.replica.spec = OrganSpec(id="pay", type="T", agent="m:f", task_types=("pay",), domains={"eu": ("pay",)})
    house.replica.ready_agents = 1
    (room,) = house.floor.rooms(frozenset({"pay", "pay\neu"}))
    assert room == Room("pay.0", "b1", ("pay", "pay\neu"), 1, 60_000)
    house.take(7)
    assert house.floor.rooms(frozenset({"pay"})) == []


@pytest.mark.parametrize("number", [0, 1, 31, 32, 1 << 32 | 7, (1 << 63) - 1])
def test_an_id_survives_as_text(number: int) -> None:
    assert parse(to_text(number)) == number
    assert parse(f" {to_text(number).upper()} ") == number


@pytest.mark.parametrize("text", ["", "l", "i", "o", "u", "-1", "z" * 14, "z" * 13])
def test_what_is_no_id_is_none(text: str) -> None:
    assert parse(text) is None
