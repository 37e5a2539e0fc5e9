"""Agents for the tests: well-behaved, slow, failing and hostile ones."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from seedcore.core.task import Task


def echo(task: Task) -> dict[str, Any]:
    return {"echo": dict(task.params), "pid": os.getpid()}


def refuses(task: Task) -> None:
    """Fail every task."""
    raise ValueError(f"not with {task.type}")


def says(task: Task) -> int:
    """Log and print a text, and return the pid."""
    logging.getLogger("mine").info("logged: %s", task.params["text"])
    print(f"printed: {task.params['text']}", flush=True)  # noqa: T201 - what is tested
    return os.getpid()


class StartsWhenFileIsGone:
    """Waits in its start until a file is gone."""

    def __init__(self, agent_id: str, path: str, seconds: float = 0.0) -> None:
        self.agent_id = agent_id
        self.path = Path(path)
        self.seconds = seconds

    async def start(self) -> None:
        await asyncio.sleep(self.seconds)
        while self.path.exists():  # noqa: ASYNC110 - the test is in another process
            await asyncio.sleep(0.05)

    async def execute(self, task: Task) -> str:
        return f"{self.agent_id}: {task.type}"


class FailsWhileFileExists:
    """Fails to start while a file exists, a cause that a test can remove."""

    def __init__(self, agent_id: str, path: str) -> None:
        self.agent_id = agent_id
        self.path = Path(path)

    def start(self) -> None:
        if self.path.exists():
            raise ValueError(f"the database is locked by {self.path.name}")

    def execute(self, task: Task) -> str:
        return task.type


class DiesWhileFileExists:
    """Kills its process some time after its start while a file exists."""

    def __init__(self, agent_id: str, path: str, seconds: float = 0.0) -> None:
        self.agent_id = agent_id
        self.path = Path(path)
        self.seconds = seconds

    def start(self) -> None:
        if self.path.exists():
            threading.Timer(self.seconds, os._exit, (7,)).start()

    def execute(self, task: Task) -> str:
        return task.type


async def count_up(task: Task) -> AsyncIterator[int]:
    """Yield numbers as fast as the caller reads them."""
    for number in range(int(task.params["count"])):
        yield number


def burn(task: Task) -> int:
    """Keep a core busy in Python."""
    total = 0
    for number in range(int(task.params["steps"])):
        total += number * number % 7
    return total


class Counts:
    """Appends a line to a file for each task that it has done, after executing ``params.do``."""

    def __init__(self, agent_id: str, path: str) -> None:
        self.agent_id = agent_id
        self.path = Path(path)

    async def execute(self, task: Task) -> dict[str, Any]:
        await asyncio.sleep(float(task.params.get("seconds", 0.0)))
        what = task.params.get("do")
        if what == "die":
            os._exit(9)
        if what == "block":
            time.sleep(60)  # noqa: ASYNC251 - an agent that blocks its loop, on purpose
        with self.path.open("a") as stream:
            stream.write(f"{task.id}\n")
        if what == "exit":
            raise SystemExit(3)
        if what == "raise":
            raise ValueError("as it was told")
        return {"id": task.id, "pid": os.getpid()}


def spawns(task: Task) -> int:
    """Start a program in a new session and leave it behind."""
    return subprocess.Popen(["sleep", str(task.params["seconds"])], start_new_session=True).pid


class UnpicklableError(Exception):
    def __init__(self, message: str, lock: Any) -> None:
        super().__init__(message)
        self.lock = lock

    def __reduce__(self) -> Any:
        raise TypeError("this exception does not pickle")


class BadTextError(Exception):
    def __str__(self) -> str:
        raise SystemExit("even my text exits")


class Hostile:
    """Harms its organ in the way that ``params.do`` names."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id

    async def execute(self, task: Task) -> Any:  # noqa: C901, PLR0912
        what = task.params.get("do", "echo")
        if what == "echo":
            return {"echo": dict(task.params), "pid": os.getpid()}
        if what == "raise":
            raise ValueError("a plain failure")
        if what == "exit":
            raise SystemExit(3)
        if what == "interrupt":
            raise KeyboardInterrupt
        if what == "unpicklable":
            raise UnpicklableError("unpicklable failure", threading.Lock())
        if what == "bad_text":
            raise BadTextError
        if what == "generator_exit":
            raise GeneratorExit
        if what == "cancelled":
            raise asyncio.CancelledError
        if what == "forever":
            await asyncio.Event().wait()
        if what == "ignores_cancel":
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    continue
        if what == "block":
            time.sleep(float(task.params["seconds"]))  # noqa: ASYNC251 - an agent that blocks its loop, on purpose
            return "done"
        if what == "die":
            os._exit(9)
        if what == "stray_exit":
            asyncio.get_running_loop().create_task(_exit())
            await asyncio.sleep(0.5)
            return "still here"
        if what == "garbage":
            return {"lock": threading.Lock()}
        if what == "loop":
            loop: list[Any] = []
            loop.append(loop)
            return loop
        if what == "says_failed":
            return {"success": False, "error": "the valve is stuck"}
        raise AssertionError(what)


async def _exit() -> None:
    raise SystemExit(4)
