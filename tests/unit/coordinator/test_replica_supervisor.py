"""Test a replica with a real organ on a fake Ray, in virtual time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from seedcore.coordinator.replica_supervisor import Replica
from seedcore.coordinator.start_queue import Placer
from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task
from tests.support.fake_ray import FakeActor, FakeCluster
from tests.support.virtual_time import run_virtual

NAME = "seedcore_organ.organ.0"


class World:
    """One replica, its cluster, and all reports about it with their times."""

    def __init__(self, **spec: Any) -> None:
        self.cluster = FakeCluster()
        self.leaving: set[str] = set()
        self.said: list[tuple[float, str, str | None]] = []
        values = {"id": "organ", "type": "Test", "agent": "x:y", **spec}
        self.replica = Replica(
            OrganSpec(**values),
            0,
            identity="identity",
            runtime=self.cluster,
            placer=Placer(self.cluster, tuple),
            is_leaving=lambda node_id: node_id in self.leaving,
            on_change=self.note,
        )

    def note(self) -> None:
        now = asyncio.get_running_loop().time()
        self.said.append((round(now, 2), str(self.replica.state), self.replica.error))

    @property
    def actor(self) -> FakeActor:
        return self.cluster.actors[NAME]

    async def until(self, check: Callable[[], object], *, within_s: float = 300) -> float:
        """Wait for a condition and return the seconds that it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not check():
            assert loop.time() - began < within_s, (self.replica.state, self.replica.error)
            await asyncio.sleep(0.05)
        return loop.time() - began

    async def up(self) -> World:
        self.replica.start()
        await self.until(lambda: self.replica.state == "ready")
        return self

    async def task(self, number: int = 1, seconds: float = 0.0, limit: float = 10.0) -> dict[str, Any]:
        task = Task(type="pay", id=str(number), params={"seconds": seconds}).to_dict()
        return await self.replica.execute(task, limit)

    async def close(self) -> None:
        await self.replica.stop()
        await self.cluster.close()


def story(body: Callable[[World], Any], **spec: Any) -> World:
    """Run a test in a separate virtual loop, and fail on any exception that Python would only log."""
    unheard: list[dict[str, Any]] = []

    async def tell() -> World:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        world = World(**spec)
        await body(world)
        await world.close()
        gc.collect()
        assert unheard == []
        return world

    world: World = run_virtual(tell())
    return world


def test_one_death_is_one_death_however_long_the_next_process_takes() -> None:
    async def body(world: World) -> None:
        await world.up()
        for start_s in (2.0, 20.0, 100.0):
            world.cluster.start_s = start_s
            await asyncio.sleep(120)
            world.actor.die()
            await world.until(lambda: world.replica.state != "ready")
            took = await world.until(lambda: world.replica.state == "ready")
            assert start_s - 2 < took < start_s + 8
        assert world.replica.restarts == 3
        assert world.cluster.kills == []
        assert not [text for _, _, text in world.said if text and "crash loop" in text]

    story(body)


def test_what_ray_has_not_placed_is_left_alone_until_there_is_room() -> None:
    async def body(world: World) -> None:
        world.cluster.has_room = False
        world.replica.start()
        await asyncio.sleep(3600)
        actor = world.actor
        assert (world.replica.state, world.replica.error) == ("starting", None)
        assert world.replica.is_unplaced
        world.cluster.change(has_room=True)
        await world.until(lambda: world.replica.state == "ready", within_s=35)
        assert world.actor is actor
        assert not world.replica.is_unplaced

    story(body)


def test_a_head_that_is_away_costs_no_process() -> None:
    async def body(world: World) -> None:
        await world.up()
        world.cluster.change(head_is_up=False)
        await asyncio.sleep(300)
        assert (await world.task())["success"] is True
        world.actor.die()
        await asyncio.sleep(300)
        assert world.replica.state == "down"
        world.cluster.change(head_is_up=True)
        await world.until(lambda: world.replica.state == "ready", within_s=20)
        assert (world.replica.restarts, world.cluster.kills) == (1, [])

    story(body)


def test_a_process_that_hangs_is_replaced_and_one_that_hangs_for_a_moment_is_not() -> None:
    async def body(world: World) -> None:
        await world.up()
        actor = world.actor
        actor.hang()
        await asyncio.sleep(6)
        assert (world.replica.state, world.replica.error) == ("down", "its report is overdue")
        actor.go_on()
        await world.until(lambda: world.replica.state == "ready", within_s=1)
        assert (actor.restarts, world.replica.restarts) == (0, 0)
        actor.hang()
        await world.until(lambda: actor.restarts == 1, within_s=12)
        await world.until(lambda: world.replica.state == "ready", within_s=10)
        assert (world.replica.restarts, world.cluster.kills) == (1, [])

    story(body)


