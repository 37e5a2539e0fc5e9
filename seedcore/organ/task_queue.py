"""The task queue of an organ's process: it assigns tasks to agents and enforces deadlines and limits.

Everything here runs on the organ's loop. A task costs one asyncio task, needed to cancel its user code, and each call
one timer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from seedcore.core.errors import Executed
from seedcore.core.organ_snapshot import SEND_BACK
from seedcore.core.spec import OrganSpec
from seedcore.core.task import Task, failure, task_type_of
from seedcore.core.task_counters import TaskCounts
from seedcore.organ.agent import AgentRunner
from seedcore.organ.seats import Seat, Seats
from seedcore.organ.stream import Emit
from seedcore.organ.user_code import Raised

logger = logging.getLogger(__name__)

# Code that still runs this long after its cancellation counts as stuck.
STUCK_AFTER_S = 1.0
# Retry hint before the duration of tasks is known, and limits of the hint after that.
RETRY_AFTER_S = 1.0
# Retry hint for a task that another organ will soon accept.
ELSEWHERE_AFTER_S = 0.1
_MIN_RETRY_AFTER_S = 0.05
_MAX_RETRY_AFTER_S = 60.0


class Deadlines:
    """The deadlines of tasks that have come together: one timer for all of them, which costs less than one for each.

    Args:
        loop: The organ's loop.
    """

    __slots__ = ("_loop", "_open", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: dict[Work, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, work: Work, limit_s: float) -> None:
        """Call ``work.late`` in ``limit_s`` seconds."""
        when = self._loop.time() + limit_s
        self._open[work] = when
        if self._timer is None or when < self._timer.when():
            self._set_timer(when)

    def discard(self, work: Work) -> None:
        """Forget a task that is answered or cancelled."""
        self._open.pop(work, None)
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for work in [work for work, when in self._open.items() if when <= now]:
            if self._open.pop(work, None) is not None:
                work.late()
        if self._open:
            self._set_timer(min(self._open.values()))


class Work:
    """One task in the organ; ``done`` is called exactly once with its answer, unless it is cancelled.

    The deadline holds even if the user's code ignores its cancellation: the task is answered at its deadline, but its
    slot is released only when the code has really ended, so that the limit on concurrency holds.
    """

    __slots__ = (
        "_began",
        "_deadlines",
        "_direct",
        "_done",
        "_emit",
        "_is_stuck",
        "_limit_s",
        "_patience",
        "_queue",
        "_running",
        "_seat",
        "_started",
        "agent",
        "task",
    )

    def __init__(
        self,
        queue: WorkQueue,
        task: Task,
        limit_s: float,
        done: Callable[[dict[str, Any]], None],
        emit: Emit | None,
        *,
        direct: bool,
        deadlines: Deadlines,
    ) -> None:
        self.task = task
        self._direct = direct
        self._emit = emit
        self._queue = queue
        self._limit_s = limit_s
        self._done: Callable[[dict[str, Any]], None] | None = done
        self.agent: AgentRunner | None = None
        self._seat: Seat | None = None
        self._running: asyncio.Task[Any] | None = None
        self._is_stuck = False
        self._patience: asyncio.TimerHandle | None = None
        self._started = self._began = time.monotonic()
        self._deadlines = deadlines
        deadlines.add(self, limit_s)

    def start(self, seat: Seat, agent: AgentRunner) -> None:
        """Let an agent execute it."""
        self._seat, self.agent = seat, agent
        self._began = time.monotonic()
        self._running = self._queue.loop.create_task(agent.execute(self.task, self._emit))
        self._running.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel it, because nobody waits for its answer any more."""
        if self._done is not None:
            self._done = None
            self._deadlines.discard(self)
            self._abandon()
            self._queue.leave(self)

    def abort(self, text: str, *, error_type: str = "OrganUnavailableError") -> None:
        """Answer a running task and cancel it, because its process is about to end."""
        if self._done is None or self.agent is None:
            return
        self._abandon()
        self._fail(error_type, text, "unknown")

    def withdraw(self, text: str) -> None:
        """End it, because its sender does not want it any more."""
        if self._seat is None and self._done is not None:
            self._abandon()
            self.refuse("CancelledError", text)
        else:
            self.abort(text, error_type="CancelledError")

    def refuse(self, error_type: str, error: str, **extra: Any) -> None:
        """Answer without executing it."""
        self._fail(error_type, error, "no", **extra)

    def late(self) -> None:
        """Answer it at its deadline, and cancel its code."""
        limit = f"{self._limit_s:g} s"
        self._abandon()
        if self._seat is None:
            why = "the organ was paused for" if self._queue.is_held else "no agent was free within"
            self.refuse("TimeoutError", f"{why} {limit}")
            return
        self._queue.note_pace(time.monotonic() - self._began)
        self._fail("TimeoutError", f"no answer within {limit}", "unknown")

    def _abandon(self) -> None:
        if self._running is None:
            self._queue.forget(self)
        else:
            # Most code ends within the next turns of the loop; a process must not be replaced for that.
            self._patience = self._queue.loop.call_later(STUCK_AFTER_S, self._call_stuck)
            self._running.cancel()

    def _call_stuck(self) -> None:
        if self._seat is not None:
            self._is_stuck = True
            self._queue.mark_stuck(self._seat, 1)

    def _ended(self, running: asyncio.Task[Any]) -> None:
        if self._seat is None or self.agent is None:
            return
        if self._done is None:
            if self._patience is not None:
                self._patience.cancel()
            if self._is_stuck:
                self._queue.mark_stuck(self._seat, -1)
            if not running.cancelled():
                running.exception()  # retrieve it, or asyncio complains
        elif running.cancelled():
            self._finish(Raised("cancelled", "CancelledError", ""), self.agent)
        else:
            error = running.exception()
            self._finish(running.result() if error is None else Raised.of(error), self.agent)
        self._queue.give_back(self._seat, self.agent)

    def _finish(self, outcome: Any, agent: AgentRunner) -> None:
        self._queue.note_pace(time.monotonic() - self._began)
        if isinstance(outcome, Raised):
            logger.warning(
                "task failed: id=%s organ=%s agent=%s type=%s error=%s: %s",
                self.task.id,
                self._queue.spec.id,
                agent.agent_id,
                self.task.type,
                outcome.error_type,
                outcome.error,
            )
            self._fail(outcome.error_type, outcome.error, "yes")
        elif isinstance(outcome, Mapping) and outcome.get("success") is False:
            # An agent that returns `success: false` has failed.
            reason = outcome.get("error")
            text = str(reason) if reason else "the agent reported a failure"
            self._fail(str(outcome.get("error_type") or "AgentReportedError"), text, "yes", result=outcome)
        else:
            self._answer(
                {
                    "success": True,
                    "result": outcome,
                    "organ_id": self._queue.spec.id,
                    "agent_id": agent.agent_id,
                    "task_type": self.task.type,
                    "duration_s": round(time.monotonic() - self._started, 6),
                }
            )

    def _fail(self, error_type: str, error: str, executed: Executed, **extra: Any) -> None:
        if self.agent is not None:
            extra["agent_id"] = self.agent.agent_id
        self._answer(self._queue.failed(self.task, error_type, error, executed=executed, **extra))

    def _answer(self, answer: dict[str, Any]) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._deadlines.discard(self)
            self._queue.leave(self)
            seconds = time.monotonic() - self._started
            self._queue.count(self.task, answer, seconds, direct=self._direct)
            logger.debug(
                "task answered: id=%s organ=%s agent=%s type=%s success=%s seconds=%.3f",
                self.task.id, self._queue.spec.id, answer.get("agent_id"), self.task.type, answer["success"], seconds,
            )  # fmt: skip
            done(answer)


