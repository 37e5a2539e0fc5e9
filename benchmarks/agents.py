"""The least that agents can do."""

from __future__ import annotations

from typing import Any

from seedcore.core.task import Task


async def echo(task: Task) -> dict[str, Any]:
    """Give the params back."""
    return dict(task.params)


class Quiet:
    """An agent with a life cycle and nothing in it."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id

    async def start(self) -> None:
        """Start."""

    async def execute(self, task: Task) -> dict[str, Any]:
        """Give the params back."""
        return dict(task.params)
