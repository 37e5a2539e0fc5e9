"""The interface to the actors of organs, and the end of a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from ray.exceptions import RayError

from seedcore.coordinator.placement import Node
from seedcore.coordinator.replica_state import Row
from seedcore.core.errors import InitializationError
from seedcore.core.settings import ORGAN_NAME_PREFIX
from seedcore.core.spec import OrganismSpec, OrganSpec
from seedcore.core.task import describe

logger = logging.getLogger(__name__)

KILL_TIMEOUT_S = 10.0
_ROW_TIMEOUT_S = 2.0
# Time for stopping an organ in addition to its drain: the stop of its agents.
_STOP_TIMEOUT_S = 8.0


def organ_name(organ_id: str, replica: int, generation: int = 0) -> str:
    """Return the actor name of a replica; two generations have different names, so that both can run."""
    return f"{ORGAN_NAME_PREFIX}{organ_id}.{replica}{f'~{generation}' if generation else ''}"


def organ_identity(organ: OrganSpec, release: str) -> str:
    """Return what a process must have been started from to be adopted."""
    return f"{organ.fingerprint()}@{release}"


def generation_of(generations: Mapping[str, int], organ_id: str, index: int) -> int:
    """Return the generation of a replica: that of its own, if it was replaced alone, else that of its organ."""
    return generations.get(f"{organ_id}[{index}]", generations.get(organ_id, 0))


def next_generations(generations: Mapping[str, int], organ_id: str) -> dict[str, int]:
    """Return the generations for processes beside the present ones of an organ; two generations alternate."""
    own = {key: value for key, value in generations.items() if key.partition("[")[0] == organ_id}
    return {key: 1 - value for key, value in {organ_id: 0, **own}.items()}


def actor_names(spec: OrganismSpec, generations: Mapping[str, int]) -> set[str]:
    """Return the actor names of all replicas of an organism."""
    return {
        organ_name(organ.id, index, generation_of(generations, organ.id, index))
        for organ in spec.organs
        for index in range(organ.replicas)
    }


class OrganRuntime(Protocol):
    """Runs organs; ``actors.RayOrganRuntime`` implements it."""

    async def find(self, spec: OrganSpec, replica: int, *, generation: int) -> Any:
        """Return the replica's actor if it exists, else None."""

    async def ensure(
        self, spec: OrganSpec, replica: int, identity: str, *, generation: int, node_id: str | None
    ) -> Any:
        """Return the replica's actor; create it if it does not exist, on this node or, without room, on another."""

    async def ask_agents(self) -> dict[str, bool]:
        """Ask the agent of each living node except this one; return node id to whether it has answered."""

    async def kill(self, handle: Any, *, restart: bool) -> None:
        """End the replica's process, for good or for a restart."""

    async def row(self, handle: Any) -> Row | None:
        """Return the GCS's row of the replica's actor, None if there is none."""

    async def others(self, keep: set[str]) -> dict[str, Any]:
        """Return all organs of the namespace except those with these actor names: name to handle."""

    async def places(self) -> list[Node]:
        """Return the nodes on which a replica may be placed: alive and not draining."""

    async def nodes(self) -> list[dict[str, Any]]:
        """Return the cluster's nodes, each with ``node_id, node_name, alive, draining, head``."""


async def living_names(runtime: OrganRuntime) -> set[str]:
    """Return the names of all organs of the namespace.

    Raises:
        InitializationError: Ray's head did not answer.
    """
    try:
        return set(await runtime.others(set()))
    except Exception as error:
        raise InitializationError(f"Ray's head did not answer: {describe(error)}") from error


async def retire(
    handle: Any, runtime: OrganRuntime, *, name: str, drain_timeout_s: float
) -> list[dict[str, Any]] | None:
    """Let an organ process finish its tasks and stop its agents, then end it; never raise.

    Returns:
        Its total task counts, None if it did not stop or has an earlier release.
    """
    counted = None
    try:
        async with asyncio.timeout(drain_timeout_s + _STOP_TIMEOUT_S):
            counted = await handle.stop.remote()
    except (RayError, TimeoutError) as error:
        logger.warning("organ %s did not stop: %s", name, describe(error))
    await kill(handle, runtime, name=name, restart=False)
    return counted if isinstance(counted, list) else None


async def retire_others(runtime: OrganRuntime, keep: set[str], *, drain_timeout_s: float) -> None:
    """Stop the organs of the namespace whose names are not in ``keep``."""
    others = await runtime.others(keep)
    if others:
        logger.info("removing organs that are not in this organism: %s", ", ".join(others))
    names = {name: name.removeprefix(ORGAN_NAME_PREFIX) for name in others}
    await asyncio.gather(
        *(retire(handle, runtime, name=names[name], drain_timeout_s=drain_timeout_s) for name, handle in others.items())
    )


async def kill(handle: Any, runtime: OrganRuntime, *, name: str, restart: bool) -> bool:
    """End an organ process, for good or for a restart; return whether Ray has accepted the order; never raise."""
    try:
        async with asyncio.timeout(KILL_TIMEOUT_S):
            await runtime.kill(handle, restart=restart)
    except (RayError, TimeoutError, ValueError) as error:
        logger.warning("killing organ %s: %s", name, describe(error))
        return False
    return True


async def row_of(handle: Any, runtime: OrganRuntime, *, name: str) -> Row | None:
    """Return the GCS's row of an organ's actor; None without an answer, for example while the head is away."""
    try:
        async with asyncio.timeout(_ROW_TIMEOUT_S):
            return await runtime.row(handle)
    except Exception as error:
        logger.warning("organ %s: cannot read the state of its actor from the head: %s", name, describe(error))
        return None
