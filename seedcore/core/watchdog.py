"""End a process whose event loop, or one of whose endless tasks, has ended.

A ``SystemExit`` or ``KeyboardInterrupt`` in a task that user code has started by itself goes past every fence of ours
and stops the loop of the actor. Ray does not notice: the actor never answers again and stays ALIVE (measured on
2.60). A process that ends, Ray restarts.
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
    """From now on, end the process as soon as the thread that calls this (a loop's thread) ends."""
    loop_thread = threading.current_thread()
    if loop_thread is threading.main_thread():
        return  # not in an actor: there the loop has a thread of its own, and the process ends with this one anyway

    def wait_for_end() -> None:
        loop_thread.join()
        logger.critical("the event loop has ended, ending the process")
        os._exit(1)

    threading.Thread(target=wait_for_end, name="loop-guard", daemon=True).start()


def run_for_ever(work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """Start a task that ends only by being cancelled; any other end is a fault of ours, and ends the process.

    Without it everything would look well while what it keeps up to date stays as it was.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_check_end)
    return task


def _check_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        logger.critical("the task %s has ended, ending the process", task.get_name(), exc_info=task.exception())
        os._exit(1)
