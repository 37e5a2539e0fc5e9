"""Send tasks to one organ process. The Coordinator and every client have a lane to each replica.

The first task on an idle lane is sent at once. While a call is in flight, the lane collects the tasks of one turn of
the event loop and sends them as one call: a Ray call costs half a millisecond, a task in a batch a tenth of that.
Replies carry the answers that are ready, so a slow task does not delay the others of its batch.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, RayTaskError, WorkerCrashedError

from seedcore.core.errors import Executed, OrganUnavailableError
from seedcore.core.task import SENT_TOGETHER, SENT_TOGETHER_BYTES, describe, failure

logger = logging.getLogger(__name__)

# The organ enforces a task's deadline; this much later the sender stops waiting for the organ.
ANSWER_GRACE_S = 2.0
POLL_S = 10.0
RETRY_AFTER_S = 0.5

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_RESTARTING, _DEAD = 3, 4  # ActorTableData.ActorState
DEATHS = (ActorDiedError, ActorUnavailableError, WorkerCrashedError, NodeDiedError)
# Errors of gRPC if nothing listens, and of Ray while it restarts the process: the call has not arrived.
_NOT_SENT = ("Connection refused", "The actor is restarting")


class Call:
    """One task for a lane; the lane calls ``done`` exactly once with its answer.

    Args:
        task: ``Task.to_dict()``.
        timeout_s: Time limit for the organ, in seconds from now.
        size: Estimated size in bytes.
        done: Receives the answer in the documented shape.
    """

    __slots__ = ("deadline", "done", "size", "task", "timeout_s")

    def __init__(
        self, task: dict[str, Any], timeout_s: float, done: Callable[[dict[str, Any]], None], *, size: int = 0
    ) -> None:
        self.task = task
        self.timeout_s = timeout_s
        self.size = size
        self.done = done
        self.deadline = asyncio.get_running_loop().time() + timeout_s


class Lane:
    """Send tasks to one organ process.

    Args:
        organ_id: The organ, for answers.
        handle: Returns its actor, or None while there is none.
        direct: Whether the sender is a client and not the Coordinator.
        limit: Largest number of tasks in flight, more wait in the lane; None for no limit.
        on_miss: Called with the type of every task for which there is no process, or one that does not answer
            (``is_dead=False``), and whether the task ``may_have_run``.

    Attributes:
        load: Tasks of this lane that are not answered yet.
        epoch: The epoch that each call carries, see :class:`seedcore.organ.lease.Lease`; set by the owner.
    """

    def __init__(
        self,
        organ_id: str,
        handle: Callable[[], Any],
        *,
        direct: bool = False,
        limit: int | None = None,
        on_miss: Callable[..., None] | None = None,
    ) -> None:
        self.load = 0
        self.limit = limit
        self.epoch: str | None = None
        self._organ_id = organ_id
        self._handle = handle
        self._direct = direct
        self._on_miss = on_miss
        self._waiting: deque[Call] = deque()
        self._under_way = 0
        self._flushing = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, call: Call) -> None:
        """Send one task, alone or in a batch."""
        self.load += 1
        self._waiting.append(call)
        if not self._under_way:
            self._flush()
        elif self.limit is not None and self._under_way >= self.limit:
            self._watch(call.deadline)
        else:
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._waiting:
            room = SENT_TOGETHER if self.limit is None else min(SENT_TOGETHER, self.limit - self._under_way)
            if room <= 0:
                self._watch(min(call.deadline for call in self._waiting))
                return
            batch = [self._waiting.popleft()]
            size = batch[0].size
            while self._waiting and len(batch) < room and size + self._waiting[0].size <= SENT_TOGETHER_BYTES:
                size += self._waiting[0].size
                batch.append(self._waiting.popleft())
            self._under_way += len(batch)
            self._run(self._one(batch[0]) if len(batch) == 1 else self._many(batch))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _watch(self, deadline: float) -> None:
        """Make sure that waiting tasks are answered at their deadline."""
        if self._watchdog is None or deadline < self._watchdog.when():
            if self._watchdog is not None:
                self._watchdog.cancel()
            self._watchdog = asyncio.get_running_loop().call_at(deadline, self._drop_late)

    def _drop_late(self) -> None:
        self._watchdog = None
        now = asyncio.get_running_loop().time()
        late = [call for call in self._waiting if call.deadline <= now]
        self._waiting = deque(call for call in self._waiting if call.deadline > now)
        if self._waiting:
            self._watch(min(call.deadline for call in self._waiting))
        for call in late:
            self.load -= 1
            text = f"its queue was full for {call.timeout_s:g} s"
            call.done(self._failed(call, "TimeoutError", text, "no"))

    async def _one(self, call: Call) -> None:
        order = self._with_epoch(call.task, self._remaining(call), self._direct)
        sent = self._start(self._handle(), "call", [call], order)
        if sent is None:
            return
        try:
            async with asyncio.timeout_at(call.deadline + ANSWER_GRACE_S):
                answer = await sent
        except Exception as error:
            # Any error of Ray concerns only this task.
            answer = self._lost(call, error)
        self._done(call, answer)

    async def _many(self, calls: list[Call]) -> None:
        tasks, limits = [call.task for call in calls], [self._remaining(call) for call in calls]
        order = self._with_epoch(tasks, limits, POLL_S, self._direct)
        # Ask the process that has the batch, even if the lane leads to another process by then.
        handle = self._handle()
        sent = self._start(handle, "call_many", calls, order)
        pending = dict(enumerate(calls))
        first = True
        while sent is not None:
            body = await self._reply(sent, pending, first=first)
            first = False
            for index, answer in body["answers"]:
                if (call := pending.pop(index, None)) is not None:
                    self._done(call, answer)
            if not pending:
                return
            if body["rest"] is None:
                break
            sent = self._start(handle, "collect", list(pending.values()), body["rest"], POLL_S)
        else:
            return  # tasks that could not be sent are already answered
        for call in pending.values():
            self._done(call, self._gone(call, "unknown"))

    async def _reply(self, sent: Any, pending: dict[int, Call], *, first: bool) -> dict[str, Any]:
        """Wait for a reply to a batch; meanwhile answer tasks that are overdue or lost with the process."""
        reply = asyncio.ensure_future(result(sent))
        while pending and not reply.done():
            await asyncio.wait({reply}, timeout=self._expire(pending))
        if not reply.done():
            reply.cancel()
            return _NOTHING
        try:
            return dict(reply.result())
        except Exception as error:
            # Any error of Ray concerns only the tasks of this batch.
            for call in pending.values():
                answer = self._lost(call, error)
                # A later call that did not arrive tells nothing about the tasks, which went with the first call.
                self._done(call, answer if first or answer["executed"] != "no" else self._gone(call, "unknown"))
            pending.clear()
            return _NOTHING

    def _expire(self, pending: dict[int, Call]) -> float:
        """Answer overdue tasks; return the seconds until the next one is overdue."""
        now = asyncio.get_running_loop().time()
        limit = now - ANSWER_GRACE_S
        if min(call.deadline for call in pending.values()) <= limit:
            for index in [index for index, call in pending.items() if call.deadline <= limit]:
                call = pending.pop(index)
                self._done(call, self._lost(call, TimeoutError()))
        return min((call.deadline for call in pending.values()), default=now) + ANSWER_GRACE_S - now

    def _start(self, handle: Any, method: str, calls: list[Call], *arguments: Any) -> Any | None:
        """Make one Ray call; return None if it failed, with every task answered or sent alone."""
        # Some answers have arrived, the others may be lost.
        executed: Executed = "unknown" if method == "collect" else "no"
        try:
            if handle is None or is_down(handle):
                for call in calls:
                    self._done(call, self._gone(call, executed))
                return None
            return getattr(handle, method).remote(*arguments)
        except Exception as error:
            # A parameter cannot be pickled, or Ray has gone.
            if method == "call_many":
                # One bad task spoils the batch: send the tasks one by one.
                for call in calls:
                    self._run(self._one(call))
            else:
                for call in calls:
                    self._done(call, self._failed(call, "TaskError", f"cannot be sent: {describe(error)}", executed))
            return None

    def _with_epoch(self, *order: Any) -> tuple[Any, ...]:
        """Add the epoch if there is one; an organ of an earlier release does not know it."""
        return order if self.epoch is None else (*order, self.epoch)

    def _remaining(self, call: Call) -> float:
        return max(0.001, call.deadline - asyncio.get_running_loop().time())

    def _lost(self, call: Call, error: Exception) -> dict[str, Any]:
        answer = lost_answer(error, call.task["type"], organ_id=self._organ_id, timeout_s=call.timeout_s)
        is_dead = answer["error_type"] == "OrganUnavailableError"
        if self._on_miss is not None and (is_dead or isinstance(error, TimeoutError)):
            self._on_miss(call.task["type"], is_dead=is_dead, may_have_run=answer["executed"] != "no")
        return answer

    def _gone(self, call: Call, executed: Executed) -> dict[str, Any]:
        if self._on_miss is not None:
            self._on_miss(call.task["type"], is_dead=True, may_have_run=executed != "no")
        where = f"organ {self._organ_id}"
        error = down(where) if executed == "no" else died(where)
        return failure(error, task_type=call.task["type"], organ_id=self._organ_id)

    def _failed(self, call: Call, error_type: str, why: str, executed: Executed) -> dict[str, Any]:
        text = f"organ {self._organ_id}: {why}"
        return failure(text, error_type=error_type, task_type=call.task["type"], executed=executed)

    def _done(self, call: Call, answer: dict[str, Any]) -> None:
        self.load -= 1
        self._under_way -= 1
        if self._waiting:
            self._flush_soon()
        call.done(answer)


def is_down(handle: Any, *, restarting: bool = True) -> bool:
    """Return whether Ray knows that an actor's process is dead for good or, with ``restarting``, being restarted.

    Ray has no information about an actor that this process has never called.
    """
    state = handle._get_local_state()  # noqa: SLF001 - Ray has no public name for it
    return bool(state == _DEAD or (restarting and state == _RESTARTING))


def lost_answer(error: Exception, task_type: str, *, organ_id: str | None, timeout_s: float) -> dict[str, Any]:
    """Answer a task whose call ended with an error of Ray or at its deadline; organ None is the Coordinator."""
    where = "the Coordinator" if organ_id is None else f"organ {organ_id}"
    kind = type(error).__name__
    if isinstance(error, TimeoutError):
        text = f"{where}: no answer within {timeout_s:g} s"
        return failure(text, error_type="TimeoutError", task_type=task_type, executed="unknown", organ_id=organ_id)
    # Not a subclass: an agent that meets a dead actor raises RayTaskError(ActorDiedError).
    if type(error) not in DEATHS:
        return failure(_one_line(error), error_type=kind, task_type=task_type, executed="unknown", organ_id=organ_id)
    if any(text in str(error) for text in _NOT_SENT):
        return failure(down(where), task_type=task_type)
    return failure(died(where), task_type=task_type, organ_id=organ_id)


def _one_line(error: Exception) -> str:
    """Return the text of an error of Ray, of a traceback only the last line, without terminal colours."""
    lines = [line.strip() for line in _COLOURS.sub("", describe(error)).splitlines() if line.strip()]
    return (lines[-1] if isinstance(error, RayTaskError) else lines[0]) if lines else type(error).__name__


def down(where: str) -> OrganUnavailableError:
    """Return the error for a process that is down and about to come back."""
    return OrganUnavailableError(f"the process of {where} is down", retry_after_s=RETRY_AFTER_S)


def died(where: str) -> OrganUnavailableError:
    """Return the error for a task whose outcome is unknown."""
    return OrganUnavailableError(f"the process of {where} died with the task", executed="unknown")


async def result(sent: Any) -> Any:
    """Await what a Ray call returned, as a coroutine."""
    return await sent


def settle(answer: asyncio.Future[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Return a function that gives a future its result, unless its caller has gone in the same turn of the loop."""

    def done(result: dict[str, Any]) -> None:
        if not answer.done():
            answer.set_result(result)

    return done


_NOTHING: dict[str, Any] = {"answers": [], "rest": None}
