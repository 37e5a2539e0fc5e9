"""Send answers as lines of JSON, each as soon as it is ready: ``{"index": place in the request, "answer": {...}}``.

While no answer is ready, an empty line every few seconds is a keep-alive. A client that goes away does not end its
tasks, as with any other request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from seedcore.core.task import LINES_MEDIA_TYPE, Task, inner_tasks, normalise, task_type_of

SIGN_OF_LIFE_S = 4.0

Work = Callable[[Any], Awaitable[bytes]]
"""Execute one task and return its answer as JSON; never raise."""


def tasks_of(task: Any) -> list[Any]:
    """Return the tasks of a request.

    Raises:
        SeedCoreError: It has type ``execute_many`` but no list of tasks.
    """
    return inner_tasks(Task.parse(task)) if normalise(task_type_of(task)) == "execute_many" else [task]


class Lines(Response):
    """Execute tasks, and send each answer when it is ready.

    Args:
        tasks: The tasks, to execute concurrently.
        work: Executes one task.
        done: Called at the end.
    """

    def __init__(self, tasks: Sequence[Any], work: Work, *, done: Callable[[], None]) -> None:
        super().__init__(media_type=LINES_MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._tasks = tasks
        self._work = work
        self._done = done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send everything (ASGI)."""
        answers: asyncio.Queue[bytes] = asyncio.Queue()
        under_way = [asyncio.create_task(self._one(index, task, answers)) for index, task in enumerate(self._tasks)]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            left = len(under_way)
            while left:
                lines = await _next(answers)
                left -= len(lines)
                await send({"type": "http.response.body", "body": b"".join(lines) or b"\n", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            for one in under_way:
                one.cancel()
            self._done()

    async def _one(self, index: int, task: Any, answers: asyncio.Queue[bytes]) -> None:
        answer = await self._work(task)
        answers.put_nowait(b'{"index":%d,"answer":%s}\n' % (index, answer))


async def _next(answers: asyncio.Queue[bytes]) -> list[bytes]:
    """Wait for the first line and return all lines that are ready; return none after a while."""
    try:
        async with asyncio.timeout(SIGN_OF_LIFE_S):
            lines = [await answers.get()]
    except TimeoutError:
        return []
    while not answers.empty():
        lines.append(answers.get_nowait())
    return lines
