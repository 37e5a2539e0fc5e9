"""Send tasks directly to the processes of the organs, from a process that has joined Ray."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import ray
from ray.exceptions import RayError

from seedcore.client.retry import Attempts, Sink, closed_answer, parse
from seedcore.client.routing_cache import OrganEntry, Routes
from seedcore.core.errors import (
    DeadlineError,
    Executed,
    OrganUnavailableError,
    SeedCoreError,
    UnknownTaskTypeError,
)
from seedcore.core.task import BUILTIN_TASK_TYPES, Task, failure
from seedcore.dispatch.sender import ANSWER_GRACE_S, Call, Lane, down, is_down, lost_answer

DOUBT_S = 0.05
_ASK_AGAIN_S = 0.2
_COORDINATOR = "the Coordinator"
_READS = frozenset({"get_metrics", "get_organism_status", "get_organism_summary", "get_routing_debug"})


class Direct:
    """The calls that block their thread: single tasks of a blocking client, and questions to the Coordinator.

    Args:
        routes: The routing table.
    """

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._loads: dict[Any, int] = {}
        self._lock = threading.Lock()

    def submit(self, raw: Any, timeout_s: float | None) -> dict[str, Any]:
        """Submit one task."""
        parsed = parse(raw)
        if isinstance(parsed, dict):
            return parsed
        task, _ = parsed
        attempts = Attempts(timeout_s, task.timeout_s)
        while True:
            table = self._routes.table
            answer, limit_s = self._try(task, attempts)
            pause = attempts.pause(answer, limit_s)
            if pause is None:
                return answer
            self._routes.wait(pause, seen=table)

    def ask(self, method: str, timeout_s: float) -> Any:
        """Call a method of the Coordinator that changes nothing, and can therefore be repeated after an error.

        Raises:
            DeadlineError: There is no answer in time.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                reference = getattr(self._routes.coordinator(), method).remote()
                # Unlike ray.get, it also suits a thread of an async actor.
                return reference.future().result(timeout=max(0.0, deadline - time.monotonic()))
            except (RayError, TimeoutError) as error:
                if isinstance(error, TimeoutError) or deadline - time.monotonic() <= _ASK_AGAIN_S:
                    raise DeadlineError(f"the Coordinator did not answer within {timeout_s:g} s") from error
            time.sleep(_ASK_AGAIN_S)

    def _try(self, task: Task, attempts: Attempts) -> tuple[dict[str, Any], float]:
        if task.type in BUILTIN_TASK_TYPES:
            limit_s = attempts.remaining()
            return self._call(task, self._routes.coordinator, "handle", task.to_dict(), limit_s), limit_s
        try:
            organ = _organ(self._routes, task, attempts)
        except Exception as error:
            return unsent(error, task, None), attempts.remaining()
        with self._lock:
            handle, _, epoch = min(organ.replicas, key=lambda replica: self._loads.get(replica[0], 0) + _chance())
            self._loads[handle] = self._loads.get(handle, 0) + 1
        try:
            timeout_s = attempts.remaining(organ.task_timeout_s)
            order = (task.to_dict(), timeout_s, True, *([] if epoch is None else [epoch]))
            answer = self._call(task, lambda: handle, "call", order, timeout_s, organ_id=organ.organ_id)
        finally:
            with self._lock:
                self._loads[handle] -= 1
                if not self._loads[handle]:
                    del self._loads[handle]
        return answer, organ.task_timeout_s

    def _call(
        self,
        task: Task,
        actor: Callable[[], Any],
        method: str,
        order: Any,
        timeout_s: float,
        *,
        organ_id: str | None = None,
    ) -> dict[str, Any]:
        try:
            reference = _send(actor(), method, order)
        except Exception as error:
            # Nothing was sent: a parameter cannot be pickled, the other process is down, or Ray is unreachable.
            return unsent(error, task, organ_id)
        if reference is None:
            return failure(down(_where(organ_id)), task_type=task.type)
        try:
            answer: dict[str, Any] = ray.get(reference, timeout=timeout_s + ANSWER_GRACE_S)
        except Exception as error:
            # Whatever Ray raises, the caller gets an answer.
            return lost(error, task, organ_id, timeout_s)
        return answer


