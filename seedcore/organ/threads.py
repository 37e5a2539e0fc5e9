"""Run sync user code in threads, and interrupt it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

MAX_THREADS = 64

_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)


class AgentThreads:
    """The threads of one organ's sync agents.

    An agent that executes one task at a time has one thread for its whole life, like a plain Ray actor (sqlite3,
    Playwright and torch need that); beyond MAX_THREADS agents, several share one. Other agents share a pool.

    Args:
        agents: Number of agents of the process.
        max_concurrency: Tasks that one agent executes at a time.
    """

    def __init__(self, agents: int, max_concurrency: int) -> None:
        self.pinned = max_concurrency == 1
        self.size = max(1, min(agents * max_concurrency, MAX_THREADS))
        count = self.size if self.pinned else 1
        each = self.size // count
        self._executors = [ThreadPoolExecutor(each, thread_name_prefix=f"agent-{index}") for index in range(count)]

    def of(self, index: int) -> Executor:
        """Return the executor of the agent in this place."""
        return self._executors[index % len(self._executors)]


async def in_thread(function: Callable[[], Any], *, executor: Executor, interrupt: bool = True) -> Any:
    """Call a function that never raises in a thread of ``executor``; return its result.

    A cancellation raises ``asyncio.CancelledError`` in the thread: in Python code before its next few instructions, in
    C code (a sleep, a read) only when it returns; without ``interrupt`` it raises nothing. This call returns only when
    the call in the thread has really ended.
    """
    call = _Call(function)
    # Copy the context, so that the log in the thread knows the agent.
    running: Future[Any] = executor.submit(copy_context().run, call.run)
    try:
        return await asyncio.wrap_future(running)
    except asyncio.CancelledError:
        if not running.cancelled():  # else it had not started
            if interrupt:
                call.interrupt()
            ended = asyncio.wrap_future(running)
            while not ended.done():
                # A second cancellation does not end the thread sooner.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({ended})
        raise


class _Call:
    """One call in a thread, which another thread can interrupt without hitting the next call of that thread."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._interrupted = False

    def run(self) -> Any:
        """Call the function and return its result, None if it was interrupted at its very end."""
        try:
            with self._lock:
                self._thread = threading.get_ident()
            try:
                return self._function()
            finally:
                self._end()
        except asyncio.CancelledError:
            # The interrupt arrived when the function had just returned.
            self._end()
            return None

    def interrupt(self) -> None:
        """Raise ``asyncio.CancelledError`` in the thread, if the call still runs."""
        with self._lock:
            if self._thread is not None:
                self._interrupted = True
                _set_async_exception(self._thread, asyncio.CancelledError)

    def _end(self) -> None:
        with self._lock:
            if self._interrupted and self._thread is not None:
                # The exception may not be delivered yet, and the thread's next call must not get it; null withdraws it.
                _set_async_exception(self._thread, ctypes.py_object())
            self._thread = None
