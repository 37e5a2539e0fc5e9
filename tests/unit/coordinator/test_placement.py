"""Test which node a replica is placed on, and what a rebalance moves."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcore.coordinator.placement import HEAD_RESOURCE, Node, Occupancy, Occupant, matches, plan
from seedcore.core.spec import OrganSpec


def node(name: str, cpus: float = 2.0, *, head: bool = False, **more: Any) -> Node:
    resources = {"CPU": cpus, **({HEAD_RESOURCE: 1.0} if head else {}), **more.pop("resources", {})}
    return Node(node_id=name, name=name, resources=resources, **more)


def organ(name: str = "one", **keys: Any) -> OrganSpec:
    return OrganSpec(**{"id": name, "type": "T", "agent": "m:a", "num_cpus": 0.1, **keys})


def occupants(spec: OrganSpec, nodes: str) -> list[Occupant]:
    """Return one replica on each node of ``nodes``, whose names are single letters."""
    return [Occupant(spec=spec, index=index, node_id=name) for index, name in enumerate(nodes)]


def chosen(spec: OrganSpec, nodes: list[Node], there: list[Occupant] | None = None) -> str | None:
    choice = Occupancy(nodes, there or []).choose(spec)
    return choice.node.node_id if choice else None


def started(organs: list[OrganSpec], nodes: list[Node]) -> list[Occupant]:
    """Return the nodes of these organs' replicas, placed one after the other."""
    there: list[Occupant] = []
    for spec in organs:
        for index in range(spec.replicas):
            there.append(Occupant(spec=spec, index=index, node_id=chosen(spec, nodes, there) or "nowhere"))
    return there


HEAD_AND_TWO = [node("h", head=True), node("a"), node("b")]


def test_replicas_go_where_fewest_of_their_organ_are() -> None:
    nodes = [node("a"), node("b"), node("c")]
    assert chosen(organ(), nodes) == "a"
    assert chosen(organ(), nodes, occupants(organ(), "a")) == "b"
    assert chosen(organ(), nodes, occupants(organ(), "abcca")) == "b"


def test_a_replacement_goes_where_the_organ_is_spread_without_the_process_that_it_replaces() -> None:
    for old, other in ("ab", "ba"):
        there = [
            Occupant(spec=organ(), index=0, node_id=old, is_leaving=True),
            Occupant(spec=organ(), index=1, node_id=other),
        ]
        assert chosen(organ(), HEAD_AND_TWO, there) == old
    # Until it is gone, it has its resources.
    full = [Occupant(spec=organ(num_cpus=2), index=0, node_id="a", is_leaving=True)]
    assert chosen(organ(num_cpus=2), HEAD_AND_TWO, full) == "b"
    assert plan(HEAD_AND_TWO, full) == []


def test_only_nodes_that_can_ever_hold_it_count() -> None:
    nodes = [node("b", labels={"zone": "x"}), node("c", resources={"GPU": 1.0}, labels={"zone": "y"})]
    assert chosen(organ(num_gpus=0.5), nodes) == "c"
    assert chosen(organ(labels={"zone": "!y"}), nodes) == "b"
    assert chosen(organ(resources={"ssd": 1}), nodes) is None
    assert chosen(organ(num_cpus=4), nodes) is None
    assert chosen(organ(), []) is None


@pytest.mark.parametrize(
    ("spec", "nodes", "there", "expected"),
    [
        pytest.param(organ(), HEAD_AND_TWO, "", "a", id="with workers, on a worker"),
        pytest.param(organ(), HEAD_AND_TWO, "aabb", "a", id="also a busy worker goes before the head"),
        pytest.param(organ(), [node("h", head=True)], "", "h", id="no worker"),
        pytest.param(organ(num_cpus=3), [node("h", 4, head=True), node("a")], "", "h", id="too small a worker"),
        pytest.param(
            organ(labels={"zone": "x"}),
            [node("h", head=True, labels={"zone": "x"}), node("a")],
            "",
            "h",
            id="its label is the head's",
        ),
        pytest.param(organ(num_cpus=1), HEAD_AND_TWO, "aabb", "h", id="workers are full"),
        pytest.param(organ(num_cpus=1), HEAD_AND_TWO, "aabbhh", "a", id="everything is full: it waits for a worker"),
    ],
)
def test_the_head_is_for_what_has_no_other_place(spec: OrganSpec, nodes: list[Node], there: str, expected: str) -> None:
    assert chosen(spec, nodes, occupants(spec, there)) == expected


def test_organs_of_one_process_are_spread_too() -> None:
    there = started([organ(f"organ_{number}") for number in range(6)], [*HEAD_AND_TWO, node("c")])
    assert Counter(occupant.node_id for occupant in there) == {"a": 2, "b": 2, "c": 2}


