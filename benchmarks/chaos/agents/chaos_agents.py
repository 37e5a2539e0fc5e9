"""Agents for the chaos campaign: each writes a task's number into a ledger before it does the work."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedcore import Task


# Disk space reserved for the ledger, released piece by piece, because the campaign fills the disk.
_ROOM_BYTES, _BIT_BYTES = 4 * 2**20, 2**16


def _keep_room(path: str) -> None:
    with Path(f"{path}.room").open("ab") as room:
        room.write(bytes(max(0, _ROOM_BYTES - room.tell())))


def _write_down(path: str, task: Task) -> None:
    # One short write with O_APPEND is atomic, even when other processes write to the file. Lines of 16 bytes never
    # cross a page of the disk.
    line = f"{task.params['nonce']:>15}\n".encode()
    room = Path(f"{path}.room")
    is_written = False
    while not is_written:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            is_written = os.write(descriptor, line) == len(line)
        except OSError as error:
            left = room.stat().st_size
            if error.errno != errno.ENOSPC or not left:
                raise
            os.truncate(room, max(0, left - _BIT_BYTES))
        finally:
            os.close(descriptor)


def _hold_the_gil(seconds: float) -> None:
    """Sleep in C without releasing the interpreter's lock, as a faulty extension does: the whole process hangs."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


class Steady:
    """An asynchronous agent; it hangs in C for ``params.hold_s`` seconds and sleeps for ``params.seconds``.

    Args:
        agent_id: Its id.
        path: The ledger.
    """

    def __init__(self, agent_id: str, path: str) -> None:
        self.agent_id = agent_id
        self.path = path
        _keep_room(path)

    async def execute(self, task: Task) -> dict[str, Any]:
        """Write the task's number into the ledger, then do what its params ask for."""
        _write_down(self.path, task)
        if hold := task.params.get("hold_s"):
            _hold_the_gil(hold)
        await asyncio.sleep(task.params.get("seconds", 0.0))
        return {"nonce": task.params["nonce"], "pid": os.getpid()}


class Plain:
    """A synchronous agent, whose tasks run in threads; it sleeps for ``params.seconds``."""

    def __init__(self, agent_id: str, path: str) -> None:
        self.agent_id = agent_id
        self.path = path
        _keep_room(path)

    def execute(self, task: Task) -> dict[str, Any]:
        """Write the task's number into the ledger, then do what its params ask for."""
        _write_down(self.path, task)
        time.sleep(task.params.get("seconds", 0.0))
        return {"nonce": task.params["nonce"], "pid": os.getpid()}
