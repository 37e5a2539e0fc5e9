"""From the first start to the last stop: what the organism is meant to be, and how far it is.

The Coordinator's own process may be started again by Ray at any moment, with the arguments it was created with. What
has been changed since, another organism by a reload or a shutdown, is kept in a record that lives as long as the actor.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol

from seedcore.coordinator.organ_actors import OrganRuntime
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.core.backoff import Backoff
from seedcore.core.errors import InitializationError, OrganUnavailableError
from seedcore.core.reason import Reason, Status
from seedcore.core.spec import OrganismSpec
from seedcore.core.task import describe

logger = logging.getLogger(__name__)

PUT_BACK = Backoff((1.0, 5.0, 15.0))


class Phase(StrEnum):
    """Where the organism is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RELOADING = "reloading"
    FAILED = "failed"
    STOPPED = "stopped"


class Record(Protocol):
    """What outlives the Coordinator's process; ``record.ActorRecord`` is the real one."""

    async def read(self) -> Mapping[str, Any] | None:
        """Return what was written, None if nothing was."""

    async def write(self, data: Mapping[str, Any]) -> None:
        """Keep ``data`` instead of what was written before."""


class Lifecycle:
    """Starts, reloads and stops one organism, one of these at a time.

    Args:
        spec: What to bring up, unless the record says otherwise.
        release: Id of the release that the organs must run from.
        runtime: Where organs run.
        record: What outlives this process.
        attempt: How many times the start has been tried, this time included.
        on_change: Called, on the loop, whenever anything changes.
    """

    def __init__(
        self,
        spec: OrganismSpec,
        *,
        release: str,
        runtime: OrganRuntime,
        record: Record,
        attempt: int,
        on_change: Callable[[], None],
    ) -> None:
        self.attempts = attempt
        self.init_seconds: float | None = None
        self.reloads = 0
        self.phase = Phase.STARTING
        self.failure: str | None = None
        self._release = release
        self._runtime = runtime
        self._record = record
        self._on_change = on_change
        self._began = time.monotonic()
        self._work: asyncio.Task[Any] | None = None
        self._putting_back: asyncio.Task[None] | None = None
        # A shutdown that drains must not find, and kill, what a start that was asked for meanwhile has brought up.
        self._turn = asyncio.Lock()
        self.spec, self.fingerprint = spec, spec.fingerprint()
        self.organism = self._new_organism()

    async def start(self) -> None:
        """Bring the organism up for the first time in this process, unless it was shut down in an earlier one.

        Raises:
            InitializationError: It did not come up; nothing of it is left running.
        """
        kept = await self._record.read()
        if kept is not None:
            self.spec = OrganismSpec.from_dict(kept["spec"])
            # A Coordinator of an earlier release has written none.
            self.fingerprint, self.organism = self.spec.fingerprint(), self._new_organism(kept.get("generations"))
            if kept["stopped"]:
                logger.info("the organism was shut down, and stays so")
                self._enter(Phase.STOPPED)
                return
        await self.organism.initialize()
        self._started()

    def start_again(self) -> None:
        """Bring the organism up anew, in the background; nothing happens if that is under way already."""
        if self.phase in {Phase.STARTING, Phase.RELOADING}:
            return
        # Set here and not in the background task: the very next status has to say so.
        self._began = time.monotonic()
        self._enter(Phase.STARTING)
        self._work = asyncio.create_task(self._start_again())

    async def reload(self, spec: OrganismSpec, *, timeout_s: float) -> dict[str, list[str]]:
        """Become another organism in place; see :meth:`OrganismManager.reload`.

        Raises:
            InitializationError: The new one did not come up; the old one is back.
            OrganUnavailableError: The organism is not running, or being changed already.
        """
        self.require_settled()
        self._enter(Phase.RELOADING)
        self._work = asyncio.create_task(self._reload(spec, timeout_s))
        work: asyncio.Task[dict[str, list[str]]] = self._work
        try:
            # Not cancelled with its caller, who may be gone before it is done.
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise OrganUnavailableError("the organism was shut down meanwhile") from None
            raise

    async def shutdown(self) -> None:
        """Stop every organ; tasks that are under way may end."""
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await asyncio.wait({work})
        self._enter(Phase.STOPPED)
        try:
            await self._keep(stopped=True)
        except Exception as error:
            # What was asked for is that it stops.
            logger.warning("it is not written down that the organism is to stay shut down: %s", describe(error))
        async with self._turn:
            await self.organism.shutdown()

    def require_running(self) -> None:
        """Raise OrganUnavailableError if no task can be done now."""
        if self.phase is Phase.STARTING:
            raise OrganUnavailableError(f"the organism is initializing: {self.organism.stage}", retry_after_s=1.0)
        if self.phase in {Phase.FAILED, Phase.STOPPED}:
            raise OrganUnavailableError(self.failure or "the organism is shut down")

    def require_settled(self) -> None:
        """Raise OrganUnavailableError if the organism is not running, or is being changed."""
        self.require_running()
        if self.phase is Phase.RELOADING:
            raise OrganUnavailableError("the organism is being reloaded")

    def judge(self, *, restarted: bool) -> tuple[Status, Reason, str, list[str]]:
        """Sum up: (status, reason, message, what is missing)."""
        organism = self.organism
        if self.phase is Phase.STARTING:
            reason = Reason.RESTARTING if restarted and self.init_seconds is None else Reason.STARTING
            return Status.INITIALIZING, reason, organism.stage, []
        if self.phase is Phase.RELOADING:
            return Status.INITIALIZING, Reason.RELOADING, f"reloading: {organism.stage}", []
        if self.phase is Phase.FAILED:
            return Status.UNHEALTHY, Reason.INIT_FAILED, self.failure or "", []
        down, degraded = (["the organism was shut down"], []) if self.phase is Phase.STOPPED else organism.missing()
        if down:
            return Status.UNHEALTHY, Reason.ORGANS_DOWN, "; ".join(down), [*down, *degraded]
        if degraded:
            return Status.HEALTHY, Reason.DEGRADED, "; ".join(degraded), degraded
        return Status.HEALTHY, Reason.READY, f"{organism.stage}, all agents ready", []

    async def _start_again(self) -> None:
        try:
            async with self._turn:
                await self.organism.shutdown()
                self.organism = self._new_organism()
                self.attempts += 1
                await self._keep(stopped=False)
                await self.organism.initialize()
        except Exception as error:
            # The Coordinator goes on, and says so: its creation succeeded long ago.
            logger.exception("initialization failed")
            self._enter(Phase.FAILED, f"initialization failed: {error}")
        else:
            self._started()

    async def _reload(self, spec: OrganismSpec, timeout_s: float) -> dict[str, list[str]]:
        began = False

        async def commit(generations: Mapping[str, int]) -> None:
            nonlocal began
            began = True
            try:
                await self._keep(spec, generations, stopped=False)
            except TimeoutError as error:
                raise InitializationError("Ray's head does not answer, the new organism would be forgotten") from error

        try:
            changes = await self.organism.reload(spec, timeout_s=timeout_s, commit=commit)
        except Exception as error:
            logger.warning("the organism stays as it is: %s", error)
            if began:
                # Ray's head may still write down what was given up, when it is back.
                self._putting_back = asyncio.create_task(self._put_back())
            raise
        else:
            self.spec, self.fingerprint = spec, spec.fingerprint()
            self.reloads += 1
            logger.info("reloaded: %s", "; ".join(f"{what}: {', '.join(ids) or '-'}" for what, ids in changes.items()))
            return changes
        finally:
            if self.phase is Phase.RELOADING:
                self._enter(Phase.RUNNING)

    async def _put_back(self) -> None:
        """Write down the organism in use, however long it takes; whatever is written meanwhile is newer."""
        failures = 0
        while True:
            try:
                await self._record.write(self._entry(self.spec, stopped=False))
            except Exception as error:
                failures += 1
                logger.warning("the organism in use is not written down: %s", describe(error))
                await asyncio.sleep(PUT_BACK.delay_s(failures))
            else:
                return

    async def _keep(
        self, spec: OrganismSpec | None = None, generations: Mapping[str, int] | None = None, *, stopped: bool
    ) -> None:
        if self._putting_back is not None:
            self._putting_back.cancel()
        await self._record.write(self._entry(spec or self.spec, generations, stopped=stopped))

    def _entry(
        self, spec: OrganismSpec, generations: Mapping[str, int] | None = None, *, stopped: bool
    ) -> dict[str, Any]:
        kept = self.organism.generations if generations is None else generations
        return {"spec": spec.to_dict(), "stopped": stopped, "generations": dict(kept)}

    def _new_organism(self, generations: Mapping[str, int] | None = None) -> OrganismManager:
        return OrganismManager(
            self.spec, release=self._release, runtime=self._runtime, on_change=self._on_change, generations=generations
        )

    def _started(self) -> None:
        self.init_seconds = round(time.monotonic() - self._began, 3)
        self._enter(Phase.RUNNING)

    def _enter(self, phase: Phase, failure: str | None = None) -> None:
        self.phase, self.failure = phase, failure
        self._on_change()
