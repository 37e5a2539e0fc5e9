"""The least that an agent can do."""

from __future__ import annotations

from typing import Any

from seedcore.task import Task


async def echo(task: Task) -> dict[str, Any]:
    """Give the params back."""
    return dict(task.params)
