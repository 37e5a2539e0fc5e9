"""One replica of an organ: a plain class that ``actors.py`` turns into a Ray actor.

It carries its whole spec, so that it can rebuild its agents after Ray has restarted it. It never blocks its event loop:
sync user code runs in threads. ``watch``, which the Coordinator calls all the time, runs on the same loop as the async
agents, so an agent that blocks the loop is detected.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import ray

from seedcore.core import logs
from seedcore.core.backoff import Backoff
from seedcore.core.memory import resident_bytes
from seedcore.core.organ_snapshot import AgentFailure, AgentState, Snapshot
from seedcore.core.spec import OrganSpec
from seedcore.core.task import failure, task_type_of
from seedcore.core.watchdog import end_process_with_this_loop
from seedcore.dispatch.sender import settle
from seedcore.organ.agent import AgentRunner, Kind
from seedcore.organ.batch import Batch, Batches
from seedcore.organ.children import guard_children
from seedcore.organ.durable import DurableTasks
from seedcore.organ.lease import Lease
from seedcore.organ.seats import Seat
from seedcore.organ.self_check import is_current
from seedcore.organ.task_queue import ELSEWHERE_AFTER_S, Deadlines, WorkQueue
from seedcore.organ.threads import MAX_THREADS, AgentThreads
from seedcore.organ.user_code import Raised, load_fenced

logger = logging.getLogger(__name__)

START_CONCURRENCY = 64
HEALTH_CONCURRENCY = 64
# Agents to create in one turn of the loop; ten thousand would block it for half a second.
AGENTS_AT_ONCE = 100
MAX_REPORTED_FAILURES = 20
_LAST_ANSWERS_S = 0.05
_LAST_BATCHES_S = 2.0
# Items of a stream that may wait in this process before the generator pauses.
_STREAM_BUFFER = 16
_END = object()
_T = TypeVar("_T")
RESTART_BACKOFF = Backoff((1.0, 2.0, 5.0, 10.0, 30.0, 60.0))


class Organ:
    """The agents of one organ in one process.

    Args:
        spec: ``OrganSpec.to_dict()``.
        replica: Index of the replica, from 0.
        identity: Digest of spec and release; the Coordinator adopts only an organ with the same identity.
    """

    async def __init__(  # type: ignore[misc]  # an async __init__ is Ray's idea
        self, spec: Mapping[str, Any], replica: int, identity: str
    ) -> None:
        end_process_with_this_loop()
        logs.protect_default()
        if ray.is_initialized():
            logs.configure_library()
            logs.configure_agents()
        self._spec = OrganSpec.from_dict(spec)
        self._replica = replica
        self._identity = identity
        self._boot = uuid.uuid4().hex[:12]
        self._node_id = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
        self._version = 0
        self._changed = asyncio.Event()
        self._agent_ids = self._spec.agent_ids(replica)
        # A separate pool: tasks must not block starts and health checks.
        self._care = ThreadPoolExecutor(min(len(self._agent_ids) + 1, MAX_THREADS), thread_name_prefix="care")
        self._agents: list[AgentRunner] = []
        self._load_failure: Raised | None = None
        self._states: Counter[AgentState] = Counter()
        # Agents with a failure, and those of them that cannot be retried while their old code still runs.
        self._failing: dict[AgentRunner, None] = {}
        self._held: set[AgentRunner] = set()
        self._first_round_over = False
        # Outside of Ray there is no Coordinator and no second process.
        lease_s = self._spec.lease_s if self._is_supervised() else math.inf
        self._lease = Lease(self._boot, lease_s, self._now())
        # A separate thread: while the head is away its answer may take for ever.
        self._head = ThreadPoolExecutor(1, thread_name_prefix="head")
        self._asked_head: asyncio.Future[bool | None] | None = None
        self._work = WorkQueue(self._spec, on_change=self._bump, before_start=self._check_lease)
        self._durable = DurableTasks(self._boot, self._work)
        self._batches = Batches()
        self._background: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._life = asyncio.create_task(self._live())
        self._life.add_done_callback(self._go_on)
        if math.isfinite(lease_s):
            self._keep_lease()

    async def watch(self, boot: str, version: int, max_wait_s: float) -> dict[str, Any]:
        """Return the snapshot once it is newer than (boot, version), or after ``max_wait_s`` seconds.

        Only the process's own Coordinator calls it, so each call confirms the lease.
        """
        self._check_lease()
        now = self._now()
        self._lease.confirm(now, now)
        if boot == self._boot and version == self._version:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max_wait_s):
                    await self._changed.wait()
        return self.snapshot().to_dict()

    async def execute(
        self, task: Mapping[str, Any], timeout_s: float, *, direct: bool = False, epoch: str | None = None
    ) -> dict[str, Any]:
        """Execute one task on the agent with the fewest tasks; always answer in the documented shape.

        Args:
            task: ``Task.to_dict()``.
            timeout_s: Time limit in seconds from now, waiting included.
            direct: Whether it comes from a client and not from the Coordinator; its type must then be one of the
                organ's, because the client's routes may be stale.
            epoch: The last epoch that the sender knows (:class:`Lease`); None if it has none.
        """
        if not self._admits(epoch):
            return self._refusal(task)
        answer: asyncio.Future[dict[str, Any]] = self._work.loop.create_future()
        work = self._work.submit(task, timeout_s, settle(answer), direct=direct)
        try:
            return await answer
        finally:
            if work is not None:
                work.cancel()  # does nothing if it has been answered

    async def call(self, order: tuple[Any, ...]) -> dict[str, Any]:
        """Execute a call of a lane: the arguments of :meth:`execute` in one, because Ray packs each separately.

        Args:
            order: ``task, timeout_s, direct``, and ``epoch`` from senders that know it; or a question of the
                Coordinator about durable tasks, see :meth:`DurableTasks.serve`; or ``"hold", 0, boot, [], how``, see
                :meth:`WorkQueue.hold`. They are not separate methods, because an older release could not call an
                actor whose class has methods that it does not know.
        """
        if order[0] == "hold":
            return self._work.hold(order[2], order[4], own_boot=self._boot)
        if isinstance(order[0], str):
            return await self._durable.serve(order)
        task, timeout_s, direct, *epoch = order
        if "ticket" in task and self._admits(epoch[0] if epoch else None):
            # It goes on if its caller goes away: the next Coordinator asks for its answer.
            answer: asyncio.Future[dict[str, Any]] = self._work.loop.create_future()
            self._durable.submit(task, timeout_s, settle(answer))
            return await answer
        return await self.execute(task, timeout_s, direct=direct, epoch=epoch[0] if epoch else None)

    async def call_many(self, order: tuple[Any, ...]) -> dict[str, Any]:
        """Execute many tasks like :meth:`execute`; slow tasks do not delay quick ones.

        Args:
            order: ``tasks, timeouts_s, max_wait_s, direct``, and ``epoch`` from senders that know it.

        Returns:
            ``answers``: pairs (place in ``tasks``, answer) of ended tasks; ``rest``: None, or the number with which
            :meth:`collect` returns more. It returns as soon as there is an answer, or after ``max_wait_s``.
        """
        tasks, timeouts_s, max_wait_s, direct, *epoch = order
        batch, deadlines = Batch(len(tasks)), Deadlines(self._work.loop)
        is_admitted = self._admits(epoch[0] if epoch else None)
        for index, (task, timeout_s) in enumerate(zip(tasks, timeouts_s, strict=True)):
            if not is_admitted:
                batch.add(index, self._refusal(task))
                continue
            if "ticket" in task:
                self._durable.submit(task, timeout_s, partial(batch.add, index), deadlines)
                continue
            self._work.submit(task, timeout_s, partial(batch.add, index), direct=direct, deadlines=deadlines)
        return await self._batches.reply(batch, max_wait_s, lifetime_s=max(timeouts_s, default=0.0))

    async def collect(self, number: int, max_wait_s: float) -> dict[str, Any]:
        """Return more answers of :meth:`call_many`; ``lost`` is set if they are gone."""
        return await self._batches.collect(number, max_wait_s)

    async def stream(
        self, task: Mapping[str, Any], timeout_s: float, epoch: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Execute one task; yield ``{"item": ...}`` for each item, and at last the answer.

        The answer has the documented shape; ``result`` is the number of items if the agent is a generator. If the
        caller goes away, only the deadline or ``ray.cancel`` ends the task.
        """
        if not self._admits(epoch):
            yield self._refusal(task)
            return
        items: asyncio.Queue[Any] = asyncio.Queue(_STREAM_BUFFER)
        answer: asyncio.Future[dict[str, Any]] = self._work.loop.create_future()
        work = self._work.submit(task, timeout_s, settle(answer), emit=items.put)
        answer.add_done_callback(lambda _: items.put_nowait(_END) if not items.full() else None)
        try:
            while not (answer.done() and items.empty()):
                item = await items.get()
                if item is not _END:
                    yield {"item": item}
            yield answer.result()
        finally:
            if work is not None:
                work.cancel()

    async def canary(self, nonce: str) -> dict[str, Any]:
        """Return a nonce that has taken the path of a task, through the queue and an agent's thread.

        Returns:
            ``nonce, organ_id, replica, pid``, ``memory`` in bytes, and ``error`` if no agent can take a task.
        """
        error = await self._work.prove()
        own = {"organ_id": self._spec.id, "replica": self._replica, "pid": os.getpid(), "memory": resident_bytes()}
        answer = {"nonce": nonce, **own}
        return answer if error is None else {**answer, "error": error}

    async def stop(self) -> list[dict[str, Any]]:
        """Accept no more tasks, let those in flight end, and stop the agents; the caller ends the process.

        Tasks that have not ended after ``drain_timeout_s`` are cancelled and get an error as their answer.

        Returns:
            All tasks that the process has counted, as :meth:`TaskCounts.to_list` does.
        """
        self._stopping = True
        self._bump()
        for task in (self._life, *self._background):
            task.cancel()
        await self._work.drain(self._spec.drain_timeout_s)
        await asyncio.gather(*(agent.stop() for agent in self._agents), return_exceptions=True)
        # The last answers are still being sent, and the caller of this method kills the process.
        await self._batches.drain(_LAST_BATCHES_S)
        await asyncio.sleep(_LAST_ANSWERS_S)
        return self._work.counts.to_list()

    @staticmethod
    def _is_supervised() -> bool:
        """Return whether a Coordinator and Ray's head may replace this process."""
        return ray.is_initialized()

    @staticmethod
    def _now() -> float:
        # The only clock that goes on while a host is suspended.
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def _admits(self, epoch: str | None) -> bool:
        self._check_lease()
        return self._lease.admits(epoch)

    def _refusal(self, task: Any) -> dict[str, Any]:
        return failure(
            f"organ {self._spec.id}: its process has lost contact with the Coordinator, or had when the task was sent",
            error_type="OrganUnavailableError",
            task_type=task_type_of(task),
            executed="no",
            organ_id=self._spec.id,
            retry_after_s=ELSEWHERE_AFTER_S,
        )

    def _check_lease(self) -> None:
        """Refuse tasks if the last confirmation of this process is too old."""
        now = self._now()
        silent_s = self._lease.age_s(now)
        if self._lease.lapses(now):
            text = "the Coordinator has been silent for %.1f s, the lease has expired: refusing tasks"
            logger.warning(text, silent_s)
            self._work.send_back(f"the process of organ {self._spec.id} has lost contact with the Coordinator")
            self._bump()

    def _keep_lease(self) -> None:
        """Ask Ray's head if the Coordinator does not ask: it may be away, or have given up this process.

        It uses timers of the loop and not a task, because an agent may cancel all tasks.
        """
        self._check_lease()
        if self._asked_head is None and self._lease.age_s(self._now()) > self._spec.lease_s / 2:
            asked_at = self._now()
            self._asked_head = self._ask_head()
            self._asked_head.add_done_callback(lambda answer: self._head_answered(answer, asked_at))
        self._work.loop.call_later(self._spec.lease_s / 8, self._keep_lease)

    def _ask_head(self) -> asyncio.Future[bool | None]:
        return self._work.loop.run_in_executor(self._head, is_current)

    def _head_answered(self, answer: asyncio.Future[bool | None], asked_at: float) -> None:
        self._asked_head = None
        if answer.cancelled() or answer.exception() is not None or answer.result() is None:
            return
        if answer.result():
            self._check_lease()
            self._lease.confirm(asked_at, self._now())
        else:
            # This includes a process that is being stopped: the Coordinator that stopped it may have gone.
            logger.critical("another process has replaced this one, exiting")
            self._leave()

    @staticmethod
    def _leave() -> None:
        os._exit(1)

    async def _live(self) -> None:
        """Load and start the agents, then supervise them until the process ends."""
        try:
            if ray.is_initialized():
                await asyncio.get_running_loop().run_in_executor(self._care, guard_children)
            kind = Kind(await self._load(), self._spec.options, interrupt=self._spec.interrupt)
            threads = AgentThreads(len(self._agent_ids), self._spec.max_concurrency)
            pinned = kind.is_sync and threads.pinned
            # Excess tasks wait in the queue, where their deadlines apply, and not inside the thread pool.
            self._work.seats.limit = threads.size if kind.is_sync and not pinned else None
            for index, agent_id in enumerate(self._agent_ids):
                care = None if pinned else self._care
                agent = AgentRunner(agent_id, kind, executor=threads.of(index), care=care, counts=self._states)
                self._agents.append(agent)
                if index % AGENTS_AT_ONCE == 0:
                    await asyncio.sleep(0)
            await _each(self._agents, self._start_agent, at_a_time=START_CONCURRENCY)
            self._first_round_over = True
            self._bump()
            await self._keep_asking()
        except Exception:
            # Without this loop the organ would report a stale state for ever: exit, and Ray restarts it.
            logger.exception("organ %s cannot supervise its agents, ending its process", self._spec.id)
            os._exit(1)

    async def _keep_asking(self) -> None:
        while True:
            await asyncio.sleep(self._spec.health_interval_s)
            await self._check_all()

    def _go_on(self, life: asyncio.Task[None]) -> None:
        """Restart the supervision after its task was cancelled, because an agent may cancel all tasks of its loop."""
        if life.cancelled() and self._first_round_over and not self._stopping:
            logger.error("the organ's own task was cancelled, restarting it: an agent may have cancelled all tasks")
            self._life = asyncio.create_task(self._keep_asking())
            self._life.add_done_callback(self._go_on)
        elif not life.cancelled() and (error := life.exception()) is not None:
            logger.critical("organ %s cannot supervise its agents, ending its process", self._spec.id, exc_info=error)
            os._exit(1)

    async def _load(self) -> Any:
        """Import the agent, with retries, because somebody may fix it."""
        loop = asyncio.get_running_loop()
        for attempt in itertools.count():
            target = await loop.run_in_executor(self._care, load_fenced, self._spec)
            self._load_failure = target if isinstance(target, Raised) else None
            self._first_round_over = self._first_round_over or self._load_failure is not None
            if self._load_failure is None:
                return target
            self._bump()
            await asyncio.sleep(RESTART_BACKOFF.delay_s(attempt + 1))
        raise AssertionError  # the loop is endless

    async def _start_agent(self, agent: AgentRunner) -> None:
        if await agent.start(timeout_s=self._spec.start_timeout_s):
            self._failing.pop(agent, None)
            self._work.open(agent)
            self._bump()
        else:
            self._take_out(agent, "agent did not start")

    async def _check_all(self) -> None:
        """Check the health of every agent, those that share a thread one after the other."""
        places: dict[Hashable, list[AgentRunner]] = {}
        for agent in self._agents:
            if agent.state is AgentState.READY and agent.has_health:
                places.setdefault(agent.place, []).append(agent)

        async def check(agents: list[AgentRunner]) -> None:
            for agent in agents:
                await self._check(agent)

        await _each(places.values(), check, at_a_time=HEALTH_CONCURRENCY)

    async def _check(self, agent: AgentRunner) -> None:
        # An agent with its own thread could answer only after its task, which tells nothing about its health.
        seat = self._work.seats.reserve(agent) if agent.has_thread else None
        if agent.has_thread and seat is None:
            return
        unhealthy = await agent.check_health(timeout_s=self._spec.health_timeout_s)
        if unhealthy is not None and agent.state is AgentState.READY:
            agent.fail(unhealthy)
            self._take_out(agent, "agent is not healthy")
        if seat is None:
            return
        if agent.is_left_behind:
            self._spawn(self._release(seat, agent))
        else:
            self._work.give_back(seat, agent)

    def _take_out(self, agent: AgentRunner, what: str) -> None:
        """Give no more tasks to a failed agent, and retry it later."""
        self._work.close(agent)
        if agent.failure:
            error, error_type = agent.failure.error, agent.failure.error_type
            logger.error("%s: agent=%s error=%s: %s", what, agent.agent_id, error_type, error)
            self._failing[agent] = None
        self._spawn(self._heal(agent))
        self._bump()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _release(self, seat: Seat, agent: AgentRunner) -> None:
        """Release the slot of a health check when the check has really ended."""
        self._work.mark_stuck(seat, 1)
        await agent.ended(but=1)
        self._work.mark_stuck(seat, -1)
        self._work.give_back(seat, agent)

    async def _heal(self, agent: AgentRunner) -> None:
        """Restart an agent after a pause, and not before its old code has ended."""
        await asyncio.sleep(RESTART_BACKOFF.delay_s(agent.restarts + 1))
        agent.restarts += 1
        ended = asyncio.create_task(agent.ended())
        try:
            if not (await asyncio.wait({ended}, timeout=self._spec.start_timeout_s))[0]:
                self._held.add(agent)
                self._bump()
                await ended
        finally:
            ended.cancel()
            self._held.discard(agent)
        await agent.stop()
        await agent.ended()
        await self._start_agent(agent)

    def _bump(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def snapshot(self) -> Snapshot:
        """Return the state of the process; the cost does not depend on the number of agents."""
        states, work = self._states, self._work
        broken = self._load_failure
        failed = [_failure(self._agent_ids[0], broken)] if broken else []
        failing = itertools.islice(self._failing, MAX_REPORTED_FAILURES)
        failed += [_failure(agent.agent_id, agent.failure) for agent in failing if agent.failure is not None]
        untried = 0 if broken else len(self._agent_ids) - states.total()
        return Snapshot(
            boot=self._boot,
            version=self._version,
            identity=self._identity,
            pid=os.getpid(),
            node_id=self._node_id,
            agent_count=len(self._agent_ids),
            ready=states[AgentState.READY] - work.seats.stuck_agents,
            stuck=work.seats.stuck_agents + len(self._held),
            starting=states[AgentState.STARTING] + untried,
            first_round_over=self._first_round_over,
            stopping=self._stopping,
            failed=tuple(failed),
            in_flight=work.in_flight,
            queued=work.queued,
            epoch=self._lease.epoch,
            stuck_tasks=work.stuck,
            tasks=work.counts.to_list(),
        )


async def _each(items: Collection[_T], work: Callable[[_T], Awaitable[None]], *, at_a_time: int) -> None:
    """Call a function for each item, for several at a time."""
    rest = iter(items)

    async def take() -> None:
        for item in rest:
            await work(item)

    await asyncio.gather(*(take() for _ in range(min(len(items), at_a_time))))


def _failure(agent_id: str, raised: Raised) -> AgentFailure:
    return AgentFailure(
        agent_id=agent_id, error=raised.error, error_type=raised.error_type, traceback=raised.traceback_text
    )
