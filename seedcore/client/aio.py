"""The async client."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from seedcore.client.durable import Submission, submissions
from seedcore.client.http_transport import HttpEngine
from seedcore.client.retry import MAX_IN_FLIGHT, Engine
from seedcore.client.transport import Connected, Transport
from seedcore.core.settings import Settings


class AsyncClient(Connected):
    """The same as :class:`seedcore.Client`, with ``await``, for one event loop; create and use it on that loop.

    Tasks that are submitted while others are in flight travel together. A caller that stops waiting for an answer does
    not stop the task, which runs to its end or its deadline.

    Args:
        settings: See ``Client``, like the other arguments.
        transport: ``auto``, ``ray`` or ``http``.
        timeout_s: Time limit of each task in seconds.
        max_in_flight: Largest number of tasks in flight, over all methods; more tasks wait for their turn, and their
            time starts only then.

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
        self._room = asyncio.Semaphore(max_in_flight)
        self._loop = asyncio.get_running_loop()
        self._engine: Engine
        if self._routes is not None:
            from seedcore.client.ray_transport import RayEngine  # noqa: PLC0415 - it imports Ray

            self._engine = RayEngine(self._routes)
        else:
            self._engine = HttpEngine(self._settings)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def status(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the Coordinator's own status; see ``Client.status``."""
        return await asyncio.to_thread(self._ask_status, timeout_s)

    async def ping(self, *, timeout_s: float | None = None) -> str:
        """Return ``pong``."""
        return await asyncio.to_thread(self._ask_ping, timeout_s)

    async def submit(
        self,
        task: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        durable: bool = False,
        key: str | None = None,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Submit one task and return its answer; see ``Client.submit``."""
        if durable:
            (one,) = submissions([task], [key], wait=wait, timeout_s=self._limit(timeout_s))
            return await self._pursue(one)
        return await (await self._start(task, self._timeout_s if timeout_s is None else timeout_s))

    async def submit_many(
        self,
        tasks: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]],
        *,
        timeout_s: float | None = None,
        durable: bool = False,
        keys: Iterable[str | None] | None = None,
        wait: bool = True,
    ) -> list[dict[str, Any]]:
        """Submit many tasks at once; return their answers in the order of the tasks; see ``Client.submit_many``."""
        if durable:
            all_tasks = [task async for task in _each(tasks)]
            each = submissions(all_tasks, keys, wait=wait, timeout_s=self._limit(timeout_s))
            return list(await asyncio.gather(*(self._pursue(one) for one in each)))
        return [answer async for answer in self.map(tasks, timeout_s=timeout_s)]

    async def map(
        self, tasks: Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Submit many tasks at once; yield their answers in the order of the tasks, see ``Client.map``."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        window: deque[asyncio.Future[dict[str, Any]]] = deque()
        async for task in _each(tasks):
            # Do not hold back the first answers while waiting for a free place: they free it.
            while window and (len(window) >= self._max_in_flight or self._room.locked() or window[0].done()):
                yield await window.popleft()
            window.append(await self._start(task, limit_s))
        while window:
            yield await window.popleft()

    async def close(self) -> None:
        """Stop the background work; tasks that were not sent are answered."""
        self._engine.close()
        if self._routes is not None:
            self._routes.close()

    async def _pursue(self, one: Submission) -> dict[str, Any]:
        """Send a durable task until it is accepted, and wait for its answer."""
        while True:
            task, limit_s = one.request(time.monotonic())
            pause = one.take(await (await self._start(task, limit_s)), time.monotonic())
            if pause is None:
                return one.answer
            await asyncio.sleep(pause)

    async def _start(self, task: Any, limit_s: float | None) -> asyncio.Future[dict[str, Any]]:
        await self._room.acquire()
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()

        def put(given: dict[str, Any]) -> None:
            self._room.release()
            if not answer.done():  # else the caller has stopped waiting
                answer.set_result(given)

        try:
            self._engine.add(task, limit_s, put)
        except BaseException:
            self._room.release()
            raise
        return answer


async def _each(tasks: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(tasks, AsyncIterable):
        async for task in tasks:
            yield task
    else:
        for task in tasks:
            yield task
