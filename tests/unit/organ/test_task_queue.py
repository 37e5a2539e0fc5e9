"""Test which agent gets the next task, and the fate of cancelled and late tasks."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task
from seedcore.organ.agent import AgentRunner, Kind
from seedcore.organ.seats import Seat, Seats
from seedcore.organ.task_queue import Deadlines, Work, WorkQueue
from seedcore.organ.user_code import is_small_and_plain

EXECUTOR = ThreadPoolExecutor(1)
CARE = ThreadPoolExecutor(1)
TASK = Task(type="work").to_dict()


async def wait_for_ever(task: Task) -> None:
    await asyncio.Event().wait()


def agents(count: int) -> list[AgentRunner]:
    kind = Kind(wait_for_ever, {})
    return [AgentRunner(f"agent_{i}", kind, executor=EXECUTOR, care=CARE) for i in range(count)]


async def queue(count: int, **bounds: Any) -> WorkQueue:
    work = WorkQueue(OrganSpec(id="organ", type="Test", agent="x:y", **bounds), on_change=lambda: None)
    for agent in agents(count):
        await agent.start(timeout_s=1)
        work.open(agent)
    return work


def test_the_agent_with_the_least_to_do_is_next_and_among_equals_the_one_free_for_longest() -> None:
    seats = Seats(3)
    first, second = agents(2)
    seats.add(first)
    seats.add(second)

    taken = [seats.take() for _ in range(6)]

    assert [seat[1] for seat in taken if seat] == [first, second, first, second, first, second]
    assert seats.take() is None
    for seat in (taken[1], taken[3], taken[0]):
        assert seat is not None
        seats.give_back(*seat)
    again = seats.take()
    assert again is not None
    assert again[1] is second


def test_tasks_of_an_agents_earlier_life_give_it_no_room() -> None:
    seats = Seats(1)
    (agent,) = agents(1)
    seats.add(agent)
    before = seats.take()
    assert before is not None
    seats.add(agent)
    assert seats.take() is not None

    seats.give_back(*before)

    assert seats.take() is None


@given(st.integers(1, 4), st.lists(st.sampled_from(["take", "give", "remove", "add"]), max_size=60), st.randoms())
def test_no_agent_ever_gets_more_than_it_may(capacity: int, steps: list[str], random: Any) -> None:
    seats = Seats(capacity)
    everyone = agents(3)
    taken: list[tuple[Seat, AgentRunner]] = []
    here: set[AgentRunner] = set()
    for step in steps:
        agent = random.choice(everyone)
        if step == "take":
            more = seats.take()
            load = Counter(agent for seat, agent in taken if seat.open)
            assert (more is None) == all(load[agent] >= capacity for agent in here)
            if more is not None:
                assert load[more[1]] == min(load[agent] for agent in here)
                taken.append(more)
        elif step == "give" and taken:
            seats.give_back(*taken.pop(random.randrange(len(taken))))
        elif step == "remove":
            seats.remove(agent)
            here.discard(agent)
        elif step == "add":
            seats.add(agent)
            here.add(agent)


def test_agents_that_share_a_thread_do_one_task_at_a_time_in_turn() -> None:
    seats = Seats(1)
    kind = Kind(print, {})
    first, second = (AgentRunner(f"agent_{i}", kind, executor=EXECUTOR) for i in range(2))
    seats.add(first)
    seats.add(second)

    taken = seats.take()
    assert taken
    assert (taken[1], seats.take(), seats.able) == (first, None, 2)
    seats.mark_stuck(taken[0], 1)
    assert (seats.able, seats.stuck_agents) == (0, 2)
    seats.mark_stuck(taken[0], -1)
    seats.give_back(*taken)
    after = seats.take()
    assert after
    assert after[1] is second


def test_no_more_tasks_are_under_way_than_there_are_threads() -> None:
    seats = Seats(2)
    seats.limit = 3
    for agent in agents(4):
        seats.add(agent)
    taken = [seats.take() for _ in range(4)]
    assert (taken[3], seats.count) == (None, 3)

    for one in taken[:3]:
        assert one
        seats.mark_stuck(one[0], 1)
    assert (seats.stuck_agents, seats.able) == (4, 0)

    assert taken[0]
    seats.mark_stuck(taken[0][0], -1)
    seats.give_back(*taken[0])
    assert (seats.stuck_agents, seats.able) == (0, 4)
    assert seats.take()


async def test_a_task_that_nobody_awaits_is_cancelled_and_frees_its_agent() -> None:
    work = await queue(1)
    answers: list[dict[str, Any]] = []
    running = work.submit(TASK, 60.0, answers.append)
    waiting = work.submit(TASK, 60.0, answers.append)
    assert running
    assert waiting
    assert (work.in_flight, work.queued) == (2, 1)

    waiting.cancel()
    running.cancel()
    assert (work.in_flight, work.queued) == (0, 0)

    last: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    work.submit(Task(type="work").to_dict(), 0.5, last.set_result)
    assert (await last)["executed"] == "unknown"  # it had an agent
    assert answers == []


async def test_every_refusal_says_that_nothing_was_done() -> None:
    work = await queue(1, queue_limit=1)
    answers: list[dict[str, Any]] = []
    late: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    running = work.submit(TASK, 60.0, answers.append)
    work.submit(TASK, 0.05, late.set_result)
    work.submit(TASK, 60.0, answers.append)
    waited = await late
    work.submit(TASK, 60.0, answers.append)
    work.close_all()
    work.submit(TASK, 60.0, answers.append)
    assert running
    running.cancel()

    assert [(answer["error_type"], answer["executed"]) for answer in [waited, *answers]] == [
        ("TimeoutError", "no"),
        ("OverloadedError", "no"),
        ("OrganUnavailableError", "no"),
        ("OrganUnavailableError", "no"),
    ]
    assert work.in_flight == 0


async def test_what_is_no_task_is_answered_and_takes_no_room() -> None:
    work = await queue(1)
    answers: list[dict[str, Any]] = []

    assert work.submit({"kind": "work"}, 60.0, answers.append) is None

    assert [(answer["success"], answer["executed"]) for answer in answers] == [(False, "no")]
    assert work.in_flight == 0


async def test_a_client_with_old_routes_is_refused_before_it_takes_any_room() -> None:
    work = await queue(1, task_types=("work",), domains={"lab": ("dig",)})
    answers: list[dict[str, Any]] = []
    for kind, domain in [
        ("work", None),
        ("work", "lab"),
        ("dig", "lab"),
        ("dig", None),
        ("dig", "sea"),
        ("cook", "lab"),
    ]:
        work.submit(Task(type=kind, domain=domain).to_dict(), 0.02, answers.append, direct=True)
    async with asyncio.timeout(10):
        while work.in_flight:  # noqa: ASYNC110 - the last deadline is awaited
            await asyncio.sleep(0.01)

    refused = [answer for answer in answers if answer["error_type"] == "UnknownTaskTypeError"]
    assert [(answer["task_type"], answer["executed"]) for answer in refused] == [("dig", "no")] * 2 + [("cook", "no")]
    assert len(answers) - len(refused) == 3


async def test_each_of_the_tasks_that_came_together_ends_at_its_own_deadline() -> None:
    work = await queue(1, max_concurrency=10)
    deadlines = Deadlines(work.loop)
    began, ended, all_ended = work.loop.time(), {}, asyncio.Event()

    def submit(limit_s: float) -> Work | None:
        def done(answer: dict[str, Any]) -> None:
            ended[limit_s] = (work.loop.time() - began, answer["error_type"], answer["executed"])
            if limit_s == 0.4:
                all_ended.set()

        return work.submit(TASK, limit_s, done, deadlines=deadlines)

    cancelled = submit(0.05)
    assert cancelled is not None
    for limit_s in (60.0, 0.4, 0.2, 0.3):
        submit(limit_s)
    cancelled.cancel()
    await all_ended.wait()

    assert list(ended) == [0.2, 0.3, 0.4]
    assert all(seconds >= limit_s - 0.001 for limit_s, (seconds, *_) in ended.items())
    assert {tuple(rest) for _, *rest in ended.values()} == {("TimeoutError", "unknown")}
    work.close_all()


async def test_a_task_that_is_answered_leaves_no_deadline_behind() -> None:
    work = await queue(1)
    deadlines = Deadlines(work.loop)
    first, second = (work.submit(TASK, 60.0, lambda _: None, deadlines=deadlines) for _ in range(2))
    assert first is not None
    assert second is not None

    first.cancel()
    assert list(deadlines._open) == [second]
    second.cancel()

    assert not deadlines._open
    assert deadlines._timer is None


@pytest.mark.parametrize("value", [threading.Lock(), [threading.Lock()], lambda: None, "x" * 100_000])
def test_a_small_mapping_is_checked_thoroughly_if_one_of_its_values_needs_it(value: Any) -> None:
    assert is_small_and_plain({"a": 1, "b": "text", "c": None})
    assert not is_small_and_plain({"a": 1, "b": value, "c": None})
