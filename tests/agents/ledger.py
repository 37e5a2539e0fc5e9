"""An agent that writes down what it does, so that a test can count how often each task was really done."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from seedcore.core.task import Task


class Ledger:
    """Appends ``params.n`` to a file, and then takes ``params.seconds``."""

    def __init__(self, agent_id: str, path: str) -> None:
        self.path = path

    async def execute(self, task: Task) -> dict[str, Any]:
        # One short write with O_APPEND: whole, whoever else writes.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{task.params['n']}\n".encode())
        finally:
            os.close(file)
        await asyncio.sleep(task.params.get("seconds", 0))
        return {"n": task.params["n"], "pid": os.getpid()}
