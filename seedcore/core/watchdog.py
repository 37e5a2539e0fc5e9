"""End a process whose event loop, or one of whose background tasks, has ended.

A ``SystemExit`` or ``KeyboardInterrupt`` in a task that user code has started bypasses every handler of SeedCore
and stops the actor's event loop. Ray does not detect this: the actor never answers again and stays ALIVE (measured on
2.60). If the process exits, Ray restarts it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from typing import Any

logger = logging.getLogger(__name__)


def end_process_with_this_loop() -> None:
    """End the process as soon as the calling thread (that of an event loop) ends."""
    loop_thread = threading.current_thread()
    if loop_thread is threading.main_thread():
        return  # not in an actor, where the loop has its own thread; the process ends with the main thread anyway

    def wait_for_end() -> None:
        loop_thread.join()
        logger.critical("the event loop has ended, ending the process")
        os._exit(1)

    threading.Thread(target=wait_for_end, name="loop-guard", daemon=True).start()


def run_for_ever(work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """Start a background task that may end only by cancellation; any other end is a bug and ends the process.

    Otherwise the process would look healthy while the data that the task updates is stale.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_check_end)
    return task


def _check_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        logger.critical("the task %s has ended, ending the process", task.get_name(), exc_info=task.exception())
        os._exit(1)
