"""An agent for tests that starts slowly or not at all."""  # noqa: INP001

import asyncio


class Stubborn:
    """Starts after a delay, or fails to start."""

    def __init__(self, agent_id: str, *, start_s: float = 0.0, error: str = "") -> None:
        self.agent_id = agent_id
        self.start_s = start_s
        self.error = error

    async def start(self) -> None:
        """Wait, then start or fail."""
        await asyncio.sleep(self.start_s)
        if self.error:
            raise ValueError(self.error)

    async def execute(self, task: object) -> str:
        """Return the id of this agent and the task."""
        return f"{self.agent_id}: {task}"
