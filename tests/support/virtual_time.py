"""Provide an event loop whose clock jumps to the next timer as soon as the loop is idle."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

# Longest single wait for a thread, in real seconds.
REAL_S = 1.0


class _Selector(selectors.DefaultSelector):
    now = 0.0
    in_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.in_threads:
            # A thread works in real time: the clock stands still until the thread reports its end to the loop.
            return super().select(REAL_S if timeout is None else min(timeout, REAL_S))
        assert timeout is not None, "the loop would wait for ever"
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which sleeps and timeouts (sleep, timeout, call_later) take no real time.

    The clock stands still while a thread works for the loop (``run_in_executor``).
    """

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual seconds since the loop was created."""
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]  # the base class has one type variable for each argument
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call a function in a thread and stop the clock until it has ended."""
        future = super().run_in_executor(executor, func, *args)
        self._virtual.in_threads += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: asyncio.Future[Any]) -> None:
        self._virtual.in_threads -= 1


def run_virtual(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on a :class:`VirtualLoop` and return its result."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
