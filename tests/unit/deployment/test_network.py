"""Test the network check without nodes: which node fetches from which, and the messages about missing objects."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from seedcore.deployment import network
from seedcore.deployment.network import Findings, Node, Peer, fault, living, neighbours, unreachable

PORTS = {"ray_object_manager_port": 6381, "ray_node_manager_port": 6380}


def nodes(count: int) -> list[Node]:
    return [Node(f"n{i:02}", f"id{i}", f"10.0.0.{i}", PORTS) for i in range(count)]


def row(name: str, *, alive: bool = True) -> dict[str, Any]:
    return {
        "NodeName": name, "NodeID": f"id-{name}", "NodeManagerAddress": "10.0.0.1", "NodeManagerPort": 6380,
        "ObjectManagerPort": 6381, "Alive": alive,
    }  # fmt: skip


def test_only_living_nodes_are_asked() -> None:
    found = living([row("b"), row("dead", alive=False), row("a")])

    assert [(node.name, node.node_id, dict(node.ports)) for node in found] == [
        ("a", "id-a", PORTS),
        ("b", "id-b", PORTS),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_each_node_asks_two_however_many_there_are_and_everybody_is_connected(count: int) -> None:
    found = {name: [other.name for other in beside] for name, beside in neighbours(nodes(count)).items()}

    assert len(found) == count
    assert all(len(beside) == min(count - 1, 2) and name not in beside for name, beside in found.items())
    assert all(name in found[other] for name, beside in found.items() for other in beside), "both ways"
    reached, pending = {"n00"}, ["n00"]
    while pending:
        new = set(found[pending.pop()]) - reached
        reached |= new
        pending += new
    assert len(reached) == count


def test_a_node_is_the_key_of_what_is_asked_of_it() -> None:
    assert {node: node.name for node in nodes(2)}[nodes(2)[1]] == "n01"


def test_a_fault_names_the_hosts_the_port_and_the_direction() -> None:
    one, two = nodes(2)

    assert fault(one, two, {"ray_object_manager_port": "no answer within 3 s"}, timeout_s=20) == (
        "n00 did not receive an object of 1 MB from n01 within 20 s: closed from n00 to n01 (10.0.0.1) port 6381 "
        "(ray_object_manager_port): no answer within 3 s"
    )
    other_way = fault(one, two, {}, timeout_s=20)
    assert "n00 reaches n01 (10.0.0.1) on 6381, 6380; open those of n00 (10.0.0.0) to n01" in other_way
    assert "ray_min_worker_port" in other_way


def test_a_port_is_closed_if_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0), backlog=1) as full:
        port, crowded = server.getsockname()[1], full.getsockname()[1]
        # A full accept queue drops connections, as a firewall does.
        waiting = [socket.socket() for _ in range(4)]
        for end in waiting:
            end.setblocking(False)
            end.connect_ex(("127.0.0.1", crowded))
        assert unreachable("127.0.0.1", port) == ""
        assert unreachable("127.0.0.1", crowded) == "no answer within 0.2 s"
        for end in waiting:
            end.close()
    assert Peer().closed("127.0.0.1", {"a": port}) == {"a": "connection refused"}


def test_no_node_can_pass_on_an_object_that_another_one_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray fetches an object from any node that has it, which would hide a firewall between two nodes.
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(put=lambda data: [len(data)]))

    offers = Peer().offer(["n01", "n03"])

    assert list(offers) == ["n01", "n03"]
    assert offers["n01"] == offers["n03"] == [[network.SIZE]]
    assert offers["n01"][0] is not offers["n03"][0]


def test_the_document_says_whether_all_is_well() -> None:
    assert Findings(["a", "b"], 2, [], 1.26).to_dict() == {
        "ok": True, "nodes": ["a", "b"], "transfers": 2, "faults": [], "seconds": 1.3,
    }  # fmt: skip
    assert Findings(["a", "b"], 2, ["x"]).to_dict()["ok"] is False
