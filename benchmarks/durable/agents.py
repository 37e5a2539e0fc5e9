"""Agents that write down each effect, in a file or in the transaction that completes their task."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from seedcore.core.task import Task

# Longer than the database of the test is ever away.
RECONNECT_S = 60.0
PAUSE_S = 0.2


class Writer:
    """Appends its task's key and attempt to a file, with one fsync, in the middle of its work."""

    def __init__(self, _agent_id: str, *, path: str) -> None:
        self.path = path

    def execute(self, task: Task) -> dict[str, Any]:
        """Work for ``params.seconds``, and write the effect in the middle of them."""
        time.sleep(task.params["seconds"] / 2)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            # One short write with O_APPEND is atomic, even if other processes write too.
            os.write(file, f"{task.key} {task.attempt}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        time.sleep(task.params["seconds"] / 2)
        return {"attempt": task.attempt}


class Booker:
    """Inserts its task's key and attempt into a table, in one transaction with the completion of the task."""

    def __init__(self, _agent_id: str, *, url: str, passfile: str) -> None:
        self.url = url
        self.passfile = passfile

    async def execute(self, task: Task) -> dict[str, Any]:
        """Write the effect and complete the task; wait for a database that is away.

        Raises:
            psycopg.Error: Another attempt counts, or the database did not come back.
        """
        import psycopg  # noqa: PLC0415 - only where the inbox is in PostgreSQL

        deadline = asyncio.get_running_loop().time() + RECONNECT_S
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self.url, passfile=self.passfile) as connection:
                    await connection.execute("INSERT INTO effect VALUES(%s, %s)", (task.key, task.attempt))
                    await asyncio.sleep(task.params["seconds"])
                    await connection.execute(
                        "SELECT seedcore_inbox.complete(%s, %s, %s)", (task.id, task.attempt, '{"booked": true}')
                    )
            except psycopg.OperationalError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            else:
                return {"booked": True}
            await asyncio.sleep(PAUSE_S)
