"""Test that a closed client answers every task, and that it never reads further ahead in a stream than allowed."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import pytest

from seedcore.client import AsyncClient
from seedcore.client.background import Background
from seedcore.client.ray_transport import RayEngine
from seedcore.client.retry import Sink
from seedcore.client.routing_cache import Routes
from seedcore.core.errors import OrganUnavailableError
from seedcore.core.settings import Settings


class _NoRoutes:
    """A routing table that never arrives."""

    table = None

    def listen(self, listener: Any) -> None:
        pass

    def unlisten(self, listener: Any) -> None:
        pass

    def current(self) -> Any:
        raise OrganUnavailableError("no table", retry_after_s=0.5)


def _background() -> Background:
    return Background(partial(RayEngine, cast("Routes", _NoRoutes())))


@pytest.mark.loop_limit(60.0)  # it blocks the loop itself
def test_closing_answers_what_a_busy_loop_has_not_taken() -> None:
    background, answers, busy = _background(), list[dict[str, Any]](), threading.Event()
    background._loop.call_soon_threadsafe(busy.wait)
    for _ in range(5000):
        background.add({"type": "t"}, 5.0, answers.append)
    threading.Timer(0.05, busy.set).start()

    background.close()

    assert len(answers) == 5000
    assert {(answer["success"], answer["executed"]) for answer in answers} == {(False, "no")}


def test_what_is_added_after_the_close_is_answered_at_once() -> None:
    background, answers = _background(), list[dict[str, Any]]()
    background.close()

    background.add({"type": "t"}, 5.0, answers.append)

    (answer,) = answers
    assert (answer["error"], answer["executed"], answer["task_type"]) == ("the client was closed", "no", "t")


def _add_many(background: Background, answers: list[dict[str, Any]]) -> None:
    for _ in range(200):
        background.add({"type": "t"}, 5.0, answers.append)


def test_threads_that_add_while_another_closes_get_one_answer_each() -> None:
    for _ in range(20):
        background, answers = _background(), list[dict[str, Any]]()
        adders = [threading.Thread(target=_add_many, args=(background, answers)) for _ in range(4)]
        for adder in adders:
            adder.start()
        background.close()
        for adder in adders:
            adder.join()
        assert len(answers) == 800


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_cannot_be_made_refuses_and_blocks_nobody() -> None:
    def broken() -> RayEngine:
        raise RuntimeError("no engine")

    background, answers = Background(broken), list[dict[str, Any]]()
    background.add({"type": "t"}, 5.0, answers.append)
    background.close()

    assert [answer["executed"] for answer in answers] == ["no"]


async def test_an_engine_that_was_closed_answers_at_once() -> None:
    engine, answers = RayEngine(cast("Routes", _NoRoutes())), list[dict[str, Any]]()
    engine.close()

    engine.add({"type": "t"}, 5.0, answers.append)

    assert [answer["executed"] for answer in answers] == ["no"]


class _Changing(dict[str, Any]):
    """A task that another thread changes while the client reads it."""

    def values(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")

    def items(self) -> Any:
        raise RuntimeError("dictionary changed size during iteration")


@pytest.mark.parametrize("task", [{"type": "t", "params": _Changing(a=1)}, _Changing(type="t")])
async def test_a_task_that_cannot_be_read_is_answered_like_any_other(task: dict[str, Any]) -> None:
    async with AsyncClient(Settings(http_port=1), transport="http", max_in_flight=1) as client:
        answers = await asyncio.wait_for(client.submit_many([task, task], timeout_s=0.1), 30)
    assert [(answer["error_type"], answer["executed"]) for answer in answers] == [("TaskError", "no")] * 2

    background, others = _background(), list[dict[str, Any]]()
    background.add(task, 0.1, others.append)
    background.add({"type": "t"}, 0.1, others.append)
    background.close()
    assert len(others) == 2


def test_an_engine_that_fails_answers_and_takes_the_next() -> None:
    class Broken:
        def add(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
            if raw["type"] == "bad":
                raise KeyError("a table of another shape")
            sink({"success": True})

        def close(self) -> None:
            pass

    background, answers = Background(Broken), queue.SimpleQueue[dict[str, Any]]()
    background.add({"type": "bad"}, None, answers.put)
    background.add({"type": "good"}, None, answers.put)

    first, second = answers.get(timeout=30), answers.get(timeout=30)
    assert (first["success"], first["executed"], first["task_type"]) == (False, "unknown", "bad")
    assert second["success"]
    background.close()


class _SlowFirst:
    """An engine whose first task is slow and whose other tasks are quick."""

    def __init__(self) -> None:
        self.first: Sink | None = None

    def add(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
        if self.first is None:
            self.first = sink
        else:
            asyncio.get_running_loop().call_soon(sink, {"success": True})

    def close(self) -> None:
        pass


async def test_map_reads_no_further_ahead_than_max_in_flight() -> None:
    client = AsyncClient(Settings(), transport="http", max_in_flight=10)
    client._engine = cast("Any", _SlowFirst())
    taken = 0

    async def source() -> AsyncIterator[dict[str, Any]]:
        nonlocal taken
        while taken < 500:
            taken += 1
            yield {"type": "t"}
            await asyncio.sleep(0)

    async def consume() -> None:
        async for _ in client.map(source()):
            pass

    consumer = asyncio.create_task(consume())
    await asyncio.wait({consumer}, timeout=0.5)
    consumer.cancel()
    assert taken <= 11
