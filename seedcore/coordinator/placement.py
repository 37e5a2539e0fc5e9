"""Choose the node of a replica: pure decisions from the nodes' resources and their processes.

The rank of a node is, in this order: it has room now, it is not the head, it has the fewest processes of the same
organ, it has the fewest organ processes. A start, a move and a rebalance use the same rank.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seedcore.core.spec import OrganSpec

HEAD_RESOURCE = "node:__internal_head__"
_IN = re.compile(r"in\((.*)\)")
# Ray counts resources in ten-thousandths.
_EPSILON = 1e-5
# Each move improves the whole, so a few passes are enough; the limit only guarantees the end.
_MAX_PASSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A living node that is not draining.

    Attributes:
        node_id: Ray's id.
        name: For people.
        resources: Its total resources, by Ray's names.
        available: Its free resources as Ray reports them; None if Ray does not.
        labels: Its labels, which organs may select.
    """

    node_id: str
    name: str
    resources: Mapping[str, float]
    available: Mapping[str, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_head(self) -> bool:
        """Return whether Ray's head runs on this node."""
        return HEAD_RESOURCE in self.resources

    @property
    def cores(self) -> int:
        """Return how many processes may start at a time; for a node without CPUs, use this host's number of cores."""
        offered = self.resources.get("CPU", 0.0)
        return max(1, int(offered)) if offered else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """A replica and its present or planned node.

    Attributes:
        spec: Its organ.
        index: Index of the replica, from 0.
        node_id: The node.
        is_leaving: Whether another process is about to replace it: it still needs its resources, but the organ is
            spread as if it were gone.
    """

    spec: OrganSpec
    index: int
    node_id: str
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The node for a replica, and whether the replica has room there now."""

    node: Node
    has_room: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A planned move of a replica between two nodes."""

    organ_id: str
    replica: int
    source: Node
    target: Node

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, with the names of the nodes."""
        where = {"from": self.source.name, "to": self.target.name}
        return {"organ_id": self.organ_id, "replica": self.replica, **where}


class Occupancy:
    """The replicas on each node, updated as replicas are placed and removed.

    Args:
        nodes: Nodes for replicas.
        occupants: Replicas that are already placed.
    """

    def __init__(self, nodes: Iterable[Node], occupants: Iterable[Occupant]) -> None:
        self._nodes = {node.node_id: node for node in sorted(nodes, key=lambda node: node.node_id)}
        self._fitting: dict[str, list[Node]] = {}
        self._processes: Counter[str] = Counter()
        self._of_organ: Counter[tuple[str, str]] = Counter()
        self._used: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
        for occupant in occupants:
            if occupant.is_leaving:
                self._use(occupant.spec, occupant.node_id, 1)
            else:
                self.put(occupant.spec, occupant.node_id)
        # Resources that others than our organs use. A replica that Ray has not counted yet only reduces it.
        self._foreign = {
            node.node_id: {
                name: max(0.0, amount - node.available.get(name, 0.0) - self._used[node.node_id][name])
                for name, amount in node.resources.items()
            }
            for node in self._nodes.values()
            if node.available is not None
        }

    def put(self, spec: OrganSpec, node_id: str) -> None:
        """Add one replica of an organ to a node."""
        self._count(spec, node_id, 1)

    def take_away(self, spec: OrganSpec, node_id: str) -> None:
        """Remove one replica of an organ from a node."""
        self._count(spec, node_id, -1)

    def choose(self, spec: OrganSpec) -> Choice | None:
        """Return the node for one more replica of an organ; None if no node can ever hold it."""
        if spec.id not in self._fitting:
            self._fitting[spec.id] = [node for node in self._nodes.values() if _fits(spec, node)]
        if not self._fitting[spec.id]:
            return None
        node = min(self._fitting[spec.id], key=lambda one: self._rank(spec, one))
        return Choice(node, has_room=self._has_room(spec, node))

    def better_than(self, spec: OrganSpec, node_id: str) -> Node | None:
        """Return a better node for a replica than this one, from which it must have been removed."""
        here, choice = self._nodes.get(node_id), self.choose(spec)
        if here is None or choice is None:
            return None
        return choice.node if self._rank(spec, choice.node) < self._rank(spec, here) else None

    def node(self, node_id: str) -> Node | None:
        """Return a node by its id."""
        return self._nodes.get(node_id)

    def _rank(self, spec: OrganSpec, node: Node) -> tuple[bool, bool, int, int]:
        of_organ, processes = self._of_organ[spec.id, node.node_id], self._processes[node.node_id]
        return (not self._has_room(spec, node), node.is_head, of_organ, processes)

    def _has_room(self, spec: OrganSpec, node: Node) -> bool:
        used, foreign = self._used[node.node_id], self._foreign.get(node.node_id, {})
        return all(
            node.resources.get(name, 0.0) - used[name] - foreign.get(name, 0.0) >= amount - _EPSILON
            for name, amount in _needs(spec).items()
        )

    def _count(self, spec: OrganSpec, node_id: str, sign: int) -> None:
        self._processes[node_id] += sign
        self._of_organ[spec.id, node_id] += sign
        self._use(spec, node_id, sign)

    def _use(self, spec: OrganSpec, node_id: str, sign: int) -> None:
        for name, amount in _needs(spec).items():
            self._used[node_id][name] += sign * amount


def plan(nodes: Iterable[Node], occupants: Sequence[Occupant]) -> list[Move]:
    """Plan the moves after which every replica is on the node that a new start would choose."""
    occupancy = Occupancy(nodes, occupants)
    occupants = [occupant for occupant in occupants if not occupant.is_leaving]
    now = list(occupants)
    for _ in range(_MAX_PASSES):
        before = list(now)
        for number, occupant in enumerate(now):
            occupancy.take_away(occupant.spec, occupant.node_id)
            better = occupancy.better_than(occupant.spec, occupant.node_id)
            now[number] = replace(occupant, node_id=better.node_id) if better else occupant
            occupancy.put(occupant.spec, now[number].node_id)
        if now == before:
            break
    return [
        Move(organ_id=first.spec.id, replica=first.index, source=source, target=target)
        for first, last in zip(occupants, now, strict=True)
        if first.node_id != last.node_id
        and (source := occupancy.node(first.node_id))
        and (target := occupancy.node(last.node_id))
    ]


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Return whether a node with these labels satisfies a selector (``value, !value, in(a,b), !in(a,b)``)."""
    for key, wanted in selector.items():
        negative = wanted.startswith("!")
        listed = _IN.fullmatch(wanted.removeprefix("!"))
        values = [value.strip() for value in listed[1].split(",")] if listed else [wanted.removeprefix("!")]
        if (labels.get(key) in values) is negative:
            return False
    return True


def _needs(spec: OrganSpec) -> dict[str, float]:
    needs = {"CPU": spec.num_cpus, "GPU": spec.num_gpus, **spec.resources}
    return {name: amount for name, amount in needs.items() if amount}


def _fits(spec: OrganSpec, node: Node) -> bool:
    enough = all(node.resources.get(name, 0.0) >= amount for name, amount in _needs(spec).items())
    return enough and matches(node.labels, spec.labels)
