"""Agents that do as little as possible."""

from __future__ import annotations

from typing import Any

from seedcore.core.task import Task


async def echo(task: Task) -> dict[str, Any]:
    """Return the params."""
    return dict(task.params)


class Quiet:
    """An agent with an empty life cycle."""

    def __init__(self, agent_id: str) -> None:
        self.agent_id = agent_id

    async def start(self) -> None:
        """Do nothing."""

    async def execute(self, task: Task) -> dict[str, Any]:
        """Return the params."""
        return dict(task.params)
