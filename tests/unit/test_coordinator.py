"""The Coordinator's own words and doors: how old what it says is, and when it takes no more tasks."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from seedcore.activity import Activity
from seedcore.coordinator import STALE_AFTER_S, Coordinator
from seedcore.counts import TaskCounts
from seedcore.task import Task


def coordinator(*, born: float) -> Coordinator:
    one = Coordinator.__new__(Coordinator)
    one._snapshot = {"status": "healthy", "reason": "ready", "message": "all ready", "snapshot_at": time.time()}
    one._snapshot_born = born
    return one


@pytest.mark.parametrize("set_by_s", [-3600.0, 30.0, 3600.0])
async def test_a_clock_that_is_set_neither_hides_nor_makes_a_hang(
    monkeypatch: pytest.MonkeyPatch, set_by_s: float
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + set_by_s)

    fresh = await coordinator(born=time.monotonic()).get_status()
    hung = await coordinator(born=time.monotonic() - STALE_AFTER_S - 2).get_status()

    assert (fresh["status"], fresh["reason"]) == ("healthy", "ready")
    assert (hung["status"], hung["reason"]) == ("unhealthy", "stale")
    assert hung["message"] == "the Coordinator's loop has not turned for 7 s"
    assert hung["age_s"] == pytest.approx(7.0, abs=0.5)


class Organism:
    """Takes tasks that end when the test says so."""

    known_types = frozenset({"add"})
    stage = "1 of 1 organs ready"

    def __init__(self) -> None:
        self.end = asyncio.Event()

    async def dispatch(self, task: Task) -> dict[str, Any]:
        await self.end.wait()
        return {"success": True, "result": 3, "organ_id": "o", "agent_id": "a", "task_type": task.type}


class Life:
    def __init__(self) -> None:
        self.organism = Organism()

    def require_running(self) -> None:
        pass


@pytest.fixture
def at_work() -> Coordinator:
    one = Coordinator.__new__(Coordinator)
    one._in_flight, one._closed_until, one._idle = 0, 0.0, asyncio.Event()
    one._life, one._counts, one._activity = Life(), TaskCounts(), Activity()  # type: ignore[assignment]
    return one


async def test_a_planned_replacement_loses_no_task_that_was_taken(at_work: Coordinator) -> None:
    organism: Any = at_work._life.organism
    taken = asyncio.create_task(at_work.handle({"type": "add"}))
    await asyncio.sleep(0)
    quiet = asyncio.create_task(at_work.quiesce(30.0))
    await asyncio.sleep(0)

    late = await at_work.handle({"type": "add"})
    inner = await at_work.handle(
        {"type": "execute_on_organ", "params": {"organ_id": "o", "task_data": {"type": "add"}}}
    )

    for refused in (late, inner):
        assert (refused["success"], refused["executed"], refused["error_type"]) == (
            False,
            "no",
            "OrganUnavailableError",
        )
        assert refused["error"] == "the Coordinator is being replaced"
        assert refused["retry_after_s"] == 5.0
    assert not quiet.done()
    organism.end.set()
    assert (await taken)["success"]
    assert await quiet


async def test_a_replacement_waits_no_longer_than_it_is_told_to(at_work: Coordinator) -> None:
    taken = asyncio.create_task(at_work.handle({"type": "add"}))
    await asyncio.sleep(0)

    assert not await at_work.quiesce(0.05)

    taken.cancel()


async def test_a_coordinator_that_is_not_replaced_after_all_takes_tasks_again(
    at_work: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seedcore.coordinator.QUIET_S", 0.0)
    organism: Any = at_work._life.organism
    organism.end.set()

    assert await at_work.quiesce(0.0)

    assert (await at_work.handle({"type": "add"}))["success"]
