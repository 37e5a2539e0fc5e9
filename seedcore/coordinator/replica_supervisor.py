"""Supervise one replica of an organ: keep asking it, and execute the decisions of :mod:`replica_state`.

A single long call (``watch``) reports progress, health and death: the organ answers it when something has changed or
after the health interval; a death breaks the call; a hang leaves it overdue. A task that finds no process reports that
at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError

from seedcore.coordinator.organ_actors import KILL_TIMEOUT_S, OrganRuntime, kill, organ_name, retire, row_of
from seedcore.coordinator.replica_state import Action, Phase, Row
from seedcore.coordinator.replica_view import ReplicaView
from seedcore.coordinator.start_queue import Placer, Request
from seedcore.core.errors import OrganUnavailableError
from seedcore.core.organ_snapshot import SEND_BACK, ReplicaState, Snapshot
from seedcore.core.spec import OrganSpec
from seedcore.core.task import describe
from seedcore.core.task_counters import merge
from seedcore.dispatch.sender import DEATHS, Call, Lane, result, settle

logger = logging.getLogger(__name__)

# Number of items that a stream may be ahead of its consumer, on each of its hops.
STREAM_AHEAD = 64
PAUSE_TIMEOUT_S = 5.0
# A caller of a dead actor gets the error after up to a second; a killed organ is back within two.
_RETRY_S = 0.2
_MAX_RETRY_S = 5.0
_PROCESS_START_S = 30.0


class Replica(ReplicaView):
    """Keep one organ process alive.

    Args:
        spec: The organ.
        index: Index of the replica, from 0.
        identity: Digest of spec and release that the process must have.
        generation: Part of the actor's name, so that the process can start beside the one that it replaces.
        runtime: Runs it.
        placer: Decides when its process may start, and on which node.
        is_leaving: Tells whether a node is draining.
        is_paused: Tells whether the organ shall begin no task.
        unreachable: Returns the ids of the nodes that do not answer, or whose processes may still be unreachable.
        on_change: Called on the event loop whenever the known state changes.
    """

    def __init__(
        self,
        spec: OrganSpec,
        index: int,
        *,
        identity: str,
        generation: int = 0,
        runtime: OrganRuntime,
        placer: Placer,
        is_leaving: Callable[[str], bool],
        is_paused: Callable[[], bool] = lambda: False,
        unreachable: Callable[[], Collection[str]] = tuple,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(spec, index)
        self.actor_id: str | None = None
        self.place: str | None = None
        """The node of its process or, until it has answered, the planned node."""
        self.generation = generation
        self._identity = identity
        self._runtime = runtime
        self._placer = placer
        self._is_leaving = is_leaving
        self._is_paused = is_paused
        # The process that was told last whether to begin tasks, and what; a new process begins them.
        self._was_told: tuple[str, bool] = ("", False)
        self._is_adopted = False
        self._unreachable = unreachable
        self._on_change = on_change
        self._request = Request(spec, index, generation)
        self.handle: Any = None
        """Its actor, or None while there is none."""
        self._past_tasks: list[dict[str, Any]] = []
        # The counts of its last process when it was stopped.
        self._last_tasks: list[dict[str, Any]] | None = None
        self._told: tuple[ReplicaState, str | None] = (ReplicaState.STARTING, None)
        self._supervision: asyncio.Task[None] | None = None
        self._creation: asyncio.Future[Any] | None = None
        self._asking: asyncio.Future[dict[str, Any]] | None = None
        # Whether a task has found no process since the last call was sent.
        self._is_doubted = False
        # Why to replace the process at the next step of the supervision.
        self._leaves_because: str | None = None
        # Whether its node was given up, and whether it has reported since the last request for that.
        self._is_given_up = False
        self._has_reported = False
        # Processes that are being ended; a stop of the replica waits for them, too.
        self._ending: set[asyncio.Task[Any]] = set()
        self._streams = 0
        self._lane = self._new_lane()

    def start(self) -> None:
        """Start the process and its supervision."""
        self._supervision = asyncio.create_task(self._supervise())

    @property
    def epoch(self) -> str | None:
        """Return the epoch that calls must carry, see :class:`seedcore.organ.lease.Lease`."""
        return self._lane.epoch

    @property
    def in_flight(self) -> int:
        """Return the number of tasks from the Coordinator that are not answered yet."""
        return self._lane.load + self._streams

    @property
    def tasks_in_flight(self) -> int:
        """Return the number of tasks in the process by its last report, but at least those from the Coordinator."""
        return max(self.in_flight, self.snapshot.in_flight if self.snapshot and self.usable else 0)

    def tasks(self) -> list[dict[str, Any]]:
        """Return the task counts by the last report, over all of its processes."""
        last = self._last_tasks if self._last_tasks is not None else self.snapshot.tasks if self.snapshot else ()
        return merge([self._past_tasks, last])

    def has_reported(self) -> bool:
        """Return whether a report has arrived since the last call of this method."""
        reported, self._has_reported = self._has_reported, False
        return reported

    def abandon(self) -> None:
        """Start the process on another node, because it and its node are silent, unless it has answered meanwhile."""
        if self.handle is not None and self.place is not None and not (self._answers or self._is_given_up):
            self._is_given_up = True
            if self._asking is not None:
                self._asking.cancel()

    async def execute(self, task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Execute one task; answer in the documented shape, even if the process dies with it or does not answer."""
        waiter: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._lane.send(Call(task, timeout_s, settle(waiter)))
        return await waiter

    def send(self, call: Call) -> None:
        """Send one task; the call gets its answer."""
        self._lane.send(call)

    async def stream(self, task: dict[str, Any], timeout_s: float, *, grace_s: float) -> AsyncIterator[dict[str, Any]]:
        """Execute one task; yield the items of :meth:`Organ.stream`.

        Raises:
            OrganUnavailableError: The process died with the task, or there is none.
            TimeoutError: The process did not answer in time, nor within the grace period.
            RayError: Any other error of Ray, for example an item that cannot be read.
        """
        if self.handle is None:
            raise OrganUnavailableError(f"the process of organ {self.spec.id} is down")
        deadline = asyncio.get_running_loop().time() + timeout_s + grace_s
        method = self.handle.stream.options(_generator_backpressure_num_objects=STREAM_AHEAD)
        parts = method.remote(task, timeout_s, self._lane.epoch)
        self._streams += 1
        lane = self._lane
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    part: dict[str, Any] = await (await anext(parts))
                yield part
        except StopAsyncIteration:
            return
        except DEATHS as error:
            if lane is self._lane:
                self._missed_by_task(str(task.get("type")), may_have_run=True)
            text = f"the process of organ {self.spec.id} (replica {self.index}) died with the task"
            raise OrganUnavailableError(text, "unknown") from error
        finally:
            self._streams -= 1
            # Cancel a stream that has not ended, because nobody waits for its other items.
            ray.cancel(parts)

    async def canary(self, nonce: str, timeout_s: float) -> dict[str, Any]:
        """Send a nonce through the process and back.

        Raises:
            RayError | TimeoutError | OrganUnavailableError: The nonce did not come back.
        """
        if self.handle is None:
            raise OrganUnavailableError("it has no process yet")
        async with asyncio.timeout(timeout_s):
            answer: dict[str, Any] = await self.handle.canary.remote(nonce)
        return answer

    async def obey_pause(self, boot: str) -> None:
        """Tell the process whether to begin tasks, unless it knows that.

        Raises:
            RayError | TimeoutError | OrganUnavailableError: It has not confirmed that.
        """
        order = (boot, self._is_paused())
        may_differ = order[1] or self._is_adopted or self._was_told[0] == boot
        if order != self._was_told and may_differ and self.handle is not None:
            reply = await self._hold(boot, order[1])
            if order[1] and reply.get("held") is not True:
                raise OrganUnavailableError("its process has another release, or was just replaced")
            self._was_told, self._is_adopted = order, False

    async def send_back(self) -> None:
        """Let a paused process refuse the tasks that wait in it; if it does not answer, they go on waiting."""
        if self.usable and self.handle is not None and self._is_paused():
            with contextlib.suppress(RayError, TimeoutError):
                await self._hold(str(self.boot), SEND_BACK)

    async def _hold(self, boot: str, how: bool | str) -> dict[str, Any]:  # noqa: FBT001 - as it is sent
        async with asyncio.timeout(PAUSE_TIMEOUT_S):
            # A process of an earlier release takes it for a question about durable tasks, and does nothing.
            reply: dict[str, Any] = await result(self.handle.call.remote(("hold", 0, boot, [], how)))
        return reply

    def move(self, why: str) -> None:
        """Replace this process after its tasks by one on the node that placement chooses now."""
        self._leaves_because = why
        if self._asking is not None:
            self._asking.cancel()

    async def stop(self) -> None:
        """Let the tasks end, stop the agents and end the process; never raise."""
        if self._supervision is not None:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
        self._placer.give_back(self._request)
        # A process with a late report may be healthy and busy; one that is not placed or is dead would not answer.
        gently = self._process.phase in {Phase.ANSWERING, Phase.OVERDUE}
        handle, self.handle = self.handle, None
        if handle is None and self._creation is not None:
            # A thread that cannot be stopped is creating it; remove the result, too.
            with contextlib.suppress(RayError, TimeoutError, ValueError):
                handle = await asyncio.wait_for(self._creation, KILL_TIMEOUT_S)
        self._process.end()
        self._tell()
        if handle is not None:
            counted = await self._begin_to_end(handle, gently=gently)
            self._last_tasks = counted if isinstance(counted, list) else None
        if self._ending:
            await asyncio.wait(self._ending)

    def report(self) -> dict[str, Any]:
        """Return the replica as plain data, without its agents."""
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
            "has_turn": self.has_turn,
            "error": self.error,
        }

    @property
    def name(self) -> str:
        """Return the name of its actor."""
        return organ_name(self.spec.id, self.index, self.generation)

    @property
    def has_turn(self) -> bool:
        """Return whether its process is being started, on a node that had room for it."""
        return self._placer.has_turn(self._request)

    @property
    def is_unplaced(self) -> bool:
        """Return whether its actor waits until a node has room for its process."""
        return self.handle is not None and self._process.is_awaited and not self.has_turn

    @property
    def _name(self) -> str:
        return f"{self.spec.id}[{self.index}]"

    async def _supervise(self) -> None:
        delay = _RETRY_S
        while True:
            try:
                action = await self._next()
                if action is not Action.WAIT:
                    # It has answered or died; this start is over.
                    self._placer.give_back(self._request)
                self._tell()
                answered = self._answers
                await self._do(action)
            except Exception as error:
                logger.exception("supervision of organ %s failed, retrying", self._name)
                self._placer.give_back(self._request)
                self._process.lost(describe(error), None, _now())
                self._tell()
                self._asking, answered = None, False
            if answered:
                delay = _RETRY_S
            elif self._asking is None and self._process.phase is not Phase.PAUSED:
                await asyncio.sleep(delay)
                delay = min(delay * 2, _MAX_RETRY_S)

    async def _next(self) -> Action:
        """Wait for the next event of the process, and decide what to do."""
        process, spec = self._process, self.spec
        if self.handle is None:
            await self._create()
        if self._is_given_up:
            return process.given_up(spec.silence_s)
        if self._asking is None:
            known = process.snapshot if self._answers else None
            seen = (known.boot, known.version) if known else ("", -1)
            self._is_doubted = False
            self._asking = _ask(self.handle.watch.remote(*seen, spec.health_interval_s))
        asking = self._asking
        # The first answer of a process may have to wait until Ray has placed and started it.
        limit = _PROCESS_START_S if process.is_awaited else spec.health_interval_s + spec.health_timeout_s
        await asyncio.wait({asking}, timeout=limit)
        if not asking.done():
            row = await self._row()
        if not asking.done():
            is_away = self.place in self._unreachable()
            return process.silent(row, _now(), threshold=spec.failure_threshold, is_node_away=is_away)
        self._asking = None
        if self._leaves_because is not None and self._answers:
            return process.retire(self._leaves_because)
        return Action.ASK if asking.cancelled() or self._is_doubted else await self._ended(asking)

    async def _ended(self, asking: asyncio.Future[dict[str, Any]]) -> Action:
        """Decide what to do after a call has ended, with an answer or an error."""
        process, error = self._process, asking.exception()
        if isinstance(error, ActorDiedError):
            row = await self._row()
            return process.dead((row and row.cause) or _first_line(error), _now())
        if error is not None:
            away = isinstance(error, DEATHS)
            return process.lost(None if away else _first_line(error), await self._row(), _now())
        answer = asking.result()
        if answer["identity"] != self._identity:
            # Check this first: an answer of another release may have another shape.
            return process.retire("its configuration or release differs")
        try:
            # Before the process counts as usable: nobody sends it a task earlier.
            await self.obey_pause(answer["boot"])
        except (RayError, TimeoutError, OrganUnavailableError) as failed:
            return process.lost(f"it cannot be told whether it is paused: {describe(failed)}", None, _now())
        return self._answered(answer)

    def _answered(self, answer: dict[str, Any]) -> Action:
        snapshot, before = Snapshot.from_dict(answer), self.snapshot
        if before is not None and before.boot != snapshot.boot:
            self._past_tasks = self.tasks()
        self._lane.epoch, self.place, self._has_reported = snapshot.epoch, snapshot.node_id, True
        return self._process.answered(snapshot, _now(), leaving=self._is_leaving(str(snapshot.node_id)))

    async def _do(self, action: Action) -> None:
        if action is Action.KILL:
            await kill(self.handle, self._runtime, name=self._name, restart=True)
        if action in {Action.KILL, Action.ASK}:
            self._asking = None
        if action in {Action.CREATE, Action.DISPOSE, Action.RETIRE, Action.PAUSE}:
            handle, self.handle, self._asking = self.handle, None, None
            if action is not Action.CREATE:
                await asyncio.shield(self._begin_to_end(handle, gently=action is Action.RETIRE))
        if action is Action.MOVE:
            await self._abandon()
        if action is Action.PAUSE:
            await asyncio.sleep(self._process.pause_s)

    async def _abandon(self) -> None:
        """Free the old actor's name; its process exits when it learns of that, and accepts no tasks until then."""
        self._is_given_up, self._asking = False, None
        if not await kill(self.handle, self._runtime, name=self._name, restart=False):
            # Creating an actor now would return the old one.
            self._process.lost("its node does not answer, and Ray's head does not accept the kill", None, _now())
            return
        self.handle = self.place = None
        # The tasks of the old process are answered separately and tell nothing about the new one.
        self._lane = self._new_lane()

    def _new_lane(self) -> Lane:
        def missed(task_type: str, *, is_dead: bool = True, may_have_run: bool) -> None:
            if self._lane is lane:
                self._missed_by_task(task_type, is_dead=is_dead, may_have_run=may_have_run)

        lane = Lane(self.spec.id, lambda: self.handle if self._lane is lane else None, on_miss=missed)
        return lane

    async def _create(self) -> None:
        """Adopt the existing actor, or create one when it is its turn."""
        self._leaves_because = None
        self.handle = await self._made(self._runtime.find(self.spec, self.index, generation=self.generation))
        self._is_adopted = self.handle is not None
        if self.handle is None:
            self.place = None
            try:
                self.place = await self._placer.place(self._request, tell=self._process.wait)
            finally:
                self._process.wait(None)
            ensure = self._runtime.ensure(
                self.spec, self.index, self._identity, generation=self.generation, node_id=self.place
            )
            self.handle = await self._made(ensure)
        self._is_given_up = False
        self.actor_id = self.handle._actor_id.hex()  # noqa: SLF001 - Ray has no public name for it
        self._process.created(await self._row())
        self._tell()

    async def _made(self, creation: Awaitable[Any]) -> Any:
        self._creation = asyncio.ensure_future(creation)
        try:
            return await asyncio.shield(self._creation)
        finally:
            if self._creation.done():
                self._creation = None

    async def _row(self) -> Row | None:
        """Return the GCS's row of the actor; None without an answer, for example while the head is away."""
        row = await row_of(self.handle, self._runtime, name=self._name)
        if row is not None and row.state == "ALIVE" and row.node_id is not None:
            self.place = row.node_id
        return row

    def _missed_by_task(self, task_type: str, *, is_dead: bool = True, may_have_run: bool) -> None:
        """Record that a task found no process: the state must not improve until the process has answered again."""
        if self._process.missed_by_task(task_type, is_dead=is_dead, may_have_run=may_have_run):
            # An answer that is being received may have been sent before.
            self._is_doubted = True
            if self._asking is not None:
                self._asking.cancel()
            self._tell()

    def _begin_to_end(self, handle: Any, *, gently: bool) -> asyncio.Task[Any]:
        """End an actor for good, even if the replica is stopped meanwhile."""
        name, drain_s = self._name, self.spec.drain_timeout_s
        task: asyncio.Task[Any] = asyncio.create_task(
            retire(handle, self._runtime, name=name, drain_timeout_s=drain_s)
            if gently
            else kill(handle, self._runtime, name=name, restart=False)
        )
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task

    def _tell(self) -> None:
        before, self._told = self._told, (self.state, self.error)
        if before != self._told:
            level, detail = (logging.WARNING, f" ({self.error})") if self.error else (logging.INFO, "")
            logger.log(level, "organ %s: %s -> %s%s", self._name, before[0], self.state, detail)
        self._on_change()


def _ask(sent: Any) -> asyncio.Task[dict[str, Any]]:
    """Wait for a call in the background; do not log an error that nobody waits for any more."""
    task = asyncio.ensure_future(result(sent))
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


def _now() -> float:
    return asyncio.get_running_loop().time()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {describe(error)}".splitlines()[0]
