"""What an operator does with a running organism: pause, replace, move, and keep off a node.

Orders that last are recorded (:mod:`orders`); a drain goes on in the background until no organ is left on the node,
also in the next process of the Coordinator.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from seedcore.core.errors import SeedCoreError, UnknownNameError
from seedcore.core.task import describe, failure

if TYPE_CHECKING:
    from seedcore.coordinator.lifecycle import Lifecycle
    from seedcore.coordinator.nodes import NodeList
    from seedcore.coordinator.orders import Orders

logger = logging.getLogger(__name__)

STEP_S = 1.0
# After a process could not leave its node.
AGAIN_AFTER_S = 30.0
# Time for a process to end and the next one to start, in addition to the limits of its organ.
EXTRA_S = 60.0

Key = tuple[str, int]


class Operations:
    """Operate one organism.

    Args:
        life: The organism's life cycle.
        nodes: The nodes of the cluster.
        orders: Where lasting orders are kept.
    """

    def __init__(self, life: Lifecycle, nodes: NodeList, orders: Orders) -> None:
        self._life = life
        self._nodes = nodes
        self._orders = orders
        # Why a process is still on its drained node, and when to try again.
        self._stays: dict[Key, tuple[str, float]] = {}

    async def pause(self, organ_id: str, *, by: str) -> dict[str, Any]:
        """Let an organ begin no task until it is resumed; tasks that run go on, others wait in its queue.

        Returns:
            ``{"organ_id", "paused": {"since", "by"} or None, "in_flight", "queued"}``.

        Raises:
            UnknownNameError: There is no such organ.
            OrganUnavailableError: One of its processes has not confirmed that; it is told again.
            ConfigError: The order cannot be recorded, so nothing was done.
        """
        self._require_organ(organ_id)
        await self._orders.give(self._orders.paused, organ_id, by=by)
        return await self._obeyed(organ_id)

    async def resume(self, organ_id: str) -> dict[str, Any]:
        """Let a paused organ begin tasks again; return and raise like :meth:`pause`."""
        self._require_organ(organ_id)
        await self._orders.take_back(self._orders.paused, organ_id)
        return await self._obeyed(organ_id)

    async def replace(self, organ_id: str, index: int, *, timeout_s: float) -> dict[str, Any]:
        """Replace one process; see :meth:`OrganismManager.replace`.

        Returns:
            ``{"organ_id", "replica", "from", "to", "pid", "seconds"}``, with names of nodes.

        Raises:
            UnknownNameError: There is no such organ or process.
            OrganUnavailableError | InitializationError: It was not replaced, or is not back in time.
        """
        self._require_organ(organ_id)
        places = self._life.organism.places()
        if (organ_id, index) not in places:
            count = sum(one == organ_id for one, _ in places)
            raise UnknownNameError(f"organ {organ_id!r} has no process {index}; it has {count}, counted from 0")
        began = _now()
        new = await self._life.replace(organ_id, index, timeout_s=timeout_s)
        logger.info("replaced %s[%d]: %.1f s", organ_id, index, _now() - began)
        return {
            "organ_id": organ_id,
            "replica": index,
            "from": self._nodes.name(places[organ_id, index]),
            "to": self._nodes.name(new.place),
            "pid": new.snapshot.pid if new.snapshot else None,
            "seconds": round(_now() - began, 1),
        }

    async def moves(self) -> dict[str, Any]:
        """Plan the moves after which every replica is on the node that a new start would choose."""
        try:
            self._life.require_settled()
            return {"success": True, "moves": [move.to_dict() for move in await self._life.organism.moves()]}
        except Exception as error:
            return failure(error, task_type="moves")

    async def move(self, organ_id: str, replica: int, timeout_s: float) -> dict[str, Any]:
        """Replace one process by one on the node that a new start would choose; see :meth:`replace`."""
        try:
            new = await self._life.replace(organ_id, replica, timeout_s=timeout_s)
        except Exception as error:
            return failure(error, task_type="move")
        return {"success": True, "to": self._nodes.name(new.place)}

    async def rebalance(self, *, timeout_s: float, dry_run: bool) -> dict[str, Any]:
        """Move replicas, one at a time, until each is on the node that a new start would choose.

        Returns:
            ``{"plan", "moved", "error"}``: see :class:`seedcore.deployment.rebalance.Rebalance`.

        Raises:
            OrganUnavailableError: Nothing can be moved now.
        """
        self._life.require_settled()
        deadline = _now() + timeout_s
        plan = [move.to_dict() for move in await self._life.organism.moves()]
        moved: list[dict[str, Any]] = []
        error = ""
        for move in [] if dry_run else plan:
            began = _now()
            answer = await self.move(move["organ_id"], move["replica"], max(0.0, deadline - began))
            if answer["success"] is not True:
                error = str(answer["error"])
                break
            moved.append({**move, "to": answer["to"], "seconds": round(_now() - began, 1)})
        return {"plan": plan, "moved": moved, "error": error}

    async def drain(self, node: str, *, by: str) -> dict[str, Any]:
        """Keep organs off a node until it is undrained, and move those away that are there, in the background.

        Returns:
            ``{"node", "drained": {"since", "by"} or None, "left": [{"organ_id", "replica", "why"}]}``.

        Raises:
            UnknownNameError: There is no such node.
            ConfigError: The order cannot be recorded, so nothing was done.
        """
        self._require_node(node)
        await self._orders.give(self._orders.drained, node, by=by)
        self._stays.clear()
        return {"node": node, **self._node(node)}

    async def undrain(self, node: str) -> dict[str, Any]:
        """Allow organs on a node again; what has moved away stays where it is. Return and raise like :meth:`drain`."""
        if node not in self._orders.drained:
            self._require_node(node)
        await self._orders.take_back(self._orders.drained, node)
        return {"node": node, **self._node(node)}

    def nodes(self) -> dict[str, Any]:
        """Return the nodes as plain data; a drained one has ``drained`` and ``left``, see :meth:`drain`."""
        nodes = self._nodes.to_dict()
        nodes["list"] = [{**node, **self._node(node["node_name"])} for node in nodes["list"]]
        return nodes

    async def watch(self) -> None:
        """Move processes away from drained nodes, one after the other, for ever."""
        while True:
            await asyncio.sleep(STEP_S)
            try:
                if self._orders.drained and self._life.is_settled:
                    await self._evacuate()
            except Exception as error:
                # The next step tries again; the rest of the Coordinator goes on.
                logger.warning("cannot move processes off drained nodes: %s", describe(error))

    async def _evacuate(self) -> None:
        for node in list(self._orders.drained):
            for key in self._on(node):
                before, not_before = self._stays.get(key, ("", 0.0))
                if _now() < not_before:
                    continue
                if why := await self._leave(key, node):
                    self._stays[key] = (why, _now() + AGAIN_AFTER_S)
                    if why != before:
                        logger.warning("%s[%d] stays on drained node %s: %s", *key, node, why)
                else:
                    self._stays.pop(key, None)

    async def _leave(self, key: Key, node: str) -> str:
        """Move a process off its node; return why that is not possible, if it is not."""
        spec = next(organ for organ in self._life.organism.spec.organs if organ.id == key[0])
        if not await self._life.organism.fits(key[0]):
            return "no other node can hold it"
        try:
            timeout_s = spec.start_timeout_s + spec.drain_timeout_s + EXTRA_S
            await self.replace(*key, timeout_s=timeout_s)
        except SeedCoreError as error:
            return describe(error)
        return "Ray has placed it there again" if key in self._on(node) else ""

    async def _obeyed(self, organ_id: str) -> dict[str, Any]:
        await self._life.organism.obey_pause(organ_id)
        report = next(one for one in self._life.organism.organ_reports(brief=True) if one["organ_id"] == organ_id)
        return {key: report[key] for key in ("organ_id", "paused", "in_flight", "queued")}

    def _node(self, node: str) -> dict[str, Any]:
        order = self._orders.drained.get(node)
        whys: dict[Key, str] = {}
        if order is not None:
            ending = self._on(node, self._life.organism.ending())
            whys = dict.fromkeys(ending, "its tasks end")
            whys |= {key: self._stays.get(key, ("it waits for its turn", 0.0))[0] for key in self._on(node)}
        left = [{"organ_id": key[0], "replica": key[1], "why": why} for key, why in whys.items()]
        return {"drained": None if order is None else asdict(order), "left": left}

    def _on(self, node: str, places: dict[Key, str | None] | None = None) -> list[Key]:
        """Return the processes on a node; by default, of those to which tasks are sent."""
        places = self._life.organism.places() if places is None else places
        return [key for key, place in places.items() if place is not None and self._nodes.name(place) == node]

    def _require_organ(self, organ_id: str) -> None:
        self._life.require_running()
        known = [organ.id for organ in self._life.organism.spec.organs]
        if organ_id not in known:
            raise UnknownNameError(f"there is no organ {organ_id[:64]!r}, organs are: {', '.join(known)}")

    def _require_node(self, node: str) -> None:
        self._life.require_running()
        nodes = self._nodes.to_dict()
        known = [*nodes["names"], *nodes["gone"]]
        if node not in known:
            raise UnknownNameError(f"there is no node {node[:64]!r}, nodes are: {', '.join(known) or 'not known yet'}")


def _now() -> float:
    return asyncio.get_running_loop().time()
