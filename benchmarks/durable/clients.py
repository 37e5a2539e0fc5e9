"""Clients of the long test: they submit durable tasks through the HTTP client, and keep what they were told."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from benchmarks.durable.verdict import Told
from seedcore.client import AsyncClient
from seedcore.core.settings import Settings

CALLERS = 5
IN_FLIGHT = 4
ANSWER_TIMEOUT_S = 90.0
# Shares of tasks that a client sends a second time: as it was, and with other params under the same key.
TWICE, OTHER_PARAMS = 0.05, 0.01


class Clients:
    """Callers that submit one task after the other, each with a key of its own.

    Args:
        settings: Where the Coordinator is.
        kinds: The task types, drawn at random.
        seed: Seed of the draws.
    """

    def __init__(self, settings: Settings, kinds: list[str], *, seed: int) -> None:
        self._settings = settings
        self._kinds = kinds
        self._seed = seed
        self._stopping = asyncio.Event()
        self.told: dict[str, Told] = {}
        # Since when a client waits for the end of a task, by key.
        self.waiting: dict[str, float] = {}
        self.refused = 0

    def stop(self) -> None:
        """Let each caller end with its present task."""
        self._stopping.set()

    async def run(self) -> None:
        """Submit tasks until :meth:`stop`."""
        async with AsyncClient(self._settings, transport="http") as client:
            callers = (self._call(client, number) for number in range(CALLERS * IN_FLIGHT))
            await asyncio.gather(*callers)

    async def _call(self, client: AsyncClient, number: int) -> None:
        draw = random.Random(f"{self._seed}-{number}")  # noqa: S311 - a choice, not a secret
        turn = 0
        while not self._stopping.is_set():
            turn += 1
            key = f"{number}-{turn}"
            kind, params = draw.choice(self._kinds), {"n": key, "seconds": draw.choice((0, 0.02, 0.2))}
            task = {"type": kind, "params": params}
            told = self.told[key] = Told(kind)
            await self._submit(client, task, key, told)
            if draw.random() < TWICE:
                await self._submit(client, task, key, told)
            if draw.random() < OTHER_PARAMS and told.ids:
                other = {"type": kind, "params": {**params, "n": "another"}}
                answer = await client.submit(other, durable=True, key=key, timeout_s=ANSWER_TIMEOUT_S)
                told.taken_with_other_params = answer.get("error_type") != "KeyConflictError"

    async def _submit(self, client: AsyncClient, task: dict[str, Any], key: str, told: Told) -> None:
        self.waiting[key] = time.monotonic()
        answer = await client.submit(task, durable=True, key=key, timeout_s=ANSWER_TIMEOUT_S)
        del self.waiting[key]
        if "id" not in answer:
            # It may have been accepted: the last request may have got no answer.
            self.refused += 1
            return
        told.ids.add(str(answer["id"]))
        if answer.get("success") is not None:
            told.outcomes.append("done" if answer["success"] else str(answer.get("state")))
