"""The life cycle of an organism, from its first start to its shutdown: its wanted state and its progress.

Ray may restart the Coordinator's process at any moment, with the arguments of its creation. Later changes, a reload or
a shutdown, are kept in a record that lives as long as the actor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from seedcore.coordinator.bake import NO_BAKE, Bake
from seedcore.coordinator.inheritance import Inheritance
from seedcore.coordinator.orders import Orders
from seedcore.coordinator.organ_actors import OrganRuntime, actor_names, living_names, organ_identity
from seedcore.coordinator.organism_manager import OrganismManager
from seedcore.coordinator.replica_supervisor import Replica
from seedcore.core.backoff import Backoff
from seedcore.core.errors import InitializationError, OrganUnavailableError
from seedcore.core.organ_snapshot import ORGAN_PROTOCOL
from seedcore.core.reason import Reason, Status
from seedcore.core.spec import OrganismSpec
from seedcore.core.task import describe

logger = logging.getLogger(__name__)

# How long to wait for the organs of another release; those that are well answer at once.
ADOPT_WITHIN_S = 10.0
# Time for the processes of another release to start, in addition to their own limits.
RENEWAL_EXTRA_S = 60.0
_T = TypeVar("_T")
PUT_BACK = Backoff((1.0, 5.0, 15.0))


class Phase(StrEnum):
    """Phase of the organism."""

    STARTING = "starting"
    RUNNING = "running"
    RELOADING = "reloading"
    FAILED = "failed"
    STOPPED = "stopped"


class Record(Protocol):
    """State that outlives the Coordinator's process; ``record.ActorRecord`` implements it."""

    async def read(self) -> Mapping[str, Any] | None:
        """Return the last written data, None if there is none."""

    async def write(self, data: Mapping[str, Any]) -> None:
        """Replace the stored data with ``data``."""


