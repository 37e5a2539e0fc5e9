"""Sync user code in a thread, and its end before it is done."""

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
    """The threads that one organ's sync agents work in.

    An agent that does one task at a time has one thread for its whole life, as a plain Ray actor has (sqlite3,
    Playwright and torch need that); beyond MAX_THREADS agents, several share one. Agents that do more at a time share
    a pool.

    Args:
        agents: Agents of the process.
        max_concurrency: Tasks that one of them does at a time.
    """

    def __init__(self, agents: int, max_concurrency: int) -> None:
        self.pinned = max_concurrency == 1
        self.size = max(1, min(agents * max_concurrency, MAX_THREADS))
        count = self.size if self.pinned else 1
        each = self.size // count
        self._executors = [ThreadPoolExecutor(each, thread_name_prefix=f"agent-{index}") for index in range(count)]

    def of(self, index: int) -> Executor:
        """Return what runs the code of the agent in this place."""
        return self._executors[index % len(self._executors)]


async def in_thread(function: Callable[[], Any], *, executor: Executor, interrupt: bool = True) -> Any:
    """Call a function that never raises in a thread of ``executor``; returns its result.

    A cancellation raises ``asyncio.CancelledError`` in the thread, where Python code takes notice before its next few
    instructions and C code (a sleep, a read) only when it returns; without ``interrupt`` it does not. The call here
    ends when the thread has really ended, and only then: until that the thread still works, whatever anybody calls it.
    """
    call = _Call(function)
    # What the loop knows of whose code this is, the log for one, holds in the thread as well.
    running: Future[Any] = executor.submit(copy_context().run, call.run)
    try:
        return await asyncio.wrap_future(running)
    except asyncio.CancelledError:
        if not running.cancelled():  # else it had not begun
            if interrupt:
                call.interrupt()
            ended = asyncio.wrap_future(running)
            while not ended.done():
                # A second cancellation makes the thread end no sooner.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({ended})
        raise


class _Call:
    """One call in a thread, which another thread may interrupt while it lasts, and not the next call in its place."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._interrupted = False

    def run(self) -> Any:
        """Call the function; what it returns, None if it was interrupted at its very end."""
        try:
            with self._lock:
                self._thread = threading.get_ident()
            try:
                return self._function()
            finally:
                self._end()
        except asyncio.CancelledError:
            # It came when the function had just returned.
            self._end()
            return None

    def interrupt(self) -> None:
        """Raise ``asyncio.CancelledError`` in the thread, if the call lasts."""
        with self._lock:
            if self._thread is not None:
                self._interrupted = True
                _set_async_exception(self._thread, asyncio.CancelledError)

    def _end(self) -> None:
        with self._lock:
            if self._interrupted and self._thread is not None:
                # Not delivered yet, perhaps: the thread's next call must not get it. A null object takes it back.
                _set_async_exception(self._thread, ctypes.py_object())
            self._thread = None
