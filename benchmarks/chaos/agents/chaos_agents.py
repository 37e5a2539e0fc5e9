"""Agents for the chaos campaign: each writes the number of a task into a ledger before it works on it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcore import Task


def _write_down(path: str, task: Task) -> None:
    # One short write with O_APPEND: whole, whoever else writes.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{task.params['nonce']}\n".encode())
    finally:
        os.close(descriptor)


def _hold_the_gil(seconds: float) -> None:
    """Sleep in C without releasing the interpreter's lock, as a faulty extension does: the whole process hangs."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


class Steady:
    """An asynchronous agent; ``params.hold_s`` lets it hang in C, ``params.seconds`` lets it take its time.

    Args:
        agent_id: Its id.
        path: The ledger.
    """

    def __init__(self, agent_id: str, path: str) -> None:
        self.agent_id = agent_id
        self.path = path

    async def execute(self, task: Task) -> dict[str, Any]:
        """Write the task down, then do what its params say."""
        _write_down(self.path, task)
        if hold := task.params.get("hold_s"):
            _hold_the_gil(hold)
        await asyncio.sleep(task.params.get("seconds", 0.0))
        return {"nonce": task.params["nonce"], "pid": os.getpid()}


class Plain:
    """The same as a synchronous agent: its tasks run in threads."""

    def __init__(self, agent_id: str, path: str) -> None:
        self.agent_id = agent_id
        self.path = path

    def execute(self, task: Task) -> dict[str, Any]:
        """Write the task down, then do what its params say."""
        _write_down(self.path, task)
        time.sleep(task.params.get("seconds", 0.0))
        return {"nonce": task.params["nonce"], "pid": os.getpid()}
