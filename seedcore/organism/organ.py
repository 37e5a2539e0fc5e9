"""One replica of an organ: a plain class that ``actor.py`` turns into a Ray actor.

It carries its whole spec, so that after a crash Ray restarts it and it builds its agents again by itself. It never
blocks its loop: user code that is sync runs in threads, and ``watch`` (which the Coordinator keeps asking) runs on the
same loop as the async agents, so that an agent that blocks the loop shows.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import ray

from seedcore.organism.agent import AgentRunner, AgentState
from seedcore.organism.batch import Batch, Batches
from seedcore.organism.fence import Raised
from seedcore.organism.guard import end_process_with_this_loop
from seedcore.organism.loading import check_agent, load_agent
from seedcore.organism.work import WorkQueue, settle
from seedcore.spec import OrganSpec

logger = logging.getLogger(__name__)

MAX_THREADS = 64
START_CONCURRENCY = 64
MAX_REPORTED_FAILURES = 20
_LAST_ANSWERS_S = 0.05
_LAST_BATCHES_S = 2.0
# Items of a stream that wait in this process; the generator pauses beyond that.
_STREAM_BUFFER = 16
_END = object()
RESTART_BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Organ:
    """Agents of one organ that live in one process.

    Args:
        spec: ``OrganSpec.to_dict()``.
        replica: Which replica this is, from 0.
        identity: Digest of spec and release; the Coordinator adopts a living organ only if it is the same.
    """

    async def __init__(  # type: ignore[misc]  # an async __init__ is Ray's idea
        self, spec: Mapping[str, Any], replica: int, identity: str
    ) -> None:
        end_process_with_this_loop()
        self._spec = OrganSpec.from_dict(spec)
        self._replica = replica
        self._identity = identity
        self._boot = uuid.uuid4().hex[:12]
        self._node_id = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
        self._version = 0
        self._changed = asyncio.Event()
        slots = len(self._spec.agent_ids(replica)) * self._spec.max_concurrency
        self._executor = ThreadPoolExecutor(max(1, min(slots, MAX_THREADS)), thread_name_prefix="agent")
        # A pool of its own: tasks that hang in the other one must not keep agents from starting.
        self._start_executor = ThreadPoolExecutor(8, thread_name_prefix="start")
        self._agents: list[AgentRunner] = []
        self._load_failure: Raised | None = None
        self._work = WorkQueue(self._spec, on_change=self._bump)
        self._batches = Batches()
        self._restarting: set[AgentRunner] = set()
        self._stopping = False
        self._life = asyncio.create_task(self._live())

    async def watch(self, boot: str, version: int, max_wait_s: float) -> dict[str, Any]:
        """Return the snapshot as soon as it is newer than (boot, version), or after ``max_wait_s`` seconds."""
        if boot == self._boot and version == self._version:
            changed = self._changed
            try:
                async with asyncio.timeout(max_wait_s):
                    await changed.wait()
            except TimeoutError:
                pass
        return self._snapshot()

    async def execute(self, task: Mapping[str, Any], timeout_s: float, *, direct: bool = False) -> dict[str, Any]:
        """Do one task on the agent with the least to do; always answers in the documented shape.

        Args:
            task: ``Task.to_dict()``.
            timeout_s: Seconds from now that it has, waiting included.
            direct: It comes from a client and not from the Coordinator: its type must be one of the organ's, for the
                client's routes may be old.
        """
        answer: asyncio.Future[dict[str, Any]] = self._work.loop.create_future()
        work = self._work.submit(task, timeout_s, settle(answer), direct=direct)
        try:
            return await answer
        finally:
            if work is not None:
                work.cancel()  # nothing, if it has been answered

    async def call(self, order: tuple[Mapping[str, Any], float, bool]) -> dict[str, Any]:
        """Do what a lane sends: the arguments of :meth:`execute` as one, for Ray packs each by itself."""
        task, timeout_s, direct = order
        return await self.execute(task, timeout_s, direct=direct)

    async def call_many(self, order: tuple[list[Mapping[str, Any]], list[float], float, bool]) -> dict[str, Any]:
        """Do many tasks, each as :meth:`execute` does; quick ones are not kept back by slow ones.

        Args:
            order: ``tasks, timeouts_s, max_wait_s, direct``.

        Returns:
            ``answers``: pairs (place in ``tasks``, answer) of those that have ended; ``rest``: None, or the number
            with which :meth:`collect` gives more. It comes as soon as there is an answer, or after ``max_wait_s``.
        """
        tasks, timeouts_s, max_wait_s, direct = order
        batch = Batch(len(tasks))
        for index, (task, timeout_s) in enumerate(zip(tasks, timeouts_s, strict=True)):
            self._work.submit(task, timeout_s, partial(batch.add, index), direct=direct)
        return await self._batches.reply(batch, max_wait_s, lifetime_s=max(timeouts_s, default=0.0))

    async def collect(self, number: int, max_wait_s: float) -> dict[str, Any]:
        """Return more answers of :meth:`call_many`; ``lost`` is there if it is too late for that."""
        return await self._batches.collect(number, max_wait_s)

    async def stream(self, task: Mapping[str, Any], timeout_s: float) -> AsyncIterator[dict[str, Any]]:
        """Do one task; yields ``{"item": ...}`` for each item as it comes, and at last the answer.

        The answer has the documented shape; ``result`` is the number of items if the agent is a generator. Nobody is
        told when the caller is gone: the deadline, or ``ray.cancel``, ends the task then.
        """
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
        """Send a nonce back from this process."""
        return {"nonce": nonce, "organ_id": self._spec.id, "replica": self._replica, "pid": os.getpid()}

    async def stop(self) -> bool:
        """Take no more tasks, let those that are here end, and stop the agents; the caller ends the process.

        What has not ended after ``drain_timeout_s`` is cancelled, and answered so.
        """
        self._stopping = True
        self._bump()
        self._life.cancel()
        await self._work.drain(self._spec.drain_timeout_s)
        await asyncio.gather(*(agent.stop() for agent in self._agents), return_exceptions=True)
        # The last answers are on their way to their callers; the caller of this one kills the process.
        await self._batches.drain(_LAST_BATCHES_S)
        await asyncio.sleep(_LAST_ANSWERS_S)
        return True

    async def _live(self) -> None:
        """Load and start the agents, then look after them until the process ends."""
        try:
            target = await self._load()
            self._agents = [
                AgentRunner(agent_id, target, options=self._spec.options, executor=self._executor)
                for agent_id in self._spec.agent_ids(self._replica)
            ]
            gate = asyncio.Semaphore(START_CONCURRENCY)
            await asyncio.gather(*(self._start_agent(agent, gate) for agent in self._agents))
            while True:
                await asyncio.sleep(self._spec.health_interval_s)
                await asyncio.gather(*(self._look_after(agent) for agent in self._agents))
        except Exception:
            # Without this loop the organ would claim for ever what was true once: end the process, Ray restarts it.
            logger.exception("organ %s cannot look after its agents, ending its process", self._spec.id)
            os._exit(1)

    async def _load(self) -> Any:
        """Import the agent; what does not load now may do so later, when somebody has mended it."""
        loop = asyncio.get_running_loop()
        for attempt in itertools.count():
            target = await loop.run_in_executor(self._start_executor, _load_fenced, self._spec)
            self._load_failure = target if isinstance(target, Raised) else None
            if self._load_failure is None:
                return target
            self._bump()
            await asyncio.sleep(RESTART_BACKOFF_S[min(attempt, len(RESTART_BACKOFF_S) - 1)])
        raise AssertionError  # it counts for ever

    async def _start_agent(self, agent: AgentRunner, gate: asyncio.Semaphore) -> None:
        async with gate:
            ready = await agent.start(timeout_s=self._spec.start_timeout_s)
        if ready:
            self._work.open(agent)
        elif agent.failure:
            logger.error(
                "agent did not start: agent=%s error=%s: %s",
                agent.agent_id,
                agent.failure.error_type,
                agent.failure.error,
            )
        self._bump()

    async def _look_after(self, agent: AgentRunner) -> None:
        if agent.state is AgentState.READY:
            unhealthy = await agent.check_health(timeout_s=self._spec.health_timeout_s)
            if unhealthy is not None and agent.state is AgentState.READY:
                agent.fail(unhealthy)
                self._work.close(agent)
                logger.error("agent is not healthy: agent=%s error=%s", agent.agent_id, unhealthy.error)
                self._bump()
        elif agent.state is AgentState.FAILED and agent not in self._restarting:
            self._restarting.add(agent)
            restart = asyncio.create_task(self._restart(agent))
            restart.add_done_callback(lambda _: self._restarting.discard(agent))

    async def _restart(self, agent: AgentRunner) -> None:
        await asyncio.sleep(RESTART_BACKOFF_S[min(agent.restarts, len(RESTART_BACKOFF_S) - 1)])
        agent.restarts += 1
        failure_before = agent.failure
        await agent.stop()
        agent.failure = failure_before
        await self._start_agent(agent, asyncio.Semaphore(1))

    def _bump(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _snapshot(self) -> dict[str, Any]:
        states = [agent.state for agent in self._agents]
        failed = [
            {
                "agent_id": agent.agent_id,
                "error": agent.failure.error,
                "error_type": agent.failure.error_type,
                "traceback": agent.failure.traceback_text,
            }
            for agent in self._agents
            if agent.failure is not None
        ][:MAX_REPORTED_FAILURES]
        count = len(self._spec.agent_ids(self._replica))
        if self._load_failure is not None:
            broken = self._load_failure
            failed = [
                {
                    "agent_id": agent_id,
                    "error": broken.error,
                    "error_type": broken.error_type,
                    "traceback": broken.traceback_text,
                }
                for agent_id in self._spec.agent_ids(self._replica)[:1]
            ]
        settled = self._load_failure is not None or (bool(self._agents) and AgentState.STARTING not in states)
        return {
            "boot": self._boot,
            "version": self._version,
            "identity": self._identity,
            "pid": os.getpid(),
            "node_id": self._node_id,
            "agent_count": count,
            "ready_agents": states.count(AgentState.READY),
            "agents": {str(state): states.count(state) for state in AgentState},
            "settled": settled,
            "failed": failed,
            "in_flight": self._work.in_flight,
            "queued": self._work.queued,
            "stuck": self._work.stuck,
            "slots": states.count(AgentState.READY) * self._spec.max_concurrency,
            "stopping": self._stopping,
            "tasks": self._work.counts.to_list(),
        }


def _load_fenced(spec: OrganSpec) -> Any | Raised:
    try:
        target = load_agent(spec.agent)
        problem = check_agent(target, spec.options)
    except BaseException as error:
        # Importing a user's module runs user code.
        return Raised.of(error)
    return target if problem is None else Raised(f"{spec.agent}: {problem}", "AgentStartError", "")
