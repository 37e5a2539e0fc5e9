"""Test a whole organism on nodes that freeze and come back, on a fake Ray and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from seedcore.organ import organ as organ_module
from tests.support.fake_ray import FakeActor, FakeCluster
from tests.support.virtual_time import run_virtual

NAME = "seedcore_organ.organ.0"


class World:
    """Start an organ with one replica on the first of three nodes."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.cluster.cpus["third"] = 8.0
        self.manager = self.coordinator()
        self.numbers = 0

    def coordinator(self) -> OrganismManager:
        spec = OrganSpec(id="organ", type="Test", agent="x:y", task_types=("work",), queue_limit=9)
        return OrganismManager(OrganismSpec(organs=(spec,)), release="r", runtime=self.cluster, on_change=lambda: None)

    @property
    def actor(self) -> FakeActor:
        return self.cluster.actors[NAME]

    def submit(self, seconds: float = 0.0, limit: float = 60.0) -> asyncio.Task[dict[str, Any]]:
        self.numbers += 1
        task = Task(type="work", id=str(self.numbers), params={"seconds": seconds}, timeout_s=limit)
        return asyncio.ensure_future(self.manager.dispatch(task))

    async def until(self, check: Callable[[], object], *, within_s: float = 300) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not check():
            assert loop.time() - began < within_s, self.manager.organ_reports()
            await asyncio.sleep(0.05)
        return loop.time() - began

    def is_well(self) -> bool:
        return self.manager.missing() == ([], [])

    async def close(self) -> None:
        await self.manager.shutdown()
        await self.cluster.close()


def vanish(manager: OrganismManager) -> None:
    """Kill a Coordinator without a shutdown."""
    manager._watch.stop()
    tasks: list[asyncio.Task[None] | None] = []
    for replica in manager._all():
        tasks.append(replica._supervision)
        if replica._asking is not None:
            replica._asking.cancel()
    for task in tasks:
        if task is not None:
            task.cancel()


def story(body: Callable[[World], Any]) -> None:
    async def tell() -> None:
        world = World()
        await world.manager.initialize()
        await body(world)
        assert world.cluster.fenced_work == []
        assert world.cluster.kills == []
        await world.close()

    run_virtual(tell())


def test_a_connection_that_is_back_later_than_its_node_costs_no_process() -> None:
    async def body(world: World) -> None:
        process, node = world.actor.process, world.actor.node_id
        for offset in range(8):
            await asyncio.sleep(20 + offset / 2)
            world.cluster.freeze(node)
            await asyncio.sleep(5.5)
            # A new connection works at once; the old one retransmits only after its pause, which has doubled.
            world.cluster.change(frozen=frozenset())
            await asyncio.sleep(5.5)
            world.cluster.freeze()
            await world.until(world.is_well)
            assert world.actor.process is process
            assert process is not None
            assert not process.died.is_set()

    story(body)


def test_a_process_that_hangs_after_its_node_was_away_is_replaced() -> None:
    async def body(world: World) -> None:
        old, node = world.actor.process, world.actor.node_id
        world.cluster.freeze(node)
        await asyncio.sleep(5.5)
        world.cluster.freeze()
        world.actor.hang()
        actors = world.cluster.actors
        assert await world.until(lambda: NAME in actors and actors[NAME].process not in {old, None}) < 25
        await world.until(world.is_well)

    story(body)


def test_work_gets_done_elsewhere_after_node_silence_s_and_the_old_process_takes_none() -> None:
    async def body(world: World) -> None:
        for kills_arrive in (True, False):
            await freeze_and_thaw(world, kills_arrive=kills_arrive)

    async def freeze_and_thaw(world: World, *, kills_arrive: bool) -> None:
        world.cluster.kills_arrive = kills_arrive
        old = world.actor
        process = old.process
        assert process is not None
        running, queued, more = world.submit(seconds=9.0), world.submit(), world.submit()
        await world.until(lambda: process.organ._work.queued == 2)
        world.cluster.freeze(old.node_id)
        sent = world.submit()
        await asyncio.sleep(12)
        assert not world.is_well()
        took = 12 + await world.until(world.is_well)
        assert 14 < took < 18
        assert world.actor is not old
        assert world.actor.node_id != old.node_id
        assert (await world.submit())["success"] is True
        told = [await each for each in (running, queued, more, sent)]
        assert [answer["executed"] for answer in told] == ["unknown"] * 4
        begun = world.cluster.began.copy()
        world.cluster.freeze()
        await world.until(process.died.is_set, within_s=10)
        await asyncio.sleep(60)
        assert world.cluster.began == begun, "what was sent before is not begun after"
        assert world.is_well()

    story(body)


def test_a_process_that_was_told_to_stop_and_killed_while_it_was_frozen_ends_by_itself() -> None:
    async def body(world: World) -> None:
        world.cluster.kills_arrive = False
        process = world.actor.process
        assert process is not None
        world.cluster.freeze(process.node_id)
        # It becomes overdue only later, so it is still told to stop.
        await world.manager.shutdown()
        world.cluster.freeze()
        await world.until(process.died.is_set, within_s=30)

    story(body)


