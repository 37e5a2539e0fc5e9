"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

# At most for so long a thread is waited for at a time, in real seconds.
REAL_S = 1.0


class _Selector(selectors.DefaultSelector):
    now = 0.0
    in_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.in_threads:
            # A thread works in real time: the clock stands still until it has told the loop that it has ended.
            return super().select(REAL_S if timeout is None else min(timeout, REAL_S))
        assert timeout is not None, "nothing would ever happen again"
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Everything that asyncio times (sleep, timeout, call_later) takes no real time.

    The clock stands still while a thread works for the loop (``run_in_executor``).
    """

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]  # the base class has one type variable for each argument
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Call a function in a thread, and let the clock wait for it."""
        future = super().run_in_executor(executor, func, *args)
        self._virtual.in_threads += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: asyncio.Future[Any]) -> None:
        self._virtual.in_threads -= 1


def run_virtual(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on such a loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
