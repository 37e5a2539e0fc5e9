"""Test the comparison of new and old processes: its verdicts, and a whole reload on a fake Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from seedcore.coordinator.bake import Bake, Figures, fault, figures, summary
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import InitializationError
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from tests.support.fake_ray import FakeActor, FakeCluster, FakeProcess
from tests.support.virtual_time import run_virtual

MIB = 2**20


def counted(done: int = 0, failed: int = 0, seconds: float = 0.0) -> list[dict[str, Any]]:
    both = (("success", done, seconds), ("ValueError", failed, 0.0))
    return [{"outcome": outcome, "count": count, "seconds_sum": spent} for outcome, count, spent in both]


def test_only_what_happened_meanwhile_counts() -> None:
    meanwhile = figures(counted(100, 7, 5.0), counted(130, 9, 8.0), memory=MIB)

    assert meanwhile == Figures(tasks=32, failed=2, seconds=3.0, memory=MIB)
    assert figures(counted(5), counted()) == Figures(), "the counts of a process that was started again"


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (Figures(tasks=40, failed=1), Figures(tasks=160, failed=4), ""),
        (Figures(tasks=40, failed=2), Figures(tasks=160), "2 of 40 tasks failed (old: 0 of 160)"),
        (Figures(tasks=1, failed=1), Figures(), "1 of 1 tasks failed (old: 0 of 0)"),
        (Figures(tasks=1000, failed=9), Figures(tasks=1000), ""),
        (Figures(tasks=20, seconds=0.8), Figures(tasks=20, seconds=0.4), "a task takes 40 ms (old: 20 ms)"),
        (Figures(tasks=20, seconds=0.5), Figures(tasks=20, seconds=0.4), ""),
        (Figures(tasks=9, seconds=9.0), Figures(tasks=90, seconds=0.9), ""),
        (Figures(memory=400 * MIB), Figures(memory=200 * MIB), "its process uses 400 MiB (old: 200 MiB)"),
        (Figures(memory=350 * MIB), Figures(memory=200 * MIB), ""),
        (Figures(memory=350 * MIB), Figures(), ""),
        (Figures(), Figures(tasks=50, seconds=1.0), ""),
    ],
)
def test_a_process_is_worse_by_more_than_the_tolerance_or_not(new: Figures, old: Figures, said: str) -> None:
    assert fault(new, old, 0.5) == said


def test_the_result_is_one_line() -> None:
    line = summary(30.0, Figures(tasks=412), Figures(tasks=1630, failed=1))

    assert line == "30 s, 412 tasks on new, 0 failed (old: 1 of 1,630)"


def organ(**more: Any) -> OrganSpec:
    return OrganSpec(**{"id": "one", "type": "Test", "agent": "x:y", "task_types": ("one",), "agent_count": 2, **more})


NEW = OrganismSpec(organs=(organ(queue_limit=7, replicas=2),))


class World:
    """An organism under load on a fake Ray; ``dies`` lets a new process die while it is compared."""

    def __init__(self, *, dies: bool = False) -> None:
        self.cluster = FakeCluster()
        spec = OrganismSpec(organs=(organ(replicas=2),))
        self.manager = OrganismManager(spec, release="r", runtime=self.cluster, on_change=self._look)
        self.dies = dies
        self.answers: list[dict[str, Any]] = []
        self.compares = asyncio.Event()
        self.ended = asyncio.Event()
        self.old: list[FakeActor] = []

    def _look(self) -> None:
        if "comparing old and new: one" in self.manager.stage and not self.compares.is_set():
            self.old = [actor for name, actor in self.cluster.actors.items() if "~1" not in name]
            self.compares.set()

    async def load(self) -> None:
        """Send a task every 100 ms."""
        sent = set()
        while not self.ended.is_set():
            sent.add(asyncio.create_task(self._one()))
            await asyncio.sleep(0.1)
        await asyncio.gather(*sent)

    async def _one(self) -> None:
        self.answers.append(await self.manager.dispatch(Task(type="one", timeout_s=20.0, params={"seconds": 0.05})))

    async def reload(self, seconds: float) -> dict[str, list[str]]:
        async def commit(generations: Mapping[str, int]) -> None:
            assert generations == {"one": 1}

        return await self.manager.reload(NEW, timeout_s=60.0, commit=commit, bake=Bake(seconds=seconds, tolerance=0.5))

    async def run(self, seconds: float = 30.0) -> dict[str, list[str]]:
        """Return what the reload returns; stop everything in the end."""
        await self.manager.initialize()
        load = asyncio.create_task(self.load())
        reload = asyncio.create_task(self.reload(seconds))
        try:
            if self.dies:
                await self.compares.wait()
                self.cluster.actors["seedcore_organ.one.0~1"].die()
            return await reload
        finally:
            self.ended.set()
            await load
            await self.manager.shutdown()
            assert self.cluster.actors == {}


def test_a_new_process_that_does_as_well_takes_its_share_and_then_all() -> None:
    async def body() -> None:
        world = World()
        changes = await world.run()

        assert changes["replaced"] == ["one"]
        seconds, tasks = changes["baked"][0].split(", ", 1)
        assert seconds == "30 s"
        new, old = int(tasks.split()[0]), int(tasks.rstrip(")").split()[-1])
        # A third each: two old processes and one new.
        assert 50 < new < 150
        assert 150 < old < 250
        assert tasks == f"{new} tasks on new, 0 failed (old: 0 of {old})"
        assert all(answer["success"] for answer in world.answers)

    run_virtual(body())


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"fails": True}, r"\d+ of \d+ tasks failed \(old: 0 of \d+\)"),
        ({"dies": True}, r".*died"),
        ({"seconds": 15.0}, r"it has answered none of its \d+ tasks for \d+ s"),
    ],
    ids=["fails", "dies", "hangs"],
)
def test_one_that_is_worse_is_taken_away_and_the_old_ones_stay(
    monkeypatch: pytest.MonkeyPatch, new: dict[str, Any], said: str
) -> None:
    as_before = FakeProcess._work

    async def work(process: FakeProcess, task: Task) -> str:
        if process.actor.name.endswith("~1"):
            await asyncio.sleep(new.get("seconds", 0.0))
            if new.get("fails"):
                raise ValueError("not with me")
        return await as_before(process, task)

    monkeypatch.setattr(FakeProcess, "_work", work)

    async def body() -> None:
        world = World(dies="dies" in new)
        began = asyncio.get_running_loop().time()
        with pytest.raises(InitializationError, match=f"organ one: the new process is worse: {said}"):
            await world.run()

        assert [actor.restarts for actor in world.old] == [0, 0], "the old processes were left alone"
        assert world.manager.spec != NEW
        assert asyncio.get_running_loop().time() - began < 25, "long before the 30 s are over"

    run_virtual(body())


def test_without_tasks_a_new_process_only_has_to_answer() -> None:
    async def body() -> None:
        world = World()
        world.ended.set()
        changes = await world.run(5.0)

        assert changes["baked"] == ["5 s, 0 tasks on new, 0 failed (old: 0 of 0)"]

    run_virtual(body())
