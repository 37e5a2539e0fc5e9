"""End a process whose event loop has ended.

A ``SystemExit`` or ``KeyboardInterrupt`` in a task that user code has started by itself goes past every fence of ours
and stops the loop of the actor. Ray does not notice: the actor never answers again and stays ALIVE (measured on
2.60). A process that ends, Ray restarts.
"""

from __future__ import annotations

import logging
import os
import threading

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
