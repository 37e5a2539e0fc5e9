"""Test which process may start and which ones wait for their turn."""

from __future__ import annotations

import asyncio
from typing import Any

from seedcore.coordinator.placement import Node, Occupant
from seedcore.coordinator.start_queue import Placer, Request, Starts
from seedcore.core.spec import OrganSpec
from tests.support.fake_ray import FakeCluster
from tests.support.virtual_time import run_virtual


def node(name: str, cpus: float = 2.0, **resources: float) -> Node:
    return Node(node_id=name, name=name, resources={"CPU": cpus, **resources})


def organ(name: str = "one", **keys: Any) -> OrganSpec:
    return OrganSpec(**{"id": name, "type": "T", "agent": "m:a", "num_cpus": 0.01, **keys})


def requests(spec: OrganSpec, count: int) -> list[Request]:
    return [Request(spec, index) for index in range(count)]


def test_as_many_start_at_a_time_as_a_node_has_cores_and_the_others_wait_for_their_turn() -> None:
    starts, nodes, wanted = Starts(), [node("a", 2), node("b", 1)], requests(organ(), 8)

    turns = starts.admit(wanted, nodes, [], 0.0)

    assert [(turn.request.index, turn.node_id) for turn in turns] == [(0, "a"), (1, "b"), (2, "a")]
    assert starts.reason(nodes) == "waits for its turn: 3 processes are starting (2 on a, 1 on b)"

    there = [Occupant(spec=turn.request.spec, index=turn.request.index, node_id=str(turn.node_id)) for turn in turns]
    assert starts.admit(wanted[3:], nodes, there, 1.0) == []
    assert starts.give_back(("one", 1, 0))
    assert not starts.give_back(("one", 1, 0))
    (turn,) = starts.admit(wanted[3:], nodes, there, 2.0)
    assert (turn.request.index, turn.node_id) == (3, "b")


def test_the_first_replica_of_every_organ_comes_before_the_second_of_any() -> None:
    wanted = [*requests(organ("one"), 3), *requests(organ("two"), 2)]
    turns = Starts().admit(wanted, [node("a", 3)], [], 0.0)
    assert [turn.request.key for turn in turns] == [("one", 0, 0), ("two", 0, 0), ("one", 1, 0)]


def test_what_ray_has_no_room_for_takes_no_turn() -> None:
    nodes = [node("a", 1, GPU=1.0)]
    wanted = [Request(organ("gpu", num_gpus=1.0), 0), Request(organ("two_gpus", num_gpus=2.0), 0)]
    busy = [Occupant(spec=organ("other", num_gpus=1.0), index=0, node_id="a")]

    turns = Starts().admit([*wanted, Request(organ(), 0)], nodes, busy, 0.0)

    assert [(turn.request.spec.id, turn.node_id) for turn in turns] == [("gpu", "a"), ("two_gpus", None), ("one", "a")]


def test_a_process_that_never_comes_up_gives_its_turn_back_after_the_time_of_its_start() -> None:
    starts, nodes = Starts(), [node("a", 1)]
    slow, other = Request(organ("slow", start_timeout_s=30.0), 0), Request(organ("other"), 0)
    assert len(starts.admit([slow], nodes, [], 100.0)) == 1
    assert (starts.has_turn(slow.key, 129.0), starts.has_turn(slow.key, 130.0)) == (True, False)
    assert starts.admit([other], nodes, [], 129.0) == []
    assert len(starts.admit([other], nodes, [], 130.0)) == 1


def test_a_turn_is_given_on_when_the_nodes_are_told_again_and_when_nobody_waits_for_it_any_more() -> None:
    async def body() -> None:
        cluster = FakeCluster()
        told: list[str] = []
        cluster.cpus = {"node": 1.0}
        there: list[Occupant] = []
        placer = Placer(cluster, lambda: there)
        assert await placer.place(Request(organ(), 0), tell=told.append) == "node"
        second, third = (
            asyncio.create_task(placer.place(Request(organ(), index), tell=told.append)) for index in (1, 2)
        )
        await asyncio.sleep(0.5)
        assert set(told) == {"waits for its turn: 1 process is starting (1 on node)"}
        second.cancel()
        placer.give_back(Request(organ(), 0))
        assert await third == "node"

        there.append(Occupant(spec=organ(), index=2, node_id="node"))
        cluster.cpus["other"] = 1.0
        assert await placer.place(Request(organ(), 3), tell=told.append) == "other"

    run_virtual(body())


def test_a_node_that_is_to_be_avoided_takes_nothing() -> None:
    async def body() -> None:
        avoided: set[str] = {"node"}
        placer = Placer(FakeCluster(), tuple, avoid=lambda: avoided)
        assert [node.name for node in await placer.places()] == ["other"]
        assert await placer.place(Request(organ(), 0), tell=lambda _: None) == "other"
        avoided.add("other")
        assert await placer.place(Request(organ(), 1), tell=lambda _: None) is None

    run_virtual(body())


def test_a_head_that_is_away_keeps_those_who_wait_and_they_go_on_when_it_is_back() -> None:
    class Broken(FakeCluster):
        async def places(self) -> list[Node]:
            if not self.head_is_up:
                raise OSError("no head")
            return await super().places()

    async def body() -> None:
        cluster = Broken()
        told: list[str] = []
        cluster.head_is_up = False
        placed = asyncio.create_task(Placer(cluster, tuple).place(Request(organ(), 0), tell=told.append))
        await asyncio.sleep(5)
        assert set(told) == {"waits for the list of nodes from Ray's head"}
        cluster.head_is_up = True
        assert await placed in cluster.cpus

    run_virtual(body())
