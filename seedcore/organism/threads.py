"""Sync user code in a thread, and its end before it is done."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

_set_async_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exception.argtypes = (ctypes.c_ulong, ctypes.py_object)


async def in_thread(function: Callable[[], Any], *, executor: Executor) -> Any:
    """Call a function that never raises in a thread of ``executor``; returns its result.

    A cancellation raises ``asyncio.CancelledError`` in the thread, where Python code takes notice before its next few
    instructions and C code (a sleep, a read) only when it returns. The call here ends when the thread has really
    ended, and only then: until that the thread still works, whatever anybody calls it.
    """
    call = _Call(function)
    running: Future[Any] = executor.submit(call.run)
    try:
        return await asyncio.wrap_future(running)
    except asyncio.CancelledError:
        if not running.cancelled():  # else it had not begun
            call.interrupt()
            await asyncio.wait({asyncio.wrap_future(running)})
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
