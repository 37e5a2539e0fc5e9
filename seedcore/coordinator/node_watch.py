"""Start processes on other nodes when their node has been silent for too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from seedcore.core.task import describe

if TYPE_CHECKING:
    from seedcore.coordinator.node_silence import NodeSilence
    from seedcore.coordinator.organ_actors import OrganRuntime
    from seedcore.coordinator.replica_supervisor import Replica
    from seedcore.coordinator.start_queue import Placer

logger = logging.getLogger(__name__)

STEP_S = 0.5
ASK_TIMEOUT_S = 10.0


class NodeWatch:
    """Feed a :class:`NodeSilence`, and move replicas away from lost nodes.

    Args:
        silence: The last signs of life.
        runtime: Asks the agents of the nodes.
        placer: Tells whether another node could hold a replica.
        replicas: Returns all replicas.
    """

    def __init__(
        self, silence: NodeSilence, runtime: OrganRuntime, placer: Placer, replicas: Callable[[], Sequence[Replica]]
    ) -> None:
        self._silence = silence
        self._runtime = runtime
        self._placer = placer
        self._replicas = replicas
        self._watching: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch until :meth:`stop`."""
        self._watching = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Stop watching."""
        for task in (self._watching, self._asking):
            if task is not None:
                task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            try:
                await self._step()
            except Exception as error:
                # Without a list of nodes, give up none.
                logger.warning("cannot tell which nodes are silent: %s", describe(error))

    async def _step(self) -> None:
        replicas = self._replicas()
        reported = [replica.place for replica in replicas if replica.has_reported()]
        used = {replica.place for replica in replicas if replica.place}
        now = asyncio.get_running_loop().time()
        self._silence.step(now, used=used, reported=filter(None, reported))
        if not self._silence.has_suspects:
            self._silence.asked(answered=(), unanswered=())
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_agents())
        for replica in replicas:
            if self._silence.is_lost(replica.place, replica.spec.silence_s):
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    has_place = await self._placer.fits(replica.spec)
                # If no other node can hold it, wait for its node.
                if has_place and self._silence.is_lost(replica.place, replica.spec.silence_s):
                    replica.abandon()

    async def _ask_agents(self) -> None:
        answers: dict[str, bool] = {}
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                answers = await self._runtime.ask_agents()
        except Exception as error:
            logger.warning("cannot ask the agents of the nodes: %s", describe(error))
        self._silence.asked(
            answered=[node for node, answered in answers.items() if answered],
            unanswered=[node for node, answered in answers.items() if not answered],
        )
