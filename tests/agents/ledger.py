"""Define an agent that records its work, so that a test can count how often each task was done."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from seedcore.core.task import Task


class Ledger:
    """Appends ``params.n`` to a file, then sleeps for ``params.seconds``, or until the file ``params.until`` exists."""

    def __init__(self, agent_id: str, path: str) -> None:
        self.path = path

    async def execute(self, task: Task) -> dict[str, Any]:
        # One short write with O_APPEND is atomic, even if other processes write too.
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, f"{task.params['n']}\n".encode())
        finally:
            os.close(file)
        await asyncio.sleep(task.params.get("seconds", 0))
        while "until" in task.params and not os.path.exists(task.params["until"]):  # noqa: ASYNC110, ASYNC240, PTH110
            await asyncio.sleep(0.05)  # the test is in another process
        return {"n": task.params["n"], "pid": os.getpid()}
