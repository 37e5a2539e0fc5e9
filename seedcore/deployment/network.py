"""Check the network between the nodes: send an object of 1 MB from each node to the next one and back.

A cluster is healthy as long as every node reaches the head. If two workers do not reach each other, the first large
object that one fetches from the other waits for ever. This check detects it: every node gets an object from its two
neighbours in a ring, so the work of each node does not grow with the cluster. Each object has one receiver: if two
nodes fetched the same object, Ray could send it from one of them to the other, around a firewall.
"""
# ruff: noqa: PLC0415 - Ray is loaded where a cluster is joined

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seedcore.deployment.driver import Driver

if TYPE_CHECKING:
    from seedcore.core.settings import Settings

SIZE = 1_000_000
CONNECT_TIMEOUT_S = 3.0
# Extra time for an answer that is being sent.
_FETCH_S = 5.0


@dataclass(frozen=True, slots=True)
class Node:
    """A living node.

    Attributes:
        name: Its name.
        node_id: Its id in Ray.
        address: Address on which the other nodes reach it.
        ports: Its fixed ports, by the name of the variable.
    """

    name: str
    node_id: str
    address: str
    ports: Mapping[str, int] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of the check.

    Attributes:
        nodes: Names of the checked nodes.
        transfers: Number of objects that were sent.
        faults: Faults, one line each.
        seconds: Duration in seconds.
    """

    nodes: Sequence[str]
    transfers: int
    faults: Sequence[str] = field(default=())
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "ok": not self.faults, "nodes": list(self.nodes), "transfers": self.transfers, "faults": list(self.faults),
            "seconds": round(self.seconds, 1),
        }  # fmt: skip


def living(rows: Iterable[Mapping[str, Any]]) -> list[Node]:
    """Return the living nodes from Ray's list, by name."""
    found = [
        Node(
            name=str(row["NodeName"]), node_id=str(row["NodeID"]), address=str(row["NodeManagerAddress"]),
            ports={
                "ray_object_manager_port": int(row["ObjectManagerPort"]),
                "ray_node_manager_port": int(row["NodeManagerPort"]),
            },
        )
        for row in rows
        if row["Alive"]
    ]  # fmt: skip
    return sorted(found, key=lambda node: node.name)


def neighbours(nodes: Sequence[Node]) -> dict[str, list[Node]]:
    """Return, by name, the nodes from which each node gets an object: its neighbours in a ring."""
    count = len(nodes)
    return {
        node.name: list(
            {other.name: other for other in (nodes[i - 1], nodes[(i + 1) % count]) if other != node}.values()
        )
        for i, node in enumerate(nodes)
    }


def fault(node: Node, other: Node, closed: Mapping[str, str], *, timeout_s: float) -> str:
    """Return the fault of a missing object, with the closed direction as far as the node can tell."""
    line = f"{node.name} did not receive an object of 1 MB from {other.name} within {timeout_s:g} s"
    ways = [
        f"from {node.name} to {other.name} ({other.address}) port {other.ports[port]} ({port}): {why}"
        for port, why in closed.items()
    ]
    if ways:
        return f"{line}: closed {'; '.join(ways)}"
    ports = ", ".join(str(port) for port in other.ports.values())
    return (
        f"{line}: {node.name} reaches {other.name} ({other.address}) on {ports}; open those of {node.name} "
        f"({node.address}) to {other.name}, and the ports from ray_min_worker_port to ray_max_worker_port both ways"
    )


class Peer:
    """A process on one node: it owns one object for each receiver, and gets those of others."""

    def offer(self, receivers: Sequence[str]) -> dict[str, list[Any]]:
        """Return a reference to a new object for each receiver, in a list, so that Ray does not fetch it."""
        import ray

        return {name: [ray.put(bytes(SIZE))] for name in receivers}

    def missing(self, offers: Mapping[str, Sequence[Any]], timeout_s: float) -> list[str]:
        """Get the objects of other nodes; return the names of the nodes whose object has not arrived."""
        import ray

        names = {offer[0]: name for name, offer in offers.items()}
        ray.wait(list(names), num_returns=len(names), timeout=timeout_s)
        return sorted(name for reference, name in names.items() if not _has_come(reference))

    def closed(self, address: str, ports: Mapping[str, int]) -> dict[str, str]:
        """Connect to the ports of another node; return the errors of those that cannot be reached."""
        with ThreadPoolExecutor(len(ports)) as pool:
            answers = pool.map(lambda port: unreachable(address, port), ports.values())
            return {name: why for name, why in zip(ports, answers, strict=True) if why}