def test_what_others_have_taken_is_no_room() -> None:
    busy = node("a", available={"CPU": 0.5})
    choice = Occupancy([busy, node("b", available={"CPU": 2.0})], []).choose(organ(num_cpus=1))
    assert choice is not None
    assert (choice.node.node_id, choice.has_room) == ("b", True)
    alone = Occupancy([busy], []).choose(organ(num_cpus=1))
    assert alone is not None
    assert not alone.has_room
    # Ray counts the organ's own replica, which is not foreign load.
    own = Occupancy([node("a", available={"CPU": 1.0})], occupants(organ(num_cpus=1), "a")).choose(organ(num_cpus=1))
    assert own is not None
    assert own.has_room


def test_a_node_starts_as_many_processes_as_it_has_cores() -> None:
    assert node("a", 4).cores == 4
    assert node("a", 2.9).cores == 2
    assert node("a", 0.5).cores == 1
    assert node("a", 0).cores == os.cpu_count()


def moves(nodes: list[Node], there: list[Occupant]) -> list[str]:
    return [f"{move.organ_id}[{move.replica}] {move.source.name}->{move.target.name}" for move in plan(nodes, there)]


@pytest.mark.parametrize(
    ("nodes", "there", "expected"),
    [
        pytest.param(HEAD_AND_TWO, occupants(organ(), "ab"), [], id="nothing to do"),
        pytest.param(HEAD_AND_TWO, occupants(organ(), "ha"), ["one[0] h->b"], id="off the head"),
        pytest.param(HEAD_AND_TWO, occupants(organ(), "aaaa"), ["one[0] a->b", "one[1] a->b"], id="a node came back"),
        pytest.param(HEAD_AND_TWO, occupants(organ(), "aab"), [], id="as even as it can be"),
        pytest.param(
            HEAD_AND_TWO,
            [*occupants(organ("one"), "a"), *occupants(organ("two"), "a"), *occupants(organ("three"), "a")],
            ["one[0] a->b"],
            id="all organs count, and no more moves than needed",
        ),
        pytest.param(
            HEAD_AND_TWO,
            [*occupants(organ("one"), "ab"), *occupants(organ("two"), "aa")],
            ["two[0] a->b"],
            id="those of one organ first",
        ),
        pytest.param([node("h", head=True)], occupants(organ(), "hh"), [], id="the head alone"),
        pytest.param(
            HEAD_AND_TWO, occupants(organ(num_cpus=1), "aabbh"), [], id="the workers are full, so the head is right"
        ),
        pytest.param(HEAD_AND_TWO, occupants(organ(), "xa"), [], id="on a node that is leaving: it moves by itself"),
    ],
)
def test_a_plan_puts_replicas_where_a_start_would(
    nodes: list[Node], there: list[Occupant], expected: list[str]
) -> None:
    assert moves(nodes, there) == expected


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5, 1.0]), st.text("hab", min_size=1, max_size=6)), max_size=6),
)
def test_after_a_plan_there_is_nothing_left_to_move(organs: list[tuple[float, str]]) -> None:
    there = [
        occupant
        for number, (cpus, nodes) in enumerate(organs)
        for occupant in occupants(organ(f"organ_{number}", num_cpus=cpus), nodes)
    ]
    nodes = [node("h", 8, head=True), node("a", 20), node("b", 40)]
    where = {(move.organ_id, move.replica): move.target.node_id for move in plan(nodes, there)}
    after = [replace(one, node_id=where.get((one.spec.id, one.index), one.node_id)) for one in there]
    assert plan(nodes, after) == []
    counts = Counter(occupant.node_id for occupant in after)
    assert counts["h"] == 0
    for spec in {one.spec.id: one.spec for one in there}.values():
        own = Counter(one.node_id for one in after if one.spec.id == spec.id)
        assert abs(own["a"] - own["b"]) <= 1 or not there


@pytest.mark.parametrize(
    ("wanted", "is_satisfied"),
    [("a", True), ("b", False), ("!a", False), ("!b", True), ("in(a, b)", True), ("in(b)", False), ("!in(b,c)", True)],
)
def test_selectors_are_read_as_ray_reads_them(wanted: str, *, is_satisfied: bool) -> None:
    assert matches({"zone": "a"}, {"zone": wanted}) is is_satisfied


def test_a_label_that_is_not_there_is_no_value() -> None:
    assert not matches({}, {"zone": "a"})
    assert not matches({}, {"zone": "in(a,b)"})
    assert matches({}, {"zone": "!a"})