class Lifecycle:
    """Start, reload and stop one organism, one operation at a time.

    Args:
        spec: The organism to start, unless the record has another one.
        release: Id of the release from which the organs must run.
        runtime: Runs the organs.
        record: State that outlives this process.
        predecessor: The record of the Coordinator that this one replaces, None if it replaces none.
        attempt: Number of attempts to start, this one included.
        on_change: Called on the event loop whenever anything changes.
        orders: What operators have ordered; default: nothing.
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
        predecessor: Record | None = None,
        orders: Orders | None = None,
    ) -> None:
        self.attempts = attempt
        self.init_seconds: float | None = None
        self.reloads = 0
        self.phase = Phase.STARTING
        self.has_read = False
        """Whether ``spec`` is the organism in use, and not the one before the last reload."""
        self.failure: str | None = None
        self._release = release
        self._runtime = runtime
        self._record = record
        self._predecessor = predecessor
        self._orders = orders or Orders()
        # The release of the organs; for a while, and if those of this release do not start, that of a predecessor.
        self._organs_release = release
        self._outdated = ""
        self._identities: Mapping[str, str] = {}
        self._own_spec = spec
        self._on_change = on_change
        self._began = time.monotonic()
        self._work: asyncio.Task[Any] | None = None
        self._putting_back: asyncio.Task[None] | None = None
        # A draining shutdown must not kill the organs of a start that was requested meanwhile.
        self._turn = asyncio.Lock()
        # One process after the other, and none while the organism is reloaded.
        self._changing = asyncio.Lock()
        self._replacing: set[asyncio.Task[Replica]] = set()
        self._first_start_ended = asyncio.Event()
        self.spec, self.fingerprint = spec, spec.fingerprint()
        self.organism = self._new_organism()

    async def start(self) -> None:
        """Start the organism for the first time in this process, unless it was shut down in an earlier one.

        Raises:
            InitializationError: It did not start; nothing of it is left running.
        """
        kept = await self._record.read()
        is_adopted = await self._take_over(Inheritance.of(kept or await self._inherited()))
        self.has_read = True
        if is_adopted:
            return
        # A record of another release is what this process should have taken over.
        if kept is not None and (kept["stopped"] or kept.get("release", self._release) == self._release):
            self.spec = OrganismSpec.from_dict(kept["spec"])
            # A Coordinator of an earlier release has written none.
            self.fingerprint, self.organism = self.spec.fingerprint(), self._new_organism(kept.get("generations"))
            if kept["stopped"]:
                logger.info("the organism was shut down, not starting it")
                self._enter(Phase.STOPPED)
                return
        await self.organism.initialize()
        self._started()
        self._putting_back = asyncio.create_task(self._put_back())

    def start_again(self) -> None:
        """Start the organism again, in the background; do nothing if that is already in progress."""
        if self.phase in {Phase.STARTING, Phase.RELOADING}:
            return
        # Set it here and not in the background task, because the next status must show it.
        self._began = time.monotonic()
        self._enter(Phase.STARTING)
        self._work = asyncio.create_task(self._start_again())

    async def reload(self, spec: OrganismSpec, *, timeout_s: float, bake: Bake = NO_BAKE) -> dict[str, list[str]]:
        """Change to another organism in place; see :meth:`OrganismManager.reload`.

        Raises:
            InitializationError: The new organism did not start, or is worse; the old one is back.
            OrganUnavailableError: The organism is not running, or is already being changed.
        """
        self.require_settled()
        self._enter(Phase.RELOADING)
        self._work = asyncio.create_task(self._reload(spec, timeout_s, bake))
        return await _whole(self._work)

    async def replace(self, organ_id: str, index: int, *, timeout_s: float) -> Replica:
        """Replace one process; see :meth:`OrganismManager.replace`. A reload or another replacement waits meanwhile.

        Raises:
            OrganUnavailableError | InitializationError: It was not replaced, or is not back in time.
        """
        self.require_settled()
        work = asyncio.create_task(self._replace(organ_id, index, timeout_s))
        self._replacing.add(work)
        work.add_done_callback(self._replacing.discard)
        return await _whole(work)

    async def shutdown(self) -> None:
        """Stop every organ after its tasks in flight."""
        work, self._work = self._work, None
        await self._cancel(*self._replacing, *([work] if work else []))
        self._enter(Phase.STOPPED)
        try:
            await self._keep(stopped=True)
        except Exception as error:
            # Stop the organism even if that cannot be recorded.
            logger.warning("cannot record that the organism must stay shut down: %s", describe(error))
        async with self._turn:
            await self.organism.shutdown()

    async def until_started(self, timeout_s: float) -> None:
        """Wait for the end of the first start in this process, at most for a time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._first_start_ended.wait()

    def require_running(self) -> None:
        """Raise OrganUnavailableError if no task can be executed now."""
        if self.phase is Phase.STARTING:
            raise OrganUnavailableError(f"the organism is initializing: {self.organism.stage}", retry_after_s=1.0)
        if self.phase in {Phase.FAILED, Phase.STOPPED}:
            raise OrganUnavailableError(self.failure or "the organism is shut down")

    def require_settled(self) -> None:
        """Raise OrganUnavailableError if the organism is not running, or is being changed."""
        self.require_running()
        if self.phase is Phase.RELOADING:
            raise OrganUnavailableError("the organism is being reloaded")

    @property
    def is_settled(self) -> bool:
        """Return whether the organism runs in processes of this release, and is not being changed."""
        return self.phase is Phase.RUNNING and not self._outdated

    def judge(self, *, restarted: bool) -> tuple[Status, Reason, str, list[str]]:
        """Return (status, reason, message, missing parts)."""
        organism = self.organism
        if self.phase is Phase.STARTING:
            reason = Reason.RESTARTING if restarted and self.init_seconds is None else Reason.STARTING
            return Status.INITIALIZING, reason, organism.stage, []
        if self.phase is Phase.RELOADING:
            return Status.INITIALIZING, Reason.RELOADING, f"reloading: {organism.stage}", []
        if self.phase is Phase.FAILED:
            return Status.UNHEALTHY, Reason.INIT_FAILED, self.failure or "", []
        down, degraded = (["the organism was shut down"], []) if self.phase is Phase.STOPPED else organism.missing()
        paused, optional = organism.paused()
        degraded += optional
        outdated = [self._outdated] if self._outdated else []
        # The processes of a paused organ are well, but no work gets done.
        for reason, faults in (
            (Reason.ORGANS_DOWN, down),
            (Reason.INIT_FAILED, outdated),
            (Reason.ORGANS_PAUSED, paused),
        ):
            if faults:
                return Status.UNHEALTHY, reason, "; ".join(faults), [*down, *paused, *degraded]
        if degraded:
            return Status.HEALTHY, Reason.DEGRADED, "; ".join(degraded), degraded
        return Status.HEALTHY, Reason.READY, f"{organism.stage}, all agents ready", []

    async def _inherited(self) -> Mapping[str, Any] | None:
        try:
            return await self._predecessor.read() if self._predecessor is not None else None
        except Exception as error:
            logger.warning("cannot read what the last Coordinator has left: %s", describe(error))
            return None

    async def _take_over(self, left: Inheritance | None) -> bool:
        """Adopt the organs of another release, and replace them in the background while they do the tasks.

        Returns:
            False if there are none to adopt; those that are left are replaced before tasks are accepted.
        """
        if left is None or left.release == self._release or left.stopped:
            return False
        if left.protocol != ORGAN_PROTOCOL:
            logger.warning(
                "not adopting the organs of release %s: they speak protocol %d, not %d; tasks wait for the new ones",
                left.release, left.protocol, ORGAN_PROTOCOL,
            )  # fmt: skip
            return False
        own = self.organism
        self._organs_release, self._identities = left.release, left.identities
        self.spec, self.fingerprint = left.spec, left.spec.fingerprint()
        self.organism = self._new_organism(left.generations)
        try:
            if not actor_names(left.spec, left.generations) <= await living_names(self._runtime):
                raise InitializationError("some of their processes are gone")  # noqa: TRY301 - one fence
            async with asyncio.timeout(ADOPT_WITHIN_S):
                await self.organism.initialize()
        except (InitializationError, TimeoutError) as error:
            logger.warning("not adopting the organs of release %s: %s", left.release, error or "some are not ready")
            if isinstance(error, TimeoutError):
                # A release that mends an organ must not wait for what is broken.
                await self.organism.shutdown()
            self._forget_release()
            self.organism = own
            return False
        logger.info("adopted the organs of release %s, replacing them", left.release)
        self.init_seconds = round(time.monotonic() - self._began, 3)
        self._outdated = f"the organs still run from release {left.release}"
        self._enter(Phase.RELOADING)
        self._work = asyncio.create_task(self._renew(self._own_spec))
        return True

    def _forget_release(self) -> None:
        """Want the own organism, of this release."""
        self._organs_release, self._identities, self._outdated = self._release, {}, ""
        self.spec, self.fingerprint = self._own_spec, self._own_spec.fingerprint()

    async def _renew(self, wanted: OrganismSpec) -> None:
        """Replace the adopted organs; if the new ones do not start, the adopted ones stay and the status says so."""
        timeout_s = RENEWAL_EXTRA_S + max((organ.start_timeout_s for organ in wanted.organs), default=0.0)
        self._putting_back = asyncio.create_task(self._put_back())
        try:
            await self._reload(wanted, timeout_s)
        except Exception as error:
            self._outdated = f"the organs of release {self._organs_release} were kept: {describe(error)}"
            self._enter(Phase.RUNNING)

    @staticmethod
    async def _cancel(*works: asyncio.Task[Any]) -> None:
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works)

    async def _start_again(self) -> None:
        try:
            await self._cancel(*self._replacing)
            async with self._turn:
                await self.organism.shutdown()
                if self._outdated:
                    self._forget_release()
                self.organism = self._new_organism()
                self.attempts += 1
                await self._keep(stopped=False)
                await self.organism.initialize()
        except Exception as error:
            # The Coordinator keeps running and reports this: its creation succeeded long ago.
            logger.exception("initialization failed")
            self._enter(Phase.FAILED, f"initialization failed: {error}")
        else:
            self._started()

    async def _reload(self, spec: OrganismSpec, timeout_s: float, bake: Bake = NO_BAKE) -> dict[str, list[str]]:
        began = False

        async def commit(generations: Mapping[str, int]) -> None:
            nonlocal began
            began = True
            try:
                await self._keep(spec, generations, release=self._release, stopped=False)
            except TimeoutError as error:
                raise InitializationError("Ray's head does not answer, cannot record the new organism") from error

        try:
            async with self._changing:
                changes = await self.organism.reload(
                    spec, release=self._release, timeout_s=timeout_s, commit=commit, bake=bake
                )
        except Exception as error:
            logger.warning("the organism was not changed: %s", error)
            if began:
                # Ray's head may still store the abandoned record when it is back.
                self._putting_back = asyncio.create_task(self._put_back())
            raise
        else:
            self.spec, self.fingerprint = spec, spec.fingerprint()
            self._organs_release, self._identities, self._outdated = self._release, {}, ""
            self.reloads += 1
            logger.info("reloaded: %s", "; ".join(f"{what}: {', '.join(ids) or '-'}" for what, ids in changes.items()))
            return changes
        finally:
            if self.phase is Phase.RELOADING:
                self._enter(Phase.RUNNING)

    async def _replace(self, organ_id: str, index: int, timeout_s: float) -> Replica:
        async def commit(generations: Mapping[str, int]) -> None:
            try:
                await self._keep(None, generations, stopped=False)
            except TimeoutError as error:
                self._putting_back = asyncio.create_task(self._put_back())
                raise InitializationError("Ray's head does not answer, cannot record the new process") from error

        async with self._changing:
            self.require_settled()
            return await self.organism.replace(organ_id, index, timeout_s=timeout_s, commit=commit)

    async def _put_back(self) -> None:
        """Record the organism in use, however long it takes; a record that is written meanwhile is newer."""
        failures = 0
        while True:
            try:
                await self._record.write(self._entry(self.spec, stopped=False))
            except Exception as error:
                failures += 1
                logger.warning("cannot record the organism in use: %s", describe(error))
                await asyncio.sleep(PUT_BACK.delay_s(failures))
            else:
                return

    async def _keep(
        self,
        spec: OrganismSpec | None = None,
        generations: Mapping[str, int] | None = None,
        *,
        release: str | None = None,
        stopped: bool,
    ) -> None:
        if self._putting_back is not None:
            self._putting_back.cancel()
        await self._record.write(self._entry(spec or self.spec, generations, release=release, stopped=stopped))

    def _entry(
        self,
        spec: OrganismSpec,
        generations: Mapping[str, int] | None = None,
        *,
        release: str | None = None,
        stopped: bool,
    ) -> dict[str, Any]:
        kept = self.organism.generations if generations is None else generations
        release = release or self._organs_release
        own = {organ.id: organ_identity(organ, release) for organ in spec.organs}
        return {
            "spec": spec.to_dict(),
            "stopped": stopped,
            "generations": dict(kept),
            "release": release,
            "identities": own if release == self._release else {**own, **self._identities},
            "protocol": ORGAN_PROTOCOL,
        }

    def _new_organism(self, generations: Mapping[str, int] | None = None) -> OrganismManager:
        return OrganismManager(
            self.spec,
            release=self._organs_release,
            runtime=self._runtime,
            on_change=self._on_change,
            generations=generations,
            identities=self._identities,
            orders=self._orders,
        )

    def _started(self) -> None:
        self.init_seconds = round(time.monotonic() - self._began, 3)
        self._enter(Phase.RUNNING)

    def _enter(self, phase: Phase, failure: str | None = None) -> None:
        self.phase, self.failure = phase, failure
        if phase is not Phase.STARTING:
            self._first_start_ended.set()
        self._on_change()


async def _whole(work: asyncio.Task[_T]) -> _T:
    """Wait for a change of the organism, which goes on if its caller goes away.

    Raises:
        OrganUnavailableError: It was cancelled by a shutdown.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if work.cancelled():
            raise OrganUnavailableError("the organism was shut down meanwhile") from None
        raise