def test_a_silence_that_is_shorter_restarts_nothing() -> None:
    async def body(world: World) -> None:
        old, process = world.actor, world.actor.process
        for seconds in (5, 9, 13):
            running = world.submit(seconds=3.0)
            await asyncio.sleep(0.1)
            world.cluster.freeze(old.node_id)
            await asyncio.sleep(seconds)
            world.cluster.freeze()
            await world.until(world.is_well, within_s=3)
            assert (await running)["success"] is True
            assert (await world.submit())["success"] is True
            await asyncio.sleep(60)
        assert world.actor is old
        assert (old.process, old.restarts) == (process, 0)

    story(body)


def test_a_process_that_hangs_alone_is_replaced_where_it_is() -> None:
    async def body(world: World) -> None:
        old = world.actor
        old.hang()
        await world.until(lambda: old.restarts == 1, within_s=12)
        await world.until(world.is_well, within_s=10)
        assert world.actor is old

    story(body)


def test_a_process_that_hangs_where_no_agent_can_be_reached_is_replaced_where_it_is() -> None:
    async def body(world: World) -> None:
        old = world.actor
        world.cluster.agents_are_blocked = True
        old.hang()
        await world.until(lambda: old.restarts == 1, within_s=110)
        await world.until(world.is_well, within_s=10)
        assert world.actor is old

    story(body)


def test_nothing_is_given_up_by_who_hears_nobody_or_while_the_head_is_away() -> None:
    async def body(world: World) -> None:
        old, process = world.actor, world.actor.process
        world.cluster.freeze("node", "other", "third")
        await asyncio.sleep(80)
        world.cluster.freeze()
        await world.until(world.is_well, within_s=5)
        world.cluster.change(head_is_up=False)
        world.cluster.freeze(old.node_id)
        await asyncio.sleep(300)
        world.cluster.freeze()
        await world.until(world.is_well, within_s=5)
        world.cluster.change(head_is_up=True)
        await asyncio.sleep(60)
        assert world.actor is old
        assert (old.process, old.restarts) == (process, 0)

    story(body)


def test_a_node_that_is_back_together_with_the_head_is_not_given_up_any_more() -> None:
    async def body(world: World) -> None:
        old, process = world.actor, world.actor.process
        world.cluster.freeze(old.node_id)
        await asyncio.sleep(14)
        places = world.cluster.places

        async def places_late() -> Any:
            await asyncio.sleep(3.5)
            world.cluster.freeze()
            await asyncio.sleep(1)
            return await places()

        world.cluster.places = places_late  # type: ignore[method-assign]
        await world.until(world.is_well, within_s=10)
        await asyncio.sleep(60)
        assert (world.actor, world.actor.process, old.restarts) == (old, process, 0)

    story(body)


def test_what_can_be_nowhere_else_waits_for_its_node() -> None:
    async def body(world: World) -> None:
        old, process = world.actor, world.actor.process
        world.cluster.draining = frozenset({"other", "third"})
        world.cluster.freeze(old.node_id)
        await asyncio.sleep(50)
        world.cluster.freeze()
        await world.until(world.is_well, within_s=5)
        assert (world.actor.process, world.actor.restarts) == (process, 0)

    story(body)


def test_the_next_coordinator_adopts_the_new_process_and_gives_up_what_is_frozen() -> None:
    async def body(world: World) -> None:
        old = world.actor
        world.cluster.freeze(old.node_id)
        await world.until(lambda: world.actor is not old if NAME in world.cluster.actors else False)
        await world.until(world.is_well)
        new = world.actor
        vanish(world.manager)
        world.manager = world.coordinator()
        await world.manager.initialize()
        assert world.actor is new
        world.cluster.freeze(new.node_id)
        vanish(world.manager)
        world.manager = world.coordinator()
        starting = asyncio.ensure_future(world.manager.initialize())
        took = await world.until(world.is_well)
        assert took < 25
        await starting
        assert world.actor is not new

    story(body)


def test_a_coordinator_that_is_away_costs_no_work_and_a_head_that_is_away_ends_it() -> None:
    async def body(world: World) -> None:
        process = world.actor.process
        assert process is not None
        epoch = process.organ.snapshot().epoch
        order = (Task(type="work", id="direct").to_dict(), 5.0, True)
        vanish(world.manager)
        await asyncio.sleep(300)
        assert (await process.organ.call((*order, epoch)))["success"] is True
        world.cluster.change(head_is_up=False)
        await asyncio.sleep(30)
        refused = await process.organ.call((*order, epoch))
        assert (refused["error_type"], refused["executed"]) == ("OrganUnavailableError", "no")
        assert refused["retry_after_s"] > 0
        world.cluster.change(head_is_up=True)
        await asyncio.sleep(10)
        assert (await process.organ.call((*order, epoch)))["executed"] == "no", "its epoch is over"
        assert (await process.organ.call((*order, process.organ.snapshot().epoch)))["success"] is True

    story(body)


def test_an_organ_outside_ray_does_not_guard_the_children_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # A guard is a shell that lives as long as the process and then searches /proc.
    guards: list[str] = []
    monkeypatch.setattr(organ_module, "guard_children", lambda: guards.append("one"))

    async def is_well(world: World) -> None:
        await world.until(world.is_well)

    story(is_well)

    assert guards == []