class RayEngine:
    """Submit many tasks at once, on one event loop; call the methods on it.

    Args:
        routes: The routing table.
    """

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Any, Lane] = {}
        # Tasks that wait for a new routing table, with the timer that ends the wait.
        self._patient: dict[_Entry, asyncio.TimerHandle] = {}
        self._open: set[_Entry] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        routes.listen(self._on_news)

    def add(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
        """Start one task."""
        parsed = closed_answer(raw) if self._closed else parse(raw)
        if isinstance(parsed, dict):
            sink(parsed)
        else:
            entry = _Entry(*parsed, timeout_s, sink)
            if raw.get("durable") is True:
                # The Coordinator has the inbox; the task's own limit is that of each attempt.
                entry.durable, entry.attempts = dict(raw), Attempts(timeout_s)
            self._open.add(entry)
            self._try(entry)

    def close(self) -> None:
        """Answer all open tasks, and send nothing more."""
        self._closed = True
        self._routes.unlisten(self._on_news)
        for entry in list(self._open):
            waits = self._patient.pop(entry, None)
            if waits is not None:
                waits.cancel()
            executed: Executed = "unknown" if waits is None else "no"
            self._finish(entry, closed_answer(entry.task.type, executed=executed))

    def _try(self, entry: _Entry) -> None:
        self._patient.pop(entry, None)
        if entry.task.type in BUILTIN_TASK_TYPES or entry.durable is not None:
            self._run(self._builtin(entry))
            return
        try:
            organ = _organ(self._routes, entry.task, entry.attempts)
        except Exception as error:
            # Usually no process can take the task.
            self._answer(entry, unsent(error, entry.task, None))
            return
        entry.limit_s = organ.task_timeout_s
        lanes = [self._lane(organ, replica) for replica in organ.replicas]
        lane = lanes[0] if len(lanes) == 1 else min(lanes, key=lambda lane: lane.load + _chance())
        timeout_s = entry.attempts.remaining(organ.task_timeout_s)
        lane.send(Call(entry.task.to_dict(), timeout_s, lambda answer: self._answer(entry, answer), size=entry.size))

    def _answer(self, entry: _Entry, answer: dict[str, Any]) -> None:
        pause = None if self._closed else entry.attempts.pause(answer, entry.limit_s)
        if pause is None:
            self._finish(entry, answer)
        else:
            self._patient[entry] = self._loop.call_later(pause, self._try, entry)

    def _finish(self, entry: _Entry, answer: dict[str, Any]) -> None:
        if entry in self._open:  # else the client has been closed
            self._open.remove(entry)
            entry.sink(answer)

    def _lane(self, organ: OrganEntry, replica: tuple[Any, int, str | None]) -> Lane:
        handle, capacity, epoch = replica
        lane = self._lanes.get(handle)
        if lane is None:
            lane = self._lanes[handle] = Lane(organ.organ_id, lambda: handle, direct=True, limit=capacity)
        lane.epoch = epoch
        return lane

    async def _builtin(self, entry: _Entry) -> None:
        limit_s = entry.attempts.remaining()
        reference = None
        try:
            coordinator = await asyncio.to_thread(self._routes.coordinator)
            reference = _send(coordinator, "handle", entry.durable or entry.task.to_dict())
        except Exception as error:
            # Nothing has left this process.
            answer = unsent(error, entry.task, None)
        else:
            if reference is None:
                answer = failure(down(_COORDINATOR), task_type=entry.task.type)
        if reference is not None:
            try:
                async with asyncio.timeout(limit_s + ANSWER_GRACE_S):
                    answer = await reference
            except Exception as error:
                # Whatever Ray raises, the caller gets an answer.
                answer = lost(error, entry.task, None, limit_s)
        self._answer(entry, answer)

    def _on_news(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._renew)

    def _renew(self) -> None:
        """Retry waiting tasks, and drop lanes to processes that are no longer in the table."""
        table = self._routes.table
        if table is not None:
            living = {replica[0] for organ in table.organs.values() for replica in organ.replicas}
            for handle in [handle for handle, lane in self._lanes.items() if handle not in living and not lane.load]:
                del self._lanes[handle]
        for entry in list(self._patient):
            self._patient.pop(entry).cancel()
            self._try(entry)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Entry:
    """One task in the engine."""

    __slots__ = ("attempts", "durable", "limit_s", "sink", "size", "task")

    def __init__(self, task: Task, size: int, timeout_s: float | None, sink: Sink) -> None:
        self.task = task
        self.durable: dict[str, Any] | None = None
        self.size = size
        self.attempts = Attempts(timeout_s, task.timeout_s)
        self.sink = sink
        self.limit_s = 60.0


def unsent(error: Exception, task: Task, organ_id: str | None) -> dict[str, Any]:
    """Answer a task that was not sent."""
    if isinstance(error, SeedCoreError):
        return failure(error, task_type=task.type, executed="no")
    text = f"cannot be sent to {_where(organ_id)}: {type(error).__name__}: {error}"
    return failure(text, error_type="TaskError", task_type=task.type, executed="no")


def lost(error: Exception, task: Task, organ_id: str | None, timeout_s: float) -> dict[str, Any]:
    """Answer a task whose call ended with an error."""
    answer = lost_answer(error, task.type, organ_id=organ_id, timeout_s=timeout_s)
    if task.type in _READS and answer["error_type"] == "OrganUnavailableError":
        # This task changes nothing, whether it ran or not.
        return failure(down(_COORDINATOR), task_type=task.type)
    return answer


def _organ(routes: Routes, task: Task, attempts: Attempts) -> OrganEntry:
    try:
        return routes.current().route(task.type, task.domain)
    except UnknownTaskTypeError as error:
        if not attempts.first_doubt():
            raise
        # The organism may have been reloaded a moment ago.
        raise OrganUnavailableError(str(error), retry_after_s=DOUBT_S) from error


def _send(actor: Any, method: str, order: Any) -> Any:
    """Make one Ray call; return None if the actor is known to be down."""
    return None if is_down(actor) else getattr(actor, method).remote(order)


def _where(organ_id: str | None) -> str:
    return _COORDINATOR if organ_id is None else f"organ {organ_id}"


def _chance() -> float:
    # Choose among equals at random: many clients must not all start with the same process.
    return random.random()  # noqa: S311 - no secret
