"""The blocking client."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self, cast

from seedcore.client.background import Background
from seedcore.client.durable import Submission, submissions
from seedcore.client.http_transport import HttpEngine
from seedcore.client.retry import MAX_IN_FLIGHT, Engine, closed_answer
from seedcore.client.transport import Connected, Transport
from seedcore.core.settings import Settings


class Client(Connected):
    """Submit tasks to the organism of one namespace; safe to use from several threads.

    Every task gets exactly one answer in the documented shape, even without a cluster; no method raises because of a
    task. The answer of a failed task tells in ``executed`` whether its code ran. The client retries a task until its
    deadline, as long as that is certainly ``no`` and a retry can help.

    Args:
        settings: Where the Coordinator is; default: from the environment.
        transport: ``ray`` (directly to the organs; this process has joined Ray), ``http``, or ``auto``: ``ray`` if
            possible, else ``http``.
        timeout_s: Time limit of each task in seconds, retries included, unless the task's or the call's
            ``timeout_s`` is less. Default: the organ's ``task_timeout_s``. If an organ hangs, the answer comes two
            seconds later.
        max_in_flight: Largest number of tasks of :meth:`map` and :meth:`submit_many` in flight; they read no further
            ahead in their iterable.

    Raises:
        ClusterError: ``transport`` is ``ray``, but this process has not joined Ray.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Transport = "auto",
        timeout_s: float | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        super().__init__(settings, transport, timeout_s, max_in_flight)
        self._lock = threading.Lock()
        self._closed = False
        self._engine: Engine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the Coordinator's own status (``get_status``).

        Raises:
            ClusterError: The Coordinator cannot be reached; ``reason`` is the reason of the status.
            DeadlineError: There was no answer in time.
        """
        return self._ask_status(timeout_s)

    def ping(self, *, timeout_s: float | None = None) -> str:
        """Return ``pong``; raise the same errors as :meth:`status`."""
        return self._ask_ping(timeout_s)

    def submit(
        self,
        task: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        durable: bool = False,
        key: str | None = None,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Submit one task and return its answer.

        Args:
            task: The task.
            timeout_s: Time limit in seconds. For a durable task it limits only this call; the task goes on.
            durable: Whether to put it into the inbox: see docs/durable.md. It is sent again until it is accepted.
            key: Idempotency key of a durable task; default: a new one.
            wait: Whether to wait for the answer of a durable task, or only until it is accepted. If the time ends
                before, the acceptance is returned: ``success`` is None, ``accepted`` True.
        """
        if self._closed:
            return closed_answer(task)
        if durable:
            (answer,) = self.submit_many([task], timeout_s=timeout_s, durable=True, keys=[key], wait=wait)
            return answer
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        if self._direct is not None:
            return self._direct.submit(task, limit_s)
        slot = _Slot()
        self._bulk().add(task, limit_s, slot.put)
        return slot.get()

    def submit_many(
        self,
        tasks: Iterable[Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        durable: bool = False,
        keys: Iterable[str | None] | None = None,
        wait: bool = True,
    ) -> list[dict[str, Any]]:
        """Submit many tasks at once; return their answers in the order of the tasks.

        The time of each task starts when it is taken from ``tasks``, see :meth:`map`. ``durable``, ``keys`` (one for
        each task) and ``wait`` are as in :meth:`submit`.
        """
        if not durable:
            return list(self.map(tasks, timeout_s=timeout_s))
        answers: list[dict[str, Any]] = []
        each = submissions(tasks, keys, wait=wait, timeout_s=self._limit(timeout_s))
        while window := list(islice(each, self._max_in_flight)):
            slots = [self._send(one) for one in window]
            for one, first in zip(window, slots, strict=True):
                slot = first
                while (pause := one.take(slot.get(), time.monotonic())) is not None:
                    time.sleep(pause)
                    slot = self._send(one)
                answers.append(one.answer)
        return answers

    def map(self, tasks: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Submit many tasks at once; yield each answer, in the order of the tasks, as soon as possible.

        ``tasks`` is read no further ahead than ``max_in_flight``, so it may be infinite. Tasks in flight run to their
        end even if the iteration is abandoned.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        engine = self._bulk()
        window: deque[_Slot] = deque()
        for task in tasks:
            slot = _Slot()
            window.append(slot)
            engine.add(task, limit_s, slot.put)
            while window and (len(window) >= self._max_in_flight or window[0].answer is not None):
                yield window.popleft().get()
        while window:
            yield window.popleft().get()

    def close(self) -> None:
        """Stop the background work; tasks that were not sent, and later ones, are answered."""
        with self._lock:
            self._closed = True
            engine = self._engine
        if engine is not None:
            engine.close()
        if self._routes is not None:
            self._routes.close()

    def _send(self, one: Submission) -> _Slot:
        slot = _Slot()
        if self._closed:
            slot.put(closed_answer(one.task))
        else:
            self._bulk().add(*one.request(time.monotonic()), slot.put)
        return slot

    def _bulk(self) -> Engine:
        with self._lock:
            if self._engine is None:
                if self._routes is None:
                    self._engine = Background(partial(HttpEngine, self._settings))
                else:
                    from seedcore.client.ray_transport import RayEngine  # noqa: PLC0415 - it imports Ray

                    self._engine = Background(partial(RayEngine, self._routes))
                if self._closed:
                    self._engine.close()
            return self._engine


class _Slot:
    """Holds one answer in the order of the tasks."""

    __slots__ = ("_lock", "answer")

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = None
        self._lock: threading.Lock | None = None

    def put(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        if self._lock is not None:
            self._lock.release()

    def get(self) -> dict[str, Any]:
        if self.answer is None:
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
            # The answer may have arrived just before the lock was taken; then nobody releases the lock.
            if self.answer is None:
                lock.acquire()
        return cast("dict[str, Any]", self.answer)
