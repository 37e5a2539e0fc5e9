"""One replica of an organ, as the Coordinator sees it: keeps asking it, and replaces its process when it hangs.

A single long call (``watch``) serves for progress, health and death: the organ answers it when something changed or
after the health interval; a process that died breaks it; one that hangs leaves it overdue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, RayError, WorkerCrashedError

from seedcore.counts import merge
from seedcore.errors import OrganUnavailableError
from seedcore.organism.crashes import CrashLoop
from seedcore.organism.lane import Call, Lane
from seedcore.organism.runtime import KILL_TIMEOUT_S, OrganRuntime, kill, retire
from seedcore.organism.snapshot import AgentFailure, ReplicaState, Snapshot
from seedcore.organism.work import settle
from seedcore.spec import OrganSpec
from seedcore.task import describe

logger = logging.getLogger(__name__)

# Items that a stream may be ahead of whoever takes them, on each of its hops.
STREAM_AHEAD = 64
# Ray tells a caller of a dead actor after up to a second; a killed organ is back within two.
_RETRY_S = 0.2
_MAX_RETRY_S = 5.0
_PROCESS_START_S = 60.0
_MAX_DEATHS_WHILE_STARTING = 3


class Replica:
    """Keeps one organ process alive and knows how it is.

    Args:
        spec: The organ.
        index: Which replica, from 0.
        identity: Digest of spec and release that the process must have.
        runtime: Where it runs.
        siblings: Gives the ids of the nodes that the organ's other replicas are on, one entry for each.
        is_leaving: Says whether a node is to leave the cluster.
        on_change: Called, on the loop, whenever what is known changes.
    """

    def __init__(
        self,
        spec: OrganSpec,
        index: int,
        *,
        identity: str,
        runtime: OrganRuntime,
        siblings: Callable[[], Collection[str]],
        is_leaving: Callable[[str], bool],
        on_change: Callable[[], None],
    ) -> None:
        self.spec = spec
        self.index = index
        self.state = ReplicaState.STARTING
        self.error: str | None = None
        self.snapshot: Snapshot | None = None
        self.restarts = 0
        self.actor_id: str | None = None
        self._identity = identity
        self._runtime = runtime
        self._siblings = siblings
        self._is_leaving = is_leaving
        self._on_change = on_change
        self._handle: Any = None
        self._seen: tuple[str, int] = ("", -1)
        self._past_tasks: list[dict[str, Any]] = []
        self._missed = 0
        self._crashes = CrashLoop()
        self._never_settled = True
        # Why the process died last, and with which task; shown until it is well again.
        self._cause: str | None = None
        self._died_with: str | None = None
        # Whether the next process is new because of us, and not because one has died unseen.
        self._disposed = False
        self._replaced = False
        # Whether the process is yet to answer for the first time.
        self._fresh = True
        self._supervision: asyncio.Task[None] | None = None
        self._creation: asyncio.Task[Any] | None = None
        self._streams = 0
        self._lane = Lane(spec.id, lambda: self._handle)

    def start(self) -> None:
        """Begin to bring the process up and to watch it."""
        self._supervision = asyncio.create_task(self._supervise())

    @property
    def handle(self) -> Any:
        """Its actor, or None while there is none."""
        return self._handle

    @property
    def in_flight(self) -> int:
        """Tasks sent there by the Coordinator and not answered yet."""
        return self._lane.load + self._streams

    @property
    def tasks_in_flight(self) -> int:
        """Tasks that are there, as of its last report, and no less than the Coordinator has sent."""
        reported = self.snapshot.in_flight if self.snapshot and self.usable else 0
        return max(self.in_flight, reported)

    @property
    def queued(self) -> int:
        """Tasks that wait there for an agent, as of its last report."""
        return self.snapshot.queued if self.snapshot and self.usable else 0

    @property
    def settled(self) -> bool:
        """Whether every agent of the living process has either started or failed to."""
        if self.snapshot is None or self._fresh or self.state is ReplicaState.STARTING:
            return False
        return self.snapshot.first_round_over

    def tasks(self) -> list[dict[str, Any]]:
        """Counts of tasks, as of the last report, over all processes that this one follows."""
        return merge([self._past_tasks, self.snapshot.tasks if self.snapshot else ()])

    @property
    def node_id(self) -> str | None:
        """The node that the process was last seen on."""
        return self.snapshot.node_id if self.snapshot else None

    @property
    def given_up(self) -> bool:
        """Whether the process has died so often before it was ever well that a first start does not wait for it."""
        return self._never_settled and self._crashes.deaths >= _MAX_DEATHS_WHILE_STARTING

    @property
    def failures(self) -> tuple[AgentFailure, ...]:
        """Agents that did not start or are not well."""
        if self.given_up:
            text = f"the process of organ {self.spec.id} died {self._crashes.deaths} times while it started"
            first = self.spec.agent_ids(self.index)[0]
            return (
                AgentFailure(
                    agent_id=first, error=text, error_type="OrganUnavailableError", traceback=self._cause or ""
                ),
            )
        return self.snapshot.failed if self.snapshot else ()

    @property
    def lost_agents(self) -> int:
        """Agents that are known not to work."""
        if self.settled and self.snapshot:
            return self.snapshot.agent_count - self.snapshot.ready
        return len(self.spec.agent_ids(self.index)) if self.given_up else 0

    @property
    def ready_agents(self) -> int:
        """Agents that can work now; none while the process is down."""
        return self.snapshot.ready if self.snapshot and self.usable else 0

    @property
    def started_agents(self) -> int:
        """Agents of the living process that have started, also while others of it have not."""
        living = not self._fresh and (self.usable or self.state is ReplicaState.STARTING)
        return self.snapshot.ready if self.snapshot and living else 0

    @property
    def usable(self) -> bool:
        """Whether a task may be sent there."""
        return self.state in {ReplicaState.READY, ReplicaState.DEGRADED}

    async def execute(self, task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Run one task there; answers in the documented shape, also if the process dies with it or does not answer."""
        waiter: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._lane.send(Call(task, timeout_s, settle(waiter)))
        answer = await waiter
        if answer.get("executed") == "unknown" and answer.get("error_type") == "OrganUnavailableError":
            self._died_with = str(task.get("type"))
        return answer

    async def stream(self, task: dict[str, Any], timeout_s: float, *, grace_s: float) -> AsyncIterator[dict[str, Any]]:
        """Run one task there; yields what :meth:`Organ.stream` yields.

        Raises:
            OrganUnavailableError: The process died with the task.
            TimeoutError: The process did not answer in time, nor within the grace after it.
            RayError: Anything else that Ray reports, an item that cannot be read for one.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s + grace_s
        self._streams += 1
        method = self._handle.stream.options(_generator_backpressure_num_objects=STREAM_AHEAD)
        parts = method.remote(task, timeout_s)
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    part: dict[str, Any] = await (await anext(parts))
                yield part
        except StopAsyncIteration:
            return
        except _DEATHS as error:
            self._died_with = str(task.get("type"))
            text = f"the process of organ {self.spec.id} (replica {self.index}) died with the task"
            raise OrganUnavailableError(text, "unknown") from error
        finally:
            self._streams -= 1
            # Nothing, if it has ended; else nobody waits for what is still to come.
            ray.cancel(parts)

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
        """Let the tasks end, stop the agents and end the process; does not raise."""
        if self._supervision is not None:
            self._supervision.cancel()
        handle, self._handle = self._handle, None
        if handle is None and self._creation is not None:
            # It is being created in a thread, which nothing stops: what comes of it has to go as well.
            with contextlib.suppress(RayError, TimeoutError, ValueError):
                handle = await asyncio.wait_for(self._creation, KILL_TIMEOUT_S)
        self._set(ReplicaState.STOPPED, None)
        if handle is None:
            return
        if self._fresh:
            # Not placed yet, dead or hanging: it would not hear a word.
            await self._kill(handle, restart=False)
        else:
            await self.retire(handle)

    async def retire(self, handle: Any) -> None:
        """Stop an organ process in good order, then end it; does not raise."""
        await retire(handle, self._runtime, name=self._name, drain_timeout_s=self.spec.drain_timeout_s)

    def report(self) -> dict[str, Any]:
        """Describe the replica as plain data, without its agents."""
        return {
            "replica": self.index,
            "state": str(self.state),
            "actor_id": self.actor_id,
            "pid": self.snapshot.pid if self.snapshot else None,
            "node_id": self.node_id,
            "agent_count": len(self.spec.agent_ids(self.index)),
            "ready_agents": self.ready_agents,
            "in_flight": self.tasks_in_flight,
            "queued": self.queued,
            "restarts": self.restarts,
            "error": self.error,
        }

    @property
    def _name(self) -> str:
        return f"{self.spec.id}[{self.index}]"

    async def _supervise(self) -> None:
        delay = _RETRY_S
        while True:
            pause = 0.0
            try:
                if self._handle is None:
                    await self._create()
                pause = await self._ask()
            except TimeoutError:
                await self._overdue()
            except RayError as error:
                pause = self._lost(error)
            except Exception as error:
                logger.exception("supervision of organ %s failed, trying again", self._name)
                self._set(ReplicaState.DOWN, describe(error))
            else:
                delay = _RETRY_S
                if not pause:
                    continue
            if pause:
                await self._leave_alone(pause)
                continue
            await asyncio.sleep(delay)
            delay = min(delay * 2, _MAX_RETRY_S)

    async def _create(self) -> None:
        ensure = self._runtime.ensure(self.spec, self.index, self._identity, beside=self._siblings())
        self._creation = asyncio.ensure_future(ensure)
        try:
            self._handle = await asyncio.shield(self._creation)
        finally:
            if self._creation.done():
                self._creation = None
        self.actor_id = self._handle._actor_id.hex()  # noqa: SLF001 - Ray has no public name for it

    def _lost(self, error: RayError) -> float:
        """Take in that the process does not answer any more; returns for how long to leave it alone, mostly 0."""
        self._fresh = True
        is_dead = isinstance(error, ActorDiedError)
        if self._died_with is not None:
            self._cause = f"its process died with a task of type {self._died_with!r}"
        elif not self._replaced:
            self._cause = _first_line(error) if is_dead else "its process died"
        pause = 0.0
        # Any other error may be the network's; a process that really died shows in what its successor answers.
        if is_dead or "is restarting" in str(error):
            pause = self._crashes.died(time.monotonic())
        self._set(ReplicaState.DOWN, self._cause)
        if is_dead:
            # Dead for good (killed from outside, or its __init__ raised): make a new one.
            self._handle, self._disposed = None, True
        return pause

    async def _leave_alone(self, pause: float) -> None:
        """Start nothing for a while: Ray by itself would start a process that dies again and again, for ever."""
        text = f"crash loop: {self._crashes.deaths} deaths, last: {self._cause}; next start in {pause:g} s"
        logger.error("organ %s: %s", self._name, text)
        self._set(ReplicaState.DOWN, text)
        await self._dispose()
        await asyncio.sleep(pause)

    async def _dispose(self) -> None:
        """End the process for good; the next one is a new actor."""
        handle, self._handle = self._handle, None
        self._fresh = self._disposed = True
        if handle is not None:
            await self._kill(handle, restart=False)

    async def _ask(self) -> float:
        """Ask for what is new, and take it in; returns for how long to leave the process alone, mostly 0."""
        spec = self.spec
        # The first answer of a process may have to wait for Ray to place and to start it.
        limit = _PROCESS_START_S if self._fresh else spec.health_interval_s + spec.health_timeout_s
        async with asyncio.timeout(limit):
            answer: dict[str, Any] = await self._handle.watch.remote(*self._seen, spec.health_interval_s)
        if answer["identity"] != self._identity:
            # Before anything else: what another release answers may have another shape.
            logger.info("organ %s is of another configuration or release, replacing it", self._name)
            handle, self._handle = self._handle, None
            await self.retire(handle)
            return 0.0
        snapshot = Snapshot.from_dict(answer)
        if snapshot.stopping:
            # Somebody began to stop it and did not come to the end: a Coordinator that died, a reload that was undone.
            logger.info("organ %s is stopping, replacing it", self._name)
            await self._dispose()
            return 0.0
        pause = self._note_life(snapshot)
        if self._is_leaving(str(snapshot.node_id)):
            await self._move()
            return 0.0
        if not pause:
            await self._judge(snapshot)
        return pause

    def _note_life(self, snapshot: Snapshot) -> float:
        """Take in which process answers; returns for how long to leave it alone if too many before it have died."""
        now, pause = time.monotonic(), 0.0
        is_new = self.snapshot is not None and snapshot.boot != self._seen[0]
        if is_new:
            self._past_tasks = self.tasks()
            self.restarts += 1
            pause = 0.0 if self._disposed else self._crashes.died(now)
        else:
            self._crashes.lives(now)
        self._missed, self._fresh, self._disposed, self._replaced = 0, False, False, False
        self._seen = (snapshot.boot, snapshot.version)
        self.snapshot = snapshot
        return pause

    async def _judge(self, snapshot: Snapshot) -> None:
        if snapshot.is_blocked:
            text = "every slot was held by a task that does not end"
            logger.error("organ %s: %s, replacing its process", self._name, text)
            await self._replace(text)
            return
        self._never_settled = self._never_settled and not snapshot.first_round_over
        if snapshot.state is ReplicaState.READY:
            self._cause = self._died_with = None
        self._set(snapshot.state, snapshot.cause or self._cause)

    async def _move(self) -> None:
        """Let the tasks end where they are, and go on where Ray still places something."""
        self._cause = "its node is to leave the cluster, it moves"
        handle, self._handle = self._handle, None
        self._fresh = self._disposed = True
        self._set(ReplicaState.DOWN, self._cause)
        await self.retire(handle)

    async def _overdue(self) -> None:
        if self._fresh:
            # Adopted from an earlier Coordinator and hanging, or not placed yet: a new actor serves both.
            await self._dispose()
            return
        self._missed += 1
        if self._missed < self.spec.failure_threshold:
            self._set(ReplicaState.DOWN, "its report is overdue")
            return
        logger.error("organ %s does not answer, replacing its process", self._name)
        await self._replace("its process did not answer")

    async def _replace(self, why: str) -> None:
        self._missed, self._fresh, self._replaced = 0, True, True
        self._cause = why
        self._set(ReplicaState.DOWN, why)
        if self._handle is not None:
            await self._kill(self._handle, restart=True)

    async def _kill(self, handle: Any, *, restart: bool) -> None:
        await kill(handle, self._runtime, name=self._name, restart=restart)

    def _set(self, state: ReplicaState, error: str | None) -> None:
        if (state, error) != (self.state, self.error):
            logger.log(
                logging.INFO if error is None else logging.WARNING,
                "organ %s: %s -> %s%s",
                self._name,
                self.state,
                state,
                f" ({error})" if error else "",
            )
        self.state, self.error = state, error
        self._on_change()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {describe(error)}".splitlines()[0]


_DEATHS = (ActorDiedError, ActorUnavailableError, WorkerCrashedError, NodeDiedError)
