"""Run an engine on an event loop in its own thread, for a blocking client."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from seedcore.client.retry import Engine, Sink, closed_answer
from seedcore.core.task import failure, task_type_of

logger = logging.getLogger(__name__)

# Send the tasks that were taken before taking more, so that the organ works meanwhile.
_AT_ONCE = 250


class Background:
    """Hand tasks from any thread to an engine; every task is answered, even after the end.

    Args:
        make_engine: Creates the engine; called on its loop.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._inbox: deque[tuple[Any, float | None, Sink]] = deque()
        self._signalled = False
        self._closed = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(make_engine,), name="seedcore-client", daemon=True)
        self._thread.start()
        self._started.wait()

    def add(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
        """Start one task."""
        self._inbox.append((raw, timeout_s, sink))
        if self._closed:
            self._refuse()
        # One wake-up serves all tasks that arrive before the loop runs.
        elif not self._signalled:
            self._signalled = True
            self._call(self._drain)

    def close(self) -> None:
        """End the thread; tasks that were not sent, and tasks that are added later, are answered."""
        self._closed = True
        self._call(self._end.set)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, make_engine: Callable[[], Engine]) -> None:
        try:
            asyncio.run(self._main(make_engine))
        finally:
            self._closed = True
            self._started.set()
            self._refuse()

    async def _main(self, make_engine: Callable[[], Engine]) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        self._engine = make_engine()
        self._started.set()
        try:
            await self._end.wait()
        finally:
            self._engine.close()

    def _call(self, function: Callable[[], Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop has ended, and its thread may have read the inbox before this task was added.
            self._refuse()

    def _refuse(self) -> None:
        """Answer tasks that the engine will never get; several threads may do so at once."""
        while self._inbox:
            try:
                raw, _, sink = self._inbox.popleft()
            except IndexError:
                return
            sink(closed_answer(raw))

    def _drain(self) -> None:
        self._signalled = False
        for _ in range(min(len(self._inbox), _AT_ONCE)):
            self._begin(*self._inbox.popleft())
        if self._inbox and not self._signalled:
            self._signalled = True
            self._loop.call_soon(self._drain)

    def _begin(self, raw: Any, timeout_s: float | None, sink: Sink) -> None:
        try:
            self._engine.add(raw, timeout_s, sink)
        except Exception as error:
            # A bug must not leave the caller waiting for ever.
            logger.exception("a task could not be started")
            sink(failure(error, task_type=task_type_of(raw), executed="unknown"))
