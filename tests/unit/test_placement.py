"""Which node a replica goes to."""

from __future__ import annotations

from typing import Any

import pytest

from seedcore.organism.placement import choose_node, matches
from seedcore.spec import OrganSpec


def node(name: str, **more: Any) -> dict[str, Any]:
    return {"NodeID": name, "Alive": True, "Resources": {"CPU": 2.0}, "Labels": {}, **more}


def organ(**keys: Any) -> OrganSpec:
    return OrganSpec(**{"id": "one", "type": "T", "agent": "m:a", **keys})


def test_replicas_go_where_fewest_of_their_organ_are() -> None:
    nodes = [node("a"), node("b"), node("c")]
    assert choose_node(organ(), nodes, []) == "a"
    assert choose_node(organ(), nodes, [], turn=4) == "b"
    assert choose_node(organ(), nodes, ["a"]) == "b"
    assert choose_node(organ(), nodes, ["a", "b", "c", "c", "a"]) == "b"


def test_only_living_nodes_that_can_ever_hold_it_count() -> None:
    nodes = [
        node("a", Alive=False),
        node("b", Labels={"zone": "x"}),
        node("c", Resources={"CPU": 2.0, "GPU": 1.0}, Labels={"zone": "y"}),
    ]
    assert choose_node(organ(num_gpus=0.5), nodes, []) == "c"
    assert choose_node(organ(labels={"zone": "!y"}), nodes, []) == "b"
    assert choose_node(organ(resources={"ssd": 1}), nodes, []) is None
    assert choose_node(organ(num_cpus=4), nodes, []) is None
    assert choose_node(organ(), [], []) is None


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
