"""Where organs run, and how one of their processes is ended."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from ray.exceptions import RayError

from seedcore.coordinator.placement import Node
from seedcore.coordinator.replica_state import Row
from seedcore.core.settings import ORGAN_NAME_PREFIX
from seedcore.core.spec import OrganSpec
from seedcore.core.task import describe

logger = logging.getLogger(__name__)

KILL_TIMEOUT_S = 10.0
_ROW_TIMEOUT_S = 2.0
# What stopping an organ takes beside its drain: its agents' own stop.
_STOP_TIMEOUT_S = 8.0


def organ_name(organ_id: str, replica: int, generation: int = 0) -> str:
    """Actor name of one replica of an organ; two generations have different names, so that both can run."""
    return f"{ORGAN_NAME_PREFIX}{organ_id}.{replica}{f'~{generation}' if generation else ''}"


class OrganRuntime(Protocol):
    """Where organs run; ``actor.RayOrganRuntime`` is the real one."""

    async def find(self, spec: OrganSpec, replica: int, *, generation: int) -> Any:
        """Return the replica's actor if it exists, else None."""

    async def ensure(
        self, spec: OrganSpec, replica: int, identity: str, *, generation: int, node_id: str | None
    ) -> Any:
        """Return the replica's actor, created if it does not exist: on this node, or on another if it has no room."""

    async def ask_agents(self) -> dict[str, bool]:
        """Ask the agent of each living node but this one; returns node id to whether it has answered."""

    async def kill(self, handle: Any, *, restart: bool) -> None:
        """End the replica's process, for good or to be started again."""

    async def row(self, handle: Any) -> Row | None:
        """Return what the GCS says of the replica's actor, None if it knows none."""

    async def others(self, keep: set[str]) -> dict[str, Any]:
        """Find all organs of the namespace but those with these actor names; returns name to handle."""

    async def places(self) -> list[Node]:
        """Return the nodes that a replica may be put on: alive, and not about to leave the cluster."""

    async def nodes(self) -> list[dict[str, Any]]:
        """Return the cluster's nodes, each with ``node_id, node_name, alive, draining, head``."""


async def retire(
    handle: Any, runtime: OrganRuntime, *, name: str, drain_timeout_s: float
) -> list[dict[str, Any]] | None:
    """Let an organ process end its tasks and stop its agents, then end it; does not raise.

    Returns:
        All tasks that it has counted, None if it does not say: it did not stop, or is of an earlier release.
    """
    counted = None
    try:
        async with asyncio.timeout(drain_timeout_s + _STOP_TIMEOUT_S):
            counted = await handle.stop.remote()
    except (RayError, TimeoutError) as error:
        logger.warning("organ %s did not stop by itself: %s", name, describe(error))
    await kill(handle, runtime, name=name, restart=False)
    return counted if isinstance(counted, list) else None


async def retire_others(runtime: OrganRuntime, keep: set[str], *, drain_timeout_s: float) -> None:
    """Stop the organs of the namespace whose names are not in ``keep``."""
    others = await runtime.others(keep)
    if others:
        logger.info("removing organs that this organism does not have: %s", ", ".join(others))
    names = {name: name.removeprefix(ORGAN_NAME_PREFIX) for name in others}
    await asyncio.gather(
        *(retire(handle, runtime, name=names[name], drain_timeout_s=drain_timeout_s) for name, handle in others.items())
    )


async def kill(handle: Any, runtime: OrganRuntime, *, name: str, restart: bool) -> bool:
    """End an organ process, for good or to be started again; says whether Ray has taken the order, does not raise."""
    try:
        async with asyncio.timeout(KILL_TIMEOUT_S):
            await runtime.kill(handle, restart=restart)
    except (RayError, TimeoutError, ValueError) as error:
        logger.warning("killing organ %s: %s", name, describe(error))
        return False
    return True


async def row_of(handle: Any, runtime: OrganRuntime, *, name: str) -> Row | None:
    """Ask the GCS about an organ's actor; None if it does not say, a head that is away for one."""
    try:
        async with asyncio.timeout(_ROW_TIMEOUT_S):
            return await runtime.row(handle)
    except Exception as error:
        logger.warning("organ %s: the head does not say how its actor is: %s", name, describe(error))
        return None
