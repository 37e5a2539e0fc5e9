"""One replica of an organ: a plain class that ``actor.py`` turns into a Ray actor.

It carries its whole spec, so that after a crash Ray restarts it and it builds its agents again by itself. It never
blocks its loop: user code that is sync runs in threads, and ``watch`` (which the Coordinator keeps asking) runs on the
same loop as the async agents, so that an agent that blocks the loop shows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray

from seedcore.organism.agent import AgentRunner, AgentState
from seedcore.organism.fence import Raised
from seedcore.organism.guard import end_process_with_this_loop
from seedcore.organism.loading import check_agent, load_agent
from seedcore.spec import OrganSpec
from seedcore.task import Task, failure

logger = logging.getLogger(__name__)

MAX_THREADS = 64
START_CONCURRENCY = 64
MAX_REPORTED_FAILURES = 20
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
        self._slots: deque[AgentRunner] = deque()
        self._waiters: deque[asyncio.Future[AgentRunner]] = deque()
        self._in_flight = 0
        self._stuck = 0
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

    async def execute(self, task: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Do one task on the agent with the most room; always answers in the documented shape."""
        started = time.monotonic()
        work = Task(**task)
        if not self._slots and len(self._waiters) >= self._spec.queue_limit:
            return self._failed(
                work, "OverloadedError", f"{len(self._waiters)} tasks are waiting already", retry_after_s=1.0
            )
        self._in_flight += 1
        try:
            agent = await self._acquire(timeout_s)
            if agent is None:
                return self._failed(work, "TimeoutError", f"no agent was free within {timeout_s:g} s")
            remaining = max(0.0, timeout_s - (time.monotonic() - started))
            outcome = await self._run(agent, work, remaining)
        finally:
            self._in_flight -= 1
        if outcome is _LATE:
            return self._failed(work, "TimeoutError", f"no answer within {timeout_s:g} s", agent_id=agent.agent_id)
        if isinstance(outcome, Raised):
            logger.warning(
                "task failed: organ=%s agent=%s type=%s error=%s: %s",
                self._spec.id,
                agent.agent_id,
                work.type,
                outcome.error_type,
                outcome.error,
            )
            return self._failed(work, outcome.error_type, outcome.error, agent_id=agent.agent_id)
        if isinstance(outcome, Mapping) and outcome.get("success") is False:
            # `success` is that of the work itself: an agent that says it failed has failed.
            reason = outcome.get("error")
            return self._failed(
                work,
                str(outcome.get("error_type") or "AgentReportedError"),
                str(reason) if reason else "the agent reported a failure",
                agent_id=agent.agent_id,
                result=outcome,
            )
        return {
            "success": True,
            "result": outcome,
            "organ_id": self._spec.id,
            "agent_id": agent.agent_id,
            "task_type": work.type,
            "duration_s": round(time.monotonic() - started, 6),
        }

    async def canary(self, nonce: str) -> dict[str, Any]:
        """Send a nonce back from this process."""
        return {"nonce": nonce, "organ_id": self._spec.id, "replica": self._replica, "pid": os.getpid()}

    async def stop(self) -> bool:
        """Stop the agents; the process is ended by whoever called."""
        self._stopping = True
        self._life.cancel()
        await asyncio.gather(*(agent.stop() for agent in self._agents), return_exceptions=True)
        self._bump()
        return True

    async def _live(self) -> None:
        """Load and start the agents, then look after them until the process ends."""
        try:
            target = await asyncio.get_running_loop().run_in_executor(self._start_executor, _load_fenced, self._spec)
            if isinstance(target, Raised):
                self._load_failure = target
                self._bump()
                return
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

    async def _start_agent(self, agent: AgentRunner, gate: asyncio.Semaphore) -> None:
        async with gate:
            ready = await agent.start(timeout_s=self._spec.start_timeout_s)
        if ready:
            for _ in range(self._spec.max_concurrency):
                self._release(agent)
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
                self._slots = deque(slot for slot in self._slots if slot is not agent)
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

    async def _acquire(self, timeout_s: float) -> AgentRunner | None:
        while self._slots:
            agent = self._slots.popleft()
            if agent.state is AgentState.READY:
                return agent
        waiter: asyncio.Future[AgentRunner] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiter.done() and not waiter.cancelled():
                # The slot was handed over in the same turn of the loop: pass it on.
                self._release(waiter.result())
            else:
                self._waiters.remove(waiter)
            if isinstance(error, TimeoutError):
                return None
            raise

    def _release(self, agent: AgentRunner) -> None:
        if agent.state is not AgentState.READY:
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(agent)
                return
        self._slots.append(agent)

    async def _run(self, agent: AgentRunner, task: Task, timeout_s: float) -> Any:
        """Run user code with a deadline that holds even if the code ignores its cancellation.

        The agent's slot is given back when the code has really ended, so that its bound is true.
        """
        work = asyncio.ensure_future(agent.execute(task))
        work.add_done_callback(lambda _: self._release(agent))
        try:
            done, _ = await asyncio.wait({work}, timeout=timeout_s)
        except asyncio.CancelledError:
            work.cancel()
            raise
        if done:
            return Raised("cancelled", "CancelledError", "") if work.cancelled() else work.result()
        work.cancel()
        self._stuck += 1
        self._bump()
        work.add_done_callback(lambda _: self._unstick())
        return _LATE

    def _unstick(self) -> None:
        self._stuck -= 1
        self._bump()

    def _bump(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _failed(self, task: Task, error_type: str, error: str, **extra: Any) -> dict[str, Any]:
        return failure(error, error_type=error_type, task_type=task.type, organ_id=self._spec.id, **extra)

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
            "settled": settled,
            "failed": failed,
            "in_flight": self._in_flight,
            "queued": len(self._waiters),
            "stuck": self._stuck,
            "slots": states.count(AgentState.READY) * self._spec.max_concurrency,
            "stopping": self._stopping,
        }


_LATE = object()


def _load_fenced(spec: OrganSpec) -> Any | Raised:
    try:
        target = load_agent(spec.agent)
        problem = check_agent(target, spec.options)
    except BaseException as error:
        # Importing a user's module runs user code.
        return Raised.of(error)
    return target if problem is None else Raised(f"{spec.agent}: {problem}", "AgentStartError", "")