class WorkQueue:
    """Accept an organ's tasks and assign them to its agents, within the organ's limits.

    Args:
        spec: The organ; ``max_concurrency`` and ``queue_limit`` are its limits.
        on_change: Called when code has become stuck, or has ended after that.
        before_start: Called before a waiting task is started; it may send back the waiting tasks.

    Attributes:
        in_flight: Tasks that are accepted and not yet answered.
        stuck: Tasks that were answered at their deadline, or cancelled, and whose code still runs STUCK_AFTER_S later.
        seats: The agents that can take tasks.
        counts: Counts of answered tasks.
        is_held: Whether no task begins, because the organ is paused; tasks wait in the queue.
    """

    def __init__(
        self, spec: OrganSpec, *, on_change: Callable[[], None], before_start: Callable[[], None] = lambda: None
    ) -> None:
        self.spec = spec
        self._before_start = before_start
        self.loop = asyncio.get_running_loop()
        self.in_flight = 0
        self.stuck = 0
        self.counts = TaskCounts()
        self._known_types = spec.all_task_types()
        self._stopping = f"organ {spec.id} is being stopped"
        self._closed = self.is_held = False
        self._idle = asyncio.Event()
        self._active: set[Work] = set()
        # Moving average of the duration of a task in seconds.
        self._mean_s: float | None = None
        self._on_change = on_change
        self.seats = Seats(spec.max_concurrency)
        # An ordered dict and not a deque, because a task that leaves at its deadline may be anywhere in it.
        self._waiting: OrderedDict[Work, None] = OrderedDict()

    @property
    def queued(self) -> int:
        """Return the number of tasks that wait for an agent."""
        return len(self._waiting)

    def submit(
        self,
        raw: Mapping[str, Any],
        limit_s: float,
        done: Callable[[dict[str, Any]], None],
        *,
        emit: Emit | None = None,
        direct: bool = False,
        deadlines: Deadlines | None = None,
    ) -> Work | None:
        """Accept one task with ``limit_s`` seconds from now; ``done`` gets its answer in the documented shape.

        Args:
            raw: ``Task.to_dict()``.
            limit_s: Time limit in seconds.
            done: Called once.
            emit: Gets each item of an agent that is a generator, before ``done``.
            direct: Whether a client sends it; its type must then be one of the organ's, because its routes may be
                stale.
            deadlines: The deadlines of the tasks that arrived with it.

        Returns:
            The work, or None if its shape or its type was refused (``done`` has been called).
        """
        try:
            task = Task(**raw)
        except Exception as error:
            # A caller with an invalid task must get an answer and not a traceback of Ray.
            done(failure(error, task_type=task_type_of(raw), executed="no", organ_id=self.spec.id))
            return None
        if direct and not self._takes(task):
            text = f"organ {self.spec.id} does not accept task type {task.type!r} in {task.domain or 'no'} domain"
            done(self.failed(task, "UnknownTaskTypeError", text, retry_after_s=ELSEWHERE_AFTER_S))
            return None
        work = Work(self, task, limit_s, done, emit, direct=direct, deadlines=deadlines or Deadlines(self.loop))
        self.in_flight += 1
        self._active.add(work)
        seat = None if self._waiting or self._closed or self.is_held else self.seats.take()
        if seat is not None:
            work.start(*seat)
        elif self._closed:
            work.refuse("OrganUnavailableError", self._stopping, retry_after_s=ELSEWHERE_AFTER_S)
        elif len(self._waiting) >= self.spec.queue_limit:
            text = f"{len(self._waiting)} tasks are already waiting"
            work.refuse("OverloadedError", text, retry_after_s=self._retry_after_s())
        else:
            self._waiting[work] = None
        return work

    def hold(self, boot: str, how: bool | str, *, own_boot: str) -> dict[str, Any]:  # noqa: FBT001 - as it was sent
        """Begin no task until further notice (True), or begin those that wait (False); ignore another process's order.

        With ``send_back``, also refuse those that wait, because the Coordinator that waits for them is about to end.
        """
        if boot == own_boot:
            self.is_held = bool(how)
            if how == SEND_BACK:
                self.send_back(f"organ {self.spec.id} is paused, and the Coordinator is being replaced")
            self._serve()
        return {"boot": own_boot, "held": self.is_held}

    def open(self, agent: AgentRunner) -> None:
        """Add an agent."""
        self.seats.add(agent)
        self._serve()

    def close(self, agent: AgentRunner) -> None:
        """Give no more tasks to an agent."""
        self.seats.remove(agent)

    async def drain(self, timeout_s: float) -> None:
        """Accept no more tasks and let those in flight end; cancel those that have not ended in time."""
        self._closed = True
        if self.is_held:
            # They would wait for nothing; the process that replaces this one takes them.
            self.send_back(self._stopping)
        if self.in_flight:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()
            except TimeoutError:
                logger.warning("organ %s stops with %d tasks that have not ended", self.spec.id, self.in_flight)
        self.close_all()
        for work in list(self._active):
            work.abort(f"organ {self.spec.id} was stopped before the task had ended")

    def close_all(self) -> None:
        """Accept no more tasks, and refuse those that wait with ``executed: no``."""
        self._closed = True
        self.send_back(self._stopping)

    def send_back(self, why: str) -> None:
        """Refuse the waiting tasks with ``executed: no``."""
        while self._waiting:
            work, _ = self._waiting.popitem(last=False)
            work.refuse("OrganUnavailableError", why, retry_after_s=ELSEWHERE_AFTER_S)

    def give_back(self, seat: Seat, agent: AgentRunner) -> None:
        """Record that a task has really ended and release its slot."""
        self.seats.give_back(seat, agent)
        self._serve()

    async def prove(self) -> str | None:
        """Take the path of a task to the thread of an agent; return why that is impossible, or None.

        If all agents are busy, one that is not stuck is enough.
        """
        if self._closed:
            return self._stopping
        if not self.seats.able:
            return "no agent can take a task"
        taken = self.seats.take()
        if taken is not None:
            try:
                await taken[1].prove()
            finally:
                self.give_back(*taken)
        return None

    def forget(self, work: Work) -> None:
        """Remove a task from the queue."""
        self._waiting.pop(work, None)

    def leave(self, work: Work) -> None:
        """Record that a task is answered or cancelled."""
        self._active.discard(work)
        self.in_flight -= 1
        if self._closed and not self.in_flight:
            self._idle.set()

    def count(self, task: Task, answer: Mapping[str, Any], seconds: float, *, direct: bool) -> None:
        """Count one answer."""
        self.counts.add(task.type, answer, seconds, known=self._known_types, direct=direct)

    def note_pace(self, seconds: float) -> None:
        """Record the duration of a task."""
        self._mean_s = seconds if self._mean_s is None else self._mean_s + (seconds - self._mean_s) / 16

    def mark_stuck(self, seat: Seat, change: int) -> None:
        """Record that user code runs past its task's deadline, or has ended after it."""
        self.stuck += change
        self.seats.mark_stuck(seat, change)
        self._on_change()

    def failed(self, task: Task, error_type: str, error: str, **extra: Any) -> dict[str, Any]:
        """Return the answer of a failed task of this organ."""
        return failure(error, error_type=error_type, task_type=task.type, organ_id=self.spec.id, **extra)

    def _retry_after_s(self) -> float:
        """Return the seconds until about half of the waiting tasks will have started."""
        if self._mean_s is None:
            return RETRY_AFTER_S
        turns = self._mean_s * (len(self._waiting) + 1) / (2 * max(1, self.seats.count))
        return round(min(_MAX_RETRY_AFTER_S, max(_MIN_RETRY_AFTER_S, turns)), 3)

    def _takes(self, task: Task) -> bool:
        if task.type in self.spec.task_types:
            return True
        return task.domain is not None and task.type in self.spec.domains.get(task.domain, ())

    def _serve(self) -> None:
        if self._waiting:
            self._before_start()
        while self._waiting and not self.is_held:
            seat = self.seats.take()
            if seat is None:
                return
            work, _ = self._waiting.popitem(last=False)
            work.start(*seat)
