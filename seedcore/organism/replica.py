"""One replica of an organ, as the Coordinator sees it: keeps asking it, and replaces its process when it hangs.

A single long call (``watch``) serves for progress, health and death: the organ answers it when something changed or
after the health interval; a process that died breaks it; one that hangs leaves it overdue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from ray.exceptions import ActorDiedError, RayError

from seedcore.errors import OrganUnavailableError
from seedcore.settings import ORGAN_NAME_PREFIX
from seedcore.spec import OrganSpec
from seedcore.task import describe

logger = logging.getLogger(__name__)

# Ray tells a caller of a dead actor after up to a second; a killed organ is back within two.
_RETRY_S = 0.2
_MAX_RETRY_S = 5.0
_KILL_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 8.0
_PROCESS_START_S = 60.0
_MAX_DEATHS_WHILE_STARTING = 3


def organ_name(organ_id: str, replica: int) -> str:
    """Actor name of one replica of an organ."""
    return f"{ORGAN_NAME_PREFIX}{organ_id}.{replica}"


class ReplicaState(StrEnum):
    """What is known of a replica."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DOWN = "down"
    STOPPED = "stopped"


class OrganRuntime(Protocol):
    """Where organs run; ``actor.RayOrganRuntime`` is the real one."""

    async def ensure(self, spec: OrganSpec, replica: int, identity: str) -> Any:
        """Return the replica's actor, created if it does not exist."""

    async def kill(self, handle: Any, *, restart: bool) -> None:
        """End the replica's process, for good or to be started again."""

    async def kill_others(self, keep: set[str]) -> list[str]:
        """End all organs of the namespace but those with these actor names; returns the names of the ended."""

    async def nodes(self) -> list[dict[str, Any]]:
        """Return the cluster's nodes, each with ``node_id, node_name, alive, head``."""


