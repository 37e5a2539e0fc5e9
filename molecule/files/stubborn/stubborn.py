"""An agent that does not come up as it should."""  # noqa: INP001

import asyncio


class Stubborn:
    """Takes its time to start, or refuses to."""

    def __init__(self, agent_id: str, *, start_s: float = 0.0, error: str = "") -> None:
        self.agent_id = agent_id
        self.start_s = start_s
        self.error = error

    async def start(self) -> None:
        """Start, or not."""
        await asyncio.sleep(self.start_s)
        if self.error:
            raise ValueError(self.error)

    async def execute(self, task: object) -> str:
        """Say who did it."""
        return f"{self.agent_id}: {task}"
