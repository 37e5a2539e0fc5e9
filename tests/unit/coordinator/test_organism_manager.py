"""Test a whole organism on a fake Ray: its start, the rollback of a reload, and the messages about missing organs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.errors import InitializationError, OrganUnavailableError
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import Task
from tests.support.fake_ray import FakeCluster
from tests.support.virtual_time import run_virtual

Body = Callable[[OrganismManager, FakeCluster], Coroutine[Any, Any, None]]


def organ(name: str, **more: Any) -> OrganSpec:
    return OrganSpec(**{"id": name, "type": "Test", "agent": "x:y", "task_types": (name,), **more})


def world(body: Body, *organs: OrganSpec) -> None:
    async def run() -> None:
        cluster = FakeCluster()
        manager = OrganismManager(OrganismSpec(organs=organs), release="r", runtime=cluster, on_change=lambda: None)
        await body(manager, cluster)
        await manager.shutdown()
        assert cluster.actors == {}

    run_virtual(run())


def now() -> float:
    return asyncio.get_running_loop().time()


async def nothing(_: Mapping[str, int]) -> None:
    return None


async def do(manager: OrganismManager, kind: str, *, seconds: float = 0.0) -> dict[str, Any]:
    return await manager.dispatch(Task(type=kind, timeout_s=5.0, params={"seconds": seconds}))


def test_a_start_waits_for_what_is_required_as_long_as_it_takes() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.has_room = False
        asyncio.get_running_loop().call_later(900, lambda: cluster.change(has_room=True))
        await manager.initialize()
        assert 900 < now() < 940
        assert manager.missing() == ([], [])
        assert (await do(manager, "one"))["success"]

    world(body, organ("one", replicas=2, agent_count=2))


def test_a_start_waits_for_what_is_optional_only_for_its_time() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.has_room = False
        await manager.initialize()
        assert 60 <= now() < 63
        down, degraded = manager.missing()
        assert (down, degraded) == ([], ["one: 0 of 1 agents ready (replica 0 is starting)"])
        assert manager.stage == "0 of 1 organs ready; starting: one"

    world(body, organ("one", required=False))


def test_a_process_that_dies_again_and_again_fails_the_start_and_leaves_nothing() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.change(start_s=0.1, dies_after_s=0.0)
        with pytest.raises(InitializationError, match=r"the process of organ one died .* times while it started"):
            await manager.initialize()
        assert cluster.actors == {}

    world(body, organ("one"))


def test_a_living_organism_is_adopted_and_what_it_does_not_have_is_removed() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        await manager.initialize()
        actor = cluster.actors["seedcore_organ.one.0"]
        next_one = OrganismManager(
            OrganismSpec(organs=(organ("one"),)), release="r", runtime=cluster, on_change=lambda: None
        )
        await next_one.initialize()
        assert cluster.actors == {"seedcore_organ.one.0": actor}
        assert (next_one.organ_reports()[0]["replicas"][0]["restarts"], cluster.kills) == (0, [])
        await next_one.shutdown()

    world(body, organ("one"), organ("two"))


def test_what_is_missing_is_told_with_its_cause_and_tasks_for_it_are_refused() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        await manager.initialize()
        for name in ("one.0", "two.0", "three.0"):
            cluster.actors[f"seedcore_organ.{name}"].hang()
        await asyncio.sleep(6)
        down, degraded = manager.missing()
        assert down == ["one: 0 of 1 agents ready (its report is overdue)"]
        assert degraded == [
            "two: 1 of 2 agents ready (its report is overdue)",
            "three: 0 of 1 agents ready (its report is overdue)",
        ]
        with pytest.raises(OrganUnavailableError, match="organ one is not ready: its report is overdue"):
            await do(manager, "one")
        assert (await do(manager, "two"))["success"]
        echoes = {(echo["organ_id"], echo["replica"]): echo for echo in await manager.canary("n")}
        assert {key: (echo["ok"], echo["missed"]) for key, echo in echoes.items()} == {
            ("one", 0): (False, True),
            ("two", 0): (False, False),
            ("two", 1): (True, False),
            ("three", 0): (False, False),
        }

    world(
        body,
        organ("one"),
        organ("two", replicas=2, agent_count=2, min_ready_agents=1),
        organ("three", required=False),
    )


def test_a_reload_keeps_what_is_the_same_and_undoes_what_does_not_come_up() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        await manager.initialize()
        kept = cluster.actors["seedcore_organ.one.0"]
        after = OrganismSpec(organs=(organ("one"), organ("two", queue_limit=5), organ("four")))

        cluster.change(has_room=False)
        with pytest.raises(InitializationError, match="organs four, two did not come up within 30"):
            await manager.reload(after, timeout_s=30.0, commit=nothing)
        assert manager.missing() == ([], [])
        assert [(await do(manager, kind))["success"] for kind in ("one", "two", "three")] == [True] * 3

        cluster.change(has_room=True)
        changes = await manager.reload(after, timeout_s=30.0, commit=nothing)
        assert changes == {"kept": ["one"], "replaced": ["two"], "added": ["four"], "removed": ["three"]}
        assert sorted(cluster.actors) == [f"seedcore_organ.{name}" for name in ("four.0", "one.0", "two.0~1")]
        assert cluster.actors["seedcore_organ.one.0"] is kept
        assert [(await do(manager, kind))["success"] for kind in ("one", "two", "four")] == [True] * 3
        assert cluster.kills == []

    world(body, organ("one"), organ("two"), organ("three"))


@pytest.mark.parametrize("has_room", [True, False], ids=["beside the old ones", "in their place"])
def test_no_task_fails_and_none_is_done_twice_while_an_organ_is_replaced(*, has_room: bool) -> None:
    gpu = {} if has_room else {"num_cpus": 5.0}

    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.cpus = {"node": 8.0}
        await manager.initialize()
        answers: list[asyncio.Task[dict[str, Any]]] = []
        after = OrganismSpec(organs=(organ("one", replicas=1, agent_count=3, **gpu),))
        reload = asyncio.create_task(manager.reload(after, timeout_s=30.0, commit=nothing))
        was_away = False
        while not reload.done() or now() < 10:
            task = Task(type="one", id=str(len(answers)), params={"seconds": 0.3})
            answers.append(asyncio.create_task(manager.dispatch(task)))
            was_away |= manager.missing() != ([], [])
            await asyncio.sleep(0.05)

        assert {(await answer)["success"] for answer in answers} == {True}
        assert set(cluster.done.values()) == {1}
        assert was_away is not has_room
        assert manager.progress["agents"] == 3
        await reload
        await asyncio.sleep(2)
        assert sum(entry["count"] for entry in manager.organ_metrics()[0]["tasks"]) == len(answers)
        assert cluster.kills == []

    world(body, organ("one", agent_count=2, **gpu))


def test_what_no_node_can_hold_takes_no_old_process_away() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.cpus = {"node": 8.0}
        await manager.initialize()
        old = cluster.actors["seedcore_organ.one.0"]
        cluster.change(has_room=False)
        after = OrganismSpec(organs=(organ("one", num_cpus=9.0),))
        reload = asyncio.create_task(manager.reload(after, timeout_s=30.0, commit=nothing))
        while not reload.done():
            assert (await do(manager, "one"))["success"]
            assert manager.missing() == ([], [])
            await asyncio.sleep(0.5)
        with pytest.raises(InitializationError, match="organs one did not come up within 30"):
            await reload
        assert cluster.actors == {"seedcore_organ.one.0": old}

    world(body, organ("one"))


def test_what_an_old_process_sends_back_is_done_by_the_new_one() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        await manager.initialize()
        tasks = [Task(type="one", id=str(number), params={"seconds": 0.4}) for number in range(20)]
        answers = [asyncio.create_task(manager.dispatch(task)) for task in tasks]
        await manager.reload(
            OrganismSpec(organs=(organ("one", agent_count=20, drain_timeout_s=0.5),)), timeout_s=30.0, commit=nothing
        )

        results = [await answer for answer in answers]
        # The task that was running at the end of the drain timeout may be half done.
        assert [answer["executed"] for answer in results if not answer["success"]] in ([], ["unknown"])
        assert sum(answer["success"] for answer in results) >= 19
        assert max(cluster.began.values()) == 1

    world(body, organ("one", drain_timeout_s=0.5))


def test_an_organ_that_does_not_start_anew_leaves_the_old_one_as_it_is() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        await manager.initialize()
        old = cluster.actors["seedcore_organ.one.0"]
        process = old.process
        cluster.change(dies_after_s=0.0)
        with pytest.raises(InitializationError, match="the process of organ one died"):
            await manager.reload(OrganismSpec(organs=(organ("one", queue_limit=7),)), timeout_s=30.0, commit=nothing)
        assert cluster.actors == {"seedcore_organ.one.0": old}
        assert (old.process, manager.missing()) == (process, ([], []))
        assert (await do(manager, "one"))["success"]

    world(body, organ("one"))


@pytest.mark.parametrize("is_remembered", [True, False], ids=["by its record", "by what lives"])
def test_the_processes_of_a_reload_are_adopted_by_the_next_coordinator(*, is_remembered: bool) -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        await manager.initialize()
        kept: dict[str, int] = {}

        async def commit(generations: Mapping[str, int]) -> None:
            kept.update(generations)

        after = OrganismSpec(organs=(organ("one", queue_limit=7), organ("two")))
        await manager.reload(after, timeout_s=30.0, commit=commit)
        assert kept == {"one": 1}
        before = dict(cluster.actors)
        assert sorted(before) == ["seedcore_organ.one.0~1", "seedcore_organ.two.0"]
        known = kept if is_remembered else None
        after_crash = OrganismManager(after, release="r", runtime=cluster, on_change=lambda: None, generations=known)
        await after_crash.initialize()
        assert cluster.actors == before
        # And back again.
        await after_crash.reload(OrganismSpec(organs=(organ("one"), organ("two"))), timeout_s=30.0, commit=commit)
        assert sorted(cluster.actors) == ["seedcore_organ.one.0", "seedcore_organ.two.0"]
        await after_crash.shutdown()

    world(body, organ("one"), organ("two"))


def test_a_hundred_replicas_come_up_without_a_storm_and_the_stage_says_who_waits() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.cpus, cluster.head = {"head": 4.0, "a": 4.0, "b": 2.0}, "head"
        most, stages = Counter[str](), set()
        start = asyncio.create_task(manager.initialize())
        while not start.done():
            await asyncio.sleep(0.1)
            starting = Counter(actor.node_id for actor in cluster.actors.values() if actor.state == "PENDING_CREATION")
            most |= starting
            stages.add(manager.stage)
            replicas = [one for report in manager.organ_reports() for one in report["replicas"]]
            assert sum(one["has_turn"] for one in replicas) <= 6
            assert manager.unplaced() == [], "each has room, and only waits for its turn or its process"
        await start
        assert most == {"a": 4, "b": 2}
        where = Counter(actor.node_id for actor in cluster.actors.values())
        assert (where["head"], sorted((where["a"], where["b"]))) == (0, [50, 51])
        assert "0 of 2 organs ready; starting: many, one; 95 processes wait for their turn to start" in stages
        assert "1 of 2 organs ready; starting: many; 1 process waits for its turn to start" in stages
        assert manager.stage == "2 of 2 organs ready"

    many = {"num_cpus": 0.01, "health_interval_s": 60.0}
    world(body, organ("many", replicas=100, agent_count=100, **many), organ("one", **many))


def test_adopted_processes_take_no_turn() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.cpus = {"node": 1.0}
        await manager.initialize()
        began = now()
        again = OrganismManager(manager.spec, release="r", runtime=cluster, on_change=lambda: None)
        await again.initialize()
        assert now() - began < 0.5
        await again.shutdown()

    world(body, organ("one", replicas=8, agent_count=8))


def moves_of(cluster: FakeCluster) -> list[str]:
    return sorted(
        f"{actor.name.removeprefix('seedcore_organ.')} on {actor.node_id}" for actor in cluster.actors.values()
    )


async def rebalance(manager: OrganismManager) -> list[str]:
    """Execute the manager's plan and return it as text."""
    moves = await manager.moves()
    for move in moves:
        assert await manager.move(move.organ_id, move.replica, timeout_s=60.0) == move.target.node_id
    return [f"{move.organ_id}.{move.replica} {move.source.name}->{move.target.name}" for move in moves]