class Replica:
    """Keeps one organ process alive and knows how it is.

    Args:
        spec: The organ.
        index: Which replica, from 0.
        identity: Digest of spec and release that the process must have.
        runtime: Where it runs.
        on_change: Called, on the loop, whenever what is known changes.
    """

    def __init__(
        self,
        spec: OrganSpec,
        index: int,
        *,
        identity: str,
        runtime: OrganRuntime,
        on_change: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.index = index
        self.state = ReplicaState.STARTING
        self.error: str | None = None
        self.snapshot: dict[str, Any] = {}
        self.restarts = 0
        self.in_flight = 0
        self.actor_id: str | None = None
        self._identity = identity
        self._runtime = runtime
        self._on_change = on_change
        self._handle: Any = None
        self._seen: tuple[str, int] = ("", -1)
        self._missed = 0
        self._deaths = 0
        # Whether the process is yet to answer for the first time.
        self._fresh = True
        self._supervision: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to bring the process up and to watch it."""
        self._supervision = asyncio.create_task(self._supervise())

    @property
    def settled(self) -> bool:
        """Whether every agent has either started or failed to."""
        return bool(self.snapshot.get("settled")) and self.state is not ReplicaState.STARTING

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Agents that did not start or are not well: ``agent_id, error, error_type, traceback``."""
        if not self.settled and self._deaths >= _MAX_DEATHS_WHILE_STARTING:
            return [
                {
                    "agent_id": self.spec.agent_ids(self.index)[0],
                    "error": f"the process of organ {self.spec.id} died {self._deaths} times while it started",
                    "error_type": "OrganUnavailableError",
                    "traceback": self.error or "",
                }
            ]
        return list(self.snapshot.get("failed", ()))

    @property
    def lost_agents(self) -> int:
        """Agents that are known not to work."""
        if self.settled:
            return int(self.snapshot["agent_count"]) - int(self.snapshot["ready_agents"])
        return len(self.spec.agent_ids(self.index)) if self._deaths >= _MAX_DEATHS_WHILE_STARTING else 0

    @property
    def ready_agents(self) -> int:
        """Agents that can work now; none while the process is down."""
        return int(self.snapshot.get("ready_agents", 0)) if self.usable else 0

    @property
    def usable(self) -> bool:
        """Whether a task may be sent there."""
        return self.state in {ReplicaState.READY, ReplicaState.DEGRADED}

    async def execute(self, task: dict[str, Any], timeout_s: float, *, grace_s: float) -> dict[str, Any]:
        """Run one task there.

        Raises:
            OrganUnavailableError: The process died with the task.
            TimeoutError: The process did not answer in time, nor within the grace after it.
            RayError: Anything else that Ray reports, an answer that cannot be read for one.
        """
        self.in_flight += 1
        try:
            async with asyncio.timeout(timeout_s + grace_s):
                answer: dict[str, Any] = await self._handle.execute.remote(task, timeout_s)
        except RayError as error:
            if type(error).__name__ in _DEATHS:
                text = f"the process of organ {self.spec.id} (replica {self.index}) died with the task"
                raise OrganUnavailableError(text, "unknown") from error
            raise
        else:
            return answer
        finally:
            self.in_flight -= 1

    async def canary(self, nonce: str, timeout_s: float) -> dict[str, Any]:
        """Send a nonce there and back.

        Raises:
            RayError | TimeoutError | OrganUnavailableError: It did not come back.
        """
        if self._handle is None:
            raise OrganUnavailableError("it has no process yet")
        async with asyncio.timeout(timeout_s):
            answer: dict[str, Any] = await self._handle.canary.remote(nonce)
        return answer

    async def stop(self) -> None:
        """Stop the agents and end the process; does not raise."""
        if self._supervision is not None:
            self._supervision.cancel()
        handle, self._handle = self._handle, None
        if handle is not None:
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await handle.stop.remote()
            except (RayError, TimeoutError) as error:
                logger.warning("organ %s[%d] did not stop by itself: %s", self.spec.id, self.index, describe(error))
            await self._kill(handle, restart=False)
        self._set(ReplicaState.STOPPED, None)

    def report(self) -> dict[str, Any]:
        """Describe the replica as plain data, without its agents."""
        return {
            "replica": self.index,
            "state": str(self.state),
            "actor_id": self.actor_id,
            "pid": self.snapshot.get("pid"),
            "node_id": self.snapshot.get("node_id"),
            "agent_count": len(self.spec.agent_ids(self.index)),
            "ready_agents": self.ready_agents,
            "in_flight": self.snapshot.get("in_flight", 0),
            "queued": self.snapshot.get("queued", 0),
            "restarts": self.restarts,
            "error": self.error,
        }

    async def _supervise(self) -> None:
        delay = _RETRY_S
        while True:
            try:
                if self._handle is None:
                    self._handle = await self._runtime.ensure(self.spec, self.index, self._identity)
                    self.actor_id = self._handle._actor_id.hex()  # noqa: SLF001 - Ray has no public name for it
                await self._ask()
            except TimeoutError:
                await self._overdue()
            except ActorDiedError as error:
                # Dead for good (killed from outside, or its __init__ raised): make a new one.
                self._deaths += 1
                self._fresh = True
                self._set(ReplicaState.DOWN, _first_line(error))
                self._handle = None
            except RayError as error:
                self._deaths += 1
                self._fresh = True
                self._set(ReplicaState.DOWN, _first_line(error))
            except Exception as error:
                logger.exception("supervision of organ %s[%d] failed, trying again", self.spec.id, self.index)
                self._set(ReplicaState.DOWN, describe(error))
            else:
                delay = _RETRY_S
                continue
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MAX_RETRY_S)

    async def _ask(self) -> None:
        spec = self.spec
        started = bool(self.snapshot)
        # The first answer of a process may have to wait for Ray to place and to start it.
        limit = _PROCESS_START_S if self._fresh else spec.health_interval_s + spec.health_timeout_s
        async with asyncio.timeout(limit):
            snapshot: dict[str, Any] = await self._handle.watch.remote(*self._seen, spec.health_interval_s)
        if snapshot["identity"] != self._identity:
            logger.info("organ %s[%d] is of another configuration or release, replacing it", spec.id, self.index)
            handle, self._handle = self._handle, None
            await self._kill(handle, restart=False)
            return
        self._missed, self._fresh = 0, False
        if snapshot["settled"]:
            self._deaths = 0
        if started and snapshot["boot"] != self._seen[0]:
            self.restarts += 1
        self._seen = (snapshot["boot"], snapshot["version"])
        self.snapshot = snapshot
        if snapshot["slots"] and snapshot["stuck"] >= snapshot["slots"]:
            logger.error(
                "organ %s[%d]: every slot is held by a task that does not end, replacing its process",
                spec.id,
                self.index,
            )
            await self._replace("every slot was held by a task that does not end")
        elif not snapshot["settled"]:
            self._set(ReplicaState.STARTING, None)
        elif snapshot["ready_agents"] == snapshot["agent_count"]:
            self._set(ReplicaState.READY, None)
        else:
            first = snapshot["failed"][0] if snapshot["failed"] else {"agent_id": "an agent", "error": "not ready"}
            state = ReplicaState.DEGRADED if snapshot["ready_agents"] else ReplicaState.DOWN
            self._set(state, f"{first['agent_id']}: {first['error']}")

    async def _overdue(self) -> None:
        if self._fresh:
            # Adopted from an earlier Coordinator and hanging, or not placed yet: a new actor serves both.
            handle, self._handle = self._handle, None
            await self._kill(handle, restart=False)
            return
        self._missed += 1
        if self._missed < self.spec.failure_threshold:
            self._set(ReplicaState.DOWN, "its report is overdue")
            return
        logger.error("organ %s[%d] does not answer, replacing its process", self.spec.id, self.index)
        await self._replace("its process did not answer")

    async def _replace(self, why: str) -> None:
        self._missed, self._fresh = 0, True
        self._set(ReplicaState.DOWN, why)
        if self._handle is not None:
            await self._kill(self._handle, restart=True)

    async def _kill(self, handle: Any, *, restart: bool) -> None:
        try:
            async with asyncio.timeout(_KILL_TIMEOUT_S):
                await self._runtime.kill(handle, restart=restart)
        except (RayError, TimeoutError, ValueError) as error:
            logger.warning("killing organ %s[%d]: %s", self.spec.id, self.index, describe(error))

    def _set(self, state: ReplicaState, error: str | None) -> None:
        if (state, error) != (self.state, self.error):
            logger.log(
                logging.INFO if error is None else logging.WARNING,
                "organ %s[%d]: %s -> %s%s",
                self.spec.id,
                self.index,
                self.state,
                state,
                f" ({error})" if error else "",
            )
        self.state, self.error = state, error
        self._on_change()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {describe(error)}".splitlines()[0]


_DEATHS = frozenset({"ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "NodeDiedError"})
