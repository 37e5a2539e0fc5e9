"""On which node a replica is to be: one that has fewest of its organ, so that a node takes few of them with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from seedcore.spec import OrganSpec

_IN = re.compile(r"in\((.*)\)")


def choose_node(
    spec: OrganSpec, nodes: Iterable[Mapping[str, Any]], beside: Collection[str], *, turn: int = 0
) -> str | None:
    """Return the id of the node for a new replica, None if no node can ever hold it.

    Args:
        spec: The organ.
        nodes: As ``ray.nodes()`` gives them.
        beside: Ids of the nodes that the organ's other replicas are on, one entry for each.
        turn: Which of several equal nodes to take.
    """
    fitting = sorted(str(node["NodeID"]) for node in nodes if node["Alive"] and _fits(spec, node))
    if not fitting:
        return None
    there = Counter(beside)
    fewest = min(there[node_id] for node_id in fitting)
    best = [node_id for node_id in fitting if there[node_id] == fewest]
    return best[turn % len(best)]


def matches(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Say whether a node with these labels satisfies a selector (``value, !value, in(a,b), !in(a,b)``)."""
    for key, wanted in selector.items():
        negative = wanted.startswith("!")
        listed = _IN.fullmatch(wanted.removeprefix("!"))
        values = [value.strip() for value in listed[1].split(",")] if listed else [wanted.removeprefix("!")]
        if (labels.get(key) in values) is negative:
            return False
    return True


def _fits(spec: OrganSpec, node: Mapping[str, Any]) -> bool:
    has = node.get("Resources") or {}
    needs = {"CPU": spec.num_cpus, "GPU": spec.num_gpus, **spec.resources}
    enough = all(has.get(name, 0.0) >= amount for name, amount in needs.items() if amount)
    return enough and matches(node.get("Labels") or {}, spec.labels)
