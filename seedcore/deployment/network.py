"""What the nodes can send each other: an object of 1 MB, from each node to the next one and back.

A cluster is healthy as long as every node reaches the head. That two workers do not reach each other is found by the
first big object that one wants from the other, which then waits for ever. Here it is found by asking: every node gets
an object from the two nodes beside it in a ring, so that the work of each node does not grow with the cluster.
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
# For an answer that is on its way.
_FETCH_S = 5.0


@dataclass(frozen=True, slots=True)
class Node:
    """A living node.

    Attributes:
        name: What people call it.
        node_id: Its id in Ray.
        address: Where the other nodes reach it.
        ports: Its fixed ports, by the name of the variable that sets them.
    """

    name: str
    node_id: str
    address: str
    ports: Mapping[str, int] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Findings:
    """What has come of it.

    Attributes:
        nodes: Names of the nodes that were asked.
        transfers: How many objects were sent.
        faults: What does not work, a line each.
        seconds: How long it took.
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
    """Return the living nodes of what Ray lists, by name."""
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
    """Return, by name, the nodes that each node gets an object from: the ones beside it in a ring."""
    count = len(nodes)
    return {
        node.name: list(
            {other.name: other for other in (nodes[i - 1], nodes[(i + 1) % count]) if other != node}.values()
        )
        for i, node in enumerate(nodes)
    }


def fault(node: Node, other: Node, closed: Mapping[str, str], *, timeout_s: float) -> str:
    """Say that a node gets no object from another one, and which way is closed as far as the node can see."""
    line = f"{node.name} gets no object of 1 MB from {other.name} within {timeout_s:g} s"
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
    """A process on one node: it has an object, and gets those of others."""

    def offer(self) -> list[Any]:
        """Return a reference to an object that this process owns, in a list so that nobody waits for it."""
        import ray

        return [ray.put(bytes(SIZE))]

    def missing(self, offers: Mapping[str, Sequence[Any]], timeout_s: float) -> list[str]:
        """Get the objects of other nodes; returns the names of the nodes whose object has not come."""
        import ray

        names = {offer[0]: name for name, offer in offers.items()}
        ray.wait(list(names), num_returns=len(names), timeout=timeout_s)
        return sorted(name for reference, name in names.items() if not _has_come(reference))

    def closed(self, address: str, ports: Mapping[str, int]) -> dict[str, str]:
        """Connect to the ports of another node; returns why, for those that cannot be reached."""
        with ThreadPoolExecutor(len(ports)) as pool:
            answers = pool.map(lambda port: unreachable(address, port), ports.values())
            return {name: why for name, why in zip(ports, answers, strict=True) if why}


def unreachable(address: str, port: int) -> str:
    """Say why nobody answers there; empty if somebody does."""
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
        # Not here in time, or lost with the process that had it: either way it has not come.
        return False


def examine(settings: Settings, *, timeout_s: float) -> Findings:
    """Send an object from every node to its neighbours.

    Args:
        settings: Where the cluster is.
        timeout_s: Seconds for the processes to start, and the same again for the objects to come.

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
    """Ask all nodes at once; returns the number of objects sent, and what does not work."""
    import ray

    from seedcore.coordinator import actors

    peers: dict[str, Any] = {node.name: actors.create_on_node(Peer, node.node_id) for node in nodes}
    try:
        offers, silent = _answers({name: peer.offer.remote() for name, peer in peers.items()}, timeout_s)
        faults = [f"{name} starts no process for the head within {timeout_s:g} s" for name in silent]
        asked = {
            node: [other for other in beside if other.name in offers]
            for node, beside in ((node, neighbours(nodes)[node.name]) for node in nodes if node.name in offers)
        }
        missing, late = _answers(
            {
                node.name: peers[node.name].missing.remote(
                    {other.name: offers[other.name] for other in beside}, timeout_s
                )
                for node, beside in asked.items()
            },
            timeout_s + _FETCH_S,
        )
        faults += [f"{name} does not answer the head any more" for name in late]
        looks = {
            (node, other): peers[node.name].closed.remote(other.address, dict(other.ports))
            for node, beside in asked.items()
            for other in beside
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
    """Wait for calls by key; returns the answers that there are, and the keys of the others."""
    import ray

    deadline = time.monotonic() + timeout_s
    found, lost = {}, []
    if calls:
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s)
    for key, reference in calls.items():
        try:
            found[key] = ray.get(reference, timeout=max(0.1, deadline - time.monotonic()))
        except Exception:
            # Its process has not started, or has died, or hangs; whatever it is, this node is named.
            lost.append(key)
    return found, lost
