"""The blocking client."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from seedcore.client.background import Background
from seedcore.client.http_transport import HttpEngine, HttpLink
from seedcore.client.retry import DEFAULT_TIMEOUT_S, MAX_IN_FLIGHT, Engine, closed_answer
from seedcore.client.transport import Transport, choose
from seedcore.core.settings import Settings

if TYPE_CHECKING:
    from seedcore.client.ray_transport import Direct
    from seedcore.client.routing_cache import Routes


class Client:
    """Gives tasks to the organism of one namespace; safe to use from several threads.

    Every task gets exactly one answer in the documented shape, also if the cluster is not there: nothing is raised
    because of a task. A task that did not succeed says in ``executed`` whether anything was done. It is sent again by
    itself as long as that is a sure ``no`` and trying again can help, until its deadline.

    Args:
        settings: Where the Coordinator is; default: the environment's.
        transport: ``ray`` (to the organs directly; this process has joined Ray), ``http``, or ``auto``: the first if it
            can be, else the second.
        timeout_s: Seconds that each task has, all its tries included, unless its own ``timeout_s`` or the call's is
            less. Default: its organ's ``task_timeout_s``. An answer may come two seconds later if an organ hangs.
        max_in_flight: Tasks of :meth:`map` and :meth:`submit_many` that are under way at a time; no more are taken
            from their iterable.

    Raises:
        ClusterError: ``transport`` is ``ray``, and this process has not joined Ray.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Transport = "auto",
        timeout_s: float | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._settings = settings or Settings.from_env()
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._lock = threading.Lock()
        self._closed = False
        self._engine: Engine | None = None
        self._routes: Routes | None = None
        self._http = HttpLink(self._settings)
        self._direct: Direct | None = None
        self.transport = choose(transport)
        if self.transport == "ray":
            from seedcore.client.ray_transport import Direct  # noqa: PLC0415 - it imports Ray
            from seedcore.client.routing_cache import Routes  # noqa: PLC0415 - it imports Ray

            self._routes = Routes(self._settings.namespace)
            self._direct = Direct(self._routes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return what the Coordinator says of itself (``get_status``).

        Raises:
            ClusterError: It cannot be asked; ``reason`` is that of the status.
            DeadlineError: No answer in time.
        """
        limit_s = self._limit(timeout_s)
        return self._http.status(limit_s) if self._direct is None else dict(self._direct.ask("get_status", limit_s))

    def ping(self, *, timeout_s: float | None = None) -> str:
        """Return ``pong``; raises what :meth:`status` does."""
        limit_s = self._limit(timeout_s)
        return self._http.ping(limit_s) if self._direct is None else str(self._direct.ask("ping", limit_s))

    def submit(self, task: Mapping[str, Any], *, timeout_s: float | None = None) -> dict[str, Any]:
        """Do one task and return its answer."""
        if self._closed:
            return closed_answer(task)
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        if self._direct is not None:
            return self._direct.submit(task, limit_s)
        slot = _Slot()
        self._bulk().add(task, limit_s, slot.put)
        return slot.get()

    def submit_many(
        self, tasks: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> list[dict[str, Any]]:
        """Do many tasks at once; returns each one's answer, in the order of the tasks.

        Each task has its time from when it is taken from ``tasks``, see :meth:`map`.
        """
        return list(self.map(tasks, timeout_s=timeout_s))

    def map(self, tasks: Iterable[Mapping[str, Any]], *, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Do many tasks at once; yields each one's answer, in the order of the tasks, as soon as that is possible.

        Tasks are taken from ``tasks`` as there is room for them (``max_in_flight``), so it may be without an end.
        What is under way when the iteration is given up is done all the same.
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
        """End what runs in the background; tasks that have not been sent are answered, and so are later ones."""
        with self._lock:
            self._closed = True
            engine = self._engine
        if engine is not None:
            engine.close()
        if self._routes is not None:
            self._routes.close()

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

    def _limit(self, timeout_s: float | None) -> float:
        return next(limit for limit in (timeout_s, self._timeout_s, DEFAULT_TIMEOUT_S) if limit is not None)


class _Slot:
    """The place of one answer in the order of the tasks."""

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
            # It may have come in between, with nobody to wake; then nobody will release the lock.
            if self.answer is None:
                lock.acquire()
        return cast("dict[str, Any]", self.answer)