def unreachable(address: str, port: int) -> str:
    """Return why a connection fails; empty if it succeeds."""
    try:
        socket.create_connection((address, port), timeout=CONNECT_TIMEOUT_S).close()
    except TimeoutError:
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    except OSError as error:
        return str(error.strerror or error).lower()
    return ""


def _has_come(reference: Any) -> bool:
    import ray

    try:
        return len(ray.get(reference, timeout=0.1)) == SIZE
    except Exception:
        # It is late, or lost with its process: either way it has not arrived.
        return False


def examine(settings: Settings, *, timeout_s: float) -> Findings:
    """Send an object from every node to its neighbours.

    Args:
        settings: Where the cluster is.
        timeout_s: Time limit in seconds for the processes to start, and again for the objects to arrive.

    Raises:
        ClusterError: The cluster cannot be joined.
    """
    import ray

    begun = time.monotonic()
    driver = Driver(settings, lambda: timeout_s)
    driver.join()
    try:
        rows: Any = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = living(rows)
        if len(nodes) == 1:
            return Findings([nodes[0].name], 0, seconds=time.monotonic() - begun)
        transfers, faults = _asked(nodes, timeout_s)
    finally:
        driver.leave()
    return Findings([node.name for node in nodes], transfers, faults, time.monotonic() - begun)


def _asked(nodes: Sequence[Node], timeout_s: float) -> tuple[int, list[str]]:
    """Check all nodes at once; return the number of objects sent, and the faults."""
    import ray

    from seedcore.coordinator import actors

    peers: dict[str, Any] = {node.name: actors.create_on_node(Peer, node.node_id) for node in nodes}
    try:
        # Neighbours are mutual: a node sends to those that it gets an object from.
        beside = {name: [other.name for other in others] for name, others in neighbours(nodes).items()}
        offers, silent = _answers({name: peer.offer.remote(beside[name]) for name, peer in peers.items()}, timeout_s)
        faults = [f"{name} did not start a process for the head within {timeout_s:g} s" for name in silent]
        asked = {
            node: [other for other in nodes if other.name in beside[node.name] and other.name in offers]
            for node in nodes
            if node.name in offers
        }
        missing, late = _answers(
            {
                node.name: peers[node.name].missing.remote(
                    {other.name: offers[other.name][node.name] for other in others}, timeout_s
                )
                for node, others in asked.items()
            },
            timeout_s + _FETCH_S,
        )
        faults += [f"{name} has stopped answering the head" for name in late]
        looks = {
            (node, other): peers[node.name].closed.remote(other.address, dict(other.ports))
            for node, others in asked.items()
            for other in others
            if other.name in missing.get(node.name, ())
        }
        closed, _ = _answers(looks, CONNECT_TIMEOUT_S + _FETCH_S)
        faults += [fault(node, other, closed.get((node, other), {}), timeout_s=timeout_s) for node, other in looks]
        return sum(map(len, asked.values())), faults
    finally:
        for peer in peers.values():
            with contextlib.suppress(Exception):
                ray.kill(peer)


def _answers(calls: Mapping[Any, Any], timeout_s: float) -> tuple[dict[Any, Any], list[Any]]:
    """Wait for calls by key; return the answers that arrived, and the keys of the others."""
    import ray

    deadline = time.monotonic() + timeout_s
    found, lost = {}, []
    if calls:
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    for key, reference in calls.items():
        try:
            found[key] = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
        except Exception:
            # Its process has not started, has died, or hangs; in each case report the node.
            lost.append(key)
    return found, lost
