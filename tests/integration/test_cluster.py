"""Organs on more than one node: a start that gets only a part of what it wants, spreading, labels."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Organism
from tests.support.ray_head import RayHead
from tests.support.waiting import eventually

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayHead]:
    """A head of two CPUs, alone at first; see :func:`grown`."""
    head = RayHead(num_cpus=2)
    try:
        head.start()
        yield head
    finally:
        head.close()


@pytest.fixture
def organism(cluster: RayHead, tmp_path: Path) -> Iterator[Organism]:
    deployment = Organism(cluster, cluster.scope(f"cluster-{next(_numbers)}"), tmp_path)
    try:
        yield deployment
    finally:
        deployment.close()


def grown(cluster: RayHead) -> RayHead:
    """Let the cluster have a second node with two CPUs, in the zone a."""
    if not cluster.nodes:
        cluster.add_node("worker", num_cpus=2, labels="zone=a")
    return cluster


def nodes_of(organism: Organism) -> dict[str, list[str]]:
    """Organ to the ids of the nodes that its replicas are on."""
    return {
        organ["organ_id"]: [replica["node_id"] for replica in organ["replicas"]]
        for organ in organism.probe().coordinator["organs"]
    }


def test_a_start_with_a_part_of_it_is_degraded_and_heals_when_there_is_room(
    organism: Organism, cluster: RayHead
) -> None:
    wide: dict[str, Any] = {"id": "wide", "num_cpus": 1.5, "replicas": 2, "agent_count": 2, "min_ready_agents": 1}
    path = organism.config({"id": "one"}, {**wide, "start_timeout_s": 4})

    done = organism.run("bootstrap", "--config", str(path), "--json")

    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert outcome["reason"] == "degraded"
    assert "wide: 1 of 2 agents ready (replica " in outcome["message"]
    assert outcome["status"]["coordinator"]["missing"] == [outcome["message"]]
    assert organism.submit("task_2")["success"] is True

    grown(cluster)
    eventually(lambda: organism.probe().healthy, timeout_s=150, what="the second replica, on the new node")
    assert len(set(nodes_of(organism)["wide"])) == 2


def test_the_replicas_of_each_organ_are_on_different_nodes(organism: Organism, cluster: RayHead) -> None:
    grown(cluster)
    organs = [{"id": f"organ_{index}", "replicas": 2, "agent_count": 2} for index in range(3)]
    organism.up(*organs)

    assert {organ: len(set(nodes)) for organ, nodes in nodes_of(organism).items()} == {
        "organ_0": 2,
        "organ_1": 2,
        "organ_2": 2,
    }


def test_an_organ_goes_where_its_labels_say(organism: Organism, cluster: RayHead) -> None:
    grown(cluster)
    organism.up(
        {"id": "inside", "labels": {"zone": "in(a,b)"}, "replicas": 2, "agent_count": 2},
        {"id": "outside", "labels": {"zone": "!a"}},
    )

    nodes = nodes_of(organism)
    assert len(set(nodes["inside"])) == 1
    assert nodes["outside"][0] not in nodes["inside"]
    nobody = organism.config({"id": "nowhere", "labels": {"zone": "z"}})
    done = organism.run("bootstrap", "--config", str(nobody), "--wait-timeout", "20")
    assert done.returncode == 1
    assert "organs nowhere did not come up within" in done.stderr
    assert organism.probe().healthy