def test_a_rebalance_spreads_what_piled_up_and_no_running_task_is_lost() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.cpus, cluster.head = {"head": 8.0}, "head"
        await manager.initialize()
        assert moves_of(cluster) == ["one.0 on head", "two.0 on head", "two.1 on head"]
        assert await manager.moves() == []

        cluster.cpus |= {"a": 8.0, "b": 8.0}
        await asyncio.sleep(1.1)
        slow = [asyncio.create_task(do(manager, kind, seconds=3.0)) for kind in ("one", "two", "two")]
        await asyncio.sleep(0.1)
        assert await rebalance(manager) == ["one.0 head->a", "two.0 head->b", "two.1 head->a"]
        assert [(await task)["success"] for task in slow] == [True] * 3
        assert moves_of(cluster) == ["one.0 on a", "two.0 on b", "two.1 on a"]
        assert (await manager.moves(), manager.missing(), cluster.kills) == ([], ([], []), [])
        assert [replica["restarts"] for organ in manager.organ_reports() for replica in organ["replicas"]] == [1] * 3

    world(body, organ("one"), organ("two", replicas=2, agent_count=2, min_ready_agents=1))


def test_no_replica_moves_while_another_of_its_organ_is_down() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        cluster.cpus = {"a": 8.0}
        await manager.initialize()
        cluster.actors["seedcore_organ.one.1"].hang()
        await asyncio.sleep(6)
        with pytest.raises(
            OrganUnavailableError, match=r"one\[0\] stays where it is: replica 1 is down \(its report is"
        ):
            await manager.move("one", 0, timeout_s=60.0)
        with pytest.raises(OrganUnavailableError, match="there is no replica 2 of organ 'one' any more"):
            await manager.move("one", 2, timeout_s=60.0)
        assert manager.missing()[0] == ["one: 1 of 2 agents ready (its report is overdue)"]

    world(body, organ("one", replicas=2, agent_count=2))


def test_a_replica_that_finds_no_place_is_told() -> None:
    async def body(manager: OrganismManager, cluster: FakeCluster) -> None:
        await manager.initialize()
        asyncio.get_running_loop().call_later(0.01, lambda: cluster.change(has_room=False))
        with pytest.raises(
            OrganUnavailableError, match=r"one\[0\] is not back within 20 s \(it moves to another node\)"
        ):
            await manager.move("one", 0, timeout_s=20.0)
        cluster.change(has_room=True)
        await asyncio.sleep(40)
        assert manager.missing() == ([], [])

    world(body, organ("one"))