def test_a_process_whose_report_is_overdue_may_end_its_tasks_before_it_is_stopped() -> None:
    async def body(world: World) -> None:
        await world.up()
        actor = world.actor
        task = asyncio.ensure_future(world.task(seconds=8.0, limit=30.0))
        await asyncio.sleep(0.5)
        actor.hang()
        await world.until(lambda: world.replica.error == "its report is overdue")
        stopping = asyncio.ensure_future(world.replica.stop())
        await asyncio.sleep(1)
        actor.go_on()
        assert (await task)["success"]
        await stopping
        assert world.cluster.kills == []

    story(body)


def test_an_adopted_process_that_never_answers_is_replaced() -> None:
    async def body(world: World) -> None:
        await world.cluster.ensure(world.replica.spec, 0, "identity", generation=0, node_id=None)
        await asyncio.sleep(5)
        old = world.actor
        old.hang()
        world.replica.start()
        await world.until(lambda: world.replica.state == "ready", within_s=75)
        assert world.actor is not old

    story(body)


def test_a_crash_loop_pauses_and_ends_no_process_that_answers() -> None:
    async def body(world: World) -> None:
        await world.up()
        world.cluster.dies_after_s = 2.0
        world.actor.die()
        await world.until(lambda: world.replica.error and "crash loop: 5 deaths" in world.replica.error)
        assert world.replica.error == "crash loop: 5 deaths, last: its process died; next start in 5 s"
        await world.until(lambda: world.replica.error and "next start in 10 s" in world.replica.error)
        world.cluster.dies_after_s = None
        await world.until(lambda: world.replica.state == "ready", within_s=30)
        assert world.cluster.kills == []

    story(body)


def test_no_status_is_better_than_the_last_answer_to_a_task() -> None:
    async def body(world: World) -> None:
        await world.up()
        for may_have_run in (False, True):
            if may_have_run:
                running = asyncio.create_task(world.task(1, seconds=5.0))
                await world.until(lambda: world.cluster.began["1"])
            await asyncio.sleep(0.3)
            world.actor.die()
            assert world.replica.state == "ready", "nobody has noticed yet"
            answer = await running if may_have_run else await world.task(2)
            assert (answer["error_type"], world.replica.usable) == ("OrganUnavailableError", False)
            assert answer["executed"] == ("unknown" if may_have_run else "no")
            assert (world.replica.error or "").startswith("its process died")
            await world.until(lambda: world.replica.state == "ready", within_s=10)
        assert world.replica.restarts == 2

    story(body)


def test_a_node_that_leaves_lets_the_tasks_end_that_are_there() -> None:
    async def body(world: World) -> None:
        await world.up()
        old = world.actor
        running = asyncio.create_task(world.task(1, seconds=5.0))
        await world.until(lambda: world.cluster.began["1"])
        world.leaving.add("node")
        await world.until(lambda: world.replica.state == "down", within_s=3)
        world.leaving.clear()
        assert (await running)["success"] is True
        await world.until(lambda: world.replica.state == "ready", within_s=10)
        assert world.actor is not old
        assert (world.replica.restarts, world.cluster.kills) == (1, [])

    story(body)


def test_a_replica_that_is_stopped_while_its_process_moves_leaves_nothing_behind() -> None:
    async def body(world: World) -> None:
        await world.up()
        running = asyncio.create_task(world.task(1, seconds=5.0))
        await world.until(lambda: world.cluster.began["1"])
        world.leaving.add("node")
        await world.until(lambda: world.replica.state == "down", within_s=3)
        await world.replica.stop()
        assert (await running)["success"] is True
        assert world.cluster.actors == {}

    story(body)


def test_a_stream_without_a_process_says_so_and_counts_nothing() -> None:
    async def body(world: World) -> None:
        world.cluster.has_room = False
        world.replica.start()
        parts = world.replica.stream(Task(type="pay").to_dict(), 5.0, grace_s=1.0)
        errors = []
        try:
            await anext(parts)
        except Exception as error:
            errors.append(error)
        assert [getattr(error, "executed", None) for error in errors] == ["no"]
        assert world.replica.in_flight == 0

    story(body)


def test_a_report_that_raises_is_told_in_its_own_words() -> None:
    async def body(world: World) -> None:
        await world.up()
        process = world.actor.process
        assert process is not None

        async def watch(*_: object) -> None:
            raise KeyError("version")

        process.organ.watch = watch  # type: ignore[assignment]
        await world.until(lambda: world.replica.state == "down", within_s=5)
        assert world.replica.error == "KeyError: 'version'"
        with suppress(AttributeError):
            del process.organ.watch
        await world.until(lambda: world.replica.state == "ready", within_s=10)
        assert world.replica.restarts == 0

    story(body)
