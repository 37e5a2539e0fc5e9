"""Test that each answer of a batch is returned once, as soon as it is ready, and is not kept for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.organ import batch as batch_module
from seedcore.organ.batch import Batch, Batches


def answer(number: int) -> dict[str, Any]:
    return {"success": True, "result": number}


async def test_what_is_there_at_once_needs_one_reply() -> None:
    batch, batches = Batch(3), Batches()
    for index in (2, 0, 1):
        batch.add(index, answer(index))

    reply = await batches.reply(batch, 10.0, lifetime_s=10.0)

    assert reply == {"answers": [(index, answer(index)) for index in (2, 0, 1)], "rest": None}


async def test_a_slow_task_keeps_no_quick_one_back() -> None:
    batch, batches = Batch(2), Batches()
    batch.add(1, answer(1))

    first = await asyncio.wait_for(batches.reply(batch, 60.0, lifetime_s=60.0), 10)
    assert first["answers"] == [(1, answer(1))]
    waiting = asyncio.create_task(batches.collect(first["rest"], 60.0))
    await asyncio.sleep(0)
    batch.add(0, answer(0))

    assert await asyncio.wait_for(waiting, 10) == {"answers": [(0, answer(0))], "rest": None}
    assert (await batches.collect(first["rest"], 0.0))["lost"] is True


async def test_a_reply_without_any_answer_comes_when_its_time_is_over() -> None:
    batch, batches = Batch(1), Batches()

    reply = await asyncio.wait_for(batches.reply(batch, 0.01, lifetime_s=60.0), 10)

    assert reply["answers"] == []
    assert reply["rest"] is not None


async def test_answers_that_nobody_fetches_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "UNCOLLECTED_S", 0.0)
    batch, batches = Batch(1), Batches()
    reply = await batches.reply(batch, 0.0, lifetime_s=0.01)

    async with asyncio.timeout(10):
        while "lost" not in (found := await batches.collect(reply["rest"], 0.0)):
            assert found["rest"] == reply["rest"]
            await asyncio.sleep(0)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_every_answer_comes_exactly_once_in_whatever_order_tasks_end(order: list[int], pauses: set[int]) -> None:
    async def run() -> None:
        batch, batches = Batch(len(order)), Batches()

        async def work() -> None:
            for place, index in enumerate(order):
                batch.add(index, answer(index))
                if place in pauses:
                    await asyncio.sleep(0)

        working = asyncio.create_task(work())
        reply = await batches.reply(batch, 10.0, lifetime_s=10.0)
        got = list(reply["answers"])
        while reply["rest"] is not None:
            reply = await batches.collect(reply["rest"], 10.0)
            got += reply["answers"]
        await working
        assert sorted(got, key=lambda entry: entry[0]) == [(index, answer(index)) for index in range(len(order))]

    asyncio.run(run())


async def test_a_process_that_ends_waits_until_its_answers_are_fetched() -> None:
    batch, batches = Batch(2), Batches()
    batch.add(0, answer(0))
    reply = await batches.reply(batch, 10.0, lifetime_s=10.0)
    batch.add(1, answer(1))

    draining = asyncio.create_task(batches.drain(60.0))
    await asyncio.sleep(0.05)
    assert not draining.done()
    await batches.collect(reply["rest"], 10.0)

    await asyncio.wait_for(draining, 10)
